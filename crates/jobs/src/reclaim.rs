//! Merges that win space back, in files of a shard's database that hold many deleted or expired
//! rows.
//!
//! SlateDB merges files of similar size when new ones come. In a shard with few writes no files
//! come, and deleted or expired rows would keep their bytes for ever. Its compactor asks the
//! scheduler here, which asks SlateDB's own first. This scheduler proposes a merge only if that one
//! has nothing to do, nothing is being merged, and no file was made for a while. It merges a tree
//! (the rows of one letter) if a quarter of the rows in its files are deletions. Or it merges a
//! tree's oldest files, if all that they had when they were made has expired, without dead letters.
//!
//! SlateDB's merges take the time of the newest row in its files for now. So the shard writes a row
//! when that is long ago (`shard::quiet`).
//!
//! Each such merge ends with the oldest files of its tree, so that removed rows leave nothing
//! behind. None is repeated in vain: a merge leaves no deletion, and makes new files.

use crate::db_clock::DbClock;
use crate::keys;
use object_store::ObjectStore;
use parking_lot::Mutex;
use slatedb::SstReader;
use slatedb::compactor::{
    CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec, CompactorStateView,
    SizeTieredCompactionSchedulerSupplier, SourceId,
};
use slatedb::config::CompactorOptions;
use slatedb::manifest::{Segment, SsTableHandle, SsTableId, SsTableView, VersionedManifest};
use slatedb_common::clock::SystemClock as _;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Time without a new file after which a database is not busy, milliseconds.
pub(crate) const QUIET_MS: u64 = 600_000;
/// Fewer bytes are not worth a merge.
pub(crate) const BYTES_MIN: u64 = 4 << 20;
/// Rows for each deletion at which a tree is merged, or fewer. A deletion also takes away another
/// row.
const ROWS_PER_DELETION: u64 = 4;
/// Trees of rows that expire.
const EXPIRING: [u8; 3] = [keys::ENDED, keys::DEAD, keys::METADATA];

/// Gives a database its scheduler.
pub(crate) struct Reclaim {
    counts: Arc<Counts>,
    clock: Arc<DbClock>,
    done_ms: u64,
}

impl Reclaim {
    /// For the database at a path of a store, which keeps jobs for `done_ms` after their end unless
    /// they failed.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        path: &str,
        clock: Arc<DbClock>,
        done_ms: u64,
    ) -> Self {
        let reader = SstReader::new(path, store, None, None);
        let counts = Counts { reader, known: Mutex::default(), is_reading: AtomicBool::new(false) };
        Self { counts: Arc::new(counts), clock, done_ms }
    }
}

impl CompactionSchedulerSupplier for Reclaim {
    fn compaction_scheduler(
        &self,
        options: &CompactorOptions,
    ) -> Box<dyn CompactionScheduler + Send + Sync> {
        let usual = SizeTieredCompactionSchedulerSupplier::new().compaction_scheduler(options);
        let (counts, clock, done_ms) = (self.counts.clone(), self.clock.clone(), self.done_ms);
        Box::new(Scheduler { usual, counts, clock, done_ms })
    }
}

struct Scheduler {
    usual: Box<dyn CompactionScheduler + Send + Sync>,
    counts: Arc<Counts>,
    clock: Arc<DbClock>,
    done_ms: u64,
}

impl CompactionScheduler for Scheduler {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let usual = self.usual.propose(state);
        let begun = state.compactions().into_iter().flat_map(|all| all.recent_compactions());
        if !usual.is_empty() || begun.into_iter().any(|one| one.active()) {
            return usual;
        }
        self.reclaim(state.manifest()).into_iter().collect()
    }

    fn validate(
        &self,
        state: &CompactorStateView,
        spec: &CompactionSpec,
    ) -> Result<(), slatedb::Error> {
        self.usual.validate(state, spec)
    }
}

