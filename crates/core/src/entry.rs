//! The entry of a map leaf, which gives a block's place, and its packed form in memory.

use crate::position::{Number, SegmentKey};

/// Names the frame that holds a block: enough to fetch the frame alone. The frame's header tells by
/// the slot which of its blocks is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockEntry {
    /// The segment.
    pub segment: SegmentKey,
    /// Offset of the frame in the segment, bytes.
    pub offset: u32,
    /// The frame's length, header and payload, bytes; below 2^24.
    pub len: u32,
    /// The block's slot in the segment.
    pub slot: u16,
    /// Place of the segment: 0 is this bucket. Other numbers are for sources that a root will name;
    /// none does yet.
    pub source: u8,
}

impl BlockEntry {
    /// True if the block is in this bucket.
    pub fn is_here(&self) -> bool {
        self.source == 0
    }

    /// The identity of this block's content. Entries with equal places are the same block, in any
    /// volume.
    pub fn place(&self) -> BlockPlace {
        BlockPlace { segment: self.segment, slot: self.slot }
    }
}

/// Names a stored block: a slot of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockPlace {
    /// The segment.
    pub segment: SegmentKey,
    /// The slot in it.
    pub slot: u16,
}

/// An entry of 20 bytes. The stream is an index into a table beside it, of at most 2^24 streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedEntry {
    stream_source: u32,
    offset: u32,
    len_slot_low: u32,
    number_low: u32,
    number_high_slot_high: u32,
}

impl PackedEntry {
    /// Packs an entry whose stream is number `stream` of a table.
    pub fn pack(entry: &BlockEntry, stream: u32) -> Self {
        let number = entry.segment.number.0;
        let slot = u32::from(entry.slot);
        Self {
            stream_source: (stream & 0xff_ffff) | (u32::from(entry.source) << 24),
            offset: entry.offset,
            len_slot_low: (entry.len & 0xff_ffff) | ((slot & 0xff) << 24),
            number_low: number as u32,
            number_high_slot_high: ((number >> 32) as u32 & 0xffff) | ((slot >> 8) << 16),
        }
    }

    /// Index of the stream in the table.
    pub fn stream(&self) -> u32 {
        self.stream_source & 0xff_ffff
    }

    /// Unpacks, given the stream.
    pub fn unpack(&self, stream: crate::id::StreamId) -> BlockEntry {
        let number =
            u64::from(self.number_low) | (u64::from(self.number_high_slot_high & 0xffff) << 32);
        let slot = (self.len_slot_low >> 24) | ((self.number_high_slot_high >> 16) << 8);
        BlockEntry {
            segment: SegmentKey { stream, number: Number(number) },
            offset: self.offset,
            len: self.len_slot_low & 0xff_ffff,
            slot: slot as u16,
            source: (self.stream_source >> 24) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::StreamId;

    #[test]
    fn packing_loses_nothing() {
        let stream = StreamId([9; 16]);
        for (number, offset, len, slot, source) in [
            (1, 0, 1, 0, 0),
            ((1 << 48) - 1, u32::MAX, (1 << 24) - 1, u16::MAX, u8::MAX),
            (1 << 47, 77, 4184, 300, 1),
        ] {
            let segment = SegmentKey { stream, number: Number(number) };
            let entry = BlockEntry { segment, offset, len, slot, source };
            let packed = PackedEntry::pack(&entry, 0xff_fffe);
            assert_eq!((packed.stream(), packed.unpack(stream)), (0xff_fffe, entry));
        }
    }
}
