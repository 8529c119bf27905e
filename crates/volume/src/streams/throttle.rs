//! Limits lines about a lasting trouble to one in a while.

use parking_lot::Mutex;
use std::time::Duration;

/// Time between two lines about one trouble.
const INTERVAL: Duration = Duration::from_secs(600);

/// Lets a line about a trouble through once in a while: the time of the last one.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<Option<Duration>>);

impl Throttle {
    /// True if a line about the trouble is due, on the boot-time clock: the first time, and then
    /// once in a while.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| now.saturating_sub(last) >= INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_met_every_second_is_told_now_and_then() {
        let told = Throttle::default();
        let times = (0..3600).filter(|second| told.is_due(Duration::from_secs(*second)));
        assert_eq!(times.collect::<Vec<_>>(), [0, 600, 1200, 1800, 2400, 3000]);
    }
}
