//! Errors of the broker, and what a caller does about them.

use std::fmt;

/// Advice to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Correct the request: one of its fields is out of range.
    Invalid,
    /// There is no such job or limit: check the name.
    NotFound,
    /// A job of this id is there already: use that one.
    Exists,
    /// The job's state does not allow this: look at the job.
    Conflict,
    /// The lease no longer holds: stop the work, and report nothing.
    LeaseLost,
    /// The database does not answer: try again.
    Unavailable,
    /// Stored data is damaged, or of a newer version.
    Corrupt,
    /// A fault of the broker: report it.
    Internal,
}

/// An error that names its object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    is_fenced: bool,
}

impl Error {
    /// Makes an error with a text for people.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), is_fenced: false }
    }

    /// Makes the error for a database that another process has opened since.
    pub(crate) fn fenced(message: impl Into<String>) -> Self {
        let unavailable = Self::new(ErrorKind::Unavailable, message);
        Self { is_fenced: true, ..unavailable }
    }

    /// True if another process has opened the database since. Opening it again fences that process
    /// in turn.
    pub fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// Makes the error for callers that waited for the database when it failed. Their calls may
    /// have happened, and they are to ask again. The next opening tells the cause.
    pub(crate) fn passing(self) -> Self {
        Self { kind: ErrorKind::Unavailable, ..self }
    }

    /// Makes the error for a field of a request that is out of range.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Invalid, message.to_string())
    }

    /// Advice to the caller.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<skerry_core::wire::FormatError> for Error {
    fn from(error: skerry_core::wire::FormatError) -> Self {
        Self::new(ErrorKind::Corrupt, error.to_string())
    }
}

/// A result of the broker.
pub type Result<T> = std::result::Result<T, Error>;
