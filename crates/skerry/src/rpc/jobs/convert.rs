//! Conversions between the broker's types and the API's.

use std::collections::HashMap;

use skerry_api::{Result, v1};
use skerry_jobs::broker::{Standing, Ticket};
use skerry_jobs::chain::Chain;
use skerry_jobs::job::{Attempt, AttemptNo, Ending, Epoch, Job, JobError, JobRef, JobState};
use skerry_jobs::limit::{Limit, LimitKind, REFRESHERS};
use skerry_jobs::machine::{Beat, Next, Why};
use skerry_jobs::name::{DEFAULT, Group, JobId, LimitKey, Tenant, Worker};
use skerry_jobs::owner::DatabaseId;
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{Imported, Leased, Outcome, Query};
use skerry_jobs::spec::{JobSpec, LEASE_MS_DEFAULT, PRIORITY_DEFAULT};

use crate::api_error::of_jobs;
use crate::values::invalid;

type Broken<T> = std::result::Result<T, skerry_jobs::Error>;

/// Default number of jobs of a page.
const PAGE_DEFAULT: usize = 100;

/// The reason why one item of a call was not done.
pub(super) fn failure(error: &skerry_jobs::Error) -> v1::Failure {
    use skerry_jobs::ErrorKind as Broker;
    let kind = match error.kind() {
        Broker::Invalid => v1::FailureKind::Invalid,
        Broker::NotFound => v1::FailureKind::NotFound,
        Broker::Exists => v1::FailureKind::Exists,
        Broker::Conflict => v1::FailureKind::Conflict,
        Broker::LeaseLost => v1::FailureKind::LeaseLost,
        Broker::Unavailable => v1::FailureKind::Unavailable,
        Broker::Corrupt => v1::FailureKind::Corrupt,
        Broker::Internal => v1::FailureKind::Internal,
    };
    v1::Failure { kind: kind.into(), message: error.message().to_owned() }
}

fn or_default(text: &str) -> &str {
    if text.is_empty() { DEFAULT } else { text }
}

pub(super) fn tenant(text: &str) -> Broken<Tenant> {
    Tenant::new(or_default(text))
}

pub(super) fn group(text: &str) -> Broken<Group> {
    Group::new(or_default(text))
}

pub(super) fn worker(text: &str) -> Broken<Worker> {
    Worker::new(text)
}

/// The tenant and the name of a request's job.
pub(super) fn address(request: &v1::JobRequest) -> Result<(Tenant, JobRef)> {
    let tenant = tenant(&request.tenant).map_err(of_jobs)?;
    Ok((tenant, request.id.parse().map_err(of_jobs)?))
}

/// A number that must fit a smaller type.
fn small<T: TryFrom<u32>>(what: &str, number: u32) -> Broken<T> {
    T::try_from(number)
        .map_err(|_| skerry_jobs::Error::invalid(format!("{what} {number} is too large")))
}

pub(super) fn priority(number: u32) -> Broken<u8> {
    small("priority", number)
}

pub(super) fn spec(from: v1::JobSpec) -> Broken<JobSpec> {
    let mut metadata: Vec<(String, String)> = from.metadata.into_iter().collect();
    metadata.sort_unstable();
    let id = (!from.id.is_empty()).then(|| JobId::new(&from.id)).transpose()?;
    Ok(JobSpec {
        id,
        tenant: tenant(&from.tenant)?,
        group: group(&from.group)?,
        priority: from.priority.map_or(Ok(PRIORITY_DEFAULT), priority)?,
        start_at_ms: from.start_at_ms,
        payload: from.payload,
        metadata,
        retry: from.retry.map_or(Ok(RetryPolicy::default()), |policy| retry(&policy))?,
        lease_ms: if from.lease_ms == 0 { LEASE_MS_DEFAULT } else { from.lease_ms },
        max_run_ms: from.max_run_ms,
        limits: from.limits.into_iter().map(limit).collect::<Broken<_>>()?,
    })
}

