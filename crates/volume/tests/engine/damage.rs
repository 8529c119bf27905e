//! Damage costs only the damaged object's volume. One bad object keeps neither another volume nor
//! the node from service, and damaged volumes can be listed and deleted.

use crate::rig::{Running, World, create, name, target};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use skerry_store::objects::faulty::{FaultPlan, Faulty};
use skerry_volume::{ErrorKind, Unreadable};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Flips a bit in every object below `volumes/<id>/` with `part` in its name; gives their number.
async fn flip(world: &World, id: impl std::fmt::Display, part: &str) -> usize {
    let prefix = Path::from(format!("volumes/{id}"));
    flip_below(world, &prefix, part).await
}

async fn flip_below(world: &World, prefix: &Path, part: &str) -> usize {
    let objects: Vec<_> = world.store.list(Some(prefix)).try_collect().await.expect("lists");
    let mut flipped = 0;
    for at in objects.into_iter().map(|o| o.location).filter(|at| at.as_ref().contains(part)) {
        let mut bytes =
            world.store.get(&at).await.expect("there").bytes().await.expect("read").to_vec();
        bytes[40] ^= 1;
        world.store.put(&at, bytes.into()).await.expect("overwritten by hand");
        flipped += 1;
    }
    flipped
}

/// Two volumes with a head each, and a snapshot of the first; closed.
async fn two(seed: u64) -> World {
    let world = World::new(seed);
    let run = world.start("a").await.expect("starts");
    for disk in ["bad", "good"] {
        run.engine.create_volume(create(disk, 1 << 20)).await.expect("creates");
        write(&run, disk, 1).await;
        run.engine.create_snapshot(&name(disk), Some(&name("one"))).await.expect("snapshots");
    }
    run.engine.shutdown().await.expect("stops");
    world
}

async fn settle(run: &Running) {
    for volume in run.engine.open_volumes() {
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
    }
}

async fn write(run: &Running, disk: &str, byte: u8) {
    let device = run.engine.open_device(&target(disk)).await.expect("attaches");
    device.write(0, vec![byte; 4096].into()).await.expect("writes");
    device.flush().await.expect("flushes");
}

async fn reads(run: &Running, disk: &str, byte: u8) {
    let device = run.engine.open_device(&target(disk)).await.expect("attaches");
    let read = device.read(0, 4096).await.expect("reads");
    assert!(read.iter().all(|b| *b == byte), "{disk} reads {}", read[0]);
}

async fn id_of(run: &Running, disk: &str) -> String {
    let shown = run.engine.show_volume(&name(disk)).await.expect("shows");
    shown.id.to_string()
}

/// Whatever object of a volume is damaged: all volumes are listed, the other one works, and the
/// damaged one can be deleted.
#[tokio::test(start_paused = true)]
async fn a_damaged_volume_is_listed_and_can_be_deleted() {
    for part in ["/head/", "/desc", "/state", "/life/"] {
        let world = two(1).await;
        let id = id_of(&world.start("a").await.expect("starts"), "bad").await;
        assert!(flip(&world, &id, part).await > 0, "{part}");
        let run = world.start("a").await.expect("starts");
        let listed = run.engine.list_volumes().await.expect("lists");
        let names: Vec<&str> = listed.iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, ["bad", "good"], "{part}");
        assert!(listed[1].failure.is_none(), "{part}: {:?}", listed[1].failure);
        // In the last case the volume's owner can't be read. Only that is damaged, and told when a
        // call needs it.
        let why = listed[0].failure.as_deref().unwrap_or_default();
        assert!(why.contains(&format!("volumes/{id}{part}")), "{part}: {why}");
        let unreadable = match part {
            "/desc" => Unreadable::Descriptor,
            _ => Unreadable::State,
        };
        assert_eq!(listed[0].unreadable, unreadable, "{part}");
        assert!(listed[0].space.is_none() && listed[1].space.is_some(), "{part}: {listed:?}");
        reads(&run, "good", 1).await;
        let force = part == "/life/";
        let deleted = run.engine.delete_volume(&name("bad"), true, force).await;
        deleted.unwrap_or_else(|e| panic!("{part}: {e}"));
        let listed = run.engine.list_volumes().await.expect("lists");
        assert_eq!(listed.len(), 1, "{part}: {listed:?}");
        run.engine.create_volume(create("bad", 1 << 20)).await.expect("the name is free");
        run.engine.sweep().await.expect("sweeps");
    }
}

