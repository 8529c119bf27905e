//! One fixed piece of work, stopped after every call of the store. Answers until then must be true
//! when the shard is opened again, and every job must still end.

use crate::actors::group;
use crate::calls::{Caller, Gone};
use crate::life::{cut_off_after, end, in_runtime, open};
use crate::sim::Sim;
use crate::traced;
use crate::world::Kind;
use skerry_jobs::job::JobError;
use skerry_jobs::limit::{Limit, LimitKind};
use skerry_jobs::name::{JobId, LimitKey};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{Leased, Outcome};
use skerry_jobs::spec::JobSpec;
use skerry_store::objects::faulty::FaultPlan;
use std::task::Poll;
use std::time::Duration;

/// The longest time of the work, in the simulated time.
const PATIENCE: Duration = Duration::from_secs(60);

fn add(sim: &Sim, id: Option<&str>, spec: JobSpec) -> usize {
    let id = id.map(|id| JobId::new(id).expect("a name"));
    let metadata = vec![("of".to_owned(), "the script".to_owned())];
    sim.model.borrow_mut().add(JobSpec { id, group: group("one"), metadata, ..spec })
}

async fn one(caller: &Caller<'_>) -> Result<(usize, Leased), Gone> {
    let mut got = caller.lease(&group("one"), 1, Duration::from_secs(600)).await?;
    Ok(got.pop().expect("there is work"))
}

fn failed(is_final: bool) -> Outcome {
    Outcome::Failed(JobError { code: "E".into(), message: "it broke".into(), is_final })
}

/// Some of everything that a shard does.
async fn work(caller: &Caller<'_>) -> Result<(), Gone> {
    let sim = caller.sim;
    let key = LimitKey::new("alone").expect("a name");
    let limits = vec![Limit { key, kind: LimitKind::Concurrency { max: 1 } }];
    let retry = RetryPolicy { retries: 1, ..RetryPolicy::default() };
    let alone = JobSpec { limits, retry, lease_ms: 5_000, ..JobSpec::default() };
    let later_ms = sim.world.time.peek_ms() + 3_600_000;
    let mail = add(sim, Some("mail"), JobSpec { priority: 1, ..alone.clone() });
    let nameless = add(sim, None, alone);
    let later = add(sim, Some("later"), JobSpec { start_at_ms: later_ms, ..JobSpec::default() });
    let gone = add(sim, Some("gone"), JobSpec { start_at_ms: later_ms, ..JobSpec::default() });
    caller.enqueue(mail).await?;
    let (two, three) = (caller.enqueue(nameless), caller.enqueue(later));
    futures::future::try_join3(two, three, caller.enqueue(gone)).await?;
    caller.enqueue(mail).await?;
    // The first attempt fails, the second is silent.
    let (number, leased) = one(caller).await?;
    assert_eq!(number, mail);
    caller.heartbeat(mail, leased.lease.attempt)?;
    caller.report(mail, leased.lease.attempt, failed(false)).await?;
    let (number, leased) = one(caller).await?;
    caller.report(number, leased.lease.attempt, Outcome::Succeeded("done".into())).await?;
    caller.report(number, leased.lease.attempt, Outcome::Succeeded("done".into())).await?;
    caller.set_priority(later, 3).await?;
    caller.cancel(gone).await?;
    let (number, _) = one(caller).await?;
    assert_eq!(number, mail);
    caller.await_end(mail).await?;
    caller.expedite(later).await?;
    let (number, leased) = one(caller).await?;
    assert_eq!(number, later);
    caller.cancel(later).await?;
    assert!(!caller.heartbeat(later, leased.lease.attempt)?);
    caller.report(later, leased.lease.attempt, Outcome::Cancelled).await?;
    for number in [mail, later, gone] {
        caller.enqueue(number).await?;
        caller.show(number).await?;
    }
    Ok(())
}

