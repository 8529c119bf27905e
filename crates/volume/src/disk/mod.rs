//! Disks: a volume's content as blocks.

pub mod device;

pub(crate) mod edges;
pub(crate) mod extents;
mod fsck;
pub(crate) mod parts;
mod readahead;
pub(crate) mod reading;
pub(crate) mod volumes;
