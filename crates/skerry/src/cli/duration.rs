//! A length of time, in the form that people write: `250ms`, `30s`, `5m`, `1h`, `7d`.

use skerry_api::Result;

use crate::values::invalid;

/// The units, and the milliseconds of each. A unit comes before the units that it ends with.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a length of time as milliseconds.
///
/// # Errors
/// `Invalid` if it is none.
pub(crate) fn ms(text: &str) -> Result<u64> {
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, *ms)))
        .unwrap_or(("", 0));
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let count = is_number.then(|| digits.parse::<u64>().ok()).flatten();
    count.and_then(|count| count.checked_mul(unit)).ok_or_else(|| {
        let message =
            format!("{text:?} is no time: write a number with ms, s, m, h or d, as in 7d");
        invalid(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let times =
            [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)];
        for (text, length) in times {
            assert_eq!(ms(text).expect(text), length);
        }
        for bad in ["", "7", "d", "-1s", "+1s", "1.5h", "1w", "1 h", "99999999999999999999d"] {
            let error = ms(bad).expect_err(bad);
            assert!(error.message().contains("7d"), "{error}");
        }
    }
}
