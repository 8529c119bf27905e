//! A job at rest: its specification, its state, and its attempts.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::TenantHash;
use crate::name::{JobId, LimitKey, Tenant, Worker};
use crate::spec::{JobSpec, PAYLOAD_BYTES_MAX};
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

/// Attempts that a job keeps; of more, the newest. Their numbers go on.
pub const ATTEMPTS_KEPT: usize = 64;
/// Bytes of results and errors that a job keeps: room for the two largest results. Of more, the
/// newest attempts.
pub const HISTORY_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;
/// The longest code and the longest message of an error, bytes; the rest is cut off.
pub const ERROR_BYTES_MAX: usize = 4096;

/// A job's place in the history of its tenant. Never used twice for one hash; older jobs have lower
/// ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A job's key. It stays unique when shards are split or merged, which may have given out equal
/// places.
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

/// The opening of a shard that gave a lease. Each opening has its own number, even if an earlier
/// opening's writes are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u32);

/// A lease: the fencing token of an attempt. Must hold: an attempt begins only once within an
/// epoch. So a lease that has passed to another worker differs from the one that holds.
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
    /// The job's key.
    pub fn key(&self) -> JobKey {
        JobKey { hash: self.hash, seq: self.seq }
    }
}

/// Shown by a worker with every report on a job: its lease, and the names that find an ended job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The lease.
    pub lease: Lease,
    /// The job's tenant.
    pub tenant: Tenant,
    /// The job's id, if its owner named it.
    pub id: Option<JobId>,
}

impl Ticket {
    /// Makes the ticket of a lease, from the job's name.
    pub(crate) fn of(lease: Lease, (tenant, job): &(Tenant, JobRef)) -> Self {
        let id = match job {
            JobRef::Named(id) => Some(id.clone()),
            JobRef::Assigned(_) => None,
        };
        Self { lease, tenant: tenant.clone(), id }
    }

    /// The job's name.
    pub fn job(&self) -> JobRef {
        self.id.clone().map_or(JobRef::Assigned(self.lease.seq), JobRef::Named)
    }

    /// Adds the job's name to an error if its lease does not hold: a lease has only its place.
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

/// Prefix of the ids of jobs that were given none. No shell reads it as anything else.
const ASSIGNED: char = '_';
/// The digits of such an id, hexadecimal: all that a place has.
const ASSIGNED_DIGITS: usize = 16;
/// The prefix that such ids had before. Their digits may lack the zeros in front.
const ASSIGNED_BEFORE: char = '~';
/// Prefix of the ids of refreshers.
const REFRESHER: &str = "~limit/";

/// A job's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JobRef {
    /// The id that its owner gave it.
    Named(JobId),
    /// The place of a job without an id.
    Assigned(Seq),
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(id) => id.fmt(f),
            Self::Assigned(seq) => write!(f, "{ASSIGNED}{:016x}", seq.0),
        }
    }
}

impl FromStr for JobRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(seq) = assigned(text) {
            return Ok(Self::Assigned(seq));
        }
        if text.starts_with(ASSIGNED_BEFORE) && !text.starts_with(REFRESHER) {
            let detail = "one that begins with '~' is the broker's own";
            return Err(Error::invalid(format!("{text:?} is not a valid job id: {detail}")));
        }
        JobId::new(text).map(Self::Named)
    }
}

/// The place in an id that the broker gave, in its present form or in the form before.
fn assigned(text: &str) -> Option<Seq> {
    let mut rest = text.chars();
    let (prefix, digits) = (rest.next()?, rest.as_str());
    let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let is_long_enough = match prefix {
        ASSIGNED => digits.len() == ASSIGNED_DIGITS,
        ASSIGNED_BEFORE => (1..=ASSIGNED_DIGITS).contains(&digits.len()),
        _ => false,
    };
    let seq = (is_hex && is_long_enough).then(|| u64::from_str_radix(digits, 16).ok())?;
    seq.map(Seq)
}

/// True if no owner may give this id to a job: the broker has such ids for itself.
pub(crate) fn is_reserved(id: &JobId) -> bool {
    id.as_str().starts_with(ASSIGNED_BEFORE) || assigned(id.as_str()).is_some()
}

