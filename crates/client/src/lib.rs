//! Jobs, for programs: enqueue them, wait for them, and work on them.
//!
//! Participants: a *node*, which keeps the jobs (`skerry serve`); a [`Jobs`] client, which asks it;
//! a [`Worker`], which takes jobs from it and reports their outcomes. A job is done at least once.
//! A worker that dies or is cut off loses its lease, and another worker gets the job. The node
//! refuses reports under a lost lease. So the worker stops the handler and drops its outcome.
#![forbid(unsafe_code)]

mod jobs;
mod new_job;
mod session;
mod task;
mod worker;

pub use jobs::{Enqueued, Jobs};
pub use new_job::NewJob;
pub use skerry_api::{Address, Error, ErrorKind, Result, v1};
pub use task::{Failure, Task};
pub use worker::{Contact, Worker};
