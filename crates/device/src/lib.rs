//! A block device as a trait, between what stores bytes and what serves them.
//!
//! Participants: a *device* stores bytes (a volume, a snapshot, memory). A *front end* reads and
//! writes them for others (a block protocol, an import, a copy). Both know this crate, and neither
//! knows the other.
//!
//! The path of a request through an NBD server over a volume:
//!
//! ```text
//! socket ─► session ──► Device::try_write ─► volume, log             on the session's thread
//!             │             │ WouldBlock
//!             └─ future ◄───┘
//!                  └──► Device::write ─► Device::flush if FUA        may wait
//! ```
//!
//! A read goes the same way, and its bytes go straight to the reply's buffer. Between session and
//! volume there is one call through the trait and one conversion, that of an error. A request that
//! waits costs one boxed future here; a request that need not wait costs none.
//!
//! Goals: one trait for all front ends; a fast path without waiting or allocation; errors that tell
//! a client what to do. Non-goals: names of devices, attaching, sizes that change, protocols'
//! numbers.
//!
//! Must hold:
//!
//! - the crate knows no bucket, volume or protocol. Without the feature `stores` it does no IO, and
//!   needs no runtime;
//! - every implementation passes [`conformance`].
#![forbid(unsafe_code)]

pub mod conformance;
mod device;
mod error;
mod geometry;
pub mod memory;
mod status;
#[cfg(feature = "stores")]
pub mod store;
pub mod wrap;

pub use device::{Attempt, Content, Device};
pub use error::{Error, ErrorKind, Result};
pub use geometry::{Geometry, SECTOR_BYTES_MIN};
pub use status::StatusRange;
