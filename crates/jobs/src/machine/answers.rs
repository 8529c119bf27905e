//! Inputs of a machine, and its answers.

use super::Phase;
use crate::job::{JobRef, JobState, Lease};
use crate::name::{Group, LimitKey, Tenant};

/// A worker's report of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The job is done.
    Succeeded,
    /// The job is not done. With `is_final`, another try would not help.
    Failed {
        /// True if another try would not help.
        is_final: bool,
    },
    /// The worker stopped, as it was told to.
    Cancelled,
    /// The worker gives the job back without having begun. No failure, and the next worker gets it
    /// at once.
    Returned,
    /// Done for now: the job runs again, not before this time.
    Again {
        /// The earliest time, milliseconds since 1970.
        at_ms: u64,
    },
}

/// Fate of a job whose attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The job is tried again, not before this time.
    Retry {
        /// The earliest time, milliseconds since 1970.
        at_ms: u64,
    },
    /// The job has ended.
    End(JobState),
}

/// A job for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The lease that the worker shows.
    pub lease: Lease,
    /// End of the lease without a heartbeat, milliseconds since 1970.
    pub expires_ms: u64,
    /// Size of the job's spec, bytes.
    pub bytes: u32,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// New end of the lease, milliseconds since 1970.
    pub expires_ms: u64,
    /// True if the worker must stop: the job was cancelled.
    pub cancel_asked: bool,
}

/// The state of the worker whose lease has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The worker has not heard of the job: the lease begins anew.
    Untold,
    /// The worker is connected, and promised to say when it begins, and has not. The attempt is no
    /// failure of the job.
    Unbegun,
    /// The worker has begun, or may have: the attempt has failed.
    Begun,
}

/// The reason why a lease ended without its worker's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The worker was silent: the attempt has failed.
    Silent,
    /// The attempt took longer than its job allows. It has failed, and its worker must stop.
    TooLong,
    /// The worker was silent, and had not begun: no failure.
    Unbegun,
}

/// The reason why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its start time, milliseconds since 1970.
    Time(u64),
    /// Its task group is paused.
    Paused,
    /// A limit under which the allowed number of jobs run.
    Limit {
        /// The limit.
        key: LimitKey,
        /// Jobs that run.
        running: u32,
        /// Jobs that may run.
        max: u32,
    },
    /// A rate without a token.
    Rate {
        /// The rate.
        key: LimitKey,
        /// Time of the next token, milliseconds since 1970.
        at_ms: u64,
    },
    /// Its turn: other jobs go before it, or no worker asks.
    Turn,
}

/// A lease that ended without its worker's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The lease.
    pub lease: Lease,
    /// The reason.
    pub how: Over,
    /// Fate of the job.
    pub next: Next,
    /// The job's tenant, and its id or place.
    pub called: Option<(Tenant, JobRef)>,
}

/// A floating limit: a worker reports again and again how many jobs it lets run at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floating {
    /// The present maximum.
    pub max: u32,
    /// Interval at which a worker is asked, milliseconds.
    pub refresh_ms: u32,
    /// Task group of the workers that are asked.
    pub group: Group,
}

/// Effect of cancelling a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The job has ended.
    Now,
    /// The job's worker is told.
    Asked,
}

/// Numbers of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Jobs that have not ended.
    pub active: usize,
    /// Jobs of these that a worker has.
    pub running: usize,
}

/// Numbers of a task group's jobs that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupCounts {
    /// Jobs that wait for their start time.
    pub early: u64,
    /// Jobs that could run, but for limits and workers.
    pub ready: u64,
    /// Jobs that a worker has.
    pub running: u64,
    /// True if the group is paused: workers get none of its jobs.
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
