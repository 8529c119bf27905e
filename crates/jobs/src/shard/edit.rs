//! What happened to a job since it was last written.

use crate::job::{AttemptNo, Ending, Epoch, Job, State};
use crate::machine::Next;
use crate::name::Worker;

/// A change of a job. The machine has made it; the record follows.
#[derive(Debug)]
pub(super) enum Edit {
    /// It is there now.
    New(Box<Job>),
    /// It had come to its end, and begins anew.
    Restarted(Box<Job>),
    /// A worker has it.
    Leased { attempt: AttemptNo, epoch: Epoch, worker: Worker, at_ms: u64 },
    /// Its attempt is over.
    AttemptEnded { at_ms: u64, ending: Ending, next: Next },
    /// Its priority is another.
    Priority(u8),
    /// It may start at once.
    Expedited,
    /// Its worker is to stop.
    CancelAsked,
    /// It was called off while it waited.
    Cancelled { at_ms: u64 },
    /// It is gone. Nothing follows.
    Deleted,
    /// It had come to its end, and is gone. Nothing follows.
    EndedDeleted(Box<Job>),
}

impl Edit {
    /// True of what says by itself what the job is.
    pub(super) fn begins(&self) -> bool {
        matches!(self, Self::New(_) | Self::Restarted(_) | Self::EndedDeleted(_))
    }

    /// Makes the change to a job; to the one that is new, by being it.
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
            Self::Cancelled { at_ms } => job.finish(State::Cancelled, at_ms),
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
