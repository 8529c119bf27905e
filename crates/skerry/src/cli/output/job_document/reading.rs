//! The job that a document describes, for `jobs import`.
//!
//! A field that a document lacks has its default. A field that is not known is refused: it may be
//! misspelt.

use base64::Engine as _;
use bytes::Bytes;
use jiff::Timestamp;
use skerry_api::{Result, v1};

use super::{AttemptDocument, BASE64, JobDocument};
use crate::values::invalid;

impl JobDocument {
    /// The job that a document describes. Fields that only the node decides count for nothing.
    ///
    /// # Errors
    /// `Invalid` names the field.
    pub(crate) fn into_job(self, now: Timestamp) -> Result<v1::Job> {
        let created_ms = match &self.created_at {
            Some(at) => time_ms("created_at", at)?,
            None => u64::try_from(now.as_millisecond()).unwrap_or_default(),
        };
        let result = bytes("result", self.result, self.result_base64)?;
        let attempts = self.attempts.into_iter().map(|attempt| attempt.into_attempt(created_ms));
        let mut attempts = attempts.collect::<Result<Vec<_>>>()?;
        if let Some(v1::Attempt { end: Some(v1::attempt::End::Succeeded(last)), .. }) =
            attempts.last_mut()
        {
            *last = result;
        }
        let spec = v1::JobSpec {
            id: self.id,
            tenant: self.tenant,
            group: self.group,
            priority: self.priority,
            start_at_ms: self.start_at.map_or(Ok(0), |at| time_ms("start_at", &at))?,
            payload: bytes("payload", self.payload, self.payload_base64)?,
            metadata: self.metadata.into_iter().collect(),
            retry: Some(self.retry.into()),
            lease_ms: self.lease_ms,
            max_run_ms: self.max_run_ms.unwrap_or_default(),
            limits: self.limits.into_iter().map(v1::Limit::from).collect(),
        };
        Ok(v1::Job {
            spec: Some(spec),
            state: state_of(&self.state)?.into(),
            created_ms,
            ended_ms: self.ended_at.map(|at| time_ms("ended_at", &at)).transpose()?,
            cancel_asked: false,
            attempts,
            waiting: None,
        })
    }
}

impl AttemptDocument {
    /// The attempt. The result of the last is the job's own; earlier results are not kept.
    fn into_attempt(self, created_ms: u64) -> Result<v1::Attempt> {
        use v1::attempt::End;
        let started = self.started_at.map(|at| time_ms("started_at", &at)).transpose()?;
        let started_ms = started.unwrap_or(created_ms);
        let error = self.error.unwrap_or_default();
        let end = match self.end.as_str() {
            "running" | "" => None,
            "succeeded" => Some(End::Succeeded(Bytes::new())),
            "failed" => Some(End::Failed(v1::JobError {
                code: error.code,
                message: error.message,
                r#final: error.r#final,
            })),
            "expired" => Some(End::Expired(true)),
            "cancelled" => Some(End::Cancelled(true)),
            "returned" => Some(End::Returned(true)),
            "too long" => Some(End::TooLong(true)),
            end => return Err(invalid(format!("end: no attempt ends as {end:?}"))),
        };
        let ended = self.ended_at.map(|at| time_ms("ended_at", &at)).transpose()?;
        let ended_ms = end.is_some().then(|| ended.unwrap_or(started_ms));
        Ok(v1::Attempt { number: self.number, worker: self.worker, started_ms, ended_ms, end })
    }
}

/// Bytes that a document has as text or in Base64.
fn bytes(field: &str, text: Option<String>, base64: Option<String>) -> Result<Bytes> {
    let Some(base64) = base64 else { return Ok(text.unwrap_or_default().into()) };
    let decoded = BASE64.decode(base64);
    decoded.map(Bytes::from).map_err(|error| invalid(format!("{field}_base64: {error}")))
}

fn time_ms(field: &str, text: &str) -> Result<u64> {
    let at = text.parse::<Timestamp>().ok();
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok())
        .ok_or_else(|| invalid(format!("{field}: {text:?} is no time: write RFC 3339")))
}

fn state_of(word: &str) -> Result<v1::JobState> {
    Ok(match word {
        "scheduled" | "" => v1::JobState::Scheduled,
        "running" => v1::JobState::Running,
        "succeeded" => v1::JobState::Succeeded,
        "failed" => v1::JobState::Failed,
        "cancelled" => v1::JobState::Cancelled,
        _ => return Err(invalid(format!("state: no job is {word:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_back_as_it_was_printed() {
        use v1::attempt::End;
        let attempt = |number, end| v1::Attempt {
            number,
            worker: "w".to_owned(),
            started_ms: 5,
            ended_ms: Some(6),
            end: Some(end),
        };
        let error = v1::JobError { code: "c".to_owned(), message: "m".to_owned(), r#final: true };
        let rate = v1::RateLimit { count: 1, per_ms: 2, burst: 3 };
        let floating = v1::FloatingLimit { initial: 1, refresh_ms: 1000, group: "g".to_owned() };
        let kinds = [
            v1::limit::Kind::Concurrency(v1::ConcurrencyLimit { max: 3 }),
            v1::limit::Kind::Rate(rate),
            v1::limit::Kind::Floating(floating),
        ];
        let limits = kinds.map(|kind| v1::Limit { name: "l".to_owned(), kind: Some(kind) });
        let spec = v1::JobSpec {
            id: "a".to_owned(),
            tenant: "t".to_owned(),
            group: "g".to_owned(),
            priority: Some(7),
            start_at_ms: 1_700_000_000_123,
            payload: Bytes::from_static(b"\xff\0text"),
            metadata: [("k".to_owned(), "v".to_owned())].into_iter().collect(),
            retry: Some(v1::RetryPolicy {
                retries: Some(1),
                initial_ms: Some(2),
                max_ms: Some(3),
                factor_percent: Some(100),
                jitter_percent: Some(0),
            }),
            lease_ms: 30_000,
            max_run_ms: 100,
            limits: limits.to_vec(),
        };
        let ends = [End::Failed(error), End::Expired(true), End::Succeeded("done".into())];
        let job = v1::Job {
            spec: Some(spec),
            state: v1::JobState::Succeeded.into(),
            created_ms: 4,
            ended_ms: Some(8),
            cancel_asked: false,
            attempts: (1..).zip(ends).map(|(number, end)| attempt(number, end)).collect(),
            waiting: None,
        };
        let text = serde_json::to_string(&JobDocument::full(&job)).expect("a document");
        let read: JobDocument = serde_json::from_str(&text).expect("reads");
        assert_eq!(read.into_job(Timestamp::UNIX_EPOCH), Ok(job));
    }

    #[test]
    fn what_is_wrong_with_a_document_is_said() {
        for (text, said) in [
            (r#"{"state": "done"}"#, "state"),
            (r#"{"start_at": "tomorrow"}"#, "start_at"),
            (r#"{"payload_base64": "?"}"#, "payload_base64"),
            (r#"{"attempts": [{"end": "lost"}]}"#, "end"),
        ] {
            let read: JobDocument = serde_json::from_str(text).expect("a document");
            let error = read.into_job(Timestamp::UNIX_EPOCH).expect_err(text);
            assert!(error.message().starts_with(said), "{error}");
        }
        for misspelt in [
            r#"{"payloed": "x"}"#,
            r#"{"retry": {"initial": 1}}"#,
            r#"{"limits": [{"kind": "rate", "name": "a", "count": 1, "per_ms": 1, "brust": 2}]}"#,
        ] {
            let error = serde_json::from_str::<JobDocument>(misspelt).expect_err("misspelt");
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }
}
