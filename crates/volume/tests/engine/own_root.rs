//! Snapshots that get a root of their own, so that they hold only their own data.

use crate::rig::{Running, TokioClock, World, create, name, target};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use skerry_core::descriptor::FlushLevel;
use skerry_core::env::Entropy;
use skerry_core::names;
use skerry_store::objects::meter::{CallKind, Counters, Meter};
use skerry_volume::{CreateVolume, Device};
use std::sync::Arc;
use std::time::Duration;

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

/// A world of the default sizes, in which only the tested operations happen.
fn world(store: Arc<dyn ObjectStore>) -> World {
    let mut world = World::over(1, store);
    let never = Duration::from_secs(1_000_000);
    let defaults = skerry_volume::EngineSettings::default();
    world.settings.segment_bytes = 8 << 20;
    world.settings.overlay_bytes_max = 64 << 20;
    world.settings.checkpoint_segments_max = 64;
    world.settings.drain_nodes_max = defaults.drain_nodes_max;
    world.settings.snapshot_garbage_bytes_max = defaults.snapshot_garbage_bytes_max;
    world.settings.snapshot_drain_nodes_max = defaults.snapshot_drain_nodes_max;
    world.settings.dirty_age = never;
    world.settings.idle_age = never;
    world.settings.sweep_first = never;
    world.settings.fence_interval = never;
    world.cache_bytes = 16 << 20;
    world.log.file_bytes = 8 << 20;
    world.log.cap_bytes = 256 << 20;
    world.log.buffer_bytes = 8 << 20;
    world
}

async fn disk(run: &Running, flush: FlushLevel) -> Arc<Device> {
    let new = CreateVolume { flush: Some(flush), ..create("disk", 1 << 30) };
    run.engine.create_volume(new).await.expect("creates");
    run.engine.open_device(&target("disk")).await.expect("attaches")
}

/// Writes bytes that can't be compressed; gives them.
async fn fill(world: &World, device: &Device, range: std::ops::Range<u64>) -> Vec<u8> {
    let mut all = vec![0; (range.end - range.start) as usize];
    world.entropy.fill(&mut all);
    for (i, data) in all.chunks(MIB as usize).enumerate() {
        let at = range.start + i as u64 * MIB;
        device.write(at, bytes::Bytes::copy_from_slice(data)).await.expect("writes");
    }
    all
}

async fn drain(run: &Running) {
    for volume in run.engine.open_volumes() {
        volume.drain().await.expect("drains");
    }
}

async fn settle(run: &Running) {
    drain(run).await;
    for volume in run.engine.open_volumes() {
        volume.checkpoint().await.expect("makes a checkpoint");
    }
}

async fn snapshot(run: &Running, label: &str) {
    run.engine.create_snapshot(&name("disk"), Some(&name(label))).await.expect("snapshots");
}

/// Lets background tasks end.
async fn rest() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// Bytes of all segments in the store.
async fn held_bytes(store: &InMemory) -> u64 {
    let prefix = Path::from(names::STREAMS);
    let all: Vec<_> = store.list(Some(&prefix)).try_collect().await.expect("lists");
    all.iter().map(|object| object.size).sum()
}

async fn read(run: &Running, of: &str, range: std::ops::Range<u64>) -> Vec<u8> {
    let device = run.engine.open_device(&target(of)).await.expect("attaches");
    let len = (range.end - range.start) as usize;
    device.read(range.start, len).await.expect("reads").to_vec()
}

