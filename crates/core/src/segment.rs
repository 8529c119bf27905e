//! Segments: immutable objects of frames or map nodes, behind a head that lists them.

use crate::entry::BlockEntry;
use crate::frame::{self, FrameEncoder, FramePlace};
use crate::id::{StreamId, VolumeId};
use crate::map_node::MapNodePtr;
use crate::ops::Op;
use crate::position::{Number, SegmentKey};
use crate::size::BlockSize;
use crate::wire::{FormatError, Hash16, Reader, Sections, hash16};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;

/// Bytes of the fixed part of a head.
pub const SEGMENT_HEAD: usize = 192;
/// Bytes of a frame table entry.
pub const FRAME_ENTRY: usize = 6;
/// Bytes of an extent table entry.
pub const EXTENT_ENTRY: usize = 12;
/// The most slots of a segment, so that a slot fits 16 bits.
pub const SLOTS_MAX: usize = 65_535;
/// The longest head that a reader accepts, bytes.
pub const HEAD_BYTES_MAX: usize = 16 << 20;

/// Length of the pieces that hold a segment's frames, bytes, about. A local bucket takes each piece
/// in one system call.
const PIECE_BYTES: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"SKRYSEGM";
const VERSION: u16 = 1;
const CHECKSUM: usize = 16;
const WHAT: &str = "segment";

/// Content of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// A batch of writes.
    Foreground,
    /// Blocks moved out of other segments.
    Rewritten,
    /// Nodes of maps.
    MapNodes,
}

/// Identity of a segment, and its predecessor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentId {
    /// Its content.
    pub kind: SegmentKind,
    /// The block size.
    pub block: BlockSize,
    /// Its volume.
    pub volume: VolumeId,
    /// Its name.
    pub key: SegmentKey,
    /// The epoch of its stream.
    pub epoch: u64,
    /// The hash of the head of the data segment before it in its stream.
    pub predecessor: Hash16,
    /// The first vseq in it.
    pub vseq_from: u64,
    /// The first vseq after it.
    pub vseq_to: u64,
    /// Makes two writers' segments differ.
    pub nonce: [u8; 16],
}

/// Consecutive blocks and their slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub index: u64,
    /// Its slot.
    pub slot: u16,
    /// Number of blocks, and of slots.
    pub count: u16,
}

/// The head of a segment, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHead {
    /// Identity of the segment.
    pub id: SegmentId,
    /// Bytes of the head.
    pub head_len: u32,
    /// Bytes of the object.
    pub object_len: u64,
    /// Operations besides writes of blocks.
    pub ops: Vec<Op>,
    /// Stored length and blocks of each frame.
    pub frames: Vec<(u32, u16)>,
    /// Places of the blocks.
    pub extents: Vec<Extent>,
    /// hash16 of the head; the next segment names it as its predecessor.
    pub hash: Hash16,
}

/// Result of reading a prefix of an object.
#[derive(Debug)]
pub enum HeadRead {
    /// The prefix held the whole head.
    Head(Box<SegmentHead>),
    /// The head needs this many bytes.
    Need(usize),
}

impl SegmentHead {
    /// Reads the head from the first bytes of a segment.
    pub fn parse(prefix: &[u8]) -> Result<HeadRead, FormatError> {
        let mut reader = Reader::new(WHAT, prefix);
        if reader.bytes(8)? != MAGIC {
            return Err(FormatError::BadMagic { what: WHAT });
        }
        let version = reader.u16()?;
        let (kind, shift, head_len) = (reader.u8()?, reader.u8()?, reader.u32()?);
        let total = head_len as usize;
        if !(SEGMENT_HEAD + CHECKSUM..=HEAD_BYTES_MAX).contains(&total) {
            return Err(FormatError::BadChecksum { what: WHAT });
        }
        if prefix.len() < total {
            return Ok(HeadRead::Need(total));
        }
        let hash = hash16(&prefix[..total - CHECKSUM]);
        if hash != prefix[total - CHECKSUM..total] {
            return Err(FormatError::BadChecksum { what: WHAT });
        }
        if version > VERSION {
            return Err(FormatError::Newer { what: WHAT, version: u32::from(version) });
        }
        let kind = match kind {
            0 => SegmentKind::Foreground,
            1 => SegmentKind::Rewritten,
            2 => SegmentKind::MapNodes,
            other => return Err(FormatError::Newer { what: WHAT, version: u32::from(other) }),
        };
        let block =
            BlockSize::from_shift(shift).map_err(|e| FormatError::invalid(WHAT, e.to_string()))?;
        let head = Self::parse_rest(kind, block, head_len, hash, &mut reader)?;
        Ok(HeadRead::Head(Box::new(head)))
    }

