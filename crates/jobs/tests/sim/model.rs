//! What is certain of every job, from what was answered, and whether what is seen agrees with it.
//!
//! Nothing is computed twice here: an answer makes something certain, and everything that is seen of a call that was
//! begun after it must say the same. What was not answered may have happened or not.

use skerry_jobs::job::{Attempt, AttemptNo, Ending, Job, JobRef, Lease, Seq, State};
use skerry_jobs::limit::LimitKind;
use skerry_jobs::machine::{Beat, Cancelled, Next};
use skerry_jobs::shard::{Enqueued, Leased};
use skerry_jobs::spec::JobSpec;
use std::collections::{BTreeMap, BTreeSet};

/// What is certain of a job. But for its priority, it only ever grows.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// It was taken.
    pub exists: bool,
    /// It has come to its end.
    pub finished: Option<State>,
    /// It was told to stop while it ran.
    pub cancel_asked: bool,
    /// It does not wait for its time any more.
    pub expedited: bool,
    /// Its record, once it has come to its end.
    pub record: Option<Job>,
    /// No attempt begins after this one.
    pub last: Option<AttemptNo>,
    /// What was answered to reports.
    pub told: BTreeMap<AttemptNo, (Ending, Next)>,
    /// Leases that workers were given.
    pub given: BTreeSet<AttemptNo>,
    /// Its priority is one of these.
    pub priorities: Vec<u8>,
    /// How often somebody began to change its priority, or was told that it was changed.
    pub changes: u32,
}

/// A lease that a worker was given.
#[derive(Debug, Clone)]
pub struct Held {
    pub granted_ms: u64,
    /// It holds until this time at least, unless it is `doubtful` or was reported.
    pub expires_ms: u64,
    /// It may be over.
    pub doubtful: bool,
    /// What somebody tried to report.
    pub tried: Vec<Ending>,
}

impl Held {
    /// It certainly held at this time, by the shard's clock.
    fn held_at(&self, at_ms: u64) -> bool {
        !self.doubtful
            && self.tried.is_empty()
            && self.granted_ms <= at_ms
            && at_ms < self.expires_ms
    }
}

/// A job that somebody asked for.
#[derive(Debug)]
pub struct Known {
    pub spec: JobSpec,
    /// What it is called, if that is known.
    pub name: Option<JobRef>,
    pub seq: Option<Seq>,
    pub facts: Facts,
    pub leases: BTreeMap<AttemptNo, Held>,
    /// Somebody tried to call it off.
    pub cancel_tried: bool,
    /// Somebody was told that it is new.
    pub told_new: bool,
    /// A call that changes it is under way.
    pub busy: bool,
}

/// Every job that was ever asked for, by its number, which is its payload.
#[derive(Default)]
pub struct Model {
    pub jobs: Vec<Known>,
}

impl Model {
    /// A job that somebody is about to ask for.
    pub fn add(&mut self, spec: JobSpec) -> usize {
        let number = self.jobs.len();
        self.jobs.push(Known {
            name: spec.id.clone().map(JobRef::Named),
            seq: None,
            facts: Facts { priorities: vec![spec.priority], ..Facts::default() },
            leases: BTreeMap::new(),
            cancel_tried: false,
            told_new: false,
            busy: false,
            spec: JobSpec { payload: number.to_string().into(), ..spec },
        });
        number
    }

    /// Which job this is.
    pub fn number_of(&self, job: &Job) -> usize {
        let text = std::str::from_utf8(&job.spec.payload).expect("a payload of this test");
        let number: usize = text.parse().expect("a payload of this test");
        assert!(number < self.jobs.len(), "nobody asked for job {number}");
        number
    }

    /// A shard has died, that had been told this time.
    pub fn died(&mut self, seen_ms: u64) {
        for known in &mut self.jobs {
            for held in known.leases.values_mut() {
                held.doubtful |= seen_ms >= held.expires_ms;
            }
        }
    }

    /// A shard was opened at this time: what was running has one lease time from now.
    pub fn opened(&mut self, at_ms: u64) {
        for known in &mut self.jobs {
            let newest = known.leases.keys().next_back().copied();
            for (attempt, held) in &mut known.leases {
                held.granted_ms = 0;
                held.expires_ms = at_ms + u64::from(known.spec.lease_ms);
                held.doubtful |= Some(*attempt) != newest;
            }
        }
    }

