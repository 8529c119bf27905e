//! `skerry status` and `skerry fsck`.

use serde_json::{Value, json};
use skerry_api::{Error, ErrorKind, Result, v1};

use super::Context;
use crate::cli::output::lines;
use crate::values::human_bytes;

/// Shows the node's state.
pub(super) async fn status(context: &mut Context<'_>) -> Result<()> {
    let status = context.client().await?.get_status(v1::GetStatusRequest {}).await?;
    context.output.print(&status_document(&status), &status_lines(&status))
}

fn status_document(status: &v1::GetStatusResponse) -> Value {
    json!({
        "node": status.node,
        "version": status.version,
        "bucket": status.bucket,
        "bucket_url": status.bucket_url,
        "bucket_failure": status.bucket_failure,
        "log": status.has_log,
        "log_used_bytes": status.log_used_bytes,
        "log_cap_bytes": status.log_cap_bytes,
        "log_failure": status.log_failure,
        "volumes_open": status.volumes_open,
        "parked": status.parked,
    })
}

fn status_lines(status: &v1::GetStatusResponse) -> String {
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
        ("open", format!("{} volumes", status.volumes_open)),
    ];
    pairs.extend(status.parked.iter().map(|line| ("attention", line.clone())));
    lines(&pairs)
}

/// Checks the bucket. Fails if there is any problem.
pub(super) async fn fsck(context: &mut Context<'_>) -> Result<()> {
    let report = context.client().await?.fsck(v1::FsckRequest {}).await?;
    context.output.print(&report_document(&report), &report_lines(&report))?;
    match report.problems_total {
        0 => Ok(()),
        count => {
            let message = format!("the bucket has {count} problems: see above");
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    }
}

fn report_document(report: &v1::FsckResponse) -> Value {
    json!({
        "volumes": report.volumes,
        "refs": report.refs,
        "segments": report.segments,
        "blocks": report.blocks,
        "orphans": report.orphans,
        "problems": report.problems,
        "problems_total": report.problems_total,
    })
}

fn report_lines(report: &v1::FsckResponse) -> String {
    let mut text: String =
        report.problems.iter().map(|problem| format!("problem: {problem}\n")).collect();
    let left_out = report.problems_total.saturating_sub(report.problems.len() as u64);
    if left_out > 0 {
        text.push_str(&format!("… and {left_out} more\n"));
    }
    text.push_str(&format!(
        "checked {} volumes, {} refs, {} segments and {} blocks; {} segments are held by nothing\n",
        report.volumes, report.refs, report.segments, report.blocks, report.orphans
    ));
    text
}
