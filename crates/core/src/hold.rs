//! The collector's decisions: pure functions from what it has listed to what it may delete.
//!
//! A segment of a volume is *held* if a root lists it, or if a reader will still roll forward over
//! it. Such ranges lie above a head's checkpoint, and between a snapshot's root and its position.
//!
//! Two kinds of passes exist. Both look only at the volume and its *family*: the volume, its
//! clones, and their clones. No other volume can hold a segment of it.
//!
//! A **sweep** reads every ref of the family, in this order (`docs/protocols.md` says what goes
//! wrong in any other):
//!
//! 1. list the incarnations, then the candidates. A segment that no incarnation places stays;
//! 2. list head refs and tombstones; go on only if [`may_collect`];
//! 3. list snapshot refs, descriptors with their states, holders and pins. Ignore tombstones that
//!    this listing shows and the one before did not. A pending descriptor holds its base, unless
//!    its parent is gone *and* the collector's own `withdrawn` was the first state;
//! 4. look for a seal in the owner's own stream ([`look`](crate::takeover::look)); if there is one,
//!    stop;
//! 5. delete [`Held::free`].
//!
//! A **short pass** is an owner's, over segments that its head or a snapshot has just let go of.
//! Its cost follows what changed:
//!
//! 1. list the head refs; go on only if [`may_collect`];
//! 2. list the holders and the pins. Read the pins, and the snapshots that [`neighbours`] gives;
//!    the owner knows its snapshots without a listing. Segments that a holder's span reaches stay
//!    until the next sweep;
//! 3. look for a seal; delete [`Held::free`].
//!
//! A segment lives through one piece of its volume's history: from its writing until the head let
//! go of it. Only forks change that. A ref between two refs that list a segment lists it too, so a
//! snapshot's neighbours decide.

use crate::id::{StreamId, VolumeId};
use crate::position::{Number, Position, SegmentKey};
use crate::refs::{PUBLISHED, Ref};
use crate::root::Base;
use crate::takeover::RefOrder;
use std::collections::{BTreeMap, BTreeSet};

/// A point in a volume's history, comparable over streams: seals make epochs unique along the
/// chain.
pub type Point = (u64, Number);

fn place(at: &Position) -> Point {
    (at.epoch, at.number)
}

/// Data segments that roll-forward will read: after `from`, up to and with `to`, or without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRange {
    /// The volume of the streams.
    pub volume: VolumeId,
    /// The place of the root.
    pub from: Point,
    /// The last place to be read.
    pub to: Option<Point>,
}

impl HeldRange {
    /// The range that a head needs above its checkpoint.
    pub fn head(volume: VolumeId, at: &Position) -> Self {
        Self { volume, from: place(at), to: None }
    }

    /// The range that a snapshot or a clone needs above the root that it starts from.
    pub fn upto(volume: VolumeId, at: &Position, end: &Position) -> Self {
        Self { volume, from: place(at), to: Some(place(end)) }
    }

    fn holds(&self, volume: VolumeId, at: Point) -> bool {
        self.volume == volume && self.from < at && self.to.is_none_or(|to| at <= to)
    }
}

/// The part of its volume's history that a ref holds: all that its root lists, and the data
/// segments above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The place of its root.
    pub from: Point,
    /// The last place of its roll-forward.
    pub to: Point,
    /// Epoch, and number within the lane, of the first segment of map nodes that did not exist yet
    /// at the ref's creation.
    pub nodes: (u64, u64),
}

impl Span {
    /// All of a volume's history, past and to come: the span of an object that can't be read.
    pub const ALL: Self = Self {
        from: (0, Number::ZERO),
        to: (u64::MAX, Number(u64::MAX)),
        nodes: (u64::MAX, u64::MAX),
    };

    /// Gives the span of a snapshot's ref. A ref without its next node number may list any of the
    /// root's epoch. A ref that was rewritten later may list any segment of map nodes.
    pub fn of_snapshot(found: &Ref) -> Self {
        let Base { at, end, .. } = &found.base;
        let is_first = found.snapshot.as_ref().is_none_or(|info| info.number == PUBLISHED);
        let nodes = match found.next_node {
            _ if !is_first => (u64::MAX, u64::MAX),
            0 => (at.epoch + 1, 0),
            next => (end.epoch, next),
        };
        Self { from: place(at), to: place(end), nodes }
    }

