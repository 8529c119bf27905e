//! Wrappers: each is a device over another device, and adds one thing.
//!
//! Participants: the *device below* stores the bytes; a *caller* uses the wrapper as any device.
//! Wrappers stack in any order, and each passes [`conformance`](crate::conformance).
//!
//! Must hold:
//!
//! - a wrapper starts no task and no thread: all work happens in its callers' futures;
//! - time comes from a clock that the caller passes in;
//! - a request past the end, or a write to a read-only device, changes nothing, not even in part.

mod bell;
mod block_set;
pub mod combine;
pub mod count;
pub mod dirty;
pub mod gate;
pub mod mirror;
pub mod order;
pub mod overlay;
pub mod paged;
mod range_lock;
pub mod read_only;
pub mod record;
pub mod redundant;
pub mod shape;
pub mod sleep;
pub mod split;
pub mod volatility;
pub mod write_cache;
