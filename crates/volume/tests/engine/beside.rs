//! One volume, client or command must not harm those beside it.

use crate::rig::{Running, World, create, name, target};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use skerry_core::env::Entropy;
use skerry_core::names;
use skerry_core::position::{Number, SegmentKey};
use skerry_core::refs::PUBLISHED;
use skerry_store::objects::faulty::{FaultPlan, Faulty};
use skerry_volume::{CreateVolume, Device, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longer than anything may take here, on the simulated clock.
const PATIENCE: Duration = Duration::from_secs(1000);
/// Longer than any test lasts.
const NEVER: Duration = Duration::from_secs(1_000_000);

async fn attach(run: &Running, volume: &str) -> Arc<Device> {
    run.engine.open_device(&target(volume)).await.expect("attaches")
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("it takes for ever: {what}"),
    }
}

/// A client that attaches during a rollback sees one state: the new one, or errors once the old one
/// is gone.
#[tokio::test(start_paused = true)]
async fn who_attaches_during_a_rollback_sees_one_state() {
    let store = Faulty::new(Arc::new(InMemory::new()), 1, FaultPlan::default());
    let faults = store.faults();
    let world = World::over(1, Arc::new(store));
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    device.write(0, vec![2; 4096].into()).await.expect("writes");
    drop(device);
    faults.set_plan(FaultPlan { slow: 1000, slow_ms: 100..300, ..FaultPlan::default() });
    let engine = run.engine.clone();
    let rollback = tokio::spawn(async move {
        engine.rollback_volume(&name("disk"), &name("one"), true).await.map(drop)
    });
    let mut clients = Vec::new();
    while !rollback.is_finished() {
        let engine = run.engine.clone();
        clients.push(tokio::spawn(async move {
            let device = engine.open_device(&target("disk")).await.expect("attaches");
            let before = device.read(0, 512).await.expect("reads");
            (device, before)
        }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rollback.await.expect("a task").expect("rolls back");
    assert!(clients.len() > 10, "nobody attached meanwhile");
    for client in clients {
        let (device, before) = in_time("attaching", client).await.expect("a task");
        if let Ok(after) = device.read(0, 512).await {
            assert_eq!(before, after, "one connection saw two states");
        }
    }
}

/// A volume of 1 MiB of ones with a full log, while no segment gets into the bucket. Every change
/// of the volume has to wait.
async fn full_disk(seed: u64) -> Running {
    let mut world = World::new(seed);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    device.write(0, vec![1; 1 << 20].into()).await.expect("writes");
    run.gate.hold_puts(names::STREAMS);
    for len in [64 << 10, 512] {
        let fill = async {
            for at in (0..1 << 20).step_by(64 << 10).cycle() {
                device.write(at, vec![1; len].into()).await.expect("writes");
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), fill).await.is_err());
    }
    run
}

/// Clients that attach while `change` is under way, each with its result, and with its last block.
async fn attached_during(
    run: &Running,
    change: impl Future<Output = skerry_volume::Result<()>> + Send + 'static,
) -> Vec<skerry_volume::Result<(Arc<Device>, u8)>> {
    let changed = tokio::spawn(change);
    let mut clients = Vec::new();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let engine = run.engine.clone();
        clients.push(tokio::spawn(async move {
            let device = engine.open_device(&target("disk")).await?;
            let last = device.read(device.size_bytes() - 4096, 4096).await?[0];
            Ok((device, last))
        }));
    }
    assert!(!changed.is_finished(), "nobody attached meanwhile");
    run.gate.hold(None);
    in_time("the change", changed).await.expect("a task").expect("is made");
    let mut all = Vec::new();
    for client in clients {
        all.push(in_time("attaching", client).await.expect("a task"));
    }
    all
}

/// A client that attaches while a volume is made smaller sees the new volume, and no half of it.
#[tokio::test(start_paused = true)]
async fn who_attaches_during_a_resize_sees_one_state() {
    let run = full_disk(15).await;
    let engine = run.engine.clone();
    let shrink =
        async move { engine.resize_volume(&name("disk"), 512 << 10, true).await.map(drop) };
    for client in attached_during(&run, shrink).await {
        let (device, last) = client.expect("attaches");
        assert_eq!((device.size_bytes(), last), (512 << 10, 1));
    }
}

/// A client that attaches while a volume is deleted gets an error, and never keeps a deleted
/// volume.
#[tokio::test(start_paused = true)]
async fn who_attaches_during_a_deletion_is_refused() {
    let run = full_disk(16).await;
    let engine = run.engine.clone();
    let delete = async move { engine.delete_volume(&name("disk"), true, false).await };
    for client in attached_during(&run, delete).await {
        let Err(error) = client else { panic!("a client is attached to a volume that is gone") };
        assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Detached), "{error}");
    }
}

