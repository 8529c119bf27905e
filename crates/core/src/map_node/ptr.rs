//! The pointer to a node.

use bytes::{BufMut, BytesMut};

use super::head::WHAT;
use crate::id::StreamId;
use crate::position::{Number, SegmentKey};
use crate::wire::{FormatError, Hash16, Reader, hash16};

/// Bytes of a pointer that stands alone.
pub const MAP_NODE_PTR: usize = 60;

/// Points to a node: its place, and the hash of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapNodePtr {
    /// The node's level.
    pub level: u8,
    /// Its slot in the segment.
    pub slot: u16,
    /// Its length, bytes.
    pub len: u32,
    /// The segment.
    pub segment: SegmentKey,
    /// Offset in the segment, bytes.
    pub offset: u32,
    /// hash16 of its bytes.
    pub checksum: Hash16,
    /// Number of blocks mapped below it; in the liveness tree, of stored bytes.
    pub live: u64,
}

impl MapNodePtr {
    /// Appends the encoded pointer.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.level);
        out.put_u8(0);
        out.put_u16_le(self.slot);
        out.put_u32_le(self.len);
        out.put_slice(&self.segment.stream.0);
        out.put_u64_le(self.segment.number.0);
        out.put_u32_le(self.offset);
        out.put_slice(&self.checksum);
        out.put_u64_le(self.live);
    }

    /// Reads a pointer.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let level = reader.u8()?;
        reader.u8()?;
        let (slot, len) = (reader.u16()?, reader.u32()?);
        let segment =
            SegmentKey { stream: StreamId(reader.array()?), number: Number(reader.u64()?) };
        let (offset, checksum, live) = (reader.u32()?, reader.array()?, reader.u64()?);
        Ok(Self { level, slot, len, segment, offset, checksum, live })
    }

    /// Checks bytes that were fetched for this pointer.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), FormatError> {
        if bytes.len() != self.len as usize || hash16(bytes) != self.checksum {
            return Err(FormatError::BadChecksum { what: WHAT });
        }
        Ok(())
    }
}
