//! The shard's calls, each noted before it is made and judged when it is answered. A caller that
//! drops one of these half-way has hung up: then it may have happened or not.

use crate::known::{Facts, Refused, Said};
use crate::model::granted_ms;
use crate::sim::Sim;
use skerry_core::env::Clock;
use skerry_jobs::broker::Broker;
use skerry_jobs::hash::TenantHash;
use skerry_jobs::job::{AttemptNo, Ending, Epoch, Job, JobRef, JobState, Lease, Seq};
use skerry_jobs::name::{Group, Tenant, Worker};
use skerry_jobs::shard::{Imported, Leased, Outcome, Shard};
use skerry_jobs::{Error, ErrorKind};
use std::time::Duration;

/// The shard is out of service.
#[derive(Debug)]
pub struct Gone;

/// A user of the shard.
#[derive(Clone)]
pub struct Caller<'a> {
    pub sim: &'a Sim,
    pub shard: Shard,
    pub name: String,
    /// Number of the shard's opening that it uses.
    life: u32,
}

/// The state when a change was asked for.
#[derive(Clone, Copy)]
struct Was {
    /// Another process had opened the shard.
    old: bool,
    /// A worker certainly had the job.
    held: bool,
    /// The job had ended so.
    finished: Option<JobState>,
}

/// A call that changes a job is under way: there is never another.
pub struct Busy<'a> {
    sim: &'a Sim,
    number: usize,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.sim.model.borrow_mut().jobs[self.number].busy = false;
    }
}

/// A call asks for a job.
struct Asking<'a> {
    sim: &'a Sim,
    number: usize,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.sim.model.borrow_mut().jobs[self.number].asking -= 1;
    }
}

/// The kept form of an outcome.
pub fn ending_of(outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Succeeded(result) => Ending::Succeeded(result.clone()),
        Outcome::Failed(error) => Ending::Failed(error.clone()),
        Outcome::Cancelled => Ending::Cancelled,
        Outcome::Returned => Ending::Returned,
    }
}

impl<'a> Caller<'a> {
    /// A user of the shard's newest opening.
    pub fn new(sim: &'a Sim, shard: Shard, name: impl Into<String>) -> Self {
        Self { sim, shard, name: name.into(), life: sim.opened.get() }
    }

    pub fn say(&self, line: String) {
        self.sim.say(format!("{}: {line}", self.name));
    }

    /// True if another process has opened the shard since: no later call of this user is done.
    pub fn is_old(&self) -> bool {
        self.life != self.sim.opened.get()
    }

    /// Notes that a change of the shard was done.
    pub fn done(&self, what: &str, was_old: bool) {
        assert!(!was_old, "{what}: done by a shard that somebody else had opened");
    }

    /// Notes that the shard no longer answers; that must have a reason.
    pub fn gone(&self, what: &str, error: &Error) -> Gone {
        self.say(format!("{what}: {error}"));
        if self.is_old() {
            return Gone;
        }
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
        assert!(self.sim.disturbed.get(), "the store works, and {what} failed: {error}");
        if self.sim.broken.get().is_none() && self.is_out_of_service() {
            self.sim.broken.set(Some(self.sim.world.time.boot()));
        }
        Gone
    }

    pub fn target(&self, number: usize) -> Option<(Tenant, JobRef)> {
        let model = self.sim.model.borrow();
        let known = &model.jobs[number];
        let name = known.name.clone().filter(|_| known.facts.gone_ms.is_none());
        name.map(|name| (known.spec.tenant.clone(), name))
    }

