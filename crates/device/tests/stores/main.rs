//! The stores: each passes the conformance suite and keeps what it acknowledged.

mod file;
mod shards;
mod sparse;
