//! The engine: every volume of one data folder.
//!
//! It knows the node's log and the bucket; it does not know sockets, protocols or configuration
//! files. [`Node`] knows which are open, [`volume::Volume`] a volume that this node writes,
//! [`Device`] what a protocol attaches to.
//!
//! [`mod@streams`] is the engine itself, [`mod@disk`] makes disks of it.
#![forbid(unsafe_code)]

pub mod context;
mod disk;
pub mod error;
pub mod info;
pub mod settings;
mod streams;

pub use disk::device;
pub use disk::device::Device;
pub use error::{Error, ErrorKind, Result};
pub use info::{
    CreateVolume, DiffRange, FsckReport, NodeStatus, Released, SnapshotState, SnapshotView,
    StatusRange, VolumeInfo,
};
pub use settings::EngineSettings;
pub use streams::node::{Node, NodeParts};
pub use streams::parking::Parking;
pub use streams::stream as volume;
pub use streams::{node, tail};
