//! Holders: small objects below a volume. Each says that a clone or a fork hangs on the volume's
//! history, and how far back it reaches.
//!
//! The collector of a volume lists them instead of the whole bucket. A *clone's* holder is created
//! before the clone's descriptor. It is deleted when the clone never came to be, or when nothing of
//! the clone is left. A *fork* says that the volume was rolled back: refs before and after it are
//! not neighbours. It is created before the rollback.

use crate::envelope::{self, Kind};
use crate::hold::Span;
use crate::id::{SnapshotId, VolumeId};
use crate::label::numbers;
use crate::position::Number;
use crate::wire::SectionWriter;
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

const KIND: Kind = Kind { tag: *b"HOLD", what: "holder", known: &[1, 2] };

/// A clone or a fork that hangs on a volume's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A clone of a snapshot, or of a clone's clone. All that the span reaches may be referenced
    /// below it.
    Clone {
        /// The clone.
        clone: VolumeId,
        /// The snapshot that it was made from.
        snapshot: SnapshotId,
        /// The snapshot's part of the parent's history.
        span: Span,
    },
    /// A rollback. All that the span reaches may be referenced before and after it, and not
    /// between.
    Fork {
        /// The snapshot that the volume was put back to.
        snapshot: SnapshotId,
        /// The history up to the rollback.
        span: Span,
    },
}

impl Holder {
    /// The span that this holds: a segment that it reaches is undecided until the clone or fork is
    /// read.
    pub fn span(&self) -> &Span {
        match self {
            Self::Clone { span, .. } | Self::Fork { span, .. } => span,
        }
    }

    /// The encoded content. Readers go by the name.
    pub fn encode(&self, nonce: [u8; 16]) -> Bytes {
        let (clone, snapshot) = match self {
            Self::Clone { clone, snapshot, .. } => (Some(clone.0), snapshot),
            Self::Fork { snapshot, .. } => (None, snapshot),
        };
        let sections = SectionWriter::new().put_some(1, clone).put(2, &snapshot.0).finish();
        envelope::seal(KIND, nonce, &sections)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone { clone, snapshot, .. } => write!(f, "clone-{clone}-{snapshot}")?,
            Self::Fork { snapshot, .. } => write!(f, "fork-{snapshot}")?,
        }
        let Span { from, to, nodes } = self.span();
        for part in [from.0, from.1.0, to.0, to.1.0, nodes.0, nodes.1] {
            write!(f, "-{part:016x}")?;
        }
        Ok(())
    }
}

impl FromStr for Holder {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, rest) = text.split_once('-').ok_or(())?;
        let (first, rest) = rest.split_once('-').ok_or(())?;
        match kind {
            "clone" => {
                let (snapshot, rest) = rest.split_once('-').ok_or(())?;
                let clone = first.parse().map_err(|_| ())?;
                let snapshot = snapshot.parse().map_err(|_| ())?;
                Ok(Self::Clone { clone, snapshot, span: span(rest)? })
            }
            "fork" => {
                Ok(Self::Fork { snapshot: first.parse().map_err(|_| ())?, span: span(rest)? })
            }
            _ => Err(()),
        }
    }
}

fn span(text: &str) -> Result<Span, ()> {
    let [from, from_number, to, to_number, nodes, nodes_number] = numbers(text)?;
    Ok(Span {
        from: (from, Number(from_number)),
        to: (to, Number(to_number)),
        nodes: (nodes, nodes_number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_read_back() {
        let snapshot = SnapshotId([7; 16]);
        let span = Span { from: (1, Number(2)), to: (3, Number(4)), nodes: (5, 6) };
        let clone = Holder::Clone { clone: VolumeId([8; 16]), snapshot, span };
        for one in [clone, Holder::Fork { snapshot, span }] {
            assert_eq!(one.to_string().parse(), Ok(one));
            assert!(one.to_string().len() < 200, "a file's name has at most 255 bytes");
        }
        assert_eq!("clone-7".parse::<Holder>(), Err(()));
    }
}
