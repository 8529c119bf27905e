//! A job as a JSON document. `docs/json.md` lists the fields.

mod reading;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skerry_api::v1;

use super::job_limit::{LimitDocument, RetryDocument};
use super::jobs::state_word;
use crate::values::time;

/// A job, as a document.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JobDocument {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) group: String,
    pub(crate) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waits_for: Option<String>,
    pub(crate) next_start_at: Option<String>,
    pub(crate) last_error: Option<ErrorDocument>,
    pub(crate) priority: Option<u32>,
    pub(crate) created_at: Option<String>,
    pub(crate) start_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    pub(crate) cancel_asked: bool,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) retry: RetryDocument,
    pub(crate) lease_ms: u32,
    pub(crate) max_run_ms: Option<u32>,
    pub(crate) limits: Vec<LimitDocument>,
    pub(crate) attempts: Vec<AttemptDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_base64: Option<String>,
}

/// An attempt, as a document.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AttemptDocument {
    pub(crate) number: u32,
    pub(crate) worker: String,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    pub(crate) end: String,
    pub(crate) error: Option<ErrorDocument>,
}

/// The failure of an attempt, as a document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ErrorDocument {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) r#final: bool,
}

impl JobDocument {
    /// Without its payload and result.
    pub(crate) fn brief(job: &v1::Job) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        Self {
            id: spec.id,
            tenant: spec.tenant,
            group: spec.group,
            state: state_word(job.state()).to_owned(),
            waits_for: waits_for(job),
            next_start_at: next_start_ms(job).map(time),
            last_error: last_error(job),
            priority: spec.priority,
            created_at: Some(time(job.created_ms)),
            start_at: (spec.start_at_ms > 0).then(|| time(spec.start_at_ms)),
            ended_at: job.ended_ms.map(time),
            cancel_asked: job.cancel_asked,
            metadata: spec.metadata.into_iter().collect(),
            retry: RetryDocument::from(spec.retry.unwrap_or_default()),
            lease_ms: spec.lease_ms,
            max_run_ms: (spec.max_run_ms > 0).then_some(spec.max_run_ms),
            limits: spec.limits.into_iter().filter_map(LimitDocument::of).collect(),
            attempts: job.attempts.iter().map(AttemptDocument::from).collect(),
            ..Self::default()
        }
    }

    /// With both. Bytes that are no text are in Base64, too.
    pub(crate) fn full(job: &v1::Job) -> Self {
        let payload = job.spec.as_ref().map(|spec| &spec.payload);
        let result = result(job);
        Self {
            payload: payload.map(text),
            payload_base64: payload.and_then(base64_of),
            result: result.map(text),
            result_base64: result.and_then(base64_of),
            ..Self::brief(job)
        }
    }
}

impl From<&v1::Attempt> for AttemptDocument {
    fn from(attempt: &v1::Attempt) -> Self {
        let error = match &attempt.end {
            Some(v1::attempt::End::Failed(error)) => Some(ErrorDocument::from(error)),
            _ => None,
        };
        Self {
            number: attempt.number,
            worker: attempt.worker.clone(),
            started_at: Some(time(attempt.started_ms)),
            ended_at: attempt.ended_ms.map(time),
            end: end_word(attempt).to_owned(),
            error,
        }
    }
}

impl From<&v1::JobError> for ErrorDocument {
    fn from(error: &v1::JobError) -> Self {
        let v1::JobError { code, message, r#final } = error.clone();
        Self { code, message, r#final }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes that are no text, in Base64.
fn base64_of(bytes: &Bytes) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| BASE64.encode(bytes))
}

fn result(job: &v1::Job) -> Option<&Bytes> {
    match job.attempts.last()?.end.as_ref()? {
        v1::attempt::End::Succeeded(bytes) if job.state() == v1::JobState::Succeeded => Some(bytes),
        _ => None,
    }
}

fn end_word(attempt: &v1::Attempt) -> &'static str {
    use v1::attempt::End;
    match &attempt.end {
        None => "running",
        Some(End::Succeeded(_)) => "succeeded",
        Some(End::Failed(_)) => "failed",
        Some(End::Expired(_)) => "expired",
        Some(End::Cancelled(_)) => "cancelled",
        Some(End::Returned(_)) => "returned",
        Some(End::TooLong(_)) => "too long",
    }
}

/// The newest failure of a job that did not succeed.
fn last_error(job: &v1::Job) -> Option<ErrorDocument> {
    use v1::attempt::End;
    let ours = |code: &str, message: &str| ErrorDocument {
        code: code.to_owned(),
        message: message.to_owned(),
        r#final: false,
    };
    if job.state() == v1::JobState::Succeeded {
        return None;
    }
    job.attempts.iter().rev().find_map(|attempt| match attempt.end.as_ref()? {
        End::Failed(error) => Some(ErrorDocument::from(error)),
        End::Expired(_) => Some(ours("expired", "the worker sent no heartbeat for a lease")),
        End::TooLong(_) => Some(ours("too long", "the attempt took longer than the job allows")),
        End::Succeeded(_) | End::Cancelled(_) | End::Returned(_) => None,
    })
}

/// The time when a waiting job can start at the earliest, if it waits for a time.
fn next_start_ms(job: &v1::Job) -> Option<u64> {
    use v1::waiting::Reason;
    match job.waiting.as_ref()?.reason.as_ref()? {
        Reason::UntilMs(at_ms) => Some(*at_ms),
        Reason::Rate(rate) => Some(rate.at_ms),
        Reason::Paused(_) | Reason::Limit(_) | Reason::Turn(_) => None,
    }
}

/// The reason why a job waits, if the node gave it.
fn waits_for(job: &v1::Job) -> Option<String> {
    use v1::waiting::Reason;
    Some(match job.waiting.as_ref()?.reason.as_ref()? {
        Reason::UntilMs(at_ms) => format!("its time, {}", time(*at_ms)),
        Reason::Paused(_) => "its task group, which is paused".to_owned(),
        Reason::Limit(limit) => {
            format!("limit {}: {} of {} run", limit.name, limit.running, limit.max)
        }
        Reason::Rate(rate) => {
            format!("rate {}: the next may begin at {}", rate.name, time(rate.at_ms))
        }
        Reason::Turn(_) => "its turn: others go before it, or no worker asks".to_owned(),
    })
}
