//! Places in a volume's history: segment numbers, segment keys, positions.

use crate::id::StreamId;
use crate::wire::{FormatError, Hash16, Reader};
use bytes::{BufMut, BytesMut};

/// The number of a segment in its stream, below 2^48. It has two lanes: data numbers are contiguous
/// and begin at 1; node numbers have bit 47 set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Number(pub u64);

const MAP_NODE_LANE: u64 = 1 << 47;

impl Number {
    /// The number before the first segment.
    pub const ZERO: Self = Self(0);

    /// The `n`-th number of the node lane.
    pub fn map_node(n: u64) -> Self {
        Self(n | MAP_NODE_LANE)
    }

    /// True for a number of the node lane.
    pub fn is_map_node(self) -> bool {
        self.0 & MAP_NODE_LANE != 0
    }

    /// The number within its lane.
    pub fn in_lane(self) -> u64 {
        self.0 & !MAP_NODE_LANE
    }

    /// The next number of the same lane.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Names a segment by its stream and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentKey {
    /// The stream.
    pub stream: StreamId,
    /// The number in it.
    pub number: Number,
}

/// A point in a volume's history: all up to and including segment `number` of `stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// The stream's epoch.
    pub epoch: u64,
    /// The stream.
    pub stream: StreamId,
    /// The last segment included, or zero.
    pub number: Number,
    /// The first vseq that is not included.
    pub vseq: u64,
    /// The checksum of that segment's head, zeros for number 0. The next segment names it as its
    /// predecessor.
    pub hash: Hash16,
}

impl Position {
    /// Bytes of an encoded position.
    pub const LEN: usize = 56;

    /// The position before the first segment of a stream.
    pub fn start(epoch: u64, stream: StreamId, vseq: u64) -> Self {
        Self { epoch, stream, number: Number::ZERO, vseq, hash: [0; 16] }
    }

    /// Key of the order of refs: epoch, stream and number, never the time of writing.
    pub fn order(&self) -> (u64, StreamId, Number) {
        (self.epoch, self.stream, self.number)
    }

    /// Appends the encoded position.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.epoch);
        out.put_slice(&self.stream.0);
        out.put_u64_le(self.number.0);
        out.put_u64_le(self.vseq);
        out.put_slice(&self.hash);
    }

    /// The encoded position alone.
    pub fn to_bytes(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(Self::LEN);
        self.encode(&mut out);
        out
    }

    /// Reads a position.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        Ok(Self {
            epoch: reader.u64()?,
            stream: StreamId(reader.array()?),
            number: Number(reader.u64()?),
            vseq: reader.u64()?,
            hash: reader.array()?,
        })
    }
}