    fn parse_rest(
        kind: SegmentKind,
        block: BlockSize,
        head_len: u32,
        hash: Hash16,
        reader: &mut Reader<'_>,
    ) -> Result<Self, FormatError> {
        let object_len = reader.u64()?;
        let volume = VolumeId(reader.array()?);
        let key = SegmentKey { stream: StreamId(reader.array()?), number: Number(reader.u64()?) };
        let (epoch, predecessor) = (reader.u64()?, reader.array()?);
        let (vseq_from, vseq_to) = (reader.u64()?, reader.u64()?);
        let (_domain, key_id) = (reader.u32()?, reader.u32()?);
        if key_id != 0 {
            return Err(FormatError::Newer { what: "encrypted segment", version: key_id });
        }
        reader.bytes(32)?;
        let nonce = reader.array()?;
        let (ops_len, frame_count, extent_count) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let sections_len = reader.u32()?;
        reader.bytes(16)?;
        let ops = Op::decode_all(reader.bytes(ops_len as usize)?)?;
        let frames = parse_frames(reader, frame_count)?;
        let extents = parse_extents(reader, extent_count)?;
        // No section is known yet: a critical one makes the segment unreadable, others are ignored.
        Sections::parse(WHAT, reader.bytes(sections_len as usize)?, &[])?;
        let id =
            SegmentId { kind, block, volume, key, epoch, predecessor, vseq_from, vseq_to, nonce };
        let head = Self { id, head_len, object_len, ops, frames, extents, hash };
        head.check()?;
        Ok(head)
    }

    /// Checks that the tables agree with one another, which the checksum cannot tell.
    fn check(&self) -> Result<(), FormatError> {
        let invalid = |detail: &str| Err(FormatError::invalid(WHAT, detail));
        if self.id.vseq_to < self.id.vseq_from {
            return invalid("its sequence numbers run backwards");
        }
        if self.id.kind == SegmentKind::MapNodes {
            return Ok(());
        }
        let bytes: u64 = self.frames.iter().map(|(len, _)| u64::from(*len)).sum();
        if u64::from(self.head_len) + bytes != self.object_len {
            return invalid("its frames don't fill it");
        }
        let slots = self.slots();
        if self.extents.iter().any(|e| usize::from(e.slot) + usize::from(e.count) > slots) {
            return invalid("an extent names a slot that no frame has");
        }
        Ok(())
    }

    /// Number of slots of all frames.
    pub fn slots(&self) -> usize {
        self.frames.iter().map(|(_, blocks)| usize::from(*blocks)).sum()
    }

    /// Gives the map entries that this segment makes, by index.
    pub fn entries(&self) -> Vec<(u64, BlockEntry)> {
        let mut places = Vec::with_capacity(self.slots());
        let mut offset = self.head_len;
        for (len, blocks) in &self.frames {
            places.extend(std::iter::repeat_n((offset, *len), usize::from(*blocks)));
            offset = offset.wrapping_add(*len);
        }
        let mut entries = Vec::new();
        for extent in &self.extents {
            for i in 0..extent.count {
                let slot = extent.slot + i;
                let Some((offset, len)) = places.get(usize::from(slot)).copied() else { continue };
                let entry = BlockEntry { segment: self.id.key, offset, len, slot, source: 0 };
                entries.push((extent.index + u64::from(i), entry));
            }
        }
        entries
    }
}

