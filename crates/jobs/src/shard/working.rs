//! The calls of a shard's workers.

use super::durable::Mark;
use super::seat::Seat;
use super::state::{Called, State};
use super::{Inner, Shard};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Ending, JobError, JobRef, JobState, Lease, Ticket, refreshed_by};
use crate::machine::{Beat, Next, Report};
use crate::spec::check_payload;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use std::sync::Arc;

/// A worker's report of an attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with a result.
    Succeeded(Bytes),
    /// Not done.
    Failed(JobError),
    /// Stopped, as it was told to.
    Cancelled,
    /// Given back, not begun.
    Returned,
}

impl Outcome {
    fn check(self) -> Result<(Report, Ending)> {
        Ok(match self {
            Self::Succeeded(result) => {
                check_payload("result", &result)?;
                (Report::Succeeded, Ending::Succeeded(result))
            }
            Self::Failed(error) => {
                let error = error.shortened();
                (Report::Failed { is_final: error.is_final }, Ending::Failed(error))
            }
            Self::Cancelled => (Report::Cancelled, Ending::Cancelled),
            Self::Returned => (Report::Returned, Ending::Returned),
        })
    }
}

impl Shard {
    /// Lets a worker wait for work, as much as it has credits for. The worker calls again when it
    /// has more. Gives out at most `most` jobs at once; gives their number.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn seat(&self, seat: &Arc<Seat>, most: u32) -> Result<u32> {
        let (mut state, now_ms) = self.inner.at_once();
        state.check()?;
        let given = state.seat(seat, most, now_ms);
        self.inner.changed(&state);
        Ok(given)
    }

    /// Lets a worker wait no more. Jobs that were given to it are still on their way.
    pub fn unseat(&self, seat: &Seat) {
        self.inner.state.lock().unseat(seat);
    }

    /// Gives a job back whose worker has gone: the next worker gets it.
    pub fn give_back(&self, lease: Lease) {
        let (mut state, now_ms) = self.inner.at_once();
        if state.check().is_ok() {
            state.give_back(lease, now_ms);
            self.inner.changed(&state);
        }
    }

    /// Takes a heartbeat.
    ///
    /// # Errors
    /// `LeaseLost` if the lease no longer holds.
    pub fn heartbeat(&self, lease: Lease) -> Result<Beat> {
        let (mut state, now_ms) = self.inner.at_once();
        state.check()?;
        state.heartbeat(lease, now_ms)
    }

    /// Takes the outcome of an attempt. Repeated, it gets the first answer.
    ///
    /// # Errors
    /// `LeaseLost` if the lease no longer holds; `Invalid` for a result that is too large, or is no
    /// number for a limit; `Unavailable`.
    pub async fn report(&self, ticket: Ticket, outcome: Outcome) -> Result<Next> {
        let mut said = self.report_all(vec![(ticket, outcome)]).await;
        said.pop().unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "nothing was said")))
    }

    /// Takes the outcomes of many attempts, each by itself, one after the other.
    pub async fn report_all(&self, reports: Vec<(Ticket, Outcome)>) -> Vec<Result<Next>> {
        let Ended { mut said, refused, mark } = self.inner.end_attempts(reports);
        if let Some(mark) = mark
            && let Err(why) = self.inner.wait_durable(mark).await
        {
            // The report may have happened or not.
            said.iter_mut().filter(|said| said.is_ok()).for_each(|said| *said = Err(why.clone()));
        }
        let before = refused.into_iter().map(async |(at, ticket, ending)| {
            (at, self.inner.reported_before(&ticket, &ending).await)
        });
        let mut before = stream::iter(before).buffer_unordered(LOOKED_UP_AT_ONCE);
        while let Some((at, found)) = before.next().await {
            match found {
                Ok(Some(next)) => said[at] = Ok(next),
                Ok(None) => {}
                Err(error) => said[at] = Err(error),
            }
        }
        said
    }
}

/// Reports that are decided before other tasks have their turn.
const ENDED_AT_ONCE: usize = 256;
/// Reports that are looked up concurrently among earlier ones.
const LOOKED_UP_AT_ONCE: usize = 64;

