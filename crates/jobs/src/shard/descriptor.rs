//! A shard's descriptor: its hashes, the number of its openings, and the log that may hold rows
//! that the database's files lack.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::HashRange;
use crate::job::Epoch;
use crate::opening::{LogName, Opening};
use bytes::{BufMut, BytesMut};
use skerry_core::id::ClaimId;
use skerry_core::wire::{FormatError, Reader};

/// The descriptor's name in messages.
const WHAT: &str = "shard descriptor";
const VERSION: u16 = 3;
/// The oldest version that is accepted.
const VERSION_MIN: u16 = 2;
const MAGIC: &[u8; 4] = b"SKRJ";

/// Kinds of logs.
const APPLIED: u8 = 0;
const OWN: u8 = 1;
const STORE: u8 = 2;
const LOCAL: u8 = 3;

/// A shard's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) hashes: HashRange,
    /// Number of openings. It is durable in the database before the shard does anything else.
    pub(crate) incarnation: u64,
    /// The log that may hold rows that the database's files lack.
    pub(crate) log: LogName,
    /// The last opening; none if an older version wrote the descriptor.
    pub(crate) opening: ClaimId,
}

/// Openings that a place has room for.
const INCARNATIONS_MAX: u64 = 1 << 24;

impl Descriptor {
    /// Makes the descriptor of an opening. `openings` is the number of earlier ones.
    pub(super) fn after(openings: u64, now: &Opening) -> Self {
        Self { hashes: now.hashes, incarnation: openings + 1, log: now.log, opening: now.id }
    }

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
        let (kind, log) = match self.log {
            LogName::Unknown | LogName::Applied => (APPLIED, [0; 16]),
            LogName::Own => (OWN, [0; 16]),
            LogName::Store(url) => (STORE, url),
            LogName::Local(id) => (LOCAL, id),
        };
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u64_le(self.incarnation);
        out.put_u64_le(self.hashes.first);
        out.put_u64_le(self.hashes.last);
        out.put_slice(&log);
        out.put_slice(&self.opening.0);
        let sum = crc32c::crc32c(&out);
        out.put_u32_le(sum);
        out.to_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.bytes(4)? != MAGIC {
            return Err(FormatError::BadMagic { what: WHAT }.into());
        }
        let version = reader.u16()?;
        if version > VERSION {
            return Err(FormatError::Newer { what: WHAT, version: version.into() }.into());
        }
        if version < VERSION_MIN {
            let detail = format!("version {version} is an older Skerry's");
            return Err(FormatError::invalid(WHAT, detail).into());
        }
        let kind = reader.u8()?;
        reader.u8()?;
        let incarnation = reader.u64()?;
        let hashes = HashRange { first: reader.u64()?, last: reader.u64()? };
        let log = reader.array()?;
        let opening = if version == VERSION_MIN { ClaimId::NONE } else { ClaimId(reader.array()?) };
        if reader.u32()? != crc32c::crc32c(&bytes[..bytes.len().saturating_sub(4)]) {
            return Err(FormatError::BadChecksum { what: WHAT }.into());
        }
        reader.finish()?;
        let log = if version == VERSION_MIN { log_of_2(log) } else { log_of(kind, log)? };
        Ok(Self { hashes, incarnation, log, opening })
    }
}

fn log_of(kind: u8, log: [u8; 16]) -> Result<LogName> {
    match kind {
        APPLIED => Ok(LogName::Applied),
        OWN => Ok(LogName::Own),
        STORE => Ok(LogName::Store(log)),
        LOCAL => Ok(LogName::Local(log)),
        kind => Err(FormatError::invalid(WHAT, format!("its log is of kind {kind}")).into()),
    }
}

/// The log in a descriptor of version 2.
fn log_of_2(log: [u8; 16]) -> LogName {
    if log == [0; 16] { LogName::Unknown } else { LogName::Local(log) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [u8; 16] = [9; 16];

    fn descriptor(log: LogName) -> Descriptor {
        let (hashes, opening) = (HashRange::part(1, 3), ClaimId([5; 16]));
        Descriptor { hashes, incarnation: 7, log, opening }
    }

    #[test]
    fn the_sample_of_version_3_is_written_and_read() {
        let now = descriptor(LogName::Local(LOG));
        let sample = crate::record::sample("descriptor-3.bin", &now.encode());
        assert_eq!(Descriptor::decode(&sample), Ok(now));
        assert_eq!(now.encode(), sample, "what is written changed: it needs a version");
    }

    /// This version opens databases of an older one.
    #[test]
    fn the_sample_of_version_2_is_read() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/jobs/v2");
        let sample = std::fs::read(format!("{dir}/descriptor.bin")).expect("the sample is there");
        let was = Descriptor { opening: ClaimId::NONE, ..descriptor(LogName::Local(LOG)) };
        assert_eq!(Descriptor::decode(&sample), Ok(was));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for log in [LogName::Applied, LogName::Own, LogName::Store(LOG), LogName::Local(LOG)] {
            let good = descriptor(log).encode();
            assert_eq!(Descriptor::decode(&good), Ok(descriptor(log)));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Descriptor::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }
}
