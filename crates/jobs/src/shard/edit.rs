//! Changes of a job since its record was last written.

use crate::job::{AttemptNo, Ending, Epoch, Job, JobState};
use crate::machine::Next;
use crate::name::Worker;

/// A change of a job. The machine has made it; the record follows.
#[derive(Debug)]
pub(super) enum Edit {
    /// The job is new.
    New(Box<Job>),
    /// The job had ended, and begins anew.
    Restarted(Box<Job>),
    /// A worker has the job.
    Leased { attempt: AttemptNo, epoch: Epoch, worker: Worker, at_ms: u64 },
    /// The job's attempt has ended.
    AttemptEnded { at_ms: u64, ending: Ending, next: Next },
    /// The job's priority has changed.
    Priority(u8),
    /// The job may start at once.
    Expedited,
    /// The job's worker is to stop.
    CancelAsked,
    /// The job was cancelled while it waited.
    Cancelled { at_ms: u64 },
    /// The job is gone. No change follows.
    Deleted,
    /// The job had ended, and is gone. No change follows.
    EndedDeleted(Box<Job>),
}

impl Edit {
    /// True if this change holds the whole job.
    pub(super) fn begins(&self) -> bool {
        matches!(self, Self::New(_) | Self::Restarted(_) | Self::EndedDeleted(_))
    }

    /// Makes the change to a job. A change that holds the whole job replaces it.
    pub(super) fn apply(self, job: &mut Job) {
        match self {
            Self::New(new) | Self::Restarted(new) | Self::EndedDeleted(new) => *job = *new,
            Self::Leased { attempt, epoch, worker, at_ms } => {
                job.lease(attempt, epoch, worker, at_ms);
            }
            Self::AttemptEnded { at_ms, ending, next } => end_attempt(job, at_ms, ending, next),
            Self::Priority(priority) => job.spec.priority = priority,
            Self::Expedited => job.spec.start_at_ms = 0,
            Self::CancelAsked => job.cancel_asked = true,
            Self::Cancelled { at_ms } => job.finish(JobState::Cancelled, at_ms),
            Self::Deleted => {}
        }
    }
}

fn end_attempt(job: &mut Job, at_ms: u64, ending: Ending, next: Next) {
    let again = match (&ending, next) {
        (Ending::Returned, Next::Retry { .. }) => job.uncounted + 1,
        (Ending::Succeeded(_), Next::Retry { .. }) => job.begun().0,
        _ => job.uncounted,
    };
    job.end_attempt(at_ms, ending);
    job.uncounted = again;
    match next {
        Next::Retry { at_ms } => job.wait(at_ms),
        Next::End(state) => job.finish(state, at_ms),
    }
}
