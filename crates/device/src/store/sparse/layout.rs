//! The bytes of a sparse file. `docs/format.md` describes them.

use bytes::{Buf as _, BufMut as _};

/// The unit of the index and of records.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Offset of the first record.
pub(super) const RECORDS_AT: u64 = 3 * SECTOR_BYTES as u64;
/// Length of a record without a block.
pub(super) const RECORD_HEAD_BYTES: usize = 32;

/// Head and notes have a sector each: a torn write of one leaves the others.
const SECTOR_BYTES: usize = 512;
const MAGIC: &[u8; 8] = b"SKRYSPRS";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 28;
const NOTE_BYTES: usize = 20;
const KIND_BLOCK: u8 = 1;
const KIND_ZEROS: u8 = 2;

/// A note of how much of the file is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) number: u64,
    pub(super) durable_bytes: u64,
}

impl Note {
    /// Offset of the note in the file.
    pub(super) fn offset(self) -> u64 {
        (1 + self.number % 2) * SECTOR_BYTES as u64
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(NOTE_BYTES);
        out.put_u64_le(self.number);
        out.put_u64_le(self.durable_bytes);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    fn decode(sector: &[u8]) -> Option<Self> {
        let mut fields = checked(sector.get(..NOTE_BYTES)?)?;
        Some(Self { number: fields.get_u64_le(), durable_bytes: fields.get_u64_le() })
    }
}

/// Encodes what is before the records of a new file.
pub(super) fn encode_start(size_bytes: u64, durable_bytes: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORDS_AT as usize);
    out.put_slice(MAGIC);
    out.put_u16_le(VERSION);
    out.put_u16_le(0);
    out.put_u32_le(BLOCK_BYTES as u32);
    out.put_u64_le(size_bytes);
    out.put_u32_le(crc32c::crc32c(&out));
    for number in 0..2 {
        let note = Note { number, durable_bytes };
        out.resize(note.offset() as usize, 0);
        out.put_slice(&note.encode());
    }
    out.resize(RECORDS_AT as usize, 0);
    out
}

/// Decodes the device's size and the greatest note, or tells what is wrong.
pub(super) fn decode_start(start: &[u8]) -> Result<(u64, Note), &'static str> {
    if !start.starts_with(MAGIC) {
        return Err("is no sparse file");
    }
    if start.len() < RECORDS_AT as usize {
        return Err("was not made whole");
    }
    let mut fields = checked(&start[..HEAD_BYTES]).ok_or("has a damaged head")?;
    fields.advance(MAGIC.len());
    if fields.get_u16_le() != VERSION {
        return Err("has a version that this program does not know");
    }
    fields.advance(2);
    if fields.get_u32_le() != BLOCK_BYTES as u32 {
        return Err("has a block size that this program does not know");
    }
    let notes = start[SECTOR_BYTES..].chunks(SECTOR_BYTES).filter_map(Note::decode);
    let note = notes.max_by_key(|note| note.number).ok_or("has lost its notes")?;
    match fields.get_u64_le() {
        0 => Err("is empty"),
        size_bytes => Ok((size_bytes, note)),
    }
}

/// A record: what a block holds, or that blocks are zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) count: u64,
    /// The block, or nothing for zeros.
    pub(super) block: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Length of the record, bytes.
    pub(super) fn len(&self) -> u64 {
        (RECORD_HEAD_BYTES + self.block.map_or(0, <[u8]>::len)) as u64
    }

    pub(super) fn encode_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(0);
        out.put_u8(if self.block.is_some() { KIND_BLOCK } else { KIND_ZEROS });
        out.put_bytes(0, 3);
        out.put_u64_le(self.number);
        out.put_u64_le(self.first);
        out.put_u64_le(self.count);
        out.put_slice(self.block.unwrap_or_default());
        let crc = crc32c::crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Decodes the record at the beginning of `bytes`, if it is whole and its crc is right.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let block_bytes = match *bytes.get(4)? {
            KIND_BLOCK => BLOCK_BYTES,
            KIND_ZEROS => 0,
            _ => return None,
        };
        let bytes = bytes.get(..RECORD_HEAD_BYTES + block_bytes)?;
        let (mut crc, covered) = bytes.split_at(4);
        if crc.get_u32_le() != crc32c::crc32c(covered) {
            return None;
        }
        let (mut head, block) = covered.split_at(RECORD_HEAD_BYTES - 4);
        head.advance(4);
        let (number, first, count) = (head.get_u64_le(), head.get_u64_le(), head.get_u64_le());
        let block = (block_bytes > 0).then_some(block);
        (block.is_none() || count == 1).then_some(Self { number, first, count, block })
    }
}

/// Gives what stands before a crc at the end, if the crc is right.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (covered, mut crc) = bytes.split_at(bytes.len() - 4);
    (crc.get_u32_le() == crc32c::crc32c(covered)).then_some(covered)
}
