//! Taking over a volume's stream: the next thing to look at, and what follows from what stood
//! there.
//!
//! Participants: the *taker*, which wants to write the volume; the *old owner*, dead or only slow;
//! a *collector*, which deletes segments below refs. The store offers create-if-absent and nothing
//! more.
//!
//! Goal: once the taker is told [`Step::Own`], no later publication of the old stream by another
//! node can be read as part of the volume. And the taker has applied everything that was
//! acknowledged at flush level `bucket`. Non-goal: choosing which node should own the volume.
//!
//! 1. From the newest ref, read the stream contiguously. At the first missing number, create a
//!    seal.
//! 2. If a segment or a seal stands there instead, apply or follow it, and try again.
//! 3. With the seal created, list the refs again, before anything is written or acknowledged. If
//!    one is newer than the ref that the taker started from, start over from it, with a fresh
//!    successor stream. A ref past the seal's place, or past a seal that was followed, voids the
//!    seal: the missing number had been collected, not unwritten. A ref below the seal shows that
//!    the old owner may be collecting segments that only the older root lists.
//!
//! A *reader* takes nothing and goes the same way without creating seals. Told to seal, it lists
//! the refs again. [`Takeover::refs`] says whether it has reached the end or must start over.
//!
//! These are pure functions; `skerry-store` carries their decisions out. `tests/protocol` explores
//! them with every interleaving at a small scope. `docs/protocols.md` says what goes wrong without
//! each rule.

use crate::id::{LogId, StreamId};
use crate::position::{Number, Position, SegmentKey};
use crate::seal::Seal;

/// The object at a data number of a stream.
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

/// Gives the position from which the successor of a sealed stream goes on.
pub fn follow(at: &Position, seal: &Seal) -> Position {
    Position::start(seal.epoch, seal.successor, at.vseq)
}

/// The taker's next action.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read this number; then [`Takeover::found`].
    Read(SegmentKey),
    /// Create the seal here; then [`Takeover::sealed`], or [`Takeover::found`] if an object stood
    /// there.
    Seal(SegmentKey),
    /// List the refs again; then [`Takeover::refs`].
    ListRefs,
    /// Start over from this ref, with a new [`Takeover`] and a new successor. The ref that the
    /// taker started from is no longer the newest.
    Restart(RefOrder),
    /// The taker owns the successor stream, from this position. For a reader: the end is reached.
    Own(Position),
}

/// Limit of a writer's numbers on their way at once. A missing number was deleted if a number this
/// far above it is there.
pub const ON_THEIR_WAY_MAX: u64 = 4;

/// The key of a head ref in the order of refs.
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Takeover {
    started: RefOrder,
    at: Position,
    successor: StreamId,
}

impl Takeover {
    /// Begins at the newest ref's position, or without a ref at the start of the volume's genesis
    /// stream. `successor` is a new random stream, a different one for each attempt. A void seal
    /// goes on naming the stream of the attempt that made it.
    pub fn new(at: Position, successor: StreamId) -> Self {
        Self { started: RefOrder::of(&at), at, successor }
    }

    /// The position reached so far.
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

    /// Takes in what stood at the number that the taker read or tried to seal. For a segment, the
    /// caller applies it and passes the position after it.
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

    /// Takes in that the seal was created. The caller must repeat a create until its outcome is
    /// known.
    pub fn sealed(&mut self) -> Step {
        Step::ListRefs
    }

    /// Takes in the head refs, listed again after the seal (by a reader: after the missing number).
    pub fn refs(&self, listed: &[RefOrder]) -> Step {
        match listed.iter().max() {
            Some(&newest) if newest > self.started => Step::Restart(newest),
            _ => Step::Own(Position::start(self.epoch(), self.successor, self.at.vseq)),
        }
    }
}