/// The id of a limit's refresher.
pub(crate) fn refresher(limit: &LimitKey) -> JobId {
    JobId::new(&format!("{REFRESHER}{limit}")).expect("a limit's name is short enough")
}

/// The limit that a job refreshes, if it is a refresher.
pub(crate) fn refreshed_by(id: &JobId) -> Option<LimitKey> {
    LimitKey::new(id.as_str().strip_prefix(REFRESHER)?).ok()
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// The job waits: for its time, for a limit, for a worker.
    Scheduled,
    /// A worker has it.
    Running,
    /// The job is done.
    Succeeded,
    /// The job was tried for the last time: a dead letter.
    Failed,
    /// The job was cancelled.
    Cancelled,
}

impl JobState {
    /// True if nothing more happens by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The state's name, for people and for JSON.
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

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Done, with a result.
    Succeeded(Bytes),
    /// The worker reports that it failed.
    Failed(JobError),
    /// The worker sent no heartbeat.
    Expired,
    /// The worker stopped, as it was told to.
    Cancelled,
    /// The worker gave it back, not begun, or was never told of it.
    Returned,
    /// The attempt took longer than its job allows.
    TooLong,
}

/// The reason why an attempt failed, as the worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// Its kind, for programs.
    pub code: String,
    /// Its text, for people.
    pub message: String,
    /// True if another attempt is of no use.
    pub is_final: bool,
}

impl JobError {
    /// Cuts off texts that are too long.
    pub(crate) fn shortened(mut self) -> Self {
        for text in [&mut self.code, &mut self.message] {
            let end = text.floor_char_boundary(ERROR_BYTES_MAX);
            text.truncate(end);
        }
        self
    }
}

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number.
    pub number: AttemptNo,
    /// The opening of the shard in which it began.
    pub epoch: Epoch,
    /// The worker that had it.
    pub worker: Worker,
    /// Time when it began, milliseconds since 1970.
    pub started_ms: u64,
    /// Time and kind of its end, unless it goes on.
    pub ended: Option<(u64, Ending)>,
}

/// Bytes of the outcomes of attempts: results and errors.
pub(crate) fn history_bytes(attempts: &[Attempt]) -> usize {
    let said = attempts.iter().map(|attempt| match &attempt.ended {
        Some((_, Ending::Succeeded(result))) => result.len(),
        Some((_, Ending::Failed(error))) => error.code.len() + error.message.len(),
        _ => 0,
    });
    said.sum()
}

/// A job at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its place.
    pub seq: Seq,
    /// The specification, with its changes since.
    pub spec: JobSpec,
    /// The state.
    pub state: JobState,
    /// Time when it was taken, milliseconds since 1970.
    pub created_ms: u64,
    /// Time when it ended, if it has.
    pub ended_ms: Option<u64>,
    /// True if it is to be stopped.
    pub cancel_asked: bool,
    /// Number of attempts that do not count as tries: the ones before the last restart, and
    /// returned ones.
    pub uncounted: u32,
    /// The attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

impl Job {
    /// Makes a new job.
    pub fn new(seq: Seq, spec: JobSpec, now_ms: u64) -> Self {
        Self {
            seq,
            spec,
            state: JobState::Scheduled,
            created_ms: now_ms,
            ended_ms: None,
            cancel_asked: false,
            uncounted: 0,
            attempts: Vec::new(),
        }
    }

    /// Its key.
    pub fn key(&self) -> JobKey {
        JobKey { hash: TenantHash::of(&self.spec.tenant), seq: self.seq }
    }

    /// Its name.
    pub fn name(&self) -> JobRef {
        match &self.spec.id {
            Some(id) => JobRef::Named(id.clone()),
            None => JobRef::Assigned(self.seq),
        }
    }

    /// Bytes from its owner and its workers: names, payload, metadata, results and errors.
    pub fn bytes(&self) -> usize {
        const NUMBERS: usize = 32;
        let workers = self.attempts.iter().map(|attempt| NUMBERS + attempt.worker.as_str().len());
        self.spec.bytes() + workers.sum::<usize>() + history_bytes(&self.attempts)
    }

