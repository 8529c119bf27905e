//! Certain facts of one job, and a check of its record against them.
//!
//! Certain facts no longer are once a call begins to restart or to delete the job. Those facts are
//! let go when such a call begins, and again when it ends, whether it is answered or not. The epoch
//! tells earlier facts from later ones.

use skerry_jobs::job::{
    ATTEMPTS_KEPT, Attempt, AttemptNo, Ending, Epoch, Job, JobRef, JobState, Seq,
};
use skerry_jobs::machine::Next;
use skerry_jobs::shard::Imported;
use skerry_jobs::spec::JobSpec;
use std::collections::{BTreeMap, BTreeSet};

/// Certain facts of a job. Within an epoch, they only grow, except the priority.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The job was taken.
    pub exists: bool,
    /// The job was deleted at this time, and is no longer there.
    pub gone_ms: Option<u64>,
    /// Number of times that facts were let go because the job may begin anew, or be deleted.
    pub epoch: u32,
    /// A call is restarting or deleting the job: what is seen now may no longer hold.
    pub is_unsettled: bool,
    /// The job was restarted after this attempt at least.
    pub restarted_after: u32,
    /// The job was restarted, and no call has tried to cancel it since: it ends by an attempt.
    pub revived: bool,
    /// The job has ended so.
    pub finished: Option<JobState>,
    /// The job was told to stop while it ran.
    pub cancel_asked: bool,
    /// The job no longer waits for its time.
    pub expedited: bool,
    /// The record of the job, once it has ended.
    pub record: Option<Job>,
    /// No attempt begins after this one.
    pub last: Option<AttemptNo>,
    /// Answers to reports, each with its epoch.
    pub told: BTreeMap<AttemptNo, (Ending, Next, u32)>,
    /// Leases that workers were given.
    pub given: BTreeSet<AttemptNo>,
    /// The priority is one of these.
    pub priorities: Vec<u8>,
    /// Number of calls that began to change the priority, and of their answers.
    pub changes: u32,
}

impl Facts {
    /// Lets facts go: the job may be restarted, so whether it has ended is not certain.
    pub fn unsettle(&mut self) {
        self.epoch += 1;
        (self.finished, self.record, self.last) = (None, None, None);
        (self.cancel_asked, self.revived) = (false, false);
    }

    /// The facts that hold in any epoch.
    fn lasting(&self) -> Self {
        let mut lasting = self.clone();
        lasting.unsettle();
        lasting
    }
}

/// A lease that a worker was given.
#[derive(Debug, Clone)]
pub struct Held {
    pub epoch: Epoch,
    pub granted_ms: u64,
    /// The lease holds until this time at least, unless it is `doubtful` or was reported.
    pub expires_ms: u64,
    /// The lease may have ended.
    pub doubtful: bool,
    /// Endings that callers tried to report.
    pub tried: Vec<Ending>,
}

impl Held {
    /// True if it certainly held at this time, by the shard's clock.
    pub fn held_at(&self, at_ms: u64) -> bool {
        !self.doubtful
            && self.tried.is_empty()
            && self.granted_ms <= at_ms
            && at_ms < self.expires_ms
    }
}

/// A job that a caller asked for.
#[derive(Debug)]
pub struct Known {
    pub spec: JobSpec,
    /// The job's name, if that is known.
    pub name: Option<JobRef>,
    pub seq: Option<Seq>,
    pub facts: Facts,
    pub leases: BTreeMap<AttemptNo, Held>,
    /// True if a caller tried to cancel it.
    pub cancel_tried: bool,
    /// True if a caller was told that it is new.
    pub told_new: bool,
    /// True while a call that changes it is under way.
    pub busy: bool,
    /// Number of calls that asked for it, and number of these under way.
    pub asked: u32,
    pub asking: u32,
    /// True if a caller tried to restart it, or to delete it.
    pub restart_tried: bool,
    pub delete_tried: bool,
    /// The history that it came with from elsewhere.
    pub imported: Option<Imported>,
}

/// An answer to a report.
pub struct Said<'a> {
    pub attempt: AttemptNo,
    pub ending: &'a Ending,
    pub next: Next,
    pub was_tried: bool,
    pub was_superseded: bool,
    /// The epoch of the report.
    pub epoch: u32,
    /// The job had certainly been cancelled when it ended.
    pub is_called_off: bool,
}

