//! Errors of the log, and the caller's duty for each.

use crate::format::FILE_FORMAT_VERSION;
use std::{fmt, io, sync::Arc};

/// The result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The caller's duty after an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Durable bytes are wrong or gone. Open nothing; restore the file or give the log up.
    Damaged,
    /// The disk refused an operation. The log takes no more records; open it again when the disk is
    /// well.
    Failed,
    /// No room at present. Wait with `wait_room`, trim, or raise the cap.
    Full,
    /// Another version wrote the log. Use that version; an older one leaves the log empty at a
    /// clean stop.
    UnsupportedFormat,
    /// The call or the settings are wrong, or the log is closed or not recovered yet.
    Invalid,
}

/// Says why an append found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullReason {
    /// No file is free. Untrimmed records pin all files up to the cap, or the disk has no room for
    /// another, or the next file is being prepared.
    Files,
    /// The buffers in memory are waiting to be written.
    Buffers,
}

/// The operation after whose failure the log repeats nothing.
pub(crate) const SYNC: &str = "fdatasync";

/// The first failed disk operation of a log: the cause of every later refusal.
#[derive(Debug)]
pub struct Failure {
    /// Name of the file, or of the directory's operation.
    pub file: String,
    /// The operation.
    pub operation: &'static str,
    /// The disk's error.
    pub source: io::Error,
}

impl Failure {
    pub(crate) fn new(file: &str, operation: &'static str, source: io::Error) -> Self {
        Self { file: file.to_owned(), operation, source }
    }

    /// True if the disk has no room, as opposed to being broken.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// True if a retry is safe. After a failed sync the state of earlier writes is unknown.
    pub(crate) fn is_before_sync(&self) -> bool {
        self.operation != SYNC
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of log file {} failed: {}", self.operation, self.file, self.source)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// An error of the log. Cheap to clone: every waiter gets a copy.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that were durable are wrong or missing.
    #[error(
        "log file {file} is damaged at byte {offset}: {reason}; nothing was changed: restore the \
         file, or move the log away to go on without what it holds"
    )]
    Damaged {
        /// Name of the file, or the sequence of a missing one.
        file: String,
        /// Byte offset of the first bad place.
        offset: u64,
        /// The evidence that it is damage, and not a torn end.
        reason: &'static str,
    },
    /// A disk operation failed; the log is closed for good.
    #[error("the log is out of service: {cause}; repair the disk and open the log again")]
    Failed {
        /// The first failure.
        #[source]
        cause: Arc<Failure>,
    },
    /// The log has no room at the moment.
    #[error("the log is full ({reason:?}): wait for room, trim, or raise its cap")]
    Full {
        /// The room that is used up.
        reason: FullReason,
    },
    /// A file of another format.
    #[error(
        "log file {file} has format version {version}, and this program reads {FILE_FORMAT_VERSION} alone: {}",
        what_to_do(*version)
    )]
    UnsupportedFormat {
        /// Name of the file.
        file: String,
        /// Version found in it.
        version: u16,
    },
    /// The payload is longer than a record may be.
    #[error("a record of {payload_bytes} bytes is over the log's limit of {limit_bytes}: split it")]
    TooLong {
        /// Length of the payload.
        payload_bytes: usize,
        /// Longest payload with the present settings.
        limit_bytes: usize,
    },
    /// The position was never given out, or not for a record.
    #[error("no record of the log is at {position}")]
    NoSuchPosition {
        /// The position given.
        position: crate::LogPosition,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// Recovered records have not been read to the end.
    #[error("the log is still being recovered: read its Recovery to the end first")]
    Recovering,
    /// A setting is out of range.
    #[error("log setting {setting} is out of range: {reason}")]
    Setting {
        /// Field of `Settings`.
        setting: &'static str,
        /// The bound that it must keep.
        reason: &'static str,
    },
    /// A file of another log lies in the directory.
    #[error("log file {file} belongs to another log than {other}: move one of them away")]
    Foreign {
        /// One file.
        file: String,
        /// The other.
        other: String,
    },
}

/// Advice about a file of another format.
const fn what_to_do(version: u16) -> &'static str {
    if version > FILE_FORMAT_VERSION {
        return "a newer program wrote it, use that one";
    }
    "an older program wrote it. If that one was stopped cleanly, nothing is in the log alone: move its directory away. \
     If not, start that one once more, and stop it cleanly"
}

impl Error {
    /// The caller's duty after this error.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Failed { .. } => ErrorKind::Failed,
            Self::Full { .. } => ErrorKind::Full,
            Self::UnsupportedFormat { .. } => ErrorKind::UnsupportedFormat,
            Self::TooLong { .. }
            | Self::NoSuchPosition { .. }
            | Self::Closed
            | Self::Recovering
            | Self::Setting { .. }
            | Self::Foreign { .. } => ErrorKind::Invalid,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed { cause: Arc::new(failure) }
    }
}
