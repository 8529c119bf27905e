//! Makes load on a node's jobs, for `benches/jobs`: `load ADDRESS WHAT COUNT CLIENTS BATCH`. Prints
//! one JSON document on standard output.
//!
//! * `enqueue`: CLIENTS clients enqueue COUNT jobs, BATCH in each call;
//! * `stream`: leases and ends COUNT jobs over CLIENTS connections with BATCH credits each;
//! * `unary`: as `stream`, by calls of BATCH jobs;
//! * `next`: as `unary`, with one call for BATCH jobs instead of two: each report takes the next
//!   jobs;
//! * `heartbeat`: COUNT heartbeats of CLIENTS jobs, calls for which the node writes nothing;
//! * `latency`: COUNT jobs a second for ten seconds. Measures from the call until one of CLIENTS
//!   waiting workers has the job. A worker holds a job for BATCH milliseconds;
//! * `neighbour`: as `latency`, in the task group of the other loads, whose jobs the workers take
//!   too.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use skerry_client::v1;
use skerry_client::v1::jobs_client::JobsClient;
use skerry_client::{Address, Jobs};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const GROUP: &str = "bench";
/// Task group of `latency` alone: other loads leave jobs behind.
const ALONE: &str = "latency";
const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 200]);
const LATENCY_SECONDS: u64 = 10;
/// Credits of a worker that holds its jobs.
const HELD: u32 = 32;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, what, count, clients, batch] = &args[..] else {
        let usage = "load ADDRESS enqueue|stream|unary|next|heartbeat|latency|neighbour COUNT CLIENTS BATCH";
        return Err(usage.into());
    };
    let address: Address = address.parse()?;
    let (count, clients, batch) = (count.parse()?, clients.parse()?, batch.parse()?);
    match what.as_str() {
        "enqueue" => rate(&address, count, clients, move |c, n| enqueue(c, n, batch)).await,
        "stream" => rate(&address, count, clients, move |c, n| stream(c, n, batch)).await,
        "unary" => rate(&address, count, clients, move |c, n| unary(c, n, batch)).await,
        "next" => rate(&address, count, clients, move |c, n| next(c, n, batch)).await,
        "heartbeat" => rate(&address, count, clients, heartbeat).await,
        "latency" => latency(&address, count, clients, ALONE, batch).await,
        "neighbour" => latency(&address, count, clients, GROUP, batch).await,
        other => Err(format!("{other} is nothing that can be measured").into()),
    }
}

type Client = JobsClient<Channel>;

/// Runs each client's share over a connection of its own, and prints the jobs a second.
async fn rate<F>(
    address: &Address,
    count: u64,
    clients: u64,
    work: impl Fn(Client, u64) -> F,
) -> Outcome<()>
where
    F: Future<Output = Outcome<()>> + Send + 'static,
{
    let mut all = FuturesUnordered::new();
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(Jobs::connect(address).await?.raw());
    }
    let begun = Instant::now();
    for client in connected {
        all.push(tokio::spawn(work(client, count / clients)));
    }
    while let Some(done) = all.next().await {
        done??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let done = count / clients * clients;
    println!(
        "{{\"jobs\": {done}, \"seconds\": {seconds:.3}, \"rate\": {:.0}}}",
        done as f64 / seconds
    );
    Ok(())
}

fn spec() -> v1::JobSpec {
    // As long as a UUID, and with one entry of metadata.
    let id = format!("{:032x}-job", rand::random::<u128>());
    let metadata = [("user".to_owned(), "42".to_owned())].into();
    v1::JobSpec { id, group: GROUP.to_owned(), payload: PAYLOAD, metadata, ..Default::default() }
}

async fn enqueue(mut client: Client, count: u64, batch: u64) -> Outcome<()> {
    let mut left = count;
    while left > 0 {
        let now = left.min(batch);
        let jobs = (0..now).map(|_| spec()).collect();
        let made = client.enqueue_jobs(v1::EnqueueJobsRequest { jobs }).await?.into_inner();
        if let Some(failure) = made.jobs.iter().find_map(|job| job.failure.as_ref()) {
            return Err(failure.message.clone().into());
        }
        left -= now;
    }
    Ok(())
}

fn done(job: v1::LeasedJob) -> v1::Outcome {
    v1::Outcome { lease: job.lease, end: Some(v1::outcome::End::Succeeded(Bytes::new())) }
}

async fn stream(mut client: Client, count: u64, credits: u64) -> Outcome<()> {
    let (out, requests) = mpsc::channel(64);
    let begin = v1::WorkBegin {
        group: GROUP.to_owned(),
        worker: "load".to_owned(),
        ..v1::WorkBegin::default()
    };
    let credits = u32::try_from(credits.min(count))?;
    out.send(v1::WorkRequest { begin: Some(begin), credits, ..Default::default() }).await?;
    let mut answers = client.work(ReceiverStream::new(requests)).await?.into_inner();
    let (mut asked, mut reported) = (u64::from(credits), 0);
    while reported < count {
        let answer = answers.message().await?.ok_or("the node closed the connection")?;
        reported += answer.reports.len() as u64;
        if answer.jobs.is_empty() {
            continue;
        }
        let more = (count - asked).min(answer.jobs.len() as u64);
        asked += more;
        let credits = u32::try_from(more)?;
        let outcomes = answer.jobs.into_iter().map(done).collect();
        out.send(v1::WorkRequest { outcomes, credits, ..Default::default() }).await?;
    }
    Ok(())
}

async fn unary(mut client: Client, count: u64, batch: u64) -> Outcome<()> {
    let mut left = count;
    while left > 0 {
        let jobs = lease(&mut client, batch.min(left)).await?;
        left -= jobs.len() as u64;
        report(&mut client, jobs).await?;
    }
    Ok(())
}