/// A report that was refused.
pub struct Refused<'a> {
    pub attempt: AttemptNo,
    pub ending: &'a Ending,
    pub before: &'a Facts,
    pub was_tried: bool,
}

impl Known {
    /// True if a worker certainly holds the job at this time, by the shard's clock.
    pub fn is_held_at(&self, at_ms: u64) -> bool {
        self.leases.values().any(|held| held.held_at(at_ms))
    }

    /// Checks that the specification has not changed; learns the name.
    pub fn is_same(&mut self, number: usize, job: &Job) {
        let seq = *self.seq.get_or_insert(job.seq);
        assert_eq!(seq, job.seq, "job {number} is there twice");
        let name = self.name.get_or_insert_with(|| job.name());
        assert_eq!(*name, job.name(), "job {number}");
        let (priority, start_at_ms) = (job.spec.priority, job.spec.start_at_ms);
        let wanted = JobSpec { priority, start_at_ms, ..self.spec.clone() };
        assert_eq!(wanted, job.spec, "job {number}");
        if let Some(imported) = &self.imported {
            assert_eq!(job.created_ms, imported.created_ms, "job {number}");
        }
    }

    /// Notes that the job has ended, and checks that it did so once.
    pub fn finish(&mut self, number: usize, state: JobState, last: Option<AttemptNo>) {
        if self.facts.is_unsettled {
            return;
        }
        let finished = *self.facts.finished.get_or_insert(state);
        assert_eq!(finished, state, "job {number} ended twice");
        if let Some(last) = last.filter(|last| last.0 > 0) {
            self.facts.last = Some(last);
        }
    }

    /// Checks the step that follows a reported attempt.
    pub fn follows(&self, number: usize, said: &Said<'_>) {
        let Said { attempt, ending, next, .. } = *said;
        let retries = usize::from(self.spec.retry.retries);
        // Some attempts whose workers were not told were given back, and don't count.
        let may_be_last = attempt.0 as usize > retries;
        let tries = self.leases.range(..=attempt);
        let tries = tries.filter(|(_, held)| !held.tried.contains(&Ending::Returned));
        let is_last = tries.count() > retries && !self.restart_tried;
        let fits = match (ending, next) {
            (Ending::Succeeded(_), Next::End(state)) => state == JobState::Succeeded,
            (Ending::Cancelled, Next::End(state)) => state == JobState::Cancelled,
            (Ending::Failed(error), Next::End(JobState::Failed)) => error.is_final || may_be_last,
            (Ending::Failed(_), Next::End(JobState::Cancelled)) => self.cancel_tried,
            (Ending::Failed(error), Next::Retry { .. }) => {
                !error.is_final && !is_last && !said.is_called_off
            }
            (Ending::Returned, Next::End(JobState::Cancelled)) => self.cancel_tried,
            (Ending::Returned, Next::Retry { .. }) => !said.is_called_off,
            _ => false,
        };
        assert!(fits, "job {number} {attempt:?} ended with {ending:?}, and then {next:?}");
    }

    /// Checks a record against the facts that were certain when a caller asked for it.
    pub fn agrees(&self, number: usize, before: &Facts, job: &Job) {
        let lasting = before.lasting();
        let before = if before.epoch == self.facts.epoch { before } else { &lasting };
        if let Some(record) = &before.record {
            assert_eq!(record, job, "job {number} had ended");
        }
        if let Some(state) = before.finished {
            assert_eq!(state, job.state, "job {number} had ended");
        }
        if before.cancel_asked {
            let stops = job.state == JobState::Running && job.cancel_asked;
            assert!(stops || job.state.is_final(), "job {number} was called off: {job:?}");
        }
        let priority = job.spec.priority;
        let may_be = [&before.priorities[..], &self.facts.priorities].concat();
        assert!(may_be.contains(&priority), "job {number} has priority {priority}");
        if before.expedited && job.attempts.is_empty() {
            assert_eq!(job.spec.start_at_ms, 0, "job {number} was to start at once");
        }
        if before.revived && self.facts.revived {
            let is_alive = !job.state.is_final() || job.begun().0 > before.restarted_after;
            assert!(is_alive, "job {number} was begun anew: {job:?}");
        }
        if let Some(last) = before.last {
            assert!(job.begun() <= last, "job {number} had ended: {job:?}");
        }
        self.attempts_agree(number, before, job);
        self.state_agrees(number, before, job);
    }

