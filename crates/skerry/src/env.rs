//! The system's clock and randomness: the only place that asks for either.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use skerry_core::env::{Clock, Entropy};

/// The system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn boot(&self) -> Duration {
        // Goes on while the machine sleeps, unlike the monotonic clock: a gap must be seen.
        duration(clock_gettime(ClockId::Boottime))
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(duration(clock_gettime(ClockId::Realtime)).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A time before its clock's zero counts as zero.
fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The system's source of random bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[allow(clippy::disallowed_methods, reason = "this is where randomness comes from")]
    fn fill(&self, out: &mut [u8]) {
        // Fails only on systems without a random source at all; ids that might repeat would
        // destroy data, so there is no going on.
        getrandom::fill(out).expect("the system has a source of random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_ids_differ() {
        let before = SystemClock.boot();
        assert!(SystemClock.boot() >= before);
        assert!(SystemClock.wall_ms() > 1_600_000_000_000, "it is later than 2020");
        assert_ne!(SystemEntropy.id_bytes(), SystemEntropy.id_bytes());
    }
}
