//! Kinds of messages, with the lanes and devices that each permits.

use super::{DEVICE_NUMBERS_MAX, DeviceNumber, Error, Lane, Result};

macro_rules! kinds {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        /// Kind of a message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = $doc] $name = $number,)*
        }

        impl Kind {
            /// All kinds of this version.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Reads the kind of a head.
            ///
            /// # Errors
            ///
            /// [`Error::UnknownKind`] for a number that this version does not have.
            pub fn from_number(kind: u8) -> Result<Self> {
                match kind {
                    $($number => Ok(Self::$name),)*
                    _ => Err(Error::UnknownKind { kind }),
                }
            }
        }
    };
}

kinds! {
    Hello = 1, "Greeting: versions and limits.";
    Error = 2, "End of the connection, with its reason.";
    KeepAlive = 3, "Sign of life.";
    Offer = 16, "Devices that the sender has.";
    Accept = 17, "Numbers of the devices that the receiver takes.";
    Refuse = 18, "Reason why the receiver takes none.";
    Custom = 19, "Data of the caller.";
    CustomTaken = 20, "Acknowledgement of the caller's data.";
    Data = 32, "Extents with their bytes.";
    Zeros = 33, "Ranges that read as zeros.";
    Stale = 34, "Ranges whose older bytes don't count any more.";
    Wanted = 35, "Ranges that a guest waits for.";
    Have = 36, "Extents by their hashes.";
    Lacking = 37, "Extents of a `Have` whose bytes are to be sent.";
    Window = 38, "Bytes that the sender may send more.";
    Got = 39, "Generation up to which the receiver wrote everything.";
    Pause = 48, "The source has paused.";
    Final = 49, "Size of the final set.";
    Verified = 50, "The target has everything but the final set.";
    Authority = 51, "The source hands the authority over.";
    Owned = 52, "The target has the authority.";
    Return = 53, "The source asks for the authority back.";
    Returned = 54, "The target gives it back.";
    Kept = 55, "The target has acknowledged a write, and keeps the authority.";
    Complete = 56, "Nothing is left to be sent.";
    Abort = 57, "End of the move, with its reason.";
}

impl Kind {
    /// Number in a head.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Says whether the lane may carry this kind.
    #[must_use]
    pub fn permits(self, lane: Lane) -> bool {
        match self {
            Self::Data | Self::Zeros | Self::Have | Self::Lacking => lane != Lane::Control,
            Self::Wanted => lane == Lane::Demand,
            _ => lane == Lane::Control,
        }
    }

    /// Says whether a message of this kind may be about this device, or about none.
    #[must_use]
    pub fn concerns(self, device: DeviceNumber) -> bool {
        match self.number() {
            0..32 => device == DeviceNumber::NONE,
            32..48 => device.0 < DEVICE_NUMBERS_MAX,
            // A hand-over is of a group, or of one device.
            _ => device == DeviceNumber::NONE || device.0 < DEVICE_NUMBERS_MAX,
        }
    }

    /// Says whether frames of this kind count against their device's window.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::Data | Self::Zeros | Self::Have)
    }
}
