//! The Rust worker beside a node.

use std::error::Error;
use std::time::Duration;

use skerry_client::{Address, Failure, Jobs, NewJob, Worker, v1};
use skerry_testkit::{NodeSettings, PATIENCE};
use tokio_util::sync::CancellationToken;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A worker of one place loses its lease (somebody else says that the job is done) and takes the next job.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_a_lease_takes_the_next_job() -> Outcome {
    let node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    let socket = node.settings().data().join("api.sock");
    let address: Address = format!("unix:{}", socket.display()).parse()?;
    let jobs = Jobs::connect(&address).await?;
    let lost = NewJob::new("lost").group("g").lease(Duration::from_millis(300));
    let lost = jobs.enqueue(lost).await?.id;
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let worker = Worker::new(address.clone(), "g").name("w").concurrency(1);
    let working = tokio::spawn(worker.run(stop.clone(), move |task| {
        let _ = begun.send(task.id.clone());
        async move {
            if task.payload == "lost" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Failure>(task.payload)
        }
    }));
    assert_eq!(begins.recv().await.as_ref(), Some(&lost));
    let end = Some(v1::outcome::End::Succeeded("by another".into()));
    let outcomes = vec![v1::Outcome { lease: first_lease(&lost)?.into(), end }];
    let request = v1::ReportJobsRequest { outcomes, next: None };
    let reports = jobs.raw().report_jobs(request).await?.into_inner().reports;
    assert!(matches!(reports[0].next, Some(v1::reported::Next::Ended(_))), "{reports:?}");
    let next = jobs.enqueue(NewJob::new("next").group("g")).await?.id;
    let ended = tokio::time::timeout(PATIENCE, jobs.wait("default", &next)).await??;
    assert_eq!(ended.state(), v1::JobState::Succeeded);
    stop.cancel();
    working.await??;
    node.stop()?;
    Ok(())
}

/// The lease of the first attempt of a job that is called by its place.
fn first_lease(id: &str) -> Outcome<Vec<u8>> {
    let place = u64::from_str_radix(id.trim_start_matches('~'), 16)?;
    let (shard, attempt) = (0u32.to_le_bytes(), 1u32.to_le_bytes());
    Ok([&shard[..], &place.to_le_bytes(), &attempt].concat())
}