/// Work that is done until it is stopped.
pub trait Work: AsyncFn(&Caller<'_>) -> Result<(), Gone> + Copy {}
impl<F: AsyncFn(&Caller<'_>) -> Result<(), Gone> + Copy> Work for F {}

/// A slow store, so that there is always a call under way; equal in every run.
fn slow() -> FaultPlan {
    FaultPlan { slow: 1000, slow_ms: 1..20, ..FaultPlan::default() }
}

/// Opens the shard and does the work. True if it was done.
async fn open_and_work(sim: &Sim, work: impl Work) -> bool {
    let Some(shard) = open(sim).await else { return false };
    let caller = Caller::new(sim, shard, "script");
    let worked = tokio::time::timeout(PATIENCE, work(&caller)).await;
    worked.expect("it ends").is_ok()
}

/// Does the work, and stops after `count` calls of the store. True if it was done before that.
async fn stopped_after(sim: &Sim, work: impl Work, count: u64) -> bool {
    tokio::select! {
        biased;
        done = open_and_work(sim, work) => done,
        () = cut_off_after(sim, count, slow()) => {
            sim.say("dies");
            false
        }
    }
}

/// Does the work, and stops at this poll of it, and `after` polls of everything else later. True if
/// it was done.
async fn stopped_at_poll(sim: &Sim, work: impl Work, at: u64, after: u32) -> bool {
    sim.world.faults.set_plan(slow());
    let mut work = std::pin::pin!(open_and_work(sim, work));
    let mut polls = 0;
    let done = std::future::poll_fn(|cx| {
        polls += 1;
        if polls > at { Poll::Ready(false) } else { work.as_mut().poll(cx) }
    })
    .await;
    for _ in 0..after {
        tokio::task::yield_now().await;
    }
    done
}

/// Does the work, and stops after `count` operations of the disk. True if it was done before that.
async fn stopped_after_operation(sim: &Sim, work: impl Work, count: u64) -> bool {
    let disk = sim.world.disk.as_ref().expect("there is one");
    disk.stop_after(count);
    sim.disturbed.set(true);
    let done = open_and_work(sim, work).await;
    done && disk.operations() <= count
}

/// Tries one number after the other, until the work is done.
fn until_done(
    what: &str,
    kind: Kind,
    end: fn(&Sim),
    try_one: impl AsyncFn(&Sim, u64) -> bool,
) -> u64 {
    let mut number = 0;
    loop {
        let mut done = false;
        traced(number, what, kind, |sim| {
            done = in_runtime(sim, try_one(sim, number));
            end(sim);
        });
        if done {
            println!("{what}: {number}");
            return number;
        }
        number += 1;
    }
}

/// Stops the work at every poll, and at each of these numbers of polls of everything else later.
pub fn stop_at_every_await(kind: Kind, end: fn(&Sim), work: impl Work, later: &[u32]) {
    for after in later {
        let stop = async |sim: &Sim, at| stopped_at_poll(sim, work, at, *after).await;
        let polls = until_done("stopped at poll", kind, end, stop);
        assert!(polls > 30, "the work does too little: {polls} polls");
    }
}

/// Stops the work after every call of the store.
pub fn stop_after_every_call(kind: Kind, end: fn(&Sim), work: impl Work) {
    let stop = async |sim: &Sim, count| stopped_after(sim, work, count).await;
    let calls = until_done("stopped after call", kind, end, stop);
    assert!(calls > 20, "the work does too little: {calls} calls");
}

/// Stops the work after every operation of the disk.
pub fn stop_after_every_operation(end: fn(&Sim), work: impl Work) {
    let stop = async |sim: &Sim, count| stopped_after_operation(sim, work, count).await;
    let count = until_done("stopped after operation", Kind::Split, end, stop);
    assert!(count > 20, "the work does too little: {count} operations");
}

#[test]
fn stopped_at_every_await() {
    let later: Vec<u32> = (0..12).collect();
    stop_at_every_await(Kind::Bare, end, work, &later);
}

#[test]
fn stopped_after_every_call_of_the_store() {
    stop_after_every_call(Kind::Bare, end, work);
}

#[test]
fn stopped_after_every_operation_of_the_disk() {
    stop_after_every_operation(end, work);
}
