//! The state of a shard, behind one short lock: the machine, the changes since the last write, and
//! the waiting calls and workers.

use super::awaited::Awaiting;
use super::budget::OnItsWay;
use super::durable::{Mark, Pending};
use super::edit::Edit;
use super::places::Places;
use super::seat::{Seat, SeatMessage};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::TenantHash;
use crate::job::{Ending, Epoch, Job, JobKey, JobRef, JobState, Lease, Ticket};
use crate::keys;
use crate::machine::{Beat, Expired, Granted, Hold, Machine, Next, Over, Report};
use crate::name::{Group, Tenant};
use crate::rate_row;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Jobs that are given out before other tasks have their turn.
pub(crate) const GIVEN_AT_ONCE: u32 = 1024;

/// A lease whose worker is told when it is durable.
pub(super) struct Delivery {
    pub(super) granted: Granted,
    pub(super) on_its_way: OnItsWay,
    pub(super) to: Arc<Seat>,
}

/// Changes that become durable together.
#[derive(Default)]
pub(super) struct Batch {
    /// Changes by job, in the order in which they happened.
    pub(super) edits: BTreeMap<JobKey, Vec<Edit>>,
    /// Other rows to write, or to delete.
    pub(super) rows: BTreeMap<Vec<u8>, Option<Bytes>>,
    pub(super) deliveries: Vec<Delivery>,
    /// The calls that wait for it.
    pub(super) durable: Pending,
    /// Its share of the room for new jobs.
    pub(super) room: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.rows.is_empty()
    }
}

/// Totals since the shard was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Jobs that were taken.
    pub enqueued: u64,
    /// Attempts that began.
    pub leased: u64,
    /// Jobs that succeeded.
    pub succeeded: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Attempts that are followed by another.
    pub retried: u64,
    /// Attempts whose worker was silent.
    pub expired: u64,
}

impl Totals {
    /// Adds two totals.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            enqueued: self.enqueued + more.enqueued,
            leased: self.leased + more.leased,
            succeeded: self.succeeded + more.succeeded,
            failed: self.failed + more.failed,
            cancelled: self.cancelled + more.cancelled,
            retried: self.retried + more.retried,
            expired: self.expired + more.expired,
        }
    }
}

/// A job's name within the shard.
pub(super) type Called = (Tenant, JobRef);

/// The state of a shard.
pub(super) struct State {
    pub(super) machine: Machine,
    /// Changes since the previous batch.
    pub(super) batch: Batch,
    /// The previous batch, which is being written or was.
    pub(super) under_way: Mark,
    /// Places for new jobs.
    places: Places,
    /// Jobs that a call is looking for in the database, to decide about them.
    pub(super) checking: HashSet<Called>,
    /// Jobs that have ended, and whose records do not say so yet.
    pub(super) ending: HashMap<Called, JobKey>,
    /// Jobs that had ended and are deleted, and whose records are still there.
    pub(super) leaving: HashMap<Called, JobKey>,
    waiters: HashMap<Group, VecDeque<Arc<Seat>>>,
    /// Numbers of the seats in `waiters`.
    waiting: HashSet<u64>,
    /// For each job, the seat of the worker that has it.
    holders: HashMap<JobKey, Arc<Seat>>,
    /// Leases whose workers were not told: their time has not begun.
    untold: BTreeSet<Lease>,
    /// Leases of workers that promise a heartbeat before they begin, and have sent none.
    unbegun: BTreeSet<Lease>,
    /// The calls that wait for jobs to end.
    pub(super) awaiting: Awaiting,
    pub(super) totals: Totals,
    /// Time at which the shard's timers wake by themselves, milliseconds since 1970; none without
    /// timers.
    wake_ms: Option<u64>,
    /// The reason why the shard is out of service.
    pub(super) failure: Option<Error>,
}

