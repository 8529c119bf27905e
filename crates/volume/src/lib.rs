//! The engine: every volume of one data folder.
//!
//! It knows the node's log and the bucket; it does not know sockets, protocols or configuration
//! files. [`Node`] knows which are open, [`volume::Volume`] a volume that this node writes,
//! [`Device`] what a protocol attaches to.
#![forbid(unsafe_code)]

pub mod context;
pub mod device;
pub mod error;
pub mod info;
pub mod node;
pub mod settings;
pub mod tail;
pub mod volume;

mod activity;
mod budget;
mod checkin;
mod collecting;
mod comeback;
mod deletion;
mod destage;
mod edges;
mod extents;
mod fence;
mod flush;
mod fsck;
mod heavy;
mod idle;
mod naming;
mod open;
mod parking;
mod parts;
mod pins;
mod pressure;
mod readahead;
mod reading;
mod recover;
mod refs;
mod scratch;
mod snaps;
mod snapshots;
mod state;
mod stuck;
mod sweep;
mod turns;
mod volumes;
mod waiting;

pub use device::Device;
pub use error::{Error, ErrorKind, Result};
pub use info::{
    CreateVolume, DiffRange, FsckReport, NodeStatus, Released, SnapshotState, SnapshotView,
    StatusRange, VolumeInfo,
};
pub use node::{Node, NodeParts};
pub use parking::Parking;
pub use settings::EngineSettings;
