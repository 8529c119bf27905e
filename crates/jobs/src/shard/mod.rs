//! A shard: the machine, its database, and the calls of its users.
//!
//! Every call changes the machine first, in memory. It is answered when the batch with its change
//! is durable. A failure of the database takes the shard out of service: unanswered calls may have
//! happened or not, and opening it again finds out.

mod ahead;
mod awaited;
mod budget;
mod calls;
mod commit;
mod cursor;
mod descriptor;
mod durable;
mod edit;
mod ended_ids;
mod floating;
mod places;
mod quiet;
mod reading;
mod running;
mod seat;
mod state;
mod store;
mod working;

pub use awaited::{AWAITED_BYTES_MAX, Awaited};
pub use budget::{BUDGET_BYTES, Budget, OnItsWay};
pub use calls::{Enqueued, Imported};
pub use cursor::Cursor;
pub(crate) use descriptor::Descriptor;
use durable::Mark;
pub use reading::{LISTED_MAX, Listed, Query};
pub use seat::{Begins, Leased, ON_ITS_WAY_BYTES, Seat, SeatMessage, SeatMessages};
pub(crate) use state::GIVEN_AT_ONCE;
pub use state::Totals;
pub use store::Retention;
pub use working::Outcome;

use crate::database::FENCED;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobKey, JobState};
use crate::keys;
use crate::machine::Machine;
use crate::name::LimitKey;
use crate::opening::Opening;
use crate::rate_row;
use crate::steady::{Now, Steady};
use parking_lot::{Mutex, MutexGuard};
use skerry_core::env::{Clock, Entropy};
use skerry_core::wire::FormatError;
use slatedb::{CloseReason, DbStatus};
use state::State;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{Row, Store};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// KiB of new jobs that may be on their way to the database; further jobs wait. Outcomes never
/// wait, as a lease would end meanwhile. The number of leases bounds them.
const ON_ITS_WAY_KIB_MAX: u32 = 64 << 10;
/// Time that a useless database may take to close.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(10);

/// The parts of a shard.
pub struct ShardParts {
    /// The database, opened by this node alone.
    pub db: slatedb::Db,
    /// The opening of the database.
    pub opening: Opening,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Decides the jitter of retries.
    pub entropy: Arc<dyn Entropy>,
    /// Time for which ended jobs are kept.
    pub retention: Retention,
    /// True to move rows of the database's log alone to the database at a close. Else they stay in
    /// the log.
    pub apply_log_on_close: bool,
}

struct Inner {
    descriptor: Descriptor,
    state: Mutex<State>,
    store: Store,
    clock: Arc<Steady>,
    /// The reason why the shard is out of service, if it is.
    failure: watch::Sender<Option<Error>>,
    /// Notified when a call has decided about a job.
    claims: Notify,
    /// KiB that may still be on their way.
    room: Arc<Semaphore>,
    /// Bytes of jobs that calls may still wait for.
    awaited: Arc<Semaphore>,
    /// Notified when there is something to write.
    work: Arc<Notify>,
    /// Notified when something comes due before the timers wake by themselves.
    timer: Arc<Notify>,
}

/// An open shard.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

impl Shard {
    /// Opens a shard: reads back every job that has not ended.
    ///
    /// # Errors
    /// `Unavailable` if the database does not answer, `Corrupt` for unreadable data, `Conflict` if
    /// it is another shard's.
    pub async fn open(parts: ShardParts) -> Result<Self> {
        let clock = Arc::new(Steady::new(parts.clock.clone()));
        let (db, apply_log) = (parts.db.clone(), parts.apply_log_on_close);
        let store = Store::new(db, clock.clone(), parts.retention, apply_log);
        let opened = Self::read(&store, clock, parts).await;
        if opened.is_err() {
            // Closing lets go of resources such as a log, and writes nothing. The reason why it was
            // not opened says more than the close's.
            let _ = tokio::time::timeout(LET_GO_TIME_MAX, store.abandon()).await;
        }
        opened
    }

