//! A shard over a real database in memory: answers still hold after it is opened again.

use crate::common::{Paused, Place, Split, lease, lease_of, named, one, spec, tenant};
use futures::StreamExt as _;
use futures::future::join_all;
use object_store::ObjectStoreExt as _;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use skerry_core::env::Clock;
use skerry_jobs::ErrorKind;
use skerry_jobs::broker::{Broker, Standing, Ticket, WorkerMessage};
use skerry_jobs::hash::{HashRange, TenantHash};
use skerry_jobs::job::{Ending, JobError, JobRef, JobState};
use skerry_jobs::keys;
use skerry_jobs::limit::{Limit, LimitKind};
use skerry_jobs::machine::{Cancelled, Next, Why};
use skerry_jobs::name::{Group, LimitKey, Tenant, Worker};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{
    AWAITED_BYTES_MAX, Begins, Cursor, Imported, Leased, Listed, Outcome, Query, Shard, ShardParts,
};
use skerry_jobs::spec::JobSpec;
use skerry_log::sim::SimDisk;
use skerry_store::objects::faulty::{FaultPlan, Faulty};
use skerry_store::objects::meter::{CallKind, Meter};
use slatedb::admin::Admin;
use slatedb::config::CheckpointOptions;
use slatedb::fail_parallel;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Once, a call could slip in behind the last batch, and leave a row in a log that the database no
/// longer named.
#[tokio::test(start_paused = true)]
async fn calls_that_come_while_a_shard_closes_are_refused() {
    let place = Place::new();
    let shard = place.open().await;
    for id in ["one", "two"] {
        shard.enqueue(spec(id)).await.expect("takes it");
    }
    let leased = lease(&shard, 2, Duration::ZERO).await;
    let report = |leased: &Leased| shard.report(leased.ticket(), Outcome::Succeeded("".into()));
    let mut before = std::pin::pin!(report(&leased[0]));
    assert!(futures::poll!(before.as_mut()).is_pending());
    let mut closing = std::pin::pin!(shard.clone().close());
    assert!(futures::poll!(closing.as_mut()).is_pending());
    let late = report(&leased[1]).await.expect_err("it closes");
    assert_eq!(late.kind(), ErrorKind::Unavailable, "{late}");
    closing.await.expect("closes");
    before.await.expect("it came in time");
    let shard = place.open().await;
    assert_eq!(shard.show(&tenant(), &named("two")).await.expect("there").state, JobState::Running);
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
    assert_eq!(
        shard.show(&tenant(), &named("mail")).await.expect("there").state,
        JobState::Running
    );
    drop(shard);
    let shard = place.open().await;
    shard.heartbeat(leased.lease).expect("the lease holds");
    let outcome = Outcome::Succeeded("done".into());
    let waiting = shard.clone();
    let ended = tokio::spawn(async move { waiting.await_end(&tenant(), &named("mail")).await });
    tokio::task::yield_now().await;
    let next = shard.report(leased.ticket(), outcome.clone()).await.expect("holds");
    assert_eq!(next, Next::End(JobState::Succeeded));
    assert_eq!(ended.await.expect("runs").expect("is told").state, JobState::Succeeded);
    drop(shard);
    let shard = place.open().await;
    // A repeated report gets the first answer; another report does not.
    assert_eq!(shard.report(leased.ticket(), outcome).await, Ok(next));
    let other = shard.report(leased.ticket(), Outcome::Cancelled).await.expect_err("it succeeded");
    assert_eq!(other.kind(), ErrorKind::LeaseLost);
    assert!(!shard.enqueue(spec).await.expect("it is there").is_new);
    let job = shard.show(&tenant(), &named("mail")).await.expect("there");
    let ending = job.attempts[0].ended.clone().expect("it ended").1;
    assert_eq!((job.state, ending), (JobState::Succeeded, Ending::Succeeded("done".into())));
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
    let next = shard.report(first.ticket(), Outcome::Failed(error)).await.expect("holds");
    assert!(matches!(next, Next::Retry { .. }));
    // The second worker is silent.
    let second = one(&shard).await;
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(2));
    let job = shard.await_end(&tenant(), &named("mail")).await.expect("ends");
    assert!(begun.elapsed() >= Duration::from_secs(6));
    assert_eq!((job.state, job.attempts.len()), (JobState::Failed, 2));
    assert_eq!(job.attempts[1].ended.as_ref().map(|(_, how)| how), Some(&Ending::Expired));
    let late = shard.report(second.ticket(), Outcome::Cancelled).await.expect_err("it is over");
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
    shard.report(first.ticket(), Outcome::Cancelled).await.expect("holds");
    for (id, state) in
        [("gone", JobState::Cancelled), ("later", JobState::Cancelled), ("slow", JobState::Running)]
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

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_restarted_with_its_history() {
    let place = Place::new();
    let shard = place.open().await;
    let retry = RetryPolicy::NEVER;
    let metadata = vec![("user".to_owned(), "42".to_owned())];
    shard.enqueue(JobSpec { retry, metadata, ..spec("mail") }).await.expect("takes it");
    let early = shard.restart(&tenant(), &named("mail")).await.expect_err("it waits");
    assert_eq!(early.kind(), ErrorKind::Conflict);
    let first = one(&shard).await;
    let error = JobError { code: "E".into(), message: "no".into(), is_final: false };
    let outcome = Outcome::Failed(error);
    shard.report(first.ticket(), outcome.clone()).await.expect("holds");
    assert_eq!(ids(&list(&shard, |q| q.state = Some(JobState::Failed)).await), ["mail"]);
    shard.restart(&tenant(), &named("mail")).await.expect("it has ended");
    assert!(list(&shard, |q| q.state = Some(JobState::Failed)).await.jobs.is_empty());
    drop(shard);
    let shard = place.open().await;
    let second = one(&shard).await;
    assert_eq!(
        (second.lease.attempt.0, second.job.attempts.len()),
        (2, 1),
        "a worker gets no history"
    );
    let shown = shard.show(&tenant(), &named("mail")).await.expect("there");
    assert_eq!(shown.attempts.len(), 2);
    assert!(shard.report(first.ticket(), outcome).await.is_ok(), "said again");
    shard.report(second.ticket(), Outcome::Succeeded("ok".into())).await.expect("holds");
    let job = shard.show(&tenant(), &named("mail")).await.expect("there");
    assert_eq!((job.state, job.result().map(|r| &r[..])), (JobState::Succeeded, Some(&b"ok"[..])));
    let found = list(&shard, |q| {
        q.tenant = Some(tenant());
        q.metadata = Some(("user".into(), "42".into()));
    });
    assert_eq!(ids(&found.await), ["mail"]);
}

async fn list(shard: &Shard, ask: impl FnOnce(&mut Query)) -> Listed {
    let mut query = Query {
        tenant: None,
        group: None,
        state: None,
        metadata: None,
        is_prefix: false,
        limit: 100,
    };
    ask(&mut query);
    shard.list(&query, None).await.expect("lists")
}

