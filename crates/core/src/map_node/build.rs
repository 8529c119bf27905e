//! Making map nodes.

use bytes::{BufMut, Bytes, BytesMut};

use super::head::{MAP_NODE_HEAD, MapNodeHead, MapNodeKind, put_head};
use super::ptr::MapNodePtr;
use super::shape::{ENTRY_DATA, ENTRY_REMOTE, INNER_ENTRY, LEAF_ENTRY};
use crate::entry::BlockEntry;
use crate::id::StreamId;
use crate::wire::put_u48;

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