async fn next(mut client: Client, count: u64, batch: u64) -> Outcome<()> {
    let mut jobs = lease(&mut client, batch.min(count)).await?;
    let mut left = count - jobs.len() as u64;
    while left > 0 {
        let outcomes = jobs.into_iter().map(done).collect();
        let next = Some(ask(batch.min(left))?);
        let answer = client.report_jobs(v1::ReportJobsRequest { outcomes, next }).await?;
        jobs = answer.into_inner().jobs;
        left -= jobs.len() as u64;
    }
    report(&mut client, jobs).await
}

fn ask(max: u64) -> Outcome<v1::LeaseJobsRequest> {
    Ok(v1::LeaseJobsRequest {
        group: GROUP.to_owned(),
        worker: "load".to_owned(),
        max: u32::try_from(max)?,
        wait_ms: 10_000,
    })
}

async fn lease(client: &mut Client, max: u64) -> Outcome<Vec<v1::LeasedJob>> {
    let jobs = client.lease_jobs(ask(max)?).await?.into_inner().jobs;
    if jobs.is_empty() {
        return Err("there are too few jobs".into());
    }
    Ok(jobs)
}

async fn report(client: &mut Client, jobs: Vec<v1::LeasedJob>) -> Outcome<()> {
    let outcomes = jobs.into_iter().map(done).collect();
    client.report_jobs(v1::ReportJobsRequest { outcomes, next: None }).await?;
    Ok(())
}

async fn heartbeat(mut client: Client, count: u64) -> Outcome<()> {
    let jobs = lease(&mut client, 1).await?;
    let leases: Vec<_> = jobs.iter().map(|job| job.lease.clone()).collect();
    for _ in 0..count {
        let request = v1::HeartbeatJobsRequest { leases: leases.clone() };
        client.heartbeat_jobs(request).await?;
    }
    report(&mut client, jobs).await
}

/// Enqueues at a steady rate while workers wait, or are busy with other jobs.
async fn latency(
    address: &Address,
    rate: u64,
    workers: u64,
    group: &'static str,
    hold_ms: u64,
) -> Outcome<()> {
    let begun = Instant::now();
    let count = rate * LATENCY_SECONDS;
    let mut working = Vec::new();
    for _ in 0..workers {
        let client = Jobs::connect(address).await?.raw();
        working.push(tokio::spawn(receive(client, group, hold_ms, begun)));
    }
    let client = Jobs::connect(address).await?.raw();
    let mut calls = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    while sent < count {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due.min(count) {
            let mut client = client.clone();
            let since = begun.elapsed();
            let jobs = vec![v1::JobSpec {
                tenant: ALONE.to_owned(),
                group: group.to_owned(),
                payload: Bytes::copy_from_slice(&since.as_nanos().to_le_bytes()),
                ..spec()
            }];
            calls.push(tokio::spawn(async move {
                client.enqueue_jobs(v1::EnqueueJobsRequest { jobs }).await.map(drop)
            }));
            sent += 1;
        }
    }
    while let Some(done) = calls.next().await {
        done??;
    }
    let mut all: Vec<f64> = Vec::new();
    for working in working {
        all.extend(working.await??);
    }
    if (all.len() as u64) < count * 999 / 1000 {
        return Err(format!("{} of {count} jobs came to a worker", all.len()).into());
    }
    all.sort_by(f64::total_cmp);
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
    println!(
        "{{\"jobs\": {}, \"p50_ms\": {:.2}, \"p99_ms\": {:.2}, \"max_ms\": {:.2}}}",
        all.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// Takes jobs, holds each for a while, and gives the waiting times of this load's own jobs.
async fn receive(
    mut client: Client,
    group: &str,
    hold_ms: u64,
    begun: Instant,
) -> Outcome<Vec<f64>> {
    let (out, requests) = mpsc::channel(64);
    let begin = v1::WorkBegin {
        group: group.to_owned(),
        worker: "load".to_owned(),
        ..v1::WorkBegin::default()
    };
    let credits = if hold_ms == 0 { 256 } else { HELD };
    out.send(v1::WorkRequest { begin: Some(begin), credits, ..Default::default() }).await?;
    let mut answers = client.work(ReceiverStream::new(requests)).await?.into_inner();
    let mut all = Vec::new();
    let until = begun + Duration::from_secs(LATENCY_SECONDS + 1);
    while let Ok(answer) = tokio::time::timeout_at(until.into(), answers.message()).await {
        let answer = answer?.ok_or("the node closed the connection")?;
        if answer.jobs.is_empty() {
            continue;
        }
        for job in answer.jobs.iter().filter(|job| job.tenant == ALONE) {
            let since = job.payload[..].try_into().map(u128::from_le_bytes)?;
            let waited = begun.elapsed().as_nanos() - since;
            all.push(waited as f64 / 1e6);
        }
        if hold_ms == 0 {
            let credits = u32::try_from(answer.jobs.len())?;
            let outcomes = answer.jobs.into_iter().map(done).collect();
            out.send(v1::WorkRequest { outcomes, credits, ..Default::default() }).await?;
            continue;
        }
        for job in answer.jobs {
            let out = out.clone();
            // Spread, because work does not take equal times.
            let hold_us = rand::random_range(hold_ms * 500..hold_ms * 1500);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_micros(hold_us)).await;
                let outcomes = vec![done(job)];
                // The other end may be gone at the end.
                let _ =
                    out.send(v1::WorkRequest { outcomes, credits: 1, ..Default::default() }).await;
            });
        }
    }
    Ok(all)
}
