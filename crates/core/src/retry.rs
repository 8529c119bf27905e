//! The decision whether and when to repeat a failed call to a store: one for all calls.
//!
//! Failures are of five kinds ([`Trouble`]). All but one may pass: by themselves, or when a person
//! mends the store. The caller's [`Patience`] decides how long waiting is worth it. A guest waits
//! as for a slow disk; a person at a command line wants an answer. Executors wait and call again;
//! they decide nothing.

use std::time::Duration;

/// Says why a call to a store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Busy, out of reach, or the answer was lost or cut short. Passes by itself.
    Busy,
    /// Access is denied. Keys expired and will be renewed, or a person corrects them.
    Denied,
    /// The store has no room. A person makes some.
    Full,
    /// The bucket itself is missing: its provider is in trouble, or its disk is not mounted.
    Away,
    /// Repeating the call will fail again.
    Permanent,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Busy, Self::Denied, Self::Full, Self::Away, Self::Permanent];

    /// True if the same call may succeed later.
    pub fn can_pass(self) -> bool {
        self != Self::Permanent
    }
}

/// The time for which a caller tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The longest wait before the second try. It doubles with every further try.
    pub backoff_first: Duration,
    /// The longest wait before any try.
    pub backoff_max: Duration,
    /// The latest start of a try, counted from the first. Without it, the caller never gives up.
    pub wait_max: Option<Duration>,
    /// True if the caller waits for trouble that only a person can mend. If not, it tries once
    /// more, with fresh keys.
    pub for_people: bool,
}

impl Patience {
    /// For a person or a program that wants an answer soon: rides out trouble of a few moments.
    pub const COMMAND: Self = Self {
        backoff_first: Duration::from_millis(50),
        backoff_max: Duration::from_secs(1),
        wait_max: Some(Duration::from_secs(3)),
        for_people: false,
    };

    /// For a look that others wait for, and that can as well happen later.
    pub const LOOK: Self = Self { wait_max: Some(Duration::from_millis(200)), ..Self::COMMAND };

    /// For a guest, and for all that must be done in the end: waits as for a slow disk.
    pub const GUEST: Self = Self {
        backoff_first: Duration::from_millis(100),
        backoff_max: Duration::from_secs(2),
        wait_max: None,
        for_people: true,
    };
}

/// The decision about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Make the call again after this time.
    After(Duration),
    /// The trouble may pass, and this caller has waited long enough.
    GiveUp,
    /// The trouble will not pass.
    Permanent,
}

/// Decides about a call that failed `tries` times, the first time `elapsed` ago. `jitter` is
/// random, so that calls that failed together do not come back together.
pub fn decide(
    patience: &Patience,
    trouble: Trouble,
    tries: u32,
    elapsed: Duration,
    jitter: u16,
) -> Verdict {
    let by_people = match trouble {
        Trouble::Permanent => return Verdict::Permanent,
        Trouble::Busy => false,
        Trouble::Denied | Trouble::Full | Trouble::Away => true,
    };
    if by_people && !patience.for_people && tries > 1 {
        return Verdict::GiveUp;
    }
    let doublings = tries.saturating_sub(1).min(16);
    let longest = patience.backoff_first.saturating_mul(1 << doublings).min(patience.backoff_max);
    let share = 0.5 + f64::from(jitter) / f64::from(u16::MAX) / 2.0;
    let wait = longest.mul_f64(share);
    match patience.wait_max {
        Some(max) if elapsed.saturating_add(wait) > max => Verdict::GiveUp,
        _ => Verdict::After(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Patience; 3] = [Patience::COMMAND, Patience::LOOK, Patience::GUEST];
    const JITTERS: [u16; 3] = [0, 30_000, u16::MAX];

    /// Checks every kind, caller, number of tries, time and jitter.
    fn all(mut check: impl FnMut(&Patience, Trouble, u32, Duration, Verdict)) {
        for patience in &ALL {
            for trouble in Trouble::ALL {
                for tries in (1..40).chain([u32::MAX]) {
                    for elapsed_ms in [0, 1, 100, 199, 1_000, 2_999, 3_000, 3_001, 1 << 40] {
                        for jitter in JITTERS {
                            let elapsed = Duration::from_millis(elapsed_ms);
                            let verdict = decide(patience, trouble, tries, elapsed, jitter);
                            check(patience, trouble, tries, elapsed, verdict);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_is_permanent_is_called_so() {
        all(|_, trouble, _, _, verdict| {
            assert_eq!(verdict == Verdict::Permanent, !trouble.can_pass(), "{trouble:?}");
        });
    }

    #[test]
    fn a_guest_never_gives_up() {
        all(|patience, trouble, tries, _, verdict| {
            if *patience == Patience::GUEST && trouble.can_pass() {
                assert!(matches!(verdict, Verdict::After(_)), "{trouble:?}, {tries} tries");
            }
        });
    }

    #[test]
    fn no_try_begins_after_the_deadline_and_every_wait_is_bounded() {
        all(|patience, trouble, tries, elapsed, verdict| {
            let Verdict::After(wait) = verdict else { return };
            let case = format!("{trouble:?}, {tries} tries, {elapsed:?}");
            assert!(patience.wait_max.is_none_or(|max| elapsed + wait <= max), "{case}");
            assert!(wait <= patience.backoff_max && wait >= patience.backoff_first / 2, "{case}");
            assert!(tries > 1 || wait <= patience.backoff_first, "{case}");
        });
    }

    #[test]
    fn what_people_must_mend_is_tried_once_more_for_a_command() {
        for trouble in Trouble::ALL {
            let verdict = |tries| decide(&Patience::COMMAND, trouble, tries, Duration::ZERO, 0);
            match trouble {
                Trouble::Permanent => assert_eq!(verdict(1), Verdict::Permanent),
                Trouble::Busy => assert!(matches!(verdict(9), Verdict::After(_))),
                Trouble::Denied | Trouble::Full | Trouble::Away => {
                    assert!(matches!(verdict(1), Verdict::After(_)), "{trouble:?}");
                    assert_eq!(verdict(2), Verdict::GiveUp, "{trouble:?}");
                }
            }
        }
    }

    #[test]
    fn waits_double_and_are_spread() {
        let wait = |tries, jitter| match decide(
            &Patience::GUEST,
            Trouble::Busy,
            tries,
            Duration::ZERO,
            jitter,
        ) {
            Verdict::After(wait) => wait.as_millis(),
            other => panic!("{other:?}"),
        };
        let longest: Vec<_> = (1..9).map(|tries| wait(tries, u16::MAX)).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        let shortest: Vec<_> = (1..9).map(|tries| wait(tries, 0)).collect();
        assert_eq!(shortest, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
    }
}
