//! Map nodes: leaves of 128 blocks, inner nodes of 64 children, and the pointers to them.
//!
//! [`MapNode`] checks the bytes of a node once and looks entries up in place. So a cached node
//! takes as much memory as its bytes at rest. Nodes never change; [`MapNodeBuilder`] makes new
//! ones.

use crate::entry::BlockEntry;
use crate::id::StreamId;
use crate::position::{Number, SegmentKey};
use crate::wire::{FormatError, Hash16, Reader, hash16, put_u48};
use crate::{dead, liveness};
use bytes::{BufMut, Bytes, BytesMut};

/// Binary logarithm of the blocks of a leaf.
pub const LEAF_SHIFT: u32 = 7;
/// Binary logarithm of the children of an inner node.
pub const INNER_SHIFT: u32 = 6;
/// The highest level that a 64-bit block index needs.
pub const LEVEL_MAX: u8 = 10;
/// Bytes of the header of a node.
pub const MAP_NODE_HEAD: usize = 40;
/// Bytes of an entry of a leaf.
pub const LEAF_ENTRY: usize = 20;
/// Bytes of an entry of an inner node.
pub const INNER_ENTRY: usize = 44;
/// Bytes of a pointer that stands alone.
pub const MAP_NODE_PTR: usize = 60;

const VERSION: u8 = 1;
const ENTRY_DATA: u8 = 1;
/// Reserved: this version neither reads nor writes such an entry.
const ENTRY_REMOTE: u8 = 2;
const WHAT: &str = "map node";

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

    /// The longest node of this kind that a writer makes and a reader accepts, bytes.
    pub fn bytes_max(self) -> usize {
        let of_entries = |n: u32, entry: usize| MAP_NODE_HEAD + (16 + entry) * (1 << n);
        match self {
            Self::Leaf => of_entries(LEAF_SHIFT, LEAF_ENTRY),
            Self::Inner => of_entries(INNER_SHIFT, INNER_ENTRY),
            Self::LivenessLeaf => liveness::LEAF_BYTES_MAX,
            Self::LivenessInner => MAP_NODE_HEAD + liveness::CHILD * liveness::FANOUT_MAX,
            Self::Dead => dead::DEAD_BYTES_MAX,
        }
    }

    /// True for nodes of the map.
    pub fn is_map(self) -> bool {
        matches!(self, Self::Leaf | Self::Inner)
    }
}

/// Number of blocks that a node of this level covers, as a binary logarithm.
pub fn span_shift(level: u8) -> u32 {
    LEAF_SHIFT + INNER_SHIFT * u32::from(level)
}

/// The lowest level whose one node covers `blocks` blocks.
pub fn level_for(blocks: u64) -> u8 {
    (0..LEVEL_MAX)
        .find(|&level| span_shift(level) >= 64 || blocks <= 1 << span_shift(level))
        .unwrap_or(LEVEL_MAX)
}

/// Points to a node: its place, and the hash of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapNodePtr {
    /// The node's level.
    pub level: u8,
    /// Its slot in the segment.
    pub slot: u16,
    /// Its length, bytes.
    pub len: u32,
    /// The segment.
    pub segment: SegmentKey,
    /// Offset in the segment, bytes.
    pub offset: u32,
    /// hash16 of its bytes.
    pub checksum: Hash16,
    /// Number of blocks mapped below it; in the liveness tree, of stored bytes.
    pub live: u64,
}

impl MapNodePtr {
    /// Appends the encoded pointer.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.level);
        out.put_u8(0);
        out.put_u16_le(self.slot);
        out.put_u32_le(self.len);
        out.put_slice(&self.segment.stream.0);
        out.put_u64_le(self.segment.number.0);
        out.put_u32_le(self.offset);
        out.put_slice(&self.checksum);
        out.put_u64_le(self.live);
    }

    /// Reads a pointer.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let level = reader.u8()?;
        reader.u8()?;
        let (slot, len) = (reader.u16()?, reader.u32()?);
        let segment =
            SegmentKey { stream: StreamId(reader.array()?), number: Number(reader.u64()?) };
        let (offset, checksum, live) = (reader.u32()?, reader.array()?, reader.u64()?);
        Ok(Self { level, slot, len, segment, offset, checksum, live })
    }

    /// Checks bytes that were fetched for this pointer.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), FormatError> {
        if bytes.len() != self.len as usize || hash16(bytes) != self.checksum {
            return Err(FormatError::BadChecksum { what: WHAT });
        }
        Ok(())
    }
}

