//! The envelope around every small object: kind, version, nonce, sections, checksum.
//!
//! The nonce makes the objects of two writers differ even with equal content. After a lost
//! response, a writer compares bytes, and so tells its own success from another writer's.

use crate::wire::{FormatError, Reader, Sections, hash16};
use bytes::{BufMut, Bytes, BytesMut};

const MAGIC: &[u8; 4] = b"SKRY";
const VERSION: u16 = 1;
const HEAD: usize = 32;
const CHECKSUM: usize = 16;

/// The largest small object that a reader accepts, bytes. This version writes far smaller ones
/// ([`Root`](crate::root::Root) has a bound of its own). The rest is room for future sections.
pub const ENVELOPE_BYTES_MAX: usize = 1 << 20;

/// Kind of a small object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Four letters.
    pub tag: [u8; 4],
    /// Name of the kind, for messages.
    pub what: &'static str,
    /// The sections that this version understands.
    pub known: &'static [u16],
}

/// Puts sections into an envelope.
pub fn seal(kind: Kind, nonce: [u8; 16], sections: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + sections.len() + CHECKSUM);
    out.put_slice(MAGIC);
    out.put_slice(&kind.tag);
    out.put_u16_le(VERSION);
    out.put_u16_le(0);
    out.put_u32_le(u32::try_from(sections.len()).unwrap_or(u32::MAX));
    out.put_slice(&nonce);
    out.put_slice(sections);
    let sum = hash16(&out);
    out.put_slice(&sum);
    out.freeze()
}

/// True if the bytes claim to be an envelope of this kind. Verifies nothing else.
pub fn is(kind: Kind, bytes: &[u8]) -> bool {
    bytes.len() >= 8 && &bytes[..4] == MAGIC && bytes[4..8] == kind.tag
}

/// Opens an envelope: checks magic, kind, version and checksum, and gives the sections.
pub fn open(kind: Kind, bytes: &[u8]) -> Result<Sections<'_>, FormatError> {
    let what = kind.what;
    let mut reader = Reader::new(what, bytes);
    if reader.bytes(4)? != MAGIC || reader.bytes(4)? != kind.tag {
        return Err(FormatError::BadMagic { what });
    }
    let version = reader.u16()?;
    reader.u16()?;
    let len = reader.u32()? as usize;
    reader.bytes(16)?;
    let body = reader.bytes(len)?;
    let sum: [u8; CHECKSUM] = reader.array()?;
    reader.finish()?;
    if hash16(&bytes[..HEAD + len]) != sum {
        return Err(FormatError::BadChecksum { what });
    }
    if version > VERSION {
        return Err(FormatError::Newer { what, version: u32::from(version) });
    }
    Sections::parse(what, body, kind.known)
}

#[cfg(test)]
#[path = "envelope/bounds.rs"]
mod bounds;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SectionWriter;

    const KIND: Kind = Kind { tag: *b"TEST", what: "test object", known: &[1] };

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = seal(KIND, [7; 16], &SectionWriter::new().put_u64(1, 42).finish());
        assert_eq!(open(KIND, &good).and_then(|s| s.need(1)?.u64()), Ok(42));
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(KIND, &bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn unknown_critical_sections_are_refused() {
        let new = seal(KIND, [7; 16], &SectionWriter::new().put_u64(9, 42).finish());
        assert!(matches!(open(KIND, &new), Err(FormatError::Newer { .. })));
    }
}
