//! A job as it is kept: what was asked for, where it stands, and what was tried.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::TenantHash;
use crate::name::{JobId, LimitKey, Tenant, Worker};
use crate::spec::{JobSpec, PAYLOAD_BYTES_MAX};
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

/// Attempts that a job remembers; of more, the newest. Their numbers go on.
pub const ATTEMPTS_KEPT: usize = 64;
/// Bytes of results and errors that a job remembers, room for the two largest results; of more, the newest attempts.
pub const HISTORY_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;
/// The longest code and the longest message of an error, bytes; what is longer is cut off.
pub const ERROR_BYTES_MAX: usize = 4096;

/// A job's place in the history of its tenant: never used twice for one hash, and older jobs have lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A job's identity. It stays one when shards are split or merged, which may have given out the same places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The hash of its tenant.
    pub hash: TenantHash,
    /// Its place.
    pub seq: Seq,
}

/// The number of an attempt: the first is 1, and restarts go on counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNo(pub u32);

/// Which opening of a shard gave a lease: each opening has a number of its own, also if what the one before wrote is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u32);

/// A lease: the fencing token of an attempt. An attempt is begun once only within an epoch, so that a lease which has
/// passed to another worker is told from the one that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The hash of the job's tenant.
    pub hash: TenantHash,
    /// The job's place.
    pub seq: Seq,
    /// The attempt.
    pub attempt: AttemptNo,
    /// The opening of the shard that gave it.
    pub epoch: Epoch,
}

impl Lease {
    /// The job.
    pub fn key(&self) -> JobKey {
        JobKey { hash: self.hash, seq: self.seq }
    }
}

/// What a worker shows with everything that it says of a job: its lease, and where the job is found when it has come to
/// its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The lease.
    pub lease: Lease,
    /// Whose job it is.
    pub tenant: Tenant,
    /// The job's id, if its owner named it.
    pub id: Option<JobId>,
}

impl Ticket {
    /// The ticket of a lease, of a job that is called so.
    pub(crate) fn of(lease: Lease, (tenant, job): &(Tenant, JobRef)) -> Self {
        let id = match job {
            JobRef::Named(id) => Some(id.clone()),
            JobRef::Assigned(_) => None,
        };
        Self { lease, tenant: tenant.clone(), id }
    }

    /// What the job is called.
    pub fn job(&self) -> JobRef {
        self.id.clone().map_or(JobRef::Assigned(self.lease.seq), JobRef::Named)
    }

    /// An error with this ticket; if its lease does not hold, the job is named: a lease has only its place.
    pub(crate) fn named(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::LeaseLost {
            return error;
        }
        let detail = format!(
            "attempt {} of job {} of tenant {} is not under way: its lease ended; stop the work",
            self.lease.attempt.0,
            self.job(),
            self.tenant
        );
        Error::new(ErrorKind::LeaseLost, detail)
    }
}

/// What the ids of jobs begin with that were given none.
const ASSIGNED: char = '~';
/// What the ids of jobs begin with that refresh a limit.
const REFRESHER: &str = "~limit/";

/// What a job is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JobRef {
    /// As its owner named it.
    Named(JobId),
    /// By its place: it was given no name.
    Assigned(Seq),
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(id) => id.fmt(f),
            Self::Assigned(seq) => write!(f, "{ASSIGNED}{:x}", seq.0),
        }
    }
}

impl FromStr for JobRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = match text.strip_prefix(ASSIGNED) {
            Some(digits) if !text.starts_with(REFRESHER) => digits,
            _ => return JobId::new(text).map(Self::Named),
        };
        let seq = u64::from_str_radix(digits, 16).map(|seq| Self::Assigned(Seq(seq)));
        // One text for one job.
        seq.ok().filter(|job| job.to_string() == text).ok_or_else(|| {
            Error::invalid(format!(
                "{text:?} is not a valid job id: one that begins with '~' is the broker's own"
            ))
        })
    }
}

/// The id of the job that refreshes a limit.
pub(crate) fn refresher(limit: &LimitKey) -> JobId {
    JobId::new(&format!("{REFRESHER}{limit}")).expect("a limit's name is short enough")
}

