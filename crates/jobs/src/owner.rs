//! Who has a jobs database in a bucket: numbered records, each made only if there is none of its number; the newest names
//! the owner.
//!
//! Participants: nodes that share a bucket. Each has one database of its own, below a path that does not name the node,
//! so that another node can have it when that one is lost. Goals: nobody serves a database that another was given; a node
//! that comes back finds out that it was relieved. Non-goal: to find out whether a node is lost; people say so.
//!
//! What must hold: a node looks at the newest record before it opens a database *and after*, and serves only what is its
//! own then. SlateDB's epoch keeps the writes of two from mixing; the record says which of them stops.

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

/// Under which all records stand.
pub const OWNERS: &str = "jobs/owners";

/// A jobs database. It is named by an id of its own.
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
    /// Where a shard's files are.
    pub fn shard(&self, number: u32) -> String {
        format!("jobs/databases/{self}/{number}")
    }

    /// All records of its owners.
    pub fn owners(&self) -> String {
        format!("{OWNERS}/{self}")
    }

    /// One of these records.
    pub fn owner(&self, number: u64) -> String {
        format!("{OWNERS}/{self}/{number:016x}")
    }
}

/// The database and the number that the name of a record says.
pub fn parse(name: &str) -> Option<(DatabaseId, u64)> {
    let (database, number) = name.strip_prefix(OWNERS)?.strip_prefix('/')?.split_once('/')?;
    let number = Some(number).filter(|number| number.len() == 16)?;
    let database = database.parse().ok().map(DatabaseId)?;
    Some((database, u64::from_str_radix(number, 16).ok()?))
}

/// Who has a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Which.
    pub database: DatabaseId,
    /// The first record has 1.
    pub number: u64,
    /// The node; none if it was given up.
    pub node: NodeId,
    /// Who had it before.
    pub before: NodeId,
    /// When it was taken, milliseconds since 1970.
    pub taken_ms: u64,
    /// The node's host, for people.
    pub host: String,
}

impl Owner {
    /// The record as bytes. A nonce tells two records apart that are otherwise alike.
    pub fn encode(&self, nonce: [u8; 16]) -> Vec<u8> {
        let end = self.host.floor_char_boundary(HOST_BYTES_MAX);
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
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

    /// Reads a record.
    ///
    /// # Errors
    /// `Corrupt` if it is not what was written, or a newer Skerry's.
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
        if version > VERSION {
            return Err(FormatError::Newer { what: WHAT, version: version.into() }.into());
        }
        reader.bytes(2 + 16)?;
        let database = DatabaseId(take_id(&mut reader)?);
        let number = reader.u64()?;
        let (node, before) = (take_id(&mut reader)?, take_id(&mut reader)?);
        let taken_ms = reader.u64()?;
        let len = reader.u16()?;
        let host = String::from_utf8_lossy(reader.bytes(len.into())?).into_owned();
        reader.u32()?;
        reader.finish()?;
        Ok(Self { database, number, node, before, taken_ms, host })
    }
}

fn take_id(reader: &mut Reader<'_>) -> Result<NodeId> {
    let mut id = NodeId::NONE;
    id.0.copy_from_slice(reader.bytes(16)?);
    Ok(id)
}

/// What a node has, by the newest records of all databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Has {
    /// This database.
    Its(DatabaseId),
    /// Another took its database over.
    WasRelieved(Owner),
    /// Nothing yet. These databases are others'.
    Nothing(Vec<Owner>),
}

/// What a node has. If it stopped between two records of a take-over it has two: the one that it took last is its own.
pub fn has(node: NodeId, newest: &[Owner]) -> Has {
    let its = newest.iter().filter(|owner| owner.node == node);
    if let Some(its) = its.max_by_key(|owner| (owner.taken_ms, owner.database)) {
        return Has::Its(its.database);
    }
    let relieved = newest.iter().find(|owner| owner.before == node && !owner.node.is_none());
    match relieved {
        Some(by) => Has::WasRelieved(by.clone()),
        None => {
            Has::Nothing(newest.iter().filter(|owner| !owner.node.is_none()).cloned().collect())
        }
    }
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
            host: "höst-1".to_owned(),
        }
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

    #[test]
    fn a_node_has_what_the_newest_records_say() {
        let me = NodeId([1; 16]);
        let (mine, others) = (owner(1, 1, 0, 5), owner(2, 2, 0, 6));
        let has = |newest: &[&Owner]| {
            let newest: Vec<Owner> = newest.iter().map(|owner| (*owner).clone()).collect();
            super::has(me, &newest)
        };
        assert_eq!(has(&[]), Has::Nothing(Vec::new()));
        assert_eq!(has(&[&others]), Has::Nothing(vec![others.clone()]));
        assert_eq!(has(&[&mine, &others]), Has::Its(mine.database));
        let taken = owner(3, 1, 2, 9);
        assert_eq!(has(&[&taken, &mine]), Has::Its(taken.database), "what it took last");
        let lost = owner(1, 2, 1, 7);
        assert_eq!(has(&[&lost, &others]), Has::WasRelieved(lost.clone()));
        let given_up = owner(1, 0, 1, 7);
        assert_eq!(has(&[&given_up]), Has::Nothing(Vec::new()), "it gave that up itself");
    }
}
