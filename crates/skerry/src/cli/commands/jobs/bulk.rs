//! `jobs cancel`, `restart` and `delete` of all jobs that match a filter.
//!
//! A command that was interrupted is repeated: a job that it has changed does not match again. It
//! passes over a job that another call changes first.

use std::io::{IsTerminal as _, Write as _};

use futures::{StreamExt as _, stream};
use serde::Serialize;
use skerry_api::{Error, ErrorKind, Result, v1};

use super::pages::Pages;
use super::{Jobs, terms};
use crate::cli::args::jobs::ManyArgs;
use crate::cli::commands::Context;
use crate::cli::job_filter::JobFilter;
use crate::values::invalid;

/// Calls under way at once.
const CALLS_MAX: usize = 64;

/// The change that a command makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Cancel,
    Restart,
    Delete,
}

/// The number of jobs that a command was about.
#[derive(Debug, Default, Serialize)]
struct Counts {
    matched: u64,
    done: u64,
    /// Running jobs whose workers are told; of a cancellation alone.
    told: u64,
    /// Jobs that another call changed first.
    skipped: u64,
    dry_run: bool,
}

/// The outcome of one call.
enum Changed {
    Done,
    Told,
    Skipped,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Restart => "restart",
            Self::Delete => "delete",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Cancel => "cancelled",
            Self::Restart => "restarted",
            Self::Delete => "deleted",
        }
    }

    /// The filters to go through, one for each state.
    fn filters(self, filter: &JobFilter) -> Result<Vec<JobFilter>> {
        use v1::JobState::{Cancelled, Failed, Running, Scheduled, Succeeded};
        let (states, names) = match self {
            Self::Cancel => (&[Scheduled, Running][..], "scheduled or running"),
            Self::Restart => {
                (&[Failed, Cancelled, Succeeded][..], "failed, cancelled or succeeded")
            }
            Self::Delete => (
                &[Scheduled, Failed, Cancelled, Succeeded][..],
                "scheduled, failed, cancelled or succeeded",
            ),
        };
        match filter.state() {
            Some(state) if states.contains(&state) => Ok(vec![filter.clone()]),
            None if self == Self::Cancel => {
                Ok(states.iter().map(|state| filter.of_state(*state)).collect())
            }
            _ => {
                let name = self.name();
                Err(invalid(format!("to {name} many jobs, add --filter state=STATE: {names}")))
            }
        }
    }

    async fn change(self, mut jobs: Jobs, job: v1::JobRequest) -> Result<Changed> {
        let done = match self {
            Self::Cancel => jobs.cancel_job(job).await.map(|done| done.into_inner().is_done),
            Self::Restart => jobs.restart_job(job).await.map(|_| true),
            Self::Delete => jobs.delete_job(job).await.map(|_| true),
        };
        match done.map_err(Error::from) {
            Ok(true) => Ok(Changed::Done),
            Ok(false) => Ok(Changed::Told),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InUse) => {
                Ok(Changed::Skipped)
            }
            Err(error) => Err(error),
        }
    }
}

/// Changes the jobs that match, if a person or a flag allows it.
pub(super) async fn run(
    context: &mut Context<'_>,
    jobs: &mut Jobs,
    verb: Verb,
    args: ManyArgs,
) -> Result<()> {
    let terms = terms(args.filter, args.tenant);
    let filters = verb.filters(&JobFilter::parse(terms.iter().map(String::as_str))?)?;
    if !args.yes && !args.dry_run && (context.output.json || !is_terminal()) {
        let message = "--yes is needed where no person is asked; --dry-run counts the jobs";
        return Err(invalid(message));
    }
    if args.dry_run || !args.yes {
        let counts =
            Counts { matched: count(jobs, &filters).await?, dry_run: true, ..Counts::default() };
        let (name, matched) = (verb.name(), counts.matched);
        if args.dry_run || matched == 0 {
            let text = format!("would {name} {}\n", of_jobs(matched));
            return context.output.print(&counts, &text);
        }
        if !agreed(format!("{name} {}? [y/N] ", of_jobs(matched))).await {
            return context.output.print(&counts, "changed nothing\n");
        }
    }
    let mut counts = Counts::default();
    for filter in filters {
        change(jobs, verb, filter, &mut counts).await.map_err(|error| {
            let so_far = counts.done + counts.told;
            let message = format!("{} {} so far, then: {error}", verb.past(), of_jobs(so_far));
            Error::new(error.kind(), format!("{message}; the same command goes on"))
        })?;
    }
    let text = said(verb, &counts);
    context.output.print(&counts, &text)
}

async fn count(jobs: &mut Jobs, filters: &[JobFilter]) -> Result<u64> {
    let mut matched = 0;
    for filter in filters {
        let mut pages = Pages::new(filter.clone());
        while let Some(page) = pages.next(jobs).await? {
            matched += page.iter().filter(|job| !job.cancel_asked).count() as u64;
        }
    }
    Ok(matched)
}

async fn change(jobs: &mut Jobs, verb: Verb, filter: JobFilter, counts: &mut Counts) -> Result<()> {
    let mut pages = Pages::new(filter);
    while let Some(page) = pages.next(jobs).await? {
        // The worker of such a job is told already.
        let new = page.into_iter().filter(|job| !job.cancel_asked);
        let calls = new.filter_map(|job| job.spec).map(|spec| {
            let request = v1::JobRequest { tenant: spec.tenant, id: spec.id };
            verb.change(jobs.clone(), request)
        });
        let mut calls = stream::iter(calls).buffer_unordered(CALLS_MAX);
        while let Some(changed) = calls.next().await {
            counts.matched += 1;
            match changed? {
                Changed::Done => counts.done += 1,
                Changed::Told => counts.told += 1,
                Changed::Skipped => counts.skipped += 1,
            }
        }
    }
    Ok(())
}

/// The outcome, for people.
fn said(verb: Verb, counts: &Counts) -> String {
    let mut text = format!("{} {}", verb.past(), of_jobs(counts.done));
    if counts.told > 0 {
        text += &format!("; told the workers of {} that run", of_jobs(counts.told));
    }
    if counts.skipped > 0 {
        text += &format!("; passed over {} that changed meanwhile", of_jobs(counts.skipped));
    }
    text + "\n"
}

fn of_jobs(count: u64) -> String {
    format!("{count} {}", if count == 1 { "job" } else { "jobs" })
}

fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks the person at the terminal.
async fn agreed(question: String) -> bool {
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        let mut err = std::io::stderr();
        let asked = err.write_all(question.as_bytes()).and_then(|()| err.flush());
        asked.and_then(|()| std::io::stdin().read_line(&mut answer)).map(|_| answer)
    });
    matches!(answer.await, Ok(Ok(answer)) if matches!(answer.trim(), "y" | "Y" | "yes"))
}
