//! The job broker of a node, opened beside the engine.
//!
//! Must hold: nothing in it keeps volumes from being served. If its database does not answer,
//! callers get the reason, and the node opens it again.

pub(crate) mod host;
mod local_logs;
mod log_note;
mod metrics;
mod not_open;
mod opener;
mod owners;

pub(crate) use host::JobsHost;
pub(crate) use opener::Opener;
