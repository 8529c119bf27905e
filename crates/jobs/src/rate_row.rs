//! Rate whose bucket is not full, as bytes. `docs/jobs.md` has the layout.

use crate::limit::Drained;
use bytes::{BufMut, Bytes, BytesMut};
use skerry_core::wire::{FormatError, Reader};

const WHAT: &str = "rate record";
/// The version that this code writes, and the newest that it reads.
const VERSION: u8 = 1;
/// All bytes but the checksum, which is always the last.
const BODY_BYTES: usize = 24;

/// Encodes a rate.
pub(crate) fn encode(rate: &Drained) -> Bytes {
    let mut out = BytesMut::with_capacity(BODY_BYTES + 4);
    out.put_u8(VERSION);
    out.put_bytes(0, 3);
    out.put_u32_le(rate.count);
    out.put_u32_le(rate.per_ms);
    out.put_u32_le(rate.burst);
    out.put_u64_le(rate.full_at_ms);
    let sum = crc32c::crc32c(&out);
    out.put_u32_le(sum);
    out.freeze()
}

/// The bytes between the version and the checksum of a row. Its last four bytes are the CRC-32C of
/// all others. A row of a newer version than `newest` may be longer, and does not count as damaged.
pub(crate) fn body<'a>(
    what: &'static str,
    newest: u8,
    bytes: &'a [u8],
) -> Result<&'a [u8], FormatError> {
    let cut = FormatError::BadChecksum { what };
    let (all, sum) = bytes.split_last_chunk::<4>().ok_or(cut)?;
    if crc32c::crc32c(all) != u32::from_le_bytes(*sum) {
        return Err(FormatError::BadChecksum { what });
    }
    let mut reader = Reader::new(what, all);
    let version = reader.u8()?;
    reader.bytes(3)?;
    match version {
        0 => Err(FormatError::BadMagic { what }),
        version if version > newest => Err(FormatError::Newer { what, version: version.into() }),
        _ => Ok(&all[4..]),
    }
}

/// Decodes a rate.
pub(crate) fn decode(bytes: &[u8]) -> Result<Drained, FormatError> {
    let mut reader = Reader::new(WHAT, body(WHAT, VERSION, bytes)?);
    let (count, per_ms, burst) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let full_at_ms = reader.u64()?;
    reader.finish()?;
    Ok(Drained { count, per_ms, burst, full_at_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::sample;

    fn rate() -> Drained {
        Drained { count: 5, per_ms: 60_000, burst: 3, full_at_ms: 1_700_000_000_123 }
    }

    #[test]
    fn the_sample_of_version_1_is_written_and_read() {
        let sample = sample("rate.bin", &encode(&rate()));
        assert_eq!(decode(&sample), Ok(rate()));
        assert_eq!(encode(&rate()), sample, "what is written changed: it needs a version");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&rate());
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_newer_row_that_is_longer_is_newer_and_not_damaged() {
        let mut newer = vec![0; 40];
        newer[0] = VERSION + 1;
        let sum = crc32c::crc32c(&newer);
        newer.extend(sum.to_le_bytes());
        assert!(matches!(decode(&newer), Err(FormatError::Newer { .. })));
    }
}
