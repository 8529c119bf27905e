//! The cost of operations, in calls to the store by kind. A change here is a change of the users'
//! costs.

use crate::rig::{Running, TokioClock, World, create, name, target};
use object_store::memory::InMemory;
use skerry_core::descriptor::FlushLevel;
use skerry_store::objects::meter::{CallKind, Counters, Meter, Tally};
use skerry_volume::{CreateVolume, Device};
use std::sync::Arc;
use std::time::Duration;

const BLOCK: u64 = 4096;
const PB: u64 = 1 << 50;

/// A world whose store counts.
struct Counted {
    world: World,
    counters: Arc<Counters>,
}

impl Counted {
    fn new() -> Self {
        let meter = Meter::new(Arc::new(InMemory::new()), Arc::new(TokioClock::new()));
        let counters = meter.counters();
        let mut world = World::over(1, Arc::new(meter));
        // As large as the defaults, so that only the tested operations happen.
        world.settings.segment_bytes = 8 << 20;
        world.settings.overlay_bytes_max = 64 << 20;
        world.settings.checkpoint_segments_max = 64;
        world.settings.dirty_age = Duration::from_secs(3600);
        world.settings.fence_interval = Duration::from_secs(3600);
        world.cache_bytes = 16 << 20;
        world.log.file_bytes = 8 << 20;
        world.log.cap_bytes = 256 << 20;
        world.log.buffer_bytes = 8 << 20;
        Self { world, counters }
    }

    async fn start(&self) -> Running {
        self.world.start("a").await.expect("starts")
    }

    /// Stops cleanly, and starts with nothing in memory and nothing in the log.
    async fn restart(&mut self, run: Running) -> Running {
        run.engine.shutdown().await.expect("stops");
        drop(run);
        self.world.lose_disk();
        self.start().await
    }

    /// The calls of `work`.
    async fn cost<T>(&self, work: impl Future<Output = T>) -> (Tally, T) {
        let before = self.counters.tally();
        let out = work.await;
        (self.counters.tally().since(&before), out)
    }
}

/// The largest number of calls of each kind, in [`CallKind::ALL`]'s order.
#[track_caller]
fn at_most(what: &str, tally: &Tally, limits: [u64; 6]) {
    let calls = CallKind::ALL.map(|kind| tally.calls(kind));
    let fits = calls.iter().zip(limits).all(|(calls, limit)| *calls <= limit);
    let named: Vec<_> =
        CallKind::ALL.iter().zip(calls).map(|(kind, n)| format!("{} {n}", kind.name())).collect();
    assert!(fits, "{what}: {named:?}, and the limits are {limits:?}");
    println!("{what}: {named:?}");
}

async fn attach(run: &Running, of: &str) -> Arc<Device> {
    run.engine.open_device(&target(of)).await.expect("attaches")
}

async fn make(run: &Running, of: &str, size_bytes: u64, flush: FlushLevel) -> Arc<Device> {
    let new = CreateVolume { flush: Some(flush), ..create(of, size_bytes) };
    run.engine.create_volume(new).await.expect("creates");
    attach(run, of).await
}

async fn fill(device: &Device, blocks: impl Iterator<Item = u64>) {
    for block in blocks {
        let mut data = vec![0u8; BLOCK as usize];
        for (i, part) in data.chunks_mut(32).enumerate() {
            part.copy_from_slice(&blake(block, i));
        }
        device.write(block * BLOCK, data.into()).await.expect("writes");
    }
}

/// Incompressible, and different everywhere.
fn blake(block: u64, i: usize) -> [u8; 32] {
    let mut rng = skerry_log::sim::SimRng::new(block * 1000 + i as u64);
    let mut out = [0; 32];
    out.chunks_mut(8).for_each(|c| c.copy_from_slice(&rng.next_u64().to_le_bytes()));
    out
}