fn parse_frames(reader: &mut Reader<'_>, count: u32) -> Result<Vec<(u32, u16)>, FormatError> {
    let mut table = Reader::new(WHAT, reader.bytes(FRAME_ENTRY * count as usize)?);
    (0..count).map(|_| Ok((table.u32()?, table.u16()?))).collect()
}

fn parse_extents(reader: &mut Reader<'_>, count: u32) -> Result<Vec<Extent>, FormatError> {
    let mut table = Reader::new(WHAT, reader.bytes(EXTENT_ENTRY * count as usize)?);
    (0..count)
        .map(|_| Ok(Extent { index: table.u64()?, slot: table.u16()?, count: table.u16()? }))
        .collect()
}

/// A segment ready to be put.
#[derive(Debug, Clone)]
pub struct BuiltSegment {
    /// Its name.
    pub key: SegmentKey,
    /// Its bytes: the head, then the rest in pieces. No frame spans two pieces.
    pub chunks: Vec<Bytes>,
    /// The length of each frame, bytes; none in a segment of nodes.
    pub frames: Vec<u32>,
    /// The hash of its head.
    pub hash: Hash16,
    /// The map entries that it makes, by index.
    pub entries: Vec<(u64, BlockEntry)>,
}

impl BuiltSegment {
    /// Length of the object, bytes.
    pub fn len_bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Gives the offset of each frame in the object, and its bytes.
    pub fn frame_bytes(&self) -> impl Iterator<Item = (u32, Bytes)> + '_ {
        let head = self.chunks.first().map_or(0, Bytes::len);
        let (mut chunk, mut at, mut offset) = (1, 0, head);
        self.frames.iter().filter_map(move |len| {
            let len = *len as usize;
            if self.chunks.get(chunk)?.len() <= at {
                (chunk, at) = (chunk + 1, 0);
            }
            let frame = self.chunks.get(chunk)?.slice(at..at + len);
            let here = offset as u32;
            (at, offset) = (at + len, offset + len);
            Some((here, frame))
        })
    }
}

/// One block to be stored.
#[derive(Debug, Clone, Copy)]
pub struct BlockIn<'a> {
    /// Its index.
    pub index: u64,
    /// Its bytes: exactly one block.
    pub data: &'a [u8],
}

/// The blocks of a batch with equal ones joined: the stored blocks, and the slot of each block.
struct Layout<'a> {
    stored: Vec<(BlockIn<'a>, Hash16)>,
    slots: Vec<u16>,
}

fn join_equal<'a>(blocks: &[BlockIn<'a>]) -> Layout<'a> {
    let mut by_hash: HashMap<Hash16, u16> = HashMap::with_capacity(blocks.len());
    let mut layout = Layout { stored: Vec::new(), slots: Vec::with_capacity(blocks.len()) };
    for block in blocks {
        let hash = hash16(block.data);
        let next = layout.stored.len() as u16;
        let slot = *by_hash.entry(hash).or_insert(next);
        // A hash of 128 bits may be made to collide on purpose: equal means equal bytes.
        if slot != next && layout.stored[usize::from(slot)].0.data == block.data {
            layout.slots.push(slot);
            continue;
        }
        layout.stored.push((*block, hash));
        layout.slots.push(next);
    }
    layout
}

