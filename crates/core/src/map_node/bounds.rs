//! The longest node of each kind.

use super::head::{MAP_NODE_HEAD, MapNodeKind};
use super::shape::{INNER_ENTRY, INNER_SHIFT, LEAF_ENTRY, LEAF_SHIFT};
use crate::{dead, liveness};

/// The longest node of a kind that a writer makes and a reader accepts, bytes.
pub fn node_bytes_max(kind: MapNodeKind) -> usize {
    let of_entries = |n: u32, entry: usize| MAP_NODE_HEAD + (16 + entry) * (1 << n);
    match kind {
        MapNodeKind::Leaf => of_entries(LEAF_SHIFT, LEAF_ENTRY),
        MapNodeKind::Inner => of_entries(INNER_SHIFT, INNER_ENTRY),
        MapNodeKind::LivenessLeaf => liveness::LEAF_BYTES_MAX,
        MapNodeKind::LivenessInner => MAP_NODE_HEAD + liveness::CHILD * liveness::FANOUT_MAX,
        MapNodeKind::Dead => dead::DEAD_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MapNode, MapNodeBuilder, MapNodePtr};
    use super::*;
    use crate::entry::BlockEntry;
    use crate::id::StreamId;
    use crate::position::{Number, SegmentKey};

    #[test]
    fn the_longest_nodes_are_as_long_as_readers_believe() {
        let streams = |n: u8| StreamId([n; 16]);
        let entries: Vec<_> = (0..128u8)
            .map(|n| {
                let segment = SegmentKey { stream: streams(n), number: Number(1) };
                (n, BlockEntry { segment, offset: 0, len: 1, slot: 1, source: 0 })
            })
            .collect();
        let leaf = MapNodeBuilder::new(1).leaf(0, &entries);
        assert_eq!(leaf.len(), node_bytes_max(MapNodeKind::Leaf));
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
        assert_eq!(inner.len(), node_bytes_max(MapNodeKind::Inner));
        assert_eq!(MapNode::parse(inner).expect("a node").children().collect::<Vec<_>>(), children);
    }
}