    /// The attempts that it came with.
    fn history(&self) -> Vec<&Attempt> {
        let all = self.imported.iter().flat_map(|imported| imported.attempts.iter());
        all.filter(|attempt| attempt.ended.is_some()).collect()
    }

    fn attempts_agree(&self, number: usize, before: &Facts, job: &Job) {
        let numbers: Vec<u32> = job.attempts.iter().map(|attempt| attempt.number.0).collect();
        let first = if numbers.len() < ATTEMPTS_KEPT { 1 } else { numbers[0] };
        let wanted: Vec<u32> = (first..first + job.attempts.len() as u32).collect();
        assert_eq!(numbers, wanted, "job {number}: attempts");
        for given in &before.given {
            assert!(*given <= job.begun(), "job {number} forgot {given:?}: {job:?}");
        }
        let history = self.history();
        assert!(job.begun().0 as usize >= history.len(), "job {number} forgot: {job:?}");
        for attempt in &job.attempts {
            if let Some(before) = history.get(attempt.number.0 as usize - 1) {
                let before = Attempt { number: attempt.number, ..(*before).clone() };
                assert_eq!(*attempt, before, "job {number} has another history");
                continue;
            }
            let told = before.told.get(&attempt.number).map(|(ending, _, _)| ending);
            let ending = attempt.ended.as_ref().map(|(_, ending)| ending);
            if told.is_some() {
                assert_eq!(told, ending, "job {number} {:?} had ended", attempt.number);
            }
            let tried = self.leases.get(&attempt.number);
            let is_known = match ending {
                Some(Ending::Expired) => true,
                Some(ending @ Ending::Returned) => {
                    tried.is_none_or(|held| held.tried.contains(ending))
                }
                Some(ending) => tried.is_some_and(|held| held.tried.contains(ending)),
                None => job.state == JobState::Running && attempt.number == job.begun(),
            };
            assert!(is_known, "job {number}: nobody said {attempt:?}");
        }
    }

    /// The attempt after which the job was last restarted, as its record counts its tries.
    fn begun_anew_after(&self, number: usize, before: &Facts, job: &Job) -> u32 {
        let returned = |attempt: &&Attempt| matches!(attempt.ended, Some((_, Ending::Returned)));
        let fits = |after: &u32| {
            let since = job.attempts.iter().filter(|attempt| attempt.number.0 > *after);
            // A cancelled job ends when it is given back: no attempt follows.
            let ended_so = job.state == JobState::Cancelled
                && job.cancel_asked
                && since.clone().last().as_ref().is_some_and(returned);
            let uncounted = since.filter(returned).count() - usize::from(ended_so);
            uncounted as u32 + after == job.uncounted
        };
        let to = if self.restart_tried { job.begun().0 } else { 0 };
        let after = (before.restarted_after..=to).find(fits);
        after.unwrap_or_else(|| panic!("job {number} counts tries wrongly: {job:?}"))
    }

    fn state_agrees(&self, number: usize, before: &Facts, job: &Job) {
        let after = self.begun_anew_after(number, before, job);
        let last = job.attempts.last().filter(|last| last.number.0 > after);
        let last = last.and_then(|last| last.ended.as_ref()).map(|(_, how)| how);
        let tries = job.begun().0 - job.uncounted;
        let retries = u32::from(job.spec.retry.retries);
        let fits = match (job.state, last) {
            (JobState::Scheduled, None) => job.begun().0 == after,
            (JobState::Scheduled, Some(Ending::Failed(error))) => {
                !error.is_final && tries <= retries
            }
            (JobState::Scheduled, Some(Ending::Expired)) => tries <= retries,
            (JobState::Scheduled, Some(Ending::Returned)) => true,
            (JobState::Running, None) => job.begun().0 > after,
            (JobState::Succeeded, Some(Ending::Succeeded(_))) => true,
            (JobState::Failed, Some(Ending::Failed(error))) => error.is_final || tries > retries,
            (JobState::Failed, Some(Ending::Expired)) => tries > retries,
            (JobState::Cancelled, Some(Ending::Cancelled)) => true,
            (
                JobState::Cancelled,
                Some(Ending::Expired | Ending::Failed(_) | Ending::Returned) | None,
            ) => self.cancel_tried,
            _ => false,
        };
        assert!(fits, "job {number} can't be so: {job:?}");
        assert_eq!(job.state.is_final(), job.ended_ms.is_some(), "job {number}: {job:?}");
    }
}