    /// A job was taken, or was there.
    pub fn enqueued(&mut self, number: usize, before: &Facts, said: &Enqueued) {
        let known = &mut self.jobs[number];
        if said.is_new {
            assert!(!before.exists, "job {number} was there, and was taken anew");
            assert!(!known.told_new, "job {number} was taken twice");
            known.told_new = true;
        } else {
            assert!(known.spec.id.is_some(), "job {number} has no id, and was there before");
        }
        match &known.name {
            Some(name) => assert_eq!(*name, said.job, "job {number}"),
            None => known.name = Some(said.job.clone()),
        }
        if let JobRef::Assigned(seq) = said.job {
            assert_eq!(*known.seq.get_or_insert(seq), seq, "job {number} is there twice");
        }
        known.facts.exists = true;
    }

    /// A worker was given a lease.
    pub fn leased(&mut self, leased: &Leased) -> usize {
        let number = self.number_of(&leased.job);
        let attempt = leased.lease.attempt;
        let known = &mut self.jobs[number];
        known.is_same(number, &leased.job);
        let lease_ms = u64::from(known.spec.lease_ms);
        let granted_ms = leased.expires_ms - lease_ms;
        let new =
            Held { granted_ms, expires_ms: leased.expires_ms, doubtful: false, tried: Vec::new() };
        if let Some(last) = known.facts.last {
            assert!(attempt <= last, "job {number} had ended, and was given out: {leased:?}");
        }
        for (other, held) in &known.leases {
            // Whichever was given first must be over when the other is given.
            let both = if *other < attempt {
                held.held_at(granted_ms)
            } else {
                new.held_at(held.granted_ms)
            };
            assert!(!both, "job {number} has two leases: {other:?} {held:?}, and {leased:?}");
        }
        let again = known.leases.insert(attempt, new);
        assert!(again.is_none(), "job {number} was given out twice as {attempt:?}");
        known.facts.exists = true;
        known.facts.given.insert(attempt);
        self.limits_hold(number, granted_ms);
        number
    }

    /// No limit of this job had more leases than it may have, at this time.
    fn limits_hold(&self, number: usize, at_ms: u64) {
        let spec = &self.jobs[number].spec;
        for limit in &spec.limits {
            let LimitKind::Concurrency { max } = limit.kind else { continue };
            let holds = |known: &&Known| {
                known.spec.tenant == spec.tenant
                    && known.spec.limits.contains(limit)
                    && known.is_held_at(at_ms)
            };
            let count = self.jobs.iter().filter(holds).count();
            assert!(count <= max as usize, "{count} jobs run under {limit:?}");
        }
    }

    /// A worker gave a sign of life; `seen_ms` is the latest time that the shard knows.
    pub fn beaten(&mut self, number: usize, attempt: AttemptNo, beat: Option<Beat>, seen_ms: u64) {
        let known = &mut self.jobs[number];
        let held = known.leases.get_mut(&attempt).expect("somebody was given it");
        let Some(beat) = beat else {
            let held_on = held.held_at(seen_ms);
            assert!(!held_on, "job {number} {attempt:?} was lost too early: {held:?}");
            return;
        };
        assert!(!known.facts.told.contains_key(&attempt), "job {number} {attempt:?} had ended");
        assert!(beat.cancel_asked || !known.facts.cancel_asked, "job {number} was called off");
        held.expires_ms = beat.expires_ms;
        held.doubtful = false;
        let newer = known.leases.range(attempt..).nth(1);
        assert!(newer.is_none(), "job {number} {attempt:?} holds, and {newer:?} does too");
    }

    /// A worker was answered about the end of its attempt. `was_tried`: it had been told of before, and
    /// `was_superseded`: another attempt had begun.
    pub fn reported(&mut self, number: usize, said: &Said<'_>) {
        let Said { attempt, ending, next, .. } = *said;
        let known = &mut self.jobs[number];
        if let Some((before, first)) = known.facts.told.get(&attempt) {
            assert_eq!(before, ending, "job {number} {attempt:?} had ended otherwise");
            let same = match (*first, next) {
                (Next::Retry { .. }, Next::Retry { .. }) => true,
                (first, next) => first == next,
            };
            assert!(same, "job {number} {attempt:?}: {first:?} first, and now {next:?}");
            return;
        }
        assert!(
            said.was_tried || !said.was_superseded,
            "job {number} {attempt:?} was somebody else's"
        );
        known.facts.told.insert(attempt, (ending.clone(), next));
        known.follows(number, said);
        if let Next::End(state) = next {
            known.finish(number, state, Some(attempt));
        }
    }