/// A snapshot whose ref is damaged costs only that snapshot. It is listed and can be deleted, as
/// can its neighbours. Sweeps go on, and delete all that it can't hold.
#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_costs_that_snapshot() {
    for restarted in [false, true] {
        let mut world = World::new(7);
        world.settings.idle_age = Duration::from_secs(1_000_000);
        let mut run = world.start("a").await.expect("starts");
        let (disk, labels) = (name("disk"), ["one", "two", "three"]);
        run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        for (byte, label) in (1..).zip(labels) {
            write(&run, "disk", byte).await;
            run.engine.create_snapshot(&disk, Some(&name(label))).await.expect("snapshots");
            settle(&run).await;
        }
        let listed = run.engine.list_snapshots(&disk).await.expect("lists");
        let two = listed.iter().find(|snapshot| snapshot.name == "two").expect("listed").id;
        let id = id_of(&run, "disk").await;
        assert_eq!(flip(&world, &id, &format!("/snap/{two}/ref")).await, 1);
        if restarted {
            run.engine.shutdown().await.expect("stops");
            run = world.start("a").await.expect("starts again");
        }
        reads(&run, "disk", 3).await;
        let names_of = async |run: &Running| {
            let listed = run.engine.list_snapshots(&disk).await.expect("lists");
            listed.into_iter().map(|snapshot| snapshot.name).collect::<BTreeSet<_>>()
        };
        assert_eq!(names_of(&run).await, BTreeSet::from(labels.map(str::to_owned)));
        let refused = run.engine.open_device(&target("disk@two")).await.err().expect("damaged");
        assert!(refused.to_string().contains(&format!("/snap/{two}/ref")), "{refused}");
        run.engine.delete_snapshot(&disk, &name("one")).await.expect("deletes a neighbour");
        for byte in 4..6 {
            write(&run, "disk", byte).await;
            settle(&run).await;
        }
        let swept = run.engine.sweep().await.expect("sweeps");
        assert!(swept > 0, "what came after it is its own");
        reads(&run, "disk@three", 3).await;
        run.engine.delete_snapshot(&disk, &name("two")).await.expect("deletes it");
        run.engine.sweep().await.expect("sweeps");
        assert_eq!(names_of(&run).await, BTreeSet::from(["three".to_owned()]));
        reads(&run, "disk@three", 3).await;
        reads(&run, "disk", 5).await;
        let found = run.engine.fsck().await.expect("checks");
        assert_eq!((found.orphans, found.problems), (0, vec![]), "restarted {restarted}");
    }
}

/// A damaged pin holds all of its volume for half a day, and keeps no command and no other volume.
/// A holder's name has all of its content, so damage to the object does no harm.
#[tokio::test(start_paused = true)]
async fn damaged_pins_and_holders_go_with_time() {
    let world = two(8).await;
    let run = world.start("a").await.expect("starts");
    let (bad, one) = (name("bad"), name("one"));
    let reader = world.neighbour(9).start("b").await.expect("starts");
    let device = reader.engine.open_device(&target("bad@one")).await.expect("attaches");
    // The reader dies, and leaves its pin.
    drop((reader, device));
    run.engine.clone_volume(&bad, &one, &name("copy"), None).await.expect("clones");
    let id = id_of(&run, "bad").await;
    assert_eq!(flip(&world, &id, "/pin/").await, 1);
    assert_eq!(flip(&world, &id, "/hold/").await, 1);
    write(&run, "bad", 2).await;
    settle(&run).await;
    assert!(run.engine.sweep().await.is_err(), "what the pin holds can't be told");
    run.engine.create_snapshot(&bad, Some(&name("two"))).await.expect("snapshots");
    settle(&run).await;
    run.engine.delete_snapshot(&bad, &one).await.expect("deletes");
    run.engine.delete_snapshot(&name("good"), &one).await.expect("deletes");
    tokio::time::advance(Duration::from_secs(13 * 3600)).await;
    run.engine.sweep().await.expect("sweeps");
    reads(&run, "copy", 1).await;
    run.engine.delete_volume(&name("copy"), true, true).await.expect("deletes");
    run.engine.sweep().await.expect("sweeps");
    let objects: Vec<_> = world.store.list(None).try_collect().await.expect("lists");
    for part in ["/pin/", "/hold/"] {
        assert!(objects.iter().all(|o| !o.location.as_ref().contains(part)), "{part}");
    }
    for (disk, byte) in [("bad", 2), ("bad@two", 2), ("good", 1)] {
        reads(&run, disk, byte).await;
    }
    let found = run.engine.fsck().await.expect("checks");
    assert_eq!((found.orphans, found.problems), (0, vec![]));
}

