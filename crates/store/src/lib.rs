//! Skerry's objects in an object store: writing them, reading them, and deleting them.
//!
//! The folders are layers, from above; no layer imports one above it, and `tests/layers.rs` holds
//! that:
//!
//! * [`fsck`] checks a whole bucket.
//! * [`space`] deletes what nothing holds.
//! * [`refs`] has names, refs and views, and carries take-overs out.
//! * [`map`] and [`blocks`] fetch and cache immutable data, and trust nothing that they have not
//!   verified. [`map`] writes new maps, too.
//! * [`objects`] talks to the store. Its [`bucket`](objects::bucket) is the one door, with
//!   conditional creates, the one retry policy and ranged reads. [`url`](objects::url) opens it,
//!   and [`probe`](objects::probe) refuses a store that can't be trusted. Two wrappers count calls
//!   and break them on purpose: [`meter`](objects::meter) and [`faulty`](objects::faulty).
//! * [`cache`] has copies of fetched data.
//!
//! Nothing here reads a clock, an environment variable or a source of randomness of its own.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod cache;
pub mod error;
pub mod fsck;
pub mod map;
pub mod objects;
pub mod refs;
pub mod rests;
pub mod space;

pub use error::{Error, ErrorKind, Result};
