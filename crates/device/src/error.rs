//! The one error of a device.

use std::borrow::Cow;

/// The caller's duty after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request makes no sense, or goes past the end. Change it.
    Invalid,
    /// The device takes no writes. Write to another.
    ReadOnly,
    /// There is no room. Free some, and try again.
    NoSpace,
    /// The device can't do this. Do without it.
    NotSupported,
    /// This attachment is over. Attach again and go on: the device has the same state, with every
    /// write that it acknowledged. Never for a device that may have another state then.
    Reattach,
    /// Storage failed, or the attachment is over and the device may have another state. No attempt
    /// on this attachment helps. Forget what was read before attaching again.
    Failed,
}

/// A request that failed: a kind for the caller to act on, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The kind.
    pub kind: ErrorKind,
    /// The event and its object, for logs and for protocols that carry text.
    pub message: Cow<'static, str>,
}

impl Error {
    /// Makes an error of `kind`, with its text.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A result of a device.
pub type Result<T> = std::result::Result<T, Error>;
