//! The shard's calls that make certain facts uncertain: restart, delete, pause, resume, and
//! refreshes of a limit.

use crate::bounds::GroupFacts;
use crate::calls::{Caller, Gone};
use crate::model::granted_ms;
use crate::sim::Sim;
use skerry_jobs::broker::Broker;
use skerry_jobs::job::{AttemptNo, JobRef};
use skerry_jobs::machine::Next;
use skerry_jobs::name::{Group, JobId, Tenant, Worker};
use skerry_jobs::shard::{Leased, Outcome};
use skerry_jobs::{Error, ErrorKind};
use std::collections::BTreeSet;
use std::time::Duration;

/// The limit of each tenant that a worker refreshes, and the task group of its refreshers.
pub const FLOATING: &str = "float";
pub const REFRESHERS: &str = "refreshers";

/// The job that refreshes it.
pub fn refresher() -> JobRef {
    JobRef::Named(JobId::new(&format!("~limit/{FLOATING}")).expect("a name"))
}

/// A call may be restarting or deleting a job.
struct Unsettled<'a> {
    sim: &'a Sim,
    number: usize,
    may_be_gone: bool,
}

impl<'a> Unsettled<'a> {
    fn begin(sim: &'a Sim, number: usize, may_be_gone: bool) -> Self {
        let begun = Self { sim, number, may_be_gone };
        begun.unsettle(true);
        begun
    }

    fn unsettle(&self, is_unsettled: bool) {
        let facts = &mut self.sim.model.borrow_mut().jobs[self.number].facts;
        facts.unsettle();
        facts.is_unsettled = is_unsettled;
        facts.exists &= !self.may_be_gone;
    }
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.unsettle(false);
    }
}

/// A call pauses or resumes a task group: there is never another.
struct Pausing<'a> {
    sim: &'a Sim,
    group: Group,
}

impl<'a> Pausing<'a> {
    fn begin(sim: &'a Sim, group: &Group) -> Option<Self> {
        let mut model = sim.model.borrow_mut();
        let facts = model.bounds.groups.entry(group.clone()).or_default();
        let was = std::mem::replace(&mut facts.busy, true);
        (!was).then(|| Self { sim, group: group.clone() })
    }

    fn change(&self, change: impl FnOnce(&mut GroupFacts, u64)) {
        let now_ms = self.sim.world.time.peek_ms();
        let mut model = self.sim.model.borrow_mut();
        change(model.bounds.groups.get_mut(&self.group).expect("it is known"), now_ms);
    }
}

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.change(|facts, _| facts.busy = false);
    }
}

