//! The guest's side: block protocols, over the trait of devices.
//!
//! Participants: a *client* (QEMU, the kernel, libnbd) on a socket; this crate, which speaks the
//! protocol; an [`Exports`], which finds devices. A [`Device`](skerry_device::Device) stores the
//! bytes.
//!
//! This crate does not know volumes, snapshots, logs or buckets, and keeps no data of its own. An
//! acknowledgement on the wire is one that the device gave. Must hold:
//!
//! - every byte that arrives is hostile: none makes it panic, or allocate past [`nbd::Limits`];
//! - a reply is sent once for each request, and only after the device has answered;
//! - a request that reached the device always runs to its end, even when its client is gone: no
//!   future of a device is cancelled half-way.

mod export;
mod fixed;
pub mod nbd;

pub use export::{ClientInfo, Export, ExportInfo, Exports, OpenError};
pub use fixed::FixedExports;