/// A volume whose objects the bucket does not give keeps no other from being opened.
#[tokio::test(start_paused = true)]
async fn a_volume_that_opens_slowly_keeps_no_other_waiting() {
    let world = World::new(2);
    let run = world.start("a").await.expect("starts");
    let slow = run.engine.create_volume(create("slow", 1 << 20)).await.expect("creates");
    run.engine.create_volume(create("quick", 1 << 20)).await.expect("creates");
    // Its heads, which a claim lists: the calls before a claim succeed.
    run.gate.hold(Some(&format!("{}/head", slow.id)));
    let engine = run.engine.clone();
    let opening = tokio::spawn(async move { engine.open_device(&target("slow")).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(in_time("opening another volume", attach(&run, "quick")).await);
    assert!(!opening.is_finished());
    run.gate.hold(None);
    in_time("opening the slow volume", opening).await.expect("a task").expect("opens");
}

/// A volume that writes little takes the log's room from no other, however long its records could
/// wait.
#[tokio::test(start_paused = true)]
async fn a_neighbour_that_writes_little_takes_no_room() {
    let mut world = World::new(3);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    world.log.file_bytes = 256 << 10;
    world.log.cap_bytes = 8 * (256 << 10);
    let run = world.start("a").await.expect("starts");
    for disk in ["quiet", "busy"] {
        run.engine.create_volume(create(disk, 4 << 20)).await.expect("creates");
    }
    let (quiet, busy) = (attach(&run, "quiet").await, attach(&run, "busy").await);
    for round in 0..100u64 {
        quiet.write(round * 512, vec![7; 512].into()).await.expect("writes");
        let data = vec![round as u8 + 1; 64 << 10];
        let at = (round % 64) * (64 << 10);
        in_time("a write beside an idle volume", busy.write(at, data.into()))
            .await
            .expect("writes");
    }
    let read = quiet.read(0, 100 * 512).await.expect("reads");
    assert!(read.iter().all(|byte| *byte == 7));
}

/// A disk that is full before the log's cap is reached is a lower cap: the neighbour is destaged
/// then, too.
#[tokio::test(start_paused = true)]
async fn a_neighbour_takes_no_room_of_a_log_whose_disk_is_full() {
    let mut world = World::new(3);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    world.log.cap_bytes = 100 * world.log.file_bytes;
    world.log.spare_bytes = 0;
    let run = world.start("a").await.expect("starts");
    for disk in ["quiet", "busy"] {
        run.engine.create_volume(create(disk, 4 << 20)).await.expect("creates");
    }
    let (quiet, busy) = (attach(&run, "quiet").await, attach(&run, "busy").await);
    for round in 0..100u64 {
        if round == 16 {
            world.disk.set_full(true);
        }
        if round % 4 == 0 {
            in_time("a small write", quiet.write(round * 512, vec![7; 512].into()))
                .await
                .expect("writes");
        }
        let data = vec![round as u8 + 1; 64 << 10];
        let at = (round % 64) * (64 << 10);
        in_time("a write on a full disk", busy.write(at, data.into())).await.expect("writes");
    }
}

/// Batches of a deleted volume leave the memory that all volumes share, also while there is no room
/// to park its tail.
#[tokio::test(start_paused = true)]
async fn a_volume_that_is_gone_holds_no_buffers() {
    let mut world = World::new(9);
    world.settings.buffer_bytes_max = 100 << 10;
    let run = world.start("a").await.expect("starts");
    for disk in ["one", "two"] {
        run.engine.create_volume(create(disk, 1 << 20)).await.expect("creates");
    }
    let (one, two) = (attach(&run, "one").await, attach(&run, "two").await);
    let stream = |disk: &str| {
        let volumes = run.engine.open_volumes();
        volumes.iter().find(|volume| volume.name() == disk).expect("open").clone()
    };
    let noise = || {
        let mut data = vec![0; 64 << 10];
        world.entropy.fill(&mut data);
        data
    };
    run.gate.hold_puts(&stream("one").stream.to_string());
    one.write(0, noise().into()).await.expect("writes");
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.parked.is_full.store(true, Ordering::Relaxed);
    let other = world.neighbour(10).start("b").await.expect("starts");
    other.engine.release_volume(&name("one"), true).await.expect("releases");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(one.read(0, 512).await.is_err(), "it is still in service");
    two.write(0, noise().into()).await.expect("writes");
    in_time("destaging beside a volume that is gone", stream("two").drain()).await.expect("drains");
}

/// Reading ahead waits for no outage: it holds memory and the device meanwhile.
#[tokio::test(start_paused = true)]
async fn reading_ahead_waits_for_no_outage() {
    let store = Faulty::new(Arc::new(InMemory::new()), 10, FaultPlan::default());
    let faults = store.faults();
    let world = World::over(10, Arc::new(store));
    {
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        let device = attach(&run, "disk").await;
        device.write(0, vec![1; 4096].into()).await.expect("writes");
        run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
        run.engine.open_volumes()[0].drain().await.expect("drains");
    }
    let run = world.start("a").await.expect("starts again");
    for export in ["disk", "disk@s"] {
        let device = attach(&run, export).await;
        let refusal = Some(skerry_store::objects::faulty::Refusal::ALL[0]);
        faults.set_plan(FaultPlan { refusal, ..FaultPlan::default() });
        in_time("reading ahead", device.prefetch(0, 4096)).await;
        faults.set_plan(FaultPlan::default());
    }
}

/// Clients of one snapshot share its first reads, however many there are.
#[tokio::test(start_paused = true)]
async fn clients_of_one_snapshot_share_what_it_takes() {
    let world = World::new(11);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    for block in 0..20u64 {
        device.write(block * 4096, vec![1; 4096].into()).await.expect("writes");
    }
    run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
    run.engine.open_volumes()[0].drain().await.expect("drains");
    let overlays = || run.engine.context().overlay_bytes();
    let before = (run.gate.calls(), overlays());
    let first = attach(&run, "disk@s").await;
    let one = (run.gate.calls() - before.0, overlays() - before.1);
    assert!(one.1 > 0, "its changes are counted nowhere");
    let mut more = Vec::new();
    for _ in 0..32 {
        more.push(attach(&run, "disk@s").await);
    }
    let all = (run.gate.calls() - before.0, overlays() - before.1);
    assert_eq!(all.1, one.1, "each takes memory of its own");
    assert!(all.0 < one.0 + 32 * 5, "{} calls for 33 clients, {} for one", all.0, one.0);
    drop((first, more));
    assert_eq!(overlays(), before.1);
    let device = attach(&run, "disk@s").await;
    assert_eq!(device.read(0, 4096).await.expect("reads"), vec![1; 4096]);
}

/// So do clients that read without a pin, of a node that may only read the bucket.
#[tokio::test(start_paused = true)]
async fn clients_without_a_pin_share_what_a_snapshot_takes() {
    let store = Faulty::new(Arc::new(InMemory::new()), 12, FaultPlan::default());
    let faults = store.faults();
    let world = World::over(12, Arc::new(store));
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
    run.engine.open_volumes()[0].drain().await.expect("drains");
    drop((device, run));
    faults.set_plan(FaultPlan { deny_writes: true, ..FaultPlan::default() });
    let reader = world.neighbour(13).start("b").await.expect("starts");
    let overlays = || reader.engine.context().overlay_bytes();
    let first = attach(&reader, "disk@s").await;
    let one = overlays();
    let second = attach(&reader, "disk@s").await;
    assert!(one > 0 && overlays() == one, "{one} bytes for one, {} for two", overlays());
    assert_eq!(second.read(0, 4096).await.expect("reads"), vec![1; 4096]);
    // A client that can pin again does so, and earlier clients do it no harm.
    faults.set_plan(FaultPlan::default());
    let third = attach(&reader, "disk@s").await;
    let pinned = overlays();
    let fourth = attach(&reader, "disk@s").await;
    assert!(pinned > one && overlays() == pinned, "{pinned} bytes, then {}", overlays());
    drop((first, second, third, fourth));
    assert_eq!(overlays(), 0);
}

/// A trim over a fragmented index is written in pieces. Each piece holds the volume up for moments
/// only.
#[tokio::test(start_paused = true)]
async fn a_fragmented_trim_is_written_in_pieces() {
    const EXTENTS: u64 = 5000;
    let mut world = World::new(14);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    world.log.cap_bytes = 64 << 20;
    let mut run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 64 << 20)).await.expect("creates");
    let mut device = attach(&run, "disk").await;
    run.gate.hold_puts(names::STREAMS);
    for n in 0..EXTENTS {
        device.write(n * 4096 + 512, vec![1; 512].into()).await.expect("writes");
    }
    let end = || run.engine.context().log.end_position().as_u64();
    let before = end();
    device.zero(0, 64 << 20).await.expect("trims");
    let records = (end() - before) / 512;
    assert!((3..20).contains(&records), "{records} records");
    for when in ["at once", "replayed", "destaged"] {
        match when {
            "replayed" => {
                device.flush().await.expect("flushes");
                drop((device, run));
                run = world.start("a").await.expect("starts again");
                device = attach(&run, "disk").await;
                assert!(!run.engine.is_drained(), "all of it is in the bucket");
            }
            "destaged" => run.engine.open_volumes()[0].drain().await.expect("drains"),
            _ => {}
        }
        for n in [0, 1, EXTENTS / 2, EXTENTS - 1] {
            let read = device.read(n * 4096, 4096).await.expect("reads");
            assert!(read.iter().all(|byte| *byte == 0), "{n}, {when}");
        }
    }
}

