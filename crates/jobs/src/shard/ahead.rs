//! Reading ahead: a queue is worked off in the order in which it came, so whoever reads a job reads those after it too.
//!
//! What is kept is the record of a job that waits, as it is in the database. Whoever changes a job takes it from here,
//! so that nothing here is ever older than the database.

use super::store::Store;
use crate::error::Result;
use crate::job::{Job, Seq, State};
use futures::{StreamExt, stream};
use std::collections::{HashMap, VecDeque};

/// Jobs that are read at once, one by one.
const READS_MAX: usize = 64;
/// So many neighbours are read together: it costs as much as two or three that are read alone.
const RUN_MIN: usize = 8;
/// Neighbours: there are fewer than so many places between one and the next.
const RUN_GAP: u64 = 8;
/// A reader who comes back within so many places of where he stopped reads in order.
const GOES_ON_WITHIN: u64 = 64;
/// Readers that are told apart: queues that are worked off at the same time.
const READERS_MAX: usize = 8;
/// How far one read goes beyond what is wanted: jobs.
const AHEAD_JOBS: usize = 256;
/// The same in bytes that their owners and workers gave them.
const AHEAD_BYTES: usize = 256 << 10;
/// The same in places, of whosever jobs they are, or were: a job that comes back has hundreds of thousands after it that
/// are done.
const AHEAD_PLACES: u64 = 4 * AHEAD_JOBS as u64;
/// What is kept in all: jobs. Beyond it everything is let go: it is not being worked off.
const KEPT_JOBS_MAX: usize = 4096;
/// The same in bytes that their owners and workers gave them.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Jobs that are likely to be worked on next.
#[derive(Default)]
pub(super) struct Ahead {
    kept: HashMap<Seq, Job>,
    kept_bytes: usize,
    /// Where readers stopped.
    ends: VecDeque<u64>,
}

impl Ahead {
    /// The jobs at these places, in their order, that have not come to their end.
    pub(super) async fn take(
        &mut self,
        store: &Store,
        wanted: &[Seq],
    ) -> Result<HashMap<Seq, Job>> {
        let (mut found, mut alone) = (HashMap::with_capacity(wanted.len()), Vec::new());
        for run in wanted.chunk_by(|one, next| next.0 - one.0 < RUN_GAP) {
            // What was read ahead for the run before may be of this one.
            let mut run = run.to_vec();
            run.retain(|seq| !self.move_kept(*seq, &mut found));
            let Some((first, last)) = run.first().copied().zip(run.last().copied()) else {
                continue;
            };
            if self.goes_on(first) || run.len() >= RUN_MIN {
                self.read_run(store, &run, &mut found).await?;
            } else {
                alone.append(&mut run);
                self.stopped_at(last.0 + 1);
            }
        }
        let mut read = stream::iter(alone.into_iter().map(|seq| store.active_job(seq)))
            .buffer_unordered(READS_MAX);
        while let Some(job) = read.next().await {
            found.extend(job?.map(|job| (job.seq, job)));
        }
        Ok(found)
    }

    /// Moves a job that was read ahead to those that are wanted; false if there is none.
    fn move_kept(&mut self, seq: Seq, found: &mut HashMap<Seq, Job>) -> bool {
        let Some(job) = self.kept.remove(&seq) else { return false };
        self.kept_bytes -= job.bytes();
        found.insert(seq, job);
        true
    }

    /// True if somebody stopped just before this place; he reads on now.
    fn goes_on(&mut self, seq: Seq) -> bool {
        let before = |end: &u64| *end <= seq.0 && seq.0 - *end < GOES_ON_WITHIN;
        let found = self.ends.iter().position(before);
        found.and_then(|at| self.ends.remove(at)).is_some()
    }

    fn stopped_at(&mut self, end: u64) {
        self.ends.truncate(READERS_MAX - 1);
        self.ends.push_front(end);
    }

    /// Reads neighbours, and what comes after them.
    async fn read_run(
        &mut self,
        store: &Store,
        run: &[Seq],
        found: &mut HashMap<Seq, Job>,
    ) -> Result<()> {
        let (first, last) = (run[0], run[run.len() - 1]);
        let mut jobs = store.active_in(first..Seq(last.0 + AHEAD_PLACES)).await?;
        let (mut end, mut beyond, mut beyond_bytes) = (last.0 + 1, 0, 0);
        while let Some(job) = jobs.next().await? {
            if run.binary_search(&job.seq).is_ok() {
                found.insert(job.seq, job);
                continue;
            }
            if job.seq > last {
                end = job.seq.0 + 1;
                beyond += 1;
                beyond_bytes += job.bytes();
            }
            // What was found before is about to change.
            if !found.contains_key(&job.seq) {
                self.keep(job);
            }
            if beyond >= AHEAD_JOBS || beyond_bytes >= AHEAD_BYTES {
                break;
            }
        }
        self.stopped_at(end);
        Ok(())
    }

    fn keep(&mut self, job: Job) {
        // What runs is known to whoever writes it.
        if job.state != State::Scheduled {
            return;
        }
        if self.kept.len() >= KEPT_JOBS_MAX || self.kept_bytes >= KEPT_BYTES_MAX {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += job.bytes();
        if let Some(before) = self.kept.insert(job.seq, job) {
            self.kept_bytes -= before.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::JobSpec;

    #[test]
    fn who_comes_back_to_where_he_stopped_reads_on() {
        let mut ahead = Ahead::default();
        ahead.stopped_at(100);
        assert!(!ahead.goes_on(Seq(99)) && !ahead.goes_on(Seq(100 + GOES_ON_WITHIN)));
        assert!(ahead.goes_on(Seq(105)));
        assert!(!ahead.goes_on(Seq(105)), "he reads on once");
        (0..=READERS_MAX as u64).for_each(|reader| ahead.stopped_at(reader * 1000));
        assert!(!ahead.goes_on(Seq(0)) && ahead.goes_on(Seq(1000)), "the oldest is forgotten");
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
        running.state = State::Running;
        ahead.keep(running);
        assert!(!ahead.kept.contains_key(&Seq(1 << 40)), "it is somebody's");
    }
}
