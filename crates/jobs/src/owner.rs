//! The owner record of a jobs database, and its name in the bucket. [`crate::chain`] decides by
//! these records.

use crate::error::Result;
use bytes::{BufMut, BytesMut};
use skerry_core::id::NodeId;
use skerry_core::wire::{FormatError, Reader};
use std::fmt;

const WHAT: &str = "owner record of a jobs database";
const MAGIC: &[u8; 4] = b"SKRO";
const VERSION: u16 = 1;
/// The longest host name that is kept, bytes.
const HOST_BYTES_MAX: usize = 255;

/// Prefix of all records.
pub const OWNERS: &str = "jobs/owners";

/// A jobs database, by an id of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId(pub NodeId);

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseId({self})")
    }
}

impl DatabaseId {
    /// Path of a shard's files.
    pub fn shard(&self, number: u32) -> String {
        format!("jobs/databases/{self}/{number}")
    }

    /// Prefix of the records of its owners.
    pub fn owners(&self) -> String {
        format!("{OWNERS}/{self}")
    }

    /// Name of one of these records.
    pub fn owner(&self, number: u64) -> String {
        format!("{OWNERS}/{self}/{number:016x}")
    }
}

/// The database and the number in a record's name.
pub fn parse(name: &str) -> Option<(DatabaseId, u64)> {
    let (database, number) = name.strip_prefix(OWNERS)?.strip_prefix('/')?.split_once('/')?;
    let number = Some(number).filter(|number| number.len() == 16)?;
    let database = database.parse().ok().map(DatabaseId)?;
    Some((database, u64::from_str_radix(number, 16).ok()?))
}

/// The owner of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The database.
    pub database: DatabaseId,
    /// Number of the record. The first has 1.
    pub number: u64,
    /// The node; none if it was given up.
    pub node: NodeId,
    /// The previous owner.
    pub before: NodeId,
    /// Time when it was taken, milliseconds since 1970.
    pub taken_ms: u64,
    /// Shards that the database has; 0 in records of versions that did not write the number.
    pub shards: u16,
    /// The node's host, for people.
    pub host: String,
}

impl Owner {
    /// Encodes the record. A nonce tells two otherwise equal records apart.
    pub fn encode(&self, nonce: [u8; 16]) -> Vec<u8> {
        let end = self.host.floor_char_boundary(HOST_BYTES_MAX);
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(self.shards);
        out.put_slice(&nonce);
        out.put_slice(&self.database.0.0);
        out.put_u64_le(self.number);
        out.put_slice(&self.node.0);
        out.put_slice(&self.before.0);
        out.put_u64_le(self.taken_ms);
        out.put_u16_le(end as u16);
        out.put_slice(&self.host.as_bytes()[..end]);
        let sum = crc32c::crc32c(&out);
        out.put_u32_le(sum);
        out.to_vec()
    }

    /// Decodes a record. A newer version adds fields before the checksum and changes no others, so
    /// its record stops no node of this version.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.bytes(4)? != MAGIC {
            return Err(FormatError::BadMagic { what: WHAT }.into());
        }
        let version = reader.u16()?;
        if bytes.len() < 4 {
            return Err(FormatError::Truncated { what: WHAT }.into());
        }
        let (head, sum) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(head).to_le_bytes() != sum {
            return Err(FormatError::BadChecksum { what: WHAT }.into());
        }
        let shards = reader.u16()?;
        reader.bytes(16)?;
        let database = DatabaseId(take_id(&mut reader)?);
        let number = reader.u64()?;
        let (node, before) = (take_id(&mut reader)?, take_id(&mut reader)?);
        let taken_ms = reader.u64()?;
        let len = reader.u16()?;
        let host = String::from_utf8_lossy(reader.bytes(len.into())?).into_owned();
        reader.u32()?;
        if version <= VERSION {
            reader.finish()?;
        }
        Ok(Self { database, number, node, before, taken_ms, shards, host })
    }
}

fn take_id(reader: &mut Reader<'_>) -> Result<NodeId> {
    let mut id = NodeId::NONE;
    id.0.copy_from_slice(reader.bytes(16)?);
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(database: u8, node: u8, before: u8, taken_ms: u64) -> Owner {
        Owner {
            database: DatabaseId(NodeId([database; 16])),
            number: 2,
            node: NodeId([node; 16]),
            before: NodeId([before; 16]),
            taken_ms,
            shards: 0,
            host: "höst-1".to_owned(),
        }
    }

    #[test]
    fn the_number_of_shards_is_kept() {
        let owner = Owner { shards: 64, ..owner(1, 2, 3, 4) };
        assert_eq!(Owner::decode(&owner.encode([9; 16])), Ok(owner));
    }

    #[test]
    fn a_newer_versions_record_says_the_same() {
        let owner = owner(1, 2, 3, 4);
        let mut newer = owner.encode([9; 16]);
        newer[4] = 2;
        newer.truncate(newer.len() - 4);
        newer.extend_from_slice(b"more");
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_le_bytes());
        assert_eq!(Owner::decode(&newer), Ok(owner));
    }

    #[test]
    fn the_sample_of_version_1_is_written_and_read() {
        let owner = owner(1, 2, 3, 1_700_000_000_000);
        let now = owner.encode([9; 16]);
        let sample = crate::record::sample("owner.bin", &now);
        assert_eq!(Owner::decode(&sample), Ok(owner));
        assert_eq!(now, sample, "what is written changed: it needs a version");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = owner(1, 2, 3, 4).encode([9; 16]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Owner::decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(Owner::decode(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn names_are_read_back() {
        let database = DatabaseId(NodeId([7; 16]));
        assert_eq!(parse(&database.owner(0x1f)), Some((database, 0x1f)));
        for foreign in [database.shard(0), database.owners(), format!("{OWNERS}/x/1")] {
            assert_eq!(parse(&foreign), None, "{foreign}");
        }
    }
}