    /// Gives the span of all history up to a place, for a ref that a pass does not read.
    pub fn upto(at: &Position, next_node: u64) -> Self {
        Self { from: (0, Number::ZERO), to: place(at), nodes: (at.epoch, next_node) }
    }

    /// Unites two spans, for a snapshot with the statements of two owners.
    pub fn union(&self, other: &Self) -> Self {
        let (from, to) = (self.from.min(other.from), self.to.max(other.to));
        Self { from, to, nodes: self.nodes.max(other.nodes) }
    }

    /// True if a segment of the volume's own streams existed already. Only then can a ref with this
    /// span hold it.
    pub fn reaches(&self, epoch: u64, number: Number) -> bool {
        match number.is_map_node() {
            true => (epoch, number.in_lane()) < self.nodes,
            false => (epoch, number) <= self.to,
        }
    }
}

/// Chooses the snapshots that must be read to tell which segments `gone` alone held. These are the
/// nearest of `others` on either side, and each that overlaps with `gone` or with the next one. All
/// are of one volume.
pub fn neighbours<T: Copy>(gone: &Span, others: &[(T, Span)]) -> Vec<T> {
    let before = others.iter().filter(|(_, s)| s.to <= gone.from).max_by_key(|(_, s)| s.to);
    let after = others.iter().filter(|(_, s)| s.from >= gone.to).min_by_key(|(_, s)| s.to);
    let end = after.map_or(gone.to, |(_, next)| next.to.max(gone.to));
    let beside = others.iter().filter(|(_, s)| s.to > gone.from && s.from < end);
    before.into_iter().chain(after).chain(beside).map(|(of, _)| *of).collect()
}

/// All that a pass found to be held.
#[derive(Debug, Default)]
pub struct Held {
    /// Spans of refs that this pass does not read; each may hold all that it reaches.
    pub unread: Vec<Span>,
    /// Segments that roots list.
    pub listed: BTreeSet<SegmentKey>,
    /// Ranges that readers will roll forward over.
    pub ranges: Vec<HeldRange>,
    /// The first node number that the last ref had not used, for each stream with a live writer.
    pub open_nodes: BTreeMap<StreamId, Number>,
    /// Candidates that are seals. The collector never deletes them: a freed number would let a
    /// stale writer acknowledge. A name does not tell a seal from a segment, so each object small
    /// enough to be a seal must be looked at.
    pub seals: BTreeSet<SegmentKey>,
}

/// True if the pass of an owner's collector may go on. `own` is a head ref that the owner wrote in
/// its own stream. The newest of `listed` must be that ref, or a later one of the same stream. An
/// owner without a ref of its own stands on its predecessor's root. Listings need not show that
/// root: a late ref of the predecessor may have replaced it.
pub fn may_collect(own: Option<RefOrder>, listed: &[RefOrder]) -> bool {
    let newest = listed.iter().max();
    own.zip(newest).is_some_and(|(own, newest)| newest.stream == own.stream && *newest >= own)
}

/// True if a pin of a head holds once it is in the bucket. The head that it copied must still be
/// the newest of those `listed` afterwards. The check for the volume's tombstone must come after
/// that, and find none.
pub fn pin_holds(copied: Option<RefOrder>, listed: &[RefOrder], gone: bool) -> bool {
    !gone && copied == listed.iter().max().copied()
}

/// A segment that might be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The segment.
    pub key: SegmentKey,
    /// Its volume and its stream's epoch; none if the stream is unknown.
    pub stream: Option<(VolumeId, u64)>,
}

impl Held {
    /// True if the segment must stay.
    pub fn holds(&self, candidate: &Candidate) -> bool {
        let Some((volume, epoch)) = candidate.stream else { return true };
        let number = candidate.key.number;
        if self.listed.contains(&candidate.key) || self.seals.contains(&candidate.key) {
            return true;
        }
        if self.unread.iter().any(|span| span.reaches(epoch, number)) {
            return true;
        }
        if number.is_map_node() {
            // No root lists the nodes of a checkpoint under way yet.
            return self.open_nodes.get(&candidate.key.stream).is_some_and(|&next| number >= next);
        }
        self.ranges.iter().any(|range| range.holds(volume, (epoch, number)))
    }

