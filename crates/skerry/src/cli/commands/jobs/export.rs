//! `jobs export`: jobs with their history, one JSON document a line.

use std::io;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use skerry_api::{Error, ErrorKind, Result, v1};

use super::pages::Pages;
use super::{Jobs, terms};
use crate::cli::args::jobs::ExportJobsArgs;
use crate::cli::commands::Context;
use crate::cli::job_filter::JobFilter;
use crate::cli::output::job_document::JobDocument;

/// Jobs that are asked for at once: each may have 3 MiB.
const CALLS_MAX: usize = 16;
/// Ids of the broker's own jobs begin with it. It makes such jobs itself where they are needed.
const OWN: char = '~';

/// Prints the jobs that match.
pub(super) async fn run(
    context: &mut Context<'_>,
    jobs: &mut Jobs,
    args: ExportJobsArgs,
) -> Result<()> {
    let terms = terms(args.filter, args.tenant);
    let mut pages = Pages::new(JobFilter::parse(terms.iter().map(String::as_str))?);
    while let Some(page) = pages.next(jobs).await? {
        let specs = page.into_iter().filter_map(|job| job.spec);
        let specs = specs.filter(|spec| !spec.id.starts_with(OWN));
        let mut shown =
            stream::iter(specs.map(|spec| show(jobs.clone(), spec))).buffered(CALLS_MAX);
        while let Some(job) = shown.try_next().await? {
            let Some(job) = job else { continue };
            match print(context, &job) {
                // The reader has all that it wanted.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => {
                    let message = format!("standard output can't be written: {error}");
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                Ok(()) => {}
            }
        }
    }
    Ok(())
}

/// A listed job in full; none if it was deleted meanwhile.
async fn show(mut jobs: Jobs, spec: v1::JobSpec) -> Result<Option<v1::Job>> {
    let request = v1::JobRequest { tenant: spec.tenant, id: spec.id };
    match jobs.show_job(request).await.map_err(Error::from) {
        Ok(job) => Ok(Some(job.into_inner())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn print(context: &mut Context<'_>, job: &v1::Job) -> io::Result<()> {
    let mut line = serde_json::to_vec(&JobDocument::full(job))?;
    line.push(b'\n');
    context.output.out.write_all(&line)?;
    context.output.out.flush()
}
