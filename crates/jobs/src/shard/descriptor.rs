//! A shard's descriptor: which hashes it has, how often it was opened, and which local log may hold what the database
//! does not have.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::HashRange;
use crate::job::Epoch;
use bytes::{BufMut, BytesMut};
use skerry_core::wire::{FormatError, Reader};

/// What it is called in messages.
const WHAT: &str = "shard descriptor";
const VERSION: u16 = 2;
const MAGIC: &[u8; 4] = b"SKRJ";

/// A shard's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) hashes: HashRange,
    /// How often it was opened, which is durable in the database before anything else is done.
    pub(super) incarnation: u64,
    /// The local log that may have what the database does not.
    pub(super) log: Option<[u8; 16]>,
}

/// Openings that a place has room for.
const INCARNATIONS_MAX: u64 = 1 << 24;

impl Descriptor {
    /// The number of this opening.
    pub(super) fn epoch(&self) -> Result<Epoch> {
        let number = Some(self.incarnation).filter(|number| *number < INCARNATIONS_MAX);
        let epoch = number.and_then(|number| u32::try_from(number).ok()).map(Epoch);
        epoch.ok_or_else(|| {
            let detail = format!("the jobs' database was opened {} times", self.incarnation);
            Error::new(ErrorKind::Internal, detail)
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.hashes.first);
        out.put_u64_le(self.hashes.last);
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
        if version < VERSION {
            let detail = format!("version {version} is an older Skerry's");
            return Err(FormatError::invalid(WHAT, detail).into());
        }
        reader.u16()?;
        let incarnation = reader.u64()?;
        let hashes = HashRange { first: reader.u64()?, last: reader.u64()? };
        let mut log = [0; 16];
        log.copy_from_slice(reader.bytes(16)?);
        if reader.u32()? != crc32c::crc32c(&bytes[..bytes.len().saturating_sub(4)]) {
            return Err(FormatError::BadChecksum { what: WHAT }.into());
        }
        reader.finish()?;
        Ok(Self { hashes, incarnation, log: (log != [0; 16]).then_some(log) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_version_2_is_written_and_read() {
        let descriptor =
            Descriptor { hashes: HashRange::part(1, 3), incarnation: 7, log: Some([9; 16]) };
        let sample = crate::record::sample("descriptor.bin", &descriptor.encode());
        assert_eq!(Descriptor::decode(&sample), Ok(descriptor));
        assert_eq!(descriptor.encode(), sample, "what is written changed: it needs a version");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for log in [None, Some([7; 16])] {
            let hashes = HashRange::part(1, 3);
            let descriptor = Descriptor { hashes, incarnation: 7, log };
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
