//! Promises that only concurrent or half-failed operations can break.

use crate::rig::{Gate, World, create, name, target};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use skerry_core::descriptor::FlushLevel;
use skerry_core::env::Entropy;
use skerry_store::objects::faulty::{FaultPlan, Faults, Faulty};
use skerry_volume::{CreateVolume, Device, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn faulty(seed: u64) -> (World, Faults) {
    let store = Faulty::new(Arc::new(InMemory::new()), seed, FaultPlan::default());
    let faults = store.faults();
    (World::over(seed, Arc::new(store)), faults)
}

/// Longer than any test lasts.
const NEVER: Duration = Duration::from_secs(1_000_000);

async fn is(device: &Device, offset: u64, byte: u8) -> bool {
    device.read(offset, 4096).await.expect("reads").iter().all(|b| *b == byte)
}

/// Without a log on a disk, a flush means the bucket, whatever the volume's level is.
#[tokio::test(start_paused = true)]
async fn without_a_log_a_flush_is_in_the_bucket() {
    let mut world = World::new(1);
    {
        let run = world.start("a").await.expect("starts");
        let flush = Some(FlushLevel::Local);
        let made = CreateVolume { flush, ..create("disk", 1 << 20) };
        run.engine.create_volume(made).await.expect("creates");
        run.engine.shutdown().await.expect("stops");
    }
    world.lose_disk();
    world.has_log = false;
    let run = world.start("a").await.expect("starts without a log");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![7; 4096].into()).await.expect("writes");
    assert!(device.try_flush().is_none(), "only the bucket can answer");
    device.flush().await.expect("flushes");
    let shown = run.engine.show_volume(&name("disk")).await.expect("shows");
    assert_eq!(shown.flush, FlushLevel::Bucket);
    drop(run);
    world.lose_disk();
    let run = world.start("a").await.expect("starts again");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    assert!(is(&device, 0, 7).await, "a flushed write is lost");
}

