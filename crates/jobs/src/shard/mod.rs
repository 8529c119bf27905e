//! A shard: the machine, its database, and the calls of those who use it.
//!
//! Every call changes the machine first, in memory, and is answered when the batch that its change is in is durable.
//! A failure of the database takes the shard out of service: what was not answered may have happened or not, and
//! opening it again finds out.

mod commit;
mod edit;
mod state;
mod store;

pub use state::Leased;
pub use store::Retention;

use crate::error::{Error, ErrorKind, Result};
use crate::job::{Ending, Job, JobError, JobRef, Lease, Seq, State as JobState};
use crate::machine::{Beat, Cancelled, Machine, Next, Report};
use crate::name::{Group, JobId, Tenant, Worker};
use crate::spec::{JobSpec, check_payload};
use edit::Edit;
use parking_lot::Mutex;
use skerry_core::env::{Clock, Entropy};
use state::{State, Waiter};
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::Store;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Bits of a place that count jobs; those above count how often the shard was opened.
const SEQ_BITS: u32 = 40;
/// The most jobs that one call leases.
pub const LEASES_MAX: u32 = 1000;

/// What a shard is made of.
pub struct ShardParts {
    /// The database, opened by nobody else.
    pub db: slatedb::Db,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Decides the jitter of retries.
    pub entropy: Arc<dyn Entropy>,
    /// How long jobs are kept that have come to their end.
    pub retention: Retention,
}

/// What is durable.
#[derive(Debug, Clone, Default)]
struct Durable {
    /// The last batch.
    number: u64,
    /// Why no other will be.
    failure: Option<Error>,
}

struct Inner {
    state: Mutex<State>,
    store: Store,
    clock: Arc<dyn Clock>,
    durable: watch::Sender<Durable>,
    /// There is something to write.
    work: Arc<Notify>,
    /// The next timer is another.
    timer: Arc<Notify>,
}

/// A shard that is open.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

/// What a worker says of an attempt that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done; with what came out.
    Succeeded(bytes::Bytes),
    /// Not done.
    Failed(JobError),
    /// Stopped, as it was told to.
    Cancelled,
}

/// A job that was taken, or was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// What it is called.
    pub job: JobRef,
    /// False if one of its id was there: nothing was changed then.
    pub is_new: bool,
}

