//! Dependents of a volume's history: clones, their clones, and rollbacks. The history keeps what
//! they need, and no longer.

use crate::rig::{Running, World, create, name, target};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use skerry_core::names;
use skerry_core::refs::{PUBLISHED, Ref, SnapshotInfo};
use std::sync::Arc;

async fn objects(world: &World, part: &str) -> usize {
    let all: Vec<_> = world.store.list(None).try_collect().await.expect("lists");
    all.iter().filter(|object| object.location.as_ref().contains(part)).count()
}

async fn write(run: &Running, disk: &str, byte: u8) {
    let device = run.engine.open_device(&target(disk)).await.expect("attaches");
    for block in 0..8 {
        device.write(block * 4096, vec![byte; 4096].into()).await.expect("writes");
    }
    settle(run).await;
}

async fn settle(run: &Running) {
    for volume in run.engine.open_volumes() {
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
    }
}

async fn reads(run: &Running, what: &str, byte: u8) {
    let device = run.engine.open_device(&target(what)).await.expect("attaches");
    let read = device.read(0, 8 * 4096).await.expect("reads");
    assert!(read.iter().all(|b| *b == byte), "{what} reads {}", read[0]);
}

async fn is_clean(run: &Running, what: &str) {
    let found = run.engine.fsck().await.expect("checks");
    assert_eq!((found.orphans, found.problems), (0, vec![]), "{what}");
}

/// A clone's clone needs the first volume's segments, though its own parent is gone. When it goes,
/// everything does.
#[tokio::test(start_paused = true)]
async fn a_clone_of_a_clone_outlives_both() {
    let world = World::new(1);
    let run = world.start("a").await.expect("starts");
    let (engine, disk, one) = (&run.engine, name("disk"), name("one"));
    engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    write(&run, "disk", 1).await;
    engine.create_snapshot(&disk, Some(&one)).await.expect("snapshots");
    let (first, second) = (name("first"), name("second"));
    engine.clone_volume(&disk, &one, &first, None).await.expect("clones");
    reads(&run, "first", 1).await;
    engine.create_snapshot(&first, Some(&one)).await.expect("snapshots");
    engine.clone_volume(&first, &one, &second, None).await.expect("clones the clone");
    engine.delete_snapshot(&disk, &one).await.expect("deletes");
    engine.delete_volume(&first, true, true).await.expect("deletes");
    write(&run, "disk", 2).await;
    engine.sweep().await.expect("sweeps");
    engine.sweep().await.expect("sweeps again");
    assert_eq!(objects(&world, "/hold/").await, 2, "each parent knows its clone");
    reads(&run, "second", 1).await;
    reads(&run, "disk", 2).await;
    is_clean(&run, "with the clone's clone").await;
    engine.delete_volume(&second, true, true).await.expect("deletes");
    assert_eq!(objects(&world, "/hold/").await, 0, "nothing hangs on anything");
    engine.sweep().await.expect("sweeps");
    is_clean(&run, "alone").await;
    reads(&run, "disk", 2).await;
}

/// After a rollback the snapshots before it are no neighbours of later ones. Whichever is deleted,
/// the others are whole.
#[tokio::test(start_paused = true)]
async fn snapshots_around_a_rollback_go_in_any_order() {
    let labels = ["s1", "s2", "s3", "s4"];
    for gone in 0..4 {
        let world = World::new(10 + gone);
        let run = world.start("a").await.expect("starts");
        let (engine, disk) = (&run.engine, name("disk"));
        engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        for (byte, label) in (1..).zip(labels) {
            if label == "s3" {
                let kept =
                    engine.rollback_volume(&disk, &name("s1"), true).await.expect("rolls back");
                let kept: skerry_core::name::Name = kept.name.parse().expect("a name");
                engine.delete_snapshot(&disk, &kept).await.expect("deletes");
            }
            // The third is what the first is.
            if label != "s3" {
                write(&run, "disk", byte).await;
            }
            engine.create_snapshot(&disk, Some(&name(label))).await.expect("snapshots");
            settle(&run).await;
        }
        engine.delete_snapshot(&disk, &name(labels[gone as usize])).await.expect("deletes");
        for sweeps in 0..2 {
            for (label, byte) in labels.iter().zip([1, 2, 1, 4]) {
                if *label != labels[gone as usize] {
                    reads(&run, &format!("disk@{label}"), byte).await;
                }
            }
            reads(&run, "disk", 4).await;
            if sweeps == 0 {
                engine.sweep().await.expect("sweeps");
            }
        }
        is_clean(&run, labels[gone as usize]).await;
    }
}