/// A rollback under a writer: all acknowledged writes are in the snapshot that it keeps.
#[tokio::test(start_paused = true)]
async fn a_rollback_keeps_all_that_was_acknowledged() {
    for seed in 0..20 {
        let slow = FaultPlan { slow: 1000, slow_ms: 1..40, ..FaultPlan::default() };
        let (world, faults) = faulty(seed);
        let run = world.start("a").await.expect("starts");
        let made = CreateVolume { flush: Some(FlushLevel::Bucket), ..create("disk", 1 << 20) };
        run.engine.create_volume(made).await.expect("creates");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
        faults.set_plan(slow);
        let writer = tokio::spawn(async move {
            let mut acknowledged = 0u64;
            while device.write(acknowledged * 4096, vec![9; 4096].into()).await.is_ok() {
                acknowledged += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            acknowledged
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let (disk, one) = (name("disk"), name("one"));
        let kept = run.engine.rollback_volume(&disk, &one, true).await.expect("rolls back");
        let acknowledged = writer.await.expect("the writer ends");
        let full = format!("disk@{}", kept.name);
        let seen = run.engine.open_device(&target(&full)).await.expect("attaches");
        for block in 0..acknowledged {
            let is_there = is(&seen, block * 4096, 9).await;
            assert!(is_there, "seed {seed}: write {block} of {acknowledged} is nowhere");
        }
        assert!(acknowledged > 3, "{acknowledged}");
    }
}

/// A bucket that takes no writes for a while, snapshots and checkpoints included, costs only time.
#[tokio::test(start_paused = true)]
async fn a_bucket_that_denies_delays_and_loses_nothing() {
    let (mut world, faults) = faulty(3);
    world.settings.checkpoint_segments_max = 1;
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    for round in 1..6u8 {
        device.write(u64::from(round) * 4096, vec![round; 4096].into()).await.expect("writes");
        faults.set_plan(FaultPlan { deny_writes: true, ..FaultPlan::default() });
        let label = format!("s{round}");
        run.engine.create_snapshot(&name("disk"), Some(&name(&label))).await.expect("snapshots");
        tokio::time::sleep(Duration::from_secs(30)).await;
        device.write(0, vec![round; 4096].into()).await.expect("writes");
        device.flush().await.expect("flushes");
        assert!(run.engine.status().bucket_failure.is_some(), "nobody is told");
        faults.set_plan(FaultPlan::default());
        // Denied in the middle of a checkpoint, too.
        for _ in 0..u32::from(round) * 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for volume in run.engine.open_volumes() {
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
    }
    assert!(run.engine.status().bucket_failure.is_none());
    for round in 1..6u8 {
        let full = format!("disk@s{round}");
        let seen = run.engine.open_device(&target(&full)).await.expect("attaches");
        assert!(is(&seen, u64::from(round) * 4096, round).await);
        assert!(is(&seen, 0, round - 1).await);
    }
}

/// However far a release or a deletion got, later answers to a client are true.
#[tokio::test(start_paused = true)]
async fn what_is_given_up_half_way_takes_no_promises() {
    let (mut refused, mut served) = (0, 0);
    for calls in 0..40 {
        for delete in [false, true] {
            let (world, faults) = faulty(100 + calls);
            let run = world.start("a").await.expect("starts");
            run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
            let device = run.engine.open_device(&target("disk")).await.expect("attaches");
            device.write(0, vec![1; 4096].into()).await.expect("writes");
            drop(device);
            let stop_after = Some(faults.calls() + calls);
            faults.set_plan(FaultPlan { stop_after, ..FaultPlan::default() });
            let gave_up = async {
                match delete {
                    true => run.engine.delete_volume(&name("disk"), true, false).await,
                    false => run.engine.release_volume(&name("disk"), false).await.map(drop),
                }
            };
            let done = tokio::time::timeout(Duration::from_secs(20), gave_up).await;
            faults.revive();
            let Ok(device) = run.engine.open_device(&target("disk")).await else {
                refused += 1;
                assert!(delete, "{calls}: a volume that was released can't be attached: {done:?}");
                continue;
            };
            served += 1;
            device.write(4096, vec![2; 4096].into()).await.expect("writes");
            device.flush().await.expect("flushes");
            drop((device, run));
            world.disk.kill();
            let run = world.start("a").await.expect("starts again");
            let device = run.engine.open_device(&target("disk")).await;
            let device = device.unwrap_or_else(|e| panic!("{calls}, delete {delete}: {e}"));
            assert!(is(&device, 0, 1).await, "{calls}, delete {delete}: what was there is gone");
            assert!(is(&device, 4096, 2).await, "{calls}, delete {delete}: a flush is lost");
        }
    }
    assert!(refused > 5 && served > 20, "{refused} refused, {served} served");
}

/// However far a rename got, renaming again, there or back, ends it.
#[tokio::test(start_paused = true)]
async fn a_rename_that_stopped_half_way_is_finished_by_another() {
    for calls in 0..30 {
        for back in [false, true] {
            let (world, faults) = faulty(300 + calls);
            let run = world.start("a").await.expect("starts");
            run.engine.create_volume(create("one", 1 << 20)).await.expect("creates");
            drop(run.engine.open_device(&target("one")).await.expect("attaches"));
            let (one, two) = (name("one"), name("two"));
            let stop_after = Some(faults.calls() + calls);
            faults.set_plan(FaultPlan { stop_after, ..FaultPlan::default() });
            let rename = run.engine.rename_volume(&one, &two);
            let first = tokio::time::timeout(Duration::from_secs(20), rename).await;
            faults.revive();
            let listed = run.engine.list_volumes().await.expect("lists");
            assert_eq!(listed.len(), 1, "{calls}: {listed:?} after {first:?}");
            let now = name(&listed[0].name);
            let to = if back { &one } else { &two };
            let again = run.engine.rename_volume(&now, to);
            let again = tokio::time::timeout(Duration::from_secs(60), again).await;
            again.expect("it hangs").unwrap_or_else(|e| panic!("{calls}, back {back}: {e}"));
            let listed = run.engine.list_volumes().await.expect("lists");
            assert_eq!(listed.len(), 1, "{calls}: {listed:?}");
            assert_eq!(listed[0].name, to.as_str(), "{calls}, back {back}");
            // Both names are free or lead there: neither is lost.
            let other = if back { &two } else { &one };
            run.engine.create_volume(create(other.as_str(), 1 << 20)).await.expect("creates");
        }
    }
}

/// Trimmed data leaves the bucket also without further writes, however little a checkpoint
/// releases.
#[tokio::test(start_paused = true)]
async fn an_idle_volume_gives_back_what_was_trimmed() {
    let mut world = World::new(4);
    world.settings.drain_nodes_max = 1;
    world.settings.idle_age = Duration::from_secs(60);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    let mut noise = vec![0; 4 << 20];
    world.entropy.fill(&mut noise);
    for at in (0..noise.len()).step_by(64 << 10) {
        let piece = noise[at..at + (64 << 10)].to_vec();
        device.write(at as u64, piece.into()).await.expect("writes");
    }
    tokio::time::sleep(Duration::from_secs(200)).await;
    let full = bytes_of(&world).await;
    assert!(full > 4 << 20, "{full}");
    device.zero(0, (4 << 20) - 4096).await.expect("trims");
    tokio::time::sleep(Duration::from_secs(200)).await;
    let rest = bytes_of(&world).await;
    assert!(rest < 256 << 10, "{rest} bytes of {full} are left");
    let last = (4 << 20) - 4096;
    assert_eq!(device.read(last, 4096).await.expect("reads"), noise[last as usize..]);
    assert!(is(&device, 0, 0).await);
    let calm = bytes_of(&world).await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(bytes_of(&world).await, calm, "it does not come to rest");
}

/// A fenced writer's PUT may bring a head after it was superseded and collected. Such a head harms
/// no volume, and is deleted.
#[tokio::test(start_paused = true)]
async fn a_late_head_stops_no_collection() {
    let world = World::new(5);
    let heads = |objects: &[ObjectMeta]| -> Vec<Path> {
        let all = objects.iter().map(|object| object.location.clone());
        all.filter(|at| at.as_ref().contains("/head/")).collect()
    };
    let late = {
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        device.write(0, vec![1; 64 << 10].into()).await.expect("writes");
        run.engine.open_volumes()[0].drain().await.expect("drains");
        run.engine.open_volumes()[0].checkpoint().await.expect("makes a checkpoint");
        let head = heads(&objects_of(&world).await).pop().expect("a head");
        let bytes = world.store.get(&head).await.expect("there").bytes().await.expect("read");
        (head, bytes)
    };
    let run = world.start("a").await.expect("starts again");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![2; 64 << 10].into()).await.expect("writes");
    run.engine.open_volumes()[0].drain().await.expect("drains");
    run.engine.open_volumes()[0].checkpoint().await.expect("makes a checkpoint");
    assert!(run.engine.sweep().await.expect("sweeps") > 0, "nothing of before was deleted");
    world.store.put(&late.0, late.1.clone().into()).await.expect("the late PUT");
    let found = run.engine.fsck().await.expect("checks");
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    // Nor does it stop the collection of another volume, whose owner may not delete it.
    let other = world.neighbour(6).start("b").await.expect("starts");
    other.engine.create_volume(create("more", 1 << 20)).await.expect("creates");
    let more = other.engine.open_device(&target("more")).await.expect("attaches");
    more.write(0, vec![3; 64 << 10].into()).await.expect("writes");
    let volume = other.engine.open_volumes().pop().expect("it is open");
    volume.drain().await.expect("drains");
    volume.checkpoint().await.expect("makes a checkpoint");
    volume.sweep().await.expect("sweeps");
    run.engine.sweep().await.expect("sweeps");
    let left = heads(&objects_of(&world).await);
    assert!(!left.contains(&late.0) && left.len() == 2, "{left:?}");
    assert!(is(&device, 0, 2).await);
}

/// A host from which a volume was taken, and which has not noticed, finds objects deleted. It
/// reports the take-over, and no lost data, and takes the volume back by force.
#[tokio::test(start_paused = true)]
async fn what_a_new_owner_deletes_is_not_lost() {
    for case in ["check in", "read", "status", "take back"] {
        let mut world = World::new(19);
        // No host finds out by itself, and nothing is in memory.
        world.settings.fence_interval = Duration::from_secs(100_000);
        world.settings.idle_age = Duration::from_secs(100_000);
        world.settings.glimpse_gap = Duration::from_secs(100_000);
        world.cache_bytes = 0;
        let a = world.start("a").await.expect("starts");
        a.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
        let on_a = a.engine.open_device(&target("disk")).await.expect("attaches");
        let volume = a.engine.open_volumes().pop().expect("it is open");
        on_a.write(0, vec![1; 64 << 10].into()).await.expect("writes");
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
        on_a.write(0, vec![2; 4096].into()).await.expect("writes");
        volume.drain().await.expect("drains");

        let b = world.neighbour(20).start("b").await.expect("starts");
        b.engine.release_volume(&name("disk"), true).await.expect("by force");
        let on_b = b.engine.open_device(&target("disk")).await.expect("attaches");
        on_b.write(0, vec![3; 64 << 10].into()).await.expect("writes");
        let theirs = b.engine.open_volumes().pop().expect("it is open");
        theirs.drain().await.expect("drains");
        theirs.checkpoint().await.expect("makes a checkpoint");
        assert!(b.engine.sweep().await.expect("sweeps") > 0, "nothing of a's was deleted");

        let refused = match case {
            "check in" => volume.checkpoint().await,
            "read" => on_a.read(8192, 4096).await.map(drop),
            "status" => on_a.status(0, 4 << 20, 8).await.map(drop),
            _ => {
                a.engine.release_volume(&name("disk"), true).await.expect("by force");
                let back = a.engine.open_device(&target("disk")).await.expect("attaches");
                assert!(is(&back, 8192, 3).await);
                continue;
            }
        };
        let error = refused.expect_err("its objects are gone");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{case}: {error}");
        assert!(error.to_string().contains("taken over by"), "{case}: {error}");
    }
}

/// A segment or a head that an operator deleted is missed. No volume opens with less than it had,
/// and nothing is sealed. So the volume opens once the object is back.
#[tokio::test(start_paused = true)]
async fn what_was_deleted_by_hand_is_missed() {
    for is_checked_in in [false, true] {
        let mut world = World::new(6);
        world.settings.checkpoint_segments_max = 1000;
        world.settings.idle_age = Duration::from_secs(100_000);
        {
            let run = world.start("a").await.expect("starts");
            run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
            let device = run.engine.open_device(&target("disk")).await.expect("attaches");
            let volume = run.engine.open_volumes().pop().expect("it is open");
            for block in 0..10u8 {
                device
                    .write(u64::from(block) * 4096, vec![block; 4096].into())
                    .await
                    .expect("writes");
                volume.drain().await.expect("drains");
            }
            if is_checked_in {
                // All of it again, so that no older data is needed.
                device.write(0, vec![7; 64 << 10].into()).await.expect("writes");
                volume.drain().await.expect("drains");
                volume.checkpoint().await.expect("makes a checkpoint");
                assert!(run.engine.sweep().await.expect("sweeps") > 0);
            }
        }
        let all = objects_of(&world).await;
        let wanted = if is_checked_in { "/head/" } else { "0000000000000003" };
        let found = all.iter().find(|object| object.location.as_ref().contains(wanted));
        let lost = found.expect("there is one").location.clone();
        let bytes = world.store.get(&lost).await.expect("there").bytes().await.expect("read");
        world.store.delete(&lost).await.expect("deleted by hand");
        {
            let run = world.start("a").await.expect("starts");
            let opened = run.engine.open_device(&target("disk")).await;
            let error = opened.err().expect("it opened without what was deleted");
            assert_eq!(error.kind(), skerry_volume::ErrorKind::Corrupt, "{error}");
            let report = run.engine.fsck().await.expect("checks");
            assert!(!report.problems.is_empty(), "fsck finds nothing");
        }
        world.store.put(&lost, bytes.into()).await.expect("put back");
        let run = world.start("a").await.expect("starts");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        assert!(is(&device, 5 * 4096, if is_checked_in { 7 } else { 5 }).await);
    }
}

/// A tail that is fenced, while the node runs or when it starts, leaves the log. Other volumes keep
/// all of the log's room, and every record of the tail is in a log of its own.
#[tokio::test(start_paused = true)]
async fn a_fenced_tail_leaves_the_log() {
    for (is_running, theirs_first) in [(true, 0), (false, 0), (false, 50), (false, 500)] {
        let mut world = World::new(7);
        world.settings.dirty_age = Duration::from_secs(100_000);
        world.settings.segment_bytes = 4 << 20;
        let other = world.neighbour(8);
        let mut running = Some(world.start("a").await.expect("starts"));
        let run = running.as_ref().expect("it runs");
        run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        for block in 0..100u64 {
            let data = vec![block as u8; 4096];
            device.write(block * 4096, data.into()).await.expect("writes");
            device.flush().await.expect("flushes");
        }
        let used = run.engine.status().log_used_bytes;
        assert!(used > 100 * 4096, "{used}");
        drop(device);
        if !is_running {
            running = None;
        }
        let theirs = other.start("b").await.expect("starts");
        theirs.engine.release_volume(&name("disk"), true).await.expect("releases");
        let device = theirs.engine.open_device(&target("disk")).await.expect("attaches");
        assert!(!device.is_read_only());
        // However far the new owner got: the records that it never saw are parked.
        for block in 0..theirs_first {
            device.write(block % 1000 * 4096, vec![9; 512].into()).await.expect("writes");
        }
        theirs.engine.open_volumes()[0].drain().await.expect("drains");
        let run = match running {
            Some(run) => run,
            None => world.start("a").await.expect("starts again"),
        };
        // The previous owner checks its fence now and then.
        tokio::time::sleep(Duration::from_secs(200)).await;
        let status = run.engine.status();
        assert_eq!(status.parked.iter().filter(|line| line.contains("0 to 99")).count(), 1);
        assert!(run.engine.is_drained(), "{:?}", status.parked);
        let disks = world.parked.disks();
        assert_eq!(disks.len(), 1);
        let env = skerry_log::Env::new(|| 1, || 0);
        let (_log, recovery) =
            skerry_log::Log::open(disks[0].clone(), world.log.clone(), env).expect("opens");
        let tails = skerry_volume::tail::read(recovery).expect("reads");
        let tail = tails.by_volume.values().next().expect("one volume");
        let vseqs: Vec<u64> = tail.records.iter().map(|r| r.vseq).collect();
        assert_eq!(vseqs, (0..100).collect::<Vec<_>>());
        // The log's files come free once another volume has filled the present one.
        run.engine.create_volume(create("more", 4 << 20)).await.expect("creates");
        let more = run.engine.open_device(&target("more")).await.expect("attaches");
        more.write(0, vec![1; 512 << 10].into()).await.expect("writes");
        for volume in run.engine.open_volumes().iter().filter(|volume| volume.name() == "more") {
            volume.drain().await.expect("drains");
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(run.engine.status().log_used_bytes < 2 * world.log.file_bytes);
    }
}

/// A fenced tail that finds no room outside the log stays in it, and is reported, until there is
/// room.
#[tokio::test(start_paused = true)]
async fn a_fenced_tail_waits_for_room_to_leave() {
    let mut world = World::new(17);
    world.settings.dirty_age = Duration::from_secs(100_000);
    let other = world.neighbour(18);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    device.flush().await.expect("flushes");
    world.parked.is_full.store(true, Ordering::Relaxed);
    let theirs = other.start("b").await.expect("starts");
    theirs.engine.release_volume(&name("disk"), true).await.expect("releases");
    drop(theirs.engine.open_device(&target("disk")).await.expect("attaches"));
    tokio::time::sleep(world.settings.fence_interval * 5).await;
    let told = run.engine.status().parked;
    assert!(told.iter().any(|line| line.contains("stays in the log")), "{told:?}");
    assert!(!run.engine.is_drained() && world.parked.disks().is_empty());
    world.parked.is_full.store(false, Ordering::Relaxed);
    tokio::time::sleep(world.settings.fence_interval * 2).await;
    assert!(run.engine.is_drained(), "{:?}", run.engine.status().parked);
    assert_eq!(world.parked.disks().len(), 1);
}

/// An object under a segment's name that is not that segment is not taken for it: no flushed data
/// depends on it.
#[tokio::test(start_paused = true)]
async fn what_is_mangled_is_not_durable() {
    let world = World::new(19);
    let run = world.start("a").await.expect("starts");
    let made = CreateVolume { flush: Some(FlushLevel::Bucket), ..create("disk", 1 << 20) };
    run.engine.create_volume(made).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    device.flush().await.expect("flushes");
    let all = objects_of(&world).await;
    let streams = all.iter().filter(|object| object.location.as_ref().starts_with("streams/"));
    let first = &streams.max_by_key(|object| object.size).expect("a segment").location;
    let next = Path::from(first.as_ref().replace("0000000000000001", "0000000000000002"));
    world.store.put(&next, vec![0x5a; 8192].into()).await.expect("put by somebody");
    device.write(4096, vec![2; 4096].into()).await.expect("writes");
    let flushed = device.flush().await;
    assert!(flushed.is_err(), "it rests on what somebody put there");
    world.store.delete(&next).await.expect("taken away again");
    drop((device, run));
    // The log still has it.
    let run = world.start("a").await.expect("starts again");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    assert!(is(&device, 0, 1).await && is(&device, 4096, 2).await);
}

/// A state that is attached for reading stays readable, whatever is deleted and collected
/// meanwhile; afterwards it goes.
#[tokio::test(start_paused = true)]
async fn what_is_read_is_pinned() {
    let world = World::new(11);
    let other = world.neighbour(12);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, noise(&world, 1 << 20).into()).await.expect("writes");
    let before = device.read(0, 1 << 20).await.expect("reads");
    run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    let volume = run.engine.open_volumes().pop().expect("it is open");
    volume.drain().await.expect("drains");
    volume.checkpoint().await.expect("makes a checkpoint");

    let theirs = other.start("b").await.expect("starts");
    let head = theirs.engine.open_device(&target("disk")).await.expect("attaches elsewhere");
    let snapshot = run.engine.open_device(&target("disk@one")).await.expect("attaches a snapshot");
    assert!(head.is_read_only() && snapshot.is_read_only());
    run.engine.delete_snapshot(&name("disk"), &name("one")).await.expect("deletes");
    for round in 0..4u64 {
        device.write(0, noise(&world, 1 << 20).into()).await.expect("writes");
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
        run.engine.sweep().await.expect("sweeps");
        // Renewed again and again.
        tokio::time::sleep(Duration::from_secs(35 * round)).await;
    }
    let held = bytes_of(&world).await;
    assert_eq!(snapshot.read(0, 1 << 20).await.expect("still readable"), before);
    assert_eq!(head.read(0, 1 << 20).await.expect("still readable"), before);
    drop((head, snapshot));
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.engine.sweep().await.expect("sweeps");
    assert!(bytes_of(&world).await + (1 << 20) <= held, "what nobody reads any more is kept");

    // A reader that can't renew stops by itself, and holds nothing any more.
    let head = theirs.engine.open_device(&target("disk")).await.expect("attaches elsewhere");
    theirs.gate.kill();
    device.write(0, noise(&world, 1 << 20).into()).await.expect("writes");
    volume.drain().await.expect("drains");
    volume.checkpoint().await.expect("makes a checkpoint");
    run.engine.sweep().await.expect("sweeps");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(head.try_read(0, &mut [0; 512]).is_some_and(|read| read.is_err()), "it reads on");
    run.engine.sweep().await.expect("sweeps");
    assert!(objects_of(&world).await.iter().all(|o| !o.location.as_ref().contains("/pin/")));
}

fn noise(world: &World, len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    world.entropy.fill(&mut noise);
    noise
}

/// A volume that was released with everything in the bucket leaves nothing behind, and no restart
/// takes it back.
#[tokio::test(start_paused = true)]
async fn a_released_volume_stays_released() {
    let world = World::new(9);
    let other = world.neighbour(10);
    for is_attached_elsewhere in [false, true] {
        let run = world.start("a").await.expect("starts");
        let disk = format!("disk-{is_attached_elsewhere}");
        run.engine.create_volume(create(&disk, 4 << 20)).await.expect("creates");
        let device = run.engine.open_device(&target(&disk)).await.expect("attaches");
        device.write(0, vec![5; 4096].into()).await.expect("writes");
        drop(device);
        run.engine.release_volume(&name(&disk), false).await.expect("releases");
        let theirs = other.start("b").await.expect("starts");
        if is_attached_elsewhere {
            let device = theirs.engine.open_device(&target(&disk)).await.expect("attaches");
            device.write(4096, vec![6; 4096].into()).await.expect("writes");
            device.flush().await.expect("flushes");
        }
        drop(run);
        let run = world.start("a").await.expect("starts again");
        assert_eq!(run.engine.status().parked, Vec::<String>::new());
        assert!(run.engine.is_drained());
        assert!(run.engine.open_volumes().is_empty(), "it was taken back");
        let device = theirs.engine.open_device(&target(&disk)).await.expect("attaches");
        assert!(!device.is_read_only());
        assert!(is(&device, 0, 5).await);
    }
}

/// A clean stop leaves nothing in the log: it may be used with another bucket, and then again with
/// the first. After a crash it may not.
#[tokio::test(start_paused = true)]
async fn a_log_that_was_left_serves_another_bucket() {
    let mut world = World::new(31);
    let stores: [Arc<dyn ObjectStore>; 2] = [world.store.clone(), Arc::new(InMemory::new())];
    for round in 0..4u8 {
        world.store = stores[usize::from(round) % 2].clone();
        let run = world.start("a").await.expect("starts with either");
        if round < 2 {
            run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        }
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        assert!(is(&device, 0, round.saturating_sub(1)).await);
        device.write(0, vec![round + 1; 4096].into()).await.expect("writes");
        device.flush().await.expect("flushes");
        drop(device);
        if round < 3 {
            run.engine.shutdown().await.expect("stops");
        }
    }
    world.store = stores[0].clone();
    let Err(refused) = world.start("a").await else { panic!("another bucket is taken") };
    assert!(refused.to_string().contains("knows nothing"), "{refused}");
    world.store = stores[1].clone();
    let run = world.start("a").await.expect("starts with its own");
    assert!(is(&run.engine.open_device(&target("disk")).await.expect("attaches"), 0, 4).await);
}

/// A node may release its own volumes without loss, also if it has not opened them since its start.
#[tokio::test(start_paused = true)]
async fn a_release_after_a_clean_stop_loses_nothing() {
    let world = World::new(32);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    drop(run.engine.open_device(&target("disk")).await.expect("attaches"));
    run.engine.shutdown().await.expect("stops");
    drop(run);
    let run = world.start("a").await.expect("starts again");
    let shown = run.engine.show_volume(&name("disk")).await.expect("shows");
    assert!(shown.owned_here && shown.owner.is_some());
    let released = run.engine.release_volume(&name("disk"), false).await.expect("releases");
    assert!(!released.may_lose, "nothing was on its way");
    let shown = run.engine.show_volume(&name("disk")).await.expect("shows");
    assert!(!shown.owned_here && shown.owner.is_none());
}

/// A deleted volume can't be released, whatever is left of it.
#[tokio::test(start_paused = true)]
async fn a_deleted_volume_can_not_be_released() {
    let world = World::new(33);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    drop(device);
    run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    for _ in 0..4 {
        let back = run.engine.rollback_volume(&name("disk"), &name("one"), false).await;
        back.expect("rolls back");
    }
    run.engine.delete_volume(&name("disk"), false, false).await.expect("deletes");
    for force in [false, true] {
        let refused =
            run.engine.release_volume(&name("disk"), force).await.expect_err("it is gone");
        assert!(refused.to_string().contains("deleted"), "{refused}");
    }
}

/// The kind of an ended attachment's error tells the client's next step: attach again, ask the new
/// owner, or stop.
#[tokio::test(start_paused = true)]
async fn each_ending_has_a_kind_of_its_own() {
    let world = World::new(41);
    let run = world.start("a").await.expect("starts");
    let engine = &run.engine;
    for (ending, kind) in [
        ("rolled back", ErrorKind::Detached),
        ("released", ErrorKind::Detached),
        ("deleted", ErrorKind::NotFound),
        ("taken over", ErrorKind::Fenced),
    ] {
        let disk = name(&ending.replace(' ', "-"));
        engine.create_volume(create(disk.as_str(), 1 << 20)).await.expect("creates");
        let device = engine.open_device(&target(disk.as_str())).await.expect("attaches");
        engine.create_snapshot(&disk, Some(&name("one"))).await.expect("snapshots");
        let busy =
            engine.delete_volume(&disk, true, false).await.expect_err("a client is attached");
        assert_eq!(busy.kind(), ErrorKind::Busy, "{ending}: {busy}");
        match ending {
            "rolled back" => {
                engine
                    .rollback_volume(&disk, &name("one"), true)
                    .await
                    .map(drop)
                    .expect("rolls back");
            }
            "released" => engine.release_volume(&disk, true).await.map(drop).expect("releases"),
            "deleted" => engine.delete_volume(&disk, true, true).await.expect("deletes"),
            _ => {
                let theirs = world.neighbour(42).start("b").await.expect("starts");
                theirs.engine.release_volume(&disk, true).await.expect("by force");
                tokio::time::sleep(world.settings.fence_interval * 2).await;
            }
        }
        let zeros = bytes::Bytes::from(vec![0; 512]);
        for result in [
            device.read(0, 512).await.map(drop),
            device.write(0, zeros).await,
            device.zero(0, 512).await,
            device.flush().await,
            device.try_flush().unwrap_or_else(|| panic!("{ending}: a flush waits")),
        ] {
            let error = result.expect_err("the attachment has ended");
            assert_eq!(error.kind(), kind, "{ending}: {error}");
            // A client that connects again by itself must not take another state for this one.
            assert!(!error.ends_attachment(), "{ending}: {error}");
        }
    }
}

async fn objects_of(world: &World) -> Vec<ObjectMeta> {
    world.store.list(None).try_collect().await.expect("lists")
}

/// Bytes of all objects.
async fn bytes_of(world: &World) -> u64 {
    objects_of(world).await.iter().map(|object| object.size).sum()
}

/// Partial blocks are merged with the bucket's, which are read many at once, not one after another.
#[tokio::test(start_paused = true)]
async fn what_partial_blocks_are_merged_with_is_read_at_once() {
    const BLOCKS: u64 = 64;
    const SLOW_MS: u64 = 1000;
    let (mut world, faults) = faulty(11);
    world.cache_bytes = 0;
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 64 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    for block in 0..BLOCKS {
        // No two are equal: equal ones would be stored once.
        device.write(block << 18, vec![block as u8 + 1; 4096].into()).await.expect("writes");
    }
    let open = run.engine.open_volumes().into_iter().next().expect("open");
    open.drain().await.expect("drains");
    open.checkpoint().await.expect("makes a checkpoint");
    for block in 0..BLOCKS {
        device.write(block << 18, vec![2; 512].into()).await.expect("writes");
    }
    let slow = FaultPlan { slow: 1000, slow_ms: SLOW_MS..SLOW_MS + 1, ..FaultPlan::default() };
    faults.set_plan(slow);
    let (calls, began) = (faults.calls(), tokio::time::Instant::now());
    open.drain().await.expect("drains");
    let calls = faults.calls() - calls;
    assert!(calls >= BLOCKS, "{calls} calls: the blocks were not in memory");
    // Simulated time: each call takes equally long, so the time tells how many there were one after
    // another.
    let in_turn = began.elapsed().as_millis() as u64 / SLOW_MS;
    assert!(in_turn < BLOCKS / 4, "{in_turn} calls one after another, of {calls}");
}

/// A caller that goes away during the deletion of a snapshot on its way changes nothing: the
/// snapshot goes.
#[tokio::test(start_paused = true)]
async fn a_deletion_of_a_snapshot_goes_on_without_its_caller() {
    let world = World::new(31);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    let volume = run.engine.open_volumes().remove(0);
    // The refs of snapshots, whose calls hang.
    run.gate.hold(Some(&format!("{}/snap", volume.desc.id)));
    run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (disk, s) = (name("disk"), name("s"));
    let deletion = run.engine.delete_snapshot(&disk, &s);
    let deleted = tokio::time::timeout(Duration::from_secs(1), deletion).await;
    assert!(deleted.is_err(), "nothing was held: {deleted:?}");
    run.gate.hold(None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    volume.drain().await.expect("drains");
    drop((device, volume, run));
    let run = world.start("a").await.expect("starts again");
    let volume = run.engine.open_device(&target("disk")).await.expect("attaches");
    let listed = run.engine.list_snapshots(&disk).await.expect("lists");
    assert!(listed.is_empty(), "a snapshot that was deleted is back: {listed:?}");
    drop(volume);
}

/// A later start does not undo a deletion whose tombstone the bucket did not take in a command's
/// time.
#[tokio::test(start_paused = true)]
async fn a_deletion_in_an_outage_is_not_forgotten_with_its_record() {
    let mut world = World::new(34);
    (world.settings.checkpoint_segments_max, world.settings.idle_age) = (1000, NEVER);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    let volume = run.engine.open_volumes().remove(0);
    volume.drain().await.expect("drains");
    // The snapshot's barrier stays on its way, and no PUT arrives.
    run.gate.hold_puts("");
    let (disk, s) = (name("disk"), name("s"));
    run.engine.create_snapshot(&disk, Some(&s)).await.expect("snapshots");
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.engine.delete_snapshot(&disk, &s).await.expect("deletes");
    run.gate.hold(None);
    device.write(0, vec![2; 4096].into()).await.expect("writes");
    volume.drain().await.expect("drains");
    assert!(run.engine.is_drained(), "the record that cancels it is still in the log");
    drop((device, volume, run));
    let run = world.start("a").await.expect("starts again");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    let listed = run.engine.list_snapshots(&disk).await.expect("lists");
    assert!(listed.is_empty(), "a snapshot that was deleted is back: {listed:?}");
    assert!(is(&device, 0, 2).await);
}

/// A caller that goes away while a volume is made smaller changes nothing: the volume is made
/// smaller.
#[tokio::test(start_paused = true)]
async fn a_resize_goes_on_without_its_caller() {
    let mut world = World::new(35);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    // The log fills, so that every record waits for room.
    run.gate.hold_puts("streams/");
    for len in [64 << 10, 512] {
        let fill = async {
            for at in (0..4 << 20).step_by(64 << 10).cycle() {
                device.write(at, vec![1; len].into()).await.expect("writes");
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), fill).await.is_err());
    }
    let disk = name("disk");
    let resize = run.engine.resize_volume(&disk, 1 << 20, true);
    let resized = tokio::time::timeout(Duration::from_secs(1), resize).await;
    assert!(resized.is_err(), "the log had room: {resized:?}");
    run.gate.hold(None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = run.engine.show_volume(&disk).await.expect("shows");
    assert_eq!(shown.size_bytes, 1 << 20, "half of it was done");
    run.engine.resize_volume(&disk, 4 << 20, false).await.expect("grows");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    assert!(is(&device, 0, 1).await && is(&device, 1 << 20, 0).await);
}

/// A head that can't be deleted keeps no other from deletion.
#[tokio::test(start_paused = true)]
async fn one_old_head_that_stays_keeps_no_other() {
    let world = World::new(36);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    let volume = run.engine.open_volumes().remove(0);
    for round in 0..6 {
        device.write(0, vec![round + 1; 4096].into()).await.expect("writes");
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
        if round == 0 {
            let first = heads(&world).await.remove(0);
            run.gate.hold(Some(first.as_ref()));
        }
    }
    assert_eq!(heads(&world).await.len(), 2, "the first, and the newest");
    let deleted = run.engine.delete_volume(&name("disk"), true, true).await;
    assert!(deleted.is_err(), "its first head can't be deleted");
    assert_eq!(heads(&world).await.len(), 1, "the first keeps the newest from deletion");
    run.gate.hold(None);
    run.engine.delete_volume(&name("disk"), true, true).await.expect("deletes");
    assert_eq!(heads(&world).await.len(), 0);
}

/// A forced rollback that fails cuts no client off.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_fails_leaves_clients_alone() {
    let world = World::new(32);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
    let volume = run.engine.open_volumes().remove(0);
    volume.drain().await.expect("drains");
    device.write(0, vec![2; 4096].into()).await.expect("writes");
    // The snapshot's objects can't be read.
    let all: Vec<ObjectMeta> = world.store.list(None).try_collect().await.expect("lists");
    let prefix = format!("streams/{}", volume.stream);
    for segment in all.iter().filter(|o| o.location.as_ref().starts_with(&prefix)) {
        world.store.put(&segment.location, "no segment".into()).await.expect("overwrites");
    }
    let back = run.engine.rollback_volume(&name("disk"), &name("s"), true).await;
    assert!(back.is_err(), "it rolls back");
    device.read(0, 4096).await.expect("reads");
    device.write(0, vec![3; 4096].into()).await.expect("writes");
    assert!(is(&device, 0, 3).await, "a write is lost");
}

/// A start that no longer waits for a volume leaves no incarnation of it behind that goes on by
/// itself.
#[tokio::test(start_paused = true)]
async fn an_opening_that_is_given_up_leaves_nothing_behind() {
    let never = Duration::from_secs(1_000_000);
    let mut given_up = 0;
    for calls in 0..100 {
        let mut world = World::new(33);
        (world.settings.comeback_first, world.settings.idle_age) = (never, never);
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        device.write(0, vec![1; 4096].into()).await.expect("writes");
        run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
        run.engine.open_volumes()[0].drain().await.expect("drains");
        drop(device);
        // The machine dies within a rollback: a volume whose stream ends with one is opened with a
        // checkpoint.
        run.gate.shut_after(calls);
        let (disk, s) = (name("disk"), name("s"));
        let rollback = run.engine.rollback_volume(&disk, &s, false);
        let done = tokio::time::timeout(Duration::from_secs(60), rollback).await;
        drop(run);
        if matches!(done, Ok(Ok(_))) {
            break;
        }
        world.disk.crash(1);
        let gate = Gate::new(world.store.clone());
        gate.hold_puts("/head");
        let run = world.start_behind("a", gate).await.expect("starts without it");
        if run.engine.open_volumes().is_empty() {
            let before = heads(&world).await;
            run.gate.hold(None);
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(heads(&world).await, before, "after {calls} calls of a rollback");
            given_up += 1;
        }
    }
    assert!(given_up > 0, "no opening waited for its checkpoint");
}

async fn heads(world: &World) -> Vec<Path> {
    let all: Vec<ObjectMeta> = world.store.list(None).try_collect().await.expect("lists");
    let heads = all.into_iter().map(|object| object.location);
    heads.filter(|at| at.as_ref().contains("/head")).collect()
}

/// The first caller of a snapshot may have given up before it was durable. The next steps of its
/// client delete older ones.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_said_to_exist_is_durable() {
    let world = World::new(34);
    let run = world.start("a").await.expect("starts");
    let new = CreateVolume { flush: Some(FlushLevel::Bucket), ..create("disk", 1 << 20) };
    run.engine.create_volume(new).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    run.gate.hold_puts("streams/");
    let (disk, s) = (name("disk"), name("s"));
    let take = || {
        let taken = run.engine.create_snapshot(&disk, Some(&s));
        tokio::time::timeout(Duration::from_secs(120), taken)
    };
    for attempt in 0..2 {
        assert!(take().await.is_err(), "attempt {attempt}: the bucket has it not");
    }
    run.gate.hold(None);
    let error = take().await.expect("it is answered").expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::Exists);
}

/// A client that connects again asks about the volume before it attaches; an outage must not keep
/// it.
#[tokio::test(start_paused = true)]
async fn what_is_open_here_is_described_without_the_bucket() {
    let world = World::new(35);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let _device = run.engine.open_device(&target("disk")).await.expect("attaches");
    run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
    run.engine.open_volumes()[0].drain().await.expect("drains");
    run.gate.hold(Some(""));
    let told = async {
        let info = run.engine.show_volume(&name("disk")).await.expect("told");
        let snapshots = run.engine.list_snapshots(&name("disk")).await.expect("told");
        (info, snapshots)
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await;
    let (info, snapshots) = told.expect("no answer of the bucket is needed");
    assert_eq!((info.size_bytes, info.owned_here, snapshots.len()), (1 << 20, true, 1));
}
