//! The one error of the engine for callers: its kind, and a sentence that names the object and says
//! what to do.

use skerry_core::retry::Trouble;
use std::fmt;

/// The caller's duty after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A bug: report it.
    Internal,
    /// The object does not exist, or no longer: a deleted volume does not.
    NotFound,
    /// The name is taken.
    Exists,
    /// Clients or records of this node are in the way. End that first, or use force.
    Busy,
    /// Another owner writes the volume: ask that node, or release the volume.
    Fenced,
    /// The attachment ended, because the volume was released or rolled back. Forget all knowledge
    /// of the volume before attaching again: it may hold another state.
    Detached,
    /// The request can't be carried out as written.
    Invalid,
    /// The bucket, the disk or the node can't serve now; try again later.
    Unavailable,
    /// Data is damaged or of an unknown format.
    Corrupt,
}

/// An error of the engine.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    /// Says whether the same attempt may succeed later.
    trouble: Trouble,
    /// True if the volume went out of service and may come back as it was. Then another attachment
    /// finds the same state.
    ends_attachment: bool,
}

impl Error {
    /// Makes an error of this kind. The message names the object and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let trouble = Trouble::Permanent;
        Self { kind, message: message.into(), trouble, ends_attachment: false }
    }

    /// Makes this the error with which a volume went out of service. No attempt on this attachment
    /// will succeed. If `comes_back`, one on another may.
    pub(crate) fn of_volume(self, comes_back: bool) -> Self {
        // A released volume may be written elsewhere before it is claimed again.
        let ends_attachment = comes_back && self.kind != ErrorKind::Detached;
        Self { trouble: Trouble::Permanent, ends_attachment, ..self }
    }

    /// Says whether the same attempt may succeed later.
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// True if this attachment is over, and another may succeed and find the same state, with
    /// everything acknowledged here. Never for [`ErrorKind::Detached`].
    pub fn ends_attachment(&self) -> bool {
        self.ends_attachment
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl From<skerry_store::Error> for Error {
    fn from(e: skerry_store::Error) -> Self {
        use skerry_store::ErrorKind as Store;
        let kind = match e.kind() {
            Store::NotFound => ErrorKind::NotFound,
            Store::Exists => ErrorKind::Exists,
            Store::Fenced => ErrorKind::Fenced,
            Store::Invalid => ErrorKind::Invalid,
            Store::Unavailable => ErrorKind::Unavailable,
            Store::Corrupt => ErrorKind::Corrupt,
            Store::Internal => ErrorKind::Internal,
        };
        Self { trouble: e.trouble(), ..Self::new(kind, e.to_string()) }
    }
}

impl From<skerry_log::Error> for Error {
    fn from(e: skerry_log::Error) -> Self {
        use skerry_log::ErrorKind as Log;
        let kind = match e.kind() {
            Log::Damaged | Log::UnsupportedFormat => ErrorKind::Corrupt,
            Log::Full | Log::Failed => ErrorKind::Unavailable,
            Log::Invalid => ErrorKind::Internal,
        };
        Self::new(kind, e.to_string())
    }
}

impl From<skerry_core::FormatError> for Error {
    fn from(e: skerry_core::FormatError) -> Self {
        Self::new(ErrorKind::Corrupt, e.to_string())
    }
}
