//! A worker without a connection of its own: calls that take and report, and calls that do both.

use std::error::Error;

use skerry_client::v1;
use skerry_client::v1::jobs_client::JobsClient;
use skerry_client::{Address, Jobs};
use skerry_testkit::{NodeSettings, SkerryNode};
use tonic::Code;
use tonic::transport::Channel;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Client = JobsClient<Channel>;

async fn start() -> Outcome<(SkerryNode, Client)> {
    let node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    let socket = node.settings().data().join("api.sock");
    let address: Address = format!("unix:{}", socket.display()).parse()?;
    let client = Jobs::connect(&address).await?.raw();
    Ok((node, client))
}

/// Enqueues jobs of which one runs at a time: the end of each makes the next one ready.
async fn enqueue(client: &mut Client, count: usize) -> Outcome {
    let kind = Some(v1::limit::Kind::Concurrency(v1::ConcurrencyLimit { max: 1 }));
    let limits = vec![v1::Limit { name: "one".to_owned(), kind }];
    let jobs = vec![v1::JobSpec { limits, ..Default::default() }; count];
    let made = client.enqueue_jobs(v1::EnqueueJobsRequest { jobs }).await?.into_inner().jobs;
    assert!(made.iter().all(|job| job.is_new), "{made:?}");
    Ok(())
}

fn ask(max: u32, wait_ms: u32) -> v1::LeaseJobsRequest {
    v1::LeaseJobsRequest { worker: "w".to_owned(), max, wait_ms, ..Default::default() }
}

fn done(job: &v1::LeasedJob) -> v1::Outcome {
    let end = Some(v1::outcome::End::Succeeded("".into()));
    v1::Outcome { lease: job.lease.clone(), end }
}

fn report(job: &v1::LeasedJob, next: Option<v1::LeaseJobsRequest>) -> v1::ReportJobsRequest {
    v1::ReportJobsRequest { outcomes: vec![done(job)], next }
}

fn has_ended(answer: &v1::ReportJobsResponse) -> bool {
    matches!(answer.reports[..], [v1::Reported { next: Some(v1::reported::Next::Ended(_)), .. }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_takes_the_job_that_it_makes_ready() -> Outcome {
    const JOBS: usize = 20;
    let (node, mut client) = start().await?;
    enqueue(&mut client, JOBS).await?;
    let mut jobs = client.lease_jobs(ask(10, 60_000)).await?.into_inner().jobs;
    for left in (0..JOBS).rev() {
        assert_eq!(jobs.len(), 1, "one at a time");
        let answer = client.report_jobs(report(&jobs[0], Some(ask(10, 0)))).await?.into_inner();
        assert!(has_ended(&answer), "{answer:?}");
        assert_eq!(answer.jobs.is_empty(), left == 0);
        jobs = answer.jobs;
    }
    let stats = client.get_job_stats(v1::GetJobStatsRequest {}).await?.into_inner();
    assert_eq!((stats.leased, stats.succeeded), (JOBS as u64, JOBS as u64));
    node.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_asks_for_what_there_is_not_changes_nothing() -> Outcome {
    let (node, mut client) = start().await?;
    enqueue(&mut client, 1).await?;
    let job = &client.lease_jobs(ask(1, 60_000)).await?.into_inner().jobs[0];
    let group = v1::LeaseJobsRequest { group: "\n".to_owned(), ..ask(1, 0) };
    for next in [ask(1_001, 0), ask(1, 60_001), group] {
        let refused = client.report_jobs(report(job, Some(next))).await.expect_err("it can't be");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
    let stats = client.get_job_stats(v1::GetJobStatsRequest {}).await?.into_inner();
    assert_eq!(stats.succeeded, 0, "nothing was reported");
    let answer = client.report_jobs(report(job, None)).await?.into_inner();
    assert!(has_ended(&answer), "{answer:?}");
    node.stop()?;
    Ok(())
}

/// A call takes only the jobs that its answer has room for: jobs that it gave back would be begun
/// again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_no_more_than_it_answers() -> Outcome {
    const JOBS: usize = 30;
    let (node, mut client) = start().await?;
    for _ in 0..JOBS {
        let jobs = vec![v1::JobSpec { payload: vec![7; 1 << 20].into(), ..Default::default() }];
        client.enqueue_jobs(v1::EnqueueJobsRequest { jobs }).await?;
    }
    let mut got = client.lease_jobs(ask(100, 1000)).await?.into_inner().jobs;
    let mut done_jobs = 0;
    while !got.is_empty() {
        done_jobs += got.len();
        let (outcomes, next) = (got.iter().map(done).collect(), Some(ask(100, 0)));
        let request = v1::ReportJobsRequest { outcomes, next };
        got = client.report_jobs(request).await?.into_inner().jobs;
    }
    let stats = client.get_job_stats(v1::GetJobStatsRequest {}).await?.into_inner();
    assert_eq!((done_jobs, stats.leased, stats.retried), (JOBS, JOBS as u64, 0));
    node.stop()?;
    Ok(())
}

/// Tens of thousands of items in one message are refused; the largest allowed number is answered at
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_about_so_much_at_most() -> Outcome {
    let (node, mut client) = start().await?;
    let enqueue = |count| v1::EnqueueJobsRequest { jobs: vec![v1::JobSpec::default(); count] };
    let refused = client.enqueue_jobs(enqueue(10_001)).await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("10000 at most"), "{refused}");
    let taken = client.enqueue_jobs(enqueue(10_000)).await?.into_inner().jobs;
    assert!(taken.len() == 10_000 && taken.iter().all(|job| job.is_new));
    let outcomes = vec![v1::Outcome::default(); 10_001];
    let refused = client.report_jobs(v1::ReportJobsRequest { outcomes, next: None }).await;
    assert_eq!(refused.expect_err("too many").code(), Code::InvalidArgument);
    let leases = vec![Default::default(); 10_001];
    let refused = client.heartbeat_jobs(v1::HeartbeatJobsRequest { leases }).await;
    assert_eq!(refused.expect_err("too many").code(), Code::InvalidArgument);
    node.stop()?;
    Ok(())
}