    /// Bytes of payload and results.
    pub fn content_bytes(&self) -> usize {
        let results = self.attempts.iter().map(|attempt| match &attempt.ended {
            Some((_, Ending::Succeeded(result))) => result.len(),
            _ => 0,
        });
        self.spec.payload.len() + results.sum::<usize>()
    }

    /// The number of the newest attempt.
    pub fn begun(&self) -> AttemptNo {
        self.attempts.last().map_or(AttemptNo(0), |attempt| attempt.number)
    }

    /// Gives the job to a worker.
    pub fn lease(&mut self, attempt: AttemptNo, epoch: Epoch, worker: Worker, now_ms: u64) {
        let begun = Attempt { number: attempt, epoch, worker, started_ms: now_ms, ended: None };
        self.begin(begun);
    }

    /// Begins an attempt.
    pub(crate) fn begin(&mut self, attempt: Attempt) {
        if self.attempts.len() >= ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
        self.state = JobState::Running;
    }

    /// The ticket of its newest attempt, if one has begun.
    pub fn ticket(&self) -> Option<Ticket> {
        let Attempt { number, epoch, .. } = self.attempts.last()?;
        let JobKey { hash, seq } = self.key();
        let lease = Lease { hash, seq, attempt: *number, epoch: *epoch };
        Some(Ticket { lease, tenant: self.spec.tenant.clone(), id: self.spec.id.clone() })
    }

    /// The attempt that is under way, if a worker has the job.
    pub(crate) fn under_way(&self) -> Option<&Attempt> {
        let last = self.attempts.last().filter(|last| last.ended.is_none());
        last.filter(|_| self.state == JobState::Running)
    }

    /// Ends the attempt that is under way.
    pub fn end_attempt(&mut self, now_ms: u64, ending: Ending) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended.get_or_insert((now_ms, ending));
        }
        while history_bytes(&self.attempts) > HISTORY_BYTES_MAX {
            self.attempts.remove(0);
        }
    }

    /// Lets it wait again, until `start_at_ms`.
    pub fn wait(&mut self, start_at_ms: u64) {
        self.state = JobState::Scheduled;
        self.spec.start_at_ms = start_at_ms;
    }

    /// The end of an attempt, if it is kept and has ended.
    pub fn ending(&self, lease: Lease) -> Option<&Ending> {
        let is_it = |known: &&Attempt| known.number == lease.attempt && known.epoch == lease.epoch;
        let found = self.attempts.iter().find(is_it)?;
        found.ended.as_ref().map(|(_, ending)| ending)
    }

    /// Its result, if it succeeded.
    pub fn result(&self) -> Option<&Bytes> {
        match self.attempts.last()?.ended.as_ref()? {
            (_, Ending::Succeeded(result)) if self.state == JobState::Succeeded => Some(result),
            _ => None,
        }
    }

    /// Ends it.
    pub fn finish(&mut self, state: JobState, now_ms: u64) {
        self.state = state;
        self.ended_ms = Some(now_ms);
    }

    /// Restarts it, with its history.
    pub fn restart(&mut self) {
        self.state = JobState::Scheduled;
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
    fn a_job_is_shown_by_one_name() {
        let named = |text: &str| text.parse::<JobRef>().expect("a name");
        for text in ["mail-1", "_", "_ff", "_00000000000000FF", "_00000000000000ff", "~limit/api"] {
            assert_eq!(named(text).to_string(), text);
        }
        assert_eq!(named("_00000000000000ff"), JobRef::Assigned(Seq(255)));
        for bad in ["", "~", "~x", "~FF", "~+1", "~10000000000000000"] {
            assert!(bad.parse::<JobRef>().is_err(), "{bad}");
        }
    }

    /// zsh takes `~` for a home directory, so an id has it no longer.
    #[test]
    fn a_given_id_needs_no_quotes_and_the_form_before_still_names_its_job() {
        let id = JobRef::Assigned(Seq(0x1_0000_00ff)).to_string();
        assert!(id.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()), "{id}");
        for before in ["~1000000ff", "~00000001000000ff"] {
            assert_eq!(before.parse::<JobRef>().expect("a name").to_string(), id);
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
        job.finish(JobState::Failed, 13);
        job.restart();
        assert_eq!((job.state, job.uncounted), (JobState::Scheduled, 103));
    }
}
