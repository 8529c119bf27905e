//! Jobs on their way to all workers together stay within one budget.

use crate::common::{Place, spec};
use futures::future::join_all;
use skerry_jobs::broker::{Broker, Work, WorkerMessage};
use skerry_jobs::name::{Group, Worker};
use skerry_jobs::shard::{Begins, Leased, Outcome};
use skerry_jobs::spec::JobSpec;
use std::time::Duration;

const JOBS: usize = 120;
const JOB_BYTES: usize = 256 << 10;
const WORKERS: usize = 10;
const BUDGET_BYTES: usize = 2 << 20;

/// A broker with such a budget and `JOBS` large jobs.
async fn broker(place: &Place, budget_bytes: usize) -> Broker {
    let shard = place.open().await;
    let jobs = (0..JOBS).map(|n| {
        let payload = vec![0; JOB_BYTES].into();
        shard.enqueue(JobSpec { payload, ..spec(&n.to_string()) })
    });
    join_all(jobs).await.into_iter().for_each(|done| {
        done.expect("takes it");
    });
    Broker::new(vec![shard]).with_budget(budget_bytes as u64)
}

fn worker(broker: &Broker) -> Work {
    worker_of(broker, &Group::default())
}

fn worker_of(broker: &Broker, group: &Group) -> Work {
    let worker = Worker::new("w").expect("a name");
    broker.work(group, &worker, Begins::WhenTold, 1000).expect("sits down")
}

/// Waits a short time for a message to the worker.
async fn hear(work: &mut Work) -> Option<Leased> {
    let heard = tokio::time::timeout(Duration::from_millis(100), work.next()).await.ok()?;
    match heard.expect("the shard is open") {
        WorkerMessage::Leased(_, leased) => Some(*leased),
        other => panic!("{other:?}"),
    }
}

/// Once, each worker could have 2 MiB on its way: a thousand of them had two gigabytes.
#[tokio::test(start_paused = true)]
async fn many_workers_together_stay_within_the_nodes_budget() {
    let place = Place::new();
    let broker = broker(&place, BUDGET_BYTES).await;
    let mut workers: Vec<Work> = (0..WORKERS).map(|_| worker(&broker)).collect();
    let mut done = 0;
    while done < JOBS {
        // All jobs that the workers received stay on their way.
        let mut on_its_way = Vec::new();
        for work in &mut workers {
            while let Some(leased) = hear(work).await {
                on_its_way.push(leased);
            }
        }
        let bytes = on_its_way.len() * JOB_BYTES;
        assert!((1..BUDGET_BYTES + JOB_BYTES).contains(&bytes), "{bytes} bytes, {done} done");
        for leased in on_its_way.drain(..) {
            let ticket = leased.ticket();
            drop(leased);
            broker.report(ticket, Outcome::Succeeded("".into())).await.expect("holds");
            done += 1;
        }
    }
}

/// A worker that has spent the budget and goes leaves it to waiting workers.
#[tokio::test(start_paused = true)]
async fn who_waits_for_the_budget_is_woken_when_another_goes() {
    let place = Place::new();
    let broker = broker(&place, JOB_BYTES).await;
    let mut first = worker(&broker);
    let held = hear(&mut first).await.expect("there is work");
    let mut waiting: Vec<Work> = (0..WORKERS).map(|_| worker(&broker)).collect();
    for work in &mut waiting {
        assert!(hear(work).await.is_none(), "the budget is spent");
    }
    let woken = futures::future::select_all(waiting.iter_mut().map(|work| Box::pin(work.next())));
    let (heard, ..) = tokio::join!(woken, async {
        drop((held, first));
    })
    .0;
    assert!(matches!(heard.expect("the shard is open"), WorkerMessage::Leased(..)));
}

/// Once, a worker that slept when the budget was found spent lost its place in the queue, and slept
/// for good.
#[tokio::test(start_paused = true)]
async fn who_sleeps_while_the_budget_is_spent_is_woken_when_there_is_room() {
    let place = Place::new();
    let shard = place.open().await;
    let broker = Broker::new(vec![shard.clone()]).with_budget(JOB_BYTES as u64);
    let group = Group::new("large").expect("a name");
    let payload = vec![0; JOB_BYTES].into();
    let large = JobSpec { group: group.clone(), payload, ..spec("large") };
    shard.enqueue(large).await.expect("takes it");
    let (mut sleeps, mut spends) = (worker(&broker), worker_of(&broker, &group));
    let (heard, ()) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(3600), sleeps.next()), async {
            let held = hear(&mut spends).await.expect("there is work");
            shard.enqueue(spec("small")).await.expect("takes it");
            drop(held);
        });
    let heard = heard.expect("it is woken").expect("the shard is open");
    assert!(matches!(heard, WorkerMessage::Leased(..)));
}
