//! The state of a volume in memory: batches, changes, root, and its payload. No IO, no waiting.

use crate::error::Error;
use crate::settings::EngineSettings;
use crate::streams::stream::payload::Payload;
use skerry_core::id::SnapshotId;
use skerry_core::ops::Op;
use skerry_core::position::Position;
use skerry_core::record::Action;
use skerry_core::root::{Base, Root};
use skerry_store::map::changes::Changes;
use skerry_store::refs::view::View;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A batch that is open, or cut and waiting.
#[derive(Debug)]
pub struct Batch<P: Payload> {
    /// The payload's part.
    pub content: P::Batch,
    /// Operations that end the batch.
    pub ops: Vec<Op>,
    /// Snapshots that the batch cancels, with their names. Their barriers were on their way by
    /// then.
    pub cancelled: Vec<(SnapshotId, String)>,
    /// Bytes of content.
    pub bytes: usize,
    /// The first vseq in it.
    pub vseq_from: u64,
    /// The first vseq after it.
    pub vseq_to: u64,
    /// The log position of its last record.
    pub last_record: u64,
    /// The volume's size before it, bytes.
    pub size_before: u64,
    /// The volume's size after it, bytes.
    pub size_after: u64,
    /// Time of its first record, on the boot-time clock.
    pub since: Option<Duration>,
}

impl<P: Payload> Batch<P> {
    /// Makes a batch that begins at a volume of this size.
    fn new(vseq: u64, size_bytes: u64) -> Self {
        Self {
            content: P::Batch::default(),
            ops: Vec::new(),
            cancelled: Vec::new(),
            bytes: 0,
            vseq_from: vseq,
            vseq_to: vseq,
            last_record: 0,
            size_before: size_bytes,
            size_after: size_bytes,
            since: None,
        }
    }

    /// Number of its records.
    pub fn records(&self) -> u64 {
        self.vseq_to - self.vseq_from
    }

    /// True if it makes a segment of the wanted size.
    pub(crate) fn is_full(&self, settings: &EngineSettings) -> bool {
        self.bytes >= settings.segment_bytes || P::is_full(&self.content, settings)
    }

    /// True if a snapshot is taken at its end.
    pub(crate) fn has_barrier(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Barrier(_)))
    }
}

/// State of a volume, apart from its tree.
#[derive(Debug)]
pub(crate) struct State<P: Payload> {
    /// The size, bytes.
    pub(crate) size_bytes: u64,
    /// The true name.
    pub(crate) name: String,
    /// The next vseq.
    pub(crate) vseq: u64,
    /// The log position of the last record, zero if none.
    pub(crate) last_record: u64,
    /// The payload's memory of records that are not in the bucket yet.
    pub(crate) payload: P,
    /// The open batch.
    pub(crate) open: Batch<P>,
    /// Batches that were cut and wait to be built.
    pub(crate) cut: VecDeque<Batch<P>>,
    /// Bytes of content that are not in the bucket.
    pub(crate) undestaged_bytes: u64,
    /// Records that are not in the bucket.
    pub(crate) undestaged_records: usize,
    /// Changes of segments since the last checkpoint began.
    pub(crate) changes: P::Changes,
    /// Changes below those, oldest first: a checkpoint is writing the first, others wait for it.
    pub(crate) frozen: VecDeque<Arc<P::Changes>>,
    /// The root below.
    pub(crate) root: Arc<Root>,
    /// The position of the root.
    pub(crate) root_at: Position,
    /// The position of the last head that this incarnation published.
    pub(crate) head_at: Option<Position>,
    /// True if the root lacks the changes on top of a clone's base, which only `changes` has. Then
    /// a checkpoint must come before the first barrier.
    pub(crate) unsettled: bool,
    /// The position up to which everything is in the bucket and applied.
    pub(crate) at: Position,
    /// Segments applied since the root.
    pub(crate) applied: u64,
    /// The size at `at`, bytes.
    pub(crate) size_at: u64,
    /// The name at `at`.
    pub(crate) name_at: String,
    /// The reason why the volume is out of service.
    pub(crate) failure: Option<Error>,
    /// Number of rollbacks: a client that attached before one gets errors.
    pub(crate) generation: u64,
    /// True while writers must wait: a rollback, a release or a deletion is under way.
    pub(crate) paused: bool,
}