/// The first answer to reports.
struct Ended {
    said: Vec<Result<Next>>,
    /// Reports whose leases don't hold, by their indexes: they may be repeated.
    refused: Vec<(usize, Ticket, Ending)>,
    /// The batch that makes it durable, if anything has changed.
    mark: Option<Mark>,
}

impl State {
    /// Takes the end of an attempt. Gives the ending back if its lease does not hold.
    fn report(
        &mut self,
        lease: Lease,
        outcome: Outcome,
        now_ms: u64,
    ) -> std::result::Result<Next, (Error, Option<Ending>)> {
        let wrong = |error| (error, None);
        self.check().map_err(wrong)?;
        let (report, ending) = outcome.check().map_err(wrong)?;
        let called = self.machine.called(lease);
        let report = as_refresh(self, called.as_ref(), report, &ending, now_ms).map_err(wrong)?;
        match self.machine.report(lease, report, now_ms) {
            Ok(next) => {
                self.end_attempt(lease, called, ending, next, now_ms);
                Ok(next)
            }
            Err(error) => Err((error, Some(ending))),
        }
    }
}

/// The meaning of a report if the job refreshes a limit.
fn as_refresh(
    state: &mut State,
    called: Option<&Called>,
    report: Report,
    ending: &Ending,
    now_ms: u64,
) -> Result<Report> {
    let limit = called.and_then(|(tenant, job)| match job {
        JobRef::Named(id) => Some((tenant, refreshed_by(id)?)),
        JobRef::Assigned(_) => None,
    });
    Ok(match (limit, ending, report) {
        (Some((tenant, limit)), Ending::Succeeded(result), _) => {
            state.refresh(tenant, &limit, result, now_ms)?
        }
        // The next worker may do better, and the limit needs a number.
        (Some((tenant, limit)), Ending::Failed(_), _)
            if state.machine.floating(tenant, &limit).is_some() =>
        {
            Report::Failed { is_final: false }
        }
        _ => report,
    })
}

impl Inner {
    fn end_attempts(&self, reports: Vec<(Ticket, Outcome)>) -> Ended {
        let mut ended =
            Ended { said: Vec::with_capacity(reports.len()), refused: Vec::new(), mark: None };
        let mut reports = reports.into_iter();
        while reports.len() > 0 {
            // Other calls come in between.
            let (mut state, now_ms) = self.at_once();
            let mut has_changed = false;
            for (ticket, outcome) in reports.by_ref().take(ENDED_AT_ONCE) {
                let at = ended.said.len();
                let done = state.report(ticket.lease, outcome, now_ms);
                has_changed |= done.is_ok();
                ended.said.push(done.map_err(|(error, ending)| {
                    let error = ticket.named(error);
                    ended.refused.extend(ending.map(|ending| (at, ticket, ending)));
                    error
                }));
            }
            if has_changed {
                state.dispatch(now_ms);
                ended.mark = Some(self.changed(&state));
            }
        }
        ended
    }

    /// The answer to a repeated report, if it is one.
    async fn reported_before(&self, ticket: &Ticket, ending: &Ending) -> Result<Option<Next>> {
        self.catch_up().await?;
        let Ticket { lease, tenant, .. } = ticket;
        let found = self.read(self.store.job(lease.key(), tenant, &ticket.job())).await?;
        let Some(job) = found.filter(|job| job.ending(*lease) == Some(ending)) else {
            return Ok(None);
        };
        // A job that is cancelled while it waits ends after its last attempt, not with it.
        let waited = job.state == JobState::Cancelled
            && !job.cancel_asked
            && !matches!(ending, Ending::Cancelled);
        let is_last = job.begun() == lease.attempt && !waited;
        let is_refresher = job.spec.id.as_ref().is_some_and(|id| refreshed_by(id).is_some());
        Ok(Some(match (ending, job.state) {
            (_, state) if is_last && state.is_final() => Next::End(state),
            (Ending::Succeeded(_), _) if !is_refresher => Next::End(JobState::Succeeded),
            (Ending::Cancelled, _) => Next::End(JobState::Cancelled),
            _ => Next::Retry { at_ms: job.spec.start_at_ms },
        }))
    }
}
