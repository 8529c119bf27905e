//! Deleted and expired rows give their bytes back, also in a shard without writes; other rows stay.

use crate::common::{Load, Place, named, spec, tenant};
use object_store::memory::InMemory;
use skerry_jobs::shard::Shard;
use skerry_store::objects::meter::{CallKind, Meter};
use slatedb::admin::Admin;
use std::sync::Arc;
use std::time::Duration;

const LOAD: Load = Load { rounds: 8, together: 32, payload_bytes: 64 << 10 };
/// Bytes of all payloads.
const ALL_BYTES: u64 = (LOAD.rounds * LOAD.together * LOAD.payload_bytes) as u64;
/// Bytes that are left when everything is gone: files with next to nothing in them.
const LEFT_BYTES: u64 = ALL_BYTES / 8;

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn place() -> Place {
    let mut place = Place::new();
    place.settings.l0_sst_size_bytes = 1 << 20;
    place
}

/// Bytes of the database's files.
async fn bytes(place: &Place) -> u64 {
    let admin = Admin::builder(place.path.clone(), place.store.clone()).build();
    let manifest = admin.read_manifest(None).await.expect("reads").expect("there is one");
    manifest.all_sst_views().map(|file| file.estimate_size()).sum()
}

async fn delete_all(shard: &Shard) {
    for round in 0..LOAD.rounds {
        for n in 0..LOAD.together {
            shard.delete(&tenant(), &named(&format!("{round}-{n}"))).await.expect("it has ended");
        }
    }
}

/// Once, a shard that had finished its jobs kept all of their bytes for ever.
#[tokio::test(start_paused = true)]
async fn jobs_that_ended_give_their_bytes_back_when_their_time_is_over() {
    let place = place();
    let shard = place.open().await;
    LOAD.enqueue(&shard).await;
    LOAD.work(&shard).await;
    tokio::time::sleep(2 * HOUR).await;
    let kept = bytes(&place).await;
    // Each payload was written twice: the rows of waiting jobs are gone.
    assert!((ALL_BYTES / 2..ALL_BYTES + LEFT_BYTES).contains(&kept), "{kept} bytes are kept");
    tokio::time::sleep(WEEK).await;
    let left = bytes(&place).await;
    assert!(left < LEFT_BYTES, "{left} bytes of {ALL_BYTES} are left");
    shard.enqueue(spec("more")).await.expect("takes it");
    shard.close().await.expect("closes");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_are_deleted_give_their_bytes_back() {
    let place = place();
    let shard = place.open().await;
    LOAD.enqueue(&shard).await;
    LOAD.work(&shard).await;
    delete_all(&shard).await;
    tokio::time::sleep(2 * HOUR).await;
    let left = bytes(&place).await;
    assert!(left < LEFT_BYTES, "{left} bytes of {ALL_BYTES} are left");
    shard.close().await.expect("closes");
}

/// Once, a job now and then kept deleted rows from ever being merged.
#[tokio::test(start_paused = true)]
async fn jobs_that_are_deleted_give_their_bytes_back_while_others_come_now_and_then() {
    let place = place();
    let shard = place.open().await;
    LOAD.enqueue(&shard).await;
    LOAD.work(&shard).await;
    delete_all(&shard).await;
    for n in 0..40 {
        shard.enqueue(spec(&format!("now-{n}"))).await.expect("takes it");
        tokio::time::sleep(Duration::from_secs(240)).await;
    }
    let left = bytes(&place).await;
    assert!(left < LEFT_BYTES, "{left} bytes of {ALL_BYTES} are left");
    shard.close().await.expect("closes");
}

/// Rows that are still wanted are not merged again and again.
#[tokio::test(start_paused = true)]
async fn a_quiet_shard_with_nothing_to_win_is_left_in_peace() {
    let mut place = place();
    let meter = Meter::new(Arc::new(InMemory::new()), place.clock.clone());
    let counters = meter.counters();
    place.store = Arc::new(meter);
    let shard = place.open().await;
    LOAD.enqueue(&shard).await;
    tokio::time::sleep(HOUR).await;
    let begun = counters.tally();
    tokio::time::sleep(2 * WEEK).await;
    let used = counters.tally().since(&begun);
    assert_eq!(used.calls(CallKind::Put), 0, "{used:?}");
    shard.close().await.expect("closes");
}
