//! The output of commands about jobs.

use serde::Serialize;
use skerry_api::v1;

use super::job_document::JobDocument;
use super::job_limit::LimitDocument;
use super::{lines, table};
use crate::values::time;

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

/// The longest error in a table, characters; `jobs show` has all of it.
const ERROR_CHARS_MAX: usize = 60;

/// Jobs, for people.
pub(crate) fn job_table(jobs: &[v1::Job]) -> String {
    let heading = [
        "TENANT",
        "ID",
        "GROUP",
        "STATE",
        "PRIORITY",
        "ATTEMPTS",
        "CREATED",
        "NEXT START",
        "WAITS FOR",
        "LAST ERROR",
    ];
    let rows: Vec<_> = jobs.iter().map(job_row).collect();
    table(heading, &rows)
}

fn job_row(job: &v1::Job) -> [String; 10] {
    let document = JobDocument::brief(job);
    let error = document.last_error.map(|error| {
        let whole = plain(&format!("{}: {}", error.code, error.message));
        match whole.char_indices().nth(ERROR_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &whole[..end]),
            None => whole,
        }
    });
    [
        document.tenant,
        document.id,
        document.group,
        document.state,
        document.priority.unwrap_or_default().to_string(),
        job.attempts.len().to_string(),
        time(job.created_ms),
        document.next_start_at.unwrap_or_default(),
        waits_word(job).unwrap_or_default(),
        error.unwrap_or_default(),
    ]
}

/// The reason why a job waits, in a word or two.
fn waits_word(job: &v1::Job) -> Option<String> {
    use v1::waiting::Reason;
    Some(match job.waiting.as_ref()?.reason.as_ref()? {
        Reason::UntilMs(_) => "time".to_owned(),
        Reason::Paused(_) => "paused".to_owned(),
        Reason::Limit(limit) => format!("limit {} ({}/{})", limit.name, limit.running, limit.max),
        Reason::Rate(rate) => format!("rate {}", rate.name),
        Reason::Turn(_) => "turn".to_owned(),
    })
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
    let limits: Vec<_> = document.limits.iter().map(LimitDocument::name).collect();
    let mut out = lines(&[
        ("id", document.id.clone()),
        ("tenant", document.tenant.clone()),
        ("group", document.group.clone()),
        ("state", document.state.clone()),
        ("waits for", document.waits_for.clone().unwrap_or_default()),
        ("priority", document.priority.unwrap_or_default().to_string()),
        ("created", time(job.created_ms)),
        ("start", document.start_at.clone().unwrap_or_else(|| "at once".to_owned())),
        ("ended", document.ended_at.clone().unwrap_or_default()),
        ("metadata", plain(&metadata.collect::<Vec<_>>().join(" "))),
        ("limits", limits.join(" ")),
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
            attempt.started_at.as_deref().unwrap_or_default(),
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
