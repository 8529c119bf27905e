//! The error of this crate. It names the object and says what to do about it.
//!
//! It is cloneable, since every waiter of a fetch gets its answer.

use skerry_core::FormatError;
use skerry_core::retry::Trouble;
use std::io;
use std::sync::Arc;

/// The result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The caller's choice after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object is missing: a retry does not help.
    NotFound,
    /// The object exists already: choose another name.
    Exists,
    /// Another node owns the object now: stop writing.
    Fenced,
    /// The request or the setting is invalid: correct it.
    Invalid,
    /// The bucket can't be reached, denies, or is full: try again later. A write may or may not
    /// have happened.
    Unavailable,
    /// Stored bytes are damaged: restore them, and look at the medium.
    Corrupt,
    /// A defect of Skerry.
    Internal,
}

/// Says why an operation on a bucket failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An object that must be there is missing.
    #[error("{object} is not in the bucket")]
    NotFound {
        /// The object's name.
        object: String,
    },
    /// The object exists already.
    #[error("{object} exists already")]
    Exists {
        /// The object.
        object: String,
    },
    /// Another node has taken over.
    #[error("{object} has another owner now: {detail}")]
    Fenced {
        /// The object that was taken over.
        object: String,
        /// The new owner, or the evidence.
        detail: String,
    },
    /// A request, name or setting is impossible.
    #[error("{what} is not valid: {detail}")]
    Invalid {
        /// The value.
        what: String,
        /// The fault.
        detail: String,
    },
    /// There is no bucket at this place.
    #[error("{place} is not a Skerry bucket: it is empty; create a bucket there first")]
    NoBucket {
        /// The place.
        place: String,
    },
    /// Other objects live at this place.
    #[error(
        "{place} is not a Skerry bucket and not empty (it holds {found}); choose an empty place"
    )]
    Foreign {
        /// The place.
        place: String,
        /// One of the objects there.
        found: String,
    },
    /// The store breaks a rule that Skerry needs.
    #[error("{place} cannot be used: {detail}")]
    Unfit {
        /// The place.
        place: String,
        /// The broken rule.
        detail: String,
    },
    /// The bucket denies access.
    #[error("the bucket denies {action} {object}: {detail}; check its credentials and permissions")]
    Denied {
        /// The action.
        action: &'static str,
        /// Its object.
        object: String,
        /// The store's message.
        detail: String,
    },
    /// The disk of a local bucket or of the cache is full.
    #[error("disk full {action} {object}; free some space, it is tried again")]
    DiskFull {
        /// The action.
        action: &'static str,
        /// Its object.
        object: String,
    },
    /// The bucket itself is missing, which says nothing of its objects.
    #[error("the bucket is not there, {action} {object}: {detail}; it is tried again")]
    Away {
        /// The action.
        action: &'static str,
        /// Its object.
        object: String,
        /// The store's message.
        detail: String,
    },
    /// The bucket did not answer, or answered nonsense.
    #[error("the bucket failed {action} {object}: {detail}")]
    Unavailable {
        /// The action.
        action: &'static str,
        /// Its object.
        object: String,
        /// The store's message at the last try.
        detail: String,
    },
    /// Stored bytes are damaged, or a newer Skerry wrote them.
    #[error("{object}{}: {source}", at_offset(.offset))]
    Format {
        /// The object's name.
        object: String,
        /// Offset in it, bytes.
        offset: Option<u64>,
        /// The fault.
        source: FormatError,
    },
    /// An I/O error of a local file that is not an object.
    #[error("{action} {path}: {source}")]
    File {
        /// The action.
        action: &'static str,
        /// The file.
        path: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A defect of Skerry.
    #[error("{object}: {detail}; this is a defect of Skerry")]
    Internal {
        /// The object of the work.
        object: String,
        /// The fault.
        detail: String,
    },
}

fn at_offset(offset: &Option<u64>) -> String {
    offset.map_or(String::new(), |at| format!(" at byte {at}"))
}

impl Error {
    /// The caller's choice after it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoBucket { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::Exists,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Invalid { .. } | Self::Foreign { .. } | Self::Unfit { .. } => ErrorKind::Invalid,
            Self::Denied { .. }
            | Self::DiskFull { .. }
            | Self::Away { .. }
            | Self::Unavailable { .. }
            | Self::File { .. } => ErrorKind::Unavailable,
            Self::Format { source: FormatError::Newer { .. }, .. } => ErrorKind::Invalid,
            Self::Format { .. } => ErrorKind::Corrupt,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// An [`Error::NotFound`].
    pub fn not_found(object: impl Into<String>) -> Self {
        Self::NotFound { object: object.into() }
    }

    /// An [`Error::Exists`].
    pub fn exists(object: impl Into<String>) -> Self {
        Self::Exists { object: object.into() }
    }