impl<P: Payload> State<P> {
    /// Makes the state of a view with nothing in the log.
    pub(crate) fn of(view: View<P::Changes>) -> Self {
        let vseq = view.at.vseq;
        Self {
            size_bytes: view.size_bytes,
            name: view.name.clone(),
            vseq,
            last_record: 0,
            payload: P::of_root(&view.root),
            open: Batch::new(vseq, view.size_bytes),
            cut: VecDeque::new(),
            undestaged_bytes: 0,
            undestaged_records: 0,
            changes: view.changes,
            frozen: VecDeque::new(),
            root: Arc::new(view.root),
            root_at: view.root_at,
            head_at: None,
            unsettled: false,
            at: view.at,
            applied: view.applied,
            size_at: view.size_bytes,
            name_at: view.name,
            failure: None,
            generation: 0,
            paused: false,
        }
    }

    /// All changes over the root, newest first.
    pub(crate) fn layers(&self) -> impl DoubleEndedIterator<Item = &P::Changes> {
        [&self.changes].into_iter().chain(self.frozen.iter().rev().map(Arc::as_ref))
    }

    /// Takes the changes for a checkpoint.
    pub(crate) fn freeze(&mut self) -> Arc<P::Changes> {
        let changes = Arc::new(std::mem::take(&mut self.changes));
        self.frozen.push_back(changes.clone());
        self.applied = 0;
        changes
    }

    /// Bytes of changes that no checkpoint is writing.
    pub(crate) fn changed_bytes(&self) -> usize {
        let waiting = self.frozen.iter().skip(1).map(|changes| changes.bytes());
        self.changes.bytes() + waiting.sum::<usize>()
    }

    /// Upper bound of the bytes that a snapshot of the state in the bucket would hold beyond its
    /// content, if it named the root below.
    pub(crate) fn garbage_bytes_max(&self) -> u64 {
        P::garbage_bytes_max(&self.root, self.layers().rev())
    }

    /// Applies a record of content to the payload and the open batch.
    pub(crate) fn content(&mut self, action: &Action, at: u64, now: Duration) {
        let bytes = self.payload.apply_record(&mut self.open.content, action, at);
        self.open.bytes += bytes;
        self.undestaged_bytes += bytes as u64;
        self.record(at, now);
    }

    /// Takes the vseq for a record at `at`.
    pub(crate) fn record(&mut self, at: u64, now: Duration) {
        self.vseq += 1;
        self.last_record = at;
        self.open.vseq_to = self.vseq;
        self.open.last_record = at;
        self.open.since.get_or_insert(now);
        self.undestaged_records += 1;
    }

    /// Ends the open batch, if it holds anything.
    pub(crate) fn cut(&mut self) {
        if self.open.records() == 0 {
            return;
        }
        let next = Batch::new(self.vseq, self.size_bytes);
        let mut batch = std::mem::replace(&mut self.open, next);
        P::close(&mut batch.content);
        batch.size_after = self.size_bytes;
        self.cut.push_back(batch);
    }

    /// Memory of the payload and the batches, bytes, about.
    pub(crate) fn index_bytes(&self) -> usize {
        self.payload.index_bytes(self.undestaged_records)
    }

    /// The base of the part of this state that is in the bucket.
    pub(crate) fn base(&self) -> Base {
        Base { root: (*self.root).clone(), at: self.root_at, end: self.at }
    }

    /// True if there is nothing to merge into the tree and no dropped subtree to release. A clone's
    /// base is left alone: it is merged when the clone needs it.
    pub(crate) fn is_tidy(&self) -> bool {
        let is_merged =
            self.changes.is_empty() && self.frozen.is_empty() && self.payload.is_settled();
        self.unsettled || (is_merged && self.root.dead_pending.is_none())
    }

    /// Time of the oldest record that is not in the bucket.
    pub(crate) fn dirty_since(&self) -> Option<Duration> {
        self.cut.front().and_then(|batch| batch.since).or(self.open.since)
    }
}
