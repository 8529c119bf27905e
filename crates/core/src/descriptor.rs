//! Descriptors: the small objects that describe a bucket, a volume, a name or a pin.

use crate::envelope::{self, Kind};
use crate::id::{BucketId, PinId, SnapshotId, StreamId, VolumeId};
use crate::root::Base;
use crate::seal::Owner;
use crate::size::BlockSize;
use crate::wire::{FormatError, Reader, SectionWriter};
use bytes::{BufMut, Bytes, BytesMut};

const BUCKET: Kind = Kind { tag: *b"BUCK", what: "bucket descriptor", known: &[1, 2, 3, 4, 5] };
const VOLUME: Kind =
    Kind { tag: *b"VOLD", what: "volume descriptor", known: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] };
const STATE: Kind = Kind { tag: *b"VOLS", what: "volume state", known: &[1] };
const NAME: Kind = Kind { tag: *b"NAME", what: "name", known: &[1] };
const TOMB: Kind = Kind { tag: *b"TOMB", what: "tombstone", known: &[1] };
const LIFE: Kind = Kind { tag: *b"LIFE", what: "incarnation", known: &[1, 2, 3, 4] };
const PIN: Kind = Kind { tag: *b"PINN", what: "pin", known: &[1, 2, 3, 4] };

/// Features of a bucket that a reader or writer must know, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Bits that a reader must know.
    pub reader: u64,
    /// Bits that a writer, and so a collector, must know.
    pub writer: u64,
    /// Bits that may be ignored.
    pub ignorable: u64,
}

impl Features {
    /// Features that this version can read and write.
    pub const KNOWN: Self = Self { reader: 0, writer: 0, ignorable: 0 };

    /// Unites the features of both.
    pub fn union(self, other: Self) -> Self {
        Self {
            reader: self.reader | other.reader,
            writer: self.writer | other.writer,
            ignorable: self.ignorable | other.ignorable,
        }
    }

    /// Bits that this version would need to know and does not.
    fn unknown(self) -> u64 {
        (self.reader & !Self::KNOWN.reader) | (self.writer & !Self::KNOWN.writer)
    }
}

/// A bucket: its identity, and the features that readers and writers must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketDesc {
    /// The bucket.
    pub id: BucketId,
    /// Features that a user of the bucket must know.
    pub features: Features,
    /// Time of its creation, milliseconds since 1970.
    pub created_ms: u64,
}

impl BucketDesc {
    /// True if the bytes claim to be a descriptor.
    pub fn is(bytes: &[u8]) -> bool {
        envelope::is(BUCKET, bytes)
    }

    /// The encoded descriptor.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let sections = SectionWriter::new()
            .put(1, &self.id.0)
            .put_u64(2, self.features.reader)
            .put_u64(3, self.features.writer)
            .put_u64(4, self.features.ignorable)
            .put_u64(5, self.created_ms)
            .finish();
        envelope::seal(BUCKET, nonce, &sections)
    }

    /// Reads a descriptor; refuses unknown features.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(BUCKET, bytes)?;
        let features = Features {
            reader: sections.need(2)?.u64()?,
            writer: sections.need(3)?.u64()?,
            ignorable: sections.need(4)?.u64()?,
        };
        if features.unknown() != 0 {
            let version = features.unknown().trailing_zeros();
            return Err(FormatError::Newer { what: BUCKET.what, version });
        }
        Ok(Self {
            id: BucketId(sections.need(1)?.array()?),
            features,
            created_ms: sections.need(5)?.u64()?,
        })
    }
}

/// Kind of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VolumeKind {
    /// A disk. Trees are to come.
    #[default]
    Disk,
}

/// Promise of a completed flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlushLevel {
    /// Durable on the node's disk.
    #[default]
    Local,
    /// Durable in the bucket.
    Bucket,
}

/// A volume as it was created; never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDesc {
    /// The volume.
    pub id: VolumeId,
    /// Its kind.
    pub kind: VolumeKind,
    /// The bucket that it was created in. A copy elsewhere knows its origin by this.
    pub home: BucketId,
    /// Its block size.
    pub block: BlockSize,
    /// Its flush level.
    pub flush: FlushLevel,
    /// Time of its creation, milliseconds since 1970.
    pub created_ms: u64,
    /// The name that it was created with.
    pub name: String,
    /// The size that it was created with, bytes. A clone's may be larger than its base's.
    pub size_bytes: u64,
    /// A stream that no node ever writes. The first writer seals it like any predecessor's.
    pub genesis: StreamId,
    /// Content before the first write.
    pub base: Base,
    /// Of a clone: the snapshot that it was made from.
    pub parent: Option<(VolumeId, SnapshotId)>,
}