/// A deletion that a crash interrupts, at any call, is finished by the next owner or was never
/// begun.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_interrupted_is_finished() {
    for calls in 0..16 {
        let world = World::new(100 + calls);
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        write(&run, "disk", 1).await;
        run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
        settle(&run).await;
        run.gate.shut_after(calls);
        let (disk, one) = (name("disk"), name("one"));
        let deleting = run.engine.delete_snapshot(&disk, &one);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(20), deleting).await;
        drop(run);
        world.disk.kill();
        let run = world.start("a").await.expect("starts again");
        reads(&run, "disk", 1).await;
        let left = run.engine.list_snapshots(&name("disk")).await.expect("lists");
        for snapshot in &left {
            reads(&run, &format!("disk@{}", snapshot.name), 1).await;
        }
        if left.is_empty() {
            settle(&run).await;
            assert_eq!(objects(&world, "/label/").await, 0, "{calls}: a label is left");
            let free = run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await;
            free.unwrap_or_else(|e| panic!("{calls}: the name is not free: {e}"));
        }
    }
}

/// A deleted volume leaves only objects that are never deleted.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_volume_that_is_over() {
    let world = World::new(50);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    write(&run, "disk", 1).await;
    run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    run.engine.delete_volume(&name("disk"), true, true).await.expect("deletes");
    for part in ["/head/", "/ref/", "/label/", "/hold/", "/pin/"] {
        assert_eq!(objects(&world, part).await, 0, "{part}");
    }
    let streams = Path::from("streams");
    let left: Vec<_> = world.store.list(Some(&streams)).try_collect().await.expect("lists");
    // Seals stay while the bucket lives.
    assert!(left.iter().all(|object| object.size < 1024), "{left:?}");
}

/// Of several numbers of a snapshot's ref the highest counts, for clones, clients and deletion.
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_what_its_highest_number_says() {
    let store = Arc::new(InMemory::new());
    let world = World::over(6, store.clone());
    let run = world.start("a").await.expect("starts");
    let (engine, disk) = (&run.engine, name("disk"));
    let volume = engine.create_volume(create("disk", 1 << 20)).await.expect("creates").id;
    let mut refs = Vec::new();
    for (byte, label) in [(1, "one"), (2, "two")] {
        write(&run, "disk", byte).await;
        let made = engine.create_snapshot(&disk, Some(&name(label))).await.expect("snapshots");
        settle(&run).await;
        let at = Path::from(names::snapshot(volume, made.id, PUBLISHED));
        let bytes = store.get(&at).await.expect("its ref").bytes().await.expect("bytes");
        refs.push(Ref::decode(&bytes).expect("a ref"));
    }
    // A second number of the first snapshot, which holds all that the second snapshot holds.
    let info = refs[0].snapshot.clone().expect("a snapshot's");
    let id = info.id;
    let snapshot = Some(SnapshotInfo { number: PUBLISHED + 1, ..info });
    let second = Ref { snapshot, ..refs[1].clone() };
    let at = Path::from(names::snapshot(volume, id, PUBLISHED + 1));
    store.put(&at, second.encode([9; 16]).into()).await.expect("put by hand");
    let found = engine.context().catalog.snapshot_numbers(volume, id).await.expect("lists");
    assert_eq!((found.newest(), found.refs.len()), (Some(PUBLISHED + 1), 2));
    engine.clone_volume(&disk, &name("one"), &name("copy"), None).await.expect("clones");
    reads(&run, "disk@one", 2).await;
    reads(&run, "copy", 2).await;
    engine.delete_snapshot(&disk, &name("one")).await.expect("deletes");
    engine.sweep().await.expect("sweeps");
    let left: Vec<_> = store.list(None).try_collect().await.expect("lists");
    let of_one = format!("snap/{id}/ref");
    assert!(left.iter().all(|object| !object.location.as_ref().contains(&of_one)), "{left:?}");
    reads(&run, "disk@two", 2).await;
    reads(&run, "copy", 2).await;
    is_clean(&run, "after it").await;
}

/// Once, a clone whose descriptor could not be written left its holder, which held everything below
/// its snapshot.
#[tokio::test(start_paused = true)]
async fn a_clone_that_fails_hangs_on_nothing() {
    let world = World::new(5);
    let run = world.start("a").await.expect("starts");
    let (engine, disk, one) = (&run.engine, name("disk"), name("one"));
    engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    write(&run, "disk", 1).await;
    engine.create_snapshot(&disk, Some(&one)).await.expect("snapshots");
    settle(&run).await;
    run.gate.hold(Some("/desc"));
    let error = engine.clone_volume(&disk, &one, &name("first"), None).await;
    assert!(error.expect_err("no answer").to_string().contains("/desc"));
    run.gate.hold(None);
    assert_eq!(objects(&world, "/state").await, 2, "the clone is withdrawn");
    assert_eq!(objects(&world, "/hold/").await, 0, "nothing hangs on the disk");
    engine.clone_volume(&disk, &one, &name("first"), None).await.expect("clones");
    reads(&run, "first", 1).await;
}