impl Scheduler {
    fn reclaim(&self, manifest: &VersionedManifest) -> Option<CompactionSpec> {
        let now_ms = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or(0);
        let newest_ms = manifest.all_sst_views().map(made_ms).max()?;
        if newest_ms.saturating_add(QUIET_MS) > now_ms {
            return None;
        }
        manifest.segments().iter().find_map(|tree| {
            let sources = sources_of(tree);
            let from = if self.has_deletions(manifest, &sources) {
                0
            } else {
                expired_from(tree.prefix(), &sources, merge_ms(manifest), self.done_ms)?
            };
            merge(manifest, tree, &sources[from..])
        })
    }

    /// True if many of a tree's rows are deletions. A single run has none: the merge that made it
    /// left them out.
    fn has_deletions(&self, manifest: &VersionedManifest, sources: &[Source<'_>]) -> bool {
        if sources.len() < 2 || bytes(sources) < BYTES_MIN {
            return false;
        }
        let files = sources.iter().flat_map(|source| source.files.iter());
        let rows = self.counts.of(manifest, files.copied());
        rows.is_some_and(|rows| rows.deletions * ROWS_PER_DELETION >= rows.all)
    }
}

/// The time that a merge takes for now, milliseconds since 1970.
fn merge_ms(manifest: &VersionedManifest) -> u64 {
    u64::try_from(manifest.last_l0_clock_tick()).unwrap_or(0)
}

/// True if much has expired, and a merge would not know: nothing was written since.
pub(crate) fn expires_unseen(manifest: &VersionedManifest, now_ms: u64, done_ms: u64) -> bool {
    manifest.segments().iter().any(|tree| {
        let sources = sources_of(tree);
        let expired = |now_ms| expired_from(tree.prefix(), &sources, now_ms, done_ms);
        expired(now_ms).is_some() && expired(merge_ms(manifest)).is_none()
    })
}

/// A file or a run of a tree.
struct Source<'a> {
    id: SourceId,
    files: Vec<&'a SsTableView>,
}

impl Source<'_> {
    fn made_ms(&self) -> u64 {
        self.files.iter().copied().map(made_ms).max().unwrap_or(0)
    }
}

/// Time when a file was made, milliseconds since 1970.
fn made_ms(file: &SsTableView) -> u64 {
    file.sst.id.value().timestamp_ms()
}

fn bytes(sources: &[Source<'_>]) -> u64 {
    let files = sources.iter().flat_map(|source| source.files.iter());
    files.map(|file| file.estimate_size()).sum()
}

/// The files and runs of a tree, newest first, as a merge names them.
fn sources_of(tree: &Segment) -> Vec<Source<'_>> {
    let new = tree.l0().iter();
    let new = new.map(|file| Source { id: SourceId::SstView(file.id), files: vec![file] });
    let merged = tree.compacted().iter();
    let merged = merged.map(|run| Source {
        id: SourceId::SortedRun(run.id),
        files: run.sst_views().iter().collect(),
    });
    new.chain(merged).collect()
}