impl VolumeDesc {
    /// The volume whose streams the base's positions name.
    pub fn base_volume(&self) -> VolumeId {
        self.parent.map_or(self.id, |(parent, _)| parent)
    }

    /// The encoded descriptor.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let parent = self.parent.map(|(volume, snapshot)| [volume.0, snapshot.0].concat());
        let sections = SectionWriter::new()
            .put(1, &self.id.0)
            .put(2, &[self.block.shift()])
            .put(3, &[u8::from(self.flush == FlushLevel::Bucket)])
            .put_u64(4, self.created_ms)
            .put(5, self.name.as_bytes())
            .put(6, &self.genesis.0)
            .put(7, &self.base.encode())
            .put_some(8, parent)
            .put_u64(9, self.size_bytes)
            .put(
                10,
                &[match self.kind {
                    VolumeKind::Disk => 0,
                }],
            )
            .put(11, &self.home.0)
            .finish();
        envelope::seal(VOLUME, nonce, &sections)
    }

    /// Reads a descriptor.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(VOLUME, bytes)?;
        let invalid = |detail: String| FormatError::invalid(VOLUME.what, detail);
        let parent = match sections.get(8) {
            Some(bytes) => {
                let mut reader = Reader::new(VOLUME.what, bytes);
                Some((VolumeId(reader.array()?), SnapshotId(reader.array()?)))
            }
            None => None,
        };
        let flush = match sections.need(3)?.u8()? {
            0 => FlushLevel::Local,
            1 => FlushLevel::Bucket,
            other => return Err(invalid(format!("flush level {other} is not known"))),
        };
        let kind = match sections.need(10)?.u8()? {
            0 => VolumeKind::Disk,
            other => {
                return Err(FormatError::Newer { what: VOLUME.what, version: u32::from(other) });
            }
        };
        let mut base = sections.need(7)?;
        Ok(Self {
            kind,
            home: BucketId(sections.need(11)?.array()?),
            id: VolumeId(sections.need(1)?.array()?),
            block: BlockSize::from_shift(sections.need(2)?.u8()?)
                .map_err(|e| invalid(e.to_string()))?,
            flush,
            created_ms: sections.need(4)?.u64()?,
            name: sections.need(5)?.text()?,
            size_bytes: sections.need(9)?.u64()?,
            genesis: StreamId(sections.need(6)?.array()?),
            base: Base::decode(base.bytes(base.remaining())?)?,
            parent,
        })
    }
}

/// Fate of a volume's descriptor; the first writer of this object decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// The volume exists.
    Ready,
    /// The volume never existed.
    Withdrawn,
}

impl VolumeState {
    /// The encoded state.
    pub fn encode(self, nonce: [u8; 16]) -> Bytes {
        let state = match self {
            Self::Ready => 1,
            Self::Withdrawn => 2,
        };
        envelope::seal(STATE, nonce, &SectionWriter::new().put(1, &[state]).finish())
    }

    /// Reads a state.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        match envelope::open(STATE, bytes)?.need(1)?.u8()? {
            1 => Ok(Self::Ready),
            2 => Ok(Self::Withdrawn),
            other => Err(FormatError::invalid(STATE.what, format!("state {other} is not known"))),
        }
    }
}

/// One number of a name: the volume that it names, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameRecord {
    /// The volume, or none if the name is free again.
    pub volume: Option<VolumeId>,
}

impl NameRecord {
    /// The encoded record.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let sections = SectionWriter::new().put_some(1, self.volume.map(|v| v.0)).finish();
        envelope::seal(NAME, nonce, &sections)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(NAME, bytes)?;
        let volume = match sections.get(1) {
            Some(bytes) => Some(VolumeId(Reader::new(NAME.what, bytes).array()?)),
            None => None,
        };
        Ok(Self { volume })
    }
}

/// Says that a volume or a snapshot is gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    /// Time of the deletion, milliseconds since 1970.
    pub at_ms: u64,
}

impl Tombstone {
    /// The encoded tombstone.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        envelope::seal(TOMB, nonce, &SectionWriter::new().put_u64(1, self.at_ms).finish())
    }

    /// Reads a tombstone.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(Self { at_ms: envelope::open(TOMB, bytes)?.need(1)?.u64()? })
    }
}

