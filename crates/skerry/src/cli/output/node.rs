//! The output of commands about the node and its bucket.

use serde::Serialize;
use skerry_api::v1;

use super::lines;
use crate::values::human_bytes;

/// The state of a node, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct StatusDocument<'a> {
    node: &'a str,
    version: &'a str,
    bucket: &'a str,
    bucket_url: &'a str,
    bucket_failure: Option<&'a str>,
    log: bool,
    log_used_bytes: u64,
    log_cap_bytes: u64,
    log_failure: Option<&'a str>,
    volumes_open: u64,
    used_bytes: u64,
    stored_bytes: u64,
    undestaged_bytes: u64,
    undestaged_age_s: Option<u64>,
    parked: &'a [String],
}

impl<'a> From<&'a v1::GetStatusResponse> for StatusDocument<'a> {
    fn from(status: &'a v1::GetStatusResponse) -> Self {
        let waits = status.undestaged_bytes > 0;
        Self {
            node: &status.node,
            version: &status.version,
            bucket: &status.bucket,
            bucket_url: &status.bucket_url,
            bucket_failure: status.bucket_failure.as_deref(),
            log: status.has_log,
            log_used_bytes: status.log_used_bytes,
            log_cap_bytes: status.log_cap_bytes,
            log_failure: status.log_failure.as_deref(),
            volumes_open: status.volumes_open,
            used_bytes: status.used_bytes,
            stored_bytes: status.stored_bytes,
            undestaged_bytes: status.undestaged_bytes,
            undestaged_age_s: waits.then_some(status.undestaged_age_ms / 1000),
            parked: &status.parked,
        }
    }
}

/// The state of a node, for people.
pub(crate) fn status_lines(status: &v1::GetStatusResponse) -> String {
    let state = |failure: &Option<String>| match failure {
        Some(failure) => format!("failing: {failure}"),
        None => "fine".to_owned(),
    };
    let (used, cap) = (human_bytes(status.log_used_bytes), human_bytes(status.log_cap_bytes));
    let log = match status.has_log {
        true => format!("{used} of {cap}, {}", state(&status.log_failure)),
        false => "none: every flush waits for the bucket".to_owned(),
    };
    let bucket = format!("{}, {}", status.bucket_url, state(&status.bucket_failure));
    let mut pairs = vec![
        ("node", format!("{}, version {}", status.node, status.version)),
        ("bucket", bucket),
        ("log", log),
        ("open", open_line(status)),
        ("undestaged", undestaged_line(status)),
    ];
    pairs.extend(status.parked.iter().map(|line| ("attention", line.clone())));
    lines(&pairs)
}

fn open_line(status: &v1::GetStatusResponse) -> String {
    let (used, stored) = (human_bytes(status.used_bytes), human_bytes(status.stored_bytes));
    let volumes = counted(status.volumes_open, "volume");
    match status.volumes_open {
        0 => volumes,
        _ => format!("{volumes}: {used} used, {stored} in the bucket"),
    }
}

fn undestaged_line(status: &v1::GetStatusResponse) -> String {
    match status.undestaged_bytes {
        0 => "nothing".to_owned(),
        bytes => format!("{}, for {} s", human_bytes(bytes), status.undestaged_age_ms / 1000),
    }
}

/// The findings of a check, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct ReportDocument<'a> {
    volumes: u64,
    refs: u64,
    snapshots: u64,
    segments: u64,
    blocks: u64,
    orphans: u64,
    problems: &'a [String],
    problems_total: u64,
}

impl<'a> From<&'a v1::FsckResponse> for ReportDocument<'a> {
    fn from(report: &'a v1::FsckResponse) -> Self {
        Self {
            volumes: report.volumes,
            refs: report.refs,
            snapshots: report.snapshots,
            segments: report.segments,
            blocks: report.blocks,
            orphans: report.orphans,
            problems: &report.problems,
            problems_total: report.problems_total,
        }
    }
}

/// The findings of a check, for people.
pub(crate) fn report_lines(report: &v1::FsckResponse) -> String {
    let mut text: String =
        report.problems.iter().map(|problem| format!("problem: {problem}\n")).collect();
    let left_out = report.problems_total.saturating_sub(report.problems.len() as u64);
    if left_out > 0 {
        text.push_str(&format!("… and {left_out} more\n"));
    }
    if report.orphans > 0 {
        let segments = counted(report.orphans, "segment");
        text.push_str(&format!("nothing holds {segments}: they only take space\n"));
    }
    let checked = [
        counted(report.volumes, "volume"),
        counted(report.snapshots, "snapshot"),
        counted(report.segments, "segment"),
        counted(report.blocks, "block"),
    ]
    .join(", ");
    text + &match report.problems_total {
        0 => format!("The bucket is sound: {checked}.\n"),
        count => format!(
            "{} in {checked}. Put the objects that are named back from a copy of the bucket, or \
             delete the volumes that need them.\n",
            counted(count, "problem")
        ),
    }
}

/// A number of things, for people.
fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_ends_with_a_plain_sentence() {
        let mut report = v1::FsckResponse {
            volumes: 12,
            snapshots: 34,
            segments: 1,
            blocks: 5,
            ..v1::FsckResponse::default()
        };
        let sound = "The bucket is sound: 12 volumes, 34 snapshots, 1 segment, 5 blocks.\n";
        assert_eq!(report_lines(&report), sound);
        report.orphans = 2;
        let orphans = "nothing holds 2 segments: they only take space\n";
        assert_eq!(report_lines(&report), format!("{orphans}{sound}"));
        report.problems = vec!["streams/a is gone".to_owned()];
        report.problems_total = 3;
        let text = report_lines(&report);
        assert!(text.starts_with("problem: streams/a is gone\n… and 2 more\n"), "{text}");
        assert!(text.lines().last().is_some_and(|last| last.starts_with("3 problems in 12")));
    }

    #[test]
    fn whatever_needs_attention_has_a_row() {
        let parked = vec!["volume a failed".to_owned(), "volume b failed".to_owned()];
        let status = v1::GetStatusResponse { parked, ..v1::GetStatusResponse::default() };
        let rows: Vec<_> = status_lines(&status)
            .lines()
            .filter_map(|line| line.strip_prefix("attention").map(|row| row.trim().to_owned()))
            .collect();
        assert_eq!(rows, status.parked);
        assert!(!status_lines(&v1::GetStatusResponse::default()).contains("attention"));
    }
}
