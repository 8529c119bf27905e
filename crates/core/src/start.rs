//! Starts of a node: how a node that starts again is told from its copy.
//!
//! Participants: a *node*, known by the id in its data directory, and its *copies*. A copy is a
//! virtual machine made from a template, a restored backup, or a copied directory. Each has the
//! same id and the same notes, and takes itself for the node. Goal: of two of them on one bucket,
//! one serves, and the other refuses and says what to do. A node that was overtaken while it ran
//! ends. Non-goals: to tell which of them is the right one, and to stop one that does not reach the
//! bucket.
//!
//! The message is the [`StartRecord`] `nodes/<node>/<n>` in the bucket. It is created only if
//! absent, and never deleted. Every start claims the number after the last one in its own notes:
//!
//! 1. Note `n` and a fresh claim id, durably, beside the earlier note. By the claim id the node
//!    recognises its own record after a crash, whenever the PUT landed.
//! 2. Create the record. If another claim has the number, a copy was started: refuse.
//! 3. While serving, look for number `n + 1` now and then. If it exists, a copy made it, and this
//!    node ends.
//!
//! A copy that was made while the node ran starts from the same notes. It takes the node's record
//! for its own, and finds the next number free. So each record says where its node was started
//! ([`StartPlace`]), and a start at another place refuses as well.
//!
//! A node without a note for the bucket claims number 1. It refuses if the bucket has any start of
//! the node. A template whose node had not met the bucket has no such note, and neither has a copy
//! of it.
//!
//! A person who knows that no other copy runs says so when a start refuses. That start claims the
//! number after the highest.

use crate::envelope::{self, Kind};
use crate::id::{ClaimId, NodeId};
use crate::wire::{FormatError, Hash16, SectionWriter};
use bytes::Bytes;

const KIND: Kind =
    Kind { tag: *b"STRT", what: "start of a node", known: &[1, 2, 3, 4, 5, 6, 7, 8] };

/// The place of a node's start. An unknown part is zero, and agrees with every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StartPlace {
    /// Hash of the machine's id, which its system made when it was installed.
    pub machine: Hash16,
    /// Hash of the hardware's id, real or virtual.
    pub hardware: Hash16,
    /// Number of the data directory on its disk: a copy has another.
    pub directory: u64,
}

impl StartPlace {
    /// Says for people how this place differs from another one; none if it may be the same.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let differs = |one: &[u8], other: &[u8]| {
            let is_known = |id: &[u8]| id.iter().any(|byte| *byte != 0);
            one != other && is_known(one) && is_known(other)
        };
        if differs(&self.machine, &other.machine) || differs(&self.hardware, &other.hardware) {
            return Some("on another machine");
        }
        let is_moved = differs(&self.directory.to_le_bytes(), &other.directory.to_le_bytes());
        is_moved.then_some("in another directory")
    }
}

/// One start of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRecord {
    /// The node.
    pub node: NodeId,
    /// Number of this start, from 1.
    pub number: u64,
    /// The claim: one start of one copy.
    pub claim: ClaimId,
    /// Its host's name, for people.
    pub host: String,
    /// The place of the start.
    pub place: StartPlace,
    /// Time of the start, milliseconds since 1970, for people.
    pub at_ms: u64,
}

impl StartRecord {
    /// The encoded record.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let sections = SectionWriter::new()
            .put(1, &self.node.0)
            .put_u64(2, self.number)
            .put(3, &self.claim.0)
            .put(4, self.host.as_bytes())
            .put(5, &self.place.machine)
            .put(6, &self.place.hardware)
            .put_u64(7, self.place.directory)
            .put_u64(8, self.at_ms)
            .finish();
        envelope::seal(KIND, nonce, &sections)
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let sections = envelope::open(KIND, bytes)?;
        Ok(Self {
            node: NodeId(sections.need(1)?.array()?),
            number: sections.need(2)?.u64()?,
            claim: ClaimId(sections.need(3)?.array()?),
            host: sections.need(4)?.text()?,
            place: StartPlace {
                machine: sections.need(5)?.array()?,
                hardware: sections.need(6)?.array()?,
                directory: sections.need(7)?.u64()?,
            },
            at_ms: sections.need(8)?.u64()?,
        })
    }
}

/// The start that a node's own notes know: claimed, or about to be when the node died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotedStart {
    /// Its number.
    pub number: u64,
    /// Its claim.
    pub claim: ClaimId,
}

/// Says why a node must not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Another copy of it has the number.
    Overtaken,
    /// The node was last started elsewhere. Says how that place differs from this one.
    Elsewhere(&'static str),
}

/// Decides the next start's claim from the record under the noted number.
///
/// # Errors
///
/// The reason why the node must not start.
pub fn next(
    noted: NotedStart,
    found: Option<&StartRecord>,
    here: &StartPlace,
    fresh: ClaimId,
) -> Result<NotedStart, Conflict> {
    match found {
        // The node died before it claimed the number.
        None => Ok(noted),
        Some(found) if found.claim != noted.claim => Err(Conflict::Overtaken),
        Some(found) => match here.difference(&found.place) {
            Some(how) => Err(Conflict::Elsewhere(how)),
            None => Ok(NotedStart { number: noted.number + 1, claim: fresh }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> StartRecord {
        StartRecord {
            node: NodeId([1; 16]),
            number: 7,
            claim: ClaimId([2; 16]),
            host: "host-1".to_owned(),
            place: StartPlace { machine: [3; 16], hardware: [4; 16], directory: 5 },
            at_ms: 6,
        }
    }

    #[test]
    fn records_read_back() {
        assert_eq!(StartRecord::decode(&record().encode([9; 16])), Ok(record()));
    }

    #[test]
    fn a_place_differs_only_in_what_is_known_of_both() {
        let place = record().place;
        assert_eq!(place.difference(&place), None);
        for other in [
            StartPlace::default(),
            StartPlace { machine: [0; 16], ..place },
            StartPlace { hardware: [0; 16], ..place },
            StartPlace { directory: 0, ..place },
        ] {
            assert_eq!(place.difference(&other), None, "{other:?}");
            assert_eq!(other.difference(&place), None, "{other:?}");
        }
        let differs = |other: StartPlace| place.difference(&other).expect("another");
        assert!(differs(StartPlace { machine: [8; 16], ..place }).contains("machine"));
        assert!(differs(StartPlace { hardware: [8; 16], ..place }).contains("machine"));
        assert!(differs(StartPlace { directory: 8, ..place }).contains("directory"));
    }

    #[test]
    fn the_next_number_is_claimed_by_the_node_alone() {
        let (here, fresh) = (record().place, ClaimId([8; 16]));
        let noted = NotedStart { number: 7, claim: record().claim };
        assert_eq!(next(noted, None, &here, fresh), Ok(noted), "it died before it claimed it");
        let after = NotedStart { number: 8, claim: fresh };
        assert_eq!(next(noted, Some(&record()), &here, fresh), Ok(after));
        let other = StartRecord { claim: ClaimId([9; 16]), ..record() };
        assert_eq!(next(noted, Some(&other), &here, fresh), Err(Conflict::Overtaken));
        let there = StartPlace { directory: 6, ..here };
        let conflict = next(noted, Some(&record()), &there, fresh).expect_err("elsewhere");
        assert!(matches!(conflict, Conflict::Elsewhere(_)), "{conflict:?}");
    }
}
