//! The broker of durable jobs: specifications, workers and outcomes.
//!
//! One deterministic machine in memory ([`machine`]) makes all decisions: which job is next, which
//! worker holds it, which limits it waits for. The machine knows no database, clock or socket, and
//! is rebuilt from records when its shard is opened. This crate knows nothing of volumes.

pub mod broker;
mod cache;
pub mod chain;
pub mod database;
mod db_clock;
pub mod error;
pub mod hash;
pub mod job;
pub mod keys;
mod lease_row;
pub mod limit;
pub mod machine;
pub mod name;
pub mod opening;
pub mod owner;
mod rate_row;
mod reclaim;
pub mod record;
pub mod retry;
pub mod shard;
mod slots;
pub mod spec;
mod steady;
mod ticket;
pub mod wal;

pub use error::{Error, ErrorKind, Result};
