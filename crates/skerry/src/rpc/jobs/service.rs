//! `skerry.v1.Jobs`, served: each handler checks a request, asks the broker, and converts its
//! answer.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::ready;
use futures::stream;
use skerry_api::v1::jobs_server::Jobs;
use skerry_api::{Error, ErrorKind, v1};
use skerry_jobs::broker::{Broker, Ticket};
use skerry_jobs::job::JobRef;
use skerry_jobs::machine::Cancelled;
use skerry_jobs::name::{Group, Tenant, Worker};
use skerry_jobs::shard::{Cursor, Enqueued, Leased, Shard};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::attempts::{Messages, check_items, heartbeat, report, stopping};
use super::work::READ_TIME_MAX;
use super::{convert, in_time, work};
use crate::api_error::of_jobs;
use crate::jobs::host::JobsHost;
use crate::values::invalid;

/// Longest time that a lease call waits for work.
const WAIT_MS_MAX: u32 = 60_000;
/// The most jobs that one unary call leases.
const LEASE_MAX: u32 = 1000;
/// The service, over a broker.
pub(crate) struct JobsService {
    host: Arc<JobsHost>,
    stop: CancellationToken,
}

impl JobsService {
    /// Serves this node's broker. Waiting calls end at `stop`.
    pub(crate) fn new(host: Arc<JobsHost>, stop: CancellationToken) -> Self {
        Self { host, stop }
    }

    fn broker(&self) -> Result<Broker, Status> {
        Ok(self.host.broker()?)
    }

    fn shard_of(&self, tenant: &Tenant) -> Result<Shard, Status> {
        self.broker()?.shard_of(tenant).map_err(status)
    }

    /// Leases jobs, as many as one answer takes.
    async fn lease(&self, broker: &Broker, ask: Ask) -> Result<LeasedJobs, Status> {
        let Ask { group, worker, max, patience } = ask;
        tokio::select! {
            biased;
            leased = broker.lease(&group, &worker, max, patience) => {
                Ok(LeasedJobs { broker: broker.clone(), jobs: leased.map_err(status)? })
            }
            () = self.stop.cancelled() => Err(stopping()),
        }
    }
}

/// Leases that no worker knows yet: dropped, they are given back.
struct LeasedJobs {
    broker: Broker,
    jobs: Vec<(Ticket, Leased)>,
}

impl LeasedJobs {
    /// Gives the jobs for the answer to their worker.
    fn answer(mut self) -> Vec<v1::LeasedJob> {
        self.jobs.drain(..).map(|(ticket, leased)| convert::leased(ticket, leased)).collect()
    }
}

impl Drop for LeasedJobs {
    fn drop(&mut self) {
        for (ticket, _) in self.jobs.drain(..) {
            self.broker.give_back(&ticket);
        }
    }
}

/// Awaits futures concurrently, without giving way to other tasks: with tokio's budget spent, each
/// would be polled in vain again and again.
async fn all<T>(asked: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    tokio::task::unconstrained(futures::future::join_all(asked)).await
}

type Answer<T> = Result<Response<T>, Status>;

fn status(error: skerry_jobs::Error) -> Status {
    of_jobs(error).into()
}

fn enqueued(done: skerry_jobs::Result<Enqueued>) -> v1::EnqueuedJob {
    match done {
        Ok(Enqueued { job, is_new }) => {
            v1::EnqueuedJob { id: job.to_string(), is_new, failure: None }
        }
        Err(error) => v1::EnqueuedJob {
            failure: Some(convert::failure(&error)),
            ..v1::EnqueuedJob::default()
        },
    }
}