impl Shard {
    /// Opens a shard: reads back every job that has not come to its end.
    ///
    /// # Errors
    /// `Unavailable` if the database does not answer, `Corrupt` for what can't be read.
    pub async fn open(parts: ShardParts) -> Result<Self> {
        let store = Store::new(parts.db, parts.retention);
        let incarnation = store.begin_incarnation().await?;
        let mut seed = [0; 8];
        parts.entropy.fill(&mut seed);
        let mut machine = Machine::new(u64::from_le_bytes(seed));
        let now_ms = parts.clock.wall_ms();
        let mut jobs = store.active().await?;
        while let Some(job) = jobs.next().await? {
            match job.state {
                JobState::Running => machine.resume_running(&job, now_ms)?,
                _ => machine.enqueue(&job, now_ms)?,
            }
        }
        let inner = Arc::new(Inner {
            state: Mutex::new(State::new(machine, incarnation << SEQ_BITS)),
            store,
            clock: parts.clock,
            durable: watch::Sender::default(),
            work: Arc::default(),
            timer: Arc::default(),
        });
        tokio::spawn(commit::run(Arc::downgrade(&inner)));
        tokio::spawn(watch_timers(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Takes a job. One with an id that is there already is not taken again.
    ///
    /// # Errors
    /// `Invalid` for a field out of range, `Conflict` if a limit is there as another kind, `Unavailable`.
    pub async fn enqueue(&self, spec: JobSpec) -> Result<Enqueued> {
        spec.check()?;
        let Some(id) = spec.id.clone() else {
            let (number, job) = self.inner.admit(spec)?;
            self.inner.wait_durable(number).await?;
            return Ok(Enqueued { job, is_new: true });
        };
        let key = (spec.tenant.clone(), id.clone());
        let there = Enqueued { job: JobRef::Named(id.clone()), is_new: false };
        let claim = match self.inner.claim_id(&key).await? {
            Claim::There(number) => {
                self.inner.wait_durable(number).await?;
                return Ok(there);
            }
            Claim::Mine(claim) => claim,
        };
        if self.inner.store.ended(&key.0, &key.1).await?.is_some() {
            return Ok(there);
        }
        let (number, job) = self.inner.admit(spec)?;
        drop(claim);
        self.inner.wait_durable(number).await?;
        Ok(Enqueued { job, is_new: true })
    }

    /// Work for a worker of a task group: at least one job, unless there is none for as long as `patience`.
    ///
    /// # Errors
    /// `Invalid` for no jobs or too many, `Unavailable`.
    pub async fn lease(
        &self,
        group: &Group,
        worker: &Worker,
        max: u32,
        patience: Duration,
    ) -> Result<Vec<Leased>> {
        if !(1..=LEASES_MAX).contains(&max) {
            return Err(Error::invalid(format!("{max} jobs at once: 1 to {LEASES_MAX}")));
        }
        let (number, mut leased) = self.inner.ask(group, worker, max)?;
        let mut got: Vec<Leased> = Vec::new();
        // Without an answer in time the question is taken back; what was given before that is on its way.
        if let Ok(first) = tokio::time::timeout(patience, leased.recv()).await {
            got.extend(first);
        }
        let granted = self.inner.take_back(group, number, max);
        while got.len() < granted as usize
            && let Some(next) = leased.recv().await
        {
            got.push(next);
        }
        self.inner.state.lock().check()?;
        Ok(got)
    }

    /// A sign of life.
    ///
    /// # Errors
    /// `LeaseLost` if somebody else has the job, or nobody.
    pub fn heartbeat(&self, lease: Lease) -> Result<Beat> {
        let now_ms = self.inner.clock.wall_ms();
        let mut state = self.inner.state.lock();
        state.check()?;
        state.machine.heartbeat(lease, now_ms)
    }

    /// How an attempt ended. Said again, it is answered the same.
    ///
    /// # Errors
    /// `LeaseLost` if somebody else has the job, or nobody; `Invalid` for a result that is too large; `Unavailable`.
    pub async fn report(&self, lease: Lease, outcome: Outcome) -> Result<Next> {
        let (report, ending) = match outcome {
            Outcome::Succeeded(result) => {
                check_payload("result", &result)?;
                (Report::Succeeded, Ending::Succeeded(result))
            }
            Outcome::Failed(error) => {
                let error = error.shortened();
                (Report::Failed { is_final: error.is_final }, Ending::Failed(error))
            }
            Outcome::Cancelled => (Report::Cancelled, Ending::Cancelled),
        };
        let now_ms = self.inner.clock.wall_ms();
        let reported = {
            let mut state = self.inner.state.lock();
            state.check()?;
            let named = state.machine.named(lease);
            let next = state.machine.report(lease, report, now_ms);
            next.map(|next| {
                state.end_attempt(lease, named, ending.clone(), next, now_ms);
                state.dispatch(now_ms);
                (next, self.inner.changed(&state))
            })
        };
        match reported {
            Ok((next, number)) => {
                self.inner.wait_durable(number).await?;
                Ok(next)
            }
            Err(error) => self.inner.reported_before(lease, &ending).await?.ok_or(error),
        }
    }

    /// Calls a job off.
    ///
    /// # Errors
    /// `NotFound` if there is none that has not come to its end; `Unavailable`.
    pub async fn cancel(&self, tenant: &Tenant, job: &JobRef) -> Result<Cancelled> {
        let now_ms = self.inner.clock.wall_ms();
        let (done, number) = {
            let mut state = self.inner.state.lock();
            state.check()?;
            let seq = state.place(tenant, job)?;
            let done = state.machine.cancel(tenant, job, now_ms)?;
            match done {
                Cancelled::Asked => state.edit(seq, Edit::CancelAsked),
                Cancelled::Now => {
                    state.edit(seq, Edit::Cancelled { at_ms: now_ms });
                    if let JobRef::Named(id) = job {
                        state.ending.insert((tenant.clone(), id.clone()), seq);
                    }
                }
            }
            (done, self.inner.changed(&state))
        };
        self.inner.wait_durable(number).await?;
        Ok(done)
    }

    /// A job that waits may start at once.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it runs, `Unavailable`.
    pub async fn expedite(&self, tenant: &Tenant, job: &JobRef) -> Result<()> {
        self.change(tenant, job, Edit::Expedited, |machine, now_ms| {
            machine.expedite(tenant, job, now_ms)
        })
        .await
    }

    /// Changes the priority of a job that waits.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it runs, `Invalid`, `Unavailable`.
    pub async fn set_priority(&self, tenant: &Tenant, job: &JobRef, priority: u8) -> Result<()> {
        self.change(tenant, job, Edit::Priority(priority), |machine, now_ms| {
            machine.set_priority(tenant, job, priority, now_ms)
        })
        .await
    }

    async fn change(
        &self,
        tenant: &Tenant,
        job: &JobRef,
        edit: Edit,
        decide: impl FnOnce(&mut Machine, u64) -> Result<()>,
    ) -> Result<()> {
        let now_ms = self.inner.clock.wall_ms();
        let number = {
            let mut state = self.inner.state.lock();
            state.check()?;
            let seq = state.place(tenant, job)?;
            decide(&mut state.machine, now_ms)?;
            state.edit(seq, edit);
            state.dispatch(now_ms);
            self.inner.changed(&state)
        };
        self.inner.wait_durable(number).await
    }

    /// A job, as it was when everything was durable that happened before this call.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn show(&self, tenant: &Tenant, job: &JobRef) -> Result<Job> {
        let inner = &self.inner;
        let (number, seq) = {
            let state = inner.state.lock();
            state.check()?;
            (inner.pending(&state), state.machine.place_of(tenant, job))
        };
        inner.wait_durable(number).await?;
        let seq = match (seq, job) {
            (Some(seq), _) => Some(seq),
            (None, JobRef::Named(id)) => inner.store.ended(tenant, id).await?,
            (None, JobRef::Assigned(seq)) => Some(*seq),
        };
        let found = match seq {
            Some(seq) => inner.store.job(seq).await?,
            None => None,
        };
        let is_it = |found: &Job| found.spec.tenant == *tenant && found.name() == *job;
        found.filter(is_it).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("tenant {tenant} has no job {job}"))
        })
    }

    /// A job, once it has come to its end.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn await_end(&self, tenant: &Tenant, job: &JobRef) -> Result<Job> {
        let ended = {
            let mut state = self.inner.state.lock();
            state.check()?;
            state.machine.place_of(tenant, job).map(|seq| {
                let (tell, ended) = oneshot::channel();
                let waiting = state.awaiting.entry(seq).or_default();
                waiting.retain(|other| !other.is_closed());
                waiting.push(tell);
                ended
            })
        };
        let Some(ended) = ended else { return self.show(tenant, job).await };
        match ended.await {
            Ok(job) => Ok(job),
            Err(_) => {
                self.inner.state.lock().check()?;
                Err(Error::new(ErrorKind::Unavailable, "the shard was closed; ask again"))
            }
        }
    }

    /// Closes the shard; everything that was answered is durable.
    ///
    /// # Errors
    /// `Unavailable` if the database does not take what it still has.
    pub async fn close(self) -> Result<()> {
        let number = {
            let mut state = self.inner.state.lock();
            state.waiters.clear();
            self.inner.pending(&state)
        };
        self.inner.wait_durable(number).await?;
        let closed = Error::new(ErrorKind::Unavailable, "the shard is closed");
        self.inner.state.lock().failure = Some(closed);
        self.inner.store.close().await
    }
}

