//! Checks the values that people and programs pass in, and converts them to types. Shows bytes and
//! times to people.

use std::str::FromStr;

use jiff::Timestamp;
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::name::{Name, NameError, Target};
use skerry_core::size::{self, BlockSize};

/// The file name that stands for standard input or output.
pub(crate) const STANDARD: &str = "-";

/// An error that says what is wrong with a value.
pub(crate) fn invalid(message: impl ToString) -> Error {
    Error::new(ErrorKind::Invalid, message.to_string())
}

/// A name of a volume or a snapshot.
pub(crate) fn name(text: &str) -> Result<Name> {
    text.parse().map_err(|error: NameError| {
        let hint = if text.contains('@') { "; give a volume here, not a snapshot" } else { "" };
        invalid(format!("{error}{hint}"))
    })
}

/// `VOLUME` or `VOLUME@SNAPSHOT`.
pub(crate) fn target(text: &str) -> Result<Target> {
    Target::from_str(text).map_err(invalid)
}

/// `VOLUME@SNAPSHOT`.
pub(crate) fn snapshot(text: &str) -> Result<(Name, Name)> {
    let Target { volume, snapshot } = target(text)?;
    let missing = || {
        invalid(format!(
            "{text:?} names a volume and no snapshot: write {text}@SNAPSHOT, or VOLUME@{text} if \
             that is the snapshot's name"
        ))
    };
    Ok((volume, snapshot.ok_or_else(missing)?))
}

/// The size of a volume, in its text form.
pub(crate) fn volume_size(text: &str) -> Result<u64> {
    size::parse_bytes(text).and_then(size::check_volume).map_err(invalid)
}

/// The size of a volume, from a message.
pub(crate) fn volume_bytes(bytes: u64) -> Result<u64> {
    size::check_volume(bytes).map_err(invalid)
}

/// The size of a block, in its text form.
pub(crate) fn block_size(text: &str) -> Result<u64> {
    size::parse_bytes(text).map_err(invalid).and_then(block_bytes)
}

/// The size of a block, from a message; the default if it is zero.
pub(crate) fn block_bytes(bytes: u64) -> Result<u64> {
    let block = match bytes {
        0 => BlockSize::default(),
        bytes => BlockSize::from_bytes(bytes).map_err(invalid)?,
    };
    Ok(block.bytes() as u64)
}

/// A number of bytes for people: `10 GiB`, `1.5 MiB`, `512 B`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    let whole = 1u64 << (10 * unit);
    if bytes.is_multiple_of(whole) {
        return format!("{} {}", bytes / whole, UNITS[unit]);
    }
    format!("{:.1} {}", bytes as f64 / whole as f64, UNITS[unit])
}

/// A time in RFC 3339, UTC, with milliseconds. So texts sort as their times do.
pub(crate) fn time(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    format!("{:.3}", Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert!(time(u64::MAX).starts_with("9999-12-"));
    }

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (4096, "4 KiB"),
            (1536, "1.5 KiB"),
            (10 << 30, "10 GiB"),
            (1 << 60, "1 EiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            error.message().to_owned()
        };
        assert!(said(name("a@b").expect_err("a snapshot")).contains("not a snapshot"));
        assert!(said(snapshot("a").expect_err("no snapshot")).contains("a@SNAPSHOT"));
        assert!(said(volume_size("-1").expect_err("negative")).contains("not a size"));
        assert!(said(volume_size("0").expect_err("zero")).contains("zero"));
        assert!(said(volume_size("1000").expect_err("unaligned")).contains("512"));
        assert!(said(volume_size("2000P").expect_err("too large")).contains("1 EiB"));
        assert!(said(block_size("2K").expect_err("too small")).contains("4K"));
        assert_eq!(block_bytes(0), Ok(4096));
    }
}