    /// An [`Error::Fenced`].
    pub fn fenced(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Fenced { object: object.into(), detail: detail.into() }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), detail: detail.into() }
    }

    /// An [`Error::Internal`].
    pub fn internal(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Internal { object: object.into(), detail: detail.into() }
    }

    /// Makes a format error of an object, without an offset.
    pub fn format(object: impl Into<String>, source: FormatError) -> Self {
        Self::Format { object: object.into(), offset: None, source }
    }

    /// Makes a format error at a byte of an object.
    pub fn format_at(object: impl Into<String>, offset: u64, source: FormatError) -> Self {
        Self::Format { object: object.into(), offset: Some(offset), source }
    }

    /// Makes an error of an object whose checksums are right and whose content can't be right
    /// there.
    pub fn corrupt(object: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::format(object, FormatError::invalid("its content", detail))
    }

    /// Makes an error of a local file that is not an object.
    pub fn file(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::DiskFull { action, object: path };
        }
        Self::File { action, path, source: Arc::new(source) }
    }

    /// Translates a store's error about `object`.
    pub fn from_store(action: &'static str, object: &str, error: &object_store::Error) -> Self {
        use object_store::Error as E;
        let (object, detail) = (object.to_owned(), error.to_string());
        if let Some(detail) = without_credential(&detail) {
            return Self::Unavailable { action, object, detail };
        }
        match error {
            E::NotFound { .. } if Self::is_vague_404(error) => {
                Self::Away { action, object, detail }
            }
            E::NotFound { .. } => Self::NotFound { object },
            E::AlreadyExists { .. } => Self::Exists { object },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                Self::Denied { action, object, detail }
            }
            E::InvalidPath { .. } => Self::Invalid { what: object, detail },
            E::NotImplemented { .. }
            | E::NotSupported { .. }
            | E::UnknownConfigurationKey { .. } => Self::Unfit { place: object, detail },
            _ => match io_kind(error) {
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    Self::DiskFull { action, object }
                }
                Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                    Self::Denied { action, object, detail }
                }
                _ if says_keys_are_stale(&detail) => Self::Denied { action, object, detail },
                _ if detail.contains(BUCKET_AWAY[0]) => Self::Away { action, object, detail },
                _ => Self::Unavailable { action, object, detail },
            },
        }
    }

    /// True if the error is a 404 from an HTTP server that does not say that it means the object. A
    /// proxy or gateway that misses its server answers like that.
    pub(crate) fn is_vague_404(error: &object_store::Error) -> bool {
        let detail = error.to_string();
        let is_http = detail.contains("status code") || Self::says_bucket_is_away(error);
        matches!(error, object_store::Error::NotFound { .. })
            && is_http
            && !OBJECT_MISSING.iter().any(|code| detail.contains(code))
    }

    /// True if a store's error names the bucket as missing.
    pub(crate) fn says_bucket_is_away(error: &object_store::Error) -> bool {
        let detail = error.to_string();
        BUCKET_AWAY.iter().any(|words| detail.contains(words))
    }

    /// True if a store may mean that a range begins beyond the object's end.
    pub(crate) fn is_of_range(&self) -> bool {
        let text = self.to_string().to_ascii_lowercase();
        text.contains("range") || text.contains("416")
    }

    /// Kind of the trouble, which decides whether, and for whom, waiting is worth it.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unavailable { .. } => Trouble::Busy,
            Self::Denied { .. } => Trouble::Denied,
            Self::DiskFull { .. } => Trouble::Full,
            Self::Away { .. } => Trouble::Away,
            // A disk that can't read a place never will. Anything else may be a matter of mounts
            // and servers.
            Self::File { source, .. } if source.raw_os_error() == Some(EIO) => Trouble::Permanent,
            Self::File { .. } => Trouble::Busy,
            _ => Trouble::Permanent,
        }
    }

    /// True if the call may succeed later, by itself or once a person has mended the store.
    pub fn is_unavailable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }

    /// True if the call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// The error number of a broken disk.
const EIO: i32 = 5;