/// Gives the numbers at which an owner looks for another node's seal. It looks before it
/// acknowledges or serves anything after a gap of its clock, and before its collector deletes. They
/// go from the number after `durable`, the last of the contiguous durable ones, to `unused`, the
/// next that it would write. All of them count: the taker's seal stands at the first missing
/// number, which need not be the last.
pub fn look(durable: &Position, unused: Number) -> impl Iterator<Item = SegmentKey> + use<> {
    let stream = durable.stream;
    (durable.number.0 + 1..=unused.0).map(move |n| SegmentKey { stream, number: Number(n) })
}

/// True if the undestaged tail of a log may be replayed on top of `at`, because no other node can
/// have written the volume since. `epoch` is that of the stream that the tail was written for.
/// `seals` are those on the chain from it to `at`'s stream, in order. A gap in their epochs means
/// an unknown seal, and answers no. Records below `at.vseq` are in the bucket already, and the
/// caller skips them. The first that it does not skip must be `at.vseq` itself.
pub fn tail_replays(epoch: u64, seals: &[Seal], at: &Position, log: LogId) -> bool {
    let ours = |seal: &Seal| seal.owner.as_ref().is_some_and(|o| !log.is_none() && o.log == log);
    let unbroken = seals.iter().zip(epoch + 1..).all(|(seal, next)| seal.epoch == next);
    unbroken && seals.iter().all(ours) && epoch + seals.len() as u64 == at.epoch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::seal::Owner;

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
    fn a_newer_ref_below_the_seal_is_started_from() {
        let mut takeover = Takeover::new(at(3, 1, 5), StreamId([9; 16]));
        takeover.found(&Found::Segment(at(3, 1, 6)));
        takeover.found(&Found::Segment(at(3, 1, 7)));
        takeover.sealed();
        let newer = RefOrder::of(&at(3, 1, 6));
        assert_eq!(takeover.refs(&[RefOrder::of(&at(3, 1, 5)), newer]), Step::Restart(newer));
    }

    #[test]
    fn a_ref_past_a_seal_that_was_followed_voids_it() {
        let mut takeover = Takeover::new(at(3, 1, 5), StreamId([9; 16]));
        let seal = Seal { successor: StreamId([5; 16]), epoch: 4, owner: None, forced: false };
        takeover.found(&Found::Seal(seal));
        takeover.sealed();
        let newer = RefOrder::of(&at(3, 1, 8));
        assert_eq!(takeover.refs(&[newer]), Step::Restart(newer));
    }

    #[test]
    fn a_suspended_owner_looks_at_all_that_is_open() {
        let numbers: Vec<u64> = look(&at(3, 1, 4), Number(7)).map(|key| key.number.0).collect();
        assert_eq!(numbers, [5, 6, 7]);
    }

    #[test]
    fn a_tail_is_replayed_only_over_seals_that_name_its_log() {
        let seal = |epoch, log: Option<u8>| {
            let owner = |log| Owner {
                node: NodeId([1; 16]),
                log: LogId([log; 16]),
                lease: 0,
                host: String::new(),
            };
            Seal { successor: StreamId([5; 16]), epoch, owner: log.map(owner), forced: false }
        };
        let ours = LogId([7; 16]);
        for (seals, replays) in [
            (vec![], false),
            (vec![seal(4, Some(7)), seal(5, Some(7))], true),
            (vec![seal(4, Some(8)), seal(5, Some(7))], false),
            (vec![seal(4, Some(7)), seal(5, None)], false),
            (vec![seal(5, Some(7))], false),
            (vec![seal(4, Some(7))], false),
            (vec![seal(4, Some(7)), seal(5, Some(7)), seal(6, Some(7))], false),
        ] {
            assert_eq!(tail_replays(3, &seals, &at(5, 2, 0), ours), replays, "{seals:?}");
        }
        assert!(tail_replays(5, &[], &at(5, 2, 0), ours), "the stream is still open");
        let none = [seal(4, Some(0)), seal(5, Some(0))];
        assert!(!tail_replays(3, &none, &at(5, 2, 0), LogId::NONE), "no log, no tail");
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