/// The limit that a job refreshes, if it is such a job.
pub(crate) fn refreshed_by(id: &JobId) -> Option<LimitKey> {
    LimitKey::new(id.as_str().strip_prefix(REFRESHER)?).ok()
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits: for its time, for a limit, for a worker.
    Scheduled,
    /// A worker has it.
    Running,
    /// It is done.
    Succeeded,
    /// It was tried for the last time: a dead letter.
    Failed,
    /// Somebody called it off.
    Cancelled,
}

impl State {
    /// Nothing more happens by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// For people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Done; with what came out.
    Succeeded(Bytes),
    /// The worker says that it failed.
    Failed(JobError),
    /// The worker gave no sign of life.
    Expired,
    /// The worker stopped, as it was told to.
    Cancelled,
    /// The worker gave it back, not begun, or was never told of it.
    Returned,
    /// It took longer than its job lets an attempt take.
    TooLong,
}

/// Why an attempt failed, as the worker tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// What kind, for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// Trying again is no use.
    pub is_final: bool,
}

impl JobError {
    /// The same, with no text that is too long.
    pub(crate) fn shortened(mut self) -> Self {
        for text in [&mut self.code, &mut self.message] {
            let end = text.floor_char_boundary(ERROR_BYTES_MAX);
            text.truncate(end);
        }
        self
    }
}

/// One time that a worker had the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number.
    pub number: AttemptNo,
    /// The opening of the shard in which it began.
    pub epoch: Epoch,
    /// Who had it.
    pub worker: Worker,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// When and how it ended, unless it goes on.
    pub ended: Option<(u64, Ending)>,
}

/// What workers said of attempts, bytes: results and errors.
pub(crate) fn history_bytes(attempts: &[Attempt]) -> usize {
    let said = attempts.iter().map(|attempt| match &attempt.ended {
        Some((_, Ending::Succeeded(result))) => result.len(),
        Some((_, Ending::Failed(error))) => error.code.len() + error.message.len(),
        _ => 0,
    });
    said.sum()
}

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its place.
    pub seq: Seq,
    /// What was asked for, with what was changed since.
    pub spec: JobSpec,
    /// Where it stands.
    pub state: State,
    /// When it was taken, milliseconds since 1970.
    pub created_ms: u64,
    /// When it came to its end, if it has.
    pub ended_ms: Option<u64>,
    /// Somebody wants it stopped.
    pub cancel_asked: bool,
    /// How many attempts do not count as tries: those before it was restarted last, and those given back.
    pub uncounted: u32,
    /// What was tried, oldest first.
    pub attempts: Vec<Attempt>,
}

impl Job {
    /// A job that was just asked for.
    pub fn new(seq: Seq, spec: JobSpec, now_ms: u64) -> Self {
        Self {
            seq,
            spec,
            state: State::Scheduled,
            created_ms: now_ms,
            ended_ms: None,
            cancel_asked: false,
            uncounted: 0,
            attempts: Vec::new(),
        }
    }

    /// Its identity.
    pub fn key(&self) -> JobKey {
        JobKey { hash: TenantHash::of(&self.spec.tenant), seq: self.seq }
    }

    /// What it is called.
    pub fn name(&self) -> JobRef {
        match &self.spec.id {
            Some(id) => JobRef::Named(id.clone()),
            None => JobRef::Assigned(self.seq),
        }
    }

    /// What its owner and its workers gave it, bytes: names, payload, metadata, results and errors.
    pub fn bytes(&self) -> usize {
        const NUMBERS: usize = 32;
        let workers = self.attempts.iter().map(|attempt| NUMBERS + attempt.worker.as_str().len());
        self.spec.bytes() + workers.sum::<usize>() + history_bytes(&self.attempts)
    }

    /// Of these, payload and results.
    pub fn content_bytes(&self) -> usize {
        let results = self.attempts.iter().map(|attempt| match &attempt.ended {
            Some((_, Ending::Succeeded(result))) => result.len(),
            _ => 0,
        });
        self.spec.payload.len() + results.sum::<usize>()
    }

    /// How many attempts have begun.
    pub fn begun(&self) -> AttemptNo {
        self.attempts.last().map_or(AttemptNo(0), |attempt| attempt.number)
    }

