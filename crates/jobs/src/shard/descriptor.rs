//! A shard's descriptor: which shard it is, how often it was opened, and which local log may hold what the database
//! does not have.

use crate::error::Result;
use bytes::{BufMut, BytesMut};
use skerry_core::wire::{FormatError, Reader};
use std::fmt;

/// What it is called in messages.
const WHAT: &str = "shard descriptor";
const VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"SKRJ";

/// Which shard of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardNo {
    /// The first is 0.
    pub number: u32,
    /// So many there are.
    pub of: u32,
}

impl ShardNo {
    /// The only one.
    pub const ONLY: Self = Self { number: 0, of: 1 };
}

impl fmt::Display for ShardNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} of {}", self.number, self.of)
    }
}

/// A shard's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) number: ShardNo,
    /// How often it was opened.
    pub(super) incarnation: u64,
    /// The local log that may have what the database does not.
    pub(super) log: Option<[u8; 16]>,
}

impl Descriptor {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u64_le(self.incarnation);
        out.put_u32_le(self.number.number);
        out.put_u32_le(self.number.of);
        out.put_slice(&self.log.unwrap_or_default());
        let sum = crc32c::crc32c(&out);
        out.put_u32_le(sum);
        out.to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.bytes(4)? != MAGIC {
            return Err(FormatError::BadMagic { what: WHAT }.into());
        }
        let version = reader.u16()?;
        if version > VERSION {
            return Err(FormatError::Newer { what: WHAT, version: version.into() }.into());
        }
        reader.u16()?;
        let incarnation = reader.u64()?;
        let number = ShardNo { number: reader.u32()?, of: reader.u32()? };
        let mut log = [0; 16];
        log.copy_from_slice(reader.bytes(16)?);
        if reader.u32()? != crc32c::crc32c(&bytes[..bytes.len().saturating_sub(4)]) {
            return Err(FormatError::BadChecksum { what: WHAT }.into());
        }
        reader.finish()?;
        Ok(Self { number, incarnation, log: (log != [0; 16]).then_some(log) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        for log in [None, Some([7; 16])] {
            let number = ShardNo { number: 2, of: 3 };
            let descriptor = Descriptor { number, incarnation: 7, log };
            let good = descriptor.encode();
            assert_eq!(Descriptor::decode(&good), Ok(descriptor));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Descriptor::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }
}