fn retry(from: &v1::RetryPolicy) -> Broken<RetryPolicy> {
    let default = RetryPolicy::default();
    let initial_ms = from.initial_ms.unwrap_or(default.initial_ms);
    let factor = from.factor_percent.unwrap_or(default.factor_percent.into());
    let jitter = from.jitter_percent.unwrap_or(default.jitter_percent.into());
    Ok(RetryPolicy {
        retries: small("retries", from.retries.unwrap_or(default.retries.into()))?,
        initial_ms,
        max_ms: from.max_ms.unwrap_or(default.max_ms.max(initial_ms)),
        factor_percent: small("factor", factor)?,
        jitter_percent: small("jitter", jitter)?,
    })
}

fn limit(from: v1::Limit) -> Broken<Limit> {
    let key = LimitKey::new(&from.name)?;
    let kind = match from.kind {
        Some(v1::limit::Kind::Concurrency(limit)) => LimitKind::Concurrency { max: limit.max },
        Some(v1::limit::Kind::Floating(limit)) => LimitKind::Floating {
            initial: limit.initial,
            refresh_ms: limit.refresh_ms,
            group: Group::new(if limit.group.is_empty() { REFRESHERS } else { &limit.group })?,
        },
        Some(v1::limit::Kind::Rate(limit)) => {
            LimitKind::Rate { count: limit.count, per_ms: limit.per_ms, burst: limit.burst }
        }
        None => {
            let detail = format!("limit {key} has no kind: concurrency, floating or rate");
            return Err(skerry_jobs::Error::invalid(detail));
        }
    };
    Ok(Limit { key, kind })
}

pub(super) fn imported(from: v1::Job) -> Broken<Imported> {
    let state = from.state();
    let state = state_of(state)
        .ok_or_else(|| skerry_jobs::Error::invalid("a job that is imported has no state"))?;
    let missing = || skerry_jobs::Error::invalid("a job that is imported has no spec");
    Ok(Imported {
        spec: spec(from.spec.ok_or_else(missing)?)?,
        state,
        created_ms: from.created_ms,
        ended_ms: from.ended_ms,
        attempts: from.attempts.into_iter().map(attempt_from).collect::<Broken<_>>()?,
    })
}

fn attempt_from(from: v1::Attempt) -> Broken<Attempt> {
    use v1::attempt::End;
    let ending = from.end.map(|end| match end {
        End::Succeeded(result) => Ending::Succeeded(result),
        End::Failed(error) => Ending::Failed(job_error(error)),
        End::Expired(_) => Ending::Expired,
        End::Cancelled(_) => Ending::Cancelled,
        End::Returned(_) => Ending::Returned,
        End::TooLong(_) => Ending::TooLong,
    });
    Ok(Attempt {
        number: AttemptNo(from.number),
        epoch: Epoch::default(),
        worker: Worker::new(if from.worker.is_empty() { "unknown" } else { &from.worker })?,
        started_ms: from.started_ms,
        ended: from.ended_ms.zip(ending),
    })
}

fn job_error(from: v1::JobError) -> JobError {
    JobError { code: from.code, message: from.message, is_final: from.r#final }
}

pub(super) fn outcome(from: v1::Outcome) -> (bytes::Bytes, Broken<(Ticket, Outcome)>) {
    use v1::outcome::End;
    let outcome = match from.end {
        Some(End::Succeeded(result)) => Ok(Outcome::Succeeded(result)),
        Some(End::Failed(error)) => Ok(Outcome::Failed(job_error(error))),
        Some(End::Cancelled(_)) => Ok(Outcome::Cancelled),
        Some(End::Returned(_)) => Ok(Outcome::Returned),
        None => Err(skerry_jobs::Error::invalid("an outcome lacks the end of its attempt")),
    };
    let both = Ticket::decode(&from.lease).and_then(|ticket| Ok((ticket, outcome?)));
    (from.lease, both)
}

pub(super) fn query(from: &v1::ListJobsRequest) -> Result<Query> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let metadata = some(&from.metadata_key).map(|key| (key, from.metadata_value.clone()));
    Ok(Query {
        tenant: some(&from.tenant).map(|text| Tenant::new(&text)).transpose().map_err(of_jobs)?,
        group: some(&from.group).map(|text| Group::new(&text)).transpose().map_err(of_jobs)?,
        state: state_of(from.state()),
        metadata,
        is_prefix: from.metadata_prefix,
        limit: match from.limit {
            0 => PAGE_DEFAULT,
            limit => usize::try_from(limit).map_err(invalid)?,
        },
    })
}

