//! The outside world as the rest of Skerry may see it: time and randomness, handed in.
//!
//! The binary passes the system's own; the simulator passes a paused clock and a seeded generator,
//! so that the same seed gives the same run.

use std::time::Duration;

/// Reads the time. Never used to order anything that is stored.
pub trait Clock: Send + Sync {
    /// Time since boot, counting suspension: for gaps, ages and intervals.
    fn boot(&self) -> Duration;
    /// Milliseconds since 1970, UTC: for people, and for what people asked for at a time. The binary's clock holds steps
    /// of the system's against the boot clock ([`crate::wall`]).
    fn wall_ms(&self) -> u64;
}

/// A source of random bytes that are not repeated.
pub trait Entropy: Send + Sync {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// Sixteen random bytes, the stuff of ids and nonces.
    fn id_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }
}
