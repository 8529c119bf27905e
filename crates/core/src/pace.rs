//! Pace of destage: while clients are active it takes the processor time that they leave, until
//! something needs it done. Checkpoints and collections rest by the same decision, between the
//! nodes that they write and read.
//!
//! Destage rests after each step in proportion to the step's computing time. So its share of a
//! processor does not depend on the machine's speed. The fuller the log and the index, the shorter
//! the rest; from half of either on there is none. Then destage keeps up with clients that write at
//! full speed, and the log between them is a cushion.

use std::time::Duration;

/// Share of the log or of the index from which on destage does not rest, percent.
pub const FILLED_PERCENT: u64 = 50;
/// The longest rest, as a multiple of the step before it: the work then takes a fifth of one
/// processor.
pub const RESTS_PER_STEP: u32 = 4;
/// The longest rest.
pub const REST_MAX: Duration = Duration::from_secs(2);
/// Rate below which clients leave a processor almost idle, requests a second.
pub const BUSY_PER_SECOND: u64 = 200;

/// State on which the length of a rest depends.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// A caller waits for the next step.
    pub is_wanted: bool,
    /// Clients send [`BUSY_PER_SECOND`] requests or more.
    pub clients_active: bool,
    /// Used share of the log or of the volume's index, whichever is higher, percent.
    pub filled_percent: u64,
    /// Time for which the oldest record has waited. For a checkpoint or a collection, the time
    /// since it began.
    pub age: Duration,
    /// The longest time that it should wait.
    pub age_max: Duration,
}

/// Decides the rest after a step that computed for `step`.
pub fn rest(step: Duration, need: &Need) -> Duration {
    if need.is_wanted || !need.clients_active || need.age >= need.age_max {
        return Duration::ZERO;
    }
    let left = FILLED_PERCENT.saturating_sub(need.filled_percent) as u32;
    (step * RESTS_PER_STEP * left / FILLED_PERCENT as u32).min(REST_MAX)
}

/// True if this number of requests within this time makes clients active.
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