async fn enqueue(broker: &Broker, job: v1::JobSpec) -> v1::EnqueuedJob {
    enqueued(match convert::spec(job) {
        Ok(spec) => match broker.shard_of(&spec.tenant) {
            Ok(shard) => shard.enqueue(spec).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    })
}

async fn import(broker: &Broker, job: v1::Job) -> v1::EnqueuedJob {
    enqueued(match convert::imported(job) {
        Ok(job) => match broker.shard_of(&job.spec.tenant) {
            Ok(shard) => shard.import(job).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    })
}

/// The request of a worker without a connection.
struct Ask {
    group: Group,
    worker: Worker,
    max: u32,
    patience: Duration,
}

impl Ask {
    fn check(request: v1::LeaseJobsRequest) -> Result<Self, Status> {
        let group = convert::group(&request.group).map_err(status)?;
        let worker = convert::worker(&request.worker).map_err(status)?;
        let max = request.max.max(1);
        if max > LEASE_MAX {
            let message = format!("{max} jobs in one call: {LEASE_MAX} at most");
            return Err(invalid(message).into());
        }
        if request.wait_ms > WAIT_MS_MAX {
            let message = format!("a wait of {} ms: a minute at most", request.wait_ms);
            return Err(invalid(message).into());
        }
        let patience = Duration::from_millis(request.wait_ms.into());
        Ok(Self { group, worker, max, patience })
    }
}

#[tonic::async_trait]
impl Jobs for JobsService {
    type WorkStream = Messages<v1::WorkResponse>;
    type AwaitJobsStream = Messages<v1::AwaitJobsResponse>;

    async fn enqueue_jobs(
        &self,
        request: Request<v1::EnqueueJobsRequest>,
    ) -> Answer<v1::EnqueueJobsResponse> {
        let broker = self.broker()?;
        let jobs = request.into_inner().jobs;
        check_items("jobs", jobs.len())?;
        let jobs = all(jobs.into_iter().map(|job| enqueue(&broker, job))).await;
        Ok(Response::new(v1::EnqueueJobsResponse { jobs }))
    }

    async fn import_jobs(
        &self,
        request: Request<v1::ImportJobsRequest>,
    ) -> Answer<v1::EnqueueJobsResponse> {
        let broker = self.broker()?;
        let jobs = request.into_inner().jobs;
        check_items("jobs", jobs.len())?;
        let jobs = all(jobs.into_iter().map(|job| import(&broker, job))).await;
        Ok(Response::new(v1::EnqueueJobsResponse { jobs }))
    }

    async fn work(&self, request: Request<Streaming<v1::WorkRequest>>) -> Answer<Self::WorkStream> {
        let broker = self.broker()?;
        Ok(Response::new(work::serve(broker, request.into_inner(), self.stop.clone())))
    }

    async fn lease_jobs(
        &self,
        request: Request<v1::LeaseJobsRequest>,
    ) -> Answer<v1::LeaseJobsResponse> {
        let broker = self.broker()?;
        let ask = Ask::check(request.into_inner())?;
        let jobs = self.lease(&broker, ask).await?.answer();
        Ok(Response::new(v1::LeaseJobsResponse { jobs }))
    }

    async fn heartbeat_jobs(
        &self,
        request: Request<v1::HeartbeatJobsRequest>,
    ) -> Answer<v1::HeartbeatJobsResponse> {
        let broker = self.broker()?;
        let leases = request.into_inner().leases;
        check_items("leases", leases.len())?;
        let beats = leases.into_iter().map(|lease| heartbeat(&broker, lease)).collect();
        Ok(Response::new(v1::HeartbeatJobsResponse { beats }))
    }

    async fn report_jobs(
        &self,
        request: Request<v1::ReportJobsRequest>,
    ) -> Answer<v1::ReportJobsResponse> {
        let broker = self.broker()?;
        let v1::ReportJobsRequest { outcomes, next } = request.into_inner();
        check_items("outcomes", outcomes.len())?;
        let next = next.map(Ask::check).transpose()?;
        let reports = report(broker.clone(), outcomes);
        let Some(next) = next else {
            let (reports, jobs) = (reports.await, Vec::new());
            return Ok(Response::new(v1::ReportJobsResponse { reports, jobs }));
        };
        // The outcomes first: they may make more work ready.
        let (reports, jobs) = tokio::join!(biased; reports, self.lease(&broker, next));
        // A failed lease is no error here: the worker's next call tells why.
        let jobs = jobs.map(LeasedJobs::answer).unwrap_or_default();
        Ok(Response::new(v1::ReportJobsResponse { reports, jobs }))
    }

    async fn await_jobs(
        &self,
        request: Request<v1::AwaitJobsRequest>,
    ) -> Answer<Self::AwaitJobsStream> {
        let v1::AwaitJobsRequest { tenant, ids } = request.into_inner();
        check_items("jobs", ids.len())?;
        let tenant = convert::tenant(&tenant).map_err(status)?;
        let (mut names, mut wrong) = (Vec::new(), Vec::new());
        for id in ids {
            match id.parse::<JobRef>() {
                Ok(job) => names.push((id, job)),
                Err(error) => wrong.push(Ok(convert::awaited(id, Err(error)))),
            }
        }
        // Answers have the ids as the caller wrote them: an id that the broker gave has two forms.
        let (ids, names): (Vec<_>, Vec<_>) = names.into_iter().unzip();
        let awaited = self.shard_of(&tenant)?.await_ends(&tenant, names);
        let awaited = awaited.map_err(status)?;
        // One at a time: each may be of megabytes, and the next is read when this one is on its
        // way.
        let ends = stream::unfold((awaited, ids), async |(mut awaited, ids)| {
            let (number, ended) = awaited.next().await?;
            let answer = convert::awaited(ids[number].clone(), ended);
            Some((Ok(answer), (awaited, ids)))
        });
        let stop = self.stop.clone();
        let stopped = async move { stop.is_cancelled().then(|| Err(stopping())) };
        let ends = stream::iter(wrong).chain(ends);
        let ends = ends.take_until(self.stop.clone().cancelled_owned());
        let answers = ends.chain(stream::once(stopped).filter_map(ready));
        Ok(Response::new(Box::pin(in_time::read(answers.boxed(), READ_TIME_MAX))))
    }

    async fn show_job(&self, request: Request<v1::JobRequest>) -> Answer<v1::Job> {
        let (tenant, job) = convert::address(&request.into_inner())?;
        let shard = self.shard_of(&tenant)?;
        let found = shard.show(&tenant, &job).await.map_err(status)?;
        Ok(Response::new(convert::shown(found, shard.why(&tenant, &job))))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Answer<v1::ListJobsResponse> {
        let request = request.into_inner();
        let query = convert::query(&request)?;
        let after = (!request.after.is_empty()).then_some(Cursor(request.after));
        let broker = self.broker()?;
        let listed = broker.list(&query, after.as_ref()).await.map_err(status)?;
        let jobs = listed.jobs.into_iter().map(|job| {
            let shard = broker.shard_of(&job.spec.tenant).ok();
            let why = shard.and_then(|shard| shard.why(&job.spec.tenant, &job.name()));
            convert::listed(job, why)
        });
        let jobs = jobs.collect();
        let next = listed.next.map(|next| next.0).unwrap_or_default();
        Ok(Response::new(v1::ListJobsResponse { jobs, next }))
    }

    async fn cancel_job(&self, request: Request<v1::JobRequest>) -> Answer<v1::CancelJobResponse> {
        let (tenant, job) = convert::address(&request.into_inner())?;
        let done = self.shard_of(&tenant)?.cancel(&tenant, &job).await;
        let is_done = done.map_err(status)? == Cancelled::Now;
        Ok(Response::new(v1::CancelJobResponse { is_done }))
    }

    async fn restart_job(
        &self,
        request: Request<v1::JobRequest>,
    ) -> Answer<v1::RestartJobResponse> {
        let (tenant, job) = convert::address(&request.into_inner())?;
        let done = self.shard_of(&tenant)?.restart(&tenant, &job).await;
        done.map_err(status)?;
        Ok(Response::new(v1::RestartJobResponse {}))
    }

    async fn expedite_job(
        &self,
        request: Request<v1::JobRequest>,
    ) -> Answer<v1::ExpediteJobResponse> {
        let (tenant, job) = convert::address(&request.into_inner())?;
        let done = self.shard_of(&tenant)?.expedite(&tenant, &job).await;
        done.map_err(status)?;
        Ok(Response::new(v1::ExpediteJobResponse {}))
    }

    async fn delete_job(&self, request: Request<v1::JobRequest>) -> Answer<v1::DeleteJobResponse> {
        let (tenant, job) = convert::address(&request.into_inner())?;
        let done = self.shard_of(&tenant)?.delete(&tenant, &job).await;
        done.map_err(status)?;
        Ok(Response::new(v1::DeleteJobResponse {}))
    }

    async fn set_job_priority(
        &self,
        request: Request<v1::SetJobPriorityRequest>,
    ) -> Answer<v1::SetJobPriorityResponse> {
        let v1::SetJobPriorityRequest { tenant, id, priority } = request.into_inner();
        let (tenant, job) = convert::address(&v1::JobRequest { tenant, id })?;
        let priority = convert::priority(priority).map_err(status)?;
        let done = self.shard_of(&tenant)?.set_priority(&tenant, &job, priority).await;
        done.map_err(status)?;
        Ok(Response::new(v1::SetJobPriorityResponse {}))
    }

    async fn pause_jobs(
        &self,
        request: Request<v1::TaskGroupRequest>,
    ) -> Answer<v1::PauseJobsResponse> {
        let group = convert::group(&request.into_inner().group).map_err(status)?;
        self.broker()?.pause(&group).await.map_err(status)?;
        Ok(Response::new(v1::PauseJobsResponse {}))
    }

    async fn resume_jobs(
        &self,
        request: Request<v1::TaskGroupRequest>,
    ) -> Answer<v1::ResumeJobsResponse> {
        let group = convert::group(&request.into_inner().group).map_err(status)?;
        self.broker()?.resume(&group).await.map_err(status)?;
        Ok(Response::new(v1::ResumeJobsResponse {}))
    }

    async fn get_job_stats(
        &self,
        _request: Request<v1::GetJobStatsRequest>,
    ) -> Answer<v1::GetJobStatsResponse> {
        let broker = self.broker()?;
        let totals = broker.totals();
        let groups = broker.groups().into_iter().map(|(group, counts)| v1::TaskGroupStats {
            group: group.to_string(),
            early: counts.early,
            ready: counts.ready,
            running: counts.running,
            is_paused: counts.is_paused,
        });
        Ok(Response::new(v1::GetJobStatsResponse {
            enqueued: totals.enqueued,
            leased: totals.leased,
            succeeded: totals.succeeded,
            failed: totals.failed,
            cancelled: totals.cancelled,
            retried: totals.retried,
            expired: totals.expired,
            groups: groups.collect(),
        }))
    }

    async fn list_job_nodes(
        &self,
        _request: Request<v1::ListJobNodesRequest>,
    ) -> Answer<v1::ListJobNodesResponse> {
        let (owners, here) = self.host.owners().await?;
        let nodes = owners.iter().map(|chain| convert::node(chain, here)).collect();
        let shards = convert::shards(&self.broker()?.standings());
        Ok(Response::new(v1::ListJobNodesResponse { nodes, shards }))
    }

    async fn take_over_jobs(
        &self,
        request: Request<v1::TakeOverJobsRequest>,
    ) -> Answer<v1::TakeOverJobsResponse> {
        let (host, named) = (self.host.clone(), request.into_inner().node);
        // The take-over goes on if the caller leaves: all its records are written.
        let taken = tokio::spawn(async move { host.take_over(&named).await }).await;
        taken.unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, error.to_string())))?;
        let shards = convert::shards(&self.broker()?.standings());
        Ok(Response::new(v1::TakeOverJobsResponse { shards }))
    }
}
