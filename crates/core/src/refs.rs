//! Refs: numbered objects that cache a start for readers. They never decide what was acknowledged.

use crate::envelope::{self, Kind};
use crate::id::{SnapshotId, VolumeId};
use crate::position::Position;
use crate::root::{Base, Root};
use crate::wire::{FormatError, Reader, SectionWriter};
use bytes::{BufMut, Bytes, BytesMut};

const KIND: Kind = Kind { tag: *b"REFR", what: "ref", known: &[1, 2, 3, 4, 5, 6, 7] };

/// Fields of a snapshot's ref beyond its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The snapshot.
    pub id: SnapshotId,
    /// The number of this ref; the highest of a snapshot counts.
    pub number: u64,
    /// Time at which its barrier was written, milliseconds since 1970.
    pub created_ms: u64,
    /// The volume's size at that moment, bytes.
    pub size_bytes: u64,
    /// The snapshot's name.
    pub name: String,
}

/// The number under which a snapshot is published.
pub const PUBLISHED: u64 = 1;

/// A head's or a snapshot's ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// The volume.
    pub volume: VolumeId,
    /// Root and positions. A head rolls forward without end; its `end` is ignored.
    pub base: Base,
    /// Present in a snapshot's ref.
    pub snapshot: Option<SnapshotInfo>,
    /// The first number of the node lane that was unused when the ref was written.
    pub next_node: u64,
}

impl Ref {
    /// The encoded ref.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let info = self.snapshot.as_ref().map(|info| {
            let mut out = BytesMut::new();
            out.put_slice(&info.id.0);
            out.put_u64_le(info.number);
            out.put_u64_le(info.created_ms);
            out.put_u64_le(info.size_bytes);
            out.put_slice(info.name.as_bytes());
            out
        });
        let sections = SectionWriter::new()
            .put(1, &self.volume.0)
            .put(2, &[u8::from(self.snapshot.is_some())])
            .put(3, &self.base.root.encode())
            .put(4, &self.base.at.to_bytes())
            .put(5, &self.base.end.to_bytes())
            .put_some(6, info)
            .put_u64(7, self.next_node)
            .finish();
        envelope::seal(KIND, nonce, &sections)
    }

    /// Reads a ref.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(KIND, bytes)?;
        let mut root = sections.need(3)?;
        let base = Base {
            root: Root::decode(root.bytes(root.remaining())?)?,
            at: Position::decode(&mut sections.need(4)?)?,
            end: Position::decode(&mut sections.need(5)?)?,
        };
        let snapshot = match sections.get(6) {
            Some(bytes) => {
                let mut reader = Reader::new(KIND.what, bytes);
                Some(SnapshotInfo {
                    id: SnapshotId(reader.array()?),
                    number: reader.u64()?,
                    created_ms: reader.u64()?,
                    size_bytes: reader.u64()?,
                    name: reader.text()?,
                })
            }
            None => None,
        };
        Ok(Self {
            volume: VolumeId(sections.need(1)?.array()?),
            base,
            snapshot,
            next_node: sections.need(7)?.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::DeadPending;
    use crate::id::StreamId;
    use crate::map_node::MapNodePtr;
    use crate::name::NAME_BYTES_MAX;
    use crate::position::{Number, SegmentKey};
    use crate::root::ROOT_BYTES_MAX;
    use crate::size::BlockSize;

    #[test]
    fn refs_read_back() {
        let ptr = MapNodePtr {
            level: 3,
            slot: 4,
            len: 5,
            segment: SegmentKey { stream: StreamId([6; 16]), number: Number::map_node(7) },
            offset: 8,
            checksum: [9; 16],
            live: 10,
        };
        let mut root = Root::empty(1 << 30, BlockSize::default(), "disk");
        root.top = Some(ptr);
        root.liveness = Some(ptr);
        root.dead_pending = Some(DeadPending { first: ptr, subtrees: 2_400_000, blocks: 3 });
        root.name = "n".repeat(NAME_BYTES_MAX);
        assert_eq!(root.encode().len(), ROOT_BYTES_MAX, "the bound is tight");
        let at = Position::start(1, StreamId([1; 16]), 99);
        let info = SnapshotInfo {
            id: SnapshotId([3; 16]),
            number: 2,
            created_ms: 1,
            size_bytes: 2,
            name: "s".into(),
        };
        let made = Ref {
            volume: VolumeId([2; 16]),
            base: Base::exact(root, at),
            snapshot: Some(info),
            next_node: 12,
        };
        assert_eq!(Ref::decode(&made.encode([0; 16])), Ok(made.clone()));
        assert_eq!(Base::decode(&made.base.encode()), Ok(made.base));
    }
}