    /// A worker was told that it does not hold its lease.
    pub fn refused(&mut self, number: usize, said: &Refused<'_>, seen_ms: u64) {
        let known = &self.jobs[number];
        let held = &known.leases[&said.attempt];
        let is_same = said.before.told.get(&said.attempt).is_some_and(|(e, _)| e == said.ending);
        assert!(!is_same, "job {number} {:?}: said again, it was refused", said.attempt);
        let only = held.tried.len() == 1 && !said.was_tried;
        let held = Held { tried: Vec::new(), ..held.clone() };
        assert!(!(only && held.held_at(seen_ms)), "job {number} was lost too early: {held:?}");
    }

    /// A job was called off. `was_held`: somebody certainly had it.
    pub fn cancelled(&mut self, number: usize, before: &Facts, was_held: bool, said: Cancelled) {
        let known = &mut self.jobs[number];
        assert!(!was_held || said == Cancelled::Asked, "job {number} was taken from its worker");
        assert!(before.finished.is_none(), "job {number} had ended, and was called off");
        known.facts.exists = true;
        match said {
            Cancelled::Now => known.finish(number, State::Cancelled, None),
            Cancelled::Asked => known.facts.cancel_asked = true,
        }
    }

    /// A job was seen, by a call that began when `before` was certain.
    pub fn seen(&mut self, number: usize, before: &Facts, job: &Job) {
        let known = &mut self.jobs[number];
        known.is_same(number, job);
        known.agrees(number, before, job);
        known.facts.exists = true;
        if !known.busy && known.facts.changes == before.changes {
            known.facts.priorities = vec![job.spec.priority];
        }
        if job.state.is_final() {
            known.finish(number, job.state, Some(job.begun()));
            known.facts.record.get_or_insert_with(|| job.clone());
        } else if job.state == State::Running && job.cancel_asked {
            known.facts.last = Some(job.begun());
        }
    }

    /// The lease of a job's attempt.
    pub fn lease(&self, number: usize, attempt: AttemptNo) -> Lease {
        Lease { seq: self.jobs[number].seq.expect("it was given out"), attempt }
    }
}

