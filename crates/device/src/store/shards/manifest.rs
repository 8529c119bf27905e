//! The manifest of a directory of shards. `docs/format.md` describes its bytes.

use bytes::{Buf as _, BufMut as _};

use super::SHARDS_MAX;

/// Length of a manifest.
pub(super) const MANIFEST_BYTES: usize = CRC_AT + 4;

const MAGIC: &[u8; 8] = b"SKRYSHRD";
const VERSION: u16 = 1;
/// Offset of the checksum, and length of what it covers.
const CRC_AT: usize = 32;

/// The smallest shard: a page, so that direct IO is possible.
const SHARD_BYTES_MIN: u64 = 4096;

/// The sizes of a directory of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) size_bytes: u64,
    pub(super) shard_bytes: u64,
}

impl Manifest {
    /// Tells why no directory can have these sizes.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if !self.shard_bytes.is_power_of_two() || self.shard_bytes < SHARD_BYTES_MIN {
            return Err("has a shard size that is no power of two from 4 KiB on");
        }
        if self.size_bytes == 0 {
            return Err("would be empty");
        }
        if self.size_bytes.div_ceil(self.shard_bytes) > SHARDS_MAX {
            return Err("has more than 512 shards; make them larger");
        }
        Ok(())
    }

    /// Each shard's number and size in bytes.
    pub(super) fn shards(self) -> impl Iterator<Item = (u64, u64)> {
        let Self { size_bytes, shard_bytes } = self;
        (0..size_bytes.div_ceil(shard_bytes))
            .map(move |number| (number, shard_bytes.min(size_bytes - number * shard_bytes)))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MANIFEST_BYTES);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_bytes(0, 6);
        out.put_u64_le(self.size_bytes);
        out.put_u64_le(self.shard_bytes);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    /// Decodes a manifest, or tells what is wrong with the bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if !bytes.starts_with(MAGIC) {
            return Err("is no manifest of shards");
        }
        if bytes.len() != MANIFEST_BYTES {
            return Err("is torn: it has another length");
        }
        let (covered, mut crc) = bytes.split_at(CRC_AT);
        if crc32c::crc32c(covered) != crc.get_u32_le() {
            return Err("is damaged: its checksum is wrong");
        }
        let mut fields = &covered[MAGIC.len()..];
        if fields.get_u16_le() != VERSION {
            return Err("has a version that this program does not know");
        }
        fields.advance(6);
        let manifest = Self { size_bytes: fields.get_u64_le(), shard_bytes: fields.get_u64_le() };
        manifest.check().map(|()| manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Manifest = Manifest { size_bytes: 10_000, shard_bytes: 4096 };

    #[test]
    fn its_bytes_are_those_of_the_page() {
        let bytes = GOOD.encode();
        assert_eq!(bytes[..16], *b"SKRYSHRD\x01\0\0\0\0\0\0\0");
        assert_eq!(bytes[16..32], *b"\x10\x27\0\0\0\0\0\0\0\x10\0\0\0\0\0\0");
        assert_eq!(Manifest::decode(&bytes), Ok(GOOD));
        let shards: Vec<_> = GOOD.shards().collect();
        assert_eq!(shards, [(0, 4096), (1, 4096), (2, 1808)]);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let bytes = GOOD.encode();
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn sizes_without_a_directory_are_refused() {
        let good = |size_bytes, shard_bytes| Manifest { size_bytes, shard_bytes }.check().is_ok();
        assert!(good(1, 4096) && good(512 * 4096, 4096));
        assert!(!good(0, 4096) && !good(1, 2048) && !good(1, 5000) && !good(512 * 4096 + 1, 4096));
        assert!(!good(u64::MAX, 4096));
    }
}
