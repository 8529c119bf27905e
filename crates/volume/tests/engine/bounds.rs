//! However much a volume goes through, no object of it grows beyond its bound, and everything still
//! works.

use crate::rig::{World, create, name, target};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use skerry_core::names::{self, Object};
use skerry_core::record::RECORD_HEAD;
use skerry_volume::EngineSettings;
use std::sync::Arc;
use std::time::Duration;

const BLOCK: u64 = 4096;
/// Bytes below a leaf of the map.
const LEAF: u64 = 128 * BLOCK;
/// More leaves than a map node of the chain of dropped subtrees names.
const LEAVES: u64 = 1500;
/// More than the longest root and the rest of a ref.
const REF_BYTES_MAX: u64 = 1024;

/// A trim of many ranges, each of which drops a subtree. Once, it made a ref of 141 MB.
#[tokio::test(start_paused = true)]
async fn refs_stay_small_and_usable_after_a_trim_of_many_ranges() {
    let store = Arc::new(InMemory::new());
    let mut world = World::over(1, store.clone());
    world.settings.checkpoint_segments_max = 64;
    world.settings.overlay_bytes_max = 16 << 20;
    world.settings.drain_nodes_max = 1;
    world.settings.snapshot_garbage_bytes_max = u64::MAX;
    world.settings.idle_age = Duration::from_secs(1_000_000);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 40)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    // Every other leaf, so that no two ranges are one.
    let places = || (0..LEAVES).map(|n| 2 * n * LEAF);
    for at in places() {
        device.write(at, vec![7; BLOCK as usize].into()).await.expect("writes");
    }
    let settle = async || {
        let volume = run.engine.open_volumes().remove(0);
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
    };
    settle().await;
    for at in places() {
        device.zero(at, LEAF).await.expect("trims");
    }
    settle().await;
    run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    settle().await;
    let all: Vec<_> = store.list(None).try_collect().await.expect("lists");
    let is_ref = |at: &str| matches!(names::parse(at), Object::Head(..) | Object::Snapshot(..));
    let refs: Vec<u64> = all
        .iter()
        .filter(|object| is_ref(object.location.as_ref()))
        .map(|object| object.size)
        .collect();
    assert_eq!(refs.len(), 2, "a head and a snapshot");
    assert!(refs.iter().all(|size| *size < REF_BYTES_MAX), "{refs:?}");
    drop((device, run));
    world.lose_disk();
    let run = world.start("a").await.expect("starts again");
    let of = name("disk");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    assert!(device.read(0, BLOCK as usize).await.expect("reads").iter().all(|b| *b == 0));
    assert_eq!(run.engine.list_volumes().await.expect("lists").len(), 1);
    assert_eq!(run.engine.list_snapshots(&of).await.expect("lists").len(), 1);
    run.engine.clone_volume(&of, &name("one"), &name("copy"), None).await.expect("clones");
    let report = run.engine.fsck().await.expect("fsck runs");
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
    run.engine.delete_snapshot(&of, &name("one")).await.expect("deletes");
    drop(device);
    run.engine.delete_volume(&name("copy"), true, true).await.expect("deletes");
    run.engine.delete_volume(&of, true, true).await.expect("deletes");
    assert!(run.engine.list_volumes().await.expect("lists").is_empty());
}

/// Writes are cut to records that the log takes.
#[test]
fn the_longest_record_fits_the_log() {
    let longest = RECORD_HEAD + EngineSettings::default().record_bytes_max;
    assert!(longest <= skerry_log::Settings::default().max_payload_bytes());
}

/// Number of records that `count` volumes take together while the bucket takes nothing, until their
/// writers wait.
async fn taken(count: u64) -> u64 {
    const NEVER: Duration = Duration::from_secs(1_000_000);
    let mut world = World::new(2);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    world.settings.index_bytes_max = 64 << 10;
    world.log.cap_bytes = 256 * world.log.file_bytes;
    let run = world.start("a").await.expect("starts");
    let mut devices = Vec::new();
    for n in 0..count {
        let disk = format!("disk-{n}");
        run.engine.create_volume(create(&disk, 64 << 20)).await.expect("creates");
        devices.push(run.engine.open_device(&target(&disk)).await.expect("attaches"));
    }
    run.gate.hold_puts(names::STREAMS);
    let writers = devices.iter().map(|device| async move {
        for n in 0..8192 {
            device.write(n * 1024, vec![1; 512].into()).await.expect("writes");
        }
    });
    let all = futures::future::join_all(writers);
    assert!(tokio::time::timeout(Duration::from_secs(60), all).await.is_err(), "none waits");
    let volumes = run.engine.open_volumes();
    volumes.iter().map(|volume| volume.undestaged(Duration::ZERO).0 / 512).sum()
}

/// All volumes of a node share one budget of memory for records that are only in the log. One
/// volume has nearly all of it.
#[tokio::test(start_paused = true)]
async fn the_indexes_of_all_volumes_are_bounded_together() {
    let (one, many) = (taken(1).await, taken(8).await);
    assert!(one > 100 && many <= 2 * one + 8, "{one} records of one volume, {many} of eight");
}
