//! One fixed piece of work, stopped after every call of the store: whatever was answered by then must be true when
//! the shard is opened again, and every job must still come to its end.

use crate::actors::group;
use crate::calls::{Caller, Gone};
use crate::life::{cut_off_after, end, in_runtime, open};
use crate::sim::Sim;
use crate::traced;
use skerry_jobs::job::JobError;
use skerry_jobs::limit::{Limit, LimitKind};
use skerry_jobs::name::{JobId, LimitKey};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{Leased, Outcome};
use skerry_jobs::spec::JobSpec;
use skerry_store::faulty::FaultPlan;
use std::cell::Cell;
use std::time::Duration;

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

/// Does the work, and stops after so many calls of the store. True if it was done before that.
async fn stopped_after(sim: &Sim, count: u64) -> bool {
    let done = Cell::new(false);
    // Slow, so that there is always something under way; the same in every run.
    let slow = FaultPlan { slow: 1000, slow_ms: 1..20, ..FaultPlan::default() };
    let worked = async {
        let Some(shard) = open(sim).await else { return };
        let caller = Caller { sim, shard, name: "script".to_owned() };
        done.set(work(&caller).await.is_ok());
    };
    tokio::select! {
        biased;
        () = worked => {}
        () = cut_off_after(sim, count, slow) => sim.say("dies"),
    }
    done.get()
}

#[test]
fn stopped_after_every_call_of_the_store() {
    let mut count = 0;
    loop {
        let mut done = false;
        traced(count, "stopped after call", |sim| {
            done = in_runtime(sim, stopped_after(sim, count));
            end(sim);
        });
        if done {
            break;
        }
        count += 1;
    }
    println!("{count} calls");
    assert!(count > 20, "the work does too little: {count} calls");
}
