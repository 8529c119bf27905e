//! Numbers in a settings file that may also be texts, since only texts hold variables; and texts
//! that may also be numbers.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use skerry_core::size::parse_bytes;

/// A number of bytes: `1048576`, `"1M"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) u64);

/// A number of seconds: `30`, `"30"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) u64);

impl Seconds {
    /// The most: sums of times must not overflow.
    const MAX: u64 = 100 * 366 * 86_400;

    fn of(seconds: u64) -> Option<Self> {
        (seconds <= Self::MAX).then_some(Self(seconds))
    }
}

/// The mode of a Unix socket in `chmod`'s form: `"0660"`. Only a text: as a number 660 would mean
/// another mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketMode(pub(crate) u32);

/// Reads a number, or a text that `parse` understands.
struct Scalar<T> {
    expected: &'static str,
    number: fn(i64) -> Option<T>,
    truth: fn(bool) -> Option<T>,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let wrong = || E::invalid_value(de::Unexpected::Signed(number), &self);
        (self.number)(number).ok_or_else(wrong)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<T, E> {
        let wrong = || E::invalid_type(de::Unexpected::Bool(truth), &self);
        (self.truth)(truth).ok_or_else(wrong)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
        (self.parse)(text).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Scalar {
            expected: "a number of bytes, such as 1048576 or \"1M\"",
            number: |number| u64::try_from(number).ok().map(Self),
            truth: |_| None,
            parse: |text| parse_bytes(text).ok().map(Self),
        })
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Scalar {
            expected: "a number of seconds, such as 30, and no more than 100 years",
            number: |number| u64::try_from(number).ok().and_then(Self::of),
            truth: |_| None,
            parse: |text| text.parse().ok().and_then(Self::of),
        })
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Scalar {
            expected: "an octal mode in quotes, such as \"0660\"",
            number: |_| None,
            truth: |_| None,
            parse: |text| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).map(Self),
        })
    }
}

/// A text: `"true"`, `true`, `30`.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Scalar {
            expected: "a text, a whole number, true or false",
            number: |number| Some(Self(number.to_string())),
            truth: |truth| Some(Self(truth.to_string())),
            parse: |text| Some(Self(text.to_owned())),
        })
    }
}

/// Reads a table of texts.
pub(super) fn texts<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let texts = BTreeMap::<String, Text>::deserialize(from)?;
    Ok(texts.into_iter().map(|(name, text)| (name, text.0)).collect())
}

/// Reads `true`, `false`, or one of them as a text.
pub(super) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    from.deserialize_any(Scalar {
        expected: "true or false",
        number: |_| None,
        truth: Some,
        parse: |text| text.parse().ok(),
    })
}
