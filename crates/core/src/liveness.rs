//! Liveness: which slots of which segments a root references.
//!
//! It counts references, never bytes or births. A segment that no root lists is held by no root.

use crate::id::StreamId;
use crate::node::{unwrap_liveness, wrap_liveness};
use crate::position::{Number, SegmentKey};
use crate::wire::{FormatError, Reader};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// A page is split when it lists more segments than this.
pub const PAGE_SEGMENTS_MAX: usize = 512;

const WHAT: &str = "liveness page";
const NONE: u8 = 0;
const ALL: u8 = 1;
const BITMAP: u8 = 2;
const LIST: u8 = 3;

/// How often each slot of one segment is referenced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentLive {
    /// References by slot; slots that nothing references are absent.
    counts: BTreeMap<u16, u32>,
}

impl SegmentLive {
    /// How many slots are referenced.
    pub fn live_slots(&self) -> usize {
        self.counts.len()
    }

    /// How many references there are.
    pub fn references(&self) -> u64 {
        self.counts.values().map(|&n| u64::from(n)).sum()
    }

    /// How often a slot is referenced.
    pub fn count(&self, slot: u16) -> u32 {
        self.counts.get(&slot).copied().unwrap_or(0)
    }

    /// Every referenced slot and how often, in order.
    pub fn slots(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        self.counts.iter().map(|(&slot, &count)| (slot, count))
    }

    fn add(&mut self, slot: u16, by: i32) -> Result<(), FormatError> {
        let count = self.counts.entry(slot).or_insert(0);
        let next = count.checked_add_signed(by).ok_or_else(|| {
            FormatError::invalid(
                WHAT,
                format!("slot {slot} is released more often than it was taken"),
            )
        })?;
        *count = next;
        if next == 0 {
            self.counts.remove(&slot);
        }
        Ok(())
    }

    fn encode(&self, key: SegmentKey, out: &mut BytesMut) {
        let slots = self.counts.last_key_value().map_or(0, |(&slot, _)| u32::from(slot) + 1);
        let live = self.counts.len() as u32;
        out.put_slice(&key.stream.0);
        out.put_u64_le(key.number.0);
        out.put_u16_le((slots.saturating_sub(1)) as u16);
        out.put_u16_le((live.saturating_sub(1)) as u16);
        let encoding = if live == 0 {
            NONE
        } else if live == slots {
            ALL
        } else if live * 2 < slots.div_ceil(8) {
            LIST
        } else {
            BITMAP
        };
        let overflow: Vec<_> = self.counts.iter().filter(|(_, n)| **n > 1).collect();
        out.put_u8(encoding);
        out.put_u16_le(overflow.len().min(usize::from(u16::MAX)) as u16);
        match encoding {
            BITMAP => {
                let mut bits = vec![0u8; slots.div_ceil(8) as usize];
                for &slot in self.counts.keys() {
                    bits[usize::from(slot) / 8] |= 1 << (slot % 8);
                }
                out.put_slice(&bits);
            }
            LIST => self.counts.keys().for_each(|&slot| out.put_u16_le(slot)),
            _ => {}
        }
        for (slot, count) in overflow {
            out.put_u16_le(*slot);
            out.put_u32_le(count - 1);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<(SegmentKey, Self), FormatError> {
        let key = SegmentKey { stream: StreamId(reader.array()?), number: Number(reader.u64()?) };
        let slots = u32::from(reader.u16()?) + 1;
        let live = u32::from(reader.u16()?) + 1;
        let (encoding, overflow) = (reader.u8()?, reader.u16()?);
        let mut counts: BTreeMap<u16, u32> = match encoding {
            NONE => BTreeMap::new(),
            ALL => (0..slots).map(|slot| (slot as u16, 1)).collect(),
            BITMAP => {
                let bits = reader.bytes(slots.div_ceil(8) as usize)?;
                let set = |slot: &u32| bits[*slot as usize / 8] & (1 << (slot % 8)) != 0;
                (0..slots).filter(set).map(|slot| (slot as u16, 1)).collect()
            }
            LIST => (0..live).map(|_| Ok((reader.u16()?, 1))).collect::<Result<_, _>>()?,
            other => return Err(FormatError::Newer { what: WHAT, version: u32::from(other) }),
        };
        if encoding != NONE && counts.len() as u32 != live {
            return Err(FormatError::invalid(WHAT, "a segment's live slots don't add up"));
        }
        for _ in 0..overflow {
            let (slot, further) = (reader.u16()?, reader.u32()?);
            match counts.get_mut(&slot) {
                Some(count) => *count = count.saturating_add(further),
                None => return Err(FormatError::invalid(WHAT, "overflow of a dead slot")),
            }
        }
        Ok((key, Self { counts }))
    }
}

/// References taken and released since the last checkpoint, by segment and slot.
#[derive(Debug, Default)]
pub struct LivenessDelta {
    by_segment: BTreeMap<SegmentKey, BTreeMap<u16, i32>>,
}

impl LivenessDelta {
    /// Nothing taken, nothing released.
    pub fn new() -> Self {
        Self::default()
    }

    /// A reference was taken (+1) or released (−1).
    pub fn add(&mut self, segment: SegmentKey, slot: u16, by: i32) {
        *self.by_segment.entry(segment).or_default().entry(slot).or_insert(0) += by;
    }

    /// The segments that it speaks of, in order.
    pub fn segments(&self) -> impl Iterator<Item = SegmentKey> + '_ {
        self.by_segment.keys().copied()
    }

    /// True if nothing was taken or released.
    pub fn is_empty(&self) -> bool {
        self.by_segment.is_empty()
    }
}

/// The segments of one page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LivenessPage {
    segments: BTreeMap<SegmentKey, SegmentLive>,
}

