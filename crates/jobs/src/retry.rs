//! Retries of failed jobs.

use crate::error::{Error, Result};

/// The largest factor, percent.
pub const FACTOR_PERCENT_MAX: u16 = 10_000;

/// Number and times of retries. The default: three, after 1 s, 2 s and 4 s, each up to a tenth
/// earlier or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// Number of retries, after the first attempt.
    pub retries: u16,
    /// Interval before the first retry, milliseconds.
    pub initial_ms: u32,
    /// Longest interval, milliseconds, without jitter.
    pub max_ms: u32,
    /// Factor from one interval to the next, percent: 100 to 10,000.
    pub factor_percent: u16,
    /// Largest jitter of a retry, earlier or later, percent of the interval: up to 100.
    pub jitter_percent: u8,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 3,
            initial_ms: 1_000,
            max_ms: 300_000,
            factor_percent: 200,
            jitter_percent: 10,
        }
    }
}

impl RetryPolicy {
    /// No retry.
    pub const NEVER: Self =
        Self { retries: 0, initial_ms: 0, max_ms: 0, factor_percent: 100, jitter_percent: 0 };

    /// Checks that the numbers make sense.
    ///
    /// # Errors
    /// `Invalid` names the field.
    pub fn check(&self) -> Result<()> {
        if !(100..=FACTOR_PERCENT_MAX).contains(&self.factor_percent) {
            let detail =
                format!("the retry factor {}% is not between 100% and 10000%", self.factor_percent);
            return Err(Error::invalid(detail));
        }
        if self.jitter_percent > 100 {
            let detail = format!("the retry jitter {}% is over 100%", self.jitter_percent);
            return Err(Error::invalid(detail));
        }
        if self.max_ms < self.initial_ms {
            let detail = format!(
                "the longest retry interval, {} ms, is shorter than the first, {} ms",
                self.max_ms, self.initial_ms
            );
            return Err(Error::invalid(detail));
        }
        Ok(())
    }

    /// Delay before retry number `retry` (the first is 0), milliseconds. `random` decides the
    /// jitter. Nothing if there is no such retry.
    pub fn delay_ms(&self, retry: u32, random: u64) -> Option<u64> {
        if retry >= u32::from(self.retries) {
            return None;
        }
        let mut interval = u64::from(self.initial_ms);
        for _ in 0..retry {
            let next =
                (interval * u64::from(self.factor_percent) / 100).min(u64::from(self.max_ms));
            if next <= interval {
                break;
            }
            interval = next;
        }
        let interval = interval.min(u64::from(self.max_ms));
        let spread = interval * u64::from(self.jitter_percent) / 100;
        Some(interval - spread + random % (2 * spread + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_waits_the_initial_interval() {
        let policy = RetryPolicy { jitter_percent: 0, max_ms: 5_000, ..RetryPolicy::default() };
        let delays: Vec<_> = (0..4).map(|retry| policy.delay_ms(retry, 7)).collect();
        assert_eq!(delays, [Some(1_000), Some(2_000), Some(4_000), None]);
    }

    #[test]
    fn intervals_stay_within_bounds() {
        let policy = RetryPolicy {
            retries: u16::MAX,
            initial_ms: 3,
            max_ms: 10_000,
            factor_percent: FACTOR_PERCENT_MAX,
            jitter_percent: 100,
        };
        policy.check().expect("valid");
        for retry in 0..u32::from(u16::MAX) {
            for random in [0, 1, u64::MAX, u64::from(retry) * 0x9E37_79B9] {
                let delay = policy.delay_ms(retry, random).expect("there is one");
                assert!(delay <= 20_000, "{delay}");
            }
        }
        let slow = RetryPolicy { factor_percent: 101, initial_ms: 1, max_ms: 1 << 30, ..policy };
        assert_eq!(slow.delay_ms(60_000, 1), Some(1), "a factor that rounds to nothing ends");
    }

    #[test]
    fn nonsense_is_refused() {
        let good = RetryPolicy::default();
        for bad in [
            RetryPolicy { factor_percent: 99, ..good },
            RetryPolicy { factor_percent: FACTOR_PERCENT_MAX + 1, ..good },
            RetryPolicy { jitter_percent: 101, ..good },
            RetryPolicy { max_ms: 999, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