/// A name whose object is damaged is listed as damaged, and hides no other.
#[tokio::test(start_paused = true)]
async fn a_damaged_name_hides_no_other() {
    let world = two(2).await;
    assert!(flip_below(&world, &Path::from("names/bad"), "").await > 0);
    let run = world.start("a").await.expect("starts");
    let listed = run.engine.list_volumes().await.expect("lists");
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed[0].failure.as_deref().is_some_and(|why| why.contains("names/bad/")));
    reads(&run, "good", 1).await;
}

/// A damaged volume that another host wrote is deleted only by force.
#[tokio::test(start_paused = true)]
async fn a_damaged_volume_of_another_host_is_deleted_by_force() {
    let world = two(3).await;
    let other = world.neighbour(4).start("b").await.expect("starts");
    let id = id_of(&other, "bad").await;
    assert!(flip(&world, &id, "/head/").await > 0);
    let refused = other.engine.delete_volume(&name("bad"), true, false).await;
    let refused = refused.expect_err("another host wrote it");
    assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
    assert!(refused.to_string().contains("host a"), "{refused}");
    other.engine.delete_volume(&name("bad"), true, true).await.expect("deletes by force");
    assert_eq!(other.engine.list_volumes().await.expect("lists").len(), 1);
}

/// A damaged or lost descriptor of a volume with a tail does not keep the node from its work.
#[tokio::test(start_paused = true)]
async fn a_damaged_descriptor_with_a_tail_keeps_no_node_from_starting() {
    for lost in [false, true] {
        let mut world = World::new(5);
        world.settings.dirty_age = Duration::from_secs(100_000);
        let run = world.start("a").await.expect("starts");
        for disk in ["bad", "good"] {
            run.engine.create_volume(create(disk, 1 << 20)).await.expect("creates");
            write(&run, disk, 7).await;
        }
        let id = id_of(&run, "bad").await;
        drop(run);
        let desc = Path::from(format!("volumes/{id}/desc"));
        let good = world.store.get(&desc).await.expect("there").bytes().await.expect("read");
        match lost {
            true => world.store.delete(&desc).await.expect("deleted by hand"),
            false => assert_eq!(flip(&world, &id, "/desc").await, 1),
        }
        let run = world.start("a").await.expect("starts all the same");
        reads(&run, "good", 7).await;
        let told = run.engine.status().parked.join("\n");
        assert!(told.contains(&id), "lost {lost}: {told}");
        assert!(!run.engine.is_drained());
        drop(run);
        world.store.put(&desc, good.into()).await.expect("put back");
        let run = world.start("a").await.expect("starts");
        reads(&run, "bad", 7).await;
        assert!(run.engine.status().parked.is_empty(), "{:?}", run.engine.status().parked);
    }
}

/// A bucket that does not answer while the node starts only delays it.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_away_at_the_start_keeps_no_node_from_starting() {
    let store = Faulty::new(Arc::new(InMemory::new()), 6, FaultPlan::default());
    let faults = store.faults();
    let mut world = World::over(6, Arc::new(store));
    world.settings.dirty_age = Duration::from_secs(100_000);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    write(&run, "disk", 9).await;
    drop(run);
    // The bucket's descriptor is found and read, and then nothing any more.
    let stop_after = Some(faults.calls() + 2);
    faults.set_plan(FaultPlan { stop_after, ..FaultPlan::default() });
    let run = world.start("a").await.expect("starts without its volume");
    assert_eq!(run.engine.status().volumes_open, 0);
    assert!(!run.engine.is_drained());
    faults.revive();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(run.engine.status().volumes_open, 1, "it comes back by itself");
    assert!(run.engine.status().parked.is_empty(), "{:?}", run.engine.status().parked);
    reads(&run, "disk", 9).await;
}
