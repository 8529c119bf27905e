//! A disk as a stream's payload: the live index of its log records by sector.
//!
//! A lookup of a range goes to the live index of the log, then to the overlay. Then it goes to the
//! overlays that checkpoints write, and last to the tree.

use crate::disk::Volume;
use crate::disk::build::{self, Plan};
use crate::disk::reading::Readings;
use crate::error::Result;
use crate::settings::EngineSettings;
use crate::streams::stream::payload::{Payload, Planned};
use crate::streams::stream::state::{Batch, State};
use futures::future::BoxFuture;
use skerry_core::batch::Span;
use skerry_core::entry::BlockEntry;
use skerry_core::extents::{EXTENT_BYTES, ExtentMap, Source};
use skerry_core::map_node::MapNodePtr;
use skerry_core::ops::Op;
use skerry_core::overlay::{Overlaid, Overlay};
use skerry_core::record::Action;
use skerry_core::root::Root;
use skerry_core::segment::{BuiltSegment, SegmentId};
use skerry_core::size::{BlockSize, SECTOR_BYTES};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// A disk's memory of records that are not in the bucket yet.
#[derive(Debug)]
pub struct Disk {
    /// The block size.
    pub(crate) block: BlockSize,
    /// The log's content of each sector that is not in the bucket yet.
    pub(crate) live: ExtentMap,
}

/// A disk's part of a batch.
#[derive(Debug, Default)]
pub struct DiskBatch {
    /// Records of content, in log order.
    pub(crate) spans: Vec<Span>,
    /// Upper bound of the bytes of blocks for its segment: content by whole blocks, and once every
    /// block that is written in part.
    block_bytes: usize,
    /// The blocks that are written in part.
    partial: HashSet<u64>,
}

impl DiskBatch {
    /// Counts the blocks of `sectors`; whole ones only if they hold data.
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
}

impl Payload for Disk {
    type Changes = Overlay;
    type Batch = DiskBatch;
    type Plan = Plan;
    /// Blocks of zeros.
    type Made = Vec<Range<u64>>;
    /// Attached snapshots.
    type Shared = Readings;

    fn of_root(root: &Root) -> Self {
        Self { block: root.block, live: ExtentMap::new() }
    }

    fn apply_record(&mut self, batch: &mut DiskBatch, action: &Action, at: u64) -> usize {
        let (offset, len, zero) = match action {
            Action::Write { offset, len } => (*offset, *len, false),
            Action::Zero { offset, len } => (*offset, *len, true),
            // All other actions on a volume are the stream's.
            _ => return 0,
        };
        let sectors = offset / SECTOR_BYTES..(offset + len) / SECTOR_BYTES;
        let skip = if zero { Source::ZERO } else { 0 };
        let source = Source { at, skip };
        self.live.insert(sectors.clone(), source);
        batch.spans.push(Span { start: sectors.start, end: sectors.end, source });
        batch.count_blocks(self.block, &sectors, zero);
        if zero { 0 } else { len as usize }
    }

    fn is_full(batch: &DiskBatch, settings: &EngineSettings) -> bool {
        batch.block_bytes >= settings.segment_bytes
            || batch.spans.len() >= settings.segment_records_max
    }

    fn close(batch: &mut DiskBatch) {
        batch.partial = HashSet::new();
    }

    fn index_bytes(&self, records: usize) -> usize {
        self.live.len() * EXTENT_BYTES + records * size_of::<Span>()
    }

    fn is_settled(&self) -> bool {
        self.live.is_empty()
    }

    fn garbage_bytes_max<'a>(root: &Root, changes: impl Iterator<Item = &'a Overlay>) -> u64 {
        root.garbage_max(changes).saturating_mul(root.block.bytes() as u64)
    }

    fn plan(volume: &Volume, batch: &Batch<Self>) -> Planned<Self> {
        build::plan(volume, batch)
    }

    fn read_base<'a>(volume: &'a Arc<Volume>, plan: &'a mut Plan) -> BoxFuture<'a, Result<()>> {
        Box::pin(volume.read_base(plan))
    }

    fn build(
        volume: &Volume,
        id: &SegmentId,
        plan: Plan,
        ops: Vec<Op>,
    ) -> Result<(BuiltSegment, Vec<Range<u64>>)> {
        volume.assemble(id, &plan, ops)
    }

    fn apply_segment(volume: &Volume, segment: &BuiltSegment, zeros: &Vec<Range<u64>>) {
        volume.apply_blocks(segment, zeros);
    }

    fn forget(volume: &Volume, segment: &BuiltSegment, zeros: &Vec<Range<u64>>, before: u64) {
        volume.ctx.blocks.admit(segment);
        volume.forget_live(segment, zeros, before);
    }
}