async fn segments(world: &World) -> usize {
    let all: Vec<_> = world.store.list(None).try_collect().await.expect("lists");
    all.iter().filter(|object| object.location.as_ref().starts_with("streams/")).count()
}

/// Small writes all over large blocks are put together in pieces of the memory that a segment may
/// take.
#[tokio::test(start_paused = true)]
async fn batches_are_cut_by_their_blocks() {
    const BLOCK: u64 = 64 << 10;
    let mut world = World::new(4);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    world.settings.segment_bytes = 1 << 20;
    let run = world.start("a").await.expect("starts");
    let made = CreateVolume { block_size_bytes: BLOCK, ..create("disk", 64 * BLOCK) };
    run.engine.create_volume(made).await.expect("creates");
    let device = attach(&run, "disk").await;
    let before = segments(&world).await;
    for block in 0..64 {
        device.write(block * BLOCK, vec![block as u8 + 1; 512].into()).await.expect("writes");
    }
    run.engine.open_volumes()[0].drain().await.expect("drains");
    let made = segments(&world).await - before;
    assert!(made >= 4, "{made} segments of 64 blocks of 64 KiB, 1 MiB each");
}

/// Volumes that share a small budget of buffers all make progress.
#[tokio::test(start_paused = true)]
async fn volumes_share_one_budget_of_buffers() {
    let mut world = World::new(5);
    world.settings.buffer_bytes_max = 100 << 10;
    let run = world.start("a").await.expect("starts");
    let mut writers = Vec::new();
    for n in 0..6u64 {
        let disk = format!("disk-{n}");
        run.engine.create_volume(create(&disk, 1 << 20)).await.expect("creates");
        let device = attach(&run, &disk).await;
        writers.push(tokio::spawn(async move {
            for at in 0..128u64 {
                // Parts of blocks are merged with the bucket's.
                let offset = (at * 7 % 120) * 4096 + (at % 8) * 512;
                device.write(offset, vec![n as u8 + 1; 4608].into()).await?;
            }
            Ok::<_, skerry_volume::Error>(device)
        }));
    }
    for writer in writers {
        in_time("writing", writer).await.expect("a task").expect("writes");
    }
    for volume in run.engine.open_volumes() {
        in_time("draining", volume.drain()).await.expect("drains");
    }
}

