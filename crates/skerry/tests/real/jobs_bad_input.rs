//! Answers of a node's jobs service to wrong requests, and to clients that behave badly. Each gets
//! a clear error, and all other clients are served.

use std::error::Error;

use skerry_client::v1;
use skerry_client::v1::jobs_client::JobsClient;
use skerry_client::{Address, Jobs};
use skerry_testkit::{NodeSettings, SkerryNode};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Client = JobsClient<Channel>;

const MIB: usize = 1 << 20;

fn node() -> Outcome<SkerryNode> {
    Ok(NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?)
}

async fn client(node: &SkerryNode) -> Outcome<Client> {
    let socket = node.settings().data().join("api.sock");
    let address: Address = format!("unix:{}", socket.display()).parse()?;
    Ok(Jobs::connect(&address).await?.raw())
}

fn spec(id: &str) -> v1::JobSpec {
    v1::JobSpec { id: id.to_owned(), ..Default::default() }
}

fn retry(change: impl FnOnce(&mut v1::RetryPolicy)) -> Option<v1::RetryPolicy> {
    let mut retry = v1::RetryPolicy::default();
    change(&mut retry);
    Some(retry)
}

fn limited(kind: v1::limit::Kind) -> v1::JobSpec {
    let limit = v1::Limit { name: "l".to_owned(), kind: Some(kind) };
    v1::JobSpec { limits: vec![limit], ..spec("x") }
}

fn entries(count: usize, key: &str, value: &str) -> v1::JobSpec {
    let metadata = (0..count).map(|n| (format!("{key}{n}"), value.to_owned())).collect();
    v1::JobSpec { metadata, ..spec("x") }
}

