//! The interval of snapshots, in the form that people write: `30s`, `15m`, `1h`, `7d`.

use std::fmt;

use skerry_api::Result;

use crate::values::invalid;

/// The units, the largest first, and the seconds of each.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
/// The longest interval, seconds: a year.
const SECONDS_MAX: u64 = 365 * 86_400;

/// A whole number of seconds: one at least, a year at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    seconds: u64,
}

impl Interval {
    /// Makes an interval of seconds, if they are in range.
    fn of_seconds(seconds: u64) -> Option<Self> {
        (1..=SECONDS_MAX).contains(&seconds).then_some(Self { seconds })
    }

    /// Makes an interval of milliseconds, if they are in range.
    pub(crate) fn of_ms(ms: u64) -> Option<Self> {
        if ms.is_multiple_of(1000) { Self::of_seconds(ms / 1000) } else { None }
    }

    /// Reads the text form.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let read = UNITS.iter().find_map(|(unit, seconds)| {
            let digits = text.strip_suffix(unit)?;
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let count: u64 = is_number.then(|| digits.parse().ok())??;
            Self::of_seconds(count.checked_mul(*seconds)?)
        });
        read.ok_or_else(|| {
            let message = format!(
                "{text:?} is no interval: write a number with s, m, h or d, from 1s to 365d, such \
                 as 15m"
            );
            invalid(message)
        })
    }

    /// Its length, seconds.
    pub(crate) fn seconds(self) -> u64 {
        self.seconds
    }

    /// Its length, milliseconds.
    pub(crate) fn ms(self) -> u64 {
        self.seconds * 1000
    }

    /// The newest time of this interval that has passed. Times are its multiples since 1970.
    pub(crate) fn last_before_ms(self, now_ms: u64) -> u64 {
        now_ms - now_ms % self.ms()
    }

    /// The first time of this interval that is yet to come.
    pub(crate) fn next_after_ms(self, now_ms: u64) -> u64 {
        self.last_before_ms(now_ms) + self.ms()
    }
}

impl fmt::Display for Interval {
    /// In the largest unit that shows it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| self.seconds.is_multiple_of(*seconds));
        let (unit, seconds) = unit.copied().unwrap_or(("s", 1));
        write!(f, "{}{unit}", self.seconds / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_as_people_write_them() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800)]
        {
            let interval = Interval::parse(text).expect(text);
            assert_eq!(interval.seconds(), seconds);
            assert_eq!(interval.to_string(), text);
        }
        assert_eq!(Interval::parse("60s").expect("a minute").to_string(), "1m");
        assert_eq!(Interval::parse("48h").expect("two days").to_string(), "2d");
        for bad in
            ["", "1", "s", "0s", "-1s", "+1s", "1.5h", "1w", "366d", "1 h", "99999999999999999d"]
        {
            let error = Interval::parse(bad).expect_err(bad);
            assert!(error.message().contains("15m"), "{error}");
        }
        assert_eq!(Interval::of_ms(1500), None);
        assert_eq!(Interval::of_ms(0), None);
    }

    #[test]
    fn hours_begin_on_the_hour() {
        let hour = Interval::parse("1h").expect("an hour");
        let at = 1_700_000_000_000; // 22:13:20
        assert_eq!(hour.last_before_ms(at), at - 800_000);
        assert_eq!(hour.next_after_ms(at), at + 2_800_000);
        assert_eq!(hour.last_before_ms(at - 800_000), at - 800_000, "now is not yet to come");
        assert_eq!(hour.next_after_ms(at - 800_000), at + 2_800_000);
    }
}
