//! What a machine is told, and what it answers.

use super::Phase;
use crate::job::{JobRef, Lease, State};
use crate::name::{Group, LimitKey, Tenant};

/// What a worker says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Done.
    Succeeded,
    /// Not done; with `is_final`, trying again is no use.
    Failed {
        /// Trying again is no use.
        is_final: bool,
    },
    /// Stopped.
    Cancelled,
    /// Given back, not begun: no failure, and somebody else's at once.
    Returned,
    /// Done for now: it runs again, not before this.
    Again {
        /// Not before this, milliseconds since 1970.
        at_ms: u64,
    },
}

/// What becomes of a job whose attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is tried again, not before this, milliseconds since 1970.
    Retry {
        /// Not before this, milliseconds since 1970.
        at_ms: u64,
    },
    /// It has come to its end.
    End(State),
}

/// A job that a worker may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// What the worker shows.
    pub lease: Lease,
    /// Until when, without a sign of life, milliseconds since 1970.
    pub expires_ms: u64,
    /// What the job's owner gave it, bytes.
    pub bytes: u32,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Until when the job is the worker's now, milliseconds since 1970.
    pub expires_ms: u64,
    /// Somebody wants the work stopped.
    pub cancel_asked: bool,
}

/// What is known of the worker of a lease that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It has not been told: the lease begins anew.
    Untold,
    /// It is there, and has not said that it begins, as it promised: the attempt is no failure of the job.
    Unbegun,
    /// It has begun, or may have: the attempt has failed.
    Begun,
}

/// How a lease ended without a word of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The worker was silent: the attempt has failed.
    Silent,
    /// The attempt took longer than its job allows: it has failed, and its worker is to stop.
    TooLong,
    /// The worker was silent, and had not begun: no failure.
    Unbegun,
}

/// What a job waits for that has not come to its end and that no worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its time, milliseconds since 1970.
    Time(u64),
    /// Its task group is paused.
    Paused,
    /// A limit, under which as many jobs run as may.
    Limit {
        /// Which.
        key: LimitKey,
        /// Jobs that run.
        running: u32,
        /// Jobs that may.
        max: u32,
    },
    /// A rate that has no token.
    Rate {
        /// Which.
        key: LimitKey,
        /// When the next comes, milliseconds since 1970.
        at_ms: u64,
    },
    /// Its turn: other jobs go before it, or no worker asks.
    Turn,
}

/// A lease that ended without a word of its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Which.
    pub lease: Lease,
    /// How it came to that.
    pub how: Over,
    /// What becomes of the job.
    pub next: Next,
    /// Whose it is, and what it is called.
    pub called: Option<(Tenant, JobRef)>,
}

/// A limit of which a worker says again and again how many jobs it lets run at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floating {
    /// So many now.
    pub max: u32,
    /// How often a worker is asked, milliseconds.
    pub refresh_ms: u32,
    /// Which workers are asked.
    pub group: Group,
}

/// What calling a job off does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It has come to its end.
    Now,
    /// Its worker is told.
    Asked,
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// That have not come to their end.
    pub active: usize,
    /// Of these, that a worker has.
    pub running: usize,
}

/// How many jobs of a task group there are that have not come to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupCounts {
    /// Whose time has not come.
    pub early: u64,
    /// That could run, but for limits and workers.
    pub ready: u64,
    /// That a worker has.
    pub running: u64,
    /// None is given out.
    pub is_paused: bool,
}

impl GroupCounts {
    pub(super) fn of(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Early => &mut self.early,
            Phase::Ready => &mut self.ready,
            Phase::Running => &mut self.running,
        }
    }
}
