//! Certain facts of every job, by the answers until now, and a check of each new answer against
//! them.
//!
//! Nothing is computed twice here. An answer makes a fact certain, and every call that began after
//! it must agree. An unanswered call may have happened or not.

use crate::bounds::Bounds;
use crate::known::{Facts, Held, Known, Refused, Said};
use skerry_jobs::hash::TenantHash;
use skerry_jobs::job::{AttemptNo, Job, JobRef, JobState, Lease, Ticket};
use skerry_jobs::limit::LimitKind;
use skerry_jobs::machine::{Beat, Cancelled, Next};
use skerry_jobs::shard::{Enqueued, Leased};
use skerry_jobs::spec::JobSpec;
use std::collections::BTreeMap;

/// Every job that was ever asked for, by its number, which is its payload.
#[derive(Default)]
pub struct Model {
    pub jobs: Vec<Known>,
    pub bounds: Bounds,
}

/// Time when a lease was given, by the shard's clock. Its time begins when its worker is told.
pub fn granted_ms(leased: &Leased) -> u64 {
    leased.job.attempts.last().expect("it runs").started_ms
}

impl Model {
    /// Adds a job that a caller is about to ask for.
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
            asked: 0,
            asking: 0,
            restart_tried: false,
            delete_tried: false,
            imported: None,
            spec: JobSpec { payload: number.to_string().into(), ..spec },
        });
        number
    }

    /// The number of this job.
    pub fn number_of(&self, job: &Job) -> usize {
        let text = std::str::from_utf8(&job.spec.payload).expect("a payload of this test");
        let number: usize = text.parse().expect("a payload of this test");
        assert!(number < self.jobs.len(), "nobody asked for job {number}");
        number
    }

    /// True if this is that job, and not another of its name.
    pub fn is_it(&self, number: usize, job: &Job) -> bool {
        self.number_of(job) == number
    }

    /// Notes the death of a shard that had been told this time.
    pub fn died(&mut self, seen_ms: u64) {
        for known in &mut self.jobs {
            for held in known.leases.values_mut() {
                held.doubtful |= seen_ms >= held.expires_ms;
            }
        }
    }

    /// Notes that a shard was opened at this time: running jobs have one lease time from now.
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

    /// Notes that a job was taken, or was there.
    pub fn enqueued(&mut self, number: usize, before: &Facts, said: &Enqueued) {
        let known = &mut self.jobs[number];
        if said.is_new {
            assert!(!before.exists, "job {number} was there, and was taken anew");
            assert!(!known.told_new, "job {number} was taken twice");
            known.told_new = true;
        } else {
            assert!(known.spec.id.is_some(), "job {number} has no id, and was there before");
            assert!(known.asked > 1, "job {number} was there, and nobody had asked for it");
        }
        match &known.name {
            Some(name) => assert_eq!(*name, said.job, "job {number}"),
            None => known.name = Some(said.job.clone()),
        }
        if let JobRef::Assigned(seq) = said.job {
            assert_eq!(*known.seq.get_or_insert(seq), seq, "job {number} is there twice");
        }
        known.facts.exists = true;
        // If it was there before, it may have been restarted since.
        let state = known.imported.as_ref().map(|imported| imported.state);
        let state = state.filter(|state| said.is_new && state.is_final());
        if let Some(state) = state.filter(|_| known.facts.epoch == before.epoch) {
            known.finish(number, state, None);
        }
    }

    /// Notes that a worker was given a lease.
    pub fn leased(&mut self, leased: &Leased) -> usize {
        let number = self.number_of(&leased.job);
        let attempt = leased.lease.attempt;
        let known = &mut self.jobs[number];
        known.is_same(number, &leased.job);
        let granted_ms = granted_ms(leased);
        // A worker may receive an earlier lease late.
        let was_gone = known.facts.gone_ms.is_some_and(|gone_ms| gone_ms < granted_ms);
        let is_late = !was_gone || self.bounds.clock_was_set;
        assert!(is_late, "job {number} was deleted, and is given out: {leased:?}");
        let new = Held {
            epoch: leased.lease.epoch,
            granted_ms,
            expires_ms: leased.expires_ms,
            doubtful: false,
            tried: Vec::new(),
        };
        if let Some(last) = known.facts.last {
            assert!(attempt <= last, "job {number} had ended, and was given out: {leased:?}");
        }
        for (other, held) in &known.leases {
            // The lease that was given first must have ended when the other is given.
            let both = if *other < attempt {
                held.held_at(granted_ms)
            } else {
                new.held_at(held.granted_ms)
            };
            assert!(!both, "job {number} has two leases: {other:?} {held:?}, and {leased:?}");
        }
        let again = known.leases.insert(attempt, new);
        assert!(again.is_none(), "job {number} was given out twice as {attempt:?}");
        known.facts.exists |= !known.delete_tried;
        known.facts.given.insert(attempt);
        self.limits_hold(number, granted_ms);
        number
    }

    /// Checks that no limit of this job had more leases than it may have, at this time.
    fn limits_hold(&self, number: usize, at_ms: u64) {
        let spec = &self.jobs[number].spec;
        for limit in &spec.limits {
            let max = match limit.kind {
                LimitKind::Concurrency { max } => max,
                LimitKind::Floating { .. } => self.bounds.floating_max(&spec.tenant, at_ms),
                LimitKind::Rate { .. } => continue,
            };
            let holds = |known: &&Known| {
                known.spec.tenant == spec.tenant
                    && known.spec.limits.contains(limit)
                    && known.is_held_at(at_ms)
            };
            let count = self.jobs.iter().filter(holds).count();
            assert!(count <= max as usize, "{count} jobs run under {limit:?}, {max} may");
        }
    }

    /// Notes a worker's heartbeat; `seen_ms` is the latest time that the shard knows.
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

    /// Notes the answer to a worker's report. `was_tried`: the report is repeated, and
    /// `was_superseded`: another attempt had begun.
    pub fn reported(&mut self, number: usize, said: &Said<'_>) {
        let Said { attempt, ending, next, .. } = *said;
        let known = &mut self.jobs[number];
        if let Some((before, first, epoch)) = known.facts.told.get(&attempt) {
            assert_eq!(before, ending, "job {number} {attempt:?} had ended otherwise");
            let same = match (*first, next) {
                (Next::Retry { .. }, Next::Retry { .. }) => true,
                (first, next) => first == next || *epoch != known.facts.epoch,
            };
            assert!(same, "job {number} {attempt:?}: {first:?} first, and now {next:?}");
            return;
        }
        assert!(
            said.was_tried || !said.was_superseded,
            "job {number} {attempt:?} was somebody else's"
        );
        known.facts.told.insert(attempt, (ending.clone(), next, said.epoch));
        // A repeated report may be of the time before the job was restarted.
        let is_of_now = said.epoch == known.facts.epoch && !(said.was_tried && known.restart_tried);
        if is_of_now {
            known.follows(number, said);
        }
        if let Next::End(state) = next
            && is_of_now
        {
            known.finish(number, state, Some(attempt));
        }
    }

    /// Notes that a worker was told that it does not hold its lease.
    pub fn refused(&mut self, number: usize, said: &Refused<'_>, seen_ms: u64) {
        let known = &self.jobs[number];
        let held = &known.leases[&said.attempt];
        let told = said.before.told.get(&said.attempt);
        let is_same = told.is_some_and(|(ending, _, _)| ending == said.ending);
        assert!(
            !is_same || known.delete_tried,
            "job {number} {:?}: said again, it was refused",
            said.attempt
        );
        let only = held.tried.len() == 1 && !said.was_tried;
        let held = Held { tried: Vec::new(), ..held.clone() };
        assert!(!(only && held.held_at(seen_ms)), "job {number} was lost too early: {held:?}");
    }

    /// Notes that a job was cancelled. `was_held`: a worker certainly had it.
    pub fn cancelled(&mut self, number: usize, before: &Facts, was_held: bool, said: Cancelled) {
        let known = &mut self.jobs[number];
        assert!(!was_held || said == Cancelled::Asked, "job {number} was taken from its worker");
        assert!(before.finished.is_none(), "job {number} had ended, and was called off");
        known.facts.exists = true;
        match said {
            Cancelled::Now => known.finish(number, JobState::Cancelled, None),
            Cancelled::Asked => known.facts.cancel_asked = true,
        }
    }

    /// Notes that a job was seen, by a call that began when `before` was certain.
    pub fn seen(&mut self, number: usize, before: &Facts, job: &Job) {
        let known = &mut self.jobs[number];
        assert!(before.gone_ms.is_none(), "job {number} was deleted, and is there: {job:?}");
        known.is_same(number, job);
        known.agrees(number, before, job);
        if known.facts.epoch != before.epoch || known.facts.is_unsettled {
            return;
        }
        known.facts.exists = true;
        if !known.busy && known.facts.changes == before.changes {
            known.facts.priorities = vec![job.spec.priority];
        }
        if job.state.is_final() {
            known.finish(number, job.state, Some(job.begun()));
            known.facts.record.get_or_insert_with(|| job.clone());
        } else if job.state == JobState::Running && job.cancel_asked {
            known.facts.last = Some(job.begun());
        }
    }

    /// The ticket of a job's attempt.
    pub fn ticket(&self, number: usize, attempt: AttemptNo) -> Ticket {
        let known = &self.jobs[number];
        let (tenant, id) = (known.spec.tenant.clone(), known.spec.id.clone());
        let (hash, epoch) = (TenantHash::of(&tenant), known.leases[&attempt].epoch);
        let seq = known.seq.expect("it was given out");
        Ticket { lease: Lease { hash, seq, attempt, epoch }, tenant, id }
    }
}
