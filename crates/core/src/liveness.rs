//! Liveness: the slots of segments that a root references.
//!
//! It counts references, never bytes or births. A root holds no segment that its liveness does not
//! list. The entries stand in the leaves of a path-copied tree, in order of (stream, number). This
//! file is one leaf and one inner node of that tree. An update copies untouched entries as bytes,
//! without decoding them.
//!
//! Must hold: no leaf is longer than [`LEAF_BYTES_MAX`], whatever was written. One entry is at most
//! [`ENTRY_BYTES_MAX`] long, and leaves of several are cut at [`LEAF_BYTES_WANTED`].

use crate::entry::BlockEntry;
use crate::id::StreamId;
use crate::map_node::{MAP_NODE_HEAD, MAP_NODE_PTR, MapNodeKind, MapNodePtr, unwrap, wrap};
use crate::position::{Number, SegmentKey};
use crate::segment::SLOTS_MAX;
use crate::wire::{FormatError, Reader};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// Bytes of an entry before its slots.
pub const ENTRY_HEAD: usize = 42;
/// Bytes of one slot's further references.
const OVERFLOW: usize = 6;
/// The longest entry: a bitmap of all slots, each of which is referenced more than once.
pub const ENTRY_BYTES_MAX: usize = ENTRY_HEAD + SLOTS_MAX.div_ceil(8) + OVERFLOW * SLOTS_MAX;
/// The longest leaf of more than one entry, bytes: one small change rewrites this much.
pub const LEAF_BYTES_WANTED: usize = 32 << 10;
/// The longest leaf: one that holds the longest entry alone.
pub const LEAF_BYTES_MAX: usize = MAP_NODE_HEAD + ENTRY_BYTES_MAX;
/// Children of an inner node, at most.
pub const FANOUT_MAX: usize = 256;
/// Bytes of an entry of an inner node: the first segment and the pointer.
pub const CHILD: usize = 24 + MAP_NODE_PTR;

const WHAT: &str = "liveness leaf";
const NONE: u8 = 0;
const ALL: u8 = 1;
const BITMAP: u8 = 2;
const LIST: u8 = 3;

/// Reference counts of one segment's slots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentLive {
    /// Length of a data segment's object; of a segment of map nodes, the length of the referenced
    /// nodes.
    pub stored_bytes: u64,
    /// A bit for each referenced slot, eight in a byte.
    bits: Vec<u8>,
    live: u32,
    /// Slots with more than one reference, each with the number of further ones.
    overflow: Vec<(u16, u32)>,
}

impl SegmentLive {
    /// Number of referenced slots.
    pub fn live_slots(&self) -> usize {
        self.live as usize
    }

    fn is_live(&self, slot: u16) -> bool {
        self.bits.get(usize::from(slot) / 8).is_some_and(|byte| byte & (1 << (slot % 8)) != 0)
    }

    fn set_live(&mut self, slot: u16, live: bool) {
        let at = usize::from(slot) / 8;
        if live == self.is_live(slot) {
            return;
        }
        if self.bits.len() <= at {
            self.bits.resize(at + 1, 0);
        }
        self.bits[at] ^= 1 << (slot % 8);
        self.live = if live { self.live + 1 } else { self.live - 1 };
    }

    /// Reference count of a slot.
    pub fn count(&self, slot: u16) -> u32 {
        if !self.is_live(slot) {
            return 0;
        }
        let further = self.overflow.binary_search_by_key(&slot, |(slot, _)| *slot);
        1 + further.map_or(0, |i| self.overflow[i].1)
    }

    /// Referenced slots with their counts, in order.
    pub fn slots(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        let all = 0..(self.bits.len() * 8).min(1 << 16) as u32;
        all.map(|slot| slot as u16).filter(|slot| self.is_live(*slot)).map(|s| (s, self.count(s)))
    }

    /// Applies references taken and released to the slots, in one pass.
    fn apply(&mut self, changes: &BTreeMap<u16, i32>) -> Result<(), FormatError> {
        let old = std::mem::take(&mut self.overflow);
        let mut rest = old.iter().copied().peekable();
        let mut further = Vec::with_capacity(old.len());
        for (&slot, &by) in changes {
            while let Some(before) = rest.next_if(|(at, _)| *at < slot) {
                further.push(before);
            }
            let more = rest.next_if(|(at, _)| *at == slot).map_or(0, |(_, more)| i64::from(more));
            let next = i64::from(self.is_live(slot)) + more + i64::from(by);
            if next < 0 || next > i64::from(u32::MAX) {
                let detail = format!("slot {slot} would be referenced {next} times");
                return Err(FormatError::invalid(WHAT, detail));
            }
            self.set_live(slot, next > 0);
            if next > 1 {
                further.push((slot, (next - 1) as u32));
            }
        }
        further.extend(rest);
        self.overflow = further;
        Ok(())
    }

