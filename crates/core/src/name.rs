//! The names that people give to volumes and snapshots.

use std::fmt;
use std::str::FromStr;

/// The longest name, bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A valid name of a volume or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Says why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid name: {reason}")]
pub struct NameError {
    text: String,
    reason: &'static str,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > NAME_BYTES_MAX {
            "it is longer than 128 bytes"
        } else if text.starts_with(['.', '-']) {
            "it must not start with '.' or '-'"
        } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            "use A-Z, a-z, 0-9, '.', '_' and '-' only"
        } else {
            return Ok(Self(text.to_owned()));
        };
        let text = text.chars().take(NAME_BYTES_MAX + 1).collect();
        Err(NameError { text, reason })
    }
}

/// `VOLUME` or `VOLUME@SNAPSHOT`: the target of an export or a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The volume.
    pub volume: Name,
    /// Its snapshot, if one is named.
    pub snapshot: Option<Name>,
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (volume, snapshot) = match text.split_once('@') {
            Some((volume, snapshot)) => (volume, Some(snapshot.parse()?)),
            None => (text, None),
        };
        Ok(Self { volume: volume.parse()?, snapshot })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.volume),
            None => write!(f, "{}", self.volume),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["a", "Z9", "a.b_c-d", &"x".repeat(128)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a b", "a/b", "a@b", "ä", &"x".repeat(129)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        let target: Target = "disk@monday".parse().expect("a target");
        assert_eq!(target.to_string(), "disk@monday");
        assert!("disk@".parse::<Target>().is_err());
    }
}