fn state_of(state: v1::JobState) -> Option<JobState> {
    match state {
        v1::JobState::Unspecified => None,
        v1::JobState::Scheduled => Some(JobState::Scheduled),
        v1::JobState::Running => Some(JobState::Running),
        v1::JobState::Succeeded => Some(JobState::Succeeded),
        v1::JobState::Failed => Some(JobState::Failed),
        v1::JobState::Cancelled => Some(JobState::Cancelled),
    }
}

fn job_state(state: JobState) -> v1::JobState {
    match state {
        JobState::Scheduled => v1::JobState::Scheduled,
        JobState::Running => v1::JobState::Running,
        JobState::Succeeded => v1::JobState::Succeeded,
        JobState::Failed => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
    }
}

pub(super) fn job(from: Job) -> v1::Job {
    let id = from.name().to_string();
    v1::Job {
        state: job_state(from.state).into(),
        created_ms: from.created_ms,
        ended_ms: from.ended_ms,
        cancel_asked: from.cancel_asked,
        attempts: from.attempts.into_iter().map(attempt).collect(),
        spec: Some(spec_message(id, from.spec)),
        waiting: None,
    }
}

/// A job, and what it waits for.
pub(super) fn shown(from: Job, why: Option<Why>) -> v1::Job {
    use v1::waiting::Reason;
    let reason = |why| match why {
        Why::Time(until_ms) => Reason::UntilMs(until_ms),
        Why::Paused => Reason::Paused(true),
        Why::Limit { key, running, max } => {
            Reason::Limit(v1::LimitReached { name: key.to_string(), running, max })
        }
        Why::Rate { key, at_ms } => Reason::Rate(v1::RateReached { name: key.to_string(), at_ms }),
        Why::Turn => Reason::Turn(true),
    };
    let why = why.filter(|_| from.state == JobState::Scheduled);
    let waiting = why.map(|why| v1::Waiting { reason: Some(reason(why)) });
    v1::Job { waiting, ..job(from) }
}

/// A job without its payload and its results: listings would not fit a message.
pub(super) fn listed(mut from: Job, why: Option<Why>) -> v1::Job {
    from.spec.payload = bytes::Bytes::new();
    for attempt in &mut from.attempts {
        if let Some((_, Ending::Succeeded(result))) = &mut attempt.ended {
            *result = bytes::Bytes::new();
        }
    }
    shown(from, why)
}

fn spec_message(id: String, from: JobSpec) -> v1::JobSpec {
    v1::JobSpec {
        id,
        tenant: from.tenant.to_string(),
        group: from.group.to_string(),
        priority: Some(from.priority.into()),
        start_at_ms: from.start_at_ms,
        payload: from.payload,
        metadata: from.metadata.into_iter().collect(),
        retry: Some(v1::RetryPolicy {
            retries: Some(from.retry.retries.into()),
            initial_ms: Some(from.retry.initial_ms),
            max_ms: Some(from.retry.max_ms),
            factor_percent: Some(from.retry.factor_percent.into()),
            jitter_percent: Some(from.retry.jitter_percent.into()),
        }),
        lease_ms: from.lease_ms,
        max_run_ms: from.max_run_ms,
        limits: from.limits.into_iter().map(limit_message).collect(),
    }
}

fn limit_message(from: Limit) -> v1::Limit {
    use v1::limit::Kind;
    let kind = match from.kind {
        LimitKind::Concurrency { max } => Kind::Concurrency(v1::ConcurrencyLimit { max }),
        LimitKind::Floating { initial, refresh_ms, group } => {
            Kind::Floating(v1::FloatingLimit { initial, refresh_ms, group: group.to_string() })
        }
        LimitKind::Rate { count, per_ms, burst } => {
            Kind::Rate(v1::RateLimit { count, per_ms, burst })
        }
    };
    v1::Limit { name: from.key.to_string(), kind: Some(kind) }
}

