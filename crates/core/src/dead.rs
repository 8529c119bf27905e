//! Dead-pending: subtrees that a root no longer maps and whose references liveness still counts.
//!
//! A trim drops a few subtrees for each range, and there may be millions of ranges. So subtrees
//! stand in a chain of nodes, newest first, and a root names the first. Liveness counts the chain's
//! own nodes like those of the map.

use crate::map_node::{MAP_NODE_HEAD, MAP_NODE_PTR, MapNodeKind, MapNodePtr, unwrap, wrap};
use crate::wire::{FormatError, Reader};
use bytes::{BufMut, Bytes, BytesMut};

/// Subtrees in one node of the chain, at most.
pub const DEAD_PTRS_MAX: usize = 1024;
/// The longest node of the chain, bytes.
pub const DEAD_BYTES_MAX: usize = MAP_NODE_HEAD + MAP_NODE_PTR * (1 + DEAD_PTRS_MAX);

const WHAT: &str = "dead-pending node";

/// The first node of a root's chain, and totals of the whole chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadPending {
    /// The first node.
    pub first: MapNodePtr,
    /// Subtrees in the whole chain.
    pub subtrees: u64,
    /// Blocks that they map.
    pub blocks: u64,
}

impl DeadPending {
    /// Bytes of the encoded form.
    pub const LEN: usize = MAP_NODE_PTR + 16;

    /// The encoded form.
    pub fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(Self::LEN);
        self.first.encode(&mut out);
        out.put_u64_le(self.subtrees);
        out.put_u64_le(self.blocks);
        out
    }

    /// Decodes the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("dead-pending", bytes);
        let first = MapNodePtr::decode(&mut reader)?;
        Ok(Self { first, subtrees: reader.u64()?, blocks: reader.u64()? })
    }
}

/// One node of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadNode {
    /// The next node, with older subtrees.
    pub next: Option<MapNodePtr>,
    /// Subtrees, the newest last.
    pub subtrees: Vec<MapNodePtr>,
}

impl DeadNode {
    /// The encoded node.
    pub fn encode(&self, birth: u64) -> Bytes {
        let mut body = BytesMut::with_capacity(MAP_NODE_PTR * (1 + self.subtrees.len()));
        self.next.iter().chain(&self.subtrees).for_each(|ptr| ptr.encode(&mut body));
        let blocks = self.subtrees.iter().map(|ptr| ptr.live).sum();
        wrap(MapNodeKind::Dead, 0, birth, blocks, self.subtrees.len() as u16, &body)
    }

    /// Reads a node.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (head, body) = unwrap(bytes, MapNodeKind::Dead)?;
        let mut reader = Reader::new(WHAT, body);
        let has_next = body.len() > MAP_NODE_PTR * usize::from(head.entries());
        let next = has_next.then(|| MapNodePtr::decode(&mut reader)).transpose()?;
        let subtrees = (0..head.entries())
            .map(|_| MapNodePtr::decode(&mut reader))
            .collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        Ok(Self { next, subtrees })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::StreamId;
    use crate::map_node::bounds::node_bytes_max;
    use crate::position::{Number, SegmentKey};

    #[test]
    fn nodes_read_back_at_their_bound() {
        let ptr = |n: u64| MapNodePtr {
            level: 1,
            slot: 2,
            len: 3,
            segment: SegmentKey { stream: StreamId([4; 16]), number: Number::map_node(n) },
            offset: 5,
            checksum: [6; 16],
            live: n,
        };
        for (next, count) in [(None, 1), (Some(ptr(9)), 2), (Some(ptr(9)), DEAD_PTRS_MAX)] {
            let made = DeadNode { next, subtrees: (0..count as u64).map(ptr).collect() };
            let bytes = made.encode(7);
            assert!(bytes.len() <= node_bytes_max(MapNodeKind::Dead));
            assert_eq!(DeadNode::decode(&bytes), Ok(made));
        }
        let pending = DeadPending { first: ptr(1), subtrees: 2, blocks: 3 };
        assert_eq!(DeadPending::decode(&pending.encode()), Ok(pending));
    }
}
