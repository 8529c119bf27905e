//! Jobs, for programs: enqueue them, wait for them, and do them.
//!
//! Participants: a *node*, which keeps the jobs (`skerry serve`); a [`Jobs`] client, which asks it; a [`Worker`], which
//! gets work from it and says what came of it. A job is done at least once: a worker that dies or is cut off loses
//! its lease, and another one gets the job. What a worker says with a lease that is lost is refused, so the handler
//! is told to stop and its outcome is dropped.
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
pub use worker::Worker;