/// An id that somebody else does not take meanwhile.
struct IdClaim<'a> {
    inner: &'a Inner,
    key: (Tenant, JobId),
}

impl Drop for IdClaim<'_> {
    fn drop(&mut self) {
        self.inner.state.lock().checking.remove(&self.key);
        // Who waits for the same id looks again.
        self.inner.durable.send_modify(|_| {});
    }
}

enum Claim<'a> {
    /// There is a job of this id; what is known of it is durable with this batch.
    There(u64),
    Mine(IdClaim<'a>),
}

impl Inner {
    /// Something has changed: gives the batch that it is in.
    fn changed(&self, state: &State) -> u64 {
        self.work.notify_one();
        self.timer.notify_one();
        state.number
    }

    /// The batch with which everything is durable that has happened.
    fn pending(&self, state: &State) -> u64 {
        if state.batch.is_empty() { state.number - 1 } else { self.changed(state) }
    }

    async fn wait_durable(&self, number: u64) -> Result<()> {
        let mut durable = self.durable.subscribe();
        let done = |durable: &Durable| durable.number >= number || durable.failure.is_some();
        let found = durable.wait_for(done).await;
        match found.map(|durable| (durable.number, durable.failure.clone())) {
            Ok((reached, _)) if reached >= number => Ok(()),
            Ok((_, Some(error))) => Err(error),
            _ => Err(Error::new(ErrorKind::Unavailable, "the shard is closed")),
        }
    }