    async fn read(store: &Store, clock: Arc<Steady>, parts: ShardParts) -> Result<Self> {
        let now = store.begin_incarnation(&parts.opening).await?;
        let epoch = now.epoch()?;
        let mut seed = [0; 8];
        parts.entropy.fill(&mut seed);
        let machine = Machine::new(u64::from_le_bytes(seed));
        let mut state = State::new(machine, epoch);
        let Now { ms: now_ms, stepped_ms } = clock.now();
        // Leases begin now, so an earlier step of the clock does not matter to them.
        state.machine.note_stepped(stepped_ms);
        let resumed = read_back(store, &mut state, now_ms).await?;
        let inner = Arc::new(Inner {
            descriptor: now,
            state: Mutex::new(state),
            store: store.clone(),
            clock,
            failure: watch::Sender::default(),
            claims: Notify::new(),
            room: Arc::new(Semaphore::new(ON_ITS_WAY_KIB_MAX as usize)),
            awaited: Arc::new(Semaphore::new(AWAITED_BYTES_MAX)),
            work: Arc::default(),
            timer: Arc::default(),
        });
        tokio::spawn(commit::run(Arc::downgrade(&inner), resumed));
        tokio::spawn(watch_timers(Arc::downgrade(&inner)));
        tokio::spawn(quiet::watch(Arc::downgrade(&inner)));
        tokio::spawn(watch_database(Arc::downgrade(&inner), parts.db.subscribe()));
        tokio::spawn(learn_ended_ids(store.clone(), inner.failure.subscribe()));
        Ok(Self { inner })
    }

    /// Closes the shard, also one out of service; everything that was answered is durable.
    ///
    /// # Errors
    /// `Unavailable` if the database does not take what the shard still has.
    pub async fn close(self) -> Result<()> {
        let inner = &self.inner;
        // Calls that come from here on are refused: none slips in behind the last batch.
        inner.state.lock().refuse(closed());
        let durable = inner.finish_batches().await;
        inner.take_out_of_service(&closed());
        let ended = match &durable {
            Ok(()) => inner.store.close(inner.descriptor).await,
            // The database's tasks end, and let go of their resources.
            Err(_) => inner.store.abandon().await,
        };
        durable.and(ended)
    }

    /// Waits until the shard is out of service; gives the reason.
    pub async fn out_of_service(&self) -> Error {
        self.inner.failed().await
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the shard is closed")
}

/// Reads back everything that has not ended; gives the jobs that workers have.
async fn read_back(store: &Store, state: &mut State, now_ms: u64) -> Result<HashSet<JobKey>> {
    let mut rates = store.rows(&[keys::RATE], None).await?;
    while let Some(Row { key, value, .. }) = rates.next().await? {
        let (tenant, limit) = keys::limit_of(&key)?;
        match readable(rate_row::decode(&value), &limit)? {
            Some(rate) => state.machine.restore_rate(&tenant, &limit, rate, now_ms),
            None => drop(state.batch.rows.insert(key.to_vec(), None)),
        }
    }
    let mut resumed = HashSet::new();
    let mut jobs = store.active().await?;
    while let Some((_, job)) = jobs.next().await? {
        match job.state {
            JobState::Running => {
                resumed.insert(job.key());
                state.machine.resume_running(&job, now_ms)?;
            }
            _ => state.machine.resume_waiting(&job, now_ms)?,
        }
    }
    let mut limits = store.rows(&[keys::LIMIT], None).await?;
    while let Some(Row { key, value, .. }) = limits.next().await? {
        let (tenant, limit) = keys::limit_of(&key)?;
        let max = match state.machine.floating(&tenant, &limit) {
            Some(_) => readable(floating::decode_max(&value), &limit)?,
            None => None,
        };
        match max {
            Some(max) => state.machine.set_limit(&tenant, &limit, max, now_ms)?,
            None => drop(state.batch.rows.insert(key.to_vec(), None)),
        }
    }
    for (tenant, limit) in state.machine.floating_limits() {
        state.see_to_refresher(&tenant, &limit, now_ms, now_ms);
    }
    let mut paused = store.rows(&[keys::PAUSED], None).await?;
    while let Some(Row { key, .. }) = paused.next().await? {
        state.machine.pause(&keys::paused_of(&key)?);
    }
    Ok(resumed)
}

/// Gives a limit's row, or nothing if it is damaged: a shard that stays closed for it would be
/// worse. A row of a newer version is not damaged.
fn readable<T>(row: std::result::Result<T, FormatError>, limit: &LimitKey) -> Result<Option<T>> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(error @ FormatError::Newer { .. }) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, %limit, "the row of a limit is damaged: the limit begins anew");
            Ok(None)
        }
    }
}

impl Inner {
    /// Gives the state and the time. Notes a step of the clock before anything uses the new time.
    fn at_once(&self) -> (MutexGuard<'_, State>, u64) {
        let mut state = self.state.lock();
        let now = self.clock.now();
        if state.machine.note_stepped(now.stepped_ms) {
            // The timers sleep by the old time.
            self.timer.notify_one();
        }
        (state, now.ms)
    }

    /// Notes a change: gives the batch with it.
    fn changed(&self, state: &State) -> Mark {
        self.work.notify_one();
        if state.must_wake() {
            self.timer.notify_one();
        }
        state.batch.durable.mark()
    }

