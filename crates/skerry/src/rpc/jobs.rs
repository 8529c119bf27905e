//! The service of the jobs API.

mod attempts;
mod convert;
mod in_time;
mod service;
mod work;

pub(crate) use service::JobsService;
