//! The one place where errors become the protocol's numbers.

use super::reply;
use crate::export::{IoErrorKind, OpenError};

/// The errno that tells a client of a failed request.
#[must_use]
pub fn errno(kind: IoErrorKind) -> u32 {
    match kind {
        IoErrorKind::ReadOnly => 1,      // NBD_EPERM
        IoErrorKind::Failed => 5,        // NBD_EIO
        IoErrorKind::Invalid => 22,      // NBD_EINVAL
        IoErrorKind::NoSpace => 28,      // NBD_ENOSPC
        IoErrorKind::TooLarge => 75,     // NBD_EOVERFLOW
        IoErrorKind::NotSupported => 95, // NBD_ENOTSUP
        IoErrorKind::Reconnect => 108,   // NBD_ESHUTDOWN; never sent: the connection is closed
    }
}

/// The type of the option reply that tells a client why an export can't be opened.
#[must_use]
pub fn refusal(error: &OpenError) -> u32 {
    match error {
        OpenError::NotFound { .. } => reply::ERR_UNKNOWN,
        OpenError::Busy { .. } | OpenError::Denied(_) => reply::ERR_POLICY,
        OpenError::Unavailable(_) => reply::ERR_PLATFORM,
    }
}
