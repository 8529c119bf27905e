//! Memory of both sides about a device, so that a new session goes on where the old one ended.
//!
//! The source numbers its reads of a device without gaps, from 1. The receiver notes each number
//! whose bytes it wrote, and names the highest below which none is missing. The source forgets what
//! the receiver named, and sends the rest again.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{Generation, Range};

/// Most reads that may be sent and not confirmed: the source waits above it.
pub const UNCONFIRMED_MAX: usize = 65_536;
/// Most numbers that the receiver notes beyond the first missing one.
pub const WRITTEN_MAX: usize = UNCONFIRMED_MAX;

/// Reads of a device that were sent, and that the receiver has not confirmed.
#[derive(Debug, Default)]
pub struct Unconfirmed {
    sent: BTreeMap<Generation, Range>,
    last: Generation,
}

impl Unconfirmed {
    /// Notes a read that is sent now, and numbers it. Nothing if too many wait.
    #[must_use]
    pub fn add(&mut self, range: Range) -> Option<Generation> {
        if self.sent.len() >= UNCONFIRMED_MAX {
            return None;
        }
        self.last.0 += 1;
        self.sent.insert(self.last, range);
        Some(self.last)
    }

    /// Forgets what the receiver has. A `Got` that comes twice or late changes nothing.
    pub fn confirm(&mut self, got: Generation) {
        self.sent = self.sent.split_off(&Generation(got.0.saturating_add(1)));
    }

    /// Takes all ranges that must be read and sent again, after an `Accept` with this generation.
    ///
    /// The source adds each again when it reads it, which gives it a new number. The numbers before
    /// never come: the `Offer` named [`Unconfirmed::next`] as the first that does.
    #[must_use]
    pub fn resume(&mut self, accepted: Generation) -> Vec<Range> {
        self.confirm(accepted);
        std::mem::take(&mut self.sent).into_values().collect()
    }

    /// Number of the next read.
    #[must_use]
    pub fn next(&self) -> Generation {
        Generation(self.last.0 + 1)
    }

    /// Reads that wait to be confirmed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sent.len()
    }

    /// Says whether the receiver has everything that was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}

/// Numbers of the reads that the receiver has written.
#[derive(Debug, Default)]
pub struct Written {
    got: Generation,
    beyond: BTreeSet<Generation>,
}

impl Written {
    /// Notes that the bytes of a read are written, all of them. Says whether there was room.
    ///
    /// A receiver without room ends the session: its peer sent more than it may.
    #[must_use]
    pub fn note(&mut self, generation: Generation) -> bool {
        if generation <= self.got {
            return true;
        }
        if self.beyond.len() >= WRITTEN_MAX {
            return false;
        }
        self.beyond.insert(generation);
        while self.beyond.first() == Some(&Generation(self.got.0 + 1)) {
            self.beyond.pop_first();
            self.got.0 += 1;
        }
        true
    }

    /// Number up to which everything is written, for `Got` and `Accept`.
    #[must_use]
    pub fn got(&self) -> Generation {
        self.got
    }

    /// Begins a session in which the source's first read has this number. All that was sent before
    /// and not confirmed comes again, with a new number.
    pub fn resume(&mut self, first: Generation) {
        self.beyond.clear();
        self.got = self.got.max(Generation(first.0.saturating_sub(1)));
    }
}