    /// A worker has it.
    pub fn lease(&mut self, attempt: AttemptNo, epoch: Epoch, worker: Worker, now_ms: u64) {
        let begun = Attempt { number: attempt, epoch, worker, started_ms: now_ms, ended: None };
        self.begin(begun);
    }

    /// This attempt is under way.
    pub(crate) fn begin(&mut self, attempt: Attempt) {
        if self.attempts.len() >= ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
        self.state = State::Running;
    }

    /// What the worker of its newest attempt shows, if it has begun.
    pub fn ticket(&self) -> Option<Ticket> {
        let Attempt { number, epoch, .. } = self.attempts.last()?;
        let JobKey { hash, seq } = self.key();
        let lease = Lease { hash, seq, attempt: *number, epoch: *epoch };
        Some(Ticket { lease, tenant: self.spec.tenant.clone(), id: self.spec.id.clone() })
    }

    /// The attempt that is under way, if a worker has the job.
    pub(crate) fn under_way(&self) -> Option<&Attempt> {
        let last = self.attempts.last().filter(|last| last.ended.is_none());
        last.filter(|_| self.state == State::Running)
    }

    /// The attempt that goes on has ended.
    pub fn end_attempt(&mut self, now_ms: u64, ending: Ending) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended.get_or_insert((now_ms, ending));
        }
        while history_bytes(&self.attempts) > HISTORY_BYTES_MAX {
            self.attempts.remove(0);
        }
    }

    /// It waits again, until `start_at_ms`.
    pub fn wait(&mut self, start_at_ms: u64) {
        self.state = State::Scheduled;
        self.spec.start_at_ms = start_at_ms;
    }

    /// How an attempt ended, if it is remembered and has.
    pub fn ending(&self, lease: Lease) -> Option<&Ending> {
        let is_it = |known: &&Attempt| known.number == lease.attempt && known.epoch == lease.epoch;
        let found = self.attempts.iter().find(is_it)?;
        found.ended.as_ref().map(|(_, ending)| ending)
    }

    /// What came out of it, if it succeeded.
    pub fn result(&self) -> Option<&Bytes> {
        match self.attempts.last()?.ended.as_ref()? {
            (_, Ending::Succeeded(result)) if self.state == State::Succeeded => Some(result),
            _ => None,
        }
    }

    /// It has come to its end.
    pub fn finish(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.ended_ms = Some(now_ms);
    }

    /// It begins anew, with its history.
    pub fn restart(&mut self) {
        self.state = State::Scheduled;
        self.spec.start_at_ms = 0;
        self.ended_ms = None;
        self.cancel_asked = false;
        self.uncounted = self.begun().0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_one_name() {
        for text in ["mail-1", "~0", "~ff", "~ffffffffffffffff", "~limit/api"] {
            assert_eq!(text.parse::<JobRef>().expect("a name").to_string(), text);
        }
        for bad in ["", "~", "~x", "~00", "~FF", "~+1", "~10000000000000000"] {
            assert!(bad.parse::<JobRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn history_is_bounded_and_numbers_go_on() {
        let mut job = Job::new(Seq(1), JobSpec::default(), 5);
        let worker = Worker::new("w").expect("a name");
        for number in 1..=100 {
            job.lease(AttemptNo(number), Epoch(1), worker.clone(), 10);
            job.end_attempt(11, Ending::Expired);
            job.end_attempt(12, Ending::Cancelled);
        }
        assert_eq!(job.attempts.len(), ATTEMPTS_KEPT);
        assert_eq!(job.begun(), AttemptNo(100));
        assert_eq!(job.attempts[0].ended, Some((11, Ending::Expired)), "an end is final");
        for number in 101..=103 {
            job.lease(AttemptNo(number), Epoch(1), worker.clone(), 10);
            job.end_attempt(11, Ending::Succeeded(vec![1; PAYLOAD_BYTES_MAX].into()));
        }
        let numbers: Vec<u32> = job.attempts.iter().map(|attempt| attempt.number.0).collect();
        assert_eq!(numbers, [102, 103], "more than two of the largest are not kept");
        job.finish(State::Failed, 13);
        job.restart();
        assert_eq!((job.state, job.uncounted), (State::Scheduled, 103));
    }
}
