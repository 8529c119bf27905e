//! Lease as bytes: a small row after its job's, so that giving a job to a worker does not write its
//! payload again. `docs/jobs.md` has the table.

use crate::error::Result;
use crate::job::{Attempt, AttemptNo, Epoch};
use crate::name::Worker;
use crate::record::{put_text, take_text};
use bytes::{BufMut, Bytes, BytesMut};
use skerry_core::wire::{FormatError, Reader};

const WHAT: &str = "lease record";
/// The version that this code writes, and the newest that it reads.
const VERSION: u8 = 1;
/// Version, three reserved bytes, checksum.
const HEAD_BYTES: usize = 8;

/// Encodes an attempt that is under way.
pub(crate) fn encode(attempt: &Attempt) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_bytes(0, HEAD_BYTES);
    out.put_u32_le(attempt.number.0);
    out.put_u32_le(attempt.epoch.0);
    out.put_u64_le(attempt.started_ms);
    put_text(&mut out, attempt.worker.as_str());
    let sum = crc32c::crc32c(&out[HEAD_BYTES..]);
    out[0] = VERSION;
    out[4..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
    out.freeze()
}

/// Decodes an attempt that is under way.
pub(crate) fn decode(bytes: &[u8]) -> Result<Attempt> {
    let mut reader = Reader::new(WHAT, bytes);
    let version = reader.u8()?;
    reader.bytes(3)?;
    let sum = reader.u32()?;
    if crc32c::crc32c(&bytes[HEAD_BYTES..]) != sum {
        return Err(FormatError::BadChecksum { what: WHAT }.into());
    }
    match version {
        0 => return Err(FormatError::BadMagic { what: WHAT }.into()),
        VERSION => {}
        _ => return Err(FormatError::Newer { what: WHAT, version: version.into() }.into()),
    }
    let number = AttemptNo(reader.u32()?);
    let epoch = Epoch(reader.u32()?);
    let started_ms = reader.u64()?;
    let worker = Worker::new(&take_text(&mut reader)?)?;
    reader.finish()?;
    Ok(Attempt { number, epoch, worker, started_ms, ended: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::sample;

    fn attempt() -> Attempt {
        Attempt {
            number: AttemptNo(3),
            epoch: Epoch(2),
            worker: Worker::new("w-1").expect("a name"),
            started_ms: 1_700_000_000_000,
            ended: None,
        }
    }

    #[test]
    fn the_sample_of_version_1_is_written_and_read() {
        let sample = sample("lease.bin", &encode(&attempt()));
        assert_eq!(decode(&sample), Ok(attempt()));
        assert_eq!(encode(&attempt()), sample, "what is written changed: it needs a version");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&attempt());
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let is_reserved = (8..32).contains(&bit);
            assert_eq!(decode(&bad).is_err(), !is_reserved, "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
    }
}