async fn settle(run: &Running) {
    for volume in run.engine.open_volumes() {
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_reads_the_head_and_what_follows_it() {
    let mut counted = Counted::new();
    let run = counted.start().await;
    let device = make(&run, "disk", 1 << 30, FlushLevel::Local).await;
    fill(&device, 0..100).await;
    drop(device);
    let run = counted.restart(run).await;
    let (cost, device) = counted.cost(attach(&run, "disk")).await;
    // Name, state, descriptor, tombstone, heads, head, owner; whether the stream goes on beyond the
    // missing segment. Then life, seal, and the listings anew.
    at_most("open, nothing to roll forward", &cost, [2, 6, 1, 1, 7, 0]);
    // Segments that no checkpoint covers, in a stream after a seal: one ranged GET each.
    const SEGMENTS: u64 = 7;
    for i in 0..SEGMENTS {
        fill(&device, i * 10..i * 10 + 10).await;
        run.engine.open_volumes()[0].drain().await.expect("drains");
    }
    drop((device, run));
    counted.world.lose_disk();
    let run = counted.start().await;
    let (more, _device) = counted.cost(attach(&run, "disk")).await;
    let (was, is) = (cost.calls(CallKind::GetRange), more.calls(CallKind::GetRange));
    assert!(is <= was + 1 + SEGMENTS, "{is} ranged GETs with {SEGMENTS} segments, {was} without");
    at_most("open, 7 segments to roll forward", &more, [2, 6, 2 + SEGMENTS, 1, 7, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cold_read_is_one_ranged_get() {
    let mut counted = Counted::new();
    let run = counted.start().await;
    let device = make(&run, "disk", 1 << 30, FlushLevel::Local).await;
    // Blocks of one leaf, in frames of their own.
    fill(&device, (0..64).map(|i| i * 2)).await;
    drop(device);
    let run = counted.restart(run).await;
    let device = attach(&run, "disk").await;
    device.read(0, BLOCK as usize).await.expect("warms the leaf");
    let (cost, _) = counted.cost(device.read(126 * BLOCK, BLOCK as usize)).await;
    at_most("cold 4 KiB read, warm leaf", &cost, [0, 0, 1, 0, 0, 0]);
    assert!(cost.bytes(CallKind::GetRange) <= 2 * BLOCK, "{cost:?}");
    let (cost, _) = counted.cost(device.read(126 * BLOCK, BLOCK as usize)).await;
    assert_eq!(cost.calls_in_all(), 0, "it is in memory now");
}

#[tokio::test(start_paused = true)]
async fn a_flush_costs_what_its_level_says() {
    let counted = Counted::new();
    let run = counted.start().await;
    let local = make(&run, "local", 1 << 30, FlushLevel::Local).await;
    let bucket = make(&run, "bucket", 1 << 30, FlushLevel::Bucket).await;
    fill(&local, 0..50).await;
    let (cost, done) = counted.cost(local.flush()).await;
    done.expect("flushes");
    assert_eq!(cost.calls_in_all(), 0, "{cost:?}");
    fill(&bucket, 0..50).await;
    let (cost, done) = counted.cost(bucket.flush()).await;
    done.expect("flushes");
    at_most("flush at level bucket", &cost, [1, 0, 0, 0, 0, 0]);
    let (cost, done) = counted.cost(bucket.flush()).await;
    done.expect("flushes");
    assert_eq!(cost.calls_in_all(), 0, "there is nothing to flush");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_returns_before_the_store_is_asked() {
    let counted = Counted::new();
    let run = counted.start().await;
    let device = make(&run, "disk", 1 << 30, FlushLevel::Local).await;
    fill(&device, 0..50).await;
    // Its batch is one segment; its label and its ref are one object each.
    let (cost, _) = counted
        .cost(async {
            run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
            run.engine.open_volumes()[0].drain().await.expect("drains");
        })
        .await;
    at_most("snapshot, published", &cost, [3, 0, 0, 0, 0, 0]);
    // A store that never answers again keeps no start from taking the next one.
    run.gate.kill();
    fill(&device, 0..50).await;
    run.engine.create_snapshot(&name("disk"), Some(&name("two"))).await.expect("snapshots");
}

/// A petabyte with a little data in it, with a checkpoint, and a published snapshot of it.
async fn thin(counted: &Counted) -> (Running, Arc<Device>) {
    let run = counted.start().await;
    let device = make(&run, "huge", PB, FlushLevel::Local).await;
    fill(&device, (0..64).map(|i| i * (PB / 64 / BLOCK))).await;
    settle(&run).await;
    (run, device)
}

#[tokio::test(start_paused = true)]
async fn a_petabyte_is_as_cheap_as_anything() {
    let counted = Counted::new();
    let (run, device) = thin(&counted).await;
    let engine = &run.engine;
    let (cost, _) = counted
        .cost(async {
            engine.create_snapshot(&name("huge"), Some(&name("one"))).await.expect("snapshots");
            engine.open_volumes()[0].drain().await.expect("drains");
        })
        .await;
    at_most("snapshot of 1 PB, published", &cost, [3, 0, 0, 0, 0, 0]);
    assert!(cost.bytes(CallKind::Put) <= 1 << 20, "{cost:?}");
    let clone =
        async { engine.clone_volume(&name("huge"), &name("one"), &name("copy"), None).await };
    let (cost, made) = counted.cost(clone).await;
    made.expect("clones");
    at_most("clone of a published snapshot of 1 PB", &cost, [4, 4, 2, 2, 11, 0]);
    assert!(cost.bytes(CallKind::Put) <= 1 << 20, "{cost:?}");

    let (cost, done) = counted
        .cost(async {
            device.zero(0, PB).await.expect("trims");
            settle(&run).await;
        })
        .await;
    let () = done;
    // At most one path of the old tree is read. A walk of 64 leaves lets go of the subtrees below
    // it.
    assert!(cost.calls_in_all() <= 40, "{cost:?}");
    assert!(cost.bytes(CallKind::Put) <= 1 << 20, "{cost:?}");
    let end = device.read(PB - BLOCK, BLOCK as usize).await.expect("reads");
    assert!(end.iter().all(|b| *b == 0));
}

#[tokio::test(start_paused = true)]
async fn a_trim_does_not_depend_on_how_much_there_is() {
    let mut costs = Vec::new();
    for blocks in [1u64 << 8, 1 << 13] {
        let counted = Counted::new();
        let run = counted.start().await;
        let device = make(&run, "disk", 15 << 40, FlushLevel::Local).await;
        fill(&device, (0..blocks).map(|i| i * 131)).await;
        settle(&run).await;
        let (cost, ()) = counted
            .cost(async {
                device.zero(0, 15 << 40).await.expect("trims");
                let volume = &run.engine.open_volumes()[0];
                volume.drain().await.expect("drains");
            })
            .await;
        costs.push((cost.calls_in_all(), cost.bytes(CallKind::Put)));
    }
    assert_eq!(costs[0].0, costs[1].0, "{costs:?}");
    assert!(costs[1].1 <= 4096, "{costs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_to_a_cloned_block_moves_little() {
    let counted = Counted::new();
    let run = counted.start().await;
    let device = make(&run, "disk", 1 << 30, FlushLevel::Local).await;
    fill(&device, 0..2000).await;
    run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    settle(&run).await;
    let engine = &run.engine;
    engine.clone_volume(&name("disk"), &name("one"), &name("copy"), None).await.expect("clones");
    // A clone that only begins makes no checkpoint of the snapshot's changes over its root.
    let (cost, copy) = counted.cost(attach(&run, "copy")).await;
    let put = cost.bytes(CallKind::Put);
    assert!(put <= 4096, "opening a clone puts {put} bytes: {cost:?}");
    // A partial write reads the frame that holds the rest of the block.
    for (what, block, len, limit) in
        [("whole", 100, 4096, 8 << 10), ("part of a", 200, 512, (64 << 10) + (8 << 10))]
    {
        let data: Vec<u8> = (0..len / 32).flat_map(|i| blake(999, i)).collect();
        let (cost, ()) = counted
            .cost(async {
                copy.write(block * BLOCK, data.into()).await.expect("writes");
                for volume in engine.open_volumes() {
                    volume.drain().await.expect("drains");
                }
            })
            .await;
        let moved: u64 = [CallKind::Put, CallKind::Get, CallKind::GetRange]
            .iter()
            .map(|kind| cost.bytes(*kind))
            .sum();
        println!("a {what} block of a clone: {moved} bytes, {cost:?}");
        assert!(moved <= limit, "{what}: {moved} bytes moved: {cost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_difference_costs_what_differs() {
    let mut costs = Vec::new();
    for blocks in [2_000u64, 40_000] {
        let mut counted = Counted::new();
        let run = counted.start().await;
        let device = make(&run, "disk", 1 << 40, FlushLevel::Local).await;
        fill(&device, (0..blocks).map(|i| i * 128)).await;
        settle(&run).await;
        let snap = async |label: &str| {
            run.engine.create_snapshot(&name("disk"), Some(&name(label))).await.expect("snapshots");
            settle(&run).await;
        };
        snap("one").await;
        fill(&device, [7 * 128, 901 * 128].into_iter()).await;
        snap("two").await;
        drop(device);
        let run = counted.restart(run).await;
        run.engine.open_device(&target("disk")).await.expect("attaches");
        let diff =
            async { run.engine.diff_snapshots(&name("disk"), &name("one"), &name("two")).await };
        let (cost, ranges) = counted.cost(diff).await;
        assert_eq!(ranges.expect("diffs").len(), 2);
        costs.push(cost.calls_in_all());
        println!("diff of two blocks among {blocks}: {cost:?}");
    }
    assert!(costs[1] <= costs[0] + 8, "{costs:?}");
    assert!(costs[1] <= 40, "{costs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_few_objects_and_a_deletion_few_calls() {
    let counted = Counted::new();
    let run = counted.start().await;
    let device = make(&run, "disk", 1 << 30, FlushLevel::Local).await;
    fill(&device, 0..1000).await;
    let volume = run.engine.open_volumes().remove(0);
    volume.drain().await.expect("drains");
    let (cost, done) = counted.cost(volume.checkpoint()).await;
    done.expect("makes a checkpoint");
    // A segment of map nodes and the head's ref.
    at_most("first checkpoint", &cost, [2, 0, 0, 0, 0, 1]);
    fill(&device, 0..10).await;
    volume.drain().await.expect("drains");
    let (cost, done) = counted.cost(volume.checkpoint()).await;
    done.expect("makes a checkpoint");
    at_most("next checkpoint", &cost, [2, 0, 0, 0, 0, 1]);
    drop(device);
    let (cost, done) = counted.cost(run.engine.delete_volume(&name("disk"), true, true)).await;
    done.expect("deletes");
    // Tombstone and name; the listings; each segment is deleted by a call of its own.
    at_most("delete with 4 segments", &cost, [2, 1, 0, 2, 10, 5]);
}

/// Tombstones stand for ever. Once, a sweep made a dozen calls for each, every day.
#[tokio::test(start_paused = true)]
async fn a_sweep_costs_nothing_for_volumes_that_are_over() {
    let counted = Counted::new();
    let run = counted.start().await;
    make(&run, "disk", 1 << 30, FlushLevel::Local).await;
    settle(&run).await;
    run.engine.sweep().await.expect("sweeps");
    let (before, _) = counted.cost(run.engine.sweep()).await;
    for n in 0..20 {
        let other = format!("other{n}");
        let device = make(&run, &other, 1 << 30, FlushLevel::Local).await;
        fill(&device, 0..3).await;
        drop(device);
        run.engine.delete_volume(&name(&other), true, true).await.expect("deletes");
    }
    for _ in 0..2 {
        run.engine.sweep().await.expect("sweeps");
    }
    let (cost, swept) = counted.cost(run.engine.sweep()).await;
    assert_eq!(swept.expect("sweeps"), 0);
    assert_eq!(cost.calls_in_all(), before.calls_in_all(), "{cost:?}, and it was {before:?}");
}
