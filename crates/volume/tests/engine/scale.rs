//! The cost of passes and lookups does not depend on how many volumes and snapshots there are.

use crate::rig::{Running, TokioClock, World, create, name, target};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use skerry_core::hold::Span;
use skerry_core::id::{SnapshotId, StreamId, VolumeId};
use skerry_core::label::{self, Label, Labelled};
use skerry_core::names;
use skerry_core::position::{Number, Position};
use skerry_core::refs::{PUBLISHED, Ref, SnapshotInfo};
use skerry_core::root::{Base, Root};
use skerry_core::size::BlockSize;
use skerry_store::objects::meter::{CallKind, Counters, Meter, Tally};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

struct Scale {
    world: World,
    store: Arc<InMemory>,
    counters: Arc<Counters>,
    costs: BTreeMap<&'static str, [u64; 6]>,
    /// Names that listings gave, for the operations that must not depend on how many there are.
    listed: BTreeMap<&'static str, u64>,
}

impl Scale {
    fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let meter = Meter::new(store.clone(), Arc::new(TokioClock::new()));
        let counters = meter.counters();
        let mut world = World::over(1, Arc::new(meter));
        let never = Duration::from_secs(1_000_000);
        world.settings.dirty_age = never;
        world.settings.idle_age = never;
        world.settings.sweep_first = never;
        world.settings.fence_interval = never;
        world.settings.checkpoint_segments_max = 64;
        world.settings.overlay_bytes_max = 64 << 20;
        Self { world, store, counters, costs: BTreeMap::new(), listed: BTreeMap::new() }
    }

    async fn cost<T>(&mut self, what: &'static str, work: impl Future<Output = T>) -> T {
        let before = self.counters.tally();
        let out = work.await;
        let tally: Tally = self.counters.tally().since(&before);
        self.costs.insert(what, CallKind::ALL.map(|kind| tally.calls(kind)));
        self.listed.insert(what, tally.bytes(CallKind::List));
        out
    }

    /// Volumes that have nothing to do with ours, and whose objects can't be read.
    async fn strangers(&self, many: u64) {
        for i in 0..many {
            let mut id = [0x5A; 16];
            id[..8].copy_from_slice(&i.to_be_bytes());
            let volume = VolumeId(id);
            let at = Position::start(1, StreamId(id), 0);
            for object in [
                names::volume_desc(volume),
                names::volume_state(volume),
                names::head(volume, &at),
                names::snapshot(volume, SnapshotId(id), 1),
            ] {
                self.store.put(&Path::from(object), "junk".into()).await.expect("put");
            }
        }
    }

    /// Snapshots of an earlier time of a volume.
    async fn snapshots(&self, volume: VolumeId, many: u64) {
        let root = Root::empty(1 << 20, BlockSize::default(), "disk");
        for i in 1..=many {
            let mut id = [0xA5; 16];
            id[..8].copy_from_slice(&i.to_be_bytes());
            let id = SnapshotId(id);
            let at = Position { number: Number(i), ..Position::start(0, StreamId([0xA5; 16]), 0) };
            let (created_ms, size_bytes, name) = (i, 1 << 20, format!("s{i}"));
            let info = SnapshotInfo { id, number: PUBLISHED, created_ms, size_bytes, name };
            let made = Ref {
                volume,
                base: Base::exact(root.clone(), at),
                snapshot: Some(info),
                next_node: 1,
            };
            let span = Span::of_snapshot(&made);
            let labelled =
                Labelled::Snapshot(Label { id, created_ms: i, size_bytes: 1 << 20, span });
            let label = names::label(volume, &format!("s{i}"), &labelled);
            let put = |at: String, bytes: bytes::Bytes| async move {
                self.store.put(&Path::from(at), bytes.into()).await.expect("put");
            };
            put(label, label::encode(id, [7; 16])).await;
            put(names::snapshot(volume, id, PUBLISHED), made.encode([7; 16])).await;
        }
    }

    async fn write(&self, run: &Running, disk: &str, blocks: std::ops::Range<u64>) {
        let device = run.engine.open_device(&target(disk)).await.expect("attaches");
        for block in blocks {
            let mut data = vec![0; 4096];
            skerry_core::env::Entropy::fill(self.world.entropy.as_ref(), &mut data);
            device.write(block * 4096, data.into()).await.expect("writes");
        }
        for volume in run.engine.open_volumes() {
            volume.drain().await.expect("drains");
            volume.checkpoint().await.expect("makes a checkpoint");
        }
    }

    async fn segments(&self) -> BTreeSet<String> {
        use futures::TryStreamExt;
        let prefix = Path::from(names::STREAMS);
        let all: Vec<_> = self.store.list(Some(&prefix)).try_collect().await.expect("lists");
        all.into_iter().map(|object| object.location.to_string()).collect()
    }
}