/// Cuts stored blocks into frames: runs of consecutive indices within one aligned 64 KiB.
fn frame_runs(stored: &[(BlockIn<'_>, Hash16)], per_frame: u64) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, (block, _)) in stored.iter().enumerate() {
        let joins = i > 0
            && stored[i - 1].0.index + 1 == block.index
            && !block.index.is_multiple_of(per_frame);
        match runs.last_mut() {
            Some(run) if joins => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

fn extents_of(blocks: &[BlockIn<'_>], slots: &[u16]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (block, slot) in blocks.iter().zip(slots) {
        if let Some(last) = extents.last_mut()
            && last.index + u64::from(last.count) == block.index
            && u32::from(last.slot) + u32::from(last.count) == u32::from(*slot)
            && last.count < u16::MAX
        {
            last.count += 1;
            continue;
        }
        extents.push(Extent { index: block.index, slot: *slot, count: 1 });
    }
    extents
}

/// The longest frame of this many blocks, bytes.
fn frame_len_max(blocks: usize, block: BlockSize) -> usize {
    frame::head_len(blocks) + blocks * block.bytes()
}

/// Upper bound of the length of all frames, bytes.
fn worst_len(runs: &[std::ops::Range<usize>], block: BlockSize) -> usize {
    runs.iter().map(|run| frame_len_max(run.len(), block)).sum()
}

/// The frames of a segment, in pieces that are each worth a system call.
#[derive(Default)]
struct Body {
    done: Vec<Bytes>,
    piece: BytesMut,
    /// Upper bound of the bytes still to come.
    rest: usize,
}

impl Body {
    /// Gives a piece with room for `len` bytes.
    fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.piece.capacity() - self.piece.len() < len {
            self.end_piece();
            self.piece = BytesMut::with_capacity(self.rest.min(PIECE_BYTES.max(len)));
        }
        self.rest -= len;
        &mut self.piece
    }

    fn end_piece(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            self.done.push(piece.freeze());
        }
    }

    fn finish(mut self, head: Bytes) -> Vec<Bytes> {
        self.end_piece();
        self.done.insert(0, head);
        self.done
    }
}

/// Builds a segment of at most [`SLOTS_MAX`] blocks, sorted by index, without repetition.
pub fn build(id: &SegmentId, ops: &[Op], blocks: &[BlockIn<'_>]) -> BuiltSegment {
    let layout = join_equal(blocks);
    let runs = frame_runs(&layout.stored, id.block.blocks_per_frame() as u64);
    let extents = extents_of(blocks, &layout.slots);
    let mut op_bytes = BytesMut::new();
    ops.iter().for_each(|op| op.encode(&mut op_bytes));
    let head_len = SEGMENT_HEAD
        + op_bytes.len()
        + FRAME_ENTRY * runs.len()
        + EXTENT_ENTRY * extents.len()
        + CHECKSUM;
    let mut body = Body { rest: worst_len(&runs, id.block), ..Body::default() };
    let mut places = Vec::with_capacity(layout.stored.len());
    let mut frames = Vec::with_capacity(runs.len());
    let mut offset = head_len as u32;
    let mut encoder = FrameEncoder::default();
    for run in runs {
        let members = &layout.stored[run.clone()];
        let table: Vec<_> = members.iter().map(|(b, hash)| (b.index, *hash)).collect();
        let data: Vec<_> = members.iter().map(|(b, _)| b.data).collect();
        let place = FramePlace { segment: id.key, offset, first_slot: run.start as u16 };
        let out = body.room(frame_len_max(members.len(), id.block));
        let len = encoder.encode(out, place, id.block, &table, &data) as u32;
        places.extend(std::iter::repeat_n((offset, len), members.len()));
        frames.push((len, members.len() as u16));
        offset += len;
    }
    let head = encode_head(id, head_len, u64::from(offset), &op_bytes, &frames, &extents);
    let mut hash = [0; 16];
    hash.copy_from_slice(&head[head_len - CHECKSUM..]);
    let entries = blocks
        .iter()
        .zip(&layout.slots)
        .map(|(block, &slot)| {
            let (offset, len) = places[usize::from(slot)];
            (block.index, BlockEntry { segment: id.key, offset, len, slot, source: 0 })
        })
        .collect();
    let frames = frames.into_iter().map(|(len, _)| len).collect();
    BuiltSegment { key: id.key, chunks: body.finish(head), frames, hash, entries }
}

fn encode_head(
    id: &SegmentId,
    head_len: usize,
    object_len: u64,
    ops: &[u8],
    frames: &[(u32, u16)],
    extents: &[Extent],
) -> Bytes {
    let mut out = BytesMut::with_capacity(head_len);
    out.put_slice(MAGIC);
    out.put_u16_le(VERSION);
    out.put_u8(match id.kind {
        SegmentKind::Foreground => 0,
        SegmentKind::Rewritten => 1,
        SegmentKind::MapNodes => 2,
    });
    out.put_u8(id.block.shift());
    out.put_u32_le(head_len as u32);
    out.put_u64_le(object_len);
    out.put_slice(&id.volume.0);
    out.put_slice(&id.key.stream.0);
    out.put_u64_le(id.key.number.0);
    out.put_u64_le(id.epoch);
    out.put_slice(&id.predecessor);
    out.put_u64_le(id.vseq_from);
    out.put_u64_le(id.vseq_to);
    out.put_u64_le(0);
    out.put_bytes(0, 32);
    out.put_slice(&id.nonce);
    out.put_u32_le(ops.len() as u32);
    out.put_u32_le(frames.len() as u32);
    out.put_u32_le(extents.len() as u32);
    out.put_bytes(0, SEGMENT_HEAD - out.len());
    out.put_slice(ops);
    for (len, blocks) in frames {
        out.put_u32_le(*len);
        out.put_u16_le(*blocks);
    }
    for extent in extents {
        out.put_u64_le(extent.index);
        out.put_u16_le(extent.slot);
        out.put_u16_le(extent.count);
    }
    let hash = hash16(&out);
    out.put_slice(&hash);
    out.freeze()
}

/// Collects nodes into one segment. The head's length is fixed, so `push` knows a node's place.
#[derive(Debug)]
pub struct MapNodesBuilder {
    id: SegmentId,
    body: BytesMut,
    slots: u16,
}

impl MapNodesBuilder {
    /// An empty segment of nodes.
    pub fn new(id: SegmentId) -> Self {
        Self { id, body: BytesMut::new(), slots: 0 }
    }

    /// Its name.
    pub fn key(&self) -> SegmentKey {
        self.id.key
    }

    /// Bytes of all nodes so far.
    pub fn len_bytes(&self) -> usize {
        self.body.len()
    }

    /// True if no slot is left.
    pub fn is_full(&self) -> bool {
        usize::from(self.slots) >= SLOTS_MAX
    }

    /// True if it holds no node.
    pub fn is_empty(&self) -> bool {
        self.slots == 0
    }

    /// Adds a node of this level with `live` blocks below it. Gives the pointer to it.
    pub fn push(&mut self, level: u8, live: u64, node: &[u8]) -> MapNodePtr {
        let ptr = MapNodePtr {
            level,
            slot: self.slots,
            len: node.len() as u32,
            segment: self.id.key,
            offset: (SEGMENT_HEAD + CHECKSUM + self.body.len()) as u32,
            checksum: hash16(node),
            live,
        };
        self.body.put_slice(node);
        self.slots += 1;
        ptr
    }

    /// Gives the bytes of a node of this segment, or none for a node of another segment.
    pub fn node(&self, ptr: &MapNodePtr) -> Option<&[u8]> {
        let start = (ptr.offset as usize).checked_sub(SEGMENT_HEAD + CHECKSUM)?;
        let bytes = self.body.get(start..start + ptr.len as usize)?;
        (ptr.segment == self.id.key).then_some(bytes)
    }

    /// The finished segment.
    pub fn finish(self) -> BuiltSegment {
        let head_len = SEGMENT_HEAD + CHECKSUM;
        let object_len = (head_len + self.body.len()) as u64;
        let head = encode_head(&self.id, head_len, object_len, &[], &[], &[]);
        let mut hash = [0; 16];
        hash.copy_from_slice(&head[head_len - CHECKSUM..]);
        let chunks = vec![head, self.body.freeze()];
        BuiltSegment { key: self.id.key, chunks, frames: Vec::new(), hash, entries: Vec::new() }
    }
}

#[cfg(test)]
#[path = "segment/tests.rs"]
mod tests;
