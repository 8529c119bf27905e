//! The job broker of a node: opened beside the engine, served at its addresses.
//!
//! Must hold: nothing in it keeps volumes from being served. If its database does not answer,
//! callers get the reason, and the node opens it again.

mod convert;
mod host;
mod in_time;
mod log_note;
mod metrics;
mod open;
mod owners;
mod service;
mod work;

pub(crate) use host::JobsHost;
pub(crate) use open::Opener;
pub(crate) use service::JobsService;
