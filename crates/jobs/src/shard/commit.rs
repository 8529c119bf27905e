//! Group commit: a shard writes all changes since the previous batch together, makes them durable,
//! and then answers.
//!
//! One batch at a time: while one is on its way, the next gathers. A job that changes several times
//! between two batches is written once.

use super::Inner;
use super::ahead::Ahead;
use super::durable::Pending;
use super::edit::Edit;
use super::running::Running;
use super::seat::{Leased, SeatMessage};
use super::state::{Batch, Delivery};
use super::store::{Changes, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobKey, JobState, Lease};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use std::collections::{BTreeMap, HashMap, HashSet, btree_map};
use std::iter::Peekable;
use std::sync::{Arc, Weak};

/// Writes batches as long as the shard is in use and nothing fails. Workers had the jobs `resumed`
/// when the shard was opened.
pub(super) async fn run(inner: Weak<Inner>, resumed: HashSet<JobKey>) {
    let mut known = Known { running: Running::new(resumed), ahead: Ahead::default() };
    loop {
        let Some(shard) = inner.upgrade() else { return };
        if shard.failure.borrow().is_some() {
            return;
        }
        gather_callers(|| shard.may_join()).await;
        let Some(mut batch) = shard.take_batch() else {
            let work = shard.work.clone();
            drop(shard);
            known.ahead.meanwhile(work.notified()).await;
            continue;
        };
        let durable = std::mem::take(&mut batch.durable);
        let _room = std::mem::take(&mut batch.room);
        if let Err(error) = shard.commit(&mut known, batch, &durable).await {
            shard.fail(&error);
            return;
        }
    }
}

/// A batch of so many jobs waits for no more callers: the shares of its cost are small by then.
const GATHERED_JOBS_MAX: usize = 64;

/// Lets callers join the next batch, as long as more of them come at each turn of the runtime.
///
/// The callers of the batch before come back then. Without this they alternate, half of them in
/// each batch. A caller alone waits for one turn. `waiting` counts the callers of the next batch.
async fn gather_callers(mut waiting: impl FnMut() -> usize) {
    let mut before = waiting();
    while before > 0 {
        tokio::task::yield_now().await;
        let now = waiting();
        if now <= before {
            return;
        }
        before = now;
    }
}

impl Inner {
    /// Counts the callers of the next batch; none if the batch is large enough to be written.
    fn may_join(&self) -> usize {
        let state = self.state.lock();
        let is_large = state.batch.edits.len() >= GATHERED_JOBS_MAX;
        if is_large { 0 } else { state.batch.durable.waiting() }
    }

    /// Takes the changes that have gathered, if there are any.
    fn take_batch(&self) -> Option<Batch> {
        self.state.lock().take_batch()
    }

    /// Writes a batch: in one piece, or, if its records are large, in several, each whole or not at
    /// all. Rows of limits go with the first piece, so a crash in between leaves no lease without
    /// the token that it took.
    async fn commit(&self, known: &mut Known, batch: Batch, durable: &Pending) -> Result<()> {
        let Batch { edits, mut rows, mut deliveries, .. } = batch;
        let mut edits = edits.into_iter().peekable();
        loop {
            let written = gather(&self.store, known, &mut edits).await?;
            let next = edits.peek().map(|(next, _)| *next);
            let is_now = |to: &Delivery| next.is_none_or(|next| to.granted.lease.key() < next);
            let (now, later) = deliveries.into_iter().partition(is_now);
            deliveries = later;
            self.write(known, written, std::mem::take(&mut rows), now).await?;
            if next.is_none() {
                durable.done();
                return Ok(());
            }
        }
    }

    /// Writes a piece of a batch.
    async fn write(
        &self,
        known: &mut Known,
        written: Vec<Written>,
        rows: BTreeMap<Vec<u8>, Option<Bytes>>,
        deliveries: Vec<Delivery>,
    ) -> Result<()> {
        let mut changes = Changes::default();
        written.iter().for_each(|job| self.store.put(&mut changes, job));
        rows.into_iter().for_each(|(key, value)| changes.set(key, value));
        let durably = async {
            self.store.write(changes).await?;
            self.store.sync().await
        };
        known.ahead.meanwhile(durably).await?;
        self.note_written(&written);
        let running =
            written.into_iter().filter(|job| job.now.state == JobState::Running && !job.is_gone);
        let running: HashMap<JobKey, Job> = running.map(|job| (job.now.key(), job.now)).collect();
        let gone = deliver(&running, self.begin_leases(deliveries));
        running.into_values().for_each(|job| known.running.keep(job));
        for gone in gone {
            let (mut state, now_ms) = self.at_once();
            state.give_back(gone, now_ms);
            self.changed(&state);
        }
        Ok(())
    }

