//! The jobs that match a filter, page by page.

use skerry_api::{Result, v1};

use super::Jobs;
use crate::cli::job_filter::JobFilter;

/// A listing, page by page.
pub(super) struct Pages {
    filter: JobFilter,
    /// The request for the next page; none after the last.
    next: Option<v1::ListJobsRequest>,
}

impl Pages {
    /// Begins a listing.
    pub(super) fn new(filter: JobFilter) -> Self {
        let next = Some(filter.request());
        Self { filter, next }
    }

    /// Gives the jobs of the next page that match; none at the end. A page may have no such jobs.
    pub(super) async fn next(&mut self, jobs: &mut Jobs) -> Result<Option<Vec<v1::Job>>> {
        let Some(request) = self.next.take() else { return Ok(None) };
        let mut page = jobs.list_jobs(request.clone()).await?.into_inner();
        if !page.next.is_empty() {
            self.next = Some(v1::ListJobsRequest { after: page.next, ..request });
        }
        page.jobs.retain(|job| self.filter.matches(job));
        Ok(Some(page.jobs))
    }
}