/// One incarnation of a volume's writer. These objects let a listing find all streams of the
/// volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncarnationRecord {
    /// The stream's epoch.
    pub epoch: u64,
    /// The stream.
    pub stream: StreamId,
    /// The node that writes the stream.
    pub owner: Option<Owner>,
    /// At most the vseq that the stream begins with. All records below it from earlier incarnations
    /// are in the bucket. 0 if unknown.
    pub vseq: u64,
}

impl IncarnationRecord {
    /// The encoded incarnation.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let sections = SectionWriter::new()
            .put_u64(1, self.epoch)
            .put(2, &self.stream.0)
            .put_some(3, self.owner.as_ref().map(Owner::encode))
            .put_u64(4, self.vseq)
            .finish();
        envelope::seal(LIFE, nonce, &sections)
    }

    /// Reads an incarnation.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(LIFE, bytes)?;
        Ok(Self {
            epoch: sections.need(1)?.u64()?,
            stream: StreamId(sections.need(2)?.array()?),
            owner: sections.get(3).map(Owner::decode).transpose()?,
            vseq: sections.get(4).map_or(Ok(0), |bytes| Reader::new("LIFE", bytes).u64())?,
        })
    }
}

/// One renewal of a pin. The collector keeps what the pin lists while renewals come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The pin.
    pub id: PinId,
    /// The number of the renewal.
    pub renewal: u64,
    /// Time for which a collector honours this renewal after it first saw it, milliseconds.
    pub ttl_ms: u64,
    /// The pinned base.
    pub base: Base,
}

impl Pin {
    /// The encoded pin.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let mut ttl = BytesMut::new();
        ttl.put_u64_le(self.ttl_ms);
        let sections = SectionWriter::new()
            .put(1, &self.id.0)
            .put_u64(2, self.renewal)
            .put(3, &ttl)
            .put(4, &self.base.encode())
            .finish();
        envelope::seal(PIN, nonce, &sections)
    }

    /// Reads a pin.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(PIN, bytes)?;
        let mut base = sections.need(4)?;
        Ok(Self {
            id: PinId(sections.need(1)?.array()?),
            renewal: sections.need(2)?.u64()?,
            ttl_ms: sections.need(3)?.u64()?,
            base: Base::decode(base.bytes(base.remaining())?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LogId, NodeId};
    use crate::position::Position;
    use crate::root::Root;

    #[test]
    fn descriptors_read_back() {
        let base = Base::exact(
            Root::empty(4096, BlockSize::default(), "d"),
            Position::start(0, StreamId([4; 16]), 0),
        );
        let desc = VolumeDesc {
            id: VolumeId([1; 16]),
            kind: VolumeKind::Disk,
            home: BucketId([9; 16]),
            block: BlockSize::default(),
            flush: FlushLevel::Bucket,
            created_ms: 5,
            name: "d".into(),
            size_bytes: 8192,
            genesis: StreamId([2; 16]),
            base: base.clone(),
            parent: Some((VolumeId([3; 16]), SnapshotId([4; 16]))),
        };
        assert_eq!(VolumeDesc::decode(&desc.encode([0; 16])), Ok(desc));
        let owner = Owner { node: NodeId([5; 16]), log: LogId::NONE, lease: 3, host: "h".into() };
        let incarnation =
            IncarnationRecord { epoch: 3, stream: StreamId([6; 16]), owner: Some(owner), vseq: 7 };
        assert_eq!(IncarnationRecord::decode(&incarnation.encode([0; 16])), Ok(incarnation));
        let pin = Pin { id: PinId([7; 16]), renewal: 2, ttl_ms: 9, base };
        assert_eq!(Pin::decode(&pin.encode([0; 16])), Ok(pin));
        for volume in [None, Some(VolumeId([8; 16]))] {
            let name = NameRecord { volume };
            assert_eq!(NameRecord::decode(&name.encode([0; 16])), Ok(name));
        }
        for state in [VolumeState::Ready, VolumeState::Withdrawn] {
            assert_eq!(VolumeState::decode(&state.encode([0; 16])), Ok(state));
        }
    }

    #[test]
    fn unknown_bucket_features_are_refused() {
        let desc = BucketDesc {
            id: BucketId([1; 16]),
            features: Features { reader: 0, writer: 4, ignorable: 8 },
            created_ms: 0,
        };
        assert!(matches!(
            BucketDesc::decode(&desc.encode([0; 16])),
            Err(FormatError::Newer { .. })
        ));
    }
}