impl Caller<'_> {
    /// Restarts an ended job.
    pub async fn restart(&self, number: usize) -> Result<(), Gone> {
        let Some((tenant, name)) = self.target(number) else { return Ok(()) };
        let Some(_busy) = self.busy(number) else { return Ok(()) };
        self.say(format!("restart {number}"));
        let (was_old, before) = (self.is_old(), self.sim.facts(number));
        self.sim.model.borrow_mut().jobs[number].restart_tried = true;
        let unsettled = Unsettled::begin(self.sim, number, false);
        let said = self.shard.restart(&tenant, &name).await;
        drop(unsettled);
        self.say(format!("restart {number}: {:?}", said.as_ref().map_err(Error::kind)));
        let Err(error) = said else {
            self.done("restart", was_old);
            let given = before.given.last().map_or(0, |attempt| attempt.0);
            self.with_facts(number, |facts| {
                facts.exists = true;
                facts.restarted_after = facts.restarted_after.max(given);
                facts.revived = true;
            });
            return Ok(());
        };
        match error.kind() {
            _ if self.is_old() => return Err(Gone),
            ErrorKind::Unavailable => return Err(self.gone("restart", &error)),
            ErrorKind::Conflict => {
                // The job has not ended, or is not there, or one of its limits is there as another
                // kind.
                assert_eq!(before.finished, None, "job {number} had ended: {error}");
                self.with_facts(number, |facts| {
                    facts.exists = true;
                    facts.cancel_asked |= before.cancel_asked;
                });
            }
            _ => self.not_found(number, before.exists, &error),
        }
        Ok(())
    }

    /// Deletes a job that does not run.
    pub async fn delete(&self, number: usize) -> Result<(), Gone> {
        let Some((tenant, name)) = self.target(number) else { return Ok(()) };
        if self.sim.model.borrow().jobs[number].asking > 0 {
            return Ok(());
        }
        let Some(_busy) = self.busy(number) else { return Ok(()) };
        self.say(format!("delete {number}"));
        let (was_old, before, was_held) =
            (self.is_old(), self.sim.facts(number), self.is_held(number));
        self.sim.model.borrow_mut().jobs[number].delete_tried = true;
        let unsettled = Unsettled::begin(self.sim, number, true);
        let said = self.shard.delete(&tenant, &name).await;
        drop(unsettled);
        self.say(format!("delete {number}: {:?}", said.as_ref().map_err(Error::kind)));
        let Err(error) = said else {
            self.done("delete", was_old);
            assert!(!was_held, "job {number} ran, and was deleted");
            let now_ms = self.sim.world.time.peek_ms();
            self.with_facts(number, |facts| facts.gone_ms = Some(now_ms));
            return Ok(());
        };
        match error.kind() {
            _ if self.is_old() => return Err(Gone),
            ErrorKind::Unavailable => return Err(self.gone("delete", &error)),
            ErrorKind::Conflict => {
                assert_eq!(before.finished, None, "job {number} had ended: {error}");
                self.with_facts(number, |facts| {
                    facts.exists = true;
                    facts.cancel_asked |= before.cancel_asked;
                });
            }
            _ => self.not_found(number, before.exists || was_held, &error),
        }
        Ok(())
    }

    /// Pauses or resumes a task group.
    pub async fn set_paused(&self, group: &Group, paused: bool) -> Result<(), Gone> {
        let Some(pausing) = Pausing::begin(self.sim, group) else { return Ok(()) };
        self.say(format!("{group}: pause: {paused}"));
        let was_old = self.is_old();
        pausing.change(|facts, now_ms| match paused {
            true => facts.is_paused = facts.is_paused.filter(|is_paused| *is_paused),
            false => facts.resuming(now_ms),
        });
        let said = match paused {
            true => self.shard.pause(group).await,
            false => self.shard.resume(group).await,
        };
        said.map_err(|error| self.gone("pause", &error))?;
        self.say(format!("{group}: paused: {paused}"));
        self.done("pause", was_old);
        pausing.change(|facts, now_ms| match paused {
            true => facts.paused(now_ms),
            false => facts.is_paused = Some(false),
        });
        Ok(())
    }

    /// Checks the shard's counts against certain facts: the paused groups, and that every lease is
    /// a job that runs.
    pub fn counts_fit(&self) {
        if self.is_old() {
            return;
        }
        let (counts, groups) = (self.shard.counts(), self.shard.groups());
        let sum = |count: fn(&skerry_jobs::machine::GroupCounts) -> u64| {
            groups.iter().map(|(_, counts)| count(counts)).sum::<u64>() as usize
        };
        assert_eq!(sum(|all| all.running), counts.running, "{groups:?}");
        assert_eq!(sum(|all| all.early + all.ready + all.running), counts.active, "{groups:?}");
        let paused: BTreeSet<&Group> =
            groups.iter().filter(|(_, counts)| counts.is_paused).map(|(group, _)| group).collect();
        let (model, seen_ms) = (self.sim.model.borrow(), self.sim.world.time.seen_ms());
        for (group, facts) in model.bounds.groups.iter().filter(|(_, facts)| !facts.busy) {
            let is_paused = facts.is_paused.unwrap_or_else(|| paused.contains(group));
            assert_eq!(paused.contains(group), is_paused, "{group} is paused, or not");
        }
        let held = model.jobs.iter().filter(|known| known.is_held_at(seen_ms)).count();
        assert!(held <= counts.running, "{held} jobs are held, and {} run", counts.running);
    }

    /// Asks for a refresher.
    pub async fn lease_refresher(&self, patience: Duration) -> Result<Option<Leased>, Gone> {
        let worker = Worker::new(&self.name).expect("a name");
        let broker = Broker::new(vec![self.shard.clone()]);
        let group = Group::new(REFRESHERS).expect("a name");
        let leased = broker.lease(&group, &worker, 1, patience).await;
        let leased = leased.map_err(|error| self.gone("lease", &error))?.pop();
        Ok(leased.map(|(_, leased)| {
            assert_eq!(leased.job.name(), refresher(), "{leased:?}");
            assert_eq!(&leased.job.spec.payload[..], FLOATING.as_bytes(), "{leased:?}");
            let granted_ms = granted_ms(&leased);
            self.done("lease", self.is_old() && granted_ms > self.sim.opened_ms.get());
            leased
        }))
    }

    /// Reports how many jobs may run under a tenant's floating limit. Nothing if the lease was
    /// lost.
    pub async fn refresh(&self, leased: &Leased, max: u32) -> Result<Option<Next>, Gone> {
        let (tenant, now_ms) = (&leased.job.spec.tenant, || self.sim.world.time.peek_ms());
        let AttemptNo(attempt) = leased.lease.attempt;
        self.say(format!("refresh {tenant}, attempt {attempt}: {max}"));
        let was_old = self.is_old();
        let with = |change: &dyn Fn(&mut crate::bounds::Floating) -> usize| {
            change(self.sim.model.borrow_mut().bounds.floating(tenant))
        };
        let number = with(&|floating| floating.saying(max, now_ms()));
        let said =
            self.shard.report(leased.ticket(), Outcome::Succeeded(max.to_string().into())).await;
        self.say(format!("refresh {tenant}, attempt {attempt}: {said:?}"));
        match said {
            Ok(next) => {
                self.done("refresh", was_old);
                with(&|floating| {
                    floating.said(number, now_ms());
                    number
                });
                let is_needed = with(&|floating| usize::from(floating.is_anchored)) > 0;
                let goes_on = matches!(next, Next::Retry { .. });
                assert!(goes_on || !is_needed, "nobody refreshes the limit any more");
                Ok(Some(next))
            }
            Err(_) if self.is_old() => Err(Gone),
            Err(error) if error.kind() == ErrorKind::LeaseLost => {
                with(&|floating| {
                    floating.unsay(number, now_ms());
                    number
                });
                Ok(None)
            }
            Err(error) => Err(self.gone("refresh", &error)),
        }
    }

    /// Reports a result that is no number.
    pub async fn refresh_with_nonsense(&self, leased: &Leased) -> Result<(), Gone> {
        let said = self.shard.report(leased.ticket(), Outcome::Succeeded("many".into())).await;
        let error = said.expect_err("it is no number");
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::LeaseLost => Ok(()),
            _ => Err(self.gone("refresh", &error)),
        }
    }

    /// Waits until the job that refreshes a tenant's limit has ended, or is not there.
    pub async fn await_refresher(&self, tenant: &Tenant) -> Result<(), Gone> {
        match self.shard.await_end(tenant, &refresher()).await {
            Ok(job) => assert!(job.state.is_final(), "{job:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
        Ok(())
    }
}