/// What was answered to a report.
pub struct Said<'a> {
    pub attempt: AttemptNo,
    pub ending: &'a Ending,
    pub next: Next,
    pub was_tried: bool,
    pub was_superseded: bool,
    /// It had certainly been called off when it ended.
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
    /// Somebody certainly holds the job at this time, by the shard's clock.
    pub fn is_held_at(&self, at_ms: u64) -> bool {
        self.leases.values().any(|held| held.held_at(at_ms))
    }

    /// What never changes is what was asked for; what it is called is known from now on.
    pub fn is_same(&mut self, number: usize, job: &Job) {
        let seq = *self.seq.get_or_insert(job.seq);
        assert_eq!(seq, job.seq, "job {number} is there twice");
        let name = self.name.get_or_insert_with(|| job.name());
        assert_eq!(*name, job.name(), "job {number}");
        let (priority, start_at_ms) = (job.spec.priority, job.spec.start_at_ms);
        let wanted = JobSpec { priority, start_at_ms, ..self.spec.clone() };
        assert_eq!(wanted, job.spec, "job {number}");
    }

    /// The job has come to its end, and there is only one.
    fn finish(&mut self, number: usize, state: State, last: Option<AttemptNo>) {
        let finished = *self.facts.finished.get_or_insert(state);
        assert_eq!(finished, state, "job {number} ended twice");
        if let Some(last) = last.filter(|last| last.0 > 0) {
            self.facts.last = Some(last);
        }
    }

    /// What comes next is what must, after an attempt that was reported.
    fn follows(&self, number: usize, said: &Said<'_>) {
        let Said { attempt, ending, next, .. } = *said;
        let retries = usize::from(self.spec.retry.retries);
        // Of the attempts that nobody was told of, some were given back, and don't count.
        let may_be_last = attempt.0 as usize > retries;
        let is_last = self.leases.range(..=attempt).count() > retries;
        let fits = match (ending, next) {
            (Ending::Succeeded(_), Next::End(state)) => state == State::Succeeded,
            (Ending::Cancelled, Next::End(state)) => state == State::Cancelled,
            (Ending::Failed(error), Next::End(State::Failed)) => error.is_final || may_be_last,
            (Ending::Failed(_), Next::End(State::Cancelled)) => self.cancel_tried,
            (Ending::Failed(error), Next::Retry { .. }) => {
                !error.is_final && !is_last && !said.is_called_off
            }
            _ => false,
        };
        assert!(fits, "job {number} {attempt:?} ended with {ending:?}, and then {next:?}");
    }

    /// A record agrees with what was certain when somebody asked for it.
    fn agrees(&self, number: usize, before: &Facts, job: &Job) {
        if let Some(record) = &before.record {
            assert_eq!(record, job, "job {number} had ended");
        }
        if let Some(state) = before.finished {
            assert_eq!(state, job.state, "job {number} had ended");
        }
        if before.cancel_asked {
            let stops = job.state == State::Running && job.cancel_asked;
            assert!(stops || job.state.is_final(), "job {number} was called off: {job:?}");
        }
        let priority = job.spec.priority;
        let may_be = [&before.priorities[..], &self.facts.priorities].concat();
        assert!(may_be.contains(&priority), "job {number} has priority {priority}");
        if before.expedited && job.attempts.is_empty() {
            assert_eq!(job.spec.start_at_ms, 0, "job {number} was to start at once");
        }
        if let Some(last) = before.last {
            assert!(job.begun() <= last, "job {number} had ended: {job:?}");
        }
        self.attempts_agree(number, before, job);
        self.state_agrees(number, job);
    }

    fn attempts_agree(&self, number: usize, before: &Facts, job: &Job) {
        let numbers: Vec<u32> = job.attempts.iter().map(|attempt| attempt.number.0).collect();
        let wanted: Vec<u32> = (1..=job.attempts.len() as u32).collect();
        assert_eq!(numbers, wanted, "job {number}: attempts");
        for given in &before.given {
            assert!(*given <= job.begun(), "job {number} forgot {given:?}: {job:?}");
        }
        for attempt in &job.attempts {
            let told = before.told.get(&attempt.number).map(|(ending, _)| ending);
            let ending = attempt.ended.as_ref().map(|(_, ending)| ending);
            if told.is_some() {
                assert_eq!(told, ending, "job {number} {:?} had ended", attempt.number);
            }
            let tried = self.leases.get(&attempt.number);
            let is_known = match ending {
                Some(Ending::Expired) => true,
                Some(Ending::Returned) => tried.is_none(),
                Some(ending) => tried.is_some_and(|held| held.tried.contains(ending)),
                None => job.state == State::Running && attempt.number == job.begun(),
            };
            assert!(is_known, "job {number}: nobody said {attempt:?}");
        }
    }

    fn state_agrees(&self, number: usize, job: &Job) {
        let last = job.attempts.last().and_then(|last| last.ended.as_ref()).map(|(_, how)| how);
        let tries = job.begun().0 - job.uncounted;
        let returned = |attempt: &&Attempt| matches!(attempt.ended, Some((_, Ending::Returned)));
        // One that was called off ends when it is given back: nothing is tried after it.
        let ended_so = job.state == State::Cancelled
            && job.cancel_asked
            && matches!(last, Some(Ending::Returned));
        let uncounted = job.attempts.iter().filter(returned).count() - usize::from(ended_so);
        assert_eq!(uncounted, job.uncounted as usize, "job {number}: {job:?}");
        let fits = match (job.state, last) {
            (State::Scheduled, None) => job.attempts.is_empty(),
            (State::Scheduled, Some(Ending::Expired | Ending::Failed(_) | Ending::Returned)) => {
                true
            }
            (State::Running, None) => !job.attempts.is_empty(),
            (State::Succeeded, Some(Ending::Succeeded(_))) => true,
            (State::Failed, Some(Ending::Failed(error))) => {
                error.is_final || tries > u32::from(job.spec.retry.retries)
            }
            (State::Failed, Some(Ending::Expired)) => tries > u32::from(job.spec.retry.retries),
            (State::Cancelled, Some(Ending::Cancelled)) => true,
            (
                State::Cancelled,
                Some(Ending::Expired | Ending::Failed(_) | Ending::Returned) | None,
            ) => self.cancel_tried,
            _ => false,
        };
        assert!(fits, "job {number} can't be so: {job:?}");
        assert_eq!(job.state.is_final(), job.ended_ms.is_some(), "job {number}: {job:?}");
    }
}