/// The cost of each operation beside `many` others.
async fn beside(many: u64) -> Scale {
    let mut scale = Scale::new();
    let (disk, one, two) = (name("disk"), name("one"), name("two"));
    let run = scale.world.start("a").await.expect("starts");
    let made = run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    scale.write(&run, "disk", 0..20).await;
    run.engine.create_snapshot(&disk, Some(&one)).await.expect("snapshots");
    run.engine.shutdown().await.expect("stops");
    drop(run);
    scale.strangers(many).await;
    scale.snapshots(made.id, many).await;
    let run = scale.world.start("a").await.expect("starts again");
    let engine = &run.engine;
    let device = scale.cost("open", engine.open_device(&target("disk"))).await.expect("attaches");
    drop(device);
    scale.write(&run, "disk", 20..40).await;
    scale
        .cost("snapshot", async {
            engine.create_snapshot(&disk, Some(&two)).await.expect("snapshots");
            engine.open_volumes()[0].drain().await.expect("drains");
        })
        .await;
    scale.write(&run, "disk", 20..40).await;
    scale
        .cost("attach a snapshot", engine.open_device(&target("disk@one")))
        .await
        .expect("attaches");
    let late = format!("disk@s{}", many / 2);
    scale.cost("attach an old one", engine.open_device(&target(&late))).await.expect("attaches");
    let clone = name("clone");
    scale.cost("clone", engine.clone_volume(&disk, &one, &clone, None)).await.expect("clones");
    let before = scale.segments().await;
    scale.cost("delete a snapshot", engine.delete_snapshot(&disk, &two)).await.expect("deletes");
    let left = scale.segments().await;
    assert!(left.len() < before.len(), "what only the snapshot held is still there");
    let old = name(&format!("s{}", many / 2));
    scale.cost("delete an old one", engine.delete_snapshot(&disk, &old)).await.expect("deletes");
    scale.cost("delete a clone", engine.delete_volume(&clone, true, false)).await.expect("deletes");
    scale.write(&run, "disk", 20..30).await;
    let before = scale.segments().await;
    scale.cost("a pass of the head", engine.shutdown()).await.expect("stops");
    let left = scale.segments().await;
    assert!(left.len() < before.len(), "what was overwritten is still there");
    scale
}

#[tokio::test(start_paused = true)]
async fn costs_do_not_depend_on_how_many_there_are() {
    let few = beside(10).await;
    for (what, calls) in &few.costs {
        let named: Vec<_> = CallKind::ALL
            .iter()
            .zip(calls)
            .map(|(kind, n)| format!("{} {n}", kind.name()))
            .collect();
        println!("{what}: {named:?}, {} names listed", few.listed[what]);
        assert!(calls.iter().sum::<u64>() <= 32, "{what}: {named:?}");
    }
    for many in [1_000, 100_000] {
        let scale = beside(many).await;
        assert_eq!(scale.costs, few.costs, "beside {many}");
        for (what, listed) in &scale.listed {
            // Opening a volume lists the labels of its snapshots: that many names, in pages.
            let more = if *what == "open" { many - 10 } else { 0 };
            assert_eq!(*listed, few.listed[what] + more, "{what} beside {many}: names listed");
        }
    }
}

/// A pass of collection that hangs keeps neither a snapshot nor a checkpoint waiting.
#[tokio::test(start_paused = true)]
async fn a_pass_that_hangs_delays_nothing() {
    let scale = Scale::new();
    let run = scale.world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
    scale.write(&run, "disk", 0..20).await;
    run.engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    scale.write(&run, "disk", 0..20).await;
    let before = scale.segments().await;
    // The pass lists the volume's holders.
    run.gate.hold(Some("/hold"));
    let (disk, one) = (name("disk"), name("one"));
    let deleting = run.engine.delete_snapshot(&disk, &one);
    let beside = async {
        run.engine.create_snapshot(&name("disk"), Some(&name("two"))).await.expect("snapshots");
        scale.write(&run, "disk", 20..40).await;
        run.engine.open_device(&target("disk@two")).await.expect("attaches");
        run.gate.hold(None);
    };
    let (deleted, ()) = tokio::join!(deleting, beside);
    deleted.expect("deletes");
    let after = scale.segments().await;
    assert!(before.difference(&after).next().is_some(), "what only the snapshot held is there");
}