fn attempt(from: Attempt) -> v1::Attempt {
    use v1::attempt::End;
    let (ended_ms, end) = from.ended.map_or((None, None), |(at_ms, ending)| {
        let end = match ending {
            Ending::Succeeded(result) => End::Succeeded(result),
            Ending::Failed(error) => End::Failed(v1::JobError {
                code: error.code,
                message: error.message,
                r#final: error.is_final,
            }),
            Ending::Expired => End::Expired(true),
            Ending::Cancelled => End::Cancelled(true),
            Ending::Returned => End::Returned(true),
            Ending::TooLong => End::TooLong(true),
        };
        (Some(at_ms), Some(end))
    });
    let (number, worker) = (from.number.0, from.worker.to_string());
    v1::Attempt { number, worker, started_ms: from.started_ms, ended_ms, end }
}

pub(super) fn leased(ticket: Ticket, from: Leased) -> v1::LeasedJob {
    let job = from.job;
    v1::LeasedJob {
        lease: ticket.encode(),
        expires_ms: from.expires_ms,
        id: job.name().to_string(),
        tenant: job.spec.tenant.to_string(),
        group: job.spec.group.to_string(),
        attempt: ticket.lease.attempt.0,
        payload: job.spec.payload,
        metadata: job.spec.metadata.into_iter().collect::<HashMap<_, _>>(),
        lease_ms: job.spec.lease_ms,
        cancel_asked: job.cancel_asked,
    }
}

pub(super) fn reported(lease: bytes::Bytes, next: Broken<Next>) -> v1::Reported {
    use v1::reported::Next as Message;
    let next = match next {
        Ok(Next::End(state)) => Message::Ended(job_state(state).into()),
        Ok(Next::Retry { at_ms }) => Message::RetryAtMs(at_ms),
        Err(error) => Message::Failure(failure(&error)),
    };
    v1::Reported { lease, next: Some(next) }
}

/// A job that was waited for, or the reason why there is none.
pub(super) fn awaited(id: String, ended: Broken<Job>) -> v1::AwaitJobsResponse {
    match ended {
        Ok(from) => v1::AwaitJobsResponse { id, job: Some(job(from)), failure: None },
        Err(error) => v1::AwaitJobsResponse { id, job: None, failure: Some(failure(&error)) },
    }
}

pub(super) fn beat(lease: bytes::Bytes, beat: Broken<Beat>) -> v1::Beat {
    match beat {
        Ok(Beat { expires_ms, cancel_asked }) => {
            v1::Beat { lease, expires_ms, cancel_asked, failure: None }
        }
        Err(error) => v1::Beat { lease, failure: Some(failure(&error)), ..v1::Beat::default() },
    }
}

/// A jobs database in the bucket, and the node that has it.
pub(super) fn node(from: &Chain, here: Option<DatabaseId>) -> v1::JobNode {
    let shown = v1::JobNode {
        is_here: here == Some(from.database),
        database: from.database.to_string(),
        ..v1::JobNode::default()
    };
    if let Some(unread) = from.damage() {
        let host = format!("(record {} can't be read: {})", unread.number, unread.why);
        return v1::JobNode { host, ..shown };
    }
    match from.last() {
        Some(last) if last.node.is_none() => {
            let host = format!("(given up by {})", last.host);
            v1::JobNode { host, taken_ms: last.taken_ms, ..shown }
        }
        Some(owner) => v1::JobNode {
            node: owner.node.to_string(),
            host: owner.host.clone(),
            taken_ms: owner.taken_ms,
            ..shown
        },
        None => shown,
    }
}

/// The standing of each of this node's shards.
pub(super) fn shards(standings: &[Standing]) -> Vec<v1::JobShard> {
    let shards = (0..).zip(standings).map(|(number, now)| v1::JobShard {
        number,
        standing: now.name().to_owned(),
        reason: now.reason().to_owned(),
    });
    shards.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers of other jobs would take jobs that they can't do.
    #[test]
    fn a_floating_limit_asks_a_task_group_of_its_own_unless_one_is_named() {
        let asked = |group: &str| {
            let floating = v1::FloatingLimit { initial: 1, refresh_ms: 1000, group: group.into() };
            let kind = Some(v1::limit::Kind::Floating(floating));
            let limit = limit(v1::Limit { name: "api".into(), kind }).expect("a limit");
            let LimitKind::Floating { group, .. } = limit.kind else { panic!("it floats") };
            group
        };
        assert_eq!(asked("").as_str(), REFRESHERS);
        assert_ne!(asked(""), Group::default());
        assert_eq!(asked("mine").as_str(), "mine");
    }
}
