//! Taking over a volume's stream: what to look at next, and what follows from what was found.
//!
//! Participants: the *taker* (a node that wants to write the volume), the *old owner* (perhaps dead,
//! perhaps only slow), and a *collector* (which deletes segments below refs). The store offers
//! create-if-absent and nothing more.
//!
//! Goal: when the taker is told [`Step::Own`], nobody else's later publication of the old stream can
//! ever be read as part of the volume, and everything that was acknowledged at flush level `bucket`
//! has been applied. Non-goal: choosing who should own the volume.
//!
//! 1. From the newest ref, read the stream contiguously. At the first missing number, create a seal.
//! 2. If a segment or a seal turns up there instead, apply or follow it, and try again.
//! 3. With the seal created, and before anything is written or acknowledged, list the refs again: one
//!    that stands at or past the sealed place shows that the missing number had been collected, not
//!    unwritten. The seal is void; start over from that ref.
//!
//! These are pure functions; `skerry-store` does what they say, and the model checker in the test
//! kit explores them with every interleaving at a small scope.

use crate::id::StreamId;
use crate::position::{Number, Position, SegmentKey};
use crate::seal::Seal;

/// What stood at a data number of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<S> {
    /// Nothing.
    Missing,
    /// A segment.
    Segment(S),
    /// The end of the stream.
    Seal(Seal),
}

/// The next segment to look for after a position.
pub fn next_key(at: &Position) -> SegmentKey {
    SegmentKey { stream: at.stream, number: at.number.next() }
}

/// The place from which the successor of a sealed stream goes on.
pub fn follow(at: &Position, seal: &Seal) -> Position {
    Position::start(seal.epoch, seal.successor, at.vseq)
}

/// What the taker does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read this number; then [`Takeover::found`].
    Read(SegmentKey),
    /// Create the seal here; then [`Takeover::sealed`] or [`Takeover::found`] with what stood there.
    Seal(SegmentKey),
    /// List the refs again; then [`Takeover::refs`].
    ListRefs,
    /// Start over from this ref's position: the seal was void.
    Restart(RefOrder),
    /// The successor stream is the taker's, from this place.
    Own(Position),
}

/// A head ref's place in the order of refs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefOrder {
    /// The epoch.
    pub epoch: u64,
    /// The stream.
    pub stream: StreamId,
    /// The number.
    pub number: Number,
}

impl RefOrder {
    /// The order of a ref at a position.
    pub fn of(at: &Position) -> Self {
        Self { epoch: at.epoch, stream: at.stream, number: at.number }
    }
}

/// A take-over under way.
#[derive(Debug, Clone)]
pub struct Takeover {
    at: Position,
    successor: StreamId,
    sealed: bool,
}

impl Takeover {
    /// Begins at the newest ref's position; `successor` is a new random stream.
    pub fn new(at: Position, successor: StreamId) -> Self {
        Self { at, successor, sealed: false }
    }

    /// The place that has been reached.
    pub fn at(&self) -> &Position {
        &self.at
    }

    /// The epoch that the taker will write with.
    pub fn epoch(&self) -> u64 {
        self.at.epoch + 1
    }

    /// The first step.
    pub fn start(&self) -> Step {
        Step::Read(next_key(&self.at))
    }

    /// Something, or nothing, stood at the number that was read or that was to be sealed. Of a segment,
    /// give the position after it (the caller has applied it).
    pub fn found(&mut self, found: &Found<Position>) -> Step {
        match found {
            Found::Missing => Step::Seal(next_key(&self.at)),
            Found::Segment(after) => {
                self.at = *after;
                Step::Read(next_key(&self.at))
            }
            Found::Seal(seal) => {
                self.at = follow(&self.at, seal);
                Step::Read(next_key(&self.at))
            }
        }
    }

    /// The seal was created.
    pub fn sealed(&mut self) -> Step {
        self.sealed = true;
        Step::ListRefs
    }

    /// The refs were listed again, after the seal.
    pub fn refs(&self, listed: &[RefOrder]) -> Step {
        let newest = listed.iter().max().copied();
        match newest {
            Some(newest) if self.is_past_seal(newest) => Step::Restart(newest),
            _ => Step::Own(Position::start(self.epoch(), self.successor, self.at.vseq)),
        }
    }

    /// A ref at or past the sealed place shows that the place had been written and collected.
    fn is_past_seal(&self, listed: RefOrder) -> bool {
        let sealed = next_key(&self.at);
        listed.epoch > self.at.epoch
            || (listed.epoch == self.at.epoch
                && (listed.stream != sealed.stream || listed.number >= sealed.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, stream: u8, number: u64) -> Position {
        let stream = StreamId([stream; 16]);
        Position { epoch, stream, number: Number(number), ..Position::default() }
    }

    #[test]
    fn a_ref_past_the_seal_voids_it() {
        let mut takeover = Takeover::new(at(3, 1, 7), StreamId([9; 16]));
        assert_eq!(takeover.start(), Step::Read(next_key(&at(3, 1, 7))));
        assert_eq!(takeover.found(&Found::Missing), Step::Seal(next_key(&at(3, 1, 7))));
        assert_eq!(takeover.sealed(), Step::ListRefs);
        let old = RefOrder::of(&at(3, 1, 7));
        assert!(matches!(takeover.refs(&[old]), Step::Own(p) if p.epoch == 4));
        for newer in [at(3, 1, 8), at(4, 2, 0)] {
            let newer = RefOrder::of(&newer);
            assert_eq!(takeover.refs(&[old, newer]), Step::Restart(newer));
        }
    }

    #[test]
    fn seals_are_followed() {
        let mut takeover = Takeover::new(at(3, 1, 7), StreamId([9; 16]));
        let seal = Seal { successor: StreamId([5; 16]), epoch: 4, owner: None, forced: false };
        let step = takeover.found(&Found::Seal(seal));
        assert_eq!(step, Step::Read(SegmentKey { stream: StreamId([5; 16]), number: Number(1) }));
        assert_eq!(takeover.epoch(), 5);
    }
}