    /// The batch that makes everything durable that has happened.
    fn pending(&self, state: &State) -> Mark {
        if state.batch.is_empty() { state.under_way.clone() } else { self.changed(state) }
    }

    /// Waits until nothing is left to write. The end of a batch may give jobs back.
    async fn finish_batches(&self) -> Result<()> {
        loop {
            let mark = {
                let state = self.state.lock();
                if state.batch.is_empty() && state.under_way.is_past() {
                    return Ok(());
                }
                self.pending(&state)
            };
            self.wait_durable(mark).await?;
        }
    }

    /// Waits for a batch, or for the shard's failure: a batch on its way may then stay so for ever.
    async fn wait_durable(&self, mark: Mark) -> Result<()> {
        tokio::select! {
            biased;
            true = mark.wait() => Ok(()),
            // The change may be durable all the same: the caller asks again, whatever the
            // database's failure is.
            why = self.failed() => Err(why.passing()),
        }
    }

    /// Takes the shard out of service, unless it is already; all waiting calls are told.
    fn take_out_of_service(&self, why: &Error) {
        self.failure.send_modify(|failure| {
            failure.get_or_insert_with(|| why.clone());
        });
        self.state.lock().fail(why.clone());
        // The tasks end, and let go of their memory.
        self.work.notify_one();
        self.timer.notify_one();
    }

    /// Waits until the shard is out of service; gives the reason.
    async fn failed(&self) -> Error {
        let mut failure = self.failure.subscribe();
        let found = failure.wait_for(Option::is_some).await;
        found.ok().and_then(|failure| failure.clone()).unwrap_or_else(closed)
    }

    /// Gives the database's answer, unless the shard fails first: a store that is away may keep the
    /// database from answering for ever.
    async fn read<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            answered = asked => answered,
            why = self.failed() => Err(why.passing()),
        }
    }

    /// Waits for room for this many bytes on their way. The batch keeps the room.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        let kib = kib.min(ON_ITS_WAY_KIB_MAX);
        // Also yields if there is room: calls that come together would otherwise not stay together.
        if let Ok(room) = self.room.clone().try_acquire_many_owned(kib) {
            return Ok(room);
        }
        self.room.clone().acquire_many_owned(kib).await.map_err(|_| closed())
    }

    /// Waits until everything is durable that has happened.
    async fn catch_up(&self) -> Result<()> {
        let mark = {
            let state = self.state.lock();
            state.check()?;
            self.pending(&state)
        };
        self.wait_durable(mark).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.work.notify_one();
        self.timer.notify_one();
    }
}

/// Notices that another node has opened the database, also while nothing is written.
async fn watch_database(inner: Weak<Inner>, mut status: watch::Receiver<DbStatus>) {
    let closed = status.wait_for(|status| status.close_reason.is_some()).await;
    let Ok(reason) = closed.map(|status| status.close_reason) else { return };
    if let Some(shard) = inner.upgrade() {
        let why = match reason {
            Some(CloseReason::Fenced) => Error::fenced(FENCED),
            other => {
                let text = format!("the jobs' database is closed: {other:?}");
                Error::new(ErrorKind::Unavailable, text)
            }
        };
        shard.fail(&why);
    }
}

/// Reads the ids of ended jobs. Until it has succeeded, the shard looks for new ids in the
/// database.
async fn learn_ended_ids(store: Store, mut failure: watch::Receiver<Option<Error>>) {
    tokio::select! {
        biased;
        // Out of service, or gone.
        _ = failure.wait_for(Option::is_some) => {}
        learned = store.learn_ended_ids() => {
            if let Err(error) = learned {
                tracing::warn!(%error, "new jobs are taken more slowly: the ids of old ones can't be read");
            }
        }
    }
}

/// Longest sleep of a shard's timers: the clock may be set meanwhile.
const TIMER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Runs what comes due.
async fn watch_timers(inner: Weak<Inner>) {
    loop {
        let Some(shard) = inner.upgrade() else { return };
        let timer = shard.timer.clone();
        let wait = {
            let (mut state, now_ms) = shard.at_once();
            if state.failure.is_some() {
                return;
            }
            let next_ms = state.tick(now_ms);
            if !state.batch.is_empty() {
                shard.work.notify_one();
            }
            next_ms.map(|next_ms| {
                Duration::from_millis(next_ms.saturating_sub(now_ms)).min(TIMER_WAIT_MAX)
            })
        };
        drop(shard);
        match wait {
            // There is more to do; other tasks have their turn first.
            Some(Duration::ZERO) => tokio::task::yield_now().await,
            Some(wait) => {
                let _ = tokio::time::timeout(wait, timer.notified()).await;
            }
            None => timer.notified().await,
        }
    }
}
