//! Time that never goes back, and never stands still: if the machine's clock is set back, it goes on from where it was,
//! so that leases end and jobs start as if it had not been. If the clock is set forward, jobs start by the new time, and
//! it is told by how much, so that leases go on by the old: a step would end all of them at once.

use parking_lot::Mutex;
use skerry_core::env::Clock;
use std::sync::Arc;
use std::time::Duration;

/// A step: what the clock on the wall goes forward by more than the clock since boot. Less is drift, or how clocks round.
const STEP_MS: u64 = 1_000;

/// What was told last, and when, since the machine was started.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    wall_ms: u64,
    boot: Duration,
    stepped_ms: u64,
}

/// A clock over another.
pub(crate) struct Steady {
    clock: Arc<dyn Clock>,
    told: Mutex<Told>,
}

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since 1970.
    pub(crate) ms: u64,
    /// By how much the clock was set forward, all in all, milliseconds.
    pub(crate) stepped_ms: u64,
}

impl Steady {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, told: Mutex::default() }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now().ms
    }

    /// The same, and by how much the clock was set.
    pub(crate) fn now(&self) -> Now {
        let mut told = self.told.lock();
        let (wall_ms, boot) = (self.clock.wall_ms(), self.clock.boot());
        let passed_ms = boot.saturating_sub(told.boot).as_millis() as u64;
        let goes_on_ms = if told.wall_ms == 0 { wall_ms } else { told.wall_ms + passed_ms };
        // What was told stays the base while the clock is behind: parts of milliseconds are not lost.
        if let Some(step_ms) = wall_ms.checked_sub(goes_on_ms) {
            let step_ms = if step_ms > STEP_MS { step_ms } else { 0 };
            *told = Told { wall_ms, boot, stepped_ms: told.stepped_ms + step_ms };
        }
        Now { ms: wall_ms.max(goes_on_ms), stepped_ms: told.stepped_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Hands(Mutex<(u64, u64)>);

    impl Clock for Hands {
        fn boot(&self) -> Duration {
            Duration::from_millis(self.0.lock().1)
        }

        fn wall_ms(&self) -> u64 {
            self.0.lock().0
        }
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let hands = Arc::new(Hands::default());
        let steady = Steady::new(hands.clone());
        for (wall_ms, boot_ms, now_ms, stepped_ms) in [
            (1_000_000, 10, 1_000_000, 0),
            (1_000_500, 500, 1_000_500, 0),
            // Set back by ten minutes.
            (400_600, 600, 1_000_600, 0),
            (402_600, 2_600, 1_002_600, 0),
            // Set right again, and then forwards, and again.
            (1_003_000, 3_000, 1_003_000, 0),
            (9_000_000, 3_001, 9_000_000, 7_996_999),
            (9_000_009, 3_010, 9_000_009, 7_996_999),
            (9_005_010, 3_011, 9_005_010, 8_001_999),
        ] {
            *hands.0.lock() = (wall_ms, boot_ms);
            assert_eq!(steady.now(), Now { ms: now_ms, stepped_ms });
        }
    }
}
