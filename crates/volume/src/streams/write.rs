//! The way of acknowledged records into the bucket: flushes, destage and checkpoints.

mod apply;
pub(crate) mod checkpoint;
pub(crate) mod destage;
pub(crate) mod flush;
pub(crate) mod paced;
