//! A root: everything that a snapshot is.

use crate::node::{NODE_PTR, NodePtr};
use crate::position::{Position, SegmentKey};
use crate::size::BlockSize;
use crate::wire::{FormatError, Reader, SectionWriter, Sections};
use crate::{id::StreamId, position::Number};
use bytes::{BufMut, Bytes, BytesMut};

const WHAT: &str = "root";
const KNOWN: &[u16] = &[1, 2, 3, 4, 5, 6, 7, 8];

/// A page of the liveness tree: the segments from `first` on, up to the next page's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRef {
    /// The first segment that the page may list.
    pub first: SegmentKey,
    /// Where the page is.
    pub ptr: NodePtr,
}

/// A map's top node, size, block size and liveness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The volume's size, bytes.
    pub size_bytes: u64,
    /// The block size.
    pub block: BlockSize,
    /// The top node; none if nothing is mapped.
    pub top: Option<NodePtr>,
    /// The epoch that wrote it.
    pub birth: u64,
    /// The pages of the liveness tree, in order.
    pub liveness: Vec<PageRef>,
    /// Subtrees that were dropped and whose segments liveness still counts.
    pub dead_pending: Vec<NodePtr>,
    /// The volume's true name.
    pub name: String,
}

impl Root {
    /// The root of a volume that holds nothing.
    pub fn empty(size_bytes: u64, block: BlockSize, name: &str) -> Self {
        Self {
            size_bytes,
            block,
            top: None,
            birth: 0,
            liveness: Vec::new(),
            dead_pending: Vec::new(),
            name: name.to_owned(),
        }
    }

    /// How many blocks are mapped.
    pub fn live_blocks(&self) -> u64 {
        self.top.map_or(0, |top| top.live)
    }

    /// The encoded root.
    pub fn encode(&self) -> Bytes {
        let mut top = BytesMut::new();
        if let Some(ptr) = &self.top {
            ptr.encode(&mut top);
        }
        let mut pages = BytesMut::new();
        for page in &self.liveness {
            pages.put_slice(&page.first.stream.0);
            pages.put_u64_le(page.first.number.0);
            page.ptr.encode(&mut pages);
        }
        let mut dead = BytesMut::new();
        self.dead_pending.iter().for_each(|ptr| ptr.encode(&mut dead));
        SectionWriter::new()
            .put_u64(1, self.size_bytes)
            .put(2, &[self.block.shift()])
            .put_some(3, self.top.map(|_| top))
            .put_u64(4, self.live_blocks())
            .put_u64(5, self.birth)
            .put(6, &pages)
            .put(7, &dead)
            .put(8, self.name.as_bytes())
            .finish()
    }

    /// Reads a root.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = Sections::parse(WHAT, bytes, KNOWN)?;
        let shift = sections.need(2)?.u8()?;
        let block =
            BlockSize::from_shift(shift).map_err(|e| FormatError::invalid(WHAT, e.to_string()))?;
        let top = match sections.get(3) {
            Some(bytes) => Some(NodePtr::decode(&mut Reader::new(WHAT, bytes))?),
            None => None,
        };
        let mut pages = sections.need(6)?;
        let mut liveness = Vec::new();
        while pages.remaining() > 0 {
            let stream = StreamId(pages.array()?);
            let first = SegmentKey { stream, number: Number(pages.u64()?) };
            liveness.push(PageRef { first, ptr: NodePtr::decode(&mut pages)? });
        }
        let mut dead = sections.need(7)?;
        let mut dead_pending = Vec::with_capacity(dead.remaining() / NODE_PTR);
        while dead.remaining() > 0 {
            dead_pending.push(NodePtr::decode(&mut dead)?);
        }
        Ok(Self {
            size_bytes: sections.need(1)?.u64()?,
            block,
            top,
            birth: sections.need(5)?.u64()?,
            liveness,
            dead_pending,
            name: sections.need(8)?.text()?,
        })
    }
}

/// A root, where it stands, and how far to roll forward from it: a readable point of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The root.
    pub root: Root,
    /// The place that the root holds.
    pub at: Position,
    /// The last segment to apply on top; equal to `at` when there is none.
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
