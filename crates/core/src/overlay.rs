//! The overlay: map changes since the last checkpoint, packed, in memory.
//!
//! The overlay stands over a root's tree and under the live index of the log. The tree answers for
//! an index that the overlay does not have.

use crate::entry::{BlockEntry, PackedEntry};
use crate::extents::RangeSet;
use crate::id::StreamId;
use crate::position::SegmentKey;
use std::collections::BTreeMap;
use std::ops::Range;

/// Memory of one changed block, bytes, about: 28 packed, with the slack of B-tree nodes.
pub const OVERLAY_ENTRY_BYTES: usize = 44;

/// The overlay's answer for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlaid {
    /// The block has this entry.
    Data(BlockEntry),
    /// The block is zeros.
    Zero,
    /// The tree answers.
    Below,
}

/// One change to the tree that a checkpoint must make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The block.
    pub index: u64,
    /// Its new place.
    pub entry: BlockEntry,
}

/// Map changes since the last checkpoint. Zeroed ranges apply first, then entries.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    entries: BTreeMap<u64, PackedEntry>,
    zeroed: RangeSet,
    streams: Vec<StreamId>,
    /// Lengths of the objects that entries point to.
    lengths: BTreeMap<SegmentKey, u64>,
    /// Number of calls that set a block.
    sets: u64,
}

impl Overlay {
    /// Makes an empty overlay.
    pub fn new() -> Self {
        Self::default()
    }

    fn stream_place(&mut self, stream: StreamId) -> u32 {
        // Newest last: almost every entry is of the newest stream.
        let found = self.streams.iter().rposition(|s| *s == stream);
        found.unwrap_or_else(|| {
            self.streams.push(stream);
            self.streams.len() - 1
        }) as u32
    }

    /// Notes the length of a segment's object. The overlay keeps one for each segment between two
    /// checkpoints.
    pub fn note_length(&mut self, segment: SegmentKey, bytes: u64) {
        self.lengths.insert(segment, bytes);
    }

    /// Segments and the lengths of their objects.
    pub fn lengths(&self) -> impl Iterator<Item = (SegmentKey, u64)> + '_ {
        self.lengths.iter().map(|(segment, bytes)| (*segment, *bytes))
    }

    /// Sets a block's entry.
    pub fn set(&mut self, index: u64, entry: &BlockEntry) {
        let stream = self.stream_place(entry.segment.stream);
        self.sets += 1;
        self.entries.insert(index, PackedEntry::pack(entry, stream));
    }

    /// Sets the blocks of `range` to zeros.
    pub fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let covered: Vec<u64> = self.entries.range(range.clone()).map(|(&i, _)| i).collect();
        for index in covered {
            self.entries.remove(&index);
        }
        self.zeroed.insert(range);
    }

    /// Answers for a block.
    pub fn get(&self, index: u64) -> Overlaid {
        if let Some(entry) = self.entries.get(&index) {
            return Overlaid::Data(self.unpack(entry));
        }
        if self.zeroed.contains(index) { Overlaid::Zero } else { Overlaid::Below }
    }

    fn unpack(&self, packed: &PackedEntry) -> BlockEntry {
        packed.unpack(self.streams.get(packed.stream() as usize).copied().unwrap_or_default())
    }

    /// Memory, bytes, about.
    pub fn bytes(&self) -> usize {
        self.entries.len() * OVERLAY_ENTRY_BYTES + self.zeroed.len() * 32
    }

    /// True if a checkpoint would have nothing to do.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.zeroed.is_empty()
    }

    /// The entries within a range, by index.
    pub fn entries_within(&self, range: Range<u64>) -> impl Iterator<Item = Change> + '_ {
        let end = range.end.max(range.start);
        self.entries
            .range(range.start..end)
            .map(|(&index, packed)| Change { index, entry: self.unpack(packed) })
    }

    /// The zeroed parts of a range; entries within them override them.
    pub fn zeroed_within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        self.zeroed.within(range)
    }

    /// All zeroed ranges.
    pub fn zeroed(&self) -> &RangeSet {
        &self.zeroed
    }

    /// Number of blocks that were set, and were overwritten or zeroed since.
    pub fn overwritten(&self) -> u64 {
        self.sets.saturating_sub(self.entries.len() as u64)
    }

    /// Upper bound of the blocks of the tree below that this hides.
    pub fn covered_max(&self) -> u64 {
        self.zeroed.total().saturating_add(self.entries.len() as u64)
    }

    /// All entries, by index.
    pub fn entries(&self) -> impl Iterator<Item = Change> + '_ {
        self.entries_within(0..u64::MAX)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Number;

    #[test]
    fn later_changes_win() {
        let entry = |n| BlockEntry {
            segment: SegmentKey { stream: StreamId([n; 16]), number: Number(u64::from(n)) },
            offset: 1,
            len: 2,
            slot: 3,
            source: 0,
        };
        let mut overlay = Overlay::new();
        overlay.set(5, &entry(1));
        overlay.zero(4..7);
        assert_eq!(overlay.get(5), Overlaid::Zero);
        overlay.set(5, &entry(2));
        assert_eq!(overlay.get(5), Overlaid::Data(entry(2)));
        assert_eq!(overlay.get(6), Overlaid::Zero);
        assert_eq!(overlay.get(7), Overlaid::Below);
        assert_eq!(overlay.entries().count(), 1);
        assert_eq!((overlay.overwritten(), overlay.covered_max()), (1, 4));
    }
}
