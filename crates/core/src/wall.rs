//! The time of day that a node believes: it checks a step of the wall clock against the boot clock.
//!
//! Both clocks run at one rate. So their difference changes only when a person, an NTP client or a
//! hypervisor sets the wall clock. [`WallTime`] follows a small change at once. A large change is a
//! *step*: the node goes on by the boot clock, and believes the step once it has held for [`HELD`].
//! So a clock that is a day ahead for seconds starts no job that is due in hours, and ends no
//! schedule.
//!
//! Must hold: the time never goes back and never stands still. After a believed step back it runs
//! at half speed until the wall clock has caught up.

use std::time::Duration;

/// The largest change that is followed at once, milliseconds. It covers leap seconds and the
/// corrections of NTP clients.
pub const SMALL_MS: u64 = 2_000;
/// The time for which a step must hold before it is believed, by the boot clock.
pub const HELD: Duration = Duration::from_secs(300);

/// An event of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The clock was set, forward (positive) or back. The old time goes on.
    Seen {
        /// Size of the step, milliseconds.
        by_ms: i64,
    },
    /// The clock was set right again before the step was believed.
    Gone,
    /// The step has held for [`HELD`]. From now on its time counts.
    Believed {
        /// Size of the step, milliseconds.
        by_ms: i64,
    },
}

/// A step that is not believed yet.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    offset_ms: i64,
    since: Duration,
}

/// The last reading that was given out.
#[derive(Debug, Clone, Copy)]
struct LastReading {
    wall_ms: u64,
    /// The boot clock's reading for it; the base while the time runs slowly.
    boot_ms: u64,
}

/// The time of day, from all readings of the two clocks so far.
#[derive(Debug, Default)]
pub struct WallTime {
    /// Wall clock minus boot clock, as believed; none before the first reading.
    offset_ms: Option<i64>,
    candidate: Option<Candidate>,
    told: Option<LastReading>,
}

impl WallTime {
    /// Makes a time that believes its first reading.
    pub const fn new() -> Self {
        Self { offset_ms: None, candidate: None, told: None }
    }

    /// Tells the time, milliseconds since 1970, from readings of both clocks at one moment.
    pub fn now_ms(&mut self, boot: Duration, wall_ms: u64) -> (u64, Option<Step>) {
        let boot_ms = millis(boot);
        let seen_ms = signed(wall_ms).saturating_sub(signed(boot_ms));
        // Up to this moment, time went on by the old difference.
        self.tell(self.offset_ms.unwrap_or(seen_ms), boot_ms);
        let step = self.judge(seen_ms, boot);
        (self.tell(self.offset_ms.unwrap_or(seen_ms), boot_ms), step)
    }

    /// Decides which difference of the clocks counts.
    fn judge(&mut self, seen_ms: i64, boot: Duration) -> Option<Step> {
        let offset_ms = *self.offset_ms.get_or_insert(seen_ms);
        if is_near(seen_ms, offset_ms) {
            self.offset_ms = Some(seen_ms);
            return self.candidate.take().map(|_| Step::Gone);
        }
        let by_ms = seen_ms.saturating_sub(offset_ms);
        match self.candidate {
            Some(held) if is_near(seen_ms, held.offset_ms) => {
                let is_believed = boot.saturating_sub(held.since) >= HELD;
                is_believed.then(|| {
                    (self.offset_ms, self.candidate) = (Some(seen_ms), None);
                    Step::Believed { by_ms }
                })
            }
            before => {
                self.candidate = Some(Candidate { offset_ms: seen_ms, since: boot });
                // A clock that is set again and again is reported once.
                before.is_none().then_some(Step::Seen { by_ms })
            }
        }
    }

    /// Keeps the time from going back and from standing still.
    fn tell(&mut self, offset_ms: i64, boot_ms: u64) -> u64 {
        let right_ms = u64::try_from(signed(boot_ms).saturating_add(offset_ms)).unwrap_or(0);
        let told = match self.told {
            Some(told) if told.wall_ms > right_ms => {
                let half_ms = boot_ms.saturating_sub(told.boot_ms) / 2;
                // Halving an odd number of milliseconds leaves one for the next reading.
                LastReading { wall_ms: told.wall_ms + half_ms, boot_ms: told.boot_ms + 2 * half_ms }
            }
            _ => LastReading { wall_ms: right_ms, boot_ms },
        };
        self.told = Some(told);
        told.wall_ms
    }
}

