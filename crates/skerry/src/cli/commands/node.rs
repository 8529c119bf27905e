//! `skerry status` and `skerry fsck`.

use skerry_api::{Error, ErrorKind, Result, v1};

use super::Context;
use crate::cli::output::node::{ReportDocument, StatusDocument, report_lines, status_lines};
use crate::cli::progress;

/// Shows the node's state.
pub(super) async fn status(context: &mut Context<'_>) -> Result<()> {
    let status = context.client().await?.get_status(v1::GetStatusRequest {}).await?;
    context.output.print(&StatusDocument::from(&status), &status_lines(&status))
}

/// Checks the bucket. Fails if there is any problem.
pub(super) async fn fsck(context: &mut Context<'_>) -> Result<()> {
    let client = context.client().await?;
    let spinner = progress::spinner("checking the bucket");
    let report = client.fsck(v1::FsckRequest {}).await;
    spinner.finish_and_clear();
    let report = report?;
    context.output.print(&ReportDocument::from(&report), &report_lines(&report))?;
    match report.problems_total {
        0 => Ok(()),
        count => {
            let message = format!("the check found faults: {count} in all, see above");
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    }
}