    /// Forgets what was kept in memory until the records were written.
    fn note_written(&self, written: &[Written]) {
        let mut state = self.state.lock();
        for Written { now, before, is_gone, .. } in written {
            let called = || (now.spec.tenant.clone(), now.name());
            if *is_gone && *before == Before::Ended {
                state.leaving.remove(&called());
            } else if now.state.is_final() && !is_gone {
                state.ending.remove(&called());
                state.awaiting.tell(now.key());
            }
            if *is_gone {
                // Calls that wait for its end look for it, and find nothing.
                state.awaiting.tell(now.key());
            }
        }
    }

    /// Begins leases now, as their workers are told, however long the batch was on its way.
    fn begin_leases(&self, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
        let (mut state, now_ms) = self.at_once();
        for Delivery { granted, .. } in &mut deliveries {
            let expires_ms = state.begin_lease(granted.lease, now_ms);
            granted.expires_ms = expires_ms.unwrap_or(granted.expires_ms);
        }
        deliveries
    }

    /// Takes the shard out of service: all waiting calls are told.
    pub(super) fn fail(&self, error: &Error) {
        // Also while the shard is being closed: it waits for its last batch.
        if self.failure.borrow().is_some() {
            return;
        }
        tracing::error!(%error, "a shard of the broker is out of service");
        self.take_out_of_service(error);
    }
}

/// Row of a job in the database before a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Active,
    Ended,
}

/// A job as it is after a batch.
pub(super) struct Written {
    pub(super) now: Job,
    pub(super) before: Before,
    /// True if the job was deleted: `now` is its last state.
    pub(super) is_gone: bool,
    /// True if the job changed in more than that a worker has it now.
    pub(super) is_changed: bool,
    /// True if the database has a lease of it.
    pub(super) had_lease: bool,
}

/// Jobs whose records need not be read.
struct Known {
    /// Jobs that workers have.
    running: Running,
    /// Jobs that were read with others.
    ahead: Ahead,
}

/// Jobs that are read at once, one by one.
const READS_MAX: usize = 16;

/// Bytes of records that are written in one piece, without the last ones read together. Hundreds of
/// jobs of a megabyte may end at once.
const PIECE_BYTES: usize = 16 << 20;
/// Jobs that are read together.
const READ_TOGETHER: usize = 64;

/// Changes of jobs, in their order.
type Edits = Peekable<btree_map::IntoIter<JobKey, Vec<Edit>>>;

/// Makes the changes of a batch, as many as go into one piece.
async fn gather(store: &Store, known: &mut Known, edits: &mut Edits) -> Result<Vec<Written>> {
    let (mut piece, mut bytes) = (Vec::new(), 0);
    while bytes < PIECE_BYTES && edits.peek().is_some() {
        let some = edits.by_ref().take(READ_TOGETHER).collect();
        let mut written = make(store, known, some).await?;
        bytes += written.iter().map(|job| job.now.bytes()).sum::<usize>();
        piece.append(&mut written);
    }
    Ok(piece)
}

/// Makes changes to jobs; first reads the jobs that no worker has.
async fn make(
    store: &Store,
    known: &mut Known,
    edits: Vec<(JobKey, Vec<Edit>)>,
) -> Result<Vec<Written>> {
    let (mut unknown, mut let_go) = (Vec::new(), Vec::new());
    for (key, edits) in &edits {
        if edits.first().is_some_and(Edit::begins) || known.running.has(*key) {
            continue;
        }
        let is_let_go = known.running.take_let_go(*key);
        if is_let_go { &mut let_go } else { &mut unknown }.push(*key);
    }
    let mut waiting = known.ahead.take(store, &unknown).await?;
    let read = let_go.into_iter().map(|key| store.active_job(key));
    let mut read = stream::iter(read).buffer_unordered(READS_MAX);
    while let Some(job) = read.next().await {
        waiting.extend(job?.map(|job| (job.key(), job)));
    }
    let mut written = Vec::with_capacity(edits.len());
    for (key, edits) in edits {
        let job = known.running.take(key).or_else(|| waiting.remove(&key));
        written.push(apply(key, job, edits)?);
    }
    Ok(written)
}

fn apply(key: JobKey, known: Option<Job>, edits: Vec<Edit>) -> Result<Written> {
    let mut edits = edits.into_iter().peekable();
    let begins = edits.next_if(Edit::begins);
    let mut is_gone = matches!(begins, Some(Edit::EndedDeleted(_)));
    let mut is_changed = begins.is_some();
    let (mut now, before) = match (begins, known) {
        (Some(Edit::New(job)), _) => (*job, Before::Nothing),
        (Some(Edit::Restarted(job) | Edit::EndedDeleted(job)), _) => (*job, Before::Ended),
        (_, Some(job)) => (job, Before::Active),
        (_, None) => {
            let detail = format!("the record of the job at {} is not there", key.seq.0);
            return Err(Error::new(ErrorKind::Corrupt, detail));
        }
    };
    let had_lease = before == Before::Active && now.state == JobState::Running;
    for edit in edits {
        is_gone |= matches!(edit, Edit::Deleted);
        is_changed |= !matches!(edit, Edit::Leased { .. });
        edit.apply(&mut now);
    }
    Ok(Written { now, before, is_gone, is_changed, had_lease })
}

