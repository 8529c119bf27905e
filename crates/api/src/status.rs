//! Errors of the API, and the one table of their gRPC codes.

use std::error::Error as _;

use tonic::{Code, Status};

use crate::v1;

/// The longest message sent with an error, bytes. It travels in an HTTP/2 header, and peers refuse
/// headers of more than a few KiB.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Says what the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A bug: report it.
    Internal,
    /// The object does not exist.
    NotFound,
    /// The name is taken.
    Exists,
    /// The object is in use: end that use first.
    InUse,
    /// Another node owns the volume: ask that node, or release the volume.
    Fenced,
    /// The request can't be carried out as written.
    Invalid,
    /// The node, its disk or its bucket can't serve now; try again later.
    Unavailable,
    /// Data is damaged or of an unknown format.
    Corrupt,
}

/// Each kind and the code that carries it.
const CODES: [(ErrorKind, Code); 8] = [
    (ErrorKind::Internal, Code::Internal),
    (ErrorKind::NotFound, Code::NotFound),
    (ErrorKind::Exists, Code::AlreadyExists),
    (ErrorKind::InUse, Code::FailedPrecondition),
    (ErrorKind::Fenced, Code::PermissionDenied),
    (ErrorKind::Invalid, Code::InvalidArgument),
    (ErrorKind::Unavailable, Code::Unavailable),
    (ErrorKind::Corrupt, Code::DataLoss),
];

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// A result of the API.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of this kind. The message names the object and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
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

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let row = CODES.iter().find(|(kind, _)| *kind == error.kind);
        let end = error.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        Self::new(row.map_or(Code::Internal, |(_, code)| *code), &error.message[..end])
    }
}

impl From<Status> for Error {
    /// Reads a node's answer. Codes that no node sends come from a proxy between.
    fn from(status: Status) -> Self {
        if let Some(source) = status.source() {
            // Made on this side when the connection broke: the code says nothing.
            let message = format!("the node stopped answering: {}", innermost(source));
            return Self::new(ErrorKind::Unavailable, message);
        }
        let row = CODES.iter().find(|(_, code)| *code == status.code());
        let kind = row.map_or_else(|| foreign(status.code()), |(kind, _)| *kind);
        let message = match status.message() {
            "" => format!("the node answered {:?} and no reason", status.code()),
            message => message.to_owned(),
        };
        Self::new(kind, message)
    }
}

impl From<&v1::Failure> for Error {
    /// Reads a node's answer about one item of a call.
    fn from(failure: &v1::Failure) -> Self {
        let kind = match failure.kind() {
            v1::FailureKind::Invalid => ErrorKind::Invalid,
            v1::FailureKind::NotFound => ErrorKind::NotFound,
            v1::FailureKind::Exists => ErrorKind::Exists,
            v1::FailureKind::Conflict | v1::FailureKind::LeaseLost => ErrorKind::InUse,
            v1::FailureKind::Unavailable => ErrorKind::Unavailable,
            v1::FailureKind::Corrupt => ErrorKind::Corrupt,
            v1::FailureKind::Internal | v1::FailureKind::Unspecified => ErrorKind::Internal,
        };
        Self::new(kind, &failure.message)
    }
}

/// The kind of a code that no node sends.
fn foreign(code: Code) -> ErrorKind {
    match code {
        Code::Cancelled | Code::DeadlineExceeded | Code::ResourceExhausted => {
            ErrorKind::Unavailable
        }
        Code::Unimplemented | Code::OutOfRange => ErrorKind::Invalid,
        Code::Unauthenticated => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    }
}

/// The message of the last error of a chain, which is the cause.
pub(crate) fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> String {
    let mut last: &'a (dyn std::error::Error + 'static) = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        let mut codes = Vec::new();
        for (kind, _) in CODES {
            let error = Error::new(kind, "volume 'a' is in the way: remove it");
            let status = Status::from(error.clone());
            assert!(!codes.contains(&status.code()), "{kind:?} shares its code");
            codes.push(status.code());
            assert_eq!(Error::from(status), error);
        }
    }

    #[test]
    fn foreign_codes_become_kinds() {
        let kind = |code| Error::from(Status::new(code, "x")).kind();
        assert_eq!(kind(Code::DeadlineExceeded), ErrorKind::Unavailable);
        assert_eq!(kind(Code::Unimplemented), ErrorKind::Invalid);
        assert_eq!(kind(Code::Unknown), ErrorKind::Internal);
    }

    #[test]
    fn long_sentences_are_cut_between_characters() {
        let error = Error::new(ErrorKind::Invalid, "ä".repeat(5000));
        let status = Status::from(error);
        assert_eq!(status.message().len(), MESSAGE_BYTES_MAX);
    }
}
