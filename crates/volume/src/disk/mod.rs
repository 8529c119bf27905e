//! Disks: volumes whose content is blocks. A [`Volume`] is a stream that carries a disk.

pub(crate) mod attach;
mod build;
mod edges;
mod extents;
mod fsck;
mod io;
mod parts;
mod payload;
pub(crate) mod reading;
mod volumes;

pub use payload::Disk;

use crate::streams;

/// A disk that this node writes.
pub type Volume = streams::stream::Stream<Disk>;

/// The engine of one node.
pub type Engine = streams::engine::Engine<Disk>;