/// Gives a job as its worker gets it: without earlier attempts, which may be megabytes.
fn without_history(job: &Job) -> Job {
    let mut job = job.clone();
    job.attempts.drain(..job.attempts.len().saturating_sub(1));
    job
}

/// Tells workers of their leases; gives the leases whose worker has gone.
fn deliver(running: &HashMap<JobKey, Job>, deliveries: Vec<Delivery>) -> Vec<Lease> {
    let mut gone = Vec::new();
    for Delivery { granted, on_its_way, to } in deliveries {
        let job = running.get(&granted.lease.key());
        let Some(job) = job.filter(|job| job.begun() == granted.lease.attempt) else {
            // The attempt ended before it was written. A worker that has gone need not know.
            let _ = to.tell(SeatMessage::Missed(granted.bytes));
            continue;
        };
        let leased = Leased {
            lease: granted.lease,
            expires_ms: granted.expires_ms,
            job: without_history(job),
            on_its_way: Arc::new(on_its_way),
        };
        if !to.tell(SeatMessage::Leased(Box::new(leased))) {
            gone.push(granted.lease);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Ending, Seq};
    use crate::machine::Next;
    use crate::shard::store::Retention;
    use crate::spec::JobSpec;
    use crate::steady::Steady;
    use object_store::memory::InMemory;
    use skerry_core::env::Clock;
    use std::time::Duration;

    /// A clock that stands still.
    struct Still;

    impl Clock for Still {
        fn boot(&self) -> Duration {
            Duration::ZERO
        }

        fn wall_ms(&self) -> u64 {
            1
        }
    }

    #[tokio::test]
    async fn callers_join_a_batch_as_long_as_more_come() {
        for (counts, turns) in [(&[0, 7][..], 1), (&[1, 1, 7], 2), (&[2, 3, 6, 6, 7], 4)] {
            let (mut left, mut asked) = (counts.iter().copied(), 0);
            gather_callers(|| {
                asked += 1;
                left.next().expect("it has stopped")
            })
            .await;
            assert_eq!(asked, turns, "{counts:?}");
        }
    }

    async fn store() -> Store {
        let db = slatedb::Db::builder("db", Arc::new(InMemory::new()))
            .with_segment_extractor(Arc::new(crate::keys::ByLetter));
        let db = db.build().await.expect("opened");
        Store::new(db, Arc::new(Steady::new(Arc::new(Still))), Retention::default(), false)
    }

    /// Once, jobs of a megabyte whose leases ended together were all in memory for one batch.
    #[tokio::test]
    async fn many_large_jobs_that_end_together_are_read_in_pieces() {
        const JOBS: u64 = 200;
        let store = store().await;
        let job = |seq| {
            let spec = JobSpec { payload: vec![0; 1 << 20].into(), ..JobSpec::default() };
            Job::new(Seq(seq), spec, 0)
        };
        for seq in 0..JOBS {
            let written = Written {
                now: job(seq),
                before: Before::Nothing,
                is_gone: false,
                is_changed: true,
                had_lease: false,
            };
            let mut changes = Changes::default();
            store.put(&mut changes, &written);
            store.write(changes).await.expect("written");
        }
        store.sync().await.expect("durable");
        let keys: Vec<JobKey> = (0..JOBS).map(|seq| job(seq).key()).collect();
        let over = |key: &JobKey| {
            let next = Next::Retry { at_ms: 1 };
            (*key, vec![Edit::AttemptEnded { at_ms: 1, ending: Ending::Expired, next }])
        };
        let mut edits = keys.iter().map(over).collect::<BTreeMap<_, _>>().into_iter().peekable();
        let running = Running::new(keys.iter().copied().collect());
        let mut known = Known { running, ahead: Ahead::default() };
        let mut seen = Vec::new();
        while edits.peek().is_some() {
            let piece = gather(&store, &mut known, &mut edits).await.expect("reads");
            let bytes: usize = piece.iter().map(|job| job.now.bytes()).sum();
            assert!(bytes < PIECE_BYTES + READ_TOGETHER * (2 << 20), "{bytes} bytes in one piece");
            assert!(bytes < 128 << 20, "{bytes} bytes in one piece");
            seen.extend(piece.iter().map(|job| job.now.key()));
        }
        assert_eq!(seen, keys);
    }
}
