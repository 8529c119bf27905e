//! A job in a worker's hands.

use bytes::Bytes;
use skerry_api::v1;
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// A job for the handler.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// Its payload.
    pub payload: Bytes,
    /// Its metadata.
    pub metadata: HashMap<String, String>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Is cancelled when a person or program cancels the job; then return [`Failure::Cancelled`].
    /// Is cancelled as well when the lease is lost; then the worker drops the handler where it
    /// waits, and any outcome.
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

/// The failure of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The node tries the job again by its retry policy.
    Retry {
        /// Kind of the failure, for programs.
        code: String,
        /// Message for people.
        message: String,
    },
    /// Another try would not help.
    Final {
        /// Kind of the failure, for programs.
        code: String,
        /// Message for people.
        message: String,
    },
    /// The handler stopped, as it was told to.
    Cancelled,
}

impl Failure {
    /// Makes a failure after which the node tries again.
    pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Retry { code: code.into(), message: message.into() }
    }

    /// Makes a failure after which no try would help.
    pub fn give_up(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Final { code: code.into(), message: message.into() }
    }
}

/// The largest result that a node accepts, bytes.
const RESULT_BYTES_MAX: usize = 1 << 20;
/// The longest code, and the longest message, of an error that a node keeps, bytes.
const ERROR_BYTES_MAX: usize = 4096;

/// The outcome of an attempt whose result the node refused.
pub(crate) fn wrong_result(lease: Bytes, message: String) -> v1::Outcome {
    outcome(lease, Err(Failure::retry("InvalidResult", message)))
}

/// The outcome of an attempt that is over.
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
