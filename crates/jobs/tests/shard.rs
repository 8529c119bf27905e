//! A shard over a real database in memory: what was answered is there after it is opened again.

use object_store::ObjectStore;
use object_store::memory::InMemory;
use skerry_core::env::{Clock, Entropy};
use skerry_jobs::ErrorKind;
use skerry_jobs::job::{Ending, JobError, JobRef, State};
use skerry_jobs::machine::{Cancelled, Next};
use skerry_jobs::name::{Group, JobId, Tenant, Worker};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{Leased, Outcome, Retention, Shard, ShardParts};
use skerry_jobs::spec::JobSpec;
use slatedb::config::Settings;
use slatedb::{Db, DbBuilder};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The runtime's clock.
struct Paused(Instant);

impl Clock for Paused {
    fn boot(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

/// A place for a shard, which may be opened again.
struct Place {
    store: Arc<dyn ObjectStore>,
    clock: Arc<Paused>,
}

impl Place {
    fn new() -> Self {
        Self { store: Arc::new(InMemory::new()), clock: Arc::new(Paused(Instant::now())) }
    }

    async fn open(&self) -> Shard {
        let builder: DbBuilder<&str> = Db::builder("shard", self.store.clone());
        let settings = Settings { flush_interval: None, ..Settings::default() };
        let db = builder.with_settings(settings).build().await.expect("opens");
        let (clock, entropy) = (self.clock.clone(), Arc::new(Fixed));
        let parts = ShardParts { db, clock, entropy, retention: Retention::default() };
        Shard::open(parts).await.expect("opens")
    }
}

fn spec(id: &str) -> JobSpec {
    JobSpec { id: Some(JobId::new(id).expect("a name")), ..JobSpec::default() }
}

fn named(id: &str) -> JobRef {
    JobRef::Named(JobId::new(id).expect("a name"))
}

fn tenant() -> Tenant {
    Tenant::default()
}

async fn lease(shard: &Shard, max: u32, patience: Duration) -> Vec<Leased> {
    let worker = Worker::new("w").expect("a name");
    shard.lease(&Group::default(), &worker, max, patience).await.expect("answers")
}

async fn one(shard: &Shard) -> Leased {
    let mut got = lease(shard, 1, Duration::from_secs(3600)).await;
    got.pop().expect("there is one")
}

#[tokio::test(start_paused = true)]
async fn a_job_is_enqueued_run_and_shown_and_survives() {
    let place = Place::new();
    let shard = place.open().await;
    let spec = JobSpec { payload: "do it".into(), ..spec("mail") };
    assert!(shard.enqueue(spec.clone()).await.expect("takes it").is_new);
    assert!(!shard.enqueue(spec.clone()).await.expect("it is there").is_new);
    // The shard ends without being closed.
    drop(shard);
    let shard = place.open().await;
    assert!(!shard.enqueue(spec.clone()).await.expect("it is there").is_new);
    let leased = one(&shard).await;
    assert_eq!((&leased.job.spec.payload[..], leased.lease.attempt.0), (&b"do it"[..], 1));
    assert_eq!(shard.show(&tenant(), &named("mail")).await.expect("there").state, State::Running);
    drop(shard);
    let shard = place.open().await;
    shard.heartbeat(leased.lease).expect("the lease holds");
    let outcome = Outcome::Succeeded("done".into());
    let waiting = shard.clone();
    let ended = tokio::spawn(async move { waiting.await_end(&tenant(), &named("mail")).await });
    tokio::task::yield_now().await;
    let next = shard.report(leased.lease, outcome.clone()).await.expect("holds");
    assert_eq!(next, Next::End(State::Succeeded));
    assert_eq!(ended.await.expect("runs").expect("is told").state, State::Succeeded);
    drop(shard);
    let shard = place.open().await;
    // Said again, it is answered the same; something else is not.
    assert_eq!(shard.report(leased.lease, outcome).await, Ok(next));
    let other = shard.report(leased.lease, Outcome::Cancelled).await.expect_err("it succeeded");
    assert_eq!(other.kind(), ErrorKind::LeaseLost);
    assert!(!shard.enqueue(spec).await.expect("it is there").is_new);
    let job = shard.show(&tenant(), &named("mail")).await.expect("there");
    let ending = job.attempts[0].ended.clone().expect("it ended").1;
    assert_eq!((job.state, ending), (State::Succeeded, Ending::Succeeded("done".into())));
    assert!(lease(&shard, 10, Duration::from_millis(10)).await.is_empty());
    shard.close().await.expect("closes");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_ends_as_a_dead_letter() {
    let place = Place::new();
    let shard = place.open().await;
    let retry = RetryPolicy { retries: 1, jitter_percent: 0, ..RetryPolicy::default() };
    shard.enqueue(JobSpec { retry, lease_ms: 5_000, ..spec("mail") }).await.expect("takes it");
    let first = one(&shard).await;
    let begun = Instant::now();
    let error = JobError { code: "E".into(), message: "x".repeat(10_000), is_final: false };
    let next = shard.report(first.lease, Outcome::Failed(error)).await.expect("holds");
    assert!(matches!(next, Next::Retry { .. }));
    // The second worker is silent.
    let second = one(&shard).await;
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(2));
    let job = shard.await_end(&tenant(), &named("mail")).await.expect("ends");
    assert!(begun.elapsed() >= Duration::from_secs(6));
    assert_eq!((job.state, job.attempts.len()), (State::Failed, 2));
    assert_eq!(job.attempts[1].ended.as_ref().map(|(_, how)| how), Some(&Ending::Expired));
    let late = shard.report(second.lease, Outcome::Cancelled).await.expect_err("it is over");
    assert_eq!(late.kind(), ErrorKind::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn idle_workers_are_given_work_in_turns_and_only_what_they_ask_for() {
    let place = Place::new();
    let shard = place.open().await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        let shard = shard.clone();
        workers.push(tokio::spawn(async move {
            lease(&shard, 2, Duration::from_secs(3600)).await.len()
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        shard.enqueue(JobSpec::default()).await.expect("takes it");
    }
    for worker in workers {
        assert_eq!(worker.await.expect("runs"), 1);
    }
    for _ in 0..9 {
        shard.enqueue(JobSpec::default()).await.expect("takes it");
    }
    assert_eq!(lease(&shard, 5, Duration::ZERO).await.len(), 5);
    assert_eq!(lease(&shard, 5, Duration::ZERO).await.len(), 4);
    assert_eq!(lease(&shard, 5, Duration::ZERO).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_jobs_are_changed_and_called_off() {
    let place = Place::new();
    let shard = place.open().await;
    let later = place.clock.wall_ms() + 60_000;
    shard.enqueue(JobSpec { start_at_ms: later, ..spec("later") }).await.expect("takes it");
    shard.enqueue(spec("slow")).await.expect("takes it");
    shard.enqueue(spec("gone")).await.expect("takes it");
    shard.expedite(&tenant(), &named("later")).await.expect("it waits");
    shard.set_priority(&tenant(), &named("later"), 0).await.expect("it waits");
    assert_eq!(shard.cancel(&tenant(), &named("gone")).await, Ok(Cancelled::Now));
    drop(shard);
    let shard = place.open().await;
    let first = one(&shard).await;
    assert_eq!(first.job.name(), named("later"));
    assert_eq!(one(&shard).await.job.name(), named("slow"));
    assert_eq!(shard.cancel(&tenant(), &named("later")).await, Ok(Cancelled::Asked));
    assert!(shard.heartbeat(first.lease).expect("holds").cancel_asked);
    shard.report(first.lease, Outcome::Cancelled).await.expect("holds");
    for (id, state) in
        [("gone", State::Cancelled), ("later", State::Cancelled), ("slow", State::Running)]
    {
        assert_eq!(shard.show(&tenant(), &named(id)).await.expect("there").state, state, "{id}");
    }
    let missing = shard.show(&tenant(), &named("never")).await.expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn many_at_once_with_one_id_make_one_job() {
    let place = Place::new();
    let shard = place.open().await;
    let asks = (0..50).map(|n| {
        let shard = shard.clone();
        tokio::spawn(async move { shard.enqueue(spec(&format!("job{}", n % 5))).await })
    });
    let mut new = 0;
    for ask in asks.collect::<Vec<_>>() {
        new += u32::from(ask.await.expect("runs").expect("takes it").is_new);
    }
    assert_eq!(new, 5);
    assert_eq!(lease(&shard, 50, Duration::ZERO).await.len(), 5);
}
