//! Place of a record: one number that grows over the whole life of a log.
//!
//! The upper half is the sequence of the file's use, the lower half the byte offset in the file.
//! Only the format and the search for the file may rely on that outside this file.

use std::fmt;

/// The place of a record, or the end of one, in a log. Totally ordered; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition(u64);

impl LogPosition {
    /// The position before every record of every log.
    pub const ZERO: Self = Self(0);
    /// The position after every record of every log: `trim(group, LogPosition::MAX)` lets go of a
    /// whole group.
    pub const MAX: Self = Self(u64::MAX);

    /// The position at `offset` bytes in the file use `sequence`.
    pub(crate) const fn new(sequence: u32, offset: u32) -> Self {
        Self(((sequence as u64) << 32) | offset as u64)
    }

    /// Takes a number from [`Self::as_u64`], for callers that keep positions at rest.
    pub const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    /// Gives a number with the same order, for callers that keep positions at rest.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The sequence of the file use that holds this place.
    pub(crate) const fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Bytes from the beginning of that file.
    pub(crate) const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// The position `bytes` further on. The caller has checked that the file reaches so far.
    pub(crate) const fn plus(self, bytes: u32) -> Self {
        Self(self.0 + bytes as u64)
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence(), self.offset())
    }
}

impl fmt::Debug for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
