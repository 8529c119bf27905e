//! The outside world for the rest of Skerry: time and randomness, passed in.
//!
//! The binary passes the system's own. The simulator passes a paused clock and a seeded generator:
//! one seed gives one run.

use std::time::Duration;

/// Reads the time. No order of stored data may depend on it.
pub trait Clock: Send + Sync {
    /// Time since boot, counting suspension: for gaps, ages and intervals.
    fn boot(&self) -> Duration;
    /// Milliseconds since 1970, UTC: for people, and for requests that name a time. The binary's
    /// clock checks steps of the system's clock against the boot clock ([`crate::wall`]).
    fn wall_ms(&self) -> u64;
}

/// A source of random bytes that never repeat.
pub trait Entropy: Send + Sync {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// Gives sixteen random bytes, for ids and nonces.
    fn id_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }
}