/// Words in a 404 for a missing bucket: from S3 and GCS, from Azure, and in a proxy's page about a
/// missing server. `object_store` makes a missing object of all of them.
const BUCKET_AWAY: [&str; 5] =
    ["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "<html", "<!DOCTYPE"];
/// Words in a 404 for a missing object: from S3 and GCS, and from Azure.
const OBJECT_MISSING: [&str; 3] = ["NoSuchKey", "BlobNotFound", "No such object"];
/// Words that stores send with the status of a bad request, about keys that have expired.
const KEYS_STALE: [&str; 4] =
    ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"];

/// Paths of a machine's metadata service, which the S3 client asks last for a key.
const METADATA_PATHS: [&str; 2] = ["/latest/api/token", "/latest/meta-data/iam/"];

/// Names the missing credential, if the error is of the metadata service. Its address would mislead:
/// most machines have no such service, and lack a key.
fn without_credential(detail: &str) -> Option<String> {
    if !METADATA_PATHS.iter().any(|path| detail.contains(path)) {
        return None;
    }
    let cause = detail.rsplit_once(" - ").map_or("it failed", |(_, cause)| cause);
    Some(format!(
        "no credential: set access_key_id and secret_access_key, or a profile of \
         ~/.aws/credentials; or give this machine a role (its metadata service: {cause})"
    ))
}

fn says_keys_are_stale(detail: &str) -> bool {
    KEYS_STALE.iter().any(|words| detail.contains(words))
}

/// The kind of the first `io::Error` among the sources, from a local directory or a socket.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(kind: io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(io::Error::from(kind)) }
    }

    #[test]
    fn errors_of_the_store_keep_the_object_and_say_what_to_do() {
        let full = Error::from_store("writing", "streams/x", &generic(io::ErrorKind::StorageFull));
        assert!(full.to_string().starts_with("disk full writing streams/x"), "{full}");
        assert_eq!(full.kind(), ErrorKind::Unavailable);
        let denied = generic(io::ErrorKind::PermissionDenied);
        let denied = Error::from_store("reading", "streams/x", &denied);
        assert!(denied.to_string().starts_with("the bucket denies reading streams/x"), "{denied}");
        assert_eq!(denied.trouble(), Trouble::Denied);
        let reset = generic(io::ErrorKind::ConnectionReset);
        assert!(Error::from_store("reading", "x", &reset).is_transient());
    }

    /// An error as `object_store` makes it of an HTTP server's answer.
    fn missing(body: &str) -> object_store::Error {
        let source = format!("Server returned non-2xx status code: 404 Not Found: {body}").into();
        object_store::Error::NotFound { path: "x".to_owned(), source }
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        for (body, trouble) in [
            ("<Error><Code>NoSuchKey</Code></Error>", Trouble::Permanent),
            ("<Error><Code>BlobNotFound</Code></Error>", Trouble::Permanent),
            ("", Trouble::Away),
            ("404 page not found", Trouble::Away),
            ("{\"message\": \"no route\"}", Trouble::Away),
            ("<Error><Code>NoSuchBucket</Code></Error>", Trouble::Away),
            ("<Error><Code>ContainerNotFound</Code></Error>", Trouble::Away),
            ("<html><h1>404 Not Found</h1></html>", Trouble::Away),
        ] {
            let error = Error::from_store("reading", "x", &missing(body));
            assert_eq!(error.trouble(), trouble, "{body}");
            let is_answer = matches!(error, Error::NotFound { .. });
            assert_eq!(is_answer, trouble == Trouble::Permanent, "{body}");
        }
        assert!(Error::is_vague_404(&missing("")));
        let file = io::Error::from(io::ErrorKind::NotFound).into();
        let file = object_store::Error::NotFound { path: "x".to_owned(), source: file };
        assert!(!Error::is_vague_404(&file), "a file that is not there is not there");
    }

    #[test]
    fn stale_keys_are_a_matter_of_access() {
        let said = "status code: 400 Bad Request: <Error><Code>ExpiredToken</Code></Error>";
        let error = object_store::Error::Generic { store: "S3", source: said.into() };
        assert_eq!(Error::from_store("reading", "x", &error).trouble(), Trouble::Denied);
    }

    #[test]
    fn a_missing_key_is_named_and_not_the_metadata_service() {
        let said = "Error performing PUT http://169.254.169.254/latest/api/token in 1.0s - \
                    HTTP error: error sending request";
        let error = object_store::Error::Generic { store: "S3", source: said.into() };
        let error = Error::from_store("reading", "x", &error);
        let text = error.to_string();
        assert!(text.contains("no credential: set access_key_id"), "{text}");
        assert!(text.contains("error sending request"), "{text}");
        assert!(!text.contains("169.254"), "{text}");
        assert!(error.is_transient(), "a role may come back");
    }

    #[test]
    fn a_disk_that_can_not_read_is_not_waited_for() {
        let of = |number| {
            let source = io::Error::from_raw_os_error(number);
            Error::file("reading", std::path::Path::new("x"), source).trouble()
        };
        assert_eq!((of(EIO), of(107)), (Trouble::Permanent, Trouble::Busy));
    }

    #[test]
    fn a_newer_format_is_not_called_damage() {
        let newer = Error::format("bucket", FormatError::Newer { what: "bucket", version: 9 });
        assert_eq!(newer.kind(), ErrorKind::Invalid);
        let bad = Error::format_at("streams/x", 7, FormatError::BadChecksum { what: "frame" });
        assert_eq!(bad.kind(), ErrorKind::Corrupt);
        assert!(bad.to_string().starts_with("streams/x at byte 7: "), "{bad}");
    }
}
