//! A shard that is not open, and why.

use skerry_api::Error;

use crate::api_error::of_jobs;

/// The reason why a shard is not open.
pub(crate) struct NotOpen {
    pub(crate) error: Error,
    /// True if another process has opened its database since.
    pub(crate) is_fenced: bool,
}

impl From<Error> for NotOpen {
    fn from(error: Error) -> Self {
        Self { error, is_fenced: false }
    }
}

impl From<skerry_jobs::Error> for NotOpen {
    fn from(error: skerry_jobs::Error) -> Self {
        let is_fenced = error.is_fenced();
        Self { error: of_jobs(error), is_fenced }
    }
}
