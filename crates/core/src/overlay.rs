//! The overlay: map changes since the last checkpoint, packed, in memory.
//!
//! It stands over a root's tree and under the live index of the log. An index it does not speak of
//! is the tree's business.

use crate::entry::{BlockEntry, PackedEntry};
use crate::extents::RangeSet;
use crate::id::StreamId;
use crate::position::SegmentKey;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes that one changed block takes in memory, about: 28 packed, with the slack of B-tree nodes.
pub const OVERLAY_ENTRY_BYTES: usize = 44;

/// What the overlay says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlaid {
    /// It is here.
    Data(BlockEntry),
    /// It is zeros.
    Zero,
    /// Ask the tree.
    Below,
}

/// One change to the tree that a checkpoint must make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The block.
    pub index: u64,
    /// Where it is now.
    pub entry: BlockEntry,
}

/// Map changes since the last checkpoint. Zeroed ranges apply first, entries over them.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    entries: BTreeMap<u64, PackedEntry>,
    zeroed: RangeSet,
    streams: Vec<StreamId>,
    /// Lengths of the objects that entries came from.
    lengths: BTreeMap<SegmentKey, u64>,
    /// How many blocks were set, each time counted.
    sets: u64,
}

impl Overlay {
    /// No change.
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

    /// A segment whose blocks are set here has an object of this length. One for each segment between two checkpoints.
    pub fn note_length(&mut self, segment: SegmentKey, bytes: u64) {
        self.lengths.insert(segment, bytes);
    }

    /// Segments and the lengths of their objects.
    pub fn lengths(&self) -> impl Iterator<Item = (SegmentKey, u64)> + '_ {
        self.lengths.iter().map(|(segment, bytes)| (*segment, *bytes))
    }

    /// The block is now where `entry` says.
    pub fn set(&mut self, index: u64, entry: &BlockEntry) {
        let stream = self.stream_place(entry.segment.stream);
        self.sets += 1;
        self.entries.insert(index, PackedEntry::pack(entry, stream));
    }

    /// The blocks of `range` are now zeros.
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

    /// What the overlay says of a block.
    pub fn get(&self, index: u64) -> Overlaid {
        if let Some(entry) = self.entries.get(&index) {
            return Overlaid::Data(self.unpack(entry));
        }
        if self.zeroed.contains(index) { Overlaid::Zero } else { Overlaid::Below }
    }

    fn unpack(&self, packed: &PackedEntry) -> BlockEntry {
        packed.unpack(self.streams.get(packed.stream() as usize).copied().unwrap_or_default())
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.entries.len() * OVERLAY_ENTRY_BYTES + self.zeroed.len() * 32
    }

    /// True if there is nothing to check in.
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

    /// How many blocks were set and are no more what they were: overwritten or zeroed since.
    pub fn overwritten(&self) -> u64 {
        self.sets.saturating_sub(self.entries.len() as u64)
    }

    /// The most blocks of a tree below that this covers.
    pub fn covered_max(&self) -> u64 {
        self.zeroed.total().saturating_add(self.entries.len() as u64)
    }

    /// All entries, by index.
    pub fn entries(&self) -> impl Iterator<Item = Change> + '_ {
        self.entries_within(0..u64::MAX)
    }

    /// How many entries there are.
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