/// The fixed fields of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapNodeHead {
    kind: MapNodeKind,
    level: u8,
    first_key: u64,
    live: u64,
    streams: u16,
    entries: u16,
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
fn put_head(out: &mut BytesMut, head: &MapNodeHead, birth: u64, len: usize) {
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

fn read_head(bytes: &[u8]) -> Result<MapNodeHead, FormatError> {
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

/// A map node as it was read, its structure checked.
#[derive(Debug, Clone)]
pub struct MapNode {
    bytes: Bytes,
    head: MapNodeHead,
    entries_at: usize,
}

impl MapNode {
    /// Checks the structure of a node's bytes. The checksum is checked by [`MapNodePtr::verify`].
    pub fn parse(bytes: Bytes) -> Result<Self, FormatError> {
        let head = read_head(&bytes)?;
        let entry = match head.kind {
            MapNodeKind::Leaf if head.level == 0 => LEAF_ENTRY,
            MapNodeKind::Inner if (1..=LEVEL_MAX).contains(&head.level) => INNER_ENTRY,
            _ => return Err(FormatError::BadMagic { what: WHAT }),
        };
        let entries_at = MAP_NODE_HEAD + 16 * usize::from(head.streams);
        if bytes.len() != entries_at + entry * usize::from(head.entries) {
            return Err(FormatError::Truncated { what: WHAT });
        }
        let node = Self { bytes, head, entries_at };
        node.check_entries(entry)?;
        Ok(node)
    }

    fn check_entries(&self, entry: usize) -> Result<(), FormatError> {
        let mut before = None;
        for raw in self.bytes[self.entries_at..].chunks_exact(entry) {
            let (place, stream) = if self.is_leaf() { (raw[0], raw[2]) } else { (raw[0], raw[1]) };
            if before.is_some_and(|b| b >= place) || u16::from(stream) >= self.head.streams {
                return Err(FormatError::invalid(WHAT, "its entries are out of order"));
            }
            if self.is_leaf() && raw[1] != ENTRY_DATA {
                return Err(FormatError::Newer { what: WHAT, version: u32::from(raw[1]) });
            }
            before = Some(place);
        }
        Ok(())
    }

    /// True for a leaf.
    pub fn is_leaf(&self) -> bool {
        self.head.kind == MapNodeKind::Leaf
    }

    /// The level: 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.head.level
    }

    /// The first block that this node could map.
    pub fn first_key(&self) -> u64 {
        self.head.first_key
    }

    /// Bytes in memory.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn entry_len(&self) -> usize {
        if self.is_leaf() { LEAF_ENTRY } else { INNER_ENTRY }
    }

    fn raw(&self, i: usize) -> &[u8] {
        let at = self.entries_at + i * self.entry_len();
        &self.bytes[at..at + self.entry_len()]
    }

    fn stream(&self, place: u8) -> StreamId {
        let at = MAP_NODE_HEAD + 16 * usize::from(place);
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[at..at + 16]);
        StreamId(id)
    }

    fn find(&self, place: u8) -> Option<usize> {
        let (mut low, mut high) = (0, usize::from(self.head.entries));
        while low < high {
            let mid = (low + high) / 2;
            match self.bytes[self.entries_at + mid * self.entry_len()].cmp(&place) {
                std::cmp::Ordering::Less => low = mid + 1,
                std::cmp::Ordering::Greater => high = mid,
                std::cmp::Ordering::Equal => return Some(mid),
            }
        }
        None
    }

    /// The place within this node of a block index.
    pub fn place_of(&self, index: u64) -> u8 {
        place_of(self.head.level, index)
    }

    /// The entry at a place of a leaf.
    pub fn leaf_entry(&self, place: u8) -> Option<BlockEntry> {
        self.find(place).map(|i| self.decode_leaf(i).1)
    }

    /// The child at a place of an inner node.
    pub fn child(&self, place: u8) -> Option<MapNodePtr> {
        self.find(place).map(|i| self.decode_child(i).1)
    }

    /// All entries of a leaf, by place.
    pub fn leaf_entries(&self) -> impl Iterator<Item = (u8, BlockEntry)> + '_ {
        let n = if self.is_leaf() { usize::from(self.head.entries) } else { 0 };
        (0..n).map(|i| self.decode_leaf(i))
    }

    /// All children of an inner node, by place.
    pub fn children(&self) -> impl Iterator<Item = (u8, MapNodePtr)> + '_ {
        let n = if self.is_leaf() { 0 } else { usize::from(self.head.entries) };
        (0..n).map(|i| self.decode_child(i))
    }

    fn decode_leaf(&self, i: usize) -> (u8, BlockEntry) {
        let raw = self.raw(i);
        let segment = SegmentKey { stream: self.stream(raw[2]), number: Number(le(&raw[4..10])) };
        let entry = BlockEntry {
            segment,
            offset: le(&raw[10..14]) as u32,
            len: le(&raw[14..17]) as u32,
            slot: le(&raw[18..20]) as u16,
            source: raw[3],
        };
        (raw[0], entry)
    }

    fn decode_child(&self, i: usize) -> (u8, MapNodePtr) {
        let raw = self.raw(i);
        let mut checksum = [0; 16];
        checksum.copy_from_slice(&raw[20..36]);
        let ptr = MapNodePtr {
            level: self.head.level - 1,
            slot: le(&raw[2..4]) as u16,
            len: le(&raw[4..8]) as u32,
            segment: SegmentKey { stream: self.stream(raw[1]), number: Number(le(&raw[8..14])) },
            offset: le(&raw[16..20]) as u32,
            checksum,
            live: le(&raw[36..44]),
        };
        (raw[0], ptr)
    }
}

