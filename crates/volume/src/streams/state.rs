//! The state of a volume in memory: live index, batches, overlay, root. No IO, no waiting.
//!
//! A range is looked up in the live index of the log, then in the overlay, then in the overlay that
//! a checkpoint is writing, then in the tree.

use crate::error::Error;
use crate::settings::EngineSettings;
use skerry_core::entry::BlockEntry;
use skerry_core::extents::{EXTENT_BYTES, ExtentMap, Source};
use skerry_core::node::NodePtr;
use skerry_core::ops::Op;
use skerry_core::overlay::{Overlaid, Overlay};
use skerry_core::position::Position;
use skerry_core::root::{Base, Root};
use skerry_core::size::{BlockSize, SECTOR_BYTES};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use skerry_core::batch::Span;

/// A batch being filled, or cut and waiting.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Records of content, in log order.
    pub(crate) spans: Vec<Span>,
    /// What ends the batch besides them.
    pub(crate) ops: Vec<Op>,
    /// Bytes of content.
    pub(crate) bytes: usize,
    /// Bytes of the blocks that its segment is put together from, at most: content by whole blocks, and every block that
    /// is written in part once.
    pub(crate) block_bytes: usize,
    /// The blocks that are written in part.
    pub(crate) partial: HashSet<u64>,
    /// The first sequence number in it.
    pub(crate) vseq_from: u64,
    /// The first after it.
    pub(crate) vseq_to: u64,
    /// The log position of its last record.
    pub(crate) last_record: u64,
    /// The volume's size before it, bytes.
    pub(crate) size_before: u64,
    /// The volume's size after it, bytes.
    pub(crate) size_after: u64,
    /// When its first record was written, on the boot-time clock.
    pub(crate) since: Option<Duration>,
}

impl Batch {
    /// True if it holds no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.vseq_from == self.vseq_to
    }

    /// True if it makes a segment of the wanted size.
    pub(crate) fn is_full(&self, settings: &EngineSettings) -> bool {
        self.bytes.max(self.block_bytes) >= settings.segment_bytes
            || self.spans.len() >= settings.segment_records_max
    }

    /// Counts the blocks of `sectors`: whole ones only if they hold data.
    fn count_blocks(&mut self, block: BlockSize, sectors: &Range<u64>, zero: bool) {
        let per_block = block.bytes() as u64 / SECTOR_BYTES;
        let whole = sectors.start.div_ceil(per_block)..sectors.end / per_block;
        if !zero {
            self.block_bytes += whole.end.saturating_sub(whole.start) as usize * block.bytes();
        }
        let ends = [sectors.start, sectors.end];
        for end in ends.iter().filter(|end| !end.is_multiple_of(per_block)) {
            if self.partial.insert(end / per_block) {
                self.block_bytes += block.bytes();
            }
        }
    }

    /// True if a snapshot is taken at its end.
    pub(crate) fn has_barrier(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Barrier(_)))
    }
}

/// Where a part of a read comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// A log record, and how far into its data, bytes.
    Log {
        /// The record.
        at: u64,
        /// Bytes into its data.
        skip: u64,
    },
    /// Zeros.
    Zero,
    /// A stored block, and how far into it, bytes.
    Block(BlockEntry, usize),
    /// A block that only the tree knows of, and how far into it, bytes.
    Tree(u64, usize),
}

/// A part of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// How many bytes.
    pub(crate) len: usize,
    /// Where they come from.
    pub(crate) from: From,
}

