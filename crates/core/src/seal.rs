//! Seals: the objects that end a stream and name its successor.

use crate::envelope::{self, Kind};
use crate::id::{LogId, NodeId, StreamId};
use crate::wire::{FormatError, Reader, SectionWriter};
use bytes::{BufMut, Bytes, BytesMut};

const KIND: Kind = Kind { tag: *b"SEAL", what: "seal", known: &[1, 2, 3, 4] };

/// The longest name of a host, bytes: the longest name in the DNS. Settings refuse longer ones;
/// Linux allows 64.
pub const HOST_BYTES_MAX: usize = 255;

/// The longest seal, bytes, with room for reserved fields. A larger object is a segment; its size
/// alone tells.
pub const SEAL_BYTES_MAX: usize = 1024;

/// The owner of a stream: the node that writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// Its log, which holds its undestaged records; none without a log.
    pub log: LogId,
    /// The epoch of the lease under which it writes; 0 without one.
    pub lease: u64,
    /// Its host's name, for people; at most [`HOST_BYTES_MAX`] bytes.
    pub host: String,
}

impl Owner {
    /// The encoded owner.
    pub fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_slice(&self.node.0);
        out.put_slice(&self.log.0);
        out.put_u64_le(self.lease);
        out.put_slice(self.host.as_bytes());
        out
    }

    /// Reads an owner.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("owner", bytes);
        Ok(Self {
            node: NodeId(reader.array()?),
            log: LogId(reader.array()?),
            lease: reader.u64()?,
            host: reader.text()?,
        })
    }
}

/// Ends a stream. It stands where the next segment would have stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The stream that goes on.
    pub successor: StreamId,
    /// Its epoch: one more than that of the sealed stream.
    pub epoch: u64,
    /// The owner of the successor; none after a release.
    pub owner: Option<Owner>,
    /// True if an operator took the volume by force from its owner.
    pub forced: bool,
}

impl Seal {
    /// The encoded seal.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let sections = SectionWriter::new()
            .put(1, &self.successor.0)
            .put_u64(2, self.epoch)
            .put_some(3, self.owner.as_ref().map(Owner::encode))
            .put(4, &[u8::from(self.forced)])
            .finish();
        envelope::seal(KIND, nonce, &sections)
    }

    /// True if the bytes claim to be a seal.
    pub fn is(bytes: &[u8]) -> bool {
        envelope::is(KIND, bytes)
    }

    /// Reads a seal.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(KIND, bytes)?;
        Ok(Self {
            successor: StreamId(sections.need(1)?.array()?),
            epoch: sections.need(2)?.u64()?,
            owner: sections.get(3).map(Owner::decode).transpose()?,
            forced: sections.need(4)?.u8()? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_read_back() {
        let owner =
            Owner { node: NodeId([1; 16]), log: LogId([2; 16]), lease: 7, host: "h".into() };
        let longest = Owner { host: "h".repeat(HOST_BYTES_MAX), ..owner.clone() };
        for owner in [None, Some(owner), Some(longest)] {
            let seal = Seal { successor: StreamId([3; 16]), epoch: 4, owner, forced: true };
            let bytes = seal.encode([5; 16]);
            assert!(Seal::is(&bytes));
            assert!(bytes.len() <= SEAL_BYTES_MAX, "{} bytes", bytes.len());
            assert_eq!(Seal::decode(&bytes), Ok(seal));
        }
    }
}
