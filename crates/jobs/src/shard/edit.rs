//! What happened to a job since it was last written.

use crate::job::{AttemptNo, Ending, Job, State};
use crate::machine::Next;
use crate::name::Worker;

/// A change of a job. The machine has made it; the record follows.
#[derive(Debug)]
pub(super) enum Edit {
    /// It is there now; it may have come to its end before.
    New(Box<Job>),
    /// A worker has it.
    Leased { attempt: AttemptNo, worker: Worker, at_ms: u64 },
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
}

impl Edit {
    /// Makes the change to a job; to the one that is new, by being it.
    pub(super) fn apply(self, job: &mut Job) {
        match self {
            Self::New(new) => *job = *new,
            Self::Leased { attempt, worker, at_ms } => job.lease(attempt, worker, at_ms),
            Self::AttemptEnded { at_ms, ending, next } => {
                job.end_attempt(at_ms, ending);
                match next {
                    Next::Retry { at_ms } => job.wait(at_ms),
                    Next::End(state) => job.finish(state, at_ms),
                }
            }
            Self::Priority(priority) => job.spec.priority = priority,
            Self::Expedited => job.spec.start_at_ms = 0,
            Self::CancelAsked => job.cancel_asked = true,
            Self::Cancelled { at_ms } => job.finish(State::Cancelled, at_ms),
        }
    }
}
