//! The bytes of an overlay's second device: head, map, copies. `docs/format.md` describes them.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::BlockSet;
use crate::{Error, ErrorKind, Result};

/// Length of the head, and of a page of the map: devices write so much whole or not at all.
pub(super) const PAGE_BYTES: usize = 512;
/// Blocks that a page of the map tells of. The rest of the page is its checksum.
const PAGE_BLOCKS: u64 = (PAGE_BYTES as u64 - 4) * 8;

/// First bytes of the head.
const MAGIC: &[u8; 8] = b"SKRYOVLY";
/// Version of the layout.
const VERSION: u16 = 1;
/// Offset of the head's checksum, and length of what it covers.
const CRC_AT: usize = 64;

const KIND_HASH: u8 = 1;
const KIND_GIVEN: u8 = 2;

/// The identity of a base: two bases with one identity hold the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// BLAKE3 of all its bytes.
    Hash([u8; 32]),
    /// An id that the caller gave it for good.
    Given([u8; 16]),
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, bytes): (_, &[u8]) = match self {
            Self::Hash(hash) => ("blake3:", hash),
            Self::Given(id) => ("id:", id),
        };
        out.write_str(kind)?;
        bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// Fields of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) block_bytes: u32,
    pub(super) size_bytes: u64,
    pub(super) identity: Identity,
}

impl Head {
    pub(super) fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(u64::from(self.block_bytes))
    }

    pub(super) fn pages(&self) -> u64 {
        self.blocks().div_ceil(PAGE_BLOCKS)
    }

    pub(super) fn page_offset(&self, page: u64) -> u64 {
        (1 + page) * PAGE_BYTES as u64
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(PAGE_BYTES);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u8(match self.identity {
            Identity::Hash(_) => KIND_HASH,
            Identity::Given(_) => KIND_GIVEN,
        });
        out.put_u8(0);
        out.put_u32_le(self.block_bytes);
        out.put_u64_le(self.size_bytes);
        match &self.identity {
            Identity::Hash(hash) => out.put_slice(hash),
            Identity::Given(id) => out.put_slice(id),
        }
        out.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out.resize(PAGE_BYTES, 0);
        out.freeze()
    }

    pub(super) fn decode(page: &[u8; PAGE_BYTES]) -> Result<Self> {
        let bad = |text: &'static str| Error::new(ErrorKind::Invalid, text);
        if !page.starts_with(MAGIC) {
            return Err(bad("the device for the copies is no overlay"));
        }
        if u32_at(page, CRC_AT) != crc32c::crc32c(&page[..CRC_AT]) {
            return Err(Error::new(ErrorKind::Failed, "the head of the overlay is damaged"));
        }
        if page[8..10] != VERSION.to_le_bytes() {
            return Err(bad("the overlay was made by a newer version"));
        }
        let identity = match page[10] {
            KIND_HASH => Identity::Hash(array(&page[24..56])),
            KIND_GIVEN => Identity::Given(array(&page[24..40])),
            _ => return Err(bad("the overlay's base has an identity of an unknown kind")),
        };
        let (block_bytes, size_bytes) =
            (u32_at(page, 12), u64::from_le_bytes(array(&page[16..24])));
        if !block_bytes.is_power_of_two() || block_bytes < PAGE_BYTES as u32 {
            return Err(bad("the overlay's blocks have a size without meaning"));
        }
        Ok(Self { block_bytes, size_bytes, identity })
    }
}

/// Offset of the copies.
pub(super) fn data_offset(size_bytes: u64, block_bytes: u32) -> u64 {
    let block_bytes = u64::from(block_bytes).max(1);
    let pages = size_bytes.div_ceil(block_bytes).div_ceil(PAGE_BLOCKS);
    ((1 + pages) * PAGE_BYTES as u64).next_multiple_of(block_bytes)
}

/// Number of the page that tells of a block.
pub(super) fn page_of(block: u64) -> u64 {
    block / PAGE_BLOCKS
}

/// Encodes a page: a checksum, then a bit for each block.
pub(super) fn encode_page(page: u64, copied: &BlockSet) -> Bytes {
    let mut bits = [0; PAGE_BYTES];
    for at in 0..PAGE_BLOCKS {
        if copied.contains(page * PAGE_BLOCKS + at) {
            bits[4 + (at / 8) as usize] |= 1 << (at % 8);
        }
    }
    let crc = crc32c::crc32c(&bits[4..]);
    bits[..4].copy_from_slice(&crc.to_le_bytes());
    Bytes::copy_from_slice(&bits)
}

/// Adds the blocks of a page to a set. A page of zeros was never written.
pub(super) fn decode_page(bytes: &[u8; PAGE_BYTES], page: u64, to: &mut BlockSet) -> Result<()> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    if u32_at(bytes, 0) != crc32c::crc32c(&bytes[4..]) {
        let text = format!("page {page} of the overlay's map is damaged");
        return Err(Error::new(ErrorKind::Failed, text));
    }
    for at in (0..PAGE_BLOCKS).filter(|at| bytes[4 + (at / 8) as usize] >> (at % 8) & 1 == 1) {
        to.insert(page * PAGE_BLOCKS + at);
    }
    Ok(())
}

fn u32_at(page: &[u8; PAGE_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(array(&page[at..at + 4]))
}

fn array<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_numbers_of_the_code() {
        let doc = include_str!("../../../../../docs/format.md");
        let section = doc.split("## Overlay of a device").nth(1).expect("a section");
        let magic = String::from_utf8_lossy(MAGIC);
        for text in [
            format!("| 0 | 8 | magic `{magic}` |"),
            format!("| 8 | 2 | version {VERSION} |"),
            format!("| {CRC_AT} | 4 | crc of bytes 0 to {} |", CRC_AT - 1),
            format!("| 0 | {PAGE_BYTES} | head |"),
            format!("every {},{:03} blocks", PAGE_BLOCKS / 1000, PAGE_BLOCKS % 1000),
        ] {
            assert!(section.contains(&text), "the document lacks: {text}");
        }
    }

    #[test]
    fn a_head_survives() {
        for identity in [Identity::Hash([3; 32]), Identity::Given([4; 16])] {
            let head = Head { block_bytes: 1 << 25, size_bytes: 1_234_567_680, identity };
            let bytes = head.encode();
            assert_eq!(Head::decode(&array(&bytes)), Ok(head));
        }
    }
}
