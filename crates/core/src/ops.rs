//! The operation list of a segment: all that happened to the volume besides writes of blocks.

use crate::id::{GroupId, SnapshotId};
use crate::root::Base;
use crate::wire::{FormatError, Reader};
use bytes::{BufMut, BytesMut};

const WHAT: &str = "operation list";
const CRITICAL: u8 = 1;

/// A snapshot's cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// The snapshot.
    pub id: SnapshotId,
    /// The set of barriers that it belongs to, or none.
    pub group: GroupId,
    /// Number of barriers in that set; 0 without one. A set counts when all of them are there.
    pub group_size: u32,
    /// Time of the snapshot, milliseconds since 1970.
    pub created_ms: u64,
    /// The snapshot's name.
    pub name: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Blocks read as zeros from here on. Applies before the segment's blocks.
    Zero {
        /// First block.
        first: u64,
        /// Number of blocks.
        blocks: u64,
    },
    /// The volume's new size, bytes.
    Resize(u64),
    /// A snapshot; the last operation of its segment.
    Barrier(Barrier),
    /// The volume continues from this base. The last operation of its segment.
    Rollback(Box<Base>),
    /// The volume's new true name.
    Rename(String),
}

impl Op {
    /// Appends the encoded operation.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let kind = match self {
            Self::Zero { first, blocks } => {
                body.put_u64_le(*first);
                body.put_u64_le(*blocks);
                1
            }
            Self::Resize(size) => {
                body.put_u64_le(*size);
                2
            }
            Self::Barrier(barrier) => {
                body.put_slice(&barrier.id.0);
                body.put_slice(&barrier.group.0);
                body.put_u32_le(barrier.group_size);
                body.put_u64_le(barrier.created_ms);
                body.put_slice(barrier.name.as_bytes());
                3
            }
            Self::Rollback(base) => {
                body.put_slice(&base.encode());
                4
            }
            Self::Rename(name) => {
                body.put_slice(name.as_bytes());
                5
            }
        };
        out.put_u8(kind);
        out.put_u8(CRITICAL);
        out.put_u16_le(0);
        out.put_u32_le(body.len() as u32);
        out.put_slice(&body);
    }

    /// Reads a list of operations. Skips unknown ones that a reader may ignore.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        let mut ops = Vec::new();
        while reader.remaining() > 0 {
            let (kind, flags) = (reader.u8()?, reader.u8()?);
            reader.u16()?;
            let len = reader.u32()? as usize;
            let mut body = Reader::new(WHAT, reader.bytes(len)?);
            ops.push(match kind {
                1 => Self::Zero { first: body.u64()?, blocks: body.u64()? },
                2 => Self::Resize(body.u64()?),
                3 => Self::Barrier(Barrier {
                    id: SnapshotId(body.array()?),
                    group: GroupId(body.array()?),
                    group_size: body.u32()?,
                    created_ms: body.u64()?,
                    name: body.text()?,
                }),
                4 => Self::Rollback(Box::new(Base::decode(body.bytes(body.remaining())?)?)),
                5 => Self::Rename(body.text()?),
                _ if flags & CRITICAL == 0 => continue,
                other => return Err(FormatError::Newer { what: WHAT, version: u32::from(other) }),
            });
        }
        Ok(ops)
    }
}