/// A request across the end of a smaller volume changes nothing, also if it is cut into records.
#[tokio::test(start_paused = true)]
async fn a_request_across_the_new_end_changes_nothing() {
    let world = World::new(6);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    device.write(0, vec![1; 1 << 20].into()).await.expect("writes");
    run.engine.resize_volume(&name("disk"), 512 << 10, true).await.expect("shrinks");
    let start = (512 << 10) - 2 * world.settings.record_bytes_max as u64;
    let refused = device.write(start, vec![2; 256 << 10].into()).await;
    assert_eq!(refused.expect_err("it ends beyond the end").kind(), ErrorKind::Invalid);
    let refused = device.zero(start, 256 << 10).await;
    assert_eq!(refused.expect_err("it ends beyond the end").kind(), ErrorKind::Invalid);
    let read = device.read(0, 512 << 10).await.expect("reads");
    assert!(read.iter().all(|byte| *byte == 1), "a part of the request was applied");
}

/// A status agrees with reads, however many ranges there are, and wherever they are kept.
#[tokio::test(start_paused = true)]
async fn a_long_map_is_told_piece_by_piece() {
    let mut world = World::new(7);
    world.settings.overlay_bytes_max = 1 << 20;
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 16 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    let volume = run.engine.open_volumes().pop().expect("it is open");
    let mut wanted = vec![false; (16 << 20) / 512];
    for layer in 0..3u64 {
        for n in 0..600u64 {
            let sector = n * 48 + layer * 8;
            device.write(sector * 512, vec![1; 512].into()).await.expect("writes");
            wanted[sector as usize] = true;
        }
        match layer {
            0 => volume.checkpoint().await.expect("makes a checkpoint"),
            1 => volume.drain().await.expect("drains"),
            _ => {}
        }
    }
    let (mut at, mut ranges) = (0, 0);
    while at < 16 << 20 {
        let told = device.status(at, (16 << 20) - at, 64).await.expect("tells");
        assert!(!told.is_empty() && told.len() <= 64);
        for range in told {
            assert_eq!(range.offset, at);
            at += range.length;
            ranges += 1;
            let sectors = range.offset as usize / 512..(at as usize) / 512;
            let has_data = wanted[sectors].contains(&true);
            assert!(!(range.hole && has_data), "{range:?} is no hole");
        }
    }
    assert!(ranges > 600, "{ranges}");
}

