//! The job broker of a node: opened beside the engine, served on the same addresses.
//!
//! What must hold: nothing of it keeps volumes from being served. If its database does not answer, callers are told
//! why, and it is opened again.

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
