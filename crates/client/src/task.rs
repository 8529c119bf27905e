//! A job in a worker's hands.

use bytes::Bytes;
use skerry_api::v1;
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// A job that the handler is to do.
#[derive(Debug, Clone)]
pub struct Task {
    /// What it is called.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What is to be done.
    pub payload: Bytes,
    /// What it can be found by.
    pub metadata: HashMap<String, String>,
    /// The first attempt is 1.
    pub attempt: u32,
    /// Is cancelled when somebody calls the job off (return [`Failure::Cancelled`] then), or when the lease is lost
    /// (what is returned is dropped then, and the handler is dropped where it waits).
    pub stop: CancellationToken,
}

impl Task {
    pub(crate) fn new(job: &v1::LeasedJob) -> Self {
        let stop = CancellationToken::new();
        if job.cancel_asked {
            stop.cancel();
        }
        Self {
            id: job.id.clone(),
            tenant: job.tenant.clone(),
            payload: job.payload.clone(),
            metadata: job.metadata.clone(),
            attempt: job.attempt,
            stop,
        }
    }
}

/// Why a job was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It is tried again, as its retry policy says.
    Retry {
        /// What kind, for programs.
        code: String,
        /// For people.
        message: String,
    },
    /// Trying again is no use.
    Final {
        /// What kind, for programs.
        code: String,
        /// For people.
        message: String,
    },
    /// It stopped, as it was told to.
    Cancelled,
}

impl Failure {
    /// It is tried again.
    pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Retry { code: code.into(), message: message.into() }
    }

    /// Trying again is no use.
    pub fn give_up(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Final { code: code.into(), message: message.into() }
    }
}

/// The largest result that a node takes, bytes.
const RESULT_BYTES_MAX: usize = 1 << 20;
/// The longest code and message of an error that a node keeps, bytes.
const ERROR_BYTES_MAX: usize = 4096;

/// What a worker says of an attempt whose result no node takes.
pub(crate) fn wrong_result(lease: Bytes, message: String) -> v1::Outcome {
    outcome(lease, Err(Failure::retry("InvalidResult", message)))
}

/// What a worker says of an attempt that is over.
pub(crate) fn outcome(lease: Bytes, done: Result<Bytes, Failure>) -> v1::Outcome {
    use v1::outcome::End;
    let failed = |mut code: String, mut message: String, is_final| {
        for text in [&mut code, &mut message] {
            text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        }
        End::Failed(v1::JobError { code, message, r#final: is_final })
    };
    let end = match done {
        Ok(result) if result.len() > RESULT_BYTES_MAX => {
            let bytes = result.len();
            let message = format!("a result of {bytes} bytes: 1 MiB at most; return where it is");
            return wrong_result(lease, message);
        }
        Ok(result) => End::Succeeded(result),
        Err(Failure::Retry { code, message }) => failed(code, message, false),
        Err(Failure::Final { code, message }) => failed(code, message, true),
        Err(Failure::Cancelled) => End::Cancelled(true),
    };
    v1::Outcome { lease, end: Some(end) }
}
