//! Parts of devices: extents with their bytes, ranges, hashes.

use bytes::Bytes;

use super::{Epoch, Generation, Pieces, Result, Stamp, fields::Fields};

/// Longest extent, and most bytes of all extents of a message, before compression.
pub const EXTENT_BYTES_MAX: u32 = 1 << 20;
/// Most extents or ranges of a message.
pub const EXTENTS_MAX: usize = 4096;
/// Length of a hash in bytes.
pub const HASH_BYTES: usize = 16;

/// First 16 bytes of BLAKE3 of an extent's bytes.
pub type Hash = [u8; HASH_BYTES];

/// Form of an extent's bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// As they are.
    Raw = 0,
    /// An LZ4 block.
    Lz4 = 1,
}

/// A part of a device with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Offset and length, the hash and the stamp.
    pub named: Named,
    /// Form of the bytes.
    pub compression: Compression,
    /// Bytes in that form.
    pub stored: Bytes,
}

/// A part of a device by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// First byte on the device.
    pub offset: u64,
    /// Length in bytes, at most [`EXTENT_BYTES_MAX`].
    pub length: u32,
    /// Age of the bytes.
    pub stamp: Stamp,
    /// Hash of the bytes.
    pub hash: Hash,
}

/// A range of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte on the device.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// A range of a device with a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// Place on the device.
    pub range: Range,
    /// Age of what the message says about it.
    pub stamp: Stamp,
}

impl Range {
    pub(super) const BYTES: usize = 16;

    pub(super) fn read(fields: &mut Fields) -> Result<Self> {
        let range = Self { offset: fields.u64()?, length: fields.u64()? };
        if range.length == 0 || range.offset.checked_add(range.length).is_none() {
            return Err(fields.wrong_field("length"));
        }
        Ok(range)
    }

    pub(super) fn write(&self, pieces: &mut Pieces) {
        pieces.u64(self.offset);
        pieces.u64(self.length);
    }
}

impl Stamp {
    fn read(fields: &mut Fields) -> Result<Self> {
        Ok(Self { epoch: Epoch(fields.u64()?), generation: Generation(fields.u64()?) })
    }

    fn write(&self, pieces: &mut Pieces) {
        pieces.u64(self.epoch.0);
        pieces.u64(self.generation.0);
    }
}

impl Stamped {
    pub(super) const BYTES: usize = Range::BYTES + 16;

    pub(super) fn read(fields: &mut Fields) -> Result<Self> {
        Ok(Self { range: Range::read(fields)?, stamp: Stamp::read(fields)? })
    }

    pub(super) fn write(&self, pieces: &mut Pieces) {
        self.range.write(pieces);
        self.stamp.write(pieces);
    }
}

impl Named {
    pub(super) const BYTES: usize = 12 + 16 + HASH_BYTES;

    /// Reads the place and the stamp. The hash stands at another place in each message.
    fn read_place(fields: &mut Fields) -> Result<Self> {
        let (offset, length) = (fields.u64()?, fields.u32()?);
        let valid = (1..=EXTENT_BYTES_MAX).contains(&length);
        if !valid || offset.checked_add(u64::from(length)).is_none() {
            return Err(fields.wrong_field("length"));
        }
        Ok(Self { offset, length, stamp: Stamp::read(fields)?, hash: [0; HASH_BYTES] })
    }

    fn write_place(&self, pieces: &mut Pieces) {
        pieces.u64(self.offset);
        pieces.u32(self.length);
        self.stamp.write(pieces);
    }

    pub(super) fn read(fields: &mut Fields) -> Result<Self> {
        let place = Self::read_place(fields)?;
        Ok(Self { hash: fields.array()?, ..place })
    }

    pub(super) fn write(&self, pieces: &mut Pieces) {
        self.write_place(pieces);
        pieces.slice(&self.hash);
    }
}

impl Extent {
    /// Bytes of an extent's fields on the wire, without its own bytes.
    pub const FIELD_BYTES: usize = Named::BYTES + 5;

    /// Reads an extent. `left` has the bytes that the message's extents may still have together.
    pub(super) fn read(fields: &mut Fields, left: &mut u32) -> Result<Self> {
        let place = Named::read_place(fields)?;
        *left = left.checked_sub(place.length).ok_or_else(|| fields.wrong_field("length"))?;
        let compression = match fields.u8()? {
            0 => Compression::Raw,
            1 => Compression::Lz4,
            _ => return Err(fields.wrong_field("codec")),
        };
        let stored_bytes = fields.u32()?;
        let valid = match compression {
            Compression::Raw => stored_bytes == place.length,
            Compression::Lz4 => (1..place.length).contains(&stored_bytes),
        };
        if !valid {
            return Err(fields.wrong_field("stored length"));
        }
        let named = Named { hash: fields.array()?, ..place };
        let stored = fields.bytes(usize::try_from(stored_bytes).unwrap_or(usize::MAX))?;
        Ok(Self { named, compression, stored })
    }

    pub(super) fn write(&self, pieces: &mut Pieces) {
        self.named.write_place(pieces);
        pieces.u8(self.compression as u8);
        pieces.u32(u32::try_from(self.stored.len()).unwrap_or(u32::MAX));
        pieces.slice(&self.named.hash);
        pieces.bytes(&self.stored);
    }
}
