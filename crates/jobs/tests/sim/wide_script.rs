//! One fixed piece of work of the second family, stopped at every moment: restarts, deletions,
//! pauses, imports, returned jobs and refreshes.

use crate::actors::group;
use crate::calls::{Caller, Gone};
use crate::listing::everything;
use crate::script::{stop_after_every_call, stop_after_every_operation, stop_at_every_await};
use crate::wide;
use crate::wide_actors::{TENANTS, anchor, floating, history, tenant};
use crate::world::Kind;
use skerry_jobs::job::{JobError, JobState};
use skerry_jobs::name::JobId;
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{Imported, Leased, Outcome};
use skerry_jobs::spec::JobSpec;
use std::time::Duration;

fn spec(id: &str) -> JobSpec {
    let metadata = vec![("kind".to_owned(), "a".to_owned())];
    let retry = RetryPolicy { retries: 5, ..RetryPolicy::default() };
    JobSpec {
        id: Some(JobId::new(id).expect("a name")),
        tenant: tenant(TENANTS[0]),
        group: group("one"),
        metadata,
        retry,
        ..JobSpec::default()
    }
}

fn add(caller: &Caller<'_>, spec: JobSpec) -> usize {
    caller.sim.model.borrow_mut().add(spec)
}

async fn one(caller: &Caller<'_>) -> Result<(usize, Leased), Gone> {
    let mut got = caller.lease(&group("one"), 1, Duration::from_secs(600)).await?;
    Ok(got.pop().expect("there is work"))
}

async fn refresh(caller: &Caller<'_>, max: u32) -> Result<(), Gone> {
    let leased = caller.lease_refresher(Duration::from_secs(600)).await?.expect("there is one");
    caller.refresh_with_nonsense(&leased).await?;
    caller.refresh(&leased, max).await.map(drop)
}

async fn work(caller: &Caller<'_>) -> Result<(), Gone> {
    let red = tenant(TENANTS[0]);
    let anchor = anchor(caller, &red);
    caller.enqueue(anchor).await?;
    caller.sim.model.borrow_mut().bounds.floating(&red).is_anchored = true;
    caller.set_paused(&group("one"), true).await?;
    let mail = add(caller, JobSpec { limits: vec![floating()], ..spec("mail") });
    let old = add(caller, spec("old"));
    {
        let (state, attempts) = (JobState::Failed, history(JobState::Failed, 3));
        let (spec, created_ms, ended_ms) =
            (spec("old"), 1_600_000_000_000, Some(1_600_000_090_000));
        let imported = Imported { spec, state, created_ms, ended_ms, attempts };
        caller.sim.model.borrow_mut().jobs[old].imported = Some(imported);
    }
    futures::future::try_join(caller.enqueue(mail), caller.enqueue(old)).await?;
    refresh(caller, 1).await?;
    caller.list(&everything(1)).await?;
    caller.set_paused(&group("one"), false).await?;
    let (number, leased) = one(caller).await?;
    assert_eq!(number, mail);
    caller.give_back(mail, leased.lease.attempt);
    let (_, leased) = one(caller).await?;
    caller.report(mail, leased.lease.attempt, Outcome::Returned).await?;
    let (_, leased) = one(caller).await?;
    let error = JobError { code: "E".into(), message: "no".into(), is_final: true };
    caller.report(mail, leased.lease.attempt, Outcome::Failed(error)).await?;
    caller.restart(mail).await?;
    let (_, leased) = one(caller).await?;
    caller.report(mail, leased.lease.attempt, Outcome::Succeeded("done".into())).await?;
    caller.restart(old).await?;
    caller.show(old).await?;
    caller.delete(old).await?;
    caller.delete(mail).await?;
    refresh(caller, 2).await?;
    let again = add(caller, spec("mail"));
    caller.enqueue(again).await?;
    caller.list(&everything(2)).await?;
    caller.counts_fit();
    Ok(())
}

#[test]
fn a_wider_life_stopped_at_every_await() {
    stop_at_every_await(Kind::Node, wide::end, work, &[0, 1, 2, 4, 8]);
    stop_at_every_await(Kind::Split, wide::end, work, &[0, 1, 3]);
}

#[test]
fn a_wider_life_stopped_after_every_call_of_the_store() {
    stop_after_every_call(Kind::Node, wide::end, work);
}

#[test]
fn a_wider_life_stopped_after_every_operation_of_the_disk() {
    stop_after_every_operation(wide::end, work);
}
