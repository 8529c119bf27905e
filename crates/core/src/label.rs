//! Labels: small objects that lead from a snapshot's name to the snapshot. Their own *names* carry
//! all that a listing must show. One listing gives all snapshots of a volume, or all of one name,
//! in any number.
//!
//! A label is created before its snapshot's ref and deleted after it. It decides nothing: a reader
//! of the label reads the ref, and looks for the tombstone.

use crate::envelope::{self, Kind};
use crate::hold::Span;
use crate::id::SnapshotId;
use crate::position::Number;
use crate::refs::Ref;
use crate::wire::{FormatError, SectionWriter};
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

const KIND: Kind = Kind { tag: *b"LABL", what: "label", known: &[1] };

/// Ending of the name of the object that says that a snapshot's deletion has begun.
const ENDING: &str = "ending";

/// Content of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The snapshot.
    pub id: SnapshotId,
    /// Time at which its barrier was written, milliseconds since 1970.
    pub created_ms: u64,
    /// The volume's size at that moment, bytes.
    pub size_bytes: u64,
    /// The part of the volume's history that it holds.
    pub span: Span,
}

/// An object below a snapshot's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labelled {
    /// The snapshot exists, or will soon.
    Snapshot(Label),
    /// The snapshot's deletion has begun; the volume's next owner finishes it.
    Ending(SnapshotId),
}

impl Label {
    /// The label of a snapshot's ref; none of a head's.
    pub fn of(found: &Ref) -> Option<Self> {
        let info = found.snapshot.as_ref()?;
        Some(Self {
            id: info.id,
            created_ms: info.created_ms,
            size_bytes: info.size_bytes,
            span: Span::of_snapshot(found),
        })
    }
}

/// The encoded content of a label or an ending: it only names the snapshot.
pub fn encode(id: SnapshotId, nonce: [u8; 16]) -> Bytes {
    envelope::seal(KIND, nonce, &SectionWriter::new().put(1, &id.0).finish())
}

/// Reads the content of a label or an ending.
pub fn decode(bytes: &[u8]) -> Result<SnapshotId, FormatError> {
    Ok(SnapshotId(envelope::open(KIND, bytes)?.need(1)?.array()?))
}

impl fmt::Display for Labelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ending(id) => write!(f, "{id}-{ENDING}"),
            Self::Snapshot(label) => {
                let Label { id, created_ms, size_bytes, span } = label;
                let (from, to) = (span.from, span.to);
                write!(f, "{id}-{created_ms:016x}-{size_bytes:016x}")?;
                for part in [from.0, from.1.0, to.0, to.1.0, span.nodes.0, span.nodes.1] {
                    write!(f, "-{part:016x}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Labelled {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, rest) = text.split_once('-').ok_or(())?;
        let id = id.parse().map_err(|_| ())?;
        if rest == ENDING {
            return Ok(Self::Ending(id));
        }
        let [created_ms, size_bytes, from, from_number, to, to_number, nodes, nodes_number] =
            numbers(rest)?;
        let span = Span {
            from: (from, Number(from_number)),
            to: (to, Number(to_number)),
            nodes: (nodes, nodes_number),
        };
        Ok(Self::Snapshot(Label { id, created_ms, size_bytes, span }))
    }
}

/// Parses exactly `N` numbers of 16 hexadecimal digits, parted by hyphens.
pub(crate) fn numbers<const N: usize>(text: &str) -> Result<[u64; N], ()> {
    let all: Result<Vec<u64>, ()> = text
        .split('-')
        .map(|part| match part.len() {
            16 => u64::from_str_radix(part, 16).map_err(|_| ()),
            _ => Err(()),
        })
        .collect();
    all?.try_into().map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_back() {
        let id = SnapshotId([7; 16]);
        let span = Span { from: (1, Number(2)), to: (3, Number(4)), nodes: (5, u64::MAX) };
        let label = Labelled::Snapshot(Label { id, created_ms: 8, size_bytes: 9, span });
        for one in [label, Labelled::Ending(id)] {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        assert!(label.to_string().len() < 200, "a file's name has at most 255 bytes");
        assert_eq!("x-ending".parse::<Labelled>(), Err(()));
        assert_eq!(decode(&encode(id, [0; 16])), Ok(id));
    }
}