/// What a volume holds, apart from what is in its tree.
#[derive(Debug)]
pub(crate) struct State {
    /// The block size.
    pub(crate) block: BlockSize,
    /// The size, bytes.
    pub(crate) size_bytes: u64,
    /// The true name.
    pub(crate) name: String,
    /// The next sequence number.
    pub(crate) vseq: u64,
    /// The log position of the last record, zero if none.
    pub(crate) last_record: u64,
    /// What the log says of each sector that is not in the bucket yet.
    pub(crate) live: ExtentMap,
    /// The batch being filled.
    pub(crate) open: Batch,
    /// Batches that were cut and wait to be built.
    pub(crate) cut: VecDeque<Batch>,
    /// Bytes of content that are not in the bucket.
    pub(crate) undestaged_bytes: u64,
    /// Records that are not in the bucket.
    pub(crate) undestaged_records: usize,
    /// Map changes since the last checkpoint began.
    pub(crate) overlay: Overlay,
    /// Map changes below the overlay, the oldest first: a checkpoint is writing those, others wait for it.
    pub(crate) frozen: VecDeque<Arc<Overlay>>,
    /// The root below.
    pub(crate) root: Arc<Root>,
    /// The place of the root.
    pub(crate) root_at: Position,
    /// The place of the last head that this incarnation published.
    pub(crate) head_at: Option<Position>,
    /// The root lacks what a clone's base had on top of it, which only the overlay knows: a checkpoint
    /// must come before the first barrier.
    pub(crate) unsettled: bool,
    /// The place up to which everything is in the bucket and applied.
    pub(crate) at: Position,
    /// Segments applied since the root.
    pub(crate) applied: u64,
    /// The size at `at`, bytes.
    pub(crate) size_at: u64,
    /// The name at `at`.
    pub(crate) name_at: String,
    /// Why nothing is served any more.
    pub(crate) failure: Option<Error>,
    /// Counts rollbacks: who attached before one gets errors.
    pub(crate) generation: u64,
    /// True while writers must wait: a rollback is under way.
    pub(crate) paused: bool,
}

impl State {
    /// Looks `range` (bytes, whole sectors) up in everything but the tree.
    pub(crate) fn resolve(&self, range: Range<u64>, out: &mut Vec<Part>) {
        let sectors = range.start / SECTOR_BYTES..range.end / SECTOR_BYTES;
        let mut cursor = sectors.start;
        for (extent, source) in self.live.within(sectors.clone()) {
            self.resolve_below(cursor..extent.start, out);
            let len = ((extent.end - extent.start) * SECTOR_BYTES) as usize;
            let from = if source.is_zero() {
                From::Zero
            } else {
                From::Log { at: source.at, skip: u64::from(source.skip) * SECTOR_BYTES }
            };
            out.push(Part { len, from });
            cursor = extent.end;
        }
        self.resolve_below(cursor..sectors.end, out);
    }

    fn resolve_below(&self, sectors: Range<u64>, out: &mut Vec<Part>) {
        let (mut at, end) = (sectors.start * SECTOR_BYTES, sectors.end * SECTOR_BYTES);
        while at < end {
            let index = self.block.index(at);
            let within = (at - self.block.offset(index)) as usize;
            let len = (self.block.bytes() - within).min((end - at) as usize);
            let from = match self.overlaid(index) {
                Overlaid::Data(entry) => From::Block(entry, within),
                Overlaid::Zero => From::Zero,
                Overlaid::Below => From::Tree(index, within),
            };
            out.push(Part { len, from });
            at += len as u64;
        }
    }

    /// What the overlays say of a block.
    pub(crate) fn overlaid(&self, index: u64) -> Overlaid {
        let layers = [&self.overlay].into_iter().chain(self.frozen.iter().rev().map(Arc::as_ref));
        let mut said = layers.map(|layer| layer.get(index));
        said.find(|said| *said != Overlaid::Below).unwrap_or(Overlaid::Below)
    }

    /// Takes the overlay away for a checkpoint.
    pub(crate) fn freeze(&mut self) -> Arc<Overlay> {
        let overlay = Arc::new(std::mem::take(&mut self.overlay));
        self.frozen.push_back(overlay.clone());
        self.applied = 0;
        overlay
    }

    /// Bytes of overlays that no checkpoint is writing.
    pub(crate) fn overlay_bytes(&self) -> usize {
        let waiting = self.frozen.iter().skip(1).map(|layer| layer.bytes());
        self.overlay.bytes() + waiting.sum::<usize>()
    }

