//! The names that people give: of jobs, tenants, task groups, limits and workers. Short texts
//! without control characters, fit to be printed, logged, and put into keys.

use crate::error::{Error, Result};
use std::fmt;

/// The longest name, bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// The longest name of a limit, bytes: it is part of its refresher's name.
pub const LIMIT_BYTES_MAX: usize = 120;

/// The default tenant, and the default task group.
pub const DEFAULT: &str = "default";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $max:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes a text as a name.
            ///
            /// # Errors
            /// `Invalid` if it is empty, too long, or holds control characters.
            pub fn new(text: &str) -> Result<Self> {
                check($what, text, $max).map(|()| Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )*};
}

names! {
    /// A job's id: unique within its tenant while the job is kept.
    JobId, "job id", NAME_BYTES_MAX;
    /// The owner of jobs and limits.
    Tenant, "tenant", NAME_BYTES_MAX;
    /// The name under which workers ask for work.
    Group, "task group", NAME_BYTES_MAX;
    /// A limit's name, unique within its tenant.
    LimitKey, "limit", LIMIT_BYTES_MAX;
    /// A worker's own name, for people.
    Worker, "worker", NAME_BYTES_MAX;
}

impl Default for Tenant {
    fn default() -> Self {
        Self(DEFAULT.into())
    }
}

impl Default for Group {
    fn default() -> Self {
        Self(DEFAULT.into())
    }
}

fn check(what: &str, text: &str, bytes_max: usize) -> Result<()> {
    let reason = if text.is_empty() {
        "it is empty".to_owned()
    } else if text.len() > bytes_max {
        format!("it is longer than {bytes_max} bytes")
    } else if text.chars().any(char::is_control) {
        "it holds control characters".to_owned()
    } else {
        return Ok(());
    };
    let shown: String = text.chars().take(NAME_BYTES_MAX).collect();
    Err(Error::invalid(format!("{shown:?} is not a valid {what}: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_have_limits() {
        for good in ["a", "mail/42", "Ärger", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(JobId::new(good).map(|id| id.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", "a\0b", "line\n", &"x".repeat(NAME_BYTES_MAX + 1)] {
            let error = Tenant::new(bad).expect_err("a bad name");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("tenant"), "{error}");
        }
    }
}