/// A job with each field out of its range, and the word that the error must have.
fn wrong() -> Vec<(v1::JobSpec, &'static str)> {
    use v1::limit::Kind::{Concurrency, Floating, Rate};
    let long = "x".repeat(1_000);
    let of = |change: fn(&mut v1::RetryPolicy)| v1::JobSpec { retry: retry(change), ..spec("x") };
    let rate = |count, per_ms, burst| limited(Rate(v1::RateLimit { count, per_ms, burst }));
    let floating = |refresh_ms, group: &str| {
        limited(Floating(v1::FloatingLimit { initial: 1, refresh_ms, group: group.to_owned() }))
    };
    let many = vec![v1::Limit { name: "l".to_owned(), kind: None }; 9];
    vec![
        (spec(&long), "id"),
        (spec("a\nb"), "id"),
        (spec("~1"), "id"),
        (spec("_00000000000000ff"), "id"),
        (v1::JobSpec { tenant: long.clone(), ..spec("x") }, "tenant"),
        (v1::JobSpec { group: "\0".to_owned(), ..spec("x") }, "group"),
        (v1::JobSpec { priority: Some(100), ..spec("x") }, "priority"),
        (v1::JobSpec { payload: vec![0; MIB + 1].into(), ..spec("x") }, "payload"),
        (v1::JobSpec { lease_ms: 99, ..spec("x") }, "lease"),
        (v1::JobSpec { lease_ms: 86_400_001, ..spec("x") }, "lease"),
        (entries(17, "k", "v"), "metadata"),
        (entries(1, &long, "v"), "metadata"),
        (entries(1, "k", &long), "metadata"),
        (of(|retry| retry.retries = Some(u32::MAX)), "retries"),
        (of(|retry| retry.max_ms = Some(0)), "interval"),
        (of(|retry| retry.factor_percent = Some(99)), "factor"),
        (of(|retry| retry.jitter_percent = Some(101)), "jitter"),
        (v1::JobSpec { limits: many, ..spec("x") }, "limit"),
        (limited(Concurrency(v1::ConcurrencyLimit { max: 0 })), "limit"),
        (rate(0, 1, 1), "limit"),
        (rate(1, 0, 1), "limit"),
        (rate(1, 1, 0), "limit"),
        (rate(1, 86_400_000, u32::MAX), "limit"),
        (v1::JobSpec { start_at_ms: u64::MAX, ..spec("x") }, "start time"),
        (v1::JobSpec { max_run_ms: 99, ..spec("x") }, "longest run"),
        (floating(0, "g"), "limit"),
        (floating(1_000, "\n"), "group"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_out_of_range_is_named_and_keeps_no_other_job_out() -> Outcome {
    let node = node()?;
    let mut client = client(&node).await?;
    for (number, (job, word)) in wrong().into_iter().enumerate() {
        let good = spec(&format!("good-{number}"));
        let jobs = vec![job.clone(), good];
        let made = client.enqueue_jobs(v1::EnqueueJobsRequest { jobs }).await?.into_inner().jobs;
        let failure = made[0].failure.as_ref().ok_or_else(|| format!("{word}: taken: {job:?}"))?;
        assert_eq!(failure.kind(), v1::FailureKind::Invalid, "{failure:?}");
        assert!(failure.message.to_lowercase().contains(word), "{word}: {}", failure.message);
        assert!(failure.message.len() < 600, "{} bytes", failure.message.len());
        assert!(made[1].is_new && made[1].failure.is_none(), "{made:?}");
    }
    let whole = v1::JobSpec { payload: vec![0; MIB].into(), ..spec("large") };
    let request = v1::EnqueueJobsRequest { jobs: vec![whole.clone(); 17] };
    let refused = client.enqueue_jobs(request).await.expect_err("too long for one message");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let made = client.enqueue_jobs(v1::EnqueueJobsRequest { jobs: vec![whole] }).await?;
    assert!(made.into_inner().jobs[0].is_new, "the connection is good, and so is a whole MiB");
    node.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_to_be_not_there() -> Outcome {
    let node = node()?;
    let mut client = client(&node).await?;
    let job = || v1::JobRequest { tenant: String::new(), id: "none".to_owned() };
    let priority =
        v1::SetJobPriorityRequest { tenant: String::new(), id: "none".into(), priority: 1 };
    let answers = [
        client.show_job(job()).await.map(drop),
        client.cancel_job(job()).await.map(drop),
        client.restart_job(job()).await.map(drop),
        client.expedite_job(job()).await.map(drop),
        client.delete_job(job()).await.map(drop),
        client.set_job_priority(priority).await.map(drop),
    ];
    for answer in answers {
        let refused = answer.expect_err("there is none");
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
        assert!(refused.message().contains("none"), "{refused:?}");
    }
    // Leases that are none, or were never given.
    for lease in [vec![], vec![1; 3], vec![0; 16], vec![0xff; 16], vec![7; 1_000]] {
        let outcome = v1::Outcome {
            lease: lease.clone().into(),
            end: Some(v1::outcome::End::Succeeded("".into())),
        };
        let request = v1::ReportJobsRequest { outcomes: vec![outcome], next: None };
        let reports = client.report_jobs(request).await?.into_inner().reports;
        let refused = matches!(&reports[0].next, Some(v1::reported::Next::Failure(failure))
            if matches!(failure.kind(), v1::FailureKind::Invalid | v1::FailureKind::LeaseLost));
        assert!(refused, "{lease:?}: {reports:?}");
        let request = v1::HeartbeatJobsRequest { leases: vec![lease.into()] };
        let beats = client.heartbeat_jobs(request).await?.into_inner().beats;
        assert!(beats[0].failure.is_some(), "{beats:?}");
    }
    node.stop()?;
    Ok(())
}

/// Begins as a worker with these messages; gives the connection's first answer.
async fn work(mut client: Client, said: Vec<v1::WorkRequest>) -> Result<(), tonic::Status> {
    let (out, requests) = tokio::sync::mpsc::channel(8);
    for request in said {
        out.send(request).await.expect("there is room");
    }
    let mut answers = client.work(ReceiverStream::new(requests)).await?.into_inner();
    answers.message().await.map(drop)
}

fn begin() -> Option<v1::WorkBegin> {
    let (group, worker) = ("g".to_owned(), "w".to_owned());
    Some(v1::WorkBegin { group, worker, ..v1::WorkBegin::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_begins_wrongly_is_told() -> Outcome {
    let node = node()?;
    let client = client(&node).await?;
    let nothing = v1::WorkRequest::default;
    let begun = || v1::WorkRequest { begin: begin(), ..nothing() };
    let bad_name = v1::WorkBegin { group: "\n".to_owned(), ..begin().unwrap_or_default() };
    for said in [
        vec![v1::WorkRequest { credits: 1, ..nothing() }],
        vec![begun(), begun()],
        vec![v1::WorkRequest { begin: begin(), credits: 10_001, ..nothing() }],
        vec![begun(), v1::WorkRequest { credits: u32::MAX, ..nothing() }],
        vec![v1::WorkRequest { begin: Some(bad_name), ..nothing() }],
    ] {
        let refused = work(client.clone(), said.clone()).await.expect_err("it is wrong");
        assert_eq!(refused.code(), Code::InvalidArgument, "{said:?}: {refused:?}");
    }
    node.stop()?;
    Ok(())
}

/// A worker takes credits for everything and never reads: when it goes, other workers get its jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_read_keeps_its_jobs_only_while_it_is_there() -> Outcome {
    const JOBS: usize = 2_000;
    let node = node()?;
    let mut client = client(&node).await?;
    let deaf = {
        let socket = node.settings().data().join("api.sock");
        let address: Address = format!("unix:{}", socket.display()).parse()?;
        Jobs::connect(&address).await?.raw()
    };
    let (out, requests) = tokio::sync::mpsc::channel(8);
    let all = v1::WorkRequest { begin: begin(), credits: JOBS as u32, ..Default::default() };
    out.send(all).await?;
    let mut deaf_client = deaf.clone();
    let answers = deaf_client.work(ReceiverStream::new(requests)).await?.into_inner();
    for round in 0..JOBS / 100 {
        let job = |n| v1::JobSpec {
            group: "g".to_owned(),
            payload: vec![1; 4096].into(),
            // Jobs that were sent and not read may have been read: each attempt ends with its
            // lease.
            lease_ms: 2_000,
            ..spec(&format!("{round}-{n}"))
        };
        let jobs = (0..100).map(job).collect();
        client.enqueue_jobs(v1::EnqueueJobsRequest { jobs }).await?;
    }
    // The worker has them all, whether it reads them or not; others are served meanwhile.
    let shown = client.show_job(v1::JobRequest { tenant: String::new(), id: "0-0".into() }).await?;
    assert_eq!(shown.into_inner().state(), v1::JobState::Running);
    drop((answers, out, deaf_client, deaf));
    let mut done = 0;
    while done < JOBS {
        let request = v1::LeaseJobsRequest {
            group: "g".to_owned(),
            worker: "diligent".to_owned(),
            max: 500,
            wait_ms: 60_000,
        };
        let jobs = client.lease_jobs(request).await?.into_inner().jobs;
        assert!(!jobs.is_empty(), "{done} of {JOBS} jobs came");
        done += jobs.len();
        let outcomes = jobs.into_iter().map(|job| v1::Outcome {
            lease: job.lease,
            end: Some(v1::outcome::End::Succeeded("".into())),
        });
        let request = v1::ReportJobsRequest { outcomes: outcomes.collect(), next: None };
        for report in client.report_jobs(request).await?.into_inner().reports {
            let ended = matches!(report.next, Some(v1::reported::Next::Ended(_)));
            assert!(ended, "{report:?}");
        }
    }
    node.stop()?;
    Ok(())
}