    fn encode(&self, key: SegmentKey, out: &mut BytesMut) {
        let last = self.bits.iter().rposition(|byte| *byte != 0);
        let slots = last.map_or(0, |at| at as u32 * 8 + 8 - self.bits[at].leading_zeros());
        let encoding = if self.live == 0 {
            NONE
        } else if self.live == slots {
            ALL
        } else if self.live * 2 < slots.div_ceil(8) {
            LIST
        } else {
            BITMAP
        };
        out.put_slice(&key.stream.0);
        out.put_u64_le(key.number.0);
        out.put_u64_le(self.stored_bytes);
        out.put_u16_le(slots.saturating_sub(1) as u16);
        out.put_u16_le(self.live.saturating_sub(1) as u16);
        out.put_u8(encoding);
        out.put_u8(0);
        out.put_u32_le(self.overflow.len() as u32);
        match encoding {
            BITMAP => out.put_slice(&self.bits[..slots.div_ceil(8) as usize]),
            LIST => self.slots().for_each(|(slot, _)| out.put_u16_le(slot)),
            _ => {}
        }
        for (slot, further) in &self.overflow {
            out.put_u16_le(*slot);
            out.put_u32_le(*further);
        }
    }
}

/// The head of an entry, which tells where its parts stand.
struct EntryHead {
    key: SegmentKey,
    stored_bytes: u64,
    slots: u32,
    live: u32,
    encoding: u8,
    overflow: u32,
}

impl EntryHead {
    fn read(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let key = SegmentKey { stream: StreamId(reader.array()?), number: Number(reader.u64()?) };
        let stored_bytes = reader.u64()?;
        let (slots, live) = (u32::from(reader.u16()?) + 1, u32::from(reader.u16()?) + 1);
        let encoding = reader.u8()?;
        reader.u8()?;
        Ok(Self { key, stored_bytes, slots, live, encoding, overflow: reader.u32()? })
    }

    /// Bytes of the slots.
    fn slots_len(&self) -> Result<usize, FormatError> {
        Ok(match self.encoding {
            NONE | ALL => 0,
            BITMAP => self.slots.div_ceil(8) as usize,
            LIST => self.live as usize * 2,
            other => return Err(FormatError::Newer { what: WHAT, version: u32::from(other) }),
        })
    }
}

/// An entry as it stands in a leaf.
#[derive(Debug, Clone, Copy)]
pub struct RawEntry<'a> {
    /// The segment.
    pub key: SegmentKey,
    /// As in [`SegmentLive`].
    pub stored_bytes: u64,
    /// The whole entry.
    bytes: &'a [u8],
}

impl RawEntry<'_> {
    /// Decodes the entry.
    pub fn decode(&self) -> Result<SegmentLive, FormatError> {
        let mut reader = Reader::new(WHAT, self.bytes);
        let head = EntryHead::read(&mut reader)?;
        let raw = reader.bytes(head.slots_len()?)?;
        let mut live = SegmentLive { stored_bytes: head.stored_bytes, ..SegmentLive::default() };
        match head.encoding {
            ALL => {
                live.bits = vec![0xff; head.slots.div_ceil(8) as usize];
                if let (Some(last), rest @ 1..) = (live.bits.last_mut(), head.slots % 8) {
                    *last = (1 << rest) - 1;
                }
                live.live = head.slots;
            }
            BITMAP => {
                live.bits = raw.to_vec();
                live.live = raw.iter().map(|byte| byte.count_ones()).sum();
            }
            LIST => {
                let places = raw.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
                places.for_each(|slot| live.set_live(slot, true));
            }
            _ => {}
        }
        if head.encoding != NONE && live.live != head.live {
            return Err(FormatError::invalid(WHAT, "a segment's live slots don't add up"));
        }
        for _ in 0..head.overflow {
            let (slot, further) = (reader.u16()?, reader.u32()?);
            if !live.is_live(slot) || live.overflow.last().is_some_and(|(at, _)| *at >= slot) {
                return Err(FormatError::invalid(WHAT, "overflow of a dead slot"));
            }
            live.overflow.push((slot, further));
        }
        reader.finish()?;
        Ok(live)
    }
}

