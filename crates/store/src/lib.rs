//! Skerry's objects in an object store: writing them, reading them, and deleting them.
//!
//! The lower half talks to the store. [`bucket`] is the one door, with conditional creates, the one
//! retry policy and ranged reads. [`url`] opens it, and [`probe`] refuses a store that can't be
//! trusted. [`meter`] counts calls, and [`faulty`] breaks them on purpose. [`nodes`] and [`blocks`]
//! fetch and cache immutable data, and trust nothing that they have not verified.
//!
//! Nothing here reads a clock, an environment variable or a source of randomness of its own.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod bucket;
pub mod cache;
pub mod catalog;
pub mod changes;
pub mod checkpoint;
pub mod claim;
pub mod collect;
pub mod dead;
mod direct;
pub mod error;
pub mod family;
pub mod faulty;
mod fresh;
pub mod fsck;
mod health;
pub mod line;
pub mod litter;
pub mod liveness;
pub mod local;
pub mod meter;
pub mod node_writer;
pub mod nodes;
pub mod pin;
pub mod probe;
#[cfg(feature = "cloud")]
mod renew;
pub mod rests;
pub mod root;
pub mod segment_io;
pub mod tree;
pub mod tries;
pub mod update;
pub mod url;
pub mod view;

#[cfg(test)]
mod testing;

pub use error::{Error, ErrorKind, Result};
