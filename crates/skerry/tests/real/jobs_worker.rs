//! The Rust worker beside a node.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use skerry_client::{Address, Failure, Jobs, NewJob, Worker, v1};
use skerry_testkit::{NodeSettings, PATIENCE, SkerryNode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn start() -> Outcome<(SkerryNode, Address)> {
    let node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    let socket = node.settings().data().join("api.sock");
    Ok((node, format!("unix:{}", socket.display()).parse()?))
}

/// A worker of the group `g` that ends at `stop`.
fn work<F>(
    address: &Address,
    concurrency: u32,
    stop: &CancellationToken,
    handle: impl Fn(Bytes) -> F + Send + Sync + 'static,
) -> JoinHandle<skerry_api::Result<()>>
where
    F: Future<Output = Bytes> + Send + 'static,
{
    let worker = Worker::new(address.clone(), "g").name("w").concurrency(concurrency);
    tokio::spawn(worker.run(stop.clone(), move |task| {
        let handled = handle(task.payload);
        async move { Ok::<_, Failure>(handled.await) }
    }))
}

async fn enqueue(jobs: &Jobs, payload: Bytes, count: usize) -> Outcome<Vec<String>> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(jobs.enqueue(NewJob::new(payload.clone()).group("g")).await?.id);
    }
    Ok(ids)
}

async fn all_succeed(jobs: &Jobs, ids: Vec<String>) -> Outcome {
    for id in ids {
        let ended = tokio::time::timeout(PATIENCE, jobs.wait("default", &id)).await??;
        assert_eq!(ended.state(), v1::JobState::Succeeded);
    }
    Ok(())
}

/// A worker of one place loses its lease (another call reports the job as done) and takes the next
/// job.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_a_lease_takes_the_next_job() -> Outcome {
    let (node, address) = start()?;
    let jobs = Jobs::connect(&address).await?;
    let lost = NewJob::new("lost").group("g").lease(Duration::from_millis(300));
    let lost = jobs.enqueue(lost).await?.id;
    let (begun, mut begins) = mpsc::unbounded_channel();
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

/// The ticket of the first attempt of a job of the tenant `default` that is named by its place
/// (docs/jobs.md).
fn first_lease(id: &str) -> Outcome<Vec<u8>> {
    let place = u64::from_str_radix(id.trim_start_matches('_'), 16)?;
    let (attempt, epoch, tenant) = (1u32, (place >> 40) as u32, b"default");
    let numbers = [&place.to_le_bytes()[..], &attempt.to_le_bytes(), &epoch.to_le_bytes()].concat();
    Ok([&[1], &numbers[..], &[tenant.len() as u8], tenant, &[0]].concat())
}

const MIB: usize = 1 << 20;

/// The largest payloads come while the largest results go: neither side waits for the other for
/// ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_hears_while_it_speaks() -> Outcome {
    let (node, address) = start()?;
    let jobs = Jobs::connect(&address).await?;
    let ids = enqueue(&jobs, vec![7; MIB].into(), 100).await?;
    let stop = CancellationToken::new();
    let working = work(&address, 32, &stop, |payload| async move { payload });
    all_succeed(&jobs, ids).await?;
    stop.cancel();
    working.await??;
    node.stop()?;
    Ok(())
}

/// After a node was away, the worker reports more results than one message takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_what_it_has_done_while_the_node_was_away() -> Outcome {
    const JOBS: usize = 24;
    let (node, address) = start()?;
    let jobs = Jobs::connect(&address).await?;
    let ids = enqueue(&jobs, "x".into(), JOBS).await?;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (end, ends) = tokio::sync::watch::channel(false);
    let stop = CancellationToken::new();
    let working = work(&address, JOBS as u32, &stop, move |_| {
        let _ = begun.send(());
        let mut ends = ends.clone();
        async move {
            let _ = ends.wait_for(|end| *end).await;
            vec![7; MIB].into()
        }
    });
    for _ in 0..JOBS {
        begins.recv().await.ok_or("the worker has gone")?;
    }
    let killed = node.kill()?;
    end.send(true)?;
    let node = killed.start()?;
    all_succeed(&Jobs::connect(&address).await?, ids).await?;
    stop.cancel();
    working.await??;
    node.stop()?;
    Ok(())
}

/// Jobs on their way to a worker that stops are given to others at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_leaves_nothing_behind() -> Outcome {
    let (node, address) = start()?;
    let jobs = Jobs::connect(&address).await?;
    for _ in 0..20 {
        let ids = enqueue(&jobs, "x".into(), 50).await?;
        let (begun, mut begins) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let working = work(&address, 8, &stop, move |payload| {
            let _ = begun.send(());
            async move { payload }
        });
        begins.recv().await.ok_or("the worker has gone")?;
        stop.cancel();
        working.await??;
        for id in ids {
            let state = jobs.show("default", &id).await?.state();
            assert_ne!(state, v1::JobState::Running, "{id}");
        }
    }
    node.stop()?;
    Ok(())
}

