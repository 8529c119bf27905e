//! The guest's side: block protocols, over two small traits that the engine implements.
//!
//! Participants: a *client* (QEMU, the kernel, libnbd) on a socket; this crate, which speaks the
//! protocol; an [`Exports`] with its [`Export`]s, which store the bytes.
//!
//! This crate does not know volumes, snapshots, logs or buckets, and keeps no data of its own. An
//! acknowledgement on the wire is one that the [`Export`] gave. Must hold:
//!
//! - every byte that arrives is hostile: none makes it panic, or allocate past [`nbd::Limits`];
//! - a reply is sent once for each request, and only after the export has answered;
//! - a request that reached the export always runs to its end, even when its client is gone: no
//!   future of an export is cancelled half-way.

mod export;
pub mod memory;
pub mod nbd;

pub use export::{
    Attempt, ClientInfo, Content, Export, ExportInfo, Exports, IoError, IoErrorKind, OpenError,
    Purpose, StatusExtent, ZeroesOptions,
};