/// Little-endian integer of up to eight bytes.
fn le(bytes: &[u8]) -> u64 {
    let mut full = [0; 8];
    full[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(full)
}

/// The place of a block index within a node of this level.
pub fn place_of(level: u8, index: u64) -> u8 {
    if level == 0 {
        return (index & ((1 << LEAF_SHIFT) - 1)) as u8;
    }
    (index.checked_shr(span_shift(level - 1)).unwrap_or(0) & ((1 << INNER_SHIFT) - 1)) as u8
}

/// Builds nodes.
#[derive(Debug)]
pub struct MapNodeBuilder {
    birth: u64,
}

impl MapNodeBuilder {
    /// Makes a builder of nodes with this birth.
    pub fn new(birth: u64) -> Self {
        Self { birth }
    }

    /// Builds a leaf of at least one entry; entries are in ascending order of place.
    pub fn leaf(&self, first_key: u64, entries: &[(u8, BlockEntry)]) -> Bytes {
        let streams = StreamTable::of(entries.iter().map(|(_, e)| e.segment.stream));
        let live = entries.len() as u64;
        let head = MapNodeHead {
            kind: MapNodeKind::Leaf,
            level: 0,
            first_key,
            live,
            streams: streams.0.len() as u16,
            entries: entries.len() as u16,
        };
        let mut out = self.begin(&head, &streams, LEAF_ENTRY);
        for (place, entry) in entries {
            out.put_u8(*place);
            out.put_u8(if entry.is_here() { ENTRY_DATA } else { ENTRY_REMOTE });
            out.put_u8(streams.place(entry.segment.stream));
            out.put_u8(entry.source);
            put_u48(&mut out, entry.segment.number.0);
            out.put_u32_le(entry.offset);
            out.put_slice(&entry.len.to_le_bytes()[..3]);
            out.put_u8(0);
            out.put_u16_le(entry.slot);
        }
        out.freeze()
    }

    /// Builds an inner node of at least one child; children are in ascending order of place.
    pub fn inner(&self, level: u8, first_key: u64, children: &[(u8, MapNodePtr)]) -> Bytes {
        let streams = StreamTable::of(children.iter().map(|(_, c)| c.segment.stream));
        let live = children.iter().map(|(_, c)| c.live).sum();
        let head = MapNodeHead {
            kind: MapNodeKind::Inner,
            level,
            first_key,
            live,
            streams: streams.0.len() as u16,
            entries: children.len() as u16,
        };
        let mut out = self.begin(&head, &streams, INNER_ENTRY);
        for (place, child) in children {
            out.put_u8(*place);
            out.put_u8(streams.place(child.segment.stream));
            out.put_u16_le(child.slot);
            out.put_u32_le(child.len);
            put_u48(&mut out, child.segment.number.0);
            out.put_u16_le(0);
            out.put_u32_le(child.offset);
            out.put_slice(&child.checksum);
            out.put_u64_le(child.live);
        }
        out.freeze()
    }

    fn begin(&self, head: &MapNodeHead, streams: &StreamTable, entry: usize) -> BytesMut {
        let len = MAP_NODE_HEAD + 16 * streams.0.len() + entry * usize::from(head.entries);
        let mut out = BytesMut::with_capacity(len);
        put_head(&mut out, head, self.birth, len);
        for stream in &streams.0 {
            out.put_slice(&stream.0);
        }
        out
    }
}

/// The distinct streams of a node; at most 128, since each entry brings one at most.
struct StreamTable(Vec<StreamId>);

impl StreamTable {
    fn of(streams: impl Iterator<Item = StreamId>) -> Self {
        let mut table: Vec<StreamId> = Vec::new();
        for stream in streams {
            if !table.contains(&stream) {
                table.push(stream);
            }
        }
        Self(table)
    }

    fn place(&self, stream: StreamId) -> u8 {
        self.0.iter().position(|s| *s == stream).unwrap_or(0) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> BlockEntry {
        let segment = SegmentKey { stream: StreamId([(n % 3) as u8; 16]), number: Number(n + 1) };
        BlockEntry { segment, offset: n as u32 * 4096, len: 4184, slot: n as u16, source: 0 }
    }

    #[test]
    fn leaves_read_back() {
        let entries: Vec<_> = (0..128u64).step_by(3).map(|n| (n as u8, entry(n))).collect();
        let node = MapNode::parse(MapNodeBuilder::new(1).leaf(256, &entries)).expect("a leaf");
        assert_eq!(node.leaf_entries().collect::<Vec<_>>(), entries);
        assert_eq!(node.leaf_entry(3), Some(entry(3)));
        assert_eq!(node.leaf_entry(4), None);
    }

    #[test]
    fn inner_nodes_read_back() {
        let child = |n: u64| MapNodePtr {
            level: 2,
            slot: n as u16,
            len: 99,
            segment: entry(n).segment,
            offset: 5,
            checksum: [n as u8; 16],
            live: n,
        };
        let children: Vec<_> = (0..64u64).step_by(5).map(|n| (n as u8, child(n))).collect();
        let node = MapNode::parse(MapNodeBuilder::new(1).inner(3, 0, &children)).expect("a node");
        assert_eq!(node.children().collect::<Vec<_>>(), children);
        assert_eq!(node.child(5), Some(child(5)));
        assert_eq!(node.child(6), None);
    }

    #[test]
    fn levels_cover_every_size() {
        assert_eq!(level_for(1), 0);
        assert_eq!(level_for(128), 0);
        assert_eq!(level_for(129), 1);
        assert_eq!(level_for(1 << 38), 6);
        assert_eq!(level_for(1 << 48), 7);
        assert_eq!(place_of(0, 130), 2);
        assert_eq!(place_of(1, 130), 1);
    }

    #[test]
    fn the_longest_nodes_are_as_long_as_readers_believe() {
        let streams = |n: u8| StreamId([n; 16]);
        let entries: Vec<_> = (0..128u8)
            .map(|n| {
                let segment = SegmentKey { stream: streams(n), number: Number(1) };
                (n, BlockEntry { segment, ..entry(1) })
            })
            .collect();
        let leaf = MapNodeBuilder::new(1).leaf(0, &entries);
        assert_eq!(leaf.len(), MapNodeKind::Leaf.bytes_max());
        assert_eq!(
            MapNode::parse(leaf).expect("a leaf").leaf_entries().collect::<Vec<_>>(),
            entries
        );
        let children: Vec<_> = (0..64u8)
            .map(|n| {
                let segment = SegmentKey { stream: streams(n), number: Number::map_node(1) };
                let checksum = [n; 16];
                (n, MapNodePtr { level: 0, slot: 1, len: 2, segment, offset: 3, checksum, live: 4 })
            })
            .collect();
        let inner = MapNodeBuilder::new(1).inner(1, 0, &children);
        assert_eq!(inner.len(), MapNodeKind::Inner.bytes_max());
        assert_eq!(MapNode::parse(inner).expect("a node").children().collect::<Vec<_>>(), children);
    }

    /// A reader that knows no other buckets refuses a leaf with a block in another bucket.
    #[test]
    fn entries_that_are_elsewhere_are_newer() {
        let there = BlockEntry { source: 1, ..entry(2) };
        let leaf = MapNodeBuilder::new(1).leaf(0, &[(1, entry(1)), (2, there)]);
        let refused = MapNode::parse(leaf);
        let kind = u32::from(ENTRY_REMOTE);
        assert!(
            matches!(refused, Err(FormatError::Newer { version, .. }) if version == kind),
            "{refused:?}"
        );
    }

    #[test]
    fn malformed_nodes_are_refused() {
        let good = MapNodeBuilder::new(1).leaf(0, &[(1, entry(1)), (2, entry(2))]);
        for cut in 0..good.len() {
            assert!(MapNode::parse(good.slice(..cut)).is_err());
        }
        let mut unsorted = good.to_vec();
        let at = good.len() - 2 * LEAF_ENTRY;
        unsorted[at] = 7;
        assert!(MapNode::parse(unsorted.into()).is_err());
    }
}
