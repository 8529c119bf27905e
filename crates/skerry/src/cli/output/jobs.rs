//! The output of commands about jobs.

use std::collections::BTreeMap;

use serde::Serialize;
use skerry_api::v1;

use super::{lines, table};
use crate::values::time;

/// A job, as a document. Payloads and results are texts; bytes that are not UTF-8 are replaced.
#[derive(Debug, Serialize)]
pub(crate) struct JobDocument {
    id: String,
    tenant: String,
    group: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    priority: u32,
    created_at: String,
    start_at: Option<String>,
    ended_at: Option<String>,
    cancel_asked: bool,
    metadata: BTreeMap<String, String>,
    limits: Vec<String>,
    attempts: Vec<AttemptDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

/// An attempt, as a document.
#[derive(Debug, Serialize)]
struct AttemptDocument {
    number: u32,
    worker: String,
    started_at: String,
    ended_at: Option<String>,
    end: &'static str,
    error: Option<ErrorDocument>,
}

/// The failure of an attempt, as a document.
#[derive(Debug, Serialize)]
struct ErrorDocument {
    code: String,
    message: String,
    r#final: bool,
}

impl JobDocument {
    /// Without its payload and result.
    pub(crate) fn brief(job: &v1::Job) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        Self {
            id: spec.id,
            tenant: spec.tenant,
            group: spec.group,
            state: state_word(job.state()),
            waits_for: waits_for(job),
            priority: spec.priority.unwrap_or_default(),
            created_at: time(job.created_ms),
            start_at: (spec.start_at_ms > 0).then(|| time(spec.start_at_ms)),
            ended_at: job.ended_ms.map(time),
            cancel_asked: job.cancel_asked,
            metadata: spec.metadata.into_iter().collect(),
            limits: spec.limits.into_iter().map(|limit| limit.name).collect(),
            attempts: job.attempts.iter().map(AttemptDocument::from).collect(),
            payload: None,
            result: None,
        }
    }

    /// With both.
    pub(crate) fn full(job: &v1::Job) -> Self {
        let payload = job.spec.as_ref().map(|spec| text(&spec.payload));
        Self { payload, result: result(job).map(text), ..Self::brief(job) }
    }
}

impl From<&v1::Attempt> for AttemptDocument {
    fn from(attempt: &v1::Attempt) -> Self {
        let error = match &attempt.end {
            Some(v1::attempt::End::Failed(error)) => Some(ErrorDocument {
                code: error.code.clone(),
                message: error.message.clone(),
                r#final: error.r#final,
            }),
            _ => None,
        };
        Self {
            number: attempt.number,
            worker: attempt.worker.clone(),
            started_at: time(attempt.started_ms),
            ended_at: attempt.ended_ms.map(time),
            end: end_word(attempt),
            error,
        }
    }
}

fn text(bytes: &bytes::Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn result(job: &v1::Job) -> Option<&bytes::Bytes> {
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

/// The state of a job, in a word.
pub(crate) fn state_word(state: v1::JobState) -> &'static str {
    match state {
        v1::JobState::Scheduled => "scheduled",
        v1::JobState::Running => "running",
        v1::JobState::Succeeded => "succeeded",
        v1::JobState::Failed => "failed",
        v1::JobState::Cancelled => "cancelled",
        v1::JobState::Unspecified => "unknown",
    }
}

/// Jobs, for people.
pub(crate) fn job_table(jobs: &[v1::Job]) -> String {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let spec = job.spec.clone().unwrap_or_default();
            [
                spec.tenant,
                spec.id,
                spec.group,
                state_word(job.state()).to_owned(),
                spec.priority.unwrap_or_default().to_string(),
                job.attempts.len().to_string(),
                time(job.created_ms),
            ]
        })
        .collect();
    table(["TENANT", "ID", "GROUP", "STATE", "PRIORITY", "ATTEMPTS", "CREATED"], &rows)
}

/// A text without characters that control a terminal.
fn plain(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escaped).collect()
}

/// One job in full, for people.
pub(crate) fn job_lines(job: &v1::Job) -> String {
    let document = JobDocument::full(job);
    let metadata = document.metadata.iter().map(|(key, value)| format!("{key}={value}"));
    let mut out = lines(&[
        ("id", document.id.clone()),
        ("tenant", document.tenant.clone()),
        ("group", document.group.clone()),
        ("state", document.state.to_owned()),
        ("waits for", document.waits_for.clone().unwrap_or_default()),
        ("priority", document.priority.to_string()),
        ("created", document.created_at.clone()),
        ("start", document.start_at.clone().unwrap_or_else(|| "at once".to_owned())),
        ("ended", document.ended_at.clone().unwrap_or_default()),
        ("metadata", plain(&metadata.collect::<Vec<_>>().join(" "))),
        ("limits", document.limits.join(" ")),
        ("payload", plain(&document.payload.clone().unwrap_or_default())),
        ("result", plain(&document.result.clone().unwrap_or_default())),
    ]);
    for attempt in &document.attempts {
        let why =
            attempt.error.as_ref().map(|e| format!(": {} {}", plain(&e.code), plain(&e.message)));
        out += &format!(
            "attempt {}  {} by {}, from {}{}{}\n",
            attempt.number,
            attempt.end,
            attempt.worker,
            attempt.started_at,
            attempt.ended_at.as_ref().map(|at| format!(" to {at}")).unwrap_or_default(),
            why.unwrap_or_default(),
        );
    }
    out
}

/// Numbers of jobs, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct StatsDocument {
    enqueued: u64,
    leased: u64,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    retried: u64,
    expired: u64,
    groups: Vec<GroupDocument>,
}

/// Numbers of a task group's jobs, as a document.
#[derive(Debug, Serialize)]
struct GroupDocument {
    group: String,
    delayed: u64,
    waiting: u64,
    running: u64,
    paused: bool,
}

impl From<&v1::GetJobStatsResponse> for StatsDocument {
    fn from(stats: &v1::GetJobStatsResponse) -> Self {
        let groups = stats.groups.iter().map(|group| GroupDocument {
            group: group.group.clone(),
            delayed: group.early,
            waiting: group.ready,
            running: group.running,
            paused: group.is_paused,
        });
        Self {
            enqueued: stats.enqueued,
            leased: stats.leased,
            succeeded: stats.succeeded,
            failed: stats.failed,
            cancelled: stats.cancelled,
            retried: stats.retried,
            expired: stats.expired,
            groups: groups.collect(),
        }
    }
}

/// Numbers of jobs, for people.
pub(crate) fn stats_text(stats: &v1::GetJobStatsResponse) -> String {
    let since = lines(&[
        ("enqueued", stats.enqueued.to_string()),
        ("attempts", stats.leased.to_string()),
        ("succeeded", stats.succeeded.to_string()),
        ("failed", stats.failed.to_string()),
        ("cancelled", stats.cancelled.to_string()),
        ("tried again", stats.retried.to_string()),
        ("expired", stats.expired.to_string()),
    ]);
    let rows: Vec<_> = stats
        .groups
        .iter()
        .map(|group| {
            [
                group.group.clone(),
                group.early.to_string(),
                group.ready.to_string(),
                group.running.to_string(),
                if group.is_paused { "paused".to_owned() } else { String::new() },
            ]
        })
        .collect();
    let now = table(["GROUP", "DELAYED", "WAITING", "RUNNING", ""], &rows);
    format!("Since the node started:\n{since}\nNow:\n{now}")
}
