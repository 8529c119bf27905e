//! Reads ahead. Workers work off a queue in its order, so a shard that reads a job soon reads the
//! jobs after it. As soon as one of those jobs is wanted, the shard reads the next ones, while
//! batches are on their way to the log. So a batch hardly ever waits for the database's files.
//!
//! The shard keeps the records of waiting jobs as they are in the database. Must hold: nothing here
//! is older than the database. So a batch that changes a job takes its record from here, and a
//! record that changes during its read is not kept.

use super::store::Store;
use crate::error::Result;
use crate::hash::TenantHash;
use crate::job::{Job, JobKey, JobState, Seq};
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll};

/// Jobs that are read at once, one by one.
const READS_MAX: usize = 64;
/// Number of neighbours from which on they are read together. Such a read costs as much as two or
/// three reads of one job.
const RUN_MIN: usize = 8;
/// Distance in places below which two jobs are neighbours.
const RUN_GAP: u64 = 8;
/// Distance in places from a reader's end within which the next job counts as read in order.
const GOES_ON_WITHIN: u64 = 64;
/// Readers that are told apart: queues of tenants that are worked off concurrently.
const READERS_MAX: usize = 32;
/// Number of jobs that one read goes beyond the wanted ones, at first.
const AHEAD_JOBS: usize = 256;
/// Number of jobs that one read goes beyond the wanted ones, for a reader that had to wait again
/// and again.
const AHEAD_JOBS_MAX: usize = 1024;
/// Bytes of a read for each job, as owners and workers gave them.
const AHEAD_BYTES: usize = 1 << 10;
/// Places of a read for each job, ended jobs and other tenants' jobs included. A restarted job has
/// hundreds of thousands of ended jobs after it.
const AHEAD_PLACES: usize = 4;
/// Number of jobs that are kept in all: what eight readers hold that have used up nothing. Beyond
/// it, the shard lets go of all of them: no worker takes them.
const KEPT_JOBS_MAX: usize = 2 * 8 * AHEAD_JOBS_MAX;
/// Bytes that are kept in all, as owners and workers gave them.
const KEPT_BYTES_MAX: usize = KEPT_JOBS_MAX * AHEAD_BYTES;

/// Jobs that are likely to be worked on next.
#[derive(Default)]
pub(super) struct Ahead {
    kept: HashMap<JobKey, Job>,
    kept_bytes: usize,
    readers: VecDeque<Reader>,
}

/// A queue that is worked off, and how far it is read.
struct Reader {
    /// Hash of the queue's tenant.
    hash: TenantHash,
    /// Places that were read beyond the wanted ones. The next read begins at their end.
    ahead: Range<u64>,
    coming: Option<Coming>,
    /// Number of jobs of one read. Doubled each time the reader had to wait.
    jobs: usize,
}

/// A read ahead that is under way.
struct Coming {
    jobs: BoxFuture<'static, Result<Vec<Job>>>,
    /// Jobs that were wanted since the read began: their records are about to change.
    changed: HashSet<JobKey>,
}

impl Ahead {
    /// Gives the jobs at these places, in their order, that have not ended.
    pub(super) async fn take(
        &mut self,
        store: &Store,
        wanted: &[JobKey],
    ) -> Result<HashMap<JobKey, Job>> {
        let (mut found, mut alone) = (HashMap::with_capacity(wanted.len()), Vec::new());
        for run in wanted.chunk_by(are_neighbours) {
            // What was read ahead for the previous run may belong to this one.
            let mut run = run.to_vec();
            run.retain(|job| !self.move_kept(store, *job, &mut found));
            if let Some(first) = run.first()
                && self.await_coming(*first).await
            {
                run.retain(|job| !self.move_kept(store, *job, &mut found));
            }
            let Some((first, last)) = run.first().copied().zip(run.last().copied()) else {
                continue;
            };
            let goes_on = self.goes_on(first);
            if goes_on.is_some() || run.len() >= RUN_MIN {
                let jobs = goes_on.unwrap_or(AHEAD_JOBS);
                self.read_run(store, &run, jobs, &mut found).await?;
            } else {
                alone.append(&mut run);
                self.stopped_at(last.hash, last.seq.0 + 1..last.seq.0 + 1, AHEAD_JOBS);
            }
        }
        let mut read = stream::iter(alone.into_iter().map(|job| store.waiting_job(job)))
            .buffer_unordered(READS_MAX);
        while let Some(job) = read.next().await {
            found.extend(job?.map(|job| (job.key(), job)));
        }
        self.note_changed(wanted);
        Ok(found)
    }

