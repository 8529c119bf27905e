//! The engine's first steps: written data is read, before and after a restart, from log and bucket.

use crate::rig::World;
use skerry_core::name::{Name, Target};
use skerry_volume::{CreateVolume, ErrorKind};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

fn create(text: &str, size_bytes: u64) -> CreateVolume {
    CreateVolume { name: name(text), size_bytes, block_size_bytes: 4096, flush: None }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_again() {
    let world = World::new(1);
    {
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        device.write(512, vec![7; 1024].into()).await.expect("writes");
        device.flush().await.expect("flushes");
        let read = device.read(0, 4096).await.expect("reads");
        assert_eq!(&read[512..1536], &[7; 1024]);
        assert!(read[..512].iter().chain(&read[1536..]).all(|b| *b == 0));
    }
    let run = world.start("a").await.expect("starts again");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    let read = device.read(0, 4096).await.expect("reads");
    assert_eq!(&read[512..1536], &[7; 1024]);
    run.engine.shutdown().await.expect("stops");
    drop(run);
    let run = world.start("a").await.expect("starts a third time");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    assert_eq!(&device.read(0, 4096).await.expect("reads")[512..1536], &[7; 1024]);
}

#[tokio::test(start_paused = true)]
async fn snapshots_clones_and_rollback() {
    let world = World::new(2);
    let run = world.start("a").await.expect("starts");
    let engine = &run.engine;
    engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = engine.open_device(&target("disk")).await.expect("attaches");
    for i in 0..100u64 {
        device.write(i * 4096, vec![1; 4096].into()).await.expect("writes");
    }
    engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    for i in 50..150u64 {
        device.write(i * 4096, vec![2; 4096].into()).await.expect("writes");
    }
    device.zero(0, 10 * 4096).await.expect("zeroes");
    engine.create_snapshot(&name("disk"), Some(&name("two"))).await.expect("snapshots");
    let one = engine.open_device(&target("disk@one")).await.expect("attaches the snapshot");
    assert!(one.read(0, 100 * 4096).await.expect("reads").iter().all(|b| *b == 1));
    let diff =
        engine.diff_snapshots(&name("disk"), &name("one"), &name("two")).await.expect("diffs");
    assert_eq!(diff.iter().map(|d| d.length).sum::<u64>(), 110 * 4096);
    assert_eq!((diff[0].length, diff[0].zero), (10 * 4096, true));

    engine
        .clone_volume(&name("disk"), &name("one"), &name("copy"), Some(2 << 20))
        .await
        .expect("clones");
    let copy = engine.open_device(&target("copy")).await.expect("attaches the clone");
    copy.write(0, vec![3; 4096].into()).await.expect("writes");
    assert!(copy.read(4096, 99 * 4096).await.expect("reads").iter().all(|b| *b == 1));
    assert_eq!(copy.size_bytes(), 2 << 20);

    let refused = engine.rollback_volume(&name("disk"), &name("one"), false).await;
    assert_eq!(refused.expect_err("a client is attached").kind(), ErrorKind::Busy);
    let kept = engine.rollback_volume(&name("disk"), &name("one"), true).await.expect("rolls back");
    assert!(device.read(0, 4096).await.is_err(), "who was attached gets errors");
    let device = engine.open_device(&target("disk")).await.expect("attaches again");
    assert!(device.read(0, 100 * 4096).await.expect("reads").iter().all(|b| *b == 1));
    assert!(device.read(100 * 4096, 50 * 4096).await.expect("reads").iter().all(|b| *b == 0));
    device.write(0, vec![9; 512].into()).await.expect("writes after the rollback");
    let forward: Target = target(&format!("disk@{}", kept.name));
    let forward = engine.open_device(&forward).await.expect("the state before is kept");
    assert!(forward.read(100 * 4096, 50 * 4096).await.expect("reads").iter().all(|b| *b == 2));

    drop((device, copy, one, forward));
    engine.delete_volume(&name("disk"), true, true).await.expect("deletes");
    assert_eq!(engine.list_volumes().await.expect("lists").len(), 1);
    let copy = engine.open_device(&target("copy")).await.expect("the clone is not affected");
    assert!(copy.read(4096, 99 * 4096).await.expect("reads").iter().all(|b| *b == 1));
    drop(copy);
    engine.shutdown().await.expect("stops");
    drop(run);
    let run = world.start("a").await.expect("starts again");
    let copy = run.engine.open_device(&target("copy")).await.expect("attaches");
    assert!(copy.read(4096, 99 * 4096).await.expect("reads").iter().all(|b| *b == 1));
}

#[tokio::test(start_paused = true)]
async fn who_was_taken_over_is_fenced() {
    let world = World::new(3);
    let a = world.start("a").await.expect("starts");
    a.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let on_a = a.engine.open_device(&target("disk")).await.expect("attaches");
    on_a.write(0, vec![1; 4096].into()).await.expect("writes");
    on_a.flush().await.expect("flushes");

    let world_b = world.neighbour(33);
    let b = world_b.start("b").await.expect("a second host starts");
    let on_b = b.engine.open_device(&target("disk")).await.expect("attaches read-only");
    assert!(on_b.is_read_only());
    let refused = b.engine.release_volume(&name("disk"), false).await.expect_err("held by a");
    assert!(refused.to_string().contains("host a"), "{refused}");
    assert!(b.engine.release_volume(&name("disk"), true).await.expect("by force").may_lose);
    let on_b = b.engine.open_device(&target("disk")).await.expect("attaches");
    on_b.write(0, vec![2; 4096].into()).await.expect("writes");
    on_b.flush().await.expect("flushes");

    // A gap in the clock makes the first one check.
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert!(on_a.write(4096, vec![3; 4096].into()).await.is_err());
    assert!(on_a.read(0, 4096).await.is_err());
    drop((on_a, a));
    let a = world.start("a").await.expect("starts again");
    assert_eq!(a.engine.status().parked.len(), 1, "its tail is kept aside");
    let on_a = a.engine.open_device(&target("disk")).await.expect("read-only now");
    assert!(on_a.is_read_only());
}

#[tokio::test(start_paused = true)]
async fn holes_are_told_only_by_the_owner() {
    let world = World::new(4);
    let a = world.start("a").await.expect("starts");
    a.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let on_a = a.engine.open_device(&target("disk")).await.expect("attaches");
    assert_eq!(on_a.status(0, 1 << 20, 8).await.expect("tells").len(), 1);
    let b = world.neighbour(34).start("b").await.expect("a second host starts");
    b.engine.release_volume(&name("disk"), true).await.expect("by force");
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert!(on_a.status(0, 1 << 20, 8).await.is_err(), "whoever has it now may have written");
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_found_by_its_id_under_any_name() {
    let world = World::new(11);
    let id = {
        let run = world.start("a").await.expect("starts");
        let made = run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        assert_eq!(run.engine.name_of(made.id).await.expect("finds"), Some(name("disk")));
        run.engine.rename_volume(&name("disk"), &name("renamed")).await.expect("renames");
        assert_eq!(run.engine.name_of(made.id).await.expect("finds"), Some(name("renamed")));
        run.engine.shutdown().await.expect("stops");
        made.id
    };
    let run = world.start("a").await.expect("starts again");
    // It is not open: the bucket is asked.
    assert_eq!(run.engine.name_of(id).await.expect("finds"), Some(name("renamed")));
    run.engine.create_snapshot(&name("renamed"), Some(&name("kept"))).await.expect("snapshots");
    run.engine.delete_volume(&name("renamed"), false, false).await.expect("deletes");
    assert_eq!(
        run.engine.name_of(id).await.expect("looks"),
        None,
        "its snapshot is left, it is not"
    );
    let nobody = skerry_core::id::VolumeId([9; 16]);
    assert_eq!(run.engine.name_of(nobody).await.expect("looks"), None);
}

/// Fsck counts the present volumes, not every one that there ever was.
#[tokio::test(start_paused = true)]
async fn fsck_counts_the_volumes_that_are_there() {
    let world = World::new(9);
    let run = world.start("a").await.expect("starts");
    for disk in ["one", "two"] {
        run.engine.create_volume(create(disk, 1 << 20)).await.expect("creates");
    }
    run.engine.create_snapshot(&name("one"), Some(&name("kept"))).await.expect("snapshots");
    for (disk, snapshots, left) in [("two", false, 1), ("one", false, 1), ("one", true, 0)] {
        run.engine.delete_volume(&name(disk), snapshots, false).await.expect("deletes");
        let found = run.engine.fsck().await.expect("checks");
        assert_eq!((found.volumes, found.problems), (left, vec![]), "{disk} {snapshots}");
    }
}