/// Splits a leaf into entries, without decoding them.
pub fn entries(leaf: &[u8]) -> Result<Vec<RawEntry<'_>>, FormatError> {
    let (head, body) = unwrap(leaf, MapNodeKind::LivenessLeaf)?;
    let mut reader = Reader::new(WHAT, body);
    let mut out: Vec<RawEntry<'_>> = Vec::with_capacity(usize::from(head.entries()));
    for _ in 0..head.entries() {
        let at = body.len() - reader.remaining();
        let entry = EntryHead::read(&mut reader)?;
        reader.bytes(entry.slots_len()?)?;
        reader.bytes(OVERFLOW * entry.overflow as usize)?;
        let bytes = &body[at..body.len() - reader.remaining()];
        if out.last().is_some_and(|before| before.key >= entry.key) {
            return Err(FormatError::invalid(WHAT, "its entries are out of order"));
        }
        out.push(RawEntry { key: entry.key, stored_bytes: entry.stored_bytes, bytes });
    }
    reader.finish()?;
    Ok(out)
}

/// Changes of one segment.
#[derive(Debug, Default)]
struct Change {
    slots: BTreeMap<u16, i32>,
    bytes: i64,
}

/// References taken and released since the last checkpoint, by segment and slot.
#[derive(Debug, Default)]
pub struct LivenessDelta {
    by_segment: BTreeMap<SegmentKey, Change>,
    /// Lengths of the objects of data segments.
    lengths: BTreeMap<SegmentKey, u64>,
}

impl LivenessDelta {
    /// Nothing taken, nothing released.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a reference to a slot: taken (+1) or released (−1).
    pub fn add(&mut self, segment: SegmentKey, slot: u16, by: i32) {
        *self.by_segment.entry(segment).or_default().slots.entry(slot).or_insert(0) += by;
    }

    /// Notes a reference to a block: taken (+1) or released (−1). Ignores blocks of other buckets.
    pub fn add_block(&mut self, entry: &BlockEntry, by: i32) {
        if entry.is_here() {
            self.add(entry.segment, entry.slot, by);
        }
    }

    /// Notes a reference to a node: taken (+1) or released (−1).
    pub fn add_node(&mut self, ptr: &MapNodePtr, by: i32) {
        let change = self.by_segment.entry(ptr.segment).or_default();
        *change.slots.entry(ptr.slot).or_insert(0) += by;
        change.bytes += i64::from(by) * i64::from(ptr.len);
    }

    /// Notes the length of a data segment's object.
    pub fn length(&mut self, segment: SegmentKey, bytes: u64) {
        self.lengths.insert(segment, bytes);
    }

    /// True if a segment from `from` up to `to` (or without end) changed.
    pub fn touches(&self, from: SegmentKey, to: Option<SegmentKey>) -> bool {
        self.within(from, to).next().is_some()
    }

    /// True if nothing was taken or released.
    pub fn is_empty(&self) -> bool {
        self.by_segment.is_empty()
    }

    fn within(
        &self,
        from: SegmentKey,
        to: Option<SegmentKey>,
    ) -> impl Iterator<Item = (SegmentKey, &Change)> {
        let upto = move |key: &SegmentKey| to.is_none_or(|to| *key < to);
        self.by_segment
            .range(from..)
            .map(|(key, c)| (*key, c))
            .take_while(move |(key, _)| upto(key))
    }

    fn apply(
        &self,
        key: SegmentKey,
        change: &Change,
        live: &mut SegmentLive,
    ) -> Result<(), FormatError> {
        live.apply(&change.slots)?;
        live.stored_bytes = match self.lengths.get(&key) {
            Some(length) => *length,
            None => live.stored_bytes.saturating_add_signed(change.bytes),
        };
        Ok(())
    }
}

/// A new leaf.
#[derive(Debug, Clone)]
pub struct MadeLeaf {
    /// The first segment that it lists.
    pub first: SegmentKey,
    /// Its bytes.
    pub bytes: Bytes,
    /// Stored bytes of all its entries.
    pub stored_bytes: u64,
}

/// Puts entries into leaves of the wanted length, one after another.
#[derive(Debug)]
pub struct LeafWriter {
    birth: u64,
    first: SegmentKey,
    entries: u16,
    stored_bytes: u64,
    body: BytesMut,
    made: Vec<MadeLeaf>,
    dropped: Vec<SegmentKey>,
    decoded: usize,
}

impl LeafWriter {
    /// A writer of leaves of this birth.
    pub fn new(birth: u64) -> Self {
        Self {
            birth,
            first: SegmentKey::default(),
            entries: 0,
            stored_bytes: 0,
            body: BytesMut::new(),
            made: Vec::new(),
            dropped: Vec::new(),
            decoded: 0,
        }
    }