    /// Forgets these jobs, also in reads under way: they are about to change.
    fn note_changed(&mut self, wanted: &[JobKey]) {
        for job in wanted.iter().filter_map(|job| self.kept.remove(job)) {
            self.kept_bytes -= job.bytes();
        }
        for coming in self.readers.iter_mut().filter_map(|reader| reader.coming.as_mut()) {
            coming.changed.extend(wanted);
        }
    }

    /// Awaits `other`, and goes on reading meanwhile.
    pub(super) async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        poll_fn(|cx| {
            let done = other.as_mut().poll(cx);
            if done.is_pending() {
                self.poll_coming(cx);
            }
            done
        })
        .await
    }

    /// Moves a job that was read ahead to `found`, and reads the jobs after it. False if it was not
    /// read ahead.
    fn move_kept(&mut self, store: &Store, key: JobKey, found: &mut HashMap<JobKey, Job>) -> bool {
        let Some(job) = self.kept.remove(&key) else { return false };
        self.kept_bytes -= job.bytes();
        found.insert(key, job);
        let mut readers = self.readers.iter_mut();
        let is_ahead =
            |reader: &Reader| reader.hash == key.hash && reader.ahead.contains(&key.seq.0);
        if let Some(reader) = readers.find(|reader| is_ahead(reader)) {
            reader.read_on(store);
        }
        true
    }

    /// Waits for a read under way if it begins at this job. False if there is none.
    async fn await_coming(&mut self, job: JobKey) -> bool {
        let Some(at) = self.readers.iter().position(|reader| reader.is_next(job)) else {
            return false;
        };
        if self.readers[at].coming.is_none() {
            return false;
        }
        let mut has_waited = false;
        poll_fn(|cx| {
            let done = self.poll_reader(at, cx);
            has_waited |= done.is_pending();
            done
        })
        .await;
        let reader = &mut self.readers[at];
        reader.jobs = AHEAD_JOBS_MAX.min(reader.jobs << u32::from(has_waited));
        true
    }

    fn poll_coming(&mut self, cx: &mut Context<'_>) {
        for at in 0..self.readers.len() {
            let _ = self.poll_reader(at, cx);
        }
    }

    /// Keeps what has come for a reader. Ignores a failed read: the batch that wants the jobs reads
    /// them again, and fails.
    fn poll_reader(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<()> {
        let reader = &mut self.readers[at];
        let Some(coming) = &mut reader.coming else { return Poll::Ready(()) };
        let Poll::Ready(jobs) = coming.jobs.as_mut().poll(cx) else { return Poll::Pending };
        let changed = std::mem::take(&mut coming.changed);
        reader.coming = None;
        let jobs = jobs.unwrap_or_default();
        let end = jobs.last().map_or(reader.ahead.end, |job| job.seq.0 + 1);
        reader.ahead = reader.ahead.end..end;
        for job in jobs.into_iter().filter(|job| !changed.contains(&job.key())) {
            self.keep(job);
        }
        Poll::Ready(())
    }

    /// Takes out the reader that stopped just before this place; gives how many jobs it reads.
    fn goes_on(&mut self, job: JobKey) -> Option<usize> {
        let found = self.readers.iter().position(|reader| reader.is_next(job));
        found.and_then(|at| self.readers.remove(at)).map(|reader| reader.jobs)
    }

    fn stopped_at(&mut self, hash: TenantHash, ahead: Range<u64>, jobs: usize) {
        self.readers.truncate(READERS_MAX - 1);
        self.readers.push_front(Reader { hash, ahead, coming: None, jobs });
    }

    /// Reads neighbours, and the jobs after them.
    async fn read_run(
        &mut self,
        store: &Store,
        run: &[JobKey],
        jobs: usize,
        found: &mut HashMap<JobKey, Job>,
    ) -> Result<()> {
        let (first, last) = (run[0], run[run.len() - 1]);
        let mut end = last.seq.0 + 1;
        for job in read(store.clone(), first, last, jobs).await? {
            end = end.max(job.seq.0 + 1);
            let key = JobKey { seq: job.seq, ..first };
            if run.binary_search(&key).is_ok() {
                found.insert(key, job);
            } else if !found.contains_key(&key) {
                // A job that was found before is about to change.
                self.keep(job);
            }
        }
        self.stopped_at(last.hash, last.seq.0 + 1..end, jobs);
        Ok(())
    }

    fn keep(&mut self, job: Job) {
        // `Running` keeps jobs that workers have.
        if job.state != JobState::Scheduled {
            return;
        }
        if self.kept.len() >= KEPT_JOBS_MAX || self.kept_bytes >= KEPT_BYTES_MAX {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += job.bytes();
        if let Some(before) = self.kept.insert(job.key(), job) {
            self.kept_bytes -= before.bytes();
        }
    }
}

impl Reader {
    fn is_next(&self, job: JobKey) -> bool {
        let end = self.ahead.end;
        self.hash == job.hash && (end..end + GOES_ON_WITHIN).contains(&job.seq.0)
    }

    fn read_on(&mut self, store: &Store) {
        let (store, first) = (store.clone(), JobKey { hash: self.hash, seq: Seq(self.ahead.end) });
        self.coming.get_or_insert_with(|| Coming {
            jobs: Box::pin(read(store, first, first, self.jobs)),
            changed: HashSet::new(),
        });
    }
}

fn are_neighbours(one: &JobKey, next: &JobKey) -> bool {
    one.hash == next.hash && next.seq.0 - one.seq.0 < RUN_GAP
}

/// Reads jobs of one hash from `first` on that have not ended: up to `last`, and at most `most`
/// beyond it.
async fn read(store: Store, first: JobKey, last: JobKey, most: usize) -> Result<Vec<Job>> {
    let places = (most * AHEAD_PLACES) as u64;
    let end = JobKey { seq: Seq(last.seq.0 + places), ..last };
    let mut jobs = store.active_in(first..end).await?;
    let (mut read, mut beyond, mut beyond_bytes) = (Vec::new(), 0, 0);
    while beyond < most && beyond_bytes < most * AHEAD_BYTES {
        let Some((_, job)) = jobs.next().await? else { break };
        if job.seq > last.seq {
            beyond += 1;
            beyond_bytes += job.bytes();
        }
        read.push(job);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::commit::{Before, Written};
    use crate::shard::store::{Changes, Retention};
    use crate::spec::JobSpec;
    use crate::steady::Steady;
    use object_store::memory::InMemory;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use skerry_core::env::Clock;
    use slatedb::config::FlushType;
    use std::sync::Arc;
    use std::time::Duration;

    fn hash() -> TenantHash {
        TenantHash::of(&crate::name::Tenant::default())
    }

    fn key(seq: u64) -> JobKey {
        JobKey { hash: hash(), seq: Seq(seq) }
    }

    #[test]
    fn who_comes_back_to_where_he_stopped_reads_on() {
        let mut ahead = Ahead::default();
        ahead.stopped_at(hash(), 90..100, 7);
        assert_eq!(
            (ahead.goes_on(key(99)), ahead.goes_on(key(100 + GOES_ON_WITHIN))),
            (None, None)
        );
        let another = JobKey { hash: TenantHash(1), ..key(105) };
        assert_eq!(ahead.goes_on(another), None, "it is another tenant's");
        assert_eq!(ahead.goes_on(key(105)), Some(7));
        assert_eq!(ahead.goes_on(key(105)), None, "he reads on once");
        let place = |reader: u64| reader * 1000..reader * 1000;
        (0..=READERS_MAX as u64).for_each(|reader| ahead.stopped_at(hash(), place(reader), 7));
        assert_eq!(
            (ahead.goes_on(key(0)), ahead.goes_on(key(1000))),
            (None, Some(7)),
            "the oldest is forgotten"
        );
    }

    #[tokio::test]
    async fn who_has_to_wait_reads_further_each_time() {
        let mut ahead = Ahead::default();
        for (waits, jobs) in [(true, 512), (false, 512), (true, 1024), (true, 1024)] {
            if ahead.readers.is_empty() {
                ahead.stopped_at(hash(), 0..0, AHEAD_JOBS);
            }
            let slow = async move {
                if waits {
                    tokio::task::yield_now().await;
                }
                Ok(Vec::new())
            };
            let coming = Coming { jobs: Box::pin(slow), changed: HashSet::new() };
            ahead.readers[0].coming = Some(coming);
            assert!(ahead.await_coming(key(0)).await);
            assert_eq!(ahead.readers[0].jobs, jobs);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut ahead = Ahead::default();
        for seq in 0..KEPT_JOBS_MAX as u64 * 3 {
            let spec = JobSpec { payload: vec![0; 10_000].into(), ..JobSpec::default() };
            ahead.keep(Job::new(Seq(seq), spec, 0));
            let sum: usize = ahead.kept.values().map(Job::bytes).sum();
            assert_eq!(ahead.kept_bytes, sum);
            assert!(sum < KEPT_BYTES_MAX + 10_000 && ahead.kept.len() <= KEPT_JOBS_MAX);
        }
        let mut running = Job::new(Seq(1 << 40), JobSpec::default(), 0);
        running.state = JobState::Running;
        ahead.keep(running);
        assert!(!ahead.kept.contains_key(&key(1 << 40)), "it is somebody's");
    }

    /// Works off queues concurrently, changes jobs out of turn, and reads over several batches.
    /// Each record that is taken must be the database's.
    #[tokio::test]
    async fn what_is_taken_is_what_the_database_has() {
        for seed in 0..20 {
            let db = slatedb::Db::builder("db", Arc::new(InMemory::new()))
                .with_segment_extractor(Arc::new(crate::keys::ByLetter));
            let db = db.build().await.expect("opened");
            let clock = Arc::new(Steady::new(Arc::new(Still)));
            let store = Store::new(db, clock, Retention::default(), false);
            let rng = &mut StdRng::seed_from_u64(seed);
            write(&store, (0..JOBS).map(|seq| Job::new(Seq(seq), JobSpec::default(), 0))).await;
            store.flush(FlushType::MemTable).await.expect("flushed");
            let (mut ahead, mut next) = (Ahead::default(), [0, JOBS / 2]);
            for step in 1..200 {
                let reader = &mut next[rng.random_range(0..2)];
                let begin = if rng.random_bool(0.9) { *reader } else { rng.random_range(0..JOBS) };
                let end = JOBS.min(begin + rng.random_range(1..30));
                *reader = end % JOBS;
                let wanted: Vec<JobKey> = (begin..end).map(key).collect();
                let mut taken = ahead.take(&store, &wanted).await.expect("taken");
                for key in wanted {
                    let stored = store.waiting_job(key).await.expect("read");
                    assert_eq!(taken.get(&key), stored.as_ref(), "seed {seed}, step {step}");
                }
                taken.values_mut().for_each(|job| job.created_ms = step);
                write(&store, taken.into_values()).await;
                for _ in 0..rng.random_range(0..4) {
                    ahead.meanwhile(tokio::task::yield_now()).await;
                }
            }
        }
    }

    const JOBS: u64 = 2_000;

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

    async fn write(store: &Store, jobs: impl Iterator<Item = Job>) {
        let mut changes = Changes::default();
        for now in jobs {
            let (is_changed, had_lease) = (true, false);
            let before = Before::Active;
            let written = Written { now, before, is_gone: false, is_changed, had_lease };
            store.put(&mut changes, &written);
        }
        store.write(changes).await.expect("written");
        store.sync().await.expect("durable");
    }
}