/// Data that was trimmed or overwritten before a snapshot goes.
#[tokio::test(start_paused = true)]
async fn a_snapshot_does_not_keep_what_was_gone_before_it() {
    for (checks_in, trims) in [(true, true), (true, false), (false, true), (false, false)] {
        let store = Arc::new(InMemory::new());
        let world = world(store.clone());
        let run = world.start("a").await.expect("starts");
        let device = disk(&run, FlushLevel::Local).await;
        fill(&world, &device, 0..64 * MIB).await;
        drain(&run).await;
        let kept = fill(&world, &device, 64 * MIB..65 * MIB).await;
        drain(&run).await;
        if checks_in {
            settle(&run).await;
        }
        match trims {
            true => device.zero(0, 64 * MIB).await.expect("trims"),
            false => {
                // Zeros, as a guest writes them.
                for at in 0..64 {
                    let zeros = vec![0; MIB as usize];
                    device.write(at * MIB, zeros.into()).await.expect("writes");
                }
            }
        }
        snapshot(&run, "one").await;
        device.zero(0, 1 << 30).await.expect("trims");
        settle(&run).await;
        rest().await;
        let held = held_bytes(&store).await;
        println!("checked in {checks_in}, trimmed {trims}: {held} bytes are held for 1 MiB");
        assert!(held < 2 * MIB, "{held} bytes are held for 1 MiB ({checks_in}, {trims})");
        assert!(read(&run, "disk@one", 64 * MIB..65 * MIB).await == kept);
        assert!(read(&run, "disk@one", 0..64 * MIB).await.iter().all(|b| *b == 0));
        // The pins of those readers go.
        rest().await;
        run.engine.delete_snapshot(&name("disk"), &name("one")).await.expect("deletes");
        let held = held_bytes(&store).await;
        assert!(held < MIB / 16, "{held} bytes are held for nothing");
        let report = run.engine.fsck().await.expect("fsck runs");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }
}

/// A trim that drops more than one checkpoint releases.
#[tokio::test(start_paused = true)]
async fn what_a_large_trim_drops_is_released_before_the_snapshot() {
    let store = Arc::new(InMemory::new());
    let mut world = world(store.clone());
    world.settings.drain_nodes_max = 8;
    let run = world.start("a").await.expect("starts");
    let device = disk(&run, FlushLevel::Local).await;
    fill(&world, &device, 0..32 * MIB).await;
    settle(&run).await;
    device.zero(0, 32 * MIB).await.expect("trims");
    fill(&world, &device, 0..MIB).await;
    snapshot(&run, "one").await;
    settle(&run).await;
    rest().await;
    let held = held_bytes(&store).await;
    assert!(held < 2 * MIB, "{held} bytes are held for 1 MiB");
}

/// While a snapshot waits for its root, clients write, flush and read, and others are taken; it is
/// cloned in the end.
#[tokio::test(start_paused = true)]
async fn nobody_but_its_readers_waits_for_a_snapshots_root() {
    let store = Arc::new(InMemory::new());
    let world = world(store.clone());
    let run = world.start("a").await.expect("starts");
    let device = disk(&run, FlushLevel::Bucket).await;
    fill(&world, &device, 0..8 * MIB).await;
    settle(&run).await;
    let first = fill(&world, &device, 0..8 * MIB).await;
    // Segments of map nodes have numbers with bit 47 set: no tree can be written.
    run.gate.hold(Some("/00008"));
    snapshot(&run, "one").await;
    let second = fill(&world, &device, 0..8 * MIB).await;
    snapshot(&run, "two").await;
    let third = fill(&world, &device, 0..8 * MIB).await;
    // There is no room for a third waiting snapshot: the root below names it.
    snapshot(&run, "three").await;
    let last = fill(&world, &device, 0..MIB).await;
    device.flush().await.expect("flushes");
    assert!(device.read(0, MIB as usize).await.expect("reads")[..] == last);
    assert!(device.read(MIB, 7 << 20).await.expect("reads")[..] == third[MIB as usize..]);
    let engine = run.engine.clone();
    let cloned = tokio::spawn(async move {
        engine.clone_volume(&name("disk"), &name("one"), &name("copy"), None).await
    });
    rest().await;
    assert!(!cloned.is_finished(), "the clone must wait for the snapshot's ref");
    run.gate.hold(None);
    cloned.await.expect("no panic").expect("clones");
    drain(&run).await;
    for (of, wanted) in
        [("copy", &first), ("disk@one", &first), ("disk@two", &second), ("disk@three", &third)]
    {
        assert!(read(&run, of, 0..8 * MIB).await == *wanted, "{of}");
    }
    let report = run.engine.fsck().await.expect("fsck runs");
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}

