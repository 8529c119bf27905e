//! The engine: every volume of one data directory.
//!
//! It knows the node's log and the bucket. It does not know sockets, protocols or configuration
//! files. [`Engine`] has the open volumes, [`volume::Volume`] is a volume that this node writes,
//! and front ends attach to a [`Device`].
//!
//! `streams` is the engine itself, and `disk` makes disks of it.
#![forbid(unsafe_code)]

// The rig of the tests names this crate as the tests beside it do.
#[cfg(test)]
extern crate self as skerry_volume;

pub mod context;
mod disk;
pub mod error;
pub mod info;
pub mod settings;
mod streams;

pub use context::EngineParts;
pub use disk::attach::device::{self, Device};
pub use disk::{Disk, Engine};
pub use error::{Cause, Error, ErrorKind, Result};
pub use info::{
    CreateVolume, DiffRange, FsckReport, NodeStatus, Released, SnapshotState, SnapshotView, Space,
    Unreadable, VolumeInfo,
};
pub use settings::EngineSettings;
pub use skerry_device::StatusRange;
pub use streams::stream::payload;
pub use streams::tails::parking::Parking;
pub use streams::tails::tail;

/// Volumes that this node writes.
pub mod volume {
    pub use crate::disk::Volume;
    pub use crate::streams::stream::{Attempt, IoCounts, Stream};
}