/// Index from which on all sources of an expiring tree have expired, without dead letters; nothing
/// if they are few bytes. Rows expire within `done_ms` of the time when their file was made.
fn expired_from(letter: &[u8], sources: &[Source<'_>], now_ms: u64, done_ms: u64) -> Option<usize> {
    if !EXPIRING.iter().any(|expiring| letter == [*expiring]) {
        return None;
    }
    let is_old = |source: &&Source<'_>| source.made_ms().saturating_add(done_ms) <= now_ms;
    let old = sources.iter().rev().take_while(is_old).count();
    let from = sources.len() - old;
    (bytes(&sources[from..]) >= BYTES_MIN).then_some(from)
}

/// Plans a merge of these, into the oldest run among them, or else into a new one.
fn merge(
    manifest: &VersionedManifest,
    tree: &Segment,
    sources: &[Source<'_>],
) -> Option<CompactionSpec> {
    let runs = manifest.segments().iter().flat_map(|tree| tree.compacted());
    let next = runs.map(|run| run.id).max().map_or(0, |highest| highest.saturating_add(1));
    let into = match sources.last()?.id {
        SourceId::SortedRun(oldest) => oldest,
        SourceId::SstView(_) => next,
    };
    let ids = sources.iter().map(|source| source.id).collect();
    tracing::debug!(bytes = bytes(sources), tree = ?tree.prefix(), "merging to win space back");
    Some(CompactionSpec::for_segment(tree.prefix().clone(), ids, into))
}

/// Numbers of rows of files.
#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    all: u64,
    deletions: u64,
}

impl Rows {
    /// Adds two numbers.
    fn and(self, more: Self) -> Self {
        Self { all: self.all + more.all, deletions: self.deletions + more.deletions }
    }
}

/// Numbers of rows of each file. A task asks each file in the background, until it has answered.
struct Counts {
    reader: SstReader,
    /// `None` for files without numbers.
    known: Mutex<HashMap<SsTableId, Option<Rows>>>,
    is_reading: AtomicBool,
}

impl Counts {
    /// The rows of these files; nothing if they are unknown, or not yet known.
    fn of<'a>(
        self: &Arc<Self>,
        manifest: &VersionedManifest,
        files: impl Iterator<Item = &'a SsTableView>,
    ) -> Option<Rows> {
        let (mut sum, mut missing) = (Some(Rows::default()), Vec::new());
        let known = self.known.lock();
        for file in files {
            match known.get(&file.sst.id) {
                Some(rows) => sum = sum.zip(*rows).map(|(sum, rows)| sum.and(rows)),
                None => missing.push(file.sst.clone()),
            }
        }
        if missing.is_empty() {
            return sum;
        }
        if !self.is_reading.swap(true, Ordering::AcqRel) {
            let there = manifest.all_sst_views().map(|file| file.sst.id).collect();
            tokio::spawn(self.clone().read(missing, there));
        }
        None
    }

    /// Reads the numbers of files, one at a time, and forgets gone files.
    async fn read(self: Arc<Self>, missing: Vec<SsTableHandle>, there: HashSet<SsTableId>) {
        self.known.lock().retain(|id, _| there.contains(id));
        for file in missing {
            let id = file.id;
            let rows = match self.reader.open_with_handle(file) {
                Ok(file) => file.stats().await,
                Err(error) => Err(error),
            };
            match rows {
                Ok(rows) => {
                    let rows =
                        rows.map(|rows| Rows { all: rows.num_rows(), deletions: rows.num_deletes });
                    self.known.lock().insert(id, rows);
                }
                // A later call asks it again.
                Err(error) => {
                    tracing::debug!(%error, "the rows of a file of the jobs' database are not known");
                }
            }
        }
        self.is_reading.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use slatedb::config::{FlushOptions, FlushType};

    /// Once, files whose rows could not be counted were taken for deletions and nothing else, and
    /// merged.
    #[tokio::test]
    async fn files_that_can_not_be_read_are_not_taken_for_deletions() {
        let store = Arc::new(InMemory::new());
        let db = slatedb::Db::builder("db", store.clone());
        let db = db.with_segment_extractor(Arc::new(keys::ByLetter)).build().await.expect("opens");
        db.put(b"a-row", b"value").await.expect("written");
        let flush = FlushOptions { flush_type: FlushType::MemTable };
        db.flush_with_options(flush).await.expect("flushed");
        let manifest = db.manifest();
        db.close().await.expect("closed");
        let mut files = store.list(None);
        while let Some(file) = files.next().await {
            store.delete(&file.expect("listed").location).await.expect("deleted");
        }
        let reader = SstReader::new("db", store.clone(), None, None);
        let counts = Counts { reader, known: Mutex::default(), is_reading: AtomicBool::new(false) };
        let counts = Arc::new(counts);
        for _ in 0..3 {
            assert!(manifest.all_sst_views().next().is_some());
            let rows = counts.of(&manifest, manifest.all_sst_views());
            assert!(rows.is_none(), "{rows:?}");
            while counts.is_reading.load(Ordering::Acquire) {
                tokio::task::yield_now().await;
            }
        }
    }
}