impl LivenessPage {
    /// A page that lists nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a page.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (entries, body) = unwrap_liveness(bytes)?;
        let mut reader = Reader::new(WHAT, body);
        let segments =
            (0..entries).map(|_| SegmentLive::decode(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { segments })
    }

    /// The encoded page.
    pub fn encode(&self, birth: u64) -> Bytes {
        let mut body = BytesMut::new();
        self.segments.iter().for_each(|(key, live)| live.encode(*key, &mut body));
        wrap_liveness(self.segments.len() as u16, birth, &body)
    }

    /// The segments listed, in order.
    pub fn segments(&self) -> impl Iterator<Item = (&SegmentKey, &SegmentLive)> {
        self.segments.iter()
    }

    /// What a segment's slots count.
    pub fn get(&self, key: &SegmentKey) -> Option<&SegmentLive> {
        self.segments.get(key)
    }

    /// How many segments are listed.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// True if no segment is listed.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The first segment listed.
    pub fn first(&self) -> Option<SegmentKey> {
        self.segments.keys().next().copied()
    }

    /// Applies what `delta` says of segments from `from` up to `to` (without end if none); gives
    /// the segments that are no longer listed.
    pub fn apply(
        &mut self,
        delta: &LivenessDelta,
        from: SegmentKey,
        to: Option<SegmentKey>,
    ) -> Result<Vec<SegmentKey>, FormatError> {
        let mut dropped = Vec::new();
        let upto = |key: &SegmentKey| to.is_none_or(|to| *key < to);
        for (key, slots) in delta.by_segment.range(from..).take_while(|(key, _)| upto(key)) {
            let live = self.segments.entry(*key).or_default();
            for (&slot, &by) in slots {
                if by != 0 {
                    live.add(slot, by)?;
                }
            }
            if live.counts.is_empty() {
                self.segments.remove(key);
                dropped.push(*key);
            }
        }
        Ok(dropped)
    }

    /// Cuts the page into pages of at most [`PAGE_SEGMENTS_MAX`] segments.
    pub fn split(self) -> Vec<Self> {
        let mut pages = vec![];
        let mut page = Self::new();
        for (key, live) in self.segments {
            if page.segments.len() >= PAGE_SEGMENTS_MAX {
                pages.push(std::mem::take(&mut page));
            }
            page.segments.insert(key, live);
        }
        if !page.segments.is_empty() {
            pages.push(page);
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn key(n: u64) -> SegmentKey {
        SegmentKey { stream: StreamId([(n % 4) as u8; 16]), number: Number(n) }
    }

    #[test]
    fn pages_count_references() {
        for seed in 0..100 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut model: BTreeMap<(SegmentKey, u16), u32> = BTreeMap::new();
            let mut page = LivenessPage::new();
            for _ in 0..5 {
                let mut delta = LivenessDelta::new();
                for _ in 0..rng.random_range(0..300) {
                    let at = (key(rng.random_range(0..6)), rng.random_range(0..40u16) * 3);
                    let count = model.entry(at).or_insert(0);
                    if *count > 0 && rng.random_bool(0.5) {
                        *count -= 1;
                        delta.add(at.0, at.1, -1);
                    } else {
                        *count += 1;
                        delta.add(at.0, at.1, 1);
                    }
                }
                page.apply(&delta, SegmentKey::default(), None).expect("applies");
                page = LivenessPage::decode(&page.encode(1)).expect("reads back");
                for (at, count) in &model {
                    let seen = page.get(&at.0).map_or(0, |live| live.count(at.1));
                    assert_eq!(seen, *count, "seed {seed}, {at:?}");
                }
            }
            let listed: u64 = page.segments().map(|(_, live)| live.references()).sum();
            assert_eq!(listed, model.values().map(|&n| u64::from(n)).sum::<u64>());
        }
    }

    #[test]
    fn releasing_what_nobody_took_is_an_error() {
        let mut delta = LivenessDelta::new();
        delta.add(key(1), 2, -1);
        assert!(LivenessPage::new().apply(&delta, SegmentKey::default(), None).is_err());
    }

    #[test]
    fn segments_without_references_are_dropped() {
        let mut page = LivenessPage::new();
        let mut delta = LivenessDelta::new();
        delta.add(key(1), 2, 1);
        assert!(page.apply(&delta, SegmentKey::default(), None).expect("applies").is_empty());
        let mut delta = LivenessDelta::new();
        delta.add(key(1), 2, -1);
        let dropped = page.apply(&delta, SegmentKey::default(), None).expect("applies");
        assert_eq!(dropped, [key(1)]);
        assert!(page.is_empty());
    }
}
