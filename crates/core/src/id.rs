//! Ids: sixteen random bytes each, never used twice, printed as 32 hexadecimal digits.

use crate::env::Entropy;
use std::fmt;
use std::str::FromStr;

/// Says why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: 32 hexadecimal digits are expected")]
pub struct ParseIdError {
    text: String,
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Stands for "none"; never given out.
            pub const NONE: Self = Self([0; 16]);

            /// Makes a new, random id.
            pub fn random(entropy: &dyn Entropy) -> Self {
                Self(entropy.id_bytes())
            }

            /// True if this is [`Self::NONE`].
            pub fn is_none(&self) -> bool {
                *self == Self::NONE
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self).ok_or_else(|| ParseIdError { text: text.to_owned() })
            }
        }
    )*};
}

ids! {
    /// A bucket.
    BucketId,
    /// A volume, as long as anything of it is left.
    VolumeId,
    /// One incarnation of one writer of a volume.
    StreamId,
    /// A snapshot.
    SnapshotId,
    /// A set of barriers that belong together.
    GroupId,
    /// A node: one data directory.
    NodeId,
    /// A node's log.
    LogId,
    /// A pin.
    PinId,
    /// Random value with which one start of one copy of a node claims its number.
    ClaimId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse() {
        let id = VolumeId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<VolumeId>(), Ok(id));
        assert!("30".parse::<VolumeId>().is_err());
        assert!("zz313233343536373839616263646566".parse::<VolumeId>().is_err());
    }
}
