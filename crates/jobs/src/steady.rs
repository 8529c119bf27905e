//! Time that never goes back, and never stands still. If the machine's clock is set back, time goes
//! on from where it was, so leases end and jobs start as before. If the clock is set forward, jobs
//! start by the new time. Leases go on by the old time, as a step would end all of them at once:
//! callers get the size of the step.

use parking_lot::Mutex;
use skerry_core::env::Clock;
use std::sync::Arc;
use std::time::Duration;

/// Smallest step, milliseconds by which the wall clock gains on the clock since boot. Less is
/// drift, or rounding.
const STEP_MS: u64 = 1_000;

/// The time that was told last, by both clocks.
#[derive(Debug, Clone, Copy, Default)]
struct LastTime {
    wall_ms: u64,
    boot: Duration,
    stepped_ms: u64,
}

/// A clock over another.
pub(crate) struct Steady {
    clock: Arc<dyn Clock>,
    told: Mutex<LastTime>,
}

/// The time now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since 1970.
    pub(crate) ms: u64,
    /// Sum of the clock's steps forward, milliseconds.
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

    /// The time, and the sum of the clock's steps.
    pub(crate) fn now(&self) -> Now {
        let mut told = self.told.lock();
        let (wall_ms, boot) = (self.clock.wall_ms(), self.clock.boot());
        let passed_ms = boot.saturating_sub(told.boot).as_millis() as u64;
        let goes_on_ms = if told.wall_ms == 0 { wall_ms } else { told.wall_ms + passed_ms };
        // The last time told stays the base while the clock is behind, so parts of milliseconds are
        // not lost.
        if let Some(step_ms) = wall_ms.checked_sub(goes_on_ms) {
            let step_ms = if step_ms > STEP_MS { step_ms } else { 0 };
            *told = LastTime { wall_ms, boot, stepped_ms: told.stepped_ms + step_ms };
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