/// A client that reads all the time.
fn client_of(device: &Arc<Device>) -> tokio::task::JoinHandle<()> {
    let reader = device.clone();
    tokio::spawn(async move {
        loop {
            reader.read(2 << 20, 512).await.expect("reads");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// Time to destage 1 MiB of a volume, on the simulated clock, where a segment takes a hundredth of
/// a millisecond to build. With `wanted`, a caller waits for it.
async fn destaging(clients: bool, wanted: bool) -> Duration {
    let mut world = World::new(8);
    world.log.cap_bytes = 64 << 20;
    world.settings.dirty_age = NEVER;
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    world.clock.look_us.store(10, Ordering::Relaxed);
    let client = clients.then(|| client_of(&device));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    device.write(0, vec![1; 1 << 20].into()).await.expect("writes");
    let volume = run.engine.open_volumes().pop().expect("it is open");
    let wait = async {
        while volume.undestaged(Duration::ZERO).0 > 0 {
            tokio::time::sleep(Duration::from_micros(10)).await;
        }
    };
    match wanted {
        true => volume.drain().await.expect("drains"),
        false => in_time("destaging", wait).await,
    }
    if let Some(client) = client {
        client.abort();
    }
    began.elapsed()
}

/// Destage rests between its steps while clients are active, unless a caller waits for it.
#[tokio::test(start_paused = true)]
async fn destage_leaves_active_clients_the_processor() {
    let alone = destaging(false, false).await;
    let beside = destaging(true, false).await;
    let wanted = destaging(true, true).await;
    assert!(beside > alone * 2, "{beside:?} beside clients, {alone:?} alone");
    assert!(wanted <= alone * 2, "{wanted:?} with a caller that waits, {alone:?} alone");
}

/// A volume with 2,000 leaves to write: after some more segments, or when a caller waits for it.
async fn scattered(seed: u64) -> (World, Running, Arc<Device>) {
    let mut world = World::new(seed);
    (world.settings.dirty_age, world.settings.idle_age) = (NEVER, NEVER);
    world.settings.segment_bytes = 32 << 20;
    world.settings.overlay_bytes_max = 16 << 20;
    world.settings.checkpoint_segments_max = 16;
    (world.log.cap_bytes, world.cache_bytes) = (64 << 20, 64 << 20);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 30)).await.expect("creates");
    let device = attach(&run, "disk").await;
    for leaf in 0..2000u64 {
        device.write(leaf * (512 << 10), vec![1; 512].into()).await.expect("writes");
    }
    run.engine.open_volumes()[0].drain().await.expect("drains");
    (world, run, device)
}

async fn heads(world: &World) -> Vec<Path> {
    let all: Vec<_> = world.store.list(None).try_collect().await.expect("lists");
    let all = all.into_iter().map(|object| object.location);
    all.filter(|at| at.as_ref().contains("/head/")).collect()
}

/// Time of that checkpoint on the simulated clock, where each look at the clock takes a hundredth
/// of a millisecond. With `wanted`, a caller waits for it.
async fn checking_in(clients: bool, wanted: bool) -> Duration {
    let (world, run, device) = scattered(17).await;
    let client = clients.then(|| client_of(&device));
    world.clock.look_us.store(10, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let volume = run.engine.open_volumes().pop().expect("it is open");
    let began = tokio::time::Instant::now();
    match wanted {
        true => volume.checkpoint().await.expect("makes a checkpoint"),
        false => {
            let before = heads(&world).await;
            let wait = async {
                while heads(&world).await == before {
                    device.write(0, vec![2; 512].into()).await.expect("writes");
                    volume.drain().await.expect("drains");
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            };
            in_time("a checkpoint", wait).await;
        }
    }
    if let Some(client) = client {
        client.abort();
    }
    began.elapsed()
}

/// A checkpoint rests between its nodes while clients are active, unless a caller waits for it.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_leaves_active_clients_the_processor() {
    let alone = checking_in(false, false).await;
    let beside = checking_in(true, false).await;
    let wanted = checking_in(true, true).await;
    assert!(beside > alone + Duration::from_millis(50), "{beside:?} beside, {alone:?} alone");
    assert!(wanted <= alone * 2, "{wanted:?} with a caller that waits, {alone:?} alone");
}

/// Time of a sweep where each look at the clock takes a millisecond.
async fn sweeping(clients: bool) -> Duration {
    let (world, run, device) = scattered(18).await;
    run.engine.open_volumes()[0].checkpoint().await.expect("makes a checkpoint");
    let client = clients.then(|| client_of(&device));
    world.clock.look_us.store(1000, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    in_time("a sweep", run.engine.sweep()).await.expect("sweeps");
    if let Some(client) = client {
        client.abort();
    }
    began.elapsed()
}

/// So does a sweep, between the nodes that it looks at.
#[tokio::test(start_paused = true)]
async fn a_sweep_leaves_active_clients_the_processor() {
    let (alone, beside) = (sweeping(false).await, sweeping(true).await);
    assert!(beside > alone + Duration::from_millis(5), "{beside:?} beside, {alone:?} alone");
}

/// The deletes of a collection run concurrently. One that hangs keeps neither a snapshot nor a
/// checkpoint waiting.
#[tokio::test(start_paused = true)]
async fn a_delete_that_hangs_holds_nothing_up() {
    const SEGMENTS: u64 = 15;
    let store = Arc::new(InMemory::new());
    let mut world = World::over(1, store.clone());
    (world.settings.idle_age, world.settings.sweep_first) = (NEVER, NEVER);
    world.settings.checkpoint_segments_max = 64;
    world.settings.overlay_bytes_max = 1 << 20;
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    let volume = run.engine.open_volumes().remove(0);
    for _ in 0..SEGMENTS {
        let mut data = vec![0; 4096];
        world.entropy.fill(&mut data);
        device.write(0, data.into()).await.expect("writes");
        volume.drain().await.expect("drains");
    }
    volume.checkpoint().await.expect("makes a checkpoint");
    let segment = |n| names::segment(SegmentKey { stream: volume.stream, number: Number(n) });
    run.gate.hold(Some(&segment(2)));
    let engine = run.engine.clone();
    let swept = tokio::spawn(async move { engine.sweep().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut left = Vec::new();
    for n in 1..=SEGMENTS {
        if store.head(&Path::from(segment(n))).await.is_ok() {
            left.push(n);
        }
    }
    assert_eq!(left, [2, SEGMENTS], "all but the one that hangs, and the last, which is in use");
    let snapshot = async {
        let (disk, one) = (name("disk"), name("one"));
        run.engine.create_snapshot(&disk, Some(&one)).await.expect("snapshots");
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
    };
    in_time("a snapshot beside a collection", snapshot).await;
    assert!(!swept.is_finished(), "the delete hangs no more");
    run.gate.hold(None);
    let swept = in_time("the sweep", swept).await.expect("no panic").expect("sweeps");
    assert!(swept as u64 >= SEGMENTS - 1, "{swept} segments");
}

/// A label comes before its ref. A reader that sees the label alone is told to try again, and not
/// that nothing is there.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_has_only_its_label_is_on_its_way() {
    let store = Arc::new(InMemory::new());
    let world = World::over(1, store.clone());
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    let (disk, one) = (name("disk"), name("one"));
    let made = run.engine.create_snapshot(&disk, Some(&one)).await.expect("snapshots");
    let volume = run.engine.open_volumes().remove(0);
    volume.drain().await.expect("drains");
    let made = names::snapshot(volume.desc.id, made.id, PUBLISHED);
    let found = store.get(&Path::from(made.clone())).await.expect("its ref").bytes().await;
    store.delete(&Path::from(made.clone())).await.expect("deletes");
    let other = world.neighbour(2).start("b").await.expect("starts");
    let listed = other.engine.list_snapshots(&disk).await.expect("lists");
    assert_eq!(listed.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["one"]);
    let clone = async |of: &str| {
        other.engine.clone_volume(&disk, &name(of), &name("copy"), None).await.map(drop)
    };
    let opened = other.engine.open_device(&target("disk@one")).await.map(drop);
    for refused in [clone("one").await, opened] {
        let error = refused.expect_err("there is no ref");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("disk@one is not in the bucket yet"), "{error}");
    }
    let error = clone("two").await.expect_err("there is no label either");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    store.put(&Path::from(made), found.expect("bytes").into()).await.expect("puts");
    clone("one").await.expect("clones");
}

/// Once, a segment that could not be deleted made each later pass delete all of its own again.
#[tokio::test(start_paused = true)]
async fn a_locked_segment_makes_no_pass_delete_all_again() {
    const SEGMENTS: u64 = 100;
    let mut world = World::new(19);
    (world.settings.idle_age, world.settings.sweep_first) = (NEVER, NEVER);
    world.settings.checkpoint_segments_max = 1000;
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    let device = attach(&run, "disk").await;
    let volume = run.engine.open_volumes().remove(0);
    let write = async || {
        let mut data = vec![0; 4096];
        world.entropy.fill(&mut data);
        device.write(0, data.into()).await.expect("writes");
        volume.drain().await.expect("drains");
    };
    for _ in 0..SEGMENTS {
        write().await;
    }
    let locked = SegmentKey { stream: volume.stream, number: Number(2) };
    run.gate.lock(&names::segment(locked));
    let before = segments(&world).await;
    let mut calls = Vec::new();
    for _ in 0..5 {
        let before = run.gate.calls();
        write().await;
        volume.checkpoint().await.expect("makes a checkpoint");
        // The collection comes after it.
        tokio::time::sleep(Duration::from_secs(10)).await;
        calls.push(run.gate.calls() - before);
    }
    assert!(segments(&world).await < before / 2, "nothing was collected");
    assert!(calls[0] > SEGMENTS && calls[1..].iter().all(|n| *n < SEGMENTS / 2), "{calls:?}");
}