    /// Takes an id, or finds it taken.
    async fn claim_id(&self, key: &(Tenant, JobId)) -> Result<Claim<'_>> {
        let mut durable = self.durable.subscribe();
        loop {
            {
                let mut state = self.state.lock();
                state.check()?;
                let job = JobRef::Named(key.1.clone());
                if state.machine.place_of(&key.0, &job).is_some() || state.ending.contains_key(key)
                {
                    return Ok(Claim::There(self.pending(&state)));
                }
                if state.checking.insert(key.clone()) {
                    return Ok(Claim::Mine(IdClaim { inner: self, key: key.clone() }));
                }
            }
            // Every claim that ends changes this.
            let _ = durable.changed().await;
        }
    }

    fn admit(&self, spec: JobSpec) -> Result<(u64, JobRef)> {
        let now_ms = self.clock.wall_ms();
        let mut state = self.state.lock();
        state.check()?;
        let job = Job::new(Seq(state.next_seq), spec, now_ms);
        state.machine.enqueue(&job, now_ms)?;
        state.next_seq += 1;
        let name = job.name();
        state.edit(job.seq, Edit::New(Box::new(job)));
        state.dispatch(now_ms);
        Ok((self.changed(&state), name))
    }

    /// Puts a worker among those who wait.
    fn ask(
        &self,
        group: &Group,
        worker: &Worker,
        max: u32,
    ) -> Result<(u64, mpsc::Receiver<Leased>)> {
        let (to, leased) = mpsc::channel(max as usize);
        let now_ms = self.clock.wall_ms();
        let mut state = self.state.lock();
        state.check()?;
        let number = state.next_waiter;
        state.next_waiter += 1;
        let waiter = Waiter { number, worker: worker.clone(), credits: max, granted: 0, to };
        state.waiters.entry(group.clone()).or_default().push_back(waiter);
        state.serve(group, now_ms);
        self.changed(&state);
        Ok((number, leased))
    }

    /// The worker does not wait any more: how many jobs were given to it.
    fn take_back(&self, group: &Group, number: u64, max: u32) -> u32 {
        let mut state = self.state.lock();
        let Some(waiters) = state.waiters.get_mut(group) else { return max };
        let Some(at) = waiters.iter().position(|waiter| waiter.number == number) else {
            return max;
        };
        let granted = waiters.remove(at).map_or(max, |waiter| waiter.granted);
        if waiters.is_empty() {
            state.waiters.remove(group);
        }
        granted
    }

    /// What was answered to the same report before, if it was made before.
    async fn reported_before(&self, lease: Lease, ending: &Ending) -> Result<Option<Next>> {
        let number = self.pending(&self.state.lock());
        self.wait_durable(number).await?;
        let Some(job) = self.store.job(lease.seq).await? else { return Ok(None) };
        let attempt = job.attempts.iter().find(|attempt| attempt.number == lease.attempt);
        let is_same = attempt
            .and_then(|attempt| attempt.ended.as_ref())
            .is_some_and(|(_, before)| before == ending);
        let is_last = job.begun() == lease.attempt;
        Ok(is_same.then_some(match job.state {
            state if is_last && state.is_final() => Next::End(state),
            _ => Next::Retry { at_ms: job.spec.start_at_ms },
        }))
    }
}

/// Sees to what happens by itself.
async fn watch_timers(inner: Weak<Inner>) {
    loop {
        let Some(shard) = inner.upgrade() else { return };
        let timer = shard.timer.clone();
        let wait = {
            let now_ms = shard.clock.wall_ms();
            let mut state = shard.state.lock();
            if state.failure.is_some() {
                return;
            }
            state.tick(now_ms);
            if !state.batch.is_empty() {
                shard.work.notify_one();
            }
            let next_ms = state.machine.next_ms();
            next_ms.map(|next_ms| Duration::from_millis(next_ms.saturating_sub(now_ms).max(1)))
        };
        drop(shard);
        match wait {
            Some(wait) => {
                let _ = tokio::time::timeout(wait, timer.notified()).await;
            }
            None => timer.notified().await,
        }
    }
}
