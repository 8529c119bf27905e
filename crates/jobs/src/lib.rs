//! The broker of durable jobs: what people want done, who is doing it, and how it ended.
//!
//! All decisions are made by one deterministic machine in memory ([`machine`]): which job is next, who holds it,
//! which limits it waits for. It knows neither a database nor a clock nor a socket, and is rebuilt from records
//! when it is opened. This crate knows nothing of volumes.

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
