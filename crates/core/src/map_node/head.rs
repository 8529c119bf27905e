//! The header that all kinds of node share.

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{FormatError, Reader};

/// Bytes of the header of a node.
pub const MAP_NODE_HEAD: usize = 40;

const VERSION: u8 = 1;
/// Name of the format, for messages.
pub(crate) const WHAT: &str = "map node";

/// Kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapNodeKind {
    /// A leaf of the map.
    Leaf,
    /// An inner node of the map.
    Inner,
    /// A leaf of the liveness tree.
    LivenessLeaf,
    /// An inner node of the liveness tree.
    LivenessInner,
    /// A node of the chain of dead-pending subtrees.
    Dead,
}

impl MapNodeKind {
    const ALL: [Self; 5] =
        [Self::Leaf, Self::Inner, Self::LivenessLeaf, Self::LivenessInner, Self::Dead];

    /// First byte of a node of this kind. 5 to 8 are reserved.
    fn byte(self) -> u8 {
        match self {
            Self::Leaf => 1,
            Self::Inner => 2,
            Self::LivenessLeaf => 3,
            Self::LivenessInner => 4,
            Self::Dead => 9,
        }
    }

    /// The kind that a node's bytes claim.
    pub fn of(bytes: &[u8]) -> Result<Self, FormatError> {
        let byte = bytes.first().copied().unwrap_or(0);
        Self::ALL
            .into_iter()
            .find(|kind| kind.byte() == byte)
            .ok_or(FormatError::Newer { what: WHAT, version: u32::from(byte) })
    }

    /// Name of the kind, for messages.
    pub fn what(self) -> &'static str {
        match self {
            Self::Leaf | Self::Inner => WHAT,
            Self::LivenessLeaf => "liveness leaf",
            Self::LivenessInner => "liveness inner node",
            Self::Dead => "dead-pending node",
        }
    }

    /// True for nodes of the map.
    pub fn is_map(self) -> bool {
        matches!(self, Self::Leaf | Self::Inner)
    }
}

/// The fixed fields of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapNodeHead {
    pub(super) kind: MapNodeKind,
    pub(super) level: u8,
    pub(super) first_key: u64,
    pub(super) live: u64,
    pub(super) streams: u16,
    pub(super) entries: u16,
}

impl MapNodeHead {
    /// Number of entries.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// The level: 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The kind.
    pub fn kind(&self) -> MapNodeKind {
        self.kind
    }

    /// Reads the fixed fields of a node of any kind.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        read_head(bytes)
    }
}

/// Writes the header that all kinds of node share.
pub(super) fn put_head(out: &mut BytesMut, head: &MapNodeHead, birth: u64, len: usize) {
    out.put_u8(head.kind.byte());
    out.put_u8(head.level);
    out.put_u8(VERSION);
    out.put_u8(0);
    out.put_u32_le(0);
    out.put_u64_le(head.first_key);
    out.put_u64_le(birth);
    out.put_u64_le(head.live);
    out.put_u16_le(head.streams);
    out.put_u16_le(head.entries);
    out.put_u32_le(len as u32);
}

/// Reads the header that all kinds of node share.
pub(super) fn read_head(bytes: &[u8]) -> Result<MapNodeHead, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    let (_, level, version, codec) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let kind = MapNodeKind::of(bytes)?;
    if version > VERSION || codec != 0 {
        return Err(FormatError::Newer { what: WHAT, version: u32::from(version) });
    }
    if reader.u32()? != 0 {
        return Err(FormatError::invalid(WHAT, "it is encrypted"));
    }
    let first_key = reader.u64()?;
    reader.u64()?;
    let (live, streams, entries, len) =
        (reader.u64()?, reader.u16()?, reader.u16()?, reader.u32()?);
    if len as usize != bytes.len() {
        return Err(FormatError::Truncated { what: WHAT });
    }
    Ok(MapNodeHead { kind, level, first_key, live, streams, entries })
}

/// Wraps the encoded body of a node without a stream table in a header.
pub(crate) fn wrap(
    kind: MapNodeKind,
    level: u8,
    birth: u64,
    live: u64,
    entries: u16,
    body: &[u8],
) -> Bytes {
    let head = MapNodeHead { kind, level, first_key: 0, live, streams: 0, entries };
    let len = MAP_NODE_HEAD + body.len();
    let mut out = BytesMut::with_capacity(len);
    put_head(&mut out, &head, birth, len);
    out.put_slice(body);
    out.freeze()
}

/// Checks a node's kind, and gives its head and its body.
pub(crate) fn unwrap(bytes: &[u8], kind: MapNodeKind) -> Result<(MapNodeHead, &[u8]), FormatError> {
    let head = read_head(bytes)?;
    if head.kind != kind {
        return Err(FormatError::BadMagic { what: kind.what() });
    }
    Ok((head, &bytes[MAP_NODE_HEAD..]))
}
