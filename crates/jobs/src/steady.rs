//! Time that never goes back, and never stands still: if the machine's clock is set back, it goes on from where it was,
//! so that leases end and jobs start as if it had not been.

use parking_lot::Mutex;
use skerry_core::env::Clock;
use std::sync::Arc;
use std::time::Duration;

/// What was told last, and when, since the machine was started.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    wall_ms: u64,
    boot: Duration,
}

/// A clock over another.
pub(crate) struct Steady {
    clock: Arc<dyn Clock>,
    told: Mutex<Told>,
}

impl Steady {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, told: Mutex::default() }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        let mut told = self.told.lock();
        let (wall_ms, boot) = (self.clock.wall_ms(), self.clock.boot());
        let passed_ms = boot.saturating_sub(told.boot).as_millis() as u64;
        let goes_on_ms = if told.wall_ms == 0 { 0 } else { told.wall_ms + passed_ms };
        if wall_ms >= goes_on_ms {
            *told = Told { wall_ms, boot };
            return wall_ms;
        }
        // What was told stays the base: parts of milliseconds are not lost.
        goes_on_ms
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
        for (wall_ms, boot_ms, now_ms) in [
            (1_000_000, 10, 1_000_000),
            (1_000_500, 500, 1_000_500),
            // Set back by ten minutes.
            (400_600, 600, 1_000_600),
            (402_600, 2_600, 1_002_600),
            // Set right again, and then forwards.
            (1_003_000, 3_000, 1_003_000),
            (9_000_000, 3_001, 9_000_000),
        ] {
            *hands.0.lock() = (wall_ms, boot_ms);
            assert_eq!(steady.now_ms(), now_ms);
        }
    }
}
