//! The wrappers: each passes the conformance suite, agrees with a naive model, and keeps the
//! promise that is its own.

mod dirty;
mod gate;
mod mirror;
mod model;
mod overlay;
mod paged;
mod record;
mod redundant;
mod requests;
mod shape;
mod stage;
mod volatility;
mod write_cache;