impl State {
    pub(super) fn new(mut machine: Machine, epoch: Epoch) -> Self {
        machine.set_epoch(epoch);
        Self {
            machine,
            batch: Batch::default(),
            under_way: Mark::past(),
            places: Places::new(epoch),
            checking: HashSet::new(),
            ending: HashMap::new(),
            leaving: HashMap::new(),
            waiters: HashMap::new(),
            waiting: HashSet::new(),
            holders: HashMap::new(),
            untold: BTreeSet::new(),
            unbegun: BTreeSet::new(),
            awaiting: Awaiting::default(),
            totals: Totals::default(),
            wake_ms: None,
            failure: None,
        }
    }

    /// Fails with a passing error if the shard is out of service.
    pub(super) fn check(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), |why| Err(why.passing()))
    }

    /// Refuses calls from now on.
    pub(super) fn refuse(&mut self, why: Error) {
        self.failure.get_or_insert(why);
    }

    /// Takes the shard out of service, and lets all waiting calls and workers go.
    pub(super) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.waiters.clear();
        self.waiting.clear();
        self.holders.clear();
        self.untold.clear();
        self.unbegun.clear();
        self.awaiting.clear();
        self.batch = Batch::default();
    }

    /// The key of a job that has not ended.
    pub(super) fn key(&self, tenant: &Tenant, job: &JobRef) -> Result<JobKey> {
        self.machine.key_of(tenant, job).ok_or_else(|| {
            let detail = format!("tenant {tenant} has no job {job} that waits or runs");
            Error::new(ErrorKind::NotFound, detail)
        })
    }

    /// The key of a job whose record does not say yet that it has ended.
    pub(super) fn key_or_ending(&self, tenant: &Tenant, job: &JobRef) -> Option<JobKey> {
        let ending = || self.ending.get(&(tenant.clone(), job.clone())).copied();
        self.machine.key_of(tenant, job).or_else(ending)
    }

    /// Takes the changes that have gathered, if there are any, to write them.
    pub(super) fn take_batch(&mut self) -> Option<Batch> {
        if self.batch.is_empty() {
            return None;
        }
        for (tenant, limit, rate) in self.machine.take_rates() {
            let row = rate.map(|rate| rate_row::encode(&rate));
            self.batch.rows.insert(keys::rate(&tenant, &limit), row);
        }
        self.under_way = self.batch.durable.mark();
        Some(std::mem::take(&mut self.batch))
    }

    pub(super) fn edit(&mut self, job: JobKey, edit: Edit) {
        self.batch.edits.entry(job).or_default().push(edit);
    }

    /// Takes a job at the next place: one that waits, or an imported one that has ended.
    pub(super) fn take(&mut self, mut job: Job, now_ms: u64) -> Result<JobRef> {
        let hash = TenantHash::of(&job.spec.tenant);
        job.seq = self.places.take(hash);
        let (key, name) = (JobKey { hash, seq: job.seq }, job.name());
        if job.state.is_final() {
            self.ending.insert((job.spec.tenant.clone(), name.clone()), key);
        } else {
            self.machine.enqueue(&job, now_ms)?;
        }
        self.totals.enqueued += 1;
        for limit in &job.spec.limits {
            self.see_to_refresher(&job.spec.tenant, &limit.key, now_ms, now_ms);
        }
        self.edit(key, Edit::New(Box::new(job)));
        Ok(name)
    }

    /// Notes the end of an attempt; the machine has said what comes next.
    pub(super) fn end_attempt(
        &mut self,
        lease: Lease,
        called: Option<Called>,
        ending: Ending,
        next: Next,
        at_ms: u64,
    ) {
        self.holders.remove(&lease.key());
        self.unbegun.remove(&lease);
        self.totals.expired += u64::from(ending == Ending::Expired);
        match next {
            Next::Retry { .. } => self.totals.retried += 1,
            Next::End(state) => {
                self.count_end(state);
                self.ending.extend(called.clone().map(|called| (called, lease.key())));
            }
        }
        self.edit(lease.key(), Edit::AttemptEnded { at_ms, ending, next });
        if let Some((tenant, job)) = called {
            self.see_to_its_limit(&tenant, &job, at_ms);
        }
    }

    pub(super) fn count_end(&mut self, state: JobState) {
        match state {
            JobState::Succeeded => self.totals.succeeded += 1,
            JobState::Failed => self.totals.failed += 1,
            _ => self.totals.cancelled += 1,
        }
    }

    /// Tells a job's worker to stop.
    pub(super) fn tell_cancel(&self, job: JobKey) {
        let lease = self.machine.lease_of(job);
        let ticket = lease.and_then(|lease| self.machine.ticket(lease));
        if let (Some(seat), Some(ticket)) = (self.holders.get(&job), ticket) {
            // The end of the lease shows that a worker has gone.
            let _ = seat.tell(SeatMessage::Cancel(ticket));
        }
    }

    /// Gives a job back whose worker has gone: the next worker gets it.
    pub(super) fn give_back(&mut self, lease: Lease, now_ms: u64) {
        let called = self.machine.called(lease);
        if let Ok(next) = self.machine.report(lease, Report::Returned, now_ms) {
            self.end_attempt(lease, called, Ending::Returned, next, now_ms);
            self.dispatch(now_ms);
        }
    }

    /// Takes a heartbeat; the first one begins the attempt.
    pub(super) fn heartbeat(&mut self, lease: Lease, now_ms: u64) -> Result<Beat> {
        self.unbegun.remove(&lease);
        self.machine.heartbeat(lease, now_ms)
    }

    /// Begins a lease: its worker is told now. Gives the time of its end, unless it has ended
    /// already.
    pub(super) fn begin_lease(&mut self, lease: Lease, now_ms: u64) -> Option<u64> {
        self.untold.remove(&lease);
        self.machine.begin_told(lease, now_ms).ok()
    }

    /// Runs a part of what has come due; gives the time of the next, milliseconds since 1970. The
    /// caller comes back then, or when [`State::must_wake`] says so.
    pub(super) fn tick(&mut self, now_ms: u64) -> Option<u64> {
        let Self { machine, untold, unbegun, holders, .. } = self;
        let hold = |lease: Lease| {
            if untold.contains(&lease) {
                return Hold::Untold;
            }
            // A worker that has gone may have begun before.
            let is_there = || holders.get(&lease.key()).is_some_and(|seat| seat.is_taken());
            if unbegun.contains(&lease) && is_there() { Hold::Unbegun } else { Hold::Begun }
        };
        for Expired { lease, how, next, called } in machine.tick(now_ms, hold) {
            if let Some(seat) = self.holders.get(&lease.key()) {
                match how {
                    // A worker that has gone need not stop.
                    Over::TooLong => {
                        let ticket = called.as_ref().map(|called| Ticket::of(lease, called));
                        let _ = ticket.is_none_or(|ticket| seat.tell(SeatMessage::Cancel(ticket)));
                    }
                    Over::Silent | Over::Unbegun => seat.note_silent(),
                }
            }
            let ending = match how {
                Over::Silent => Ending::Expired,
                Over::TooLong => Ending::TooLong,
                Over::Unbegun => Ending::Returned,
            };
            self.end_attempt(lease, called, ending, next, now_ms);
        }
        self.dispatch(now_ms);
        self.wake_ms = self.machine.next_ms();
        self.wake_ms
    }

    /// True if something comes due before the shard's timers wake by themselves, or is due already:
    /// after a suspension they sleep past their time.
    pub(super) fn must_wake(&self) -> bool {
        let Some(next_ms) = self.machine.next_ms() else { return false };
        next_ms <= self.machine.now_ms() || self.wake_ms.is_none_or(|wake_ms| next_ms < wake_ms)
    }

    /// Lets a worker wait from now on, if it did not. Gives out at most `most` jobs and at most
    /// [`GIVEN_AT_ONCE`]; gives their number.
    pub(super) fn seat(&mut self, seat: &Arc<Seat>, most: u32, now_ms: u64) -> u32 {
        if self.waiting.insert(seat.number()) {
            self.waiters.entry(seat.group().clone()).or_default().push_back(seat.clone());
        }
        self.serve_some(seat.group(), most.min(GIVEN_AT_ONCE), now_ms)
    }

    /// Lets a worker wait no more.
    pub(super) fn unseat(&mut self, seat: &Seat) {
        if !self.waiting.remove(&seat.number()) {
            return;
        }
        if let Some(waiters) = self.waiters.get_mut(seat.group()) {
            waiters.retain(|other| other.number() != seat.number());
            if waiters.is_empty() {
                self.waiters.remove(seat.group());
            }
        }
    }

    /// Gives new work to waiting workers: a part of it if it is much. A tick goes on.
    pub(super) fn dispatch(&mut self, now_ms: u64) {
        let mut most = GIVEN_AT_ONCE;
        for group in self.machine.take_touched() {
            most -= self.serve(&group, most, now_ms);
        }
    }

    /// Gives at most `most` jobs of a task group to waiting workers; gives their number. If there
    /// may be more, a tick goes on.
    pub(super) fn serve(&mut self, group: &Group, most: u32, now_ms: u64) -> u32 {
        let given = self.serve_some(group, most, now_ms);
        if given == most {
            self.machine.look_later(group);
        }
        given
    }

    /// Gives at most `most` jobs of a task group to waiting workers, in turns; gives their number.
    fn serve_some(&mut self, group: &Group, most: u32, now_ms: u64) -> u32 {
        let Some(waiters) = self.waiters.get_mut(group) else { return 0 };
        let mut given = 0;
        while given < most
            && let Some(seat) = waiters.pop_front()
        {
            let Some(granted) = seat.offer(|| self.machine.lease(group, now_ms)) else {
                self.waiting.remove(&seat.number());
                continue;
            };
            let Some((granted, on_its_way)) = granted else {
                waiters.push_front(seat);
                break;
            };
            let Lease { attempt, epoch, .. } = granted.lease;
            let edit =
                Edit::Leased { attempt, epoch, worker: seat.worker().clone(), at_ms: now_ms };
            self.batch.edits.entry(granted.lease.key()).or_default().push(edit);
            self.holders.insert(granted.lease.key(), seat.clone());
            self.untold.insert(granted.lease);
            if seat.says_when_it_begins() {
                self.unbegun.insert(granted.lease);
            }
            self.batch.deliveries.push(Delivery { granted, on_its_way, to: seat.clone() });
            self.totals.leased += 1;
            given += 1;
            waiters.push_back(seat);
        }
        if waiters.is_empty() {
            self.waiters.remove(group);
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Seq;
    use crate::spec::JobSpec;

    #[test]
    fn timers_wake_only_for_what_comes_due_before() {
        let mut state = State::new(Machine::new(1), Epoch(1));
        let enqueue = |state: &mut State, at_ms, now_ms| {
            let spec = JobSpec { start_at_ms: at_ms, ..JobSpec::default() };
            state.take(Job::new(Seq(0), spec, 1), now_ms).expect("takes it");
        };
        assert_eq!((state.must_wake(), state.tick(1)), (false, None));
        enqueue(&mut state, 0, 1);
        assert!(!state.must_wake(), "a job that may start at once waits for no time");
        enqueue(&mut state, 5_000, 1);
        assert!(state.must_wake(), "they sleep for ever");
        assert_eq!((state.tick(1), state.must_wake()), (Some(5_000), false));
        enqueue(&mut state, 6_000, 1);
        assert!(!state.must_wake(), "they wake before");
        enqueue(&mut state, 4_000, 1);
        assert!(state.must_wake(), "they would wake after");
        assert_eq!((state.tick(1), state.must_wake()), (Some(4_000), false));
        // The machine was suspended.
        enqueue(&mut state, 9_000, 4_500);
        assert!(state.must_wake(), "something is due");
    }
}
