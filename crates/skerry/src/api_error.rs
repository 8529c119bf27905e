//! Conversions of errors to the API's: one table for the engine, one for the broker.

use skerry_api::{Error, ErrorKind};

/// Turns an error of the engine into the API's, or one of the store or the log below it.
pub(crate) fn of_engine(error: impl Into<skerry_volume::Error>) -> Error {
    use skerry_volume::ErrorKind as Engine;
    let error = error.into();
    let kind = match error.kind() {
        Engine::Internal => ErrorKind::Internal,
        Engine::NotFound => ErrorKind::NotFound,
        Engine::Exists => ErrorKind::Exists,
        Engine::Busy => ErrorKind::InUse,
        Engine::Fenced => ErrorKind::Fenced,
        Engine::Invalid => ErrorKind::Invalid,
        // The attachment ended meanwhile: the next try meets the volume in its new state.
        Engine::Detached | Engine::Unavailable => ErrorKind::Unavailable,
        Engine::Corrupt => ErrorKind::Corrupt,
    };
    if kind == ErrorKind::Internal {
        // The caller can do nothing about it.
        tracing::error!(%error, "internal error");
    }
    Error::new(kind, error.to_string())
}

/// Turns an error of the broker into the API's.
pub(crate) fn of_jobs(error: skerry_jobs::Error) -> Error {
    use skerry_jobs::ErrorKind as Broker;
    let kind = match error.kind() {
        Broker::Invalid => ErrorKind::Invalid,
        Broker::NotFound => ErrorKind::NotFound,
        Broker::Exists => ErrorKind::Exists,
        Broker::Conflict | Broker::LeaseLost => ErrorKind::InUse,
        Broker::Unavailable => ErrorKind::Unavailable,
        Broker::Corrupt => ErrorKind::Corrupt,
        Broker::Internal => ErrorKind::Internal,
    };
    Error::new(kind, error.to_string())
}
