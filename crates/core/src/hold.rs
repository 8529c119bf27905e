//! What a collector must keep: a pure function from what it has listed to what it may delete.
//!
//! A segment of a volume is *held* if a root lists it, or if it stands in a range that somebody will
//! still read: above a head's checkpoint, or between a snapshot's root and the snapshot's own place.
//!
//! A pass of the collector, in this order (`docs/protocols.md` says what goes wrong in any other):
//!
//! 1. list the incarnations, then the candidates; what can't be placed stays;
//! 2. list head refs and tombstones; go on only if [`may_collect`];
//! 3. list snapshot refs, descriptors with their states, and pins. Tombstones that this listing shows
//!    and the one before did not don't count. A pending descriptor holds its base, unless its parent
//!    is gone *and* the collector's own `withdrawn` was the first state;
//! 4. look for a seal in the owner's own stream ([`look`](crate::takeover::look)); if there is one, stop;
//! 5. delete [`Held::free`].

use crate::id::{StreamId, VolumeId};
use crate::position::{Number, Position, SegmentKey};
use crate::takeover::RefOrder;
use std::collections::{BTreeMap, BTreeSet};

/// A place in a volume's history that may be compared over streams: seals make epochs unique along the chain.
pub type Place = (u64, Number);

fn place(at: &Position) -> Place {
    (at.epoch, at.number)
}

/// Data segments that roll-forward will read: after `from`, up to and with `to` (without end if none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRange {
    /// Whose streams.
    pub volume: VolumeId,
    /// The place of the root.
    pub from: Place,
    /// The last place that is read.
    pub to: Option<Place>,
}

impl HeldRange {
    /// What a head needs above its checkpoint.
    pub fn head(volume: VolumeId, at: &Position) -> Self {
        Self { volume, from: place(at), to: None }
    }

    /// What a snapshot or a clone needs above the root that it starts from.
    pub fn upto(volume: VolumeId, at: &Position, end: &Position) -> Self {
        Self { volume, from: place(at), to: Some(place(end)) }
    }

    fn holds(&self, volume: VolumeId, at: Place) -> bool {
        self.volume == volume && self.from < at && self.to.is_none_or(|to| at <= to)
    }
}

/// Everything that was found to be held.
#[derive(Debug, Default)]
pub struct Held {
    /// Segments that roots list.
    pub listed: BTreeSet<SegmentKey>,
    /// Ranges that will be rolled forward over.
    pub ranges: Vec<HeldRange>,
    /// Of each stream with a live writer, the first node number that was not used at its last ref.
    pub open_nodes: BTreeMap<StreamId, Number>,
    /// Candidates that are seals. They are never deleted: a number that was sealed and is free again
    /// would let a stale writer acknowledge. A name does not tell a seal from a segment: whatever is
    /// small enough to be one has to be looked at.
    pub seals: BTreeSet<SegmentKey>,
}

/// True if the pass of an owner's collector may go on: `own` is the last head ref that it wrote in its
/// own stream, and the newest of those `listed`. An owner that has written none yet stands on its
/// predecessor's root, which no listing need show: a late ref of the predecessor may have replaced it.
pub fn may_collect(own: Option<RefOrder>, listed: &[RefOrder]) -> bool {
    own.is_some() && own == listed.iter().max().copied()
}

/// A segment that might be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The segment.
    pub key: SegmentKey,
    /// Its volume and its stream's epoch; none if the stream is not known.
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
        if number.is_node() {
            // Nodes of a checkpoint under way are listed by no root yet.
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
        assert!(!may_collect(own, &[order(2, 5), order(3, 0)]));
        assert!(!may_collect(own, &[order(1, 9)]), "its own must be seen");
        assert!(!may_collect(None, &[order(1, 9)]));
        assert!(!may_collect(None, &[]));
    }

    #[test]
    fn what_will_be_read_is_held() {
        let at = |epoch, number| Position { epoch, number: Number(number), ..Position::default() };
        let mut held = Held::default();
        held.ranges.push(HeldRange::head(V, &at(3, 10)));
        held.ranges.push(HeldRange::upto(V, &at(1, 2), &at(2, 5)));
        held.listed.insert(candidate(3, Number(1)).key);
        held.open_nodes.insert(StreamId([3; 16]), Number::node(4));
        for (epoch, number, stays) in [
            (1, Number(2), false),
            (1, Number(3), true),
            (2, Number(5), true),
            (2, Number(6), false),
            (3, Number(1), true),
            (3, Number(10), false),
            (3, Number(11), true),
            (4, Number(1), true),
            (3, Number::node(3), false),
            (3, Number::node(4), true),
            (2, Number::node(9), false),
        ] {
            assert_eq!(held.holds(&candidate(epoch, number)), stays, "{epoch} {number:?}");
        }
        let unknown = Candidate { stream: None, ..candidate(1, Number(1)) };
        assert!(held.holds(&unknown), "what can't be placed stays");
    }
}
