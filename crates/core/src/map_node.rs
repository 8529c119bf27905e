//! Map nodes: leaves of 128 blocks, inner nodes of 64 children, and the pointers to them.
//!
//! [`MapNode`] checks the bytes of a node once and looks entries up in place. So a cached node
//! takes as much memory as its bytes at rest. Nodes never change; [`MapNodeBuilder`] makes new
//! ones.

pub mod bounds;
mod build;
mod head;
mod ptr;
mod shape;

use bytes::Bytes;

pub use build::MapNodeBuilder;
pub use head::{MAP_NODE_HEAD, MapNodeHead, MapNodeKind};
pub(crate) use head::{unwrap, wrap};
pub use ptr::{MAP_NODE_PTR, MapNodePtr};
pub use shape::{
    INNER_ENTRY, INNER_SHIFT, LEAF_ENTRY, LEAF_SHIFT, LEVEL_MAX, level_for, place_of, span_shift,
};

use crate::entry::BlockEntry;
use crate::id::StreamId;
use crate::position::{Number, SegmentKey};
use crate::wire::FormatError;
use head::{WHAT, read_head};
use shape::ENTRY_DATA;

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

#[cfg(test)]
mod tests {
    use super::shape::ENTRY_REMOTE;
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
