//! The cost of jobs: calls to the object store, and bytes that go there.

use crate::common::{Load, Place, Split, lease_of, spec};
use futures::future::join_all;
use object_store::memory::InMemory;
use skerry_jobs::name::Group;
use skerry_jobs::spec::JobSpec;
use skerry_store::objects::meter::{CallKind, Counters, Meter, Tally};
use std::sync::Arc;
use std::time::Duration;

const JOBS: usize = 1_000;
const TOGETHER: usize = 100;
const PAYLOAD_BYTES: usize = 1_000;
const LOAD: Load =
    Load { rounds: JOBS / TOGETHER, together: TOGETHER, payload_bytes: PAYLOAD_BYTES };
const HOUR: Duration = Duration::from_secs(3600);

/// Makes the place's store count its calls.
fn metered(place: &mut Place) -> Arc<Counters> {
    let meter = Meter::new(Arc::new(InMemory::new()), place.clock.clone());
    let counters = meter.counters();
    place.store = Arc::new(meter);
    counters
}

fn writes(tally: &Tally) -> u64 {
    tally.calls(CallKind::Put) + tally.calls(CallKind::Delete)
}

/// With the log in the object store, jobs that are answered together cost one PUT, and nothing is
/// read back.
#[tokio::test(start_paused = true)]
async fn what_is_answered_together_costs_one_call() {
    let mut place = Place::new();
    let counters = metered(&mut place);
    let shard = place.open().await;
    let begun = counters.tally();
    LOAD.enqueue(&shard).await;
    let enqueued = counters.tally().since(&begun);
    // The first of a round may go by itself.
    let most = 2 * (JOBS / TOGETHER) as u64;
    assert_eq!(enqueued.calls(CallKind::Put), enqueued.calls_in_all(), "{enqueued:?}");
    assert!(enqueued.calls_in_all() <= most, "{enqueued:?}");
    LOAD.work(&shard).await;
    let worked = counters.tally().since(&begun).since(&enqueued);
    // The leases of a round, and its outcomes.
    assert_eq!(worked.calls_in_all(), most, "{worked:?}");
}

/// With the log on a local disk, jobs cost no call until there is enough of them for an upload. A
/// job that is done by then costs one record.
#[tokio::test]
async fn a_job_that_is_done_between_two_uploads_costs_one_record() {
    let mut split = Split::new();
    let counters = metered(&mut split.place);
    let shard = split.open(false).await.expect("opens");
    let begun = counters.tally();
    LOAD.enqueue(&shard).await;
    LOAD.work(&shard).await;
    let used = counters.tally().since(&begun);
    assert_eq!(writes(&used), 0, "{used:?}");
    shard.close().await.expect("closes");
    let used = counters.tally().since(&begun);
    // A record is the payload, the job's other fields, and its id again for the index. Twice the
    // payload would be two records.
    let most = JOBS * (PAYLOAD_BYTES + 400);
    let put = used.bytes(CallKind::Put) as usize;
    assert!((JOBS * PAYLOAD_BYTES..most).contains(&put), "{put} bytes: {used:?}");
    assert!(writes(&used) < 20, "{used:?}");
}

/// A log that fills is uploaded when a quarter of it has come, and not batch by batch while uploads
/// are behind.
#[tokio::test]
async fn a_log_that_is_filled_is_uploaded_in_large_pieces() {
    const LARGE_BYTES: usize = 512 << 10;
    const LARGE: usize = 80;
    const SMALL: usize = 300;
    let mut split = Split::new();
    let counters = metered(&mut split.place);
    let shard = split.open(false).await.expect("opens");
    let begun = counters.tally();
    for n in 0..LARGE {
        let payload = vec![0; LARGE_BYTES].into();
        let large = JobSpec { payload, ..spec(&format!("large-{n}")) };
        shard.enqueue(large).await.expect("takes it");
    }
    for n in 0..SMALL {
        shard.enqueue(spec(&format!("small-{n}"))).await.expect("takes it");
    }
    shard.close().await.expect("closes");
    let used = counters.tally().since(&begun);
    // Of 64 MiB, 40 were written: two quarters, and the rest at the end.
    assert!((1..20).contains(&writes(&used)), "{used:?}");
}

/// Jobs that were left behind are read without the many ended jobs after them.
#[tokio::test]
async fn what_was_left_behind_is_read_alone() {
    const ROUNDS: usize = 15;
    let mut split = Split::new();
    let counters = metered(&mut split.place);
    let shard = split.open(false).await.expect("opens");
    let group = Group::new("left").expect("a name");
    let left = (0..10)
        .map(|n| shard.enqueue(JobSpec { group: group.clone(), ..spec(&format!("left-{n}")) }));
    join_all(left).await.into_iter().for_each(|done| {
        done.expect("takes it");
    });
    for round in 0..ROUNDS {
        let jobs = (0..JOBS).map(|n| shard.enqueue(spec(&format!("{round}-{n}"))));
        join_all(jobs).await.into_iter().for_each(|done| {
            done.expect("takes it");
        });
        LOAD.work(&shard).await;
    }
    shard.close().await.expect("closes");
    let shard = split.open(false).await.expect("opens");
    let begun = counters.tally();
    assert_eq!(lease_of(&shard, &group, 10, Duration::ZERO).await.len(), 10);
    let used = counters.tally().since(&begun);
    // Each ended job leaves a row of 20 bytes that tells of its deletion.
    assert!(used.bytes(CallKind::Get) < (ROUNDS * JOBS * 20 / 2) as u64, "{used:?}");
}

/// A shard without calls looks for compactions and for other writers twice a minute; a write wakes
/// it.
#[tokio::test(start_paused = true)]
async fn an_idle_shard_looks_seldom_at_its_store() {
    let mut place = Place::new();
    let counters = metered(&mut place);
    let shard = place.open().await;
    LOAD.enqueue(&shard).await;
    LOAD.work(&shard).await;
    tokio::time::sleep(HOUR).await;
    let begun = counters.tally();
    tokio::time::sleep(HOUR).await;
    let idle = counters.tally().since(&begun);
    assert_eq!(writes(&idle), 0, "{idle:?}");
    assert!(idle.calls(CallKind::Get) <= 1_200 && idle.calls(CallKind::List) <= 30, "{idle:?}");
    let begun = counters.tally();
    for minute in 0..60 {
        for second in [0, 10, 20, 30, 40, 50] {
            shard.enqueue(spec(&format!("{minute}:{second}"))).await.expect("takes it");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }
    let used = counters.tally().since(&begun);
    assert!(used.calls(CallKind::Get) > 2 * idle.calls(CallKind::Get), "{used:?} after {idle:?}");
}
