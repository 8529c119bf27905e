//! What Skerry keeps in an object store, and how it gets there and back.
//!
//! The lower half talks to the store: [`bucket`] is the one door (conditional creates, the one retry
//! policy, ranged reads), [`url`] opens it, [`probe`] refuses a store that cannot be trusted,
//! [`meter`] counts and [`faulty`] breaks it on purpose; [`nodes`] and [`blocks`] fetch and cache
//! what is immutable, and believe nothing that they have not verified.
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
