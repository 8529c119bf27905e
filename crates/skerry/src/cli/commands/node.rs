//! `skerry status` and `skerry fsck`.

use skerry_api::{Error, ErrorKind, Result, v1};

use super::Context;
use crate::cli::output::node::{ReportDocument, StatusDocument, report_lines, status_lines};

/// Shows the node's state.
pub(super) async fn status(context: &mut Context<'_>) -> Result<()> {
    let status = context.client().await?.get_status(v1::GetStatusRequest {}).await?;
    context.output.print(&StatusDocument::from(&status), &status_lines(&status))
}

/// Checks the bucket. Fails if there is any problem.
pub(super) async fn fsck(context: &mut Context<'_>) -> Result<()> {
    let report = context.client().await?.fsck(v1::FsckRequest {}).await?;
    context.output.print(&ReportDocument::from(&report), &report_lines(&report))?;
    match report.problems_total {
        0 => Ok(()),
        count => {
            let message = format!("the bucket has {count} problems: see above");
            Err(Error::new(ErrorKind::Corrupt, message))
        }
    }
}
