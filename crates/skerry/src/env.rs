//! The system's clock, its randomness, and the environment's variables for stores.
//!
//! No other module asks for a clock or for random bytes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use skerry_core::env::{Clock, Entropy};
use skerry_core::wall::{HELD, Step, WallTime};

/// The time of day that this process believes. One for all its parts, so that the broker and the
/// schedules agree.
static WALL_TIME: Mutex<WallTime> = Mutex::new(WallTime::new());

/// The system's clocks. The wall clock is checked against the boot clock, by [`skerry_core::wall`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn boot(&self) -> Duration {
        // Goes on while the machine sleeps, unlike the monotonic clock: a gap must show.
        duration(clock_gettime(ClockId::Boottime))
    }

    fn wall_ms(&self) -> u64 {
        let (now_ms, step) = {
            // A panic elsewhere leaves it whole: every change is one assignment.
            let mut time = WALL_TIME.lock().unwrap_or_else(PoisonError::into_inner);
            time.now_ms(self.boot(), raw_wall_ms())
        };
        if let Some(step) = step {
            say(step);
        }
        now_ms
    }
}

/// The wall clock as it stands.
fn raw_wall_ms() -> u64 {
    let wall = duration(clock_gettime(ClockId::Realtime)).as_millis();
    let wall_ms = u64::try_from(wall).unwrap_or(u64::MAX);
    #[cfg(test)]
    let wall_ms = wall_ms + tests::AHEAD_MS.get();
    wall_ms
}

fn say(step: Step) {
    let held_s = HELD.as_secs();
    match step {
        Step::Seen { by_ms } => tracing::warn!(
            by_ms,
            held_s,
            "the system's clock was set: jobs and schedules go on by the old time, and follow if \
             the new one stays"
        ),
        Step::Gone => tracing::info!("the system's clock was set right again"),
        Step::Believed { by_ms } if by_ms < 0 => tracing::warn!(
            by_ms,
            "the system's clock was set back: jobs and schedules run ahead of it, and slow down \
             until they agree; a restart lets them agree at once"
        ),
        Step::Believed { by_ms } => {
            tracing::warn!(
                by_ms,
                "the system's clock was set forward: jobs and schedules follow it now"
            );
        }
    }
}

/// Converts a time. A time before its clock's zero counts as zero.
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
        // Fails only on systems without a random source at all. Ids that might repeat would destroy
        // data, so there is no going on.
        getrandom::fill(out).expect("the system has a source of random bytes");
    }
}

/// Randomness and time for a log.
pub(crate) fn log_env() -> skerry_log::Env {
    let random = || {
        let mut bytes = [0; 8];
        SystemEntropy.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    let clock = || u64::try_from(SystemClock.boot().as_nanos()).unwrap_or(u64::MAX);
    skerry_log::Env::new(random, clock)
}

/// The part of the environment that stores may use. `HOME` leads to the files of AWS's tools.
pub(crate) fn cloud_environment() -> BTreeMap<String, String> {
    const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
    let is_of_store = |name: &str| name == "HOME" || PREFIXES.iter().any(|p| name.starts_with(p));
    std::env::vars().filter(|(name, _)| is_of_store(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Lead of the wall clock, in this thread.
        pub(super) static AHEAD_MS: Cell<u64> = const { Cell::new(0) };
    }

    /// All parts of the node ask the wall clock that is held against the boot clock.
    #[test]
    fn a_clock_that_is_set_forward_is_not_followed_at_once() {
        const DAY_MS: u64 = 86_400_000;
        let before = SystemClock.wall_ms();
        AHEAD_MS.set(DAY_MS);
        let after = SystemClock.wall_ms();
        AHEAD_MS.set(0);
        assert!((before..before + DAY_MS / 2).contains(&after), "{before}, {after}");
    }

    #[test]
    fn time_goes_on_and_ids_differ() {
        let before = SystemClock.boot();
        assert!(SystemClock.boot() >= before);
        assert!(SystemClock.wall_ms() > 1_600_000_000_000, "it is later than 2020");
        assert_ne!(SystemEntropy.id_bytes(), SystemEntropy.id_bytes());
    }
}