    /// The candidates that nothing holds.
    pub fn free(&self, candidates: &[Candidate]) -> Vec<SegmentKey> {
        candidates.iter().filter(|c| !self.holds(c)).map(|c| c.key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: VolumeId = VolumeId([1; 16]);

    fn candidate(epoch: u64, number: Number) -> Candidate {
        let stream = StreamId([epoch as u8; 16]);
        Candidate { key: SegmentKey { stream, number }, stream: Some((V, epoch)) }
    }

    #[test]
    fn seals_stay() {
        let sealed = candidate(1, Number(4));
        let mut held = Held::default();
        assert_eq!(held.free(&[sealed]), [sealed.key]);
        held.seals.insert(sealed.key);
        assert_eq!(held.free(&[sealed]), []);
    }

    #[test]
    fn a_collector_needs_the_newest_ref_to_be_its_own() {
        let order = |epoch, number| RefOrder {
            epoch,
            stream: StreamId([epoch as u8; 16]),
            number: Number(number),
        };
        let own = Some(order(2, 5));
        assert!(may_collect(own, &[order(1, 9), order(2, 5), order(2, 3)]));
        assert!(may_collect(own, &[order(2, 7)]), "it has written another meanwhile");
        assert!(!may_collect(own, &[order(2, 5), order(3, 0)]));
        assert!(!may_collect(own, &[order(1, 9)]), "its own must be seen");
        assert!(!may_collect(None, &[order(1, 9)]));
        assert!(!may_collect(None, &[]));
    }

    fn span(from: u64, to: u64) -> Span {
        Span { from: (1, Number(from)), to: (1, Number(to)), nodes: (1, to) }
    }

    #[test]
    fn neighbours_are_the_nearest_and_those_that_overlap() {
        // Roots at 0, 4, 8 and 12, with barriers at 1 and 2, at 5 and 6, at 8 and 9, and at 12.
        let all = [(0, 1), (0, 2), (4, 5), (4, 6), (8, 8), (8, 9), (12, 12)];
        let near = |gone: usize| {
            let others: Vec<(usize, Span)> = (0..all.len())
                .filter(|i| *i != gone)
                .map(|i| (i, span(all[i].0, all[i].1)))
                .collect();
            let mut near = neighbours(&span(all[gone].0, all[gone].1), &others);
            near.sort_unstable();
            near.dedup();
            near
        };
        assert_eq!(near(0), [1, 2, 3], "the same root, the next, and what overlaps with that");
        assert_eq!(near(2), [1, 3, 4]);
        assert_eq!(near(6), [5]);
        assert!(neighbours::<u8>(&span(1, 2), &[]).is_empty());
    }

    #[test]
    fn what_is_not_read_holds_what_it_reaches() {
        let held = Held { unread: vec![span(2, 5)], ..Held::default() };
        for (epoch, number, stays) in [
            (1, Number(5), true),
            (1, Number(6), false),
            (1, Number::map_node(4), true),
            (1, Number::map_node(5), false),
            (2, Number(1), false),
            (2, Number::map_node(0), false),
        ] {
            assert_eq!(held.holds(&candidate(epoch, number)), stays, "{epoch} {number:?}");
        }
    }

    #[test]
    fn what_will_be_read_is_held() {
        let at = |epoch, number| Position { epoch, number: Number(number), ..Position::default() };
        let mut held = Held::default();
        held.ranges.push(HeldRange::head(V, &at(3, 10)));
        held.ranges.push(HeldRange::upto(V, &at(1, 2), &at(2, 5)));
        held.listed.insert(candidate(3, Number(1)).key);
        held.open_nodes.insert(StreamId([3; 16]), Number::map_node(4));
        for (epoch, number, stays) in [
            (1, Number(2), false),
            (1, Number(3), true),
            (2, Number(5), true),
            (2, Number(6), false),
            (3, Number(1), true),
            (3, Number(10), false),
            (3, Number(11), true),
            (4, Number(1), true),
            (3, Number::map_node(3), false),
            (3, Number::map_node(4), true),
            (2, Number::map_node(9), false),
        ] {
            assert_eq!(held.holds(&candidate(epoch, number)), stays, "{epoch} {number:?}");
        }
        let unknown = Candidate { stream: None, ..candidate(1, Number(1)) };
        assert!(held.holds(&unknown), "what can't be placed stays");
    }
}
