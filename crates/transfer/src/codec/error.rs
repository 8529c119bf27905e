//! Rules of the page that a frame broke.

use super::{Kind, Lane};

/// A frame that breaks a rule. The connection that carried it can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kind is none of this version.
    #[error("message kind {kind} is unknown")]
    UnknownKind {
        /// Number in the head.
        kind: u8,
    },
    /// The lane is none of the four.
    #[error("lane {lane} is unknown")]
    UnknownLane {
        /// Number in the head.
        lane: u8,
    },
    /// The kind may not use this lane.
    #[error("{kind:?} came on lane {lane:?}")]
    WrongLane {
        /// Kind of the message.
        kind: Kind,
        /// Lane in the head.
        lane: Lane,
    },
    /// The message needs a device and has none, or has one and needs none.
    #[error("{kind:?} came with device number {device}")]
    WrongDevice {
        /// Kind of the message.
        kind: Kind,
        /// Number in the head.
        device: u16,
    },
    /// The payload is longer than its kind and lane permit.
    #[error("{kind:?} of {bytes} bytes is longer than {limit}")]
    TooLong {
        /// Kind of the message.
        kind: Kind,
        /// Length in the head.
        bytes: usize,
        /// Longest permitted payload.
        limit: usize,
    },
    /// The payload ends within a field, or goes on after the last one.
    #[error("{kind:?} has a payload of a wrong length")]
    WrongLength {
        /// Kind of the message.
        kind: Kind,
    },
    /// A list is empty, or has more entries than permitted.
    #[error("{kind:?} has {count} entries, of 1 to {limit}")]
    WrongCount {
        /// Kind of the message.
        kind: Kind,
        /// Entries in the message.
        count: usize,
        /// Most entries permitted.
        limit: usize,
    },
    /// A field has a value that its rules exclude.
    #[error("{kind:?} has a wrong {field}")]
    WrongField {
        /// Kind of the message.
        kind: Kind,
        /// Name of the field, as on the page.
        field: &'static str,
    },
    /// The frame does not follow the one before it.
    #[error("frame {found} came in place of {expected}")]
    WrongSequence {
        /// Number that comes next.
        expected: u64,
        /// Number in the head.
        found: u64,
    },
    /// Both sides know no common version.
    #[error("the peer speaks versions {lowest} to {highest}, and not {ours}")]
    NoCommonVersion {
        /// Lowest version of the peer.
        lowest: u16,
        /// Highest version of the peer.
        highest: u16,
        /// Version of this crate.
        ours: u16,
    },
}

/// Result of coding.
pub type Result<T> = std::result::Result<T, Error>;
