//! Rates over restarts: tokens taken before are not forgotten, and waiting jobs are let through in
//! their time.

use crate::common::{Paused, Place, lease, spec, tenant};
use skerry_core::env::Clock;
use skerry_jobs::keys;
use skerry_jobs::limit::{Limit, LimitKind};
use skerry_jobs::name::LimitKey;
use skerry_jobs::shard::{Outcome, Shard};
use skerry_jobs::spec::JobSpec;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const DAY_MS: u32 = 86_400_000;

/// A job under a rate of one a day.
fn daily(id: &str, burst: u32) -> JobSpec {
    let kind = LimitKind::Rate { count: 1, per_ms: DAY_MS, burst };
    let limit = Limit { key: LimitKey::new("daily").expect("a name"), kind };
    JobSpec { limits: vec![limit], ..spec(id) }
}

/// Does the next job, if there is one within this time.
async fn do_one(shard: &Shard, patience: Duration) -> bool {
    let Some(leased) = lease(shard, 1, patience).await.pop() else { return false };
    let done = Outcome::Succeeded("".into());
    shard.report(leased.ticket(), done).await.expect("the lease holds");
    true
}

/// Number of rates in a database that no shard has open.
async fn remembered(place: &Place) -> usize {
    let db = place.database().await;
    let mut rows = db.scan_prefix([keys::RATE], ..).await.expect("reads");
    let mut count = 0;
    while rows.next().await.expect("reads").is_some() {
        count += 1;
    }
    db.close().await.expect("closes");
    count
}

/// Once, the bucket was empty at each start: a rate of one a day let nothing through if the broker
/// was restarted every day.
#[tokio::test(start_paused = true)]
async fn a_rate_of_one_a_day_runs_once_a_day_whatever_restarts_there_are() {
    const DAYS: u32 = 5;
    let place = Place::new();
    let shard = place.open().await;
    for n in 0..10 {
        shard.enqueue(daily(&n.to_string(), 1)).await.expect("takes it");
    }
    let mut begun = Vec::new();
    while place.clock.boot() < DAYS * DAY {
        // The shard crashes.
        let shard = place.open().await;
        if do_one(&shard, 7 * HOUR).await {
            begun.push(place.clock.boot());
        }
    }
    assert!(begun.len() >= DAYS as usize, "{begun:?}");
    for two in begun.windows(2) {
        assert!(two[1] - two[0] >= DAY, "{begun:?}");
    }
}

/// A burst is given once, and not once for each start.
#[tokio::test(start_paused = true)]
async fn a_burst_is_not_given_again_after_a_crash() {
    let place = Place::new();
    let shard = place.open().await;
    for n in 0..10 {
        shard.enqueue(daily(&n.to_string(), 3)).await.expect("takes it");
    }
    assert_eq!(lease(&shard, 2, Duration::ZERO).await.len(), 2);
    drop(shard);
    let shard = place.open().await;
    assert_eq!(lease(&shard, 10, Duration::ZERO).await.len(), 1, "the third of the burst");
    drop(shard);
    let shard = place.open().await;
    assert_eq!(lease(&shard, 10, HOUR).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_remembered_until_its_bucket_is_full() {
    let place = Place::new();
    let shard = place.open().await;
    shard.enqueue(daily("first", 1)).await.expect("takes it");
    assert!(do_one(&shard, HOUR).await);
    shard.close().await.expect("closes");
    assert_eq!(remembered(&place).await, 1, "no job is under it, and it is not full");
    let shard = place.open().await;
    shard.enqueue(daily("second", 1)).await.expect("takes it");
    assert!(!do_one(&shard, HOUR).await, "no day has passed");
    assert!(do_one(&shard, DAY).await, "a day has passed");
    // The bucket is full while the broker runs: the next write deletes the row.
    tokio::time::sleep(DAY + HOUR).await;
    shard.enqueue(spec("without")).await.expect("takes it");
    shard.close().await.expect("closes");
    assert_eq!(remembered(&place).await, 0);
    let shard = place.open().await;
    assert!(do_one(&shard, HOUR).await, "it is under no limit");
    shard.enqueue(daily("third", 1)).await.expect("takes it");
    assert!(do_one(&shard, HOUR).await);
    shard.close().await.expect("closes");
    // And while the broker is stopped.
    tokio::time::sleep(DAY + HOUR).await;
    let shard = place.open().await;
    shard.enqueue(spec("without any")).await.expect("takes it");
    shard.close().await.expect("closes");
    assert_eq!(remembered(&place).await, 0);
}

/// The clock was ten days ahead when the token was taken.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_jams_no_rate() {
    let mut place = Place::new();
    tokio::time::sleep(10 * DAY).await;
    let shard = place.open().await;
    for id in ["first", "second"] {
        shard.enqueue(daily(id, 1)).await.expect("takes it");
    }
    assert!(do_one(&shard, HOUR).await);
    shard.close().await.expect("closes");
    place.clock = Arc::new(Paused(Instant::now()));
    let shard = place.open().await;
    assert!(!do_one(&shard, HOUR).await, "the bucket is empty");
    assert!(do_one(&shard, DAY).await, "it has filled");
}

/// Puts a row under the rate's key.
async fn put_rate(place: &Place, row: &[u8]) {
    let db = place.database().await;
    let key = keys::rate(&tenant(), &LimitKey::new("daily").expect("a name"));
    db.put(key, row).await.expect("writes");
    db.close().await.expect("closes");
}

/// Once, one bad row of a rate kept its shard closed, though the shard can do without it.
#[tokio::test(start_paused = true)]
async fn a_rate_that_is_damaged_is_dropped_and_a_newer_one_is_not() {
    let place = Place::new();
    let shard = place.open().await;
    shard.enqueue(daily("first", 1)).await.expect("takes it");
    shard.close().await.expect("closes");
    put_rate(&place, &[1; 28]).await;
    let shard = place.open().await;
    assert!(do_one(&shard, HOUR).await, "its bucket counts as full");
    shard.close().await.expect("closes");
    let mut newer = vec![0; 40];
    newer[0] = 2;
    let sum = crc32c::crc32c(&newer);
    newer.extend(sum.to_le_bytes());
    put_rate(&place, &newer).await;
    let error = place.try_open(false).await.err().expect("it is of a newer Skerry");
    assert!(error.message().contains("newer"), "{error}");
}
