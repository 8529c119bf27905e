//! A root: all that a state is.

use crate::dead::DeadPending;
use crate::map_node::{MAP_NODE_PTR, MapNodePtr};
use crate::name::NAME_BYTES_MAX;
use crate::overlay::Overlay;
use crate::position::Position;
use crate::size::BlockSize;
use crate::wire::{FormatError, Reader, SECTION_HEAD, SectionWriter, Sections};
use bytes::{BufMut, Bytes, BytesMut};

const WHAT: &str = "root";
const KNOWN: &[u16] = &[1, 2, 3, 4, 5, 6, 7, 8, 12];

/// The longest root, bytes. Its map, its liveness and its dead-pending may be of any size: the root
/// only points to them.
pub const ROOT_BYTES_MAX: usize =
    9 * SECTION_HEAD + 4 * 8 + 1 + 2 * MAP_NODE_PTR + DeadPending::LEN + NAME_BYTES_MAX;

/// A map's top node, size, block size and liveness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The volume's size, bytes.
    pub size_bytes: u64,
    /// The block size.
    pub block: BlockSize,
    /// The top node; none if nothing is mapped.
    pub top: Option<MapNodePtr>,
    /// Number of checkpoints that led to this root, those of its ancestors included. Its new nodes
    /// bear it. It rises with each checkpoint of one history, so a diff since a birth may skip
    /// older nodes.
    pub birth: u64,
    /// The top of the liveness tree; none if nothing is referenced.
    pub liveness: Option<MapNodePtr>,
    /// Subtrees that the root no longer maps and whose references liveness still counts.
    pub dead_pending: Option<DeadPending>,
    /// The volume's true name.
    pub name: String,
}

impl Root {
    /// The root of an empty volume.
    pub fn empty(size_bytes: u64, block: BlockSize, name: &str) -> Self {
        Self {
            size_bytes,
            block,
            top: None,
            birth: 0,
            liveness: None,
            dead_pending: None,
            name: name.to_owned(),
        }
    }

    /// Number of mapped blocks.
    pub fn live_blocks(&self) -> u64 {
        self.top.map_or(0, |top| top.live)
    }

    /// Bytes of all segments and nodes that it references.
    pub fn stored_bytes(&self) -> u64 {
        self.liveness.map_or(0, |top| top.live)
    }

    /// Upper bound of the blocks that a ref would hold beyond its content. The ref would name this
    /// root, and the segments that made the `changes` since, oldest first.
    pub fn garbage_max<'a>(&self, changes: impl Iterator<Item = &'a Overlay>) -> u64 {
        let dropped = self.dead_pending.map_or(0, |dead| dead.blocks);
        // A block that one change sets and a later one covers is dead, too.
        let (mut dead, mut mapped) = (dropped, self.live_blocks());
        for change in changes {
            dead += change.overwritten() + change.covered_max().min(mapped);
            mapped += change.len() as u64;
        }
        dead
    }

    /// The encoded root.
    pub fn encode(&self) -> Bytes {
        let pointer = |ptr: MapNodePtr| {
            let mut out = BytesMut::with_capacity(MAP_NODE_PTR);
            ptr.encode(&mut out);
            out
        };
        SectionWriter::new()
            .put_u64(1, self.size_bytes)
            .put(2, &[self.block.shift()])
            .put_some(3, self.top.map(pointer))
            .put_u64(4, self.live_blocks())
            .put_u64(5, self.birth)
            .put_some(6, self.liveness.map(pointer))
            .put_some(7, self.dead_pending.map(|dead| dead.encode()))
            .put(8, self.name.as_bytes())
            .put_u64(12, self.stored_bytes())
            .finish()
    }

    /// Reads a root.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = Sections::parse(WHAT, bytes, KNOWN)?;
        let shift = sections.need(2)?.u8()?;
        let block =
            BlockSize::from_shift(shift).map_err(|e| FormatError::invalid(WHAT, e.to_string()))?;
        let pointer = |tag: u16| -> Result<Option<MapNodePtr>, FormatError> {
            let bytes = sections.get(tag);
            bytes.map(|bytes| MapNodePtr::decode(&mut Reader::new(WHAT, bytes))).transpose()
        };
        Ok(Self {
            size_bytes: sections.need(1)?.u64()?,
            block,
            top: pointer(3)?,
            birth: sections.need(5)?.u64()?,
            liveness: pointer(6)?,
            dead_pending: sections.get(7).map(DeadPending::decode).transpose()?,
            name: sections.need(8)?.text()?,
        })
    }
}

/// A readable state of a volume: a root, its position, and the end of the roll-forward from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The root.
    pub root: Root,
    /// The position of the root.
    pub at: Position,
    /// The last segment to apply on top; equal to `at` if none.
    pub end: Position,
}

impl Base {
    /// A root that needs no rolling forward.
    pub fn exact(root: Root, at: Position) -> Self {
        Self { root, at, end: at }
    }

    /// The encoded base: both positions, then the root.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.at.encode(&mut out);
        self.end.encode(&mut out);
        out.put_slice(&self.root.encode());
        out.freeze()
    }

    /// Reads a base.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new("base", bytes);
        let at = Position::decode(&mut reader)?;
        let end = Position::decode(&mut reader)?;
        let root = Root::decode(reader.bytes(reader.remaining())?)?;
        Ok(Self { root, at, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::BlockEntry;

    fn written(blocks: std::ops::Range<u64>) -> Overlay {
        let segment = crate::position::SegmentKey::default();
        let mut overlay = Overlay::new();
        for index in blocks {
            overlay.set(index, &BlockEntry { segment, offset: 0, len: 1, slot: 0, source: 0 });
        }
        overlay
    }

    #[test]
    fn garbage_is_what_is_overwritten_or_trimmed() {
        let empty = Root::empty(1 << 30, BlockSize::default(), "disk");
        let garbage = |changes: &[Overlay]| empty.garbage_max(changes.iter());
        assert_eq!(garbage(&[]), 0);
        assert_eq!(garbage(&[written(0..100)]), 0, "what is new replaces nothing");
        let mut trimmed = written(0..100);
        trimmed.zero(0..90);
        assert_eq!(garbage(&[trimmed]), 90);
        let mut trim = Overlay::new();
        trim.zero(0..1 << 40);
        assert_eq!(garbage(std::slice::from_ref(&trim)), 0, "nothing is there to be trimmed");
        assert_eq!(garbage(&[written(0..100), trim]), 100);
        assert_eq!(garbage(&[written(0..100), written(50..60)]), 10);
    }
}