fn is_near(one_ms: i64, other_ms: i64) -> bool {
    one_ms.abs_diff(other_ms) <= SMALL_MS
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const HELD_MS: u64 = HELD.as_secs() * 1000;
    /// The wall clock at the start of the machine.
    const START_MS: u64 = 1_700_000_000_000;

    /// Reads at `boot_ms`, with the wall clock `ahead_ms` ahead of the truth. Gives how far the
    /// result is ahead.
    fn read(time: &mut WallTime, boot_ms: u64, ahead_ms: i64) -> (i64, Option<Step>) {
        let true_ms = START_MS + boot_ms;
        let wall_ms = true_ms.saturating_add_signed(ahead_ms);
        let (told_ms, step) = time.now_ms(Duration::from_millis(boot_ms), wall_ms);
        (told_ms as i64 - true_ms as i64, step)
    }

    #[test]
    fn a_day_forward_for_seconds_moves_nothing() {
        let (mut time, day) = (WallTime::new(), DAY_MS as i64);
        assert_eq!(read(&mut time, 0, 0), (0, None));
        assert_eq!(read(&mut time, 1_000, day), (0, Some(Step::Seen { by_ms: day })));
        for boot_ms in [1_001, 5_000, 20_999] {
            assert_eq!(read(&mut time, boot_ms, day), (0, None));
        }
        assert_eq!(read(&mut time, 21_000, 0), (0, Some(Step::Gone)));
        assert_eq!(read(&mut time, 21_000 + 2 * HELD_MS, 0), (0, None));
    }

    #[test]
    fn a_step_that_holds_is_believed() {
        for day in [DAY_MS as i64, 3_600_000] {
            let mut time = WallTime::new();
            read(&mut time, 0, 0);
            read(&mut time, 1_000, day);
            assert_eq!(read(&mut time, 1_000 + HELD_MS - 1, day), (0, None));
            let believed = (day, Some(Step::Believed { by_ms: day }));
            assert_eq!(read(&mut time, 1_000 + HELD_MS, day), believed);
            assert_eq!(read(&mut time, 2_000 + HELD_MS, day), (day, None));
        }
    }

    #[test]
    fn a_clock_that_is_set_again_begins_anew_and_is_told_of_once() {
        let (mut time, day) = (WallTime::new(), DAY_MS as i64);
        read(&mut time, 0, 0);
        assert!(read(&mut time, 1_000, day).1.is_some());
        for turn in 1..10 {
            let boot_ms = 1_000 + turn * (HELD_MS - 1);
            assert_eq!(read(&mut time, boot_ms, day * (1 + turn as i64)), (0, None));
        }
    }

    #[test]
    fn small_changes_are_followed_and_never_back() {
        let mut time = WallTime::new();
        read(&mut time, 0, 0);
        assert_eq!(read(&mut time, 1_000, 1_500), (1_500, None));
        // Set right again: half speed until it is.
        assert_eq!(read(&mut time, 2_000, 0), (1_500, None));
        assert_eq!(read(&mut time, 3_001, 0), (999, None), "half of 1000, and 1 is left");
        assert_eq!(read(&mut time, 3_002, 0), (999, None));
        assert_eq!(read(&mut time, 9_000, 0), (0, None));
    }

    #[test]
    fn after_a_step_back_time_runs_at_half_speed_and_meets_the_clock() {
        let hour = 3_600_000;
        let mut time = WallTime::new();
        read(&mut time, 0, 0);
        read(&mut time, 1_000, -hour);
        let at = 1_000 + HELD_MS;
        assert_eq!(read(&mut time, at, -hour).1, Some(Step::Believed { by_ms: -hour }));
        let mut before = read(&mut time, at, -hour).0;
        for second in 1..7_199 {
            let boot_ms = at + second * 1_000;
            let ahead = read(&mut time, boot_ms, -hour).0;
            assert_eq!(before - ahead, 500, "after {second} s");
            before = ahead;
        }
        assert_eq!(read(&mut time, at + 7_200_000, -hour), (-hour, None));
    }

    #[test]
    fn no_reading_is_too_strange() {
        let mut time = WallTime::new();
        for (boot_ms, wall_ms) in [(0, 0), (5, u64::MAX), (u64::MAX, 7), (3, 3), (0, u64::MAX)] {
            let before = time.told.map_or(0, |told| told.wall_ms);
            let now_ms = time.now_ms(Duration::from_millis(boot_ms), wall_ms).0;
            assert!(now_ms >= before, "{boot_ms} {wall_ms}");
        }
    }
}
