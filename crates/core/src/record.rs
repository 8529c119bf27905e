//! The records that a volume writes into the node's log.

use crate::id::{GroupId, SnapshotId, StreamId, VolumeId};
use crate::name::NAME_BYTES_MAX;
use crate::ops::Barrier;
use crate::wire::{FormatError, Reader};
use bytes::{BufMut, BytesMut};

/// The log's record kind for records of volumes.
pub const RECORD_KIND: u8 = 1;
/// Bytes before the data of a record.
pub const RECORD_HEAD: usize = 64;
/// Bytes of a barrier before its name.
const BARRIER_HEAD: usize = 36;
/// The longest record except a write's: a barrier with the longest name.
pub const PLAIN_RECORD_BYTES_MAX: usize = RECORD_HEAD + BARRIER_HEAD + NAME_BYTES_MAX;

const WHAT: &str = "log record";
const VERSION: u8 = 1;

/// Content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A write; its data follows the head.
    Write {
        /// Offset in the volume, bytes.
        offset: u64,
        /// Length, bytes.
        len: u64,
    },
    /// The range reads as zeros.
    Zero {
        /// Offset in the volume, bytes.
        offset: u64,
        /// Length, bytes.
        len: u64,
    },
    /// The volume's new size, bytes.
    Resize(u64),
    /// A snapshot was taken.
    Barrier(Barrier),
    /// A pending snapshot was deleted.
    Cancel(SnapshotId),
    /// The volume has a new name.
    Rename(String),
    /// Nothing but a step of the volume's vseq, so that a checkpoint can have a name of its own.
    Step,
}

/// A record of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The volume.
    pub volume: VolumeId,
    /// The stream that its writer held.
    pub stream: StreamId,
    /// The volume's vseq of this record.
    pub vseq: u64,
    /// The operation.
    pub action: Action,
}

impl Record {
    /// The bytes of the record without a write's data, which follows them.
    pub fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(RECORD_HEAD);
        let (kind, a, b) = match &self.action {
            Action::Write { offset, len } => (1, *offset, *len),
            Action::Zero { offset, len } => (2, *offset, *len),
            Action::Resize(size) => (3, *size, 0),
            Action::Barrier(barrier) => {
                (4, barrier.created_ms, (BARRIER_HEAD + barrier.name.len()) as u64)
            }
            Action::Cancel(_) => (5, 0, 16),
            Action::Rename(name) => (6, 0, name.len() as u64),
            Action::Step => (7, 0, 0),
        };
        out.put_u8(kind);
        out.put_u8(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(0);
        out.put_slice(&self.volume.0);
        out.put_slice(&self.stream.0);
        out.put_u64_le(self.vseq);
        out.put_u64_le(a);
        out.put_u64_le(b);
        match &self.action {
            Action::Barrier(barrier) => {
                out.put_slice(&barrier.id.0);
                out.put_slice(&barrier.group.0);
                out.put_u32_le(barrier.group_size);
                out.put_slice(barrier.name.as_bytes());
            }
            Action::Cancel(id) => out.put_slice(&id.0),
            Action::Rename(name) => out.put_slice(name.as_bytes()),
            _ => {}
        }
        out
    }

    /// Reads a record. Decodes only the head of a write, but its data must be there.
    pub fn decode(payload: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, payload);
        let (kind, version) = (reader.u8()?, reader.u8()?);
        let (sections, key) = (reader.u16()?, reader.u32()?);
        if version > VERSION || key != 0 || sections != 0 {
            return Err(FormatError::Newer { what: WHAT, version: u32::from(version) });
        }
        let (volume, stream) = (VolumeId(reader.array()?), StreamId(reader.array()?));
        let (vseq, a, b) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let wanted = if kind == 2 || kind == 3 { 0 } else { b };
        if wanted != reader.remaining() as u64 {
            return Err(FormatError::Truncated { what: WHAT });
        }
        if kind != 1 && payload.len() > PLAIN_RECORD_BYTES_MAX {
            return Err(FormatError::invalid(WHAT, "it is too long"));
        }
        let action = match kind {
            1 => Action::Write { offset: a, len: b },
            2 => Action::Zero { offset: a, len: b },
            3 => Action::Resize(a),
            4 => Action::Barrier(Barrier {
                id: SnapshotId(reader.array()?),
                group: GroupId(reader.array()?),
                group_size: reader.u32()?,
                created_ms: a,
                name: reader.text()?,
            }),
            5 => Action::Cancel(SnapshotId(reader.array()?)),
            6 => Action::Rename(reader.text()?),
            7 => Action::Step,
            other => return Err(FormatError::Newer { what: WHAT, version: u32::from(other) }),
        };
        Ok(Self { volume, stream, vseq, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_sections_is_a_newer_one() {
        let (volume, stream) = (VolumeId([3; 16]), StreamId([4; 16]));
        let mut bytes = Record { volume, stream, vseq: 5, action: Action::Step }.encode();
        bytes[2] = 8;
        assert!(matches!(Record::decode(&bytes), Err(FormatError::Newer { .. })));
    }

    #[test]
    fn the_longest_record_is_read_and_no_longer_one() {
        let barrier = |name_bytes| Barrier {
            id: SnapshotId([1; 16]),
            group: GroupId::NONE,
            group_size: 0,
            created_ms: 9,
            name: "s".repeat(name_bytes),
        };
        for (name_bytes, fits) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
            let action = Action::Barrier(barrier(name_bytes));
            let record =
                Record { volume: VolumeId([3; 16]), stream: StreamId([4; 16]), vseq: 5, action };
            let bytes = record.encode();
            assert_eq!(bytes.len() <= PLAIN_RECORD_BYTES_MAX, fits, "the bound is tight");
            assert_eq!(Record::decode(&bytes).is_ok(), fits);
        }
    }

    #[test]
    fn records_read_back() {
        let barrier = Barrier {
            id: SnapshotId([1; 16]),
            group: GroupId([6; 16]),
            group_size: 2,
            created_ms: 9,
            name: "s".into(),
        };
        let actions = [
            Action::Write { offset: 512, len: 1024 },
            Action::Zero { offset: 0, len: 1 << 40 },
            Action::Resize(1 << 30),
            Action::Barrier(barrier),
            Action::Cancel(SnapshotId([2; 16])),
            Action::Rename("n".into()),
            Action::Step,
        ];
        for action in actions {
            let record =
                Record { volume: VolumeId([3; 16]), stream: StreamId([4; 16]), vseq: 5, action };
            let mut bytes = record.encode();
            if matches!(record.action, Action::Write { .. }) {
                assert!(Record::decode(&bytes).is_err(), "the data is missing");
                bytes.put_bytes(7, 1024);
            }
            assert_eq!(Record::decode(&bytes), Ok(record));
        }
    }
}