    pub fn busy(&self, number: usize) -> Option<Busy<'a>> {
        let known = &mut self.sim.model.borrow_mut().jobs[number];
        let was = std::mem::replace(&mut known.busy, true);
        (!was).then(|| Busy { sim: self.sim, number })
    }

    pub fn with_facts(&self, number: usize, change: impl FnOnce(&mut Facts)) {
        change(&mut self.sim.model.borrow_mut().jobs[number].facts);
    }

    /// True if the shard refuses everything; a call that only reads may fail alone.
    fn is_out_of_service(&self) -> bool {
        let (hash, seq, epoch) = (TenantHash(0), Seq(0), Epoch(0));
        let nobodys = Lease { hash, seq, attempt: AttemptNo(0), epoch };
        let said = self.shard.heartbeat(nobodys);
        said.is_err_and(|error| error.kind() == ErrorKind::Unavailable)
    }

    /// True if the shard is out of service since this moment, or is not, by the answers until now.
    pub fn is_breaking(&self) -> bool {
        let broken = self.sim.broken.get();
        self.is_old() || broken.is_none_or(|since| since == self.sim.world.time.boot())
    }

    /// Checks that there was no job to change.
    pub fn not_found(&self, number: usize, was_there: bool, error: &Error) {
        assert_eq!(error.kind(), ErrorKind::NotFound, "job {number}: {error}");
        assert!(!was_there, "job {number} was lost: {error}");
    }

    /// Asks for a job, perhaps again.
    pub async fn enqueue(&self, number: usize) -> Result<(), Gone> {
        self.say(format!("enqueue {number}"));
        let (was_old, before) = (self.is_old(), self.sim.facts(number));
        let (spec, imported) = {
            let known = &mut self.sim.model.borrow_mut().jobs[number];
            known.asked += 1;
            known.asking += 1;
            let spec = known.spec.clone();
            let imported = known.imported.clone();
            (spec.clone(), imported.map(|imported| Imported { spec, ..imported }))
        };
        let _asking = Asking { sim: self.sim, number };
        let said = match imported {
            Some(imported) => self.shard.import(imported).await,
            None => self.shard.enqueue(spec).await,
        };
        match said {
            Ok(said) => {
                self.say(format!("enqueue {number}: is new: {}", said.is_new));
                self.done("enqueue", was_old && said.is_new);
                if self.is_old() && !said.is_new {
                    // The job was there before another process opened the shard.
                    return Ok(());
                }
                self.sim.model.borrow_mut().enqueued(number, &before, &said);
                Ok(())
            }
            Err(error) => Err(self.gone("enqueue", &error)),
        }
    }

    /// Asks for work, and takes what there is.
    pub async fn lease(
        &self,
        group: &Group,
        max: u32,
        patience: Duration,
    ) -> Result<Vec<(usize, Leased)>, Gone> {
        self.say(format!("lease {max} of {group} within {patience:?}"));
        let worker = Worker::new(&self.name).expect("a name");
        let was_broken = self.sim.broken.get().is_some();
        let broker = Broker::new(vec![self.shard.clone()]);
        let leased = broker.lease(group, &worker, max, patience).await;
        let leased =
            leased.map(|all| all.into_iter().map(|(_, leased)| leased).collect::<Vec<_>>());
        let leased = leased.map_err(|error| {
            let gone = self.gone("lease", &error);
            let is_told = was_broken || self.is_old() || self.is_breaking();
            assert!(is_told, "who waits for work was not told");
            gone
        })?;
        assert!(leased.len() <= max as usize, "{} jobs, {max} wanted", leased.len());
        let mut got = Vec::new();
        for leased in leased {
            let (attempt, until) = (leased.lease.attempt.0, leased.expires_ms);
            let number = self.sim.model.borrow_mut().leased(&leased);
            self.is_granted_rightly(&leased);
            self.say(format!("has {number} attempt {attempt} until {until}"));
            got.push((number, leased));
        }
        Ok(got)
    }

    /// Checks that no other process had opened the shard that gave this lease, and its group and
    /// rates.
    fn is_granted_rightly(&self, leased: &Leased) {
        let granted_ms = granted_ms(leased);
        let is_late = self.is_old() && granted_ms > self.sim.opened_ms.get();
        self.done("lease", is_late);
        self.sim.model.borrow_mut().bounds.given(&leased.job.spec, granted_ms);
    }

    /// Sends a heartbeat. True if the lease holds and the work is not to be stopped.
    pub fn heartbeat(&self, number: usize, attempt: AttemptNo) -> Result<bool, Gone> {
        let ticket = self.sim.model.borrow().ticket(number, attempt);
        let said = self.shard.heartbeat(ticket.lease);
        self.say(format!("heartbeat {number} attempt {}: {said:?}", attempt.0));
        if self.is_old() {
            // A heartbeat is not written, and means nothing to the shard that has the job now.
            return said.map(|beat| !beat.cancel_asked).map_err(|_| Gone);
        }
        let beat = match said {
            Ok(beat) => Some(beat),
            Err(error) if error.kind() == ErrorKind::LeaseLost => None,
            Err(error) => return Err(self.gone("heartbeat", &error)),
        };
        let seen_ms = self.sim.world.time.seen_ms();
        self.sim.model.borrow_mut().beaten(number, attempt, beat, seen_ms);
        Ok(beat.is_some_and(|beat| !beat.cancel_asked))
    }

    /// Reports the outcome of an attempt, perhaps again, or too late.
    pub async fn report(
        &self,
        number: usize,
        attempt: AttemptNo,
        outcome: Outcome,
    ) -> Result<(), Gone> {
        let ending = ending_of(&outcome);
        self.say(format!("report {number} attempt {}: {ending:?}", attempt.0));
        let (was_old, before) = (self.is_old(), self.sim.facts(number));
        let (ticket, was_tried, was_superseded) = {
            let mut model = self.sim.model.borrow_mut();
            let ticket = model.ticket(number, attempt);
            let leases = &mut model.jobs[number].leases;
            let was_superseded = leases.range(attempt..).count() > 1;
            let tried = &mut leases.get_mut(&attempt).expect("it was given").tried;
            let was_tried = !tried.is_empty();
            tried.push(ending.clone());
            (ticket, was_tried, was_superseded)
        };
        let said = self.shard.report(ticket, outcome).await;
        let shown = said.as_ref().map_err(Error::kind);
        self.say(format!("report {number} attempt {}: {shown:?}", attempt.0));
        let seen_ms = self.sim.world.time.seen_ms();
        match said {
            Ok(next) => {
                self.done("report", was_old && !was_tried);
                let is_called_off = before.cancel_asked && !was_tried;
                let (ending, epoch) = (&ending, before.epoch);
                #[rustfmt::skip]
                let said = Said {
                    attempt, ending, next, was_tried, was_superseded, epoch, is_called_off,
                };
                self.sim.model.borrow_mut().reported(number, &said);
            }
            Err(_) if self.is_old() => return Err(Gone),
            Err(error) if error.kind() == ErrorKind::LeaseLost => {
                let refused = Refused { attempt, ending: &ending, before: &before, was_tried };
                self.sim.model.borrow_mut().refused(number, &refused, seen_ms);
            }
            Err(error) => return Err(self.gone("report", &error)),
        }
        Ok(())
    }

    /// Gives a job back that was not begun, without waiting for an answer.
    pub fn give_back(&self, number: usize, attempt: AttemptNo) {
        self.say(format!("give back {number} attempt {}", attempt.0));
        let lease = {
            let mut model = self.sim.model.borrow_mut();
            let held = model.jobs[number].leases.get_mut(&attempt).expect("it was given");
            held.tried.push(Ending::Returned);
            model.ticket(number, attempt).lease
        };
        self.shard.give_back(lease);
    }

    /// Cancels a job.
    pub async fn cancel(&self, number: usize) -> Result<(), Gone> {
        let Some((tenant, name)) = self.target(number) else { return Ok(()) };
        let Some(_busy) = self.busy(number) else { return Ok(()) };
        self.say(format!("cancel {number}"));
        let (was_old, before) = (self.is_old(), self.sim.facts(number));
        self.sim.model.borrow_mut().jobs[number].cancel_tried = true;
        self.with_facts(number, |facts| facts.revived = false);
        let was_held = self.is_held(number);
        let said = self.shard.cancel(&tenant, &name).await;
        self.say(format!("cancel {number}: {:?}", said.as_ref().map_err(Error::kind)));
        match said {
            Ok(said) => {
                self.done("cancel", was_old);
                self.sim.model.borrow_mut().cancelled(number, &before, was_held, said);
            }
            Err(_) if self.is_old() => return Err(Gone),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                return Err(self.gone("cancel", &error));
            }
            Err(error) => self.not_found(number, was_held, &error),
        }
        Ok(())
    }

    /// True if a worker holds the job: it has certainly not ended.
    pub fn is_held(&self, number: usize) -> bool {
        let seen_ms = self.sim.world.time.seen_ms();
        self.sim.model.borrow().jobs[number].is_held_at(seen_ms)
    }

    /// Lets a waiting job start at once.
    pub async fn expedite(&self, number: usize) -> Result<(), Gone> {
        let Some((tenant, name)) = self.target(number) else { return Ok(()) };
        let Some(_busy) = self.busy(number) else { return Ok(()) };
        self.say(format!("expedite {number}"));
        let was = self.was(number);
        let said = self.shard.expedite(&tenant, &name).await;
        if self.changed("expedite", number, was, said)? {
            self.with_facts(number, |facts| facts.expedited = true);
        }
        Ok(())
    }

    /// Changes the priority of a waiting job.
    pub async fn set_priority(&self, number: usize, priority: u8) -> Result<(), Gone> {
        let Some((tenant, name)) = self.target(number) else { return Ok(()) };
        let Some(_busy) = self.busy(number) else { return Ok(()) };
        self.say(format!("priority {number} = {priority}"));
        self.with_facts(number, |facts| {
            facts.priorities.push(priority);
            facts.changes += 1;
        });
        let was = self.was(number);
        let said = self.shard.set_priority(&tenant, &name, priority).await;
        let changed = self.changed("priority", number, was, said)?;
        self.with_facts(number, |facts| {
            facts.changes += 1;
            if changed {
                facts.priorities = vec![priority];
            } else {
                facts.priorities.pop();
            }
        });
        Ok(())
    }

    fn was(&self, number: usize) -> Was {
        let finished = self.sim.facts(number).finished;
        Was { old: self.is_old(), held: self.is_held(number), finished }
    }

    /// True if a change was made; it is not if the job runs or has ended.
    fn changed(
        &self,
        what: &str,
        number: usize,
        was: Was,
        said: Result<(), Error>,
    ) -> Result<bool, Gone> {
        self.say(format!("{what} {number}: {:?}", said.as_ref().map_err(Error::kind)));
        let Err(error) = said else {
            self.done(what, was.old);
            assert!(!was.held, "job {number} runs, and {what} changed it");
            return Ok(true);
        };
        match error.kind() {
            _ if self.is_old() => return Err(Gone),
            ErrorKind::Conflict => {
                assert_eq!(was.finished, None, "job {number} had ended, and runs");
                self.with_facts(number, |facts| facts.exists = true);
            }
            ErrorKind::Unavailable => return Err(self.gone(what, &error)),
            _ => self.not_found(number, was.held, &error),
        }
        Ok(false)
    }

    /// Looks at a job.
    pub async fn show(&self, number: usize) -> Result<Option<Job>, Gone> {
        let Some((tenant, name)) = self.target(number) else { return Ok(None) };
        let before = self.sim.facts(number);
        let said = self.shard.show(&tenant, &name).await;
        self.saw("show", number, &before, said)
    }

    /// Waits for a job to end.
    pub async fn await_end(&self, number: usize) -> Result<(), Gone> {
        let Some((tenant, name)) = self.target(number) else { return Ok(()) };
        self.say(format!("await {number}"));
        let before = self.sim.facts(number);
        let said = self.shard.await_end(&tenant, &name).await;
        let ended = self.saw("await", number, &before, said)?;
        let is_over = ended.is_none_or(|job| job.state.is_final());
        assert!(is_over || self.is_old(), "job {number} has not ended");
        Ok(())
    }

    pub fn saw(
        &self,
        what: &str,
        number: usize,
        before: &Facts,
        said: Result<Job, Error>,
    ) -> Result<Option<Job>, Gone> {
        let shown = said.as_ref().map(|job| (job.state, job.begun())).map_err(Error::kind);
        self.say(format!("{what} {number}: {shown:?}"));
        let is_same_epoch = self.sim.facts(number).epoch == before.epoch;
        match said {
            // The job's state before another process opened the shard.
            Ok(job) if self.is_old() => Ok(Some(job)),
            Err(_) if self.is_old() => Err(Gone),
            // The job was deleted meanwhile, and another got its id.
            Ok(job) if !is_same_epoch && !self.sim.model.borrow().is_it(number, &job) => Ok(None),
            Ok(job) => {
                self.sim.model.borrow_mut().seen(number, before, &job);
                Ok(Some(job))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(self.gone(what, &error)),
            Err(error) => {
                self.not_found(number, before.exists && is_same_epoch, &error);
                Ok(None)
            }
        }
    }
}