/// A snapshot that is deleted while it waits for its root gets no ref; the checkpoint goes on.
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_deleted_while_it_waits_for_its_root() {
    let store = Arc::new(InMemory::new());
    let world = world(store.clone());
    let run = world.start("a").await.expect("starts");
    let device = disk(&run, FlushLevel::Local).await;
    fill(&world, &device, 0..8 * MIB).await;
    fill(&world, &device, 0..8 * MIB).await;
    run.gate.hold(Some("/00008"));
    snapshot(&run, "one").await;
    let volume = run.engine.open_volumes().remove(0);
    let vseq_reached = async {
        let _ = tokio::time::timeout(Duration::from_secs(5), volume.drain()).await;
    };
    vseq_reached.await;
    run.engine.delete_snapshot(&name("disk"), &name("one")).await.expect("deletes");
    run.gate.hold(None);
    settle(&run).await;
    assert!(run.engine.list_snapshots(&name("disk")).await.expect("lists").is_empty());
    rest().await;
    let refs: Vec<_> = store.list(None).try_collect().await.expect("lists");
    let of_snapshots = |name: &str| name.contains("/snap/") && name.contains("/ref/");
    assert!(!refs.iter().any(|object| of_snapshots(object.location.as_ref())));
}

/// The calls that a root of its own costs, beyond those of any snapshot; and none if there is
/// little to win.
#[tokio::test(start_paused = true)]
async fn a_root_of_its_own_costs_a_checkpoint() {
    let meter = Meter::new(Arc::new(InMemory::new()), Arc::new(TokioClock::new()));
    let counters: Arc<Counters> = meter.counters();
    let world = world(Arc::new(meter));
    let run = world.start("a").await.expect("starts");
    let device = disk(&run, FlushLevel::Local).await;
    fill(&world, &device, 0..32 * MIB).await;
    settle(&run).await;
    let mut costs = Vec::new();
    for (label, trimmed) in [("little", MIB), ("much", 16 * MIB), ("nothing", 0)] {
        device.zero(0, trimmed).await.expect("trims");
        device.write(40 * MIB, vec![7; BLOCK as usize].into()).await.expect("writes");
        let before = counters.tally();
        snapshot(&run, label).await;
        drain(&run).await;
        rest().await;
        let cost = counters.tally().since(&before);
        costs.push(CallKind::ALL.map(|kind| cost.calls(kind)));
        println!("snapshot with {trimmed} bytes trimmed: {cost:?}");
    }
    // Its segment, its label and its ref.
    assert_eq!(costs[0], [3, 0, 0, 0, 0, 0]);
    assert_eq!(costs[2], [3, 0, 0, 0, 0, 0], "a checkpoint has just been made");
    println!("{costs:?}");
    let limits = [5, 0, 0, 0, 3, 6];
    assert!(costs[1].iter().zip(limits).all(|(calls, limit)| *calls <= limit), "{costs:?}");
}

/// A caller that waits for a snapshot on its way learns at once that it was deleted.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_snapshot_learns_that_it_is_gone() {
    let world = world(Arc::new(InMemory::new()));
    let run = world.start("a").await.expect("starts");
    let device = disk(&run, FlushLevel::Local).await;
    fill(&world, &device, 0..8 * MIB).await;
    settle(&run).await;
    device.zero(0, 7 * MIB).await.expect("trims");
    let volume = run.engine.open_volumes().remove(0);
    // The checkpoint that makes the snapshot's root hangs.
    run.gate.hold(Some(&format!("{}/00008", volume.stream)));
    snapshot(&run, "one").await;
    let waiting = tokio::spawn(async move { volume.drain().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "it has its ref");
    let (disk, one) = (name("disk"), name("one"));
    let deletion = run.engine.delete_snapshot(&disk, &one);
    tokio::time::timeout(Duration::from_secs(10), deletion)
        .await
        .expect("in time")
        .expect("deletes");
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    waited.expect("nobody woke it").expect("no panic").expect("drains");
}
