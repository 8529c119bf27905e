//! How fast destage goes: while clients are active it takes what they leave, until something needs
//! it done. Checkpoints and collections go by the same decision, between the nodes that they write
//! and read.
//!
//! After each step it rests in proportion to what the step computed, so its share of a processor does not depend on how
//! fast the machine is. The rest gets shorter the fuller the log and the index are, and there is none from half of either
//! on: what clients write at full speed is destaged as fast, with some of the log in between as a cushion.

use std::time::Duration;

/// From this share of the log or of the index on there is no rest, percent: where pressure begins.
pub const FILLED_PERCENT: u64 = 50;
/// The longest rest, as a multiple of the step before it: the work then takes a fifth of one
/// processor.
pub const RESTS_PER_STEP: u32 = 4;
/// The longest rest.
pub const REST_MAX: Duration = Duration::from_secs(2);
/// Clients that send fewer requests a second than this leave a processor almost idle.
pub const BUSY_PER_SECOND: u64 = 200;

/// What background work is needed for.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// A caller waits for what is done next.
    pub is_wanted: bool,
    /// Clients send [`BUSY_PER_SECOND`] requests or more.
    pub clients_active: bool,
    /// How much of the log or of the volume's index is used, whichever is more, percent.
    pub filled_percent: u64,
    /// How long the oldest record has waited; or how long a checkpoint or a collection has been
    /// under way.
    pub age: Duration,
    /// How long it should wait at most.
    pub age_max: Duration,
}

/// How long to rest after a step that computed for `step`.
pub fn rest(step: Duration, need: &Need) -> Duration {
    if need.is_wanted || !need.clients_active || need.age >= need.age_max {
        return Duration::ZERO;
    }
    let left = FILLED_PERCENT.saturating_sub(need.filled_percent) as u32;
    (step * RESTS_PER_STEP * left / FILLED_PERCENT as u32).min(REST_MAX)
}

/// True if so many requests in so much time are many.
pub fn are_active(requests: u64, within: Duration) -> bool {
    requests.saturating_mul(1000) >= BUSY_PER_SECOND * within.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);
    const BUSY: Need = Need {
        is_wanted: false,
        clients_active: true,
        filled_percent: 0,
        age: Duration::ZERO,
        age_max: Duration::from_secs(30),
    };

    #[test]
    fn it_rests_only_while_clients_are_active_and_nothing_needs_it() {
        assert_eq!(rest(STEP, &BUSY), STEP * RESTS_PER_STEP);
        assert_eq!(rest(STEP, &Need { is_wanted: true, ..BUSY }), Duration::ZERO);
        assert_eq!(rest(STEP, &Need { clients_active: false, ..BUSY }), Duration::ZERO);
        assert_eq!(rest(STEP, &Need { age: BUSY.age_max, ..BUSY }), Duration::ZERO);
    }

    #[test]
    fn the_fuller_the_shorter() {
        let at = |filled_percent| rest(STEP, &Need { filled_percent, ..BUSY });
        assert!((1..=FILLED_PERCENT).all(|percent| at(percent) < at(percent - 1)));
        assert!((FILLED_PERCENT..=200).all(|percent| at(percent) == Duration::ZERO));
        assert_eq!(rest(Duration::from_secs(3600), &BUSY), REST_MAX);
    }

    #[test]
    fn few_requests_leave_the_processor() {
        assert!(!are_active(0, Duration::from_millis(100)));
        assert!(!are_active(19, Duration::from_millis(100)));
        assert!(are_active(20, Duration::from_millis(100)));
        assert!(are_active(u64::MAX, Duration::from_secs(1)));
    }
}