/// Source of a part of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartSource {
    /// A log record, and the offset in its data, bytes.
    Log {
        /// The record.
        at: u64,
        /// Offset in its data, bytes.
        skip: u64,
    },
    /// Zeros.
    Zero,
    /// A stored block, and the offset in it, bytes.
    Block(BlockEntry, usize),
    /// A block that only the tree has, and the offset in it, bytes.
    Tree(u64, usize),
}

/// A part of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Length, bytes.
    pub(crate) len: usize,
    /// Their source.
    pub(crate) from: PartSource,
}

impl State<Disk> {
    /// Looks `range` (bytes, whole sectors) up in everything but the tree.
    pub(crate) fn resolve(&self, range: Range<u64>, out: &mut Vec<Part>) {
        let sectors = range.start / SECTOR_BYTES..range.end / SECTOR_BYTES;
        let mut cursor = sectors.start;
        for (extent, source) in self.payload.live.within(sectors.clone()) {
            self.resolve_below(cursor..extent.start, out);
            let len = ((extent.end - extent.start) * SECTOR_BYTES) as usize;
            let from = if source.is_zero() {
                PartSource::Zero
            } else {
                PartSource::Log { at: source.at, skip: u64::from(source.skip) * SECTOR_BYTES }
            };
            out.push(Part { len, from });
            cursor = extent.end;
        }
        self.resolve_below(cursor..sectors.end, out);
    }

    fn resolve_below(&self, sectors: Range<u64>, out: &mut Vec<Part>) {
        let (mut at, end) = (sectors.start * SECTOR_BYTES, sectors.end * SECTOR_BYTES);
        while at < end {
            let index = self.payload.block.index(at);
            let within = (at - self.payload.block.offset(index)) as usize;
            let len = (self.payload.block.bytes() - within).min((end - at) as usize);
            let from = match self.overlaid(index) {
                Overlaid::Data(entry) => PartSource::Block(entry, within),
                Overlaid::Zero => PartSource::Zero,
                Overlaid::Below => PartSource::Tree(index, within),
            };
            out.push(Part { len, from });
            at += len as u64;
        }
    }

    /// The overlays' answer for a block.
    pub(crate) fn overlaid(&self, index: u64) -> Overlaid {
        let mut said = self.layers().map(|layer| layer.get(index));
        said.find(|said| *said != Overlaid::Below).unwrap_or(Overlaid::Below)
    }

    /// The top of the tree.
    pub(crate) fn top(&self) -> Option<MapNodePtr> {
        self.root.top
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_core::batch;
    use skerry_core::segment::SLOTS_MAX;

    fn counted(writes: &[(u64, u64, bool)]) -> usize {
        let mut batch = DiskBatch::default();
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

    /// The most blocks and operations that a batch can make of such records, each at a place of its
    /// own.
    fn planned(record: impl Fn(u64) -> (u64, u64, bool), block_bytes: u64) -> (usize, usize) {
        let settings = EngineSettings::default();
        let block = BlockSize::from_bytes(block_bytes).expect("a block size");
        let mut disk = Disk { block, live: ExtentMap::new() };
        let (mut batch, mut end) = (DiskBatch::default(), 0);
        for n in 0.. {
            let (offset, len, zero) = record(n);
            let action = match zero {
                true => Action::Zero { offset, len },
                false => Action::Write { offset, len },
            };
            disk.apply_record(&mut batch, &action, n + 1);
            end = end.max(offset + len);
            if Disk::is_full(&batch, &settings) {
                break;
            }
        }
        let plan = batch::plan(&batch.spans, block, end + block_bytes);
        // A block may turn out to be zeros, and is an operation then. A barrier, resize or name may
        // end the batch.
        (plan.blocks.len(), plan.zeros.len() + plan.blocks.len() + 1)
    }

    /// A slot has 16 bits. Readers refuse a head with more than twice as many operations as slots.
    #[test]
    fn no_batch_makes_more_slots_than_a_segment_has() {
        let longest = EngineSettings::default().record_bytes_max as u64;
        for block in [4 << 10, 64 << 10] {
            let (sector, two) = (SECTOR_BYTES, 2 * block);
            let worst: [(&str, (usize, usize)); 5] = [
                ("sectors", planned(|n| (n * two, sector, false), block)),
                (
                    "pieces of two blocks",
                    planned(|n| ((n + 1) * 4 * block - sector, 2 * sector, false), block),
                ),
                ("long writes", planned(|n| (n * 2 * longest + sector, longest, false), block)),
                ("trims", planned(|n| (n * two, block, true), block)),
                ("trims with ends", planned(|n| (n * 8 * block + sector, 4 * block, true), block)),
            ];
            for (what, (slots, ops)) in worst {
                assert!(slots <= SLOTS_MAX, "{what}: {slots} slots");
                assert!(ops <= 2 * SLOTS_MAX, "{what}: {ops} operations");
            }
        }
    }
}
