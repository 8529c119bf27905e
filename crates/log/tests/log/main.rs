//! Tests of the log: one binary, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "tests")]

mod behaviour;
mod common;
mod damage;
mod during;
mod exhaustive;
mod file_disk;
mod model;
mod room;
mod sample;
mod threads;