/// A worker that waits, a call that waits for work and one that waits for a job's end keep no node
/// from stopping.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_keeps_no_node_from_stopping() -> Outcome {
    let (node, address) = start()?;
    let jobs = Jobs::connect(&address).await?;
    let id = jobs.enqueue(NewJob::new("x").group("nobody's")).await?.id;
    let stop = CancellationToken::new();
    let working = work(&address, 1, &stop, |payload| async move { payload });
    let (waiting, mut asking) = (jobs.clone(), jobs.raw());
    let waits = tokio::spawn(async move { waiting.wait("default", &id).await });
    let ask = v1::LeaseJobsRequest { worker: "w".into(), wait_ms: 60_000, ..Default::default() };
    let asks = tokio::spawn(async move { asking.lease_jobs(ask).await });
    // Earlier calls have arrived when these are answered.
    let ids = enqueue(&jobs, "x".into(), 10).await?;
    all_succeed(&jobs, ids).await?;
    node.process().terminate()?;
    let said = node.process().stderr_tail();
    assert!(said.contains("stopped") && !said.contains("cut off"), "{said}");
    waits.await?.expect_err("the node has stopped");
    asks.await?.expect_err("the node has stopped");
    stop.cancel();
    working.await??;
    Ok(())
}

async fn one_in_hand(
    address: &Address,
    stop: &CancellationToken,
) -> Outcome<(tokio::sync::watch::Sender<bool>, JoinHandle<skerry_api::Result<()>>)> {
    let jobs = Jobs::connect(address).await?;
    enqueue(&jobs, "x".into(), 1).await?;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (end, ends) = tokio::sync::watch::channel(false);
    let working = work(address, 1, stop, move |_| {
        let _ = begun.send(());
        let mut ends = ends.clone();
        async move {
            let _ = ends.wait_for(|end| *end).await;
            Bytes::new()
        }
    });
    begins.recv().await.ok_or("the worker has gone")?;
    Ok((end, working))
}

/// The handler ends after the node has died; told to stop, the worker ends within its half minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_though_its_node_has_died() -> Outcome {
    let (node, address) = start()?;
    let stop = CancellationToken::new();
    let (end, working) = one_in_hand(&address, &stop).await?;
    let _dead = node.kill()?;
    end.send(true)?;
    stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, working).await??;
    assert!(ended.is_err(), "nobody has heard how its job ended");
    Ok(())
}

/// The node hangs, and the worker ends within its half minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_though_its_node_hangs() -> Outcome {
    let (node, address) = start()?;
    let stop = CancellationToken::new();
    let (end, working) = one_in_hand(&address, &stop).await?;
    node.process().suspend();
    end.send(true)?;
    stop.cancel();
    let ended = tokio::time::timeout(PATIENCE, working).await;
    node.process().resume();
    assert!(ended??.is_err(), "nobody has heard how its job ended");
    Ok(())
}

/// A wrong result or a failing handler is the trouble of one attempt, which reports it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_does_wrong_is_one_jobs_trouble() -> Outcome {
    let (node, address) = start()?;
    let jobs = Jobs::connect(&address).await?;
    let stop = CancellationToken::new();
    let working = work(&address, 1, &stop, |payload| {
        assert!(payload != "panic", "not this one");
        async move {
            match &payload[..] {
                b"large" => vec![0; MIB + 1].into(),
                b"huge" => vec![0; 17 * MIB].into(),
                _ => payload,
            }
        }
    });
    for (wrong, code) in [("panic", "panic"), ("large", "InvalidResult"), ("huge", "InvalidResult")]
    {
        let retry = v1::RetryPolicy { retries: Some(0), ..Default::default() };
        let job = NewJob::new(wrong).group("g").retry(retry);
        let id = jobs.enqueue(job).await?.id;
        let ended = tokio::time::timeout(PATIENCE, jobs.wait("default", &id)).await??;
        assert_eq!(ended.state(), v1::JobState::Failed, "{wrong}");
        let end = ended.attempts.into_iter().next().and_then(|attempt| attempt.end);
        let Some(v1::attempt::End::Failed(error)) = end else { panic!("{wrong}: {end:?}") };
        assert_eq!(error.code, code, "{wrong}");
    }
    all_succeed(&jobs, enqueue(&jobs, "good".into(), 1).await?).await?;
    stop.cancel();
    working.await??;
    node.stop()?;
    Ok(())
}