    /// Merges an old leaf with the changes of the segments from `from` up to `to`. Leaves must come
    /// in order.
    pub fn merge(
        &mut self,
        old: Option<&[u8]>,
        delta: &LivenessDelta,
        from: SegmentKey,
        to: Option<SegmentKey>,
    ) -> Result<(), FormatError> {
        let old = old.map(entries).transpose()?.unwrap_or_default();
        let mut old = old.into_iter().peekable();
        for (key, change) in delta.within(from, to) {
            while let Some(before) = old.next_if(|entry| entry.key < key) {
                self.copy(&before);
            }
            let before = old.next_if(|entry| entry.key == key);
            let mut live = before.as_ref().map(RawEntry::decode).transpose()?.unwrap_or_default();
            self.decoded += 1;
            delta.apply(key, change, &mut live)?;
            if live.live == 0 {
                self.dropped.push(key);
            } else {
                self.write(key, &live);
            }
        }
        old.for_each(|entry| self.copy(&entry));
        Ok(())
    }

    fn copy(&mut self, entry: &RawEntry<'_>) {
        self.make_room(entry.bytes.len(), entry.key);
        self.body.put_slice(entry.bytes);
        self.count(entry.stored_bytes);
    }

    fn write(&mut self, key: SegmentKey, live: &SegmentLive) {
        let mut bytes = BytesMut::new();
        live.encode(key, &mut bytes);
        self.make_room(bytes.len(), key);
        self.body.put_slice(&bytes);
        self.count(live.stored_bytes);
    }

    fn count(&mut self, stored_bytes: u64) {
        self.entries += 1;
        self.stored_bytes += stored_bytes;
    }

    fn make_room(&mut self, len: usize, key: SegmentKey) {
        if MAP_NODE_HEAD + self.body.len() + len > LEAF_BYTES_WANTED {
            self.cut();
        }
        if self.entries == 0 {
            self.first = key;
        }
    }

    fn cut(&mut self) {
        if self.entries == 0 {
            return;
        }
        let body = std::mem::take(&mut self.body);
        let kind = MapNodeKind::LivenessLeaf;
        let (entries, stored_bytes) = (self.entries, self.stored_bytes);
        let bytes = wrap(kind, 0, self.birth, stored_bytes, entries, &body);
        self.made.push(MadeLeaf { first: self.first, bytes, stored_bytes });
        (self.entries, self.stored_bytes) = (0, 0);
    }

    /// Takes the leaves that are full.
    pub fn take(&mut self) -> Vec<MadeLeaf> {
        std::mem::take(&mut self.made)
    }

    /// Gives the remaining leaves, and the segments that dropped out.
    pub fn finish(mut self) -> (Vec<MadeLeaf>, Vec<SegmentKey>) {
        self.cut();
        (self.made, self.dropped)
    }

    /// Number of decoded entries.
    pub fn decoded(&self) -> usize {
        self.decoded
    }
}

/// A child of an inner node: the segments from `first` up to the next child's first. The `live` of
/// its pointer is stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// The first segment below it.
    pub first: SegmentKey,
    /// Place of the node.
    pub ptr: MapNodePtr,
}

/// Encodes an inner node of 1 to [`FANOUT_MAX`] children, in order.
pub fn inner(level: u8, birth: u64, children: &[Child]) -> Bytes {
    let mut body = BytesMut::with_capacity(CHILD * children.len());
    for child in children {
        body.put_slice(&child.first.stream.0);
        body.put_u64_le(child.first.number.0);
        child.ptr.encode(&mut body);
    }
    let stored_bytes = children.iter().map(|child| child.ptr.live).sum();
    wrap(MapNodeKind::LivenessInner, level, birth, stored_bytes, children.len() as u16, &body)
}

/// The children of an inner node.
pub fn children(node: &[u8]) -> Result<Vec<Child>, FormatError> {
    let (head, body) = unwrap(node, MapNodeKind::LivenessInner)?;
    let mut reader = Reader::new("liveness inner node", body);
    let mut out: Vec<Child> = Vec::with_capacity(usize::from(head.entries()));
    for _ in 0..head.entries() {
        let stream = StreamId(reader.array()?);
        let first = SegmentKey { stream, number: Number(reader.u64()?) };
        if out.last().is_some_and(|before| before.first >= first) {
            return Err(FormatError::invalid(
                "liveness inner node",
                "its children are out of order",
            ));
        }
        out.push(Child { first, ptr: MapNodePtr::decode(&mut reader)? });
    }
    reader.finish()?;
    Ok(out)
}

#[cfg(test)]
#[path = "liveness/tests.rs"]
mod tests;
