//! The one place where errors become the protocol's numbers.

use skerry_device::ErrorKind;

use super::reply;
use crate::export::OpenError;

/// The errno that tells a client of a failed request.
#[must_use]
pub fn errno(kind: ErrorKind) -> u32 {
    match kind {
        ErrorKind::ReadOnly => 1,      // NBD_EPERM
        ErrorKind::Failed => 5,        // NBD_EIO
        ErrorKind::Invalid => 22,      // NBD_EINVAL
        ErrorKind::NoSpace => 28,      // NBD_ENOSPC
        ErrorKind::NotSupported => 95, // NBD_ENOTSUP
        ErrorKind::Reattach => 108,    // NBD_ESHUTDOWN; never sent: the connection is closed
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