    /// The most bytes that a snapshot of what is in the bucket would hold beyond its content, named by the root below.
    pub(crate) fn garbage_bytes_max(&self) -> u64 {
        let changes = self.frozen.iter().map(Arc::as_ref).chain([&self.overlay]);
        self.root.garbage_max(changes).saturating_mul(self.block.bytes() as u64)
    }

    /// The top of the tree.
    pub(crate) fn top(&self) -> Option<NodePtr> {
        self.root.top
    }

    /// Takes a record of content into the live index and the open batch.
    pub(crate) fn content(&mut self, range: Range<u64>, at: u64, zero: bool, now: Duration) {
        let sectors = range.start / SECTOR_BYTES..range.end / SECTOR_BYTES;
        let skip = if zero { Source::ZERO } else { 0 };
        let source = Source { at, skip };
        self.live.insert(sectors.clone(), source);
        let bytes = if zero { 0 } else { (range.end - range.start) as usize };
        self.open.spans.push(Span { start: sectors.start, end: sectors.end, source });
        self.open.bytes += bytes;
        self.open.count_blocks(self.block, &sectors, zero);
        self.undestaged_bytes += bytes as u64;
        self.record(at, now);
    }

    /// Takes the sequence number for a record at `at`.
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
        if self.open.is_empty() {
            return;
        }
        let next = Batch {
            vseq_from: self.vseq,
            vseq_to: self.vseq,
            size_before: self.size_bytes,
            size_after: self.size_bytes,
            ..Batch::default()
        };
        let mut batch = std::mem::replace(&mut self.open, next);
        batch.partial = HashSet::new();
        batch.size_after = self.size_bytes;
        self.cut.push_back(batch);
    }

    /// Bytes that the live index and the batches take in memory, about.
    pub(crate) fn index_bytes(&self) -> usize {
        self.live.len() * EXTENT_BYTES + self.undestaged_records * size_of::<Span>()
    }

    /// What this state is, as far as it is in the bucket.
    pub(crate) fn base(&self) -> Base {
        Base { root: (*self.root).clone(), at: self.root_at, end: self.at }
    }

    /// True if there is nothing to merge into the tree and nothing dropped to release. A clone's base is left
    /// alone: it is merged when the clone needs it.
    pub(crate) fn is_tidy(&self) -> bool {
        let is_merged = self.overlay.is_empty() && self.frozen.is_empty() && self.live.is_empty();
        self.unsettled || (is_merged && self.root.dead_pending.is_none())
    }

    /// When the oldest record that is not in the bucket was written.
    pub(crate) fn dirty_since(&self) -> Option<Duration> {
        self.cut.front().and_then(|batch| batch.since).or(self.open.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(writes: &[(u64, u64, bool)]) -> usize {
        let mut batch = Batch::default();
        let block = BlockSize::from_bytes(64 << 10).expect("a block size");
        for (start, end, zero) in writes {
            batch.count_blocks(block, &(*start..*end), *zero);
        }
        batch.block_bytes
    }

    #[test]
    fn a_batch_counts_the_blocks_that_it_is_put_together_from() {
        const BLOCK: usize = 64 << 10;
        assert_eq!(counted(&[(0, 128, false)]), BLOCK);
        assert_eq!(
            counted(&[(0, 1, false), (5, 9, false)]),
            BLOCK,
            "one block, written in part twice"
        );
        assert_eq!(counted(&[(127, 129, false)]), 2 * BLOCK, "the ends of two blocks");
        assert_eq!(counted(&[(1, 1280, false)]), 10 * BLOCK);
        assert_eq!(counted(&[(0, 1280, true)]), 0, "zeros of whole blocks take no memory");
        assert_eq!(counted(&[(1, 1279, true)]), 2 * BLOCK);
        let scattered: Vec<_> = (0..512).map(|n| (n * 128, n * 128 + 1, false)).collect();
        assert_eq!(counted(&scattered), 512 * BLOCK);
    }
}