fn ids(listed: &Listed) -> Vec<String> {
    listed.jobs.iter().map(|job| job.name().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_gone_with_all_that_points_to_it() {
    let place = Place::new();
    let shard = place.open().await;
    let with = |id: &str| JobSpec {
        metadata: vec![("user".to_owned(), id.to_owned())],
        retry: RetryPolicy::NEVER,
        ..spec(id)
    };
    for id in ["waits", "runs", "ended"] {
        shard.enqueue(JobSpec { priority: 1, ..with(id) }).await.expect("takes it");
    }
    shard.set_priority(&tenant(), &named("waits"), 99).await.expect("it waits");
    let runs = one(&shard).await;
    let ended = one(&shard).await;
    let error = JobError { code: String::new(), message: String::new(), is_final: true };
    shard.report(ended.ticket(), Outcome::Failed(error)).await.expect("holds");
    let refused = shard.delete(&tenant(), &named("runs")).await.expect_err("it runs");
    assert_eq!((refused.kind(), runs.job.name()), (ErrorKind::Conflict, named("runs")));
    for id in ["waits", "ended"] {
        shard.delete(&tenant(), &named(id)).await.expect("it does not run");
        let gone = shard.show(&tenant(), &named(id)).await.expect_err("it is gone");
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        let again = shard.delete(&tenant(), &named(id)).await.expect_err("it is gone");
        assert_eq!(again.kind(), ErrorKind::NotFound);
    }
    drop(shard);
    let shard = place.open().await;
    assert_eq!(ids(&list(&shard, |_| {}).await), ["runs"]);
    assert!(list(&shard, |q| q.state = Some(JobState::Failed)).await.jobs.is_empty());
    let by_user = list(&shard, |q| {
        q.tenant = Some(tenant());
        q.metadata = Some(("user".into(), String::new()));
        q.is_prefix = true;
    });
    assert_eq!(ids(&by_user.await), ["runs"]);
    assert!(shard.enqueue(with("ended")).await.expect("takes it").is_new);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_free_as_soon_as_its_job_is_being_deleted() {
    let place = Place::new();
    let shard = place.open().await;
    for _ in 0..20 {
        shard.enqueue(spec("mail")).await.expect("takes it");
        shard.cancel(&tenant(), &named("mail")).await.expect("it waits");
        // The caller goes away before the answer.
        let asked = shard.clone();
        let delete = tokio::spawn(async move { asked.delete(&tenant(), &named("mail")).await });
        tokio::task::yield_now().await;
        delete.abort();
        let _ = delete.await;
        let is_gone = shard.show(&tenant(), &named("mail")).await.is_err();
        assert_eq!(shard.enqueue(spec("mail")).await.expect("takes it").is_new, is_gone);
        let _ = shard.cancel(&tenant(), &named("mail")).await;
        shard.delete(&tenant(), &named("mail")).await.expect("it is there");
    }
}

#[tokio::test(start_paused = true)]
async fn listings_go_on_where_they_ended() {
    let place = Place::new();
    let shard = place.open().await;
    for n in 0..25 {
        let group = Group::new(if n % 2 == 0 { "even" } else { "odd" }).expect("a name");
        shard.enqueue(JobSpec { group, ..spec(&format!("job{n:02}")) }).await.expect("takes it");
        if n < 10 {
            let job = named(&format!("job{n:02}"));
            shard.cancel(&tenant(), &job).await.expect("it waits");
        }
    }
    let even = Group::new("even").expect("a name");
    let query = Query {
        tenant: None,
        group: Some(even),
        state: None,
        metadata: None,
        is_prefix: false,
        limit: 3,
    };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let listed = shard.list(&query, after.as_ref()).await.expect("lists");
        found.extend(ids(&listed));
        after = listed.next;
        if after.is_none() {
            break;
        }
    }
    let wanted = (10..25).chain(0..10).filter(|n| n % 2 == 0).map(|n| format!("job{n:02}"));
    assert_eq!(found, wanted.collect::<Vec<_>>());
    let done = list(&shard, |q| q.state = Some(JobState::Cancelled)).await;
    assert_eq!(done.jobs.len(), 10);
}

/// A page ends when it has much to show, or much to read, and the next goes on.
#[tokio::test(start_paused = true)]
async fn a_page_of_large_jobs_is_short() {
    let shard = Place::new().open().await;
    let value = "v".repeat(256);
    let metadata: Vec<_> = (0..16).map(|n| (format!("{n:0>256}"), value.clone())).collect();
    let large = JobSpec { payload: vec![7; 1 << 20].into(), ..JobSpec::default() };
    let wide = JobSpec { metadata, ..JobSpec::default() };
    for (job, count, page_max) in [(large, 30, 17), (wide, 300, 150)] {
        let group = Group::new(&format!("g{page_max}")).expect("a name");
        let job = JobSpec { group: group.clone(), ..job };
        for _ in 0..count {
            shard.enqueue(job.clone()).await.expect("takes it");
        }
        let query = Query {
            tenant: None,
            group: Some(group),
            state: None,
            metadata: None,
            is_prefix: false,
            limit: 1000,
        };
        let (mut seen, mut after) = (0, None);
        loop {
            let page = shard.list(&query, after.as_ref()).await.expect("lists");
            assert!(page.jobs.len() <= page_max, "{} jobs", page.jobs.len());
            seen += page.jobs.len();
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, count);
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_group_stays_paused() {
    let place = Place::new();
    let shard = place.open().await;
    shard.pause(&Group::default()).await.expect("pauses");
    shard.enqueue(spec("mail")).await.expect("takes it");
    drop(shard);
    let shard = place.open().await;
    assert!(lease(&shard, 1, Duration::from_secs(9)).await.is_empty());
    assert!(shard.groups()[0].1.is_paused);
    let waiting = shard.clone();
    let waits = tokio::spawn(async move { one(&waiting).await });
    tokio::task::yield_now().await;
    shard.resume(&Group::default()).await.expect("resumes");
    assert_eq!(waits.await.expect("runs").job.name(), named("mail"));
    drop(shard);
    assert!(!place.open().await.groups()[0].1.is_paused);
}

#[tokio::test(start_paused = true)]
async fn a_floating_limit_is_refreshed_even_if_its_refresher_dies() {
    let place = Place::new();
    let shard = place.open().await;
    let refreshers = Group::new("refreshers").expect("a name");
    let kind = LimitKind::Floating { initial: 1, refresh_ms: 10_000, group: refreshers.clone() };
    let limits = vec![Limit { key: LimitKey::new("api").expect("a name"), kind }];
    for n in 0..6 {
        let spec = JobSpec { limits: limits.clone(), lease_ms: 3_600_000, ..spec(&n.to_string()) };
        shard.enqueue(spec).await.expect("takes it");
    }
    assert_eq!(lease(&shard, 9, Duration::ZERO).await.len(), 1);
    let patience = Duration::from_secs(3600);
    // This worker dies.
    let dead = lease_of(&shard, &refreshers, 9, patience).await;
    assert_eq!((dead.len(), &dead[0].job.spec.payload[..]), (1, &b"api"[..]));
    let next = lease_of(&shard, &refreshers, 1, patience).await.pop().expect("another gets it");
    let no = shard.report(next.ticket(), Outcome::Succeeded("many".into())).await;
    assert_eq!(no.expect_err("no number").kind(), ErrorKind::Invalid);
    let again =
        shard.report(next.ticket(), Outcome::Succeeded(" 3\n".into())).await.expect("holds");
    assert!(matches!(again, Next::Retry { .. }), "{again:?}");
    assert_eq!(lease(&shard, 9, Duration::ZERO).await.len(), 2);
    drop(shard);
    let shard = place.open().await;
    assert_eq!(lease(&shard, 9, Duration::ZERO).await.len(), 0, "three run");
    let begun = Instant::now();
    let next = lease_of(&shard, &refreshers, 1, patience).await.pop().expect("it runs again");
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    shard.report(next.ticket(), Outcome::Succeeded("4".into())).await.expect("holds");
    assert_eq!(lease(&shard, 9, Duration::ZERO).await.len(), 1);
    for n in 0..6 {
        let _ = shard.cancel(&tenant(), &named(&n.to_string())).await;
        for leased in list(&shard, |q| q.state = Some(JobState::Running)).await.jobs {
            let _ = shard.report(leased.ticket().expect("begun"), Outcome::Cancelled).await;
        }
    }
    let last = lease_of(&shard, &refreshers, 1, patience).await.pop().expect("once more");
    let end = shard.report(last.ticket(), Outcome::Succeeded("4".into())).await.expect("holds");
    assert_eq!(end, Next::End(JobState::Succeeded), "nobody is under it");
    assert_eq!(shard.counts().active, 0);
}

fn under_api(group: &Group) -> Vec<Limit> {
    let kind = LimitKind::Floating { initial: 1, refresh_ms: 10_000, group: group.clone() };
    vec![Limit { key: LimitKey::new("api").expect("a name"), kind }]
}

#[tokio::test(start_paused = true)]
async fn the_newest_definition_of_a_floating_limit_says_who_is_asked() {
    let place = Place::new();
    let shard = place.open().await;
    let group = |name| Group::new(name).expect("a name");
    let groups = [group("one"), group("two"), group("three")];
    let ask = async |group: &Group| lease_of(&shard, group, 1, Duration::from_secs(60)).await;
    for group in &groups[..2] {
        let limits = under_api(group);
        let job = JobSpec { limits, ..spec(group.as_str()) };
        shard.enqueue(job).await.expect("takes it");
    }
    assert_eq!(ask(&groups[0]).await.len(), 0, "it waited, and was moved");
    let running = ask(&groups[1]).await.pop().expect("the new ones are asked");
    shard
        .enqueue(JobSpec { limits: under_api(&groups[2]), ..spec("three") })
        .await
        .expect("takes it");
    shard.report(running.ticket(), Outcome::Succeeded("1".into())).await.expect("holds");
    assert_eq!(ask(&groups[1]).await.len(), 0, "it ran, and is moved with its answer");
    assert_eq!(ask(&groups[2]).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_floating_limit_has_a_refresher_whatever_becomes_of_it() {
    let place = Place::new();
    let mut shard = place.open().await;
    let group = Group::new("refreshers").expect("a name");
    let refresher = "~limit/api".parse::<JobRef>().expect("a name");
    for n in 0..3 {
        let job = JobSpec { limits: under_api(&group), ..spec(&n.to_string()) };
        shard.enqueue(job).await.expect("takes it");
    }
    for round in 0..4 {
        let got = lease_of(&shard, &group, 1, Duration::from_secs(60)).await.pop();
        let got = got.expect("somebody is asked");
        let error = JobError { code: "E".into(), message: "no".into(), is_final: true };
        let ends = match round {
            0 => Outcome::Failed(error),
            1 => {
                shard.cancel(&tenant(), &refresher).await.expect("runs");
                Outcome::Cancelled
            }
            _ => Outcome::Succeeded("1".into()),
        };
        shard.report(got.ticket(), ends).await.expect("holds");
        match round {
            2 => {
                shard.cancel(&tenant(), &refresher).await.expect("waits");
            }
            3 => shard.delete(&tenant(), &refresher).await.expect("waits"),
            _ => {}
        }
        drop(shard);
        shard = place.open().await;
    }
    assert_eq!(lease_of(&shard, &group, 1, Duration::from_secs(60)).await.len(), 1);
}

#[tokio::test]
async fn a_job_that_is_imported_when_it_has_ended_brings_no_refresher() {
    let shard = Place::new().open().await;
    let spec = JobSpec { limits: under_api(&Group::default()), ..spec("old") };
    let imported = Imported {
        spec,
        state: JobState::Succeeded,
        created_ms: 1,
        ended_ms: Some(1_700_000_000_000),
        attempts: Vec::new(),
    };
    shard.import(imported).await.expect("takes it");
    assert_eq!(shard.counts().active, 0);
}

/// An ended job is kept for a week, a dead letter for a month; then it is gone, and its id is free.
#[tokio::test(start_paused = true)]
async fn what_has_ended_is_kept_for_a_while() {
    const DAY: Duration = Duration::from_secs(86_400);
    let place = Place::new();
    let shard = place.open().await;
    let entry = ("user".to_owned(), "42".to_owned());
    for id in ["done", "dead"] {
        let metadata = vec![entry.clone()];
        let retry = RetryPolicy { retries: 0, ..RetryPolicy::default() };
        shard.enqueue(JobSpec { metadata, retry, ..spec(id) }).await.expect("takes it");
        let outcome = match id {
            "done" => Outcome::Succeeded("x".into()),
            _ => Outcome::Failed(JobError {
                code: String::new(),
                message: String::new(),
                is_final: false,
            }),
        };
        shard.report(one(&shard).await.ticket(), outcome).await.expect("holds");
    }
    let by_metadata = |q: &mut Query| {
        q.tenant = Some(tenant());
        q.metadata = Some(entry.clone());
    };
    let failed = |q: &mut Query| q.state = Some(JobState::Failed);
    tokio::time::sleep(6 * DAY).await;
    assert_eq!(ids(&list(&shard, |_| ()).await), ["dead", "done"], "by name");
    tokio::time::sleep(2 * DAY).await;
    drop(shard);
    let shard = place.open().await;
    assert_eq!(ids(&list(&shard, |_| ()).await), ["dead"]);
    assert_eq!(ids(&list(&shard, by_metadata).await), ["dead"]);
    let gone = shard.show(&tenant(), &named("done")).await.expect_err("its time is over");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert!(!shard.enqueue(spec("dead")).await.expect("answers").is_new, "it is kept");
    assert!(shard.enqueue(spec("done")).await.expect("takes it").is_new);
    assert_eq!(ids(&list(&shard, failed).await), ["dead"]);
    tokio::time::sleep(23 * DAY).await;
    assert!(ids(&list(&shard, failed).await).is_empty());
    assert!(shard.enqueue(spec("dead")).await.expect("takes it").is_new);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_gives_back_what_was_on_its_way() {
    let place = Place::new();
    let shard = place.open().await;
    let broker = Broker::new(vec![shard.clone()]);
    let worker = Worker::new("w").expect("a name");
    let retry = RetryPolicy::NEVER;
    for n in 0..5 {
        shard.enqueue(JobSpec { retry, ..spec(&n.to_string()) }).await.expect("takes it");
    }
    let mut work = broker.work(&Group::default(), &worker, Begins::WhenTold, 4).expect("sits down");
    let WorkerMessage::Leased(ticket, first) = work.next().await.expect("there is work") else {
        panic!("a job comes first")
    };
    assert_eq!(Ticket::decode(&ticket.encode()), Ok(ticket.clone()));
    shard.cancel(&tenant(), &first.job.name()).await.expect("it runs");
    // Three more are on their way.
    drop(work);
    assert_eq!(lease(&shard, 9, Duration::from_secs(1)).await.len(), 4);
    let jobs = list(&shard, |q| q.state = Some(JobState::Running)).await.jobs;
    let tries: Vec<usize> = jobs.iter().map(|job| job.attempts.len()).collect();
    assert_eq!(jobs.len(), 5);
    assert!(tries.contains(&2), "{tries:?}");
    let uncounted = jobs.iter().all(|job| job.uncounted as usize == job.attempts.len() - 1);
    assert!(uncounted, "what was given back is no failure");
    let mut work = broker.work(&Group::default(), &worker, Begins::WhenTold, 4).expect("sits down");
    assert!(work.add_credits(20_000).is_err());
    drop(work);
    drop(shard);
    let shard = place.open().await;
    let waiting = shard.clone();
    shard.heartbeat(ticket.lease).expect("it holds");
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_told_to_stop() {
    let place = Place::new();
    let shard = place.open().await;
    let broker = Broker::new(vec![shard.clone()]);
    let worker = Worker::new("w").expect("a name");
    shard.enqueue(spec("mail")).await.expect("takes it");
    let mut work = broker.work(&Group::default(), &worker, Begins::WhenTold, 1).expect("sits down");
    let WorkerMessage::Leased(ticket, _) = work.next().await.expect("there is work") else {
        panic!("a job comes first")
    };
    shard.cancel(&tenant(), &named("mail")).await.expect("it runs");
    let told = work.next().await.expect("hears of it");
    assert!(matches!(&told, WorkerMessage::Cancel(stop) if *stop == ticket), "{told:?}");
    broker.report(ticket, Outcome::Cancelled).await.expect("holds");
}

#[tokio::test(start_paused = true)]
async fn jobs_come_with_their_history() {
    let place = Place::new();
    let shard = place.open().await;
    let attempt = |ended| skerry_jobs::job::Attempt {
        number: skerry_jobs::job::AttemptNo(9),
        epoch: skerry_jobs::job::Epoch(0),
        worker: Worker::new("old").expect("a name"),
        started_ms: 5,
        ended,
    };
    let done = Imported {
        spec: spec("done"),
        state: JobState::Succeeded,
        created_ms: 4,
        ended_ms: Some(7),
        attempts: vec![
            attempt(Some((6, Ending::Expired))),
            attempt(Some((7, Ending::Succeeded("x".into())))),
        ],
    };
    let waits = Imported {
        spec: spec("waits"),
        state: JobState::Running,
        created_ms: 4,
        ended_ms: None,
        attempts: vec![attempt(Some((6, Ending::Expired))), attempt(None)],
    };
    // One try is left: a returned attempt is none.
    let retry = RetryPolicy { retries: 1, ..RetryPolicy::default() };
    let last_try = Imported {
        spec: JobSpec { retry, group: Group::new("last").expect("a name"), ..spec("last") },
        attempts: vec![
            attempt(Some((5, Ending::Returned))),
            attempt(Some((6, Ending::Expired))),
            attempt(Some((7, Ending::Returned))),
        ],
        ..waits.clone()
    };
    let bad = Imported { ended_ms: None, ..done.clone() };
    assert_eq!(shard.import(bad).await.expect_err("no end").kind(), ErrorKind::Invalid);
    for job in [&done, &waits, &done, &waits, &last_try] {
        shard.import(job.clone()).await.expect("takes it");
    }
    drop(shard);
    let shard = place.open().await;
    let job = shard.show(&tenant(), &named("done")).await.expect("there");
    assert_eq!((job.state, job.created_ms, job.ended_ms), (JobState::Succeeded, 4, Some(7)));
    assert_eq!(job.result().map(|r| &r[..]), Some(&b"x"[..]));
    assert_eq!(one(&shard).await.lease.attempt.0, 2);
    assert_eq!(list(&shard, |_| {}).await.jobs.len(), 3);
    let got = lease_of(&shard, &last_try.spec.group, 1, Duration::ZERO).await;
    let error = JobError { code: "E".into(), message: String::new(), is_final: false };
    let next = shard.report(got[0].ticket(), Outcome::Failed(error)).await.expect("holds");
    assert_eq!((got[0].lease.attempt.0, next), (4, Next::End(JobState::Failed)));
}

#[tokio::test(start_paused = true)]
async fn another_shards_database_is_refused() {
    let place = Place::new();
    place.open().await.close().await.expect("closes");
    let refused = place.try_open_as(HashRange::part(0, 2)).await;
    let refused = refused.err().expect("it is the only shard");
    assert!(refused.message().contains(&HashRange::ALL.to_string()), "{refused}");
}

/// A database in a layout of before is left as it is, and the message says what to do.
#[tokio::test(start_paused = true)]
async fn a_database_of_an_older_layout_is_refused() {
    let place = Place::new();
    let old = slatedb::Db::open("shard", place.store.clone()).await.expect("opens");
    old.put(b"a", b"job").await.expect("writes");
    old.close().await.expect("closes");
    let refused = place.try_database().await.err().expect("it has no segments");
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.message().contains("let that version finish its jobs"), "{refused}");
    let old = slatedb::Db::open("shard", place.store.clone()).await.expect("opens still");
    assert_eq!(old.get(b"a").await.expect("reads"), Some("job".into()));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_keeps_no_shard_closed() {
    let mut place = Place::new();
    tokio::time::advance(Duration::from_secs(3600)).await;
    let shard = place.open().await;
    shard.enqueue(spec("mail")).await.expect("takes it");
    shard.close().await.expect("closes");
    place.clock = Arc::new(Paused(Instant::now()));
    let shard = place.open().await;
    shard.enqueue(spec("more")).await.expect("takes it");
    assert_eq!(lease(&shard, 9, Duration::ZERO).await.len(), 2);
    shard.close().await.expect("closes");
    assert_eq!(place.open().await.counts().active, 2);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_opened_elsewhere_confirms_no_lease() {
    let place = Place::new();
    let old = place.open().await;
    old.enqueue(spec("mail")).await.expect("takes it");
    let leased = one(&old).await;
    let new = place.open().await;
    let why = old.out_of_service().await;
    assert!(why.message().contains("another node") && why.is_fenced(), "{why}");
    let refused = old.heartbeat(leased.lease).expect_err("it is the other's");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    new.heartbeat(leased.lease).expect("it holds");
    // Closing lets go of resources.
    let closed = tokio::time::timeout(Duration::from_secs(60), old.close()).await;
    closed.expect("it ends").expect("what was answered is durable");
    new.enqueue(spec("more")).await.expect("takes it");
}

/// An owner whose epoch another has used since does not open the database, and does the other no
/// harm.
#[tokio::test(start_paused = true)]
async fn an_owner_that_was_overtaken_does_not_open() {
    let mut place = Place::new();
    place.expected_epoch = Some(0);
    drop(place.open().await);
    place.expected_epoch = None;
    drop(place.open().await);
    place.expected_epoch = Some(2);
    let shard = place.open().await;
    for overtaken in [0, 1, 2] {
        place.expected_epoch = Some(overtaken);
        let refused = place.try_open(false).await.err().expect("another has it");
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    }
    assert!(shard.enqueue(spec("mail")).await.expect("takes it").is_new);
}

/// SlateDB fails at each place where it can be made to. Answers still hold when the shard is opened
/// again.
#[tokio::test(start_paused = true)]
async fn a_database_that_fails_anywhere_loses_nothing() {
    let points = ["write-batch-pre-commit", "write-batch-post-commit", "write-wal-sst-io-error"];
    for point in points {
        let place = Place::new();
        let shard = place.open().await;
        shard.enqueue(spec("before")).await.expect("takes it");
        fail_parallel::cfg(place.fail_points.clone(), point, "return")
            .expect("there is such a point");
        let (mut taken, mut has_failed) = (vec!["before".to_owned()], false);
        for n in 0..3 {
            let id = format!("job-{n}");
            let asked =
                tokio::time::timeout(Duration::from_secs(60), shard.enqueue(spec(&id))).await;
            match asked {
                Ok(Ok(_)) => taken.push(id),
                Ok(Err(error)) => {
                    has_failed = true;
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{point}: {error}")
                }
                // The test tries again until it works.
                Err(_) => has_failed = true,
            }
        }
        assert!(has_failed, "{point} fails nothing");
        fail_parallel::remove(place.fail_points.clone(), point);
        drop(shard);
        let shard = place.open().await;
        for id in taken {
            shard.show(&tenant(), &named(&id)).await.expect(point);
        }
        shard.enqueue(spec("after")).await.expect("takes it");
    }
}

/// The bucket is away for a while: calls to enqueue wait, and nothing is lost or made twice.
#[tokio::test(start_paused = true)]
async fn what_is_enqueued_while_the_store_is_away_waits_for_it() {
    let mut place = Place::new();
    let faulty = Faulty::new(place.store.clone(), 1, FaultPlan::default());
    let faults = faulty.faults();
    place.store = Arc::new(faulty);
    let shard = place.open().await;
    shard.enqueue(spec("before")).await.expect("takes it");
    faults.set_plan(FaultPlan { error_before: 1000, ..FaultPlan::default() });
    let asks: Vec<_> = (0..20)
        .map(|n| {
            let shard = shard.clone();
            tokio::spawn(async move { shard.enqueue(spec(&format!("job{}", n % 10))).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(asks.iter().all(|ask| !ask.is_finished()), "nothing can be durable");
    faults.set_plan(FaultPlan::default());
    let mut new = 0;
    for ask in asks {
        new += u32::from(ask.await.expect("runs").expect("it is back").is_new);
    }
    assert_eq!(new, 10);
    assert_eq!(lease(&shard, 50, Duration::ZERO).await.len(), 11);
    drop(shard);
    assert_eq!(place.open().await.counts().running, 11);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_store_takes_bounded_memory() {
    const ROOM: usize = 64;
    let ask = |shard: &Shard, n: usize| {
        let (shard, payload) = (shard.clone(), vec![7; (1 << 20) - 1024].into());
        let spec = JobSpec { payload, ..spec(&n.to_string()) };
        tokio::spawn(async move { shard.enqueue(spec).await })
    };
    let mut place = Place::new();
    place.apply_log = true;
    let shard = place.open().await;
    let asks: Vec<_> = (0..ROOM + 20).map(|n| ask(&shard, n)).collect();
    for ask in asks {
        assert!(ask.await.expect("runs").expect("there is room, in the end").is_new);
    }
    shard.close().await.expect("closes");
    let faulty = Faulty::new(place.store.clone(), 1, FaultPlan::default());
    let faults = faulty.faults();
    place.store = Arc::new(faulty);
    let shard = place.open().await;
    let before = shard.counts().active;
    faults.set_plan(FaultPlan { error_before: 1000, ..FaultPlan::default() });
    let _asks: Vec<_> = (1000..1000 + ROOM + 20).map(|n| ask(&shard, n)).collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(shard.counts().active - before, ROOM, "more are taken than there is room for");
}

#[tokio::test(start_paused = true)]
async fn a_newer_database_is_left_as_it_is() {
    let place = Place::new();
    let shard = place.open().await;
    shard.enqueue(spec("one")).await.expect("takes it");
    shard.close().await.expect("closes");
    let set = async |descriptor: &[u8]| {
        // Goes around the opening, which looks at the descriptor first.
        let db = slatedb::Db::builder("shard", place.store.clone());
        let db = db.with_segment_extractor(Arc::new(keys::ByLetter)).build().await.expect("opens");
        let before = db.get(keys::DESCRIPTOR).await.expect("reads").expect("there");
        db.put(keys::DESCRIPTOR, descriptor).await.expect("writes");
        db.close().await.expect("closes");
        before.to_vec()
    };
    let mut newer = set(b"").await;
    newer[4] += 1;
    let end = newer.len() - 4;
    let sum = crc32c::crc32c(&newer[..end]);
    newer[end..].copy_from_slice(&sum.to_le_bytes());
    set(&newer).await;
    let refused = place.try_open(false).await.err().expect("it is newer");
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.message().contains("newer"), "{refused}");
    newer[4] -= 1;
    let sum = crc32c::crc32c(&newer[..end]);
    newer[end..].copy_from_slice(&sum.to_le_bytes());
    assert_ne!(set(&newer).await, b"", "it was left as it was");
    place.open().await.show(&tenant(), &named("one")).await.expect("nothing is lost");
}

/// A lease that is not durable yet does not run out, however long that takes.
#[tokio::test(start_paused = true)]
async fn a_lease_begins_when_its_worker_is_told() {
    let mut place = Place::new();
    let faulty = Faulty::new(place.store.clone(), 1, FaultPlan::default());
    let faults = faulty.faults();
    place.store = Arc::new(faulty);
    let shard = place.open().await;
    let waiting = shard.clone();
    let worker = tokio::spawn(async move { lease(&waiting, 1, Duration::from_secs(3600)).await });
    tokio::task::yield_now().await;
    faults.set_plan(FaultPlan { error_before: 1000, ..FaultPlan::default() });
    let asking = shard.clone();
    let asked = tokio::spawn(async move { asking.enqueue(spec("mail")).await });
    // Ten times as long as a lease.
    tokio::time::sleep(Duration::from_secs(300)).await;
    faults.set_plan(FaultPlan::default());
    asked.await.expect("runs").expect("takes it");
    let leased = worker.await.expect("runs").pop().expect("gets it");
    assert_eq!(leased.job.attempts.len(), 1, "{:?}", leased.job.attempts);
    let left_ms = leased.expires_ms - place.clock.wall_ms();
    assert!(left_ms > 25_000, "of 30 s {left_ms} ms are left");
    shard.report(leased.ticket(), Outcome::Succeeded("".into())).await.expect("holds");
}

/// The log's thread runs by itself, so the clock runs too.
#[tokio::test]
async fn what_was_answered_is_in_the_local_log_when_the_machine_dies() {
    let mut split = Split::new();
    for life in 0..4u32 {
        let shard = split.open(false).await.expect("opens");
        for before in 0..life * 20 {
            let job = shard.show(&tenant(), &named(&before.to_string())).await;
            assert!(job.is_ok(), "job {before} is lost in life {life}");
        }
        for n in life * 20..(life + 1) * 20 {
            // Some are larger than a record of the log may be.
            let payload = vec![7; if n % 5 == 0 { 200_000 } else { 100 }].into();
            shard.enqueue(JobSpec { payload, ..spec(&n.to_string()) }).await.expect("takes it");
        }
        assert_eq!(shard.counts().active as u32, (life + 1) * 20);
        split.disk.kill();
        drop(shard);
        split.disk.crash(u64::from(life));
    }
}

#[tokio::test]
async fn a_database_misses_its_local_log_unless_it_was_closed() {
    let mut split = Split::new();
    let shard = split.open(false).await.expect("opens");
    shard.enqueue(spec("one")).await.expect("takes it");
    shard.close().await.expect("closes");
    // A clean stop leaves nothing in the log alone.
    split.disk = SimDisk::new();
    let shard = split.open(false).await.expect("opens");
    shard.show(&tenant(), &named("one")).await.expect("it is in the database");
    shard.enqueue(spec("two")).await.expect("takes it");
    split.disk.kill();
    drop(shard);
    split.disk = SimDisk::new();
    let refused = split.open(false).await.err().expect("its log is missing");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    let shard = split.open(true).await.expect("given up");
    shard.show(&tenant(), &named("one")).await.expect("it is in the database");
}

/// Each opening is durable in the database itself. Jobs that only a lost log had are enqueued
/// again, and none of the old is taken for the new.
#[tokio::test]
async fn a_lost_log_repeats_neither_places_nor_leases() {
    let mut split = Split::new();
    let shard = split.open(false).await.expect("opens");
    shard.enqueue(spec("kept")).await.expect("takes it");
    shard.close().await.expect("closes");
    let (mut names, mut tickets) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // Opened again with the log, so that this opening is known to the log alone, if it can be.
        for _ in 0..2 {
            let shard = split.open(true).await.expect("opens");
            split.disk.kill();
            drop(shard);
            split.disk.crash(1);
        }
        let shard = split.open(false).await.expect("opens");
        let leased = one(&shard).await;
        assert_eq!((leased.job.name(), leased.lease.attempt.0), (named("kept"), 1));
        for old in &tickets {
            let Ticket { lease, .. } = old;
            let lost = shard.heartbeat(*lease).expect_err("it is another's");
            assert_eq!(lost.kind(), ErrorKind::LeaseLost, "{lost}");
            let said = shard.report(old.clone(), Outcome::Succeeded("old".into())).await;
            assert_eq!(said.map_err(|error| error.kind()), Err(ErrorKind::LeaseLost));
        }
        shard.heartbeat(leased.lease).expect("it holds");
        tickets.push(leased.ticket());
        let new = shard.enqueue(JobSpec::default()).await.expect("takes it").job;
        assert!(!names.contains(&new), "{new} was given twice");
        names.push(new);
        split.disk.kill();
        drop(shard);
        split.disk = SimDisk::new();
    }
}

/// A merge of files leaves a SlateDB checkpoint behind for a quarter of an hour. Uploaded batches
/// leave the log nevertheless: a full one stops the shard. The rest begins somewhere within a
/// batch, and is read.
#[tokio::test]
async fn a_log_is_let_go_while_there_is_a_checkpoint() {
    const MORE: usize = 144;
    let mut split = Split::new();
    let shard = split.open(false).await.expect("opens");
    shard.enqueue(spec("first")).await.expect("takes it");
    let admin = Admin::builder("shard", split.place.store.clone()).build();
    admin.create_detached_checkpoint(&CheckpointOptions::default()).await.expect("there is one");
    let more = async {
        // An eighth more than the log takes.
        for n in 0..MORE {
            let payload = vec![0; 512 << 10].into();
            shard.enqueue(JobSpec { payload, ..spec(&n.to_string()) }).await.expect("takes it");
        }
    };
    tokio::time::timeout(Duration::from_secs(120), more).await.expect("there is room again");
    split.disk.kill();
    drop(shard);
    split.disk.crash(1);
    let shard = split.open(false).await.expect("opens");
    assert_eq!(shard.counts().active as usize, MORE + 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_sits_at_all_shards_with_the_same_credits() {
    let (one, two) = (Place::new(), Place::new());
    let broker = Broker::new(vec![one.open().await, two.open().await]);
    let worker = Worker::new("w").expect("a name");
    let tenants =
        ["red", "blue", "green", "grey", "pink"].map(|name| Tenant::new(name).expect("a name"));
    let of = |tenant: &Tenant| HashRange::number_of(TenantHash::of(tenant), 2);
    assert!(tenants.iter().any(|tenant| of(tenant) != of(&tenants[0])), "all in one shard");
    let mut work = broker.work(&Group::default(), &worker, Begins::WhenTold, 1).expect("sits down");
    for round in 0..3 {
        for tenant in &tenants {
            let spec = JobSpec { tenant: tenant.clone(), ..spec(&round.to_string()) };
            broker.shard_of(tenant).expect("open").enqueue(spec).await.expect("takes it");
        }
        for _ in &tenants {
            let WorkerMessage::Leased(ticket, _) = work.next().await.expect("there is work") else {
                panic!("a job comes")
            };
            let more = tokio::time::timeout(Duration::from_secs(1), work.next()).await;
            assert!(more.is_err(), "one credit, and two jobs");
            broker.report(ticket, Outcome::Succeeded("".into())).await.expect("holds");
            work.add_credits(1).expect("takes it");
        }
    }
    assert_eq!((broker.counts().active, broker.totals().succeeded), (0, 15));
}

/// A shard that is away is away for its own tenants alone. Waiting workers get jobs of other
/// shards, and of this one when it is back.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_away_keeps_no_other_from_working() {
    let (one, two) = (Place::new(), Place::new());
    let broker = Broker::opening(2);
    let worker = Worker::new("w").expect("a name");
    let of = |number: u32| {
        let names = (0..).map(|n| Tenant::new(&format!("t{n}")).expect("a name"));
        let mut here =
            names.filter(move |tenant| HashRange::number_of(TenantHash::of(tenant), 2) == number);
        here.next().expect("some tenant is there")
    };
    let enqueue = async |tenant: Tenant, id: &str| {
        let job = JobSpec { tenant: tenant.clone(), ..spec(id) };
        broker.shard_of(&tenant)?.enqueue(job).await
    };
    let nobody = broker
        .work(&Group::default(), &worker, Begins::WhenTold, 9)
        .err()
        .expect("nothing is open");
    assert_eq!(nobody.kind(), ErrorKind::Unavailable, "{nobody}");
    broker.set(0, Standing::Open(one.open_as(HashRange::part(0, 2)).await));
    broker.set(1, Standing::Failed("its disk is full".to_owned()));
    enqueue(of(0), "one").await.expect("its shard is open");
    let refused = enqueue(of(1), "two").await.expect_err("its shard is not");
    assert!(refused.message().contains("shard 1 of 2"), "{refused}");
    assert!(refused.message().contains("its disk is full"), "{refused}");
    let mut work =
        broker.work(&Group::default(), &worker, Begins::WhenTold, 9).expect("one is open");
    let WorkerMessage::Leased(ticket, _) = work.next().await.expect("there is work") else {
        panic!("a job comes first")
    };
    broker.report(ticket, Outcome::Succeeded("".into())).await.expect("holds");
    let more = enqueue(of(0), "more").await;
    broker.set(1, Standing::Open(two.open_as(HashRange::part(1, 2)).await));
    more.expect("takes it");
    assert!(
        matches!(work.next().await, Ok(WorkerMessage::Leased(..))),
        "what is there comes first"
    );
    let again = work.next().await.expect_err("it is to sit at the other, too");
    assert_eq!(again.kind(), ErrorKind::Unavailable, "{again}");
    drop(work);
    enqueue(of(1), "two").await.expect("its shard is open now");
    let mut work =
        broker.work(&Group::default(), &worker, Begins::WhenTold, 9).expect("both are open");
    assert!(matches!(work.next().await, Ok(WorkerMessage::Leased(..))), "it is given out");
}

#[tokio::test(start_paused = true)]
async fn a_page_fits_a_message() {
    use skerry_jobs::job::{Attempt, AttemptNo, Epoch};
    use skerry_jobs::name::Worker;
    let shard = Place::new().open().await;
    let attempt = |n: u32| Attempt {
        number: AttemptNo(n),
        epoch: Epoch(0),
        worker: Worker::new(&"w".repeat(128)).expect("a name"),
        started_ms: 1,
        ended: Some((2, Ending::Expired)),
    };
    let limits: Vec<_> = (0..8)
        .map(|n| Limit {
            key: LimitKey::new(&format!("{n:0>120}")).expect("a name"),
            kind: LimitKind::Concurrency { max: 1 },
        })
        .collect();
    for _ in 0..1000 {
        let imported = Imported {
            spec: JobSpec { limits: limits.clone(), ..JobSpec::default() },
            state: JobState::Succeeded,
            created_ms: 1,
            ended_ms: Some(2),
            attempts: (1..=64).map(attempt).collect(),
        };
        shard.import(imported).await.expect("takes it");
    }
    let page = list(&shard, |q| q.limit = 1000).await;
    let bytes: usize = page.jobs.iter().map(|job| job.encode().len()).sum();
    assert!(bytes < 4 << 20, "{} jobs, {bytes} bytes", page.jobs.len());
}

#[tokio::test(start_paused = true)]
async fn a_page_looks_at_so_many_rows() {
    let shard = Place::new().open().await;
    for _ in 0..15_000 {
        let imported = Imported {
            spec: JobSpec::default(),
            state: JobState::Succeeded,
            created_ms: 1,
            ended_ms: Some(2),
            attempts: Vec::new(),
        };
        shard.import(imported).await.expect("takes it");
    }
    let group = Group::new("other").expect("a name");
    let page = list(&shard, |q| q.group = Some(group.clone())).await;
    assert!(page.next.is_some(), "10,000 rows at most");
    tokio::time::sleep(Duration::from_secs(8 * 86_400)).await;
    let page = list(&shard, |q| q.group = Some(group.clone())).await;
    assert!(
        page.next.is_some(),
        "10,000 rows at most, also of those that are past their retention"
    );
}

#[tokio::test(start_paused = true)]
async fn two_definitions_ask_no_more_often_than_either() {
    let shard = Place::new().open().await;
    let groups = [Group::new("one").expect("a name"), Group::new("two").expect("a name")];
    let mut asked = 0;
    for n in 0..100 {
        let group = &groups[n % 2];
        let job = JobSpec { limits: under_api(group), ..spec(&n.to_string()) };
        shard.enqueue(job).await.expect("takes it");
        for got in lease_of(&shard, group, 1, Duration::ZERO).await {
            asked += 1;
            shard.report(got.ticket(), Outcome::Succeeded("1".into())).await.expect("holds");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(asked <= 4, "asked {asked} times within a second, and should be every ten");
}

#[tokio::test(start_paused = true)]
async fn the_newest_definition_of_a_floating_limit_says_how_often() {
    let shard = Place::new().open().await;
    let group = Group::new("one").expect("a name");
    let limits = |refresh_ms| {
        let kind = LimitKind::Floating { initial: 1, refresh_ms, group: group.clone() };
        vec![Limit { key: LimitKey::new("api").expect("a name"), kind }]
    };
    shard.enqueue(JobSpec { limits: limits(3_600_000), ..spec("a") }).await.expect("takes it");
    let got = lease_of(&shard, &group, 1, Duration::from_secs(1)).await.pop().expect("asked");
    shard.report(got.ticket(), Outcome::Succeeded("1".into())).await.expect("holds");
    shard.enqueue(JobSpec { limits: limits(1_000), ..spec("b") }).await.expect("takes it");
    assert_eq!(lease_of(&shard, &group, 1, Duration::from_secs(60)).await.len(), 1);
}

/// All jobs are given out, whatever the sizes and the order of calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_forgotten_whatever_the_sizes() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    let mut shards = Vec::new();
    let places: Vec<_> = (0..3).map(|_| Place::new()).collect();
    for (number, place) in (0..3).zip(&places) {
        shards.push(place.open_as(HashRange::part(number, 3)).await);
    }
    let broker = Broker::new(shards);
    let group = Group::default();
    let (jobs, workers) = (200, 4);
    let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut working = Vec::new();
    for w in 0..workers {
        let (broker, group, done) = (broker.clone(), group.clone(), done.clone());
        working.push(tokio::spawn(async move {
            let worker = Worker::new(&format!("w{w}")).expect("a name");
            let mut work = broker.work(&group, &worker, Begins::WhenTold, 7).expect("sits down");
            while done.load(std::sync::atomic::Ordering::SeqCst) < jobs {
                let Ok(heard) = tokio::time::timeout(Duration::from_secs(1), work.next()).await
                else {
                    continue;
                };
                if let WorkerMessage::Leased(ticket, _) = heard.expect("in service") {
                    broker.report(ticket, Outcome::Succeeded("".into())).await.expect("holds");
                    done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    work.add_credits(1).expect("more");
                }
            }
        }));
    }
    let mut rng = StdRng::seed_from_u64(7);
    for n in 0..jobs {
        let tenant = Tenant::new(&format!("t{}", n % 9)).expect("a name");
        let size = if rng.random_range(0..3) == 0 { 1 << 20 } else { rng.random_range(0..400_000) };
        let job =
            JobSpec { tenant: tenant.clone(), payload: vec![0; size].into(), ..JobSpec::default() };
        broker.shard_of(&tenant).expect("open").enqueue(job).await.expect("takes it");
    }
    for one in working {
        tokio::time::timeout(Duration::from_secs(60), one)
            .await
            .expect("it does not stall")
            .expect("ends");
    }
}

/// Any setting of SlateDB's can be set: one that lets rows go loses no row that must stay.
#[tokio::test(start_paused = true)]
async fn rows_that_do_not_expire_say_so() {
    let mut place = Place::new();
    place.settings.default_ttl_millis = Some(1000);
    let mut places = Vec::new();
    for _ in 0..2 {
        let shard = place.open().await;
        places.push(shard.enqueue(JobSpec::default()).await.expect("takes it").job);
        tokio::time::sleep(Duration::from_secs(5)).await;
        shard.close().await.expect("closes");
    }
    assert_ne!(places[0], places[1], "a place is given twice");
}

/// A job without an id ends during a call to restart it: it runs still, or has begun anew, and is
/// there.
#[tokio::test(start_paused = true)]
async fn a_job_that_just_ends_is_there() {
    use object_store::memory::InMemory;
    let mut place = Place::new();
    let faulty = Faulty::new(Arc::new(InMemory::new()), 1, FaultPlan::default());
    let faults = faulty.faults();
    place.store = Arc::new(faulty);
    let shard = place.open().await;
    let job = shard.enqueue(JobSpec::default()).await.expect("takes it").job;
    let leased = one(&shard).await;
    faults.set_plan(FaultPlan { slow: 1000, slow_ms: 10..11, ..FaultPlan::default() });
    let end = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        shard.report(leased.ticket(), Outcome::Succeeded("x".into())).await
    };
    let (other, whose) = (shard.enqueue(JobSpec::default()), tenant());
    let (_, changed, ended) = tokio::join!(other, shard.restart(&whose, &job), end);
    ended.expect("holds");
    shard.show(&tenant(), &job).await.expect("it is there");
    let refused = changed.err().map(|error| error.kind());
    assert_ne!(refused, Some(ErrorKind::NotFound));
}

/// Uploaded rows are read from the local cache: the store need not give them again.
#[tokio::test]
async fn a_local_cache_keeps_what_is_read() {
    const JOBS: usize = 20;
    const PAYLOAD_BYTES: usize = 1 << 18;
    for has_cache in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        // The close applies its log: everything is in the store then.
        let mut split = Split::new();
        let place = &mut split.place;
        let meter = Meter::new(place.store.clone(), place.clock.clone());
        let counters = meter.counters();
        place.store = Arc::new(meter);
        let cache = &mut place.settings.object_store_cache_options;
        cache.root_folder = has_cache.then(|| dir.path().to_owned());
        cache.cache_on_flush = true;
        let shard = split.open(false).await.expect("opens");
        let job = |n: usize| JobSpec {
            payload: vec![n as u8; PAYLOAD_BYTES].into(),
            ..spec(&n.to_string())
        };
        for n in 0..JOBS {
            shard.enqueue(job(n)).await.expect("takes it");
        }
        shard.close().await.expect("closes");
        // The first rounds merge its files.
        let mut read_bytes = 0;
        for _ in 0..6 {
            let before = counters.tally();
            let shard = split.open(false).await.expect("opens");
            for n in 0..JOBS {
                let found = shard.show(&tenant(), &named(&n.to_string())).await.expect("there");
                assert_eq!(found.spec.payload, job(n).payload);
            }
            shard.close().await.expect("closes");
            let read = counters.tally().since(&before);
            read_bytes = read.bytes(CallKind::Get) + read.bytes(CallKind::GetRange);
        }
        let is_read = read_bytes >= (JOBS * PAYLOAD_BYTES) as u64;
        assert_eq!(is_read, !has_cache, "{read_bytes} bytes, cache: {has_cache}");
    }
}

/// Once, three thousand jobs of one shard kept five of another waiting until the last was given
/// out. A worker that asks for one at a time never got them.
#[tokio::test(start_paused = true)]
async fn no_shards_jobs_wait_for_all_of_anothers() {
    let (one, two) = (Place::new(), Place::new());
    let broker = Broker::new(vec![one.open().await, two.open().await]);
    let worker = Worker::new("w").expect("a name");
    let names =
        ["red", "blue", "green", "grey", "pink"].map(|name| Tenant::new(name).expect("a name"));
    let of = |tenant: &Tenant| HashRange::number_of(TenantHash::of(tenant), 2);
    let first = of(&names[0]);
    let other = names.iter().find(|tenant| of(tenant) != first).expect("not all in one shard");
    for (busy, quiet) in [(&names[0], other), (other, &names[0])] {
        for (tenant, jobs) in [(busy, 300), (quiet, 10)] {
            for _ in 0..jobs {
                let spec = JobSpec { tenant: tenant.clone(), ..JobSpec::default() };
                broker.shard_of(tenant).expect("open").enqueue(spec).await.expect("takes it");
            }
        }
        let is_quiet = |leased: &Leased| leased.job.spec.tenant == *quiet;
        let mut quiet_ones = 0;
        for _ in 0..10 {
            let leased = broker.lease(&Group::default(), &worker, 1, Duration::ZERO).await;
            let [(_, leased)] = &leased.expect("answers")[..] else { panic!("there is work") };
            quiet_ones += usize::from(is_quiet(leased));
        }
        assert_eq!(quiet_ones, 5, "one by one, they take turns");
        let leased = broker.lease(&Group::default(), &worker, 20, Duration::ZERO).await;
        let leased = leased.expect("answers");
        assert_eq!(leased.len(), 20);
        let quiet_ones = leased.iter().filter(|(_, leased)| is_quiet(leased)).count();
        assert_eq!(quiet_ones, 5, "all that there are, among twenty");
        let rest = broker.lease(&Group::default(), &worker, 1000, Duration::ZERO).await;
        assert_eq!(rest.expect("answers").len(), 280, "nothing is left behind");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_over_is_told_by_its_jobs_name() {
    let place = Place::new();
    let shard = place.open().await;
    shard.enqueue(JobSpec { lease_ms: 1_000, ..spec("mail") }).await.expect("takes it");
    let first = one(&shard).await;
    let second = one(&shard).await;
    assert_ne!(first.lease, second.lease, "the first was silent");
    for when in ["another has it", "it has ended", "the shard was opened again"] {
        if when == "it has ended" {
            let outcome = Outcome::Succeeded("ok".into());
            shard.report(second.ticket(), outcome).await.expect("holds");
        }
        let shard = if when.contains("again") { place.open().await } else { shard.clone() };
        let broker = Broker::new(vec![shard]);
        let late = broker.report(first.ticket(), Outcome::Cancelled).await.expect_err("over");
        let beat = broker.heartbeat(&first.ticket()).expect_err("it is over");
        for error in [late, beat] {
            assert_eq!(error.kind(), ErrorKind::LeaseLost);
            let names = error.message().contains("attempt 1 of job mail of tenant default ");
            assert!(names, "{when}: {error}");
        }
    }
}

/// Once, a listing that silently began again went round for ever.
#[tokio::test(start_paused = true)]
async fn a_listing_goes_on_only_where_one_ended() {
    let shard = Place::new().open().await;
    let broker = Broker::new(vec![shard.clone(), Place::new().open().await]);
    for _ in 0..3 {
        shard.enqueue(JobSpec::default()).await.expect("takes it");
    }
    let query = Query {
        tenant: None,
        group: None,
        state: None,
        metadata: None,
        is_prefix: false,
        limit: 1,
    };
    let page = shard.list(&query, None).await.expect("lists");
    let of_all = broker.list(&query, None).await.expect("lists").next.expect("there is more");
    let next = page.next.expect("there is more");
    shard.list(&query, Some(&next)).await.expect("goes on");
    broker.list(&query, Some(&of_all)).await.expect("goes on");
    let other = Query { state: Some(JobState::Failed), ..query.clone() };
    for (query, bad) in [
        (&query, Cursor("garbage".into())),
        (&query, Cursor(vec![0; 4].into())),
        (&other, next),
        (&other, of_all),
    ] {
        let one = shard.list(query, Some(&bad)).await.expect_err("it is refused");
        let all = broker.list(query, Some(&bad)).await.expect_err("it is refused");
        assert_eq!((one.kind(), all.kind()), (ErrorKind::Invalid, ErrorKind::Invalid));
    }
}

#[tokio::test(start_paused = true)]
async fn many_jobs_are_awaited_by_few_bytes_and_no_call_that_ended_is_remembered() {
    let shard = Place::new().open().await;
    let names: Vec<JobRef> = (0..30).map(|n| named(&format!("job{n}"))).collect();
    for (n, name) in names.iter().enumerate().skip(1) {
        let spec = JobSpec { payload: vec![7; 1 << 20].into(), ..spec(&name.to_string()) };
        shard.enqueue(spec).await.expect("takes it");
        if n % 2 == 0 {
            shard.cancel(&tenant(), name).await.expect("it waits");
        }
    }
    let mut awaited = shard.await_ends(&tenant(), names.clone()).expect("waits");
    let (number, missing) = awaited.next().await.expect("one is not there");
    assert_eq!((number, missing.expect_err("no job").kind()), (0, ErrorKind::NotFound));
    let mut seen = vec![0];
    for _ in 0..14 {
        let (number, ended) = awaited.next().await.expect("it has ended");
        assert_eq!(ended.expect("there").name(), names[number]);
        seen.push(number);
    }
    let mut leased = lease(&shard, 5, Duration::ZERO).await;
    while !leased.is_empty() {
        for leased in leased {
            shard
                .report(leased.ticket(), Outcome::Succeeded(vec![1; 1 << 20].into()))
                .await
                .expect("holds");
        }
        leased = lease(&shard, 5, Duration::ZERO).await;
    }
    while let Some((number, ended)) = awaited.next().await {
        assert_eq!(ended.expect("there").result().map(|result| result.len()), Some(1 << 20));
        seen.push(number);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<_>>(), "each once");
    drop(awaited);
    shard.enqueue(spec("last")).await.expect("takes it");
    // Long names count in bytes: half of the memory does not do for as many jobs as without names.
    let longest = named(&"x".repeat(128));
    let waits = |job: JobRef, count| shard.await_ends(&tenant(), vec![job; count]);
    let most = AWAITED_BYTES_MAX / (192 + 128);
    let mut both = vec![
        waits(longest.clone(), most / 2).expect("waits"),
        waits(longest.clone(), most / 2).expect("waits"),
    ];
    let many = waits(longest, 2).err().expect("too many");
    assert_eq!(many.kind(), ErrorKind::Unavailable);
    both.pop();
    shard.await_ends(&tenant(), vec![named("last")]).expect("there is room again");
}

/// Once, a stopped worker with an open connection got job after job, and each became a dead letter.
#[tokio::test(start_paused = true)]
async fn a_frozen_worker_makes_no_dead_letters_and_gets_no_more_jobs() {
    let shard = Place::new().open().await;
    let broker = Broker::new(vec![shard.clone()]);
    let (frozen, other) = ["frozen", "other"].map(|name| Worker::new(name).expect("a name")).into();
    for n in 0..10 {
        let spec = JobSpec { retry: RetryPolicy::NEVER, lease_ms: 1_000, ..spec(&n.to_string()) };
        shard.enqueue(spec).await.expect("takes it");
    }
    let mut work = broker.work(&Group::default(), &frozen, Begins::WithBeat, 6).expect("sits down");
    let WorkerMessage::Leased(begun, _) = work.next().await.expect("there is work") else {
        panic!("a job comes first")
    };
    broker.heartbeat(&begun).expect("it begins");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(shard.totals().leased, 6, "it gets no more until it says something");
    let leased =
        broker.lease(&Group::default(), &other, 20, Duration::ZERO).await.expect("answers");
    assert_eq!(leased.len(), 9, "all but the one that it had begun");
    assert!(leased.iter().all(|(_, leased)| leased.job.uncounted + 1 == leased.lease.attempt.0));
    let failed = list(&shard, |query| query.state = Some(JobState::Failed)).await;
    assert_eq!(failed.jobs.len(), 1, "what was begun has failed");
    shard.enqueue(spec("more")).await.expect("takes it");
    // The worker goes on, and receives five jobs that are no longer its own.
    for _ in 0..5 {
        let WorkerMessage::Leased(late, _) = work.next().await.expect("it was told") else {
            panic!("a job")
        };
        work.note_heard().expect("sits down");
        let lost = broker.heartbeat(&late).expect_err("others have it");
        assert_eq!(lost.kind(), ErrorKind::LeaseLost);
        work.add_credits(1).expect("takes it");
    }
    let WorkerMessage::Leased(_, leased) = work.next().await.expect("it gets jobs again") else {
        panic!("a job")
    };
    assert_eq!(leased.job.name(), named("more"));
}

/// A worker that does not tell when it begins may have begun; so may one that went.
#[tokio::test(start_paused = true)]
async fn what_may_have_begun_is_a_failed_attempt() {
    let shard = Place::new().open().await;
    let broker = Broker::new(vec![shard.clone()]);
    let worker = Worker::new("w").expect("a name");
    for (id, begins) in [("silent", Begins::WhenTold), ("gone", Begins::WithBeat)] {
        let spec = JobSpec { retry: RetryPolicy::NEVER, ..spec(id) };
        shard.enqueue(spec).await.expect("takes it");
        let mut work = broker.work(&Group::default(), &worker, begins, 1).expect("sits down");
        let heard = work.next().await.expect("there is work");
        assert!(matches!(heard, WorkerMessage::Leased(..)));
        if id == "gone" {
            drop(work);
        }
        let ended = shard.await_end(&tenant(), &named(id)).await.expect("there");
        assert_eq!((ended.state, ended.attempts.len()), (JobState::Failed, 1), "{id}");
    }
}

/// A clock that is set by hand.
struct ByHand {
    since: Instant,
    ahead_ms: AtomicU64,
}

impl Clock for ByHand {
    fn boot(&self) -> Duration {
        self.since.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let passed_ms = self.since.elapsed().as_millis() as u64;
        1_700_000_000_000 + self.ahead_ms.load(Ordering::Relaxed) + passed_ms
    }
}

/// Once, a clock that was set a day forward ended every lease, and every job was done twice.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_ends_no_lease() {
    const DAY_MS: u64 = 86_400_000;
    let place = Place::new();
    let clock = Arc::new(ByHand { since: Instant::now(), ahead_ms: AtomicU64::new(0) });
    let parts = place.parts(HashRange::ALL, false).await.expect("opens");
    let shard = Shard::open(ShardParts { clock: clock.clone(), ..parts }).await.expect("opens");
    shard.enqueue(JobSpec { lease_ms: 10_000, ..spec("held") }).await.expect("takes it");
    let held = one(&shard).await;
    let later = clock.wall_ms() + DAY_MS / 2;
    shard.enqueue(JobSpec { start_at_ms: later, ..spec("due") }).await.expect("takes it");
    clock.ahead_ms.store(DAY_MS, Ordering::Relaxed);
    assert_eq!(one(&shard).await.job.name(), named("due"), "it is due by the new time");
    tokio::time::sleep(Duration::from_secs(9)).await;
    shard.heartbeat(held.lease).expect("it holds");
    tokio::time::sleep(Duration::from_secs(9)).await;
    shard.report(held.ticket(), Outcome::Succeeded("ok".into())).await.expect("it holds");
}

/// Once, an attempt never ended whose worker sent heartbeats for ever.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_over_whatever_its_worker_says() {
    let place = Place::new();
    let shard = place.open().await;
    let broker = Broker::new(vec![shard.clone()]);
    let worker = Worker::new("w").expect("a name");
    let retry = RetryPolicy::NEVER;
    let spec = JobSpec { max_run_ms: 10_000, lease_ms: 3_000, retry, ..spec("mail") };
    shard.enqueue(spec).await.expect("takes it");
    let mut work = broker.work(&Group::default(), &worker, Begins::WithBeat, 1).expect("sits down");
    let WorkerMessage::Leased(ticket, _) = work.next().await.expect("there is work") else {
        panic!("a job comes first")
    };
    for _ in 0..9 {
        broker.heartbeat(&ticket).expect("it holds");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The time counts on when the shard is opened again.
    drop((work, broker, shard));
    let shard = place.open().await;
    let broker = Broker::new(vec![shard.clone()]);
    broker.heartbeat(&ticket).expect("it holds");
    let ended = shard.await_end(&tenant(), &named("mail")).await.expect("there");
    assert_eq!(ended.state, JobState::Failed);
    let Some((ended_ms, Ending::TooLong)) = ended.attempts[0].ended else { panic!("{ended:?}") };
    let ran_ms = ended_ms - ended.attempts[0].started_ms;
    assert!((10_000..10_100).contains(&ran_ms), "{ran_ms}");
    assert_eq!(broker.heartbeat(&ticket).expect_err("over").kind(), ErrorKind::LeaseLost);
    // The worker is told to stop, and gets other jobs.
    let other = JobSpec { max_run_ms: 1_000, retry, ..crate::common::spec("other") };
    shard.enqueue(other).await.expect("takes it");
    let mut work = broker.work(&Group::default(), &worker, Begins::WhenTold, 2).expect("sits down");
    let WorkerMessage::Leased(ticket, _) = work.next().await.expect("there is work") else {
        panic!("a job comes first")
    };
    let told = work.next().await.expect("hears of it");
    assert!(matches!(told, WorkerMessage::Cancel(ref stop) if *stop == ticket), "{told:?}");
    shard.enqueue(crate::common::spec("next")).await.expect("takes it");
    assert!(matches!(work.next().await.expect("there is work"), WorkerMessage::Leased(..)));
}

#[tokio::test(start_paused = true)]
async fn a_job_says_what_it_waits_for() {
    let place = Place::new();
    let shard = place.open().await;
    let key = |name: &str| LimitKey::new(name).expect("a name");
    let limited = |id: &str, name: &str, kind| JobSpec {
        limits: vec![Limit { key: key(name), kind }],
        ..spec(id)
    };
    let later = place.clock.wall_ms() + 60_000;
    let api = LimitKind::Concurrency { max: 1 };
    let mail = LimitKind::Rate { count: 1, per_ms: 60_000, burst: 1 };
    let group = Group::new("other").expect("a name");
    for job in [
        limited("runs", "api", api.clone()),
        limited("sent", "mail", mail.clone()),
        limited("behind", "api", api),
        limited("often", "mail", mail),
        JobSpec { start_at_ms: later, ..spec("later") },
        JobSpec { group: group.clone(), ..spec("paused") },
    ] {
        shard.enqueue(job).await.expect("takes it");
    }
    shard.pause(&group).await.expect("pauses");
    assert_eq!(lease(&shard, 2, Duration::ZERO).await.len(), 2);
    shard.enqueue(spec("ready")).await.expect("takes it");
    let now_ms = place.clock.wall_ms();
    let why = |id: &str| shard.why(&tenant(), &named(id));
    assert_eq!(why("runs"), None);
    assert_eq!(why("behind"), Some(Why::Limit { key: key("api"), running: 1, max: 1 }));
    let Some(Why::Rate { key: rate, at_ms }) = why("often") else { panic!("{:?}", why("often")) };
    assert!(rate == key("mail") && at_ms > now_ms && at_ms <= now_ms + 60_000, "{at_ms}");
    assert_eq!(why("later"), Some(Why::Time(later)));
    assert_eq!(why("paused"), Some(Why::Paused));
    assert_eq!(why("ready"), Some(Why::Turn));
    assert_eq!(why("never"), None);
}

/// Once, a resumed task group gave out all ready jobs in one go, and the shard answered nothing
/// else meanwhile.
#[tokio::test(start_paused = true)]
async fn what_is_ready_at_once_is_given_out_in_parts() {
    const JOBS: u32 = 3_000;
    let shard = Place::new().open().await;
    let group = Group::default();
    shard.pause(&group).await.expect("pauses");
    let jobs = (0..JOBS).map(|n| shard.enqueue(spec(&n.to_string())));
    join_all(jobs).await.into_iter().for_each(|done| {
        done.expect("takes it");
    });
    let broker = Broker::new(vec![shard.clone()]);
    let worker = Worker::new("w").expect("a name");
    let mut work = broker.work(&group, &worker, Begins::WhenTold, JOBS).expect("sits down");
    let mut resumed = std::pin::pin!(shard.resume(&group));
    assert!(futures::poll!(resumed.as_mut()).is_pending());
    let leased = shard.totals().leased;
    assert!((1..=1024).contains(&leased), "{leased} in one go");
    resumed.await.expect("resumes");
    for _ in 0..JOBS {
        let heard = tokio::time::timeout(Duration::from_secs(1), work.next()).await;
        assert!(matches!(heard.expect("the rest follows"), Ok(WorkerMessage::Leased(..))));
    }
    drop(work);
    shard.pause(&group).await.expect("pauses");
    let mut work = broker.work(&group, &worker, Begins::WhenTold, JOBS).expect("sits down");
    shard.resume(&group).await.expect("resumes");
    assert!(matches!(work.next().await, Ok(WorkerMessage::Leased(..))));
}

/// Once, results of earlier attempts were on their way to workers, uncounted, though workers get
/// none of them.
#[tokio::test(start_paused = true)]
async fn a_worker_is_given_a_job_without_its_history() {
    let shard = Place::new().open().await;
    shard.enqueue(spec("job")).await.expect("takes it");
    let large = Outcome::Succeeded(vec![0; 1 << 20].into());
    shard.report(one(&shard).await.ticket(), large).await.expect("holds");
    shard.restart(&tenant(), &named("job")).await.expect("it has ended");
    let again = one(&shard).await;
    assert_eq!((again.lease.attempt.0, again.job.attempts.len()), (2, 1));
    let done = Outcome::Succeeded("".into());
    shard.report(again.ticket(), done).await.expect("holds");
    let job = shard.show(&tenant(), &named("job")).await.expect("there");
    assert_eq!(job.attempts.len(), 2, "it is kept");
}

/// Once, a call that named a job again and again waited for it as often, and each cost a step for
/// each when it went.
#[tokio::test(start_paused = true)]
async fn a_job_that_is_named_twice_is_told_twice() {
    let shard = Place::new().open().await;
    shard.enqueue(spec("job")).await.expect("takes it");
    let mut awaited = shard.await_ends(&tenant(), vec![named("job"); 3]).expect("waits");
    let other = shard.await_ends(&tenant(), vec![named("job"); 3]).expect("waits");
    assert!(futures::poll!(std::pin::pin!(awaited.next())).is_pending());
    drop(other);
    let done = Outcome::Succeeded("".into());
    shard.report(one(&shard).await.ticket(), done).await.expect("holds");
    let mut told = Vec::new();
    while let Some((number, ended)) = awaited.next().await {
        assert_eq!(ended.expect("there").name(), named("job"));
        told.push(number);
    }
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2]);
}

/// Once, a store that said for seconds that all objects are missing made callers believe that their
/// jobs are damaged.
#[tokio::test(start_paused = true)]
async fn what_ails_the_database_is_told_to_who_opens_it_and_callers_ask_again() {
    for (is_damaged, kind) in [(false, ErrorKind::Unavailable), (true, ErrorKind::Corrupt)] {
        let place = Place { apply_log: true, ..Place::new() };
        let shard = place.open().await;
        shard.enqueue(spec("one")).await.expect("takes it");
        shard.close().await.expect("closes");
        let shard = place.open().await;
        spoil(&place, is_damaged).await;
        let worker = Worker::new("w").expect("a name");
        let (broker, group) = (Broker::new(vec![shard.clone()]), Group::default());
        let leased = broker.lease(&group, &worker, 1, Duration::from_secs(9));
        let (leased, why) = tokio::join!(leased, shard.out_of_service());
        assert_eq!(why.kind(), kind, "{why}");
        assert_eq!(leased.map(|_| ()).map_err(|error| error.kind()), Err(kind));
        // The call did not look at the damaged rows, and the shard may have its job.
        let told = shard.enqueue(spec("two")).await.expect_err("it is out of service");
        assert_eq!((told.kind(), told.message()), (ErrorKind::Unavailable, why.message()));
        let told = shard.show(&tenant(), &named("one")).await.expect_err("it is out of service");
        assert_eq!(told.kind(), ErrorKind::Unavailable, "{told}");
    }
}

/// The database's files are damaged, or the store says that they are missing.
async fn spoil(place: &Place, is_damaged: bool) {
    let there: Vec<_> = place.store.list(None).collect().await;
    for found in there.into_iter().map(|found| found.expect("listed")) {
        match &found.location {
            path if !path.as_ref().contains("compacted") => {}
            path if is_damaged => {
                let bytes = vec![7; found.size as usize];
                place.store.put(path, bytes.into()).await.expect("written");
            }
            path => place.store.delete(path).await.expect("deleted"),
        }
    }
}

/// Once, a shard that failed each minute read gigabytes each minute.
#[tokio::test(start_paused = true)]
async fn only_some_of_what_has_ended_is_read_as_soon_as_a_shard_is_open() {
    const JOBS: usize = 120;
    let mut place = Place::new();
    place.apply_log = true;
    let shard = place.open().await;
    let mut noise = StdRng::seed_from_u64(1);
    for n in 0..JOBS {
        shard.enqueue(spec(&n.to_string())).await.expect("takes it");
        let mut result = vec![0; 1 << 20];
        noise.fill_bytes(&mut result);
        let outcome = Outcome::Succeeded(result.into());
        shard.report(one(&shard).await.ticket(), outcome).await.expect("holds");
    }
    shard.close().await.expect("closes");
    let meter = Meter::new(place.store.clone(), place.clock.clone());
    let counters = meter.counters();
    place.store = Arc::new(meter);
    let shard = place.open().await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    let soon = counters.tally().bytes(CallKind::GetRange);
    assert!((60 << 20..100 << 20).contains(&soon), "{soon} bytes at once");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let later = counters.tally().bytes(CallKind::GetRange);
    assert!(later >= (JOBS as u64) << 20, "{later} bytes in all");
    shard.close().await.expect("closes");
}
