use super::*;
use crate::map::node_writer::{MapNodeLane, MapNodeWriter};
use crate::objects::bucket::Env;
use crate::objects::testing::{Hook, Hooked, bucket_in, env, memory_bucket};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutOptions};
use parking_lot::Mutex as Lock;
use skerry_core::env::Clock;
use skerry_core::id::SnapshotId;
use skerry_core::liveness::{self as format, Child, LeafWriter, LivenessDelta};
use skerry_core::map_node::{MapNodeKind, MapNodePtr};
use skerry_core::refs::{Ref, SnapshotInfo};
use skerry_core::size::BlockSize;
use std::sync::atomic::{AtomicU64, Ordering};

const VOLUME: VolumeId = VolumeId([1; 16]);
const STREAM: StreamId = StreamId([2; 16]);
const EPOCH: u64 = 1;

fn data(number: u64) -> SegmentKey {
    SegmentKey { stream: STREAM, number: Number(number) }
}

fn at(number: u64) -> Position {
    Position { number: Number(number), ..Position::start(EPOCH, STREAM, 0) }
}

fn head_at(number: u64) -> RefOrder {
    RefOrder::of(&at(number))
}

fn exact(liveness: Option<MapNodePtr>, number: u64) -> Base {
    let block = BlockSize::default();
    Base::exact(Root { liveness, ..Root::empty(1 << 30, block, "disk") }, at(number))
}

async fn put_head(bucket: &Bucket, volume: VolumeId, base: Base) -> String {
    let name = names::head(volume, &base.at);
    let made = Ref { volume, base, snapshot: None, next_node: 1 };
    assert!(bucket.create(&name, vec![made.encode(bucket.nonce())]).await.is_ok());
    name
}

/// Puts an empty snapshot with its place's number as its id.
async fn put_snapshot(bucket: &Bucket, n: u8) -> Ref {
    let id = SnapshotId([n; 16]);
    let name = String::from("one");
    let info = SnapshotInfo { id, number: 1, created_ms: 1, size_bytes: 1 << 30, name };
    let base = exact(None, n.into());
    let made = Ref { volume: VOLUME, base, snapshot: Some(info), next_node: 1 };
    let name = names::snapshot(VOLUME, id, 1);
    assert!(bucket.create(&name, vec![made.encode(bucket.nonce())]).await.is_ok());
    made
}

async fn put_holder(bucket: &Bucket, clone: VolumeId, of: &Ref) {
    let snapshot = of.snapshot.as_ref().expect("a snapshot").id;
    let holder = Holder::Clone { clone, snapshot, span: Span::of_snapshot(of) };
    let name = names::holder(VOLUME, &holder);
    assert!(bucket.create(&name, vec![holder.encode(bucket.nonce())]).await.is_ok());
}

/// The owner that wrote the head at this number, and its incarnation.
fn owned(number: u64) -> (Owned, [Incarnation; 1]) {
    let head = Some(head_at(number));
    let owned = Owned { volume: VOLUME, writing: Some((STREAM, Number::map_node(1000))), head };
    (owned, [Incarnation { epoch: EPOCH, stream: STREAM }])
}

/// Writes a node into a segment of its own.
async fn node(
    (bucket, nodes, lane): (&Bucket, &MapNodes, &MapNodeLane),
    kind: MapNodeKind,
    level: u8,
    bytes: bytes::Bytes,
) -> MapNodePtr {
    let mut writer = MapNodeWriter::new(bucket, nodes, lane.clone(), 1);
    let ptr = writer.push(kind, level, 1, bytes).await.expect("pushed");
    writer.finish().await.expect("put");
    ptr
}

/// A tree of two leaves that list a data segment each, with every node in a segment of its own.
/// Gives the top and the leaves.
async fn two_leaves(bucket: &Bucket) -> (MapNodePtr, Vec<Child>) {
    let nodes = MapNodes::new(bucket.clone(), 1 << 20);
    let (block, next) = (BlockSize::default(), Arc::new(AtomicU64::new(0)));
    let stream = StreamId([9; 16]);
    let lane = MapNodeLane { volume: VOLUME, stream, epoch: EPOCH, block, next };
    let mut children = Vec::new();
    for number in 1..3 {
        let mut delta = LivenessDelta::new();
        delta.add(data(number), 0, 1);
        let mut leaf = LeafWriter::new(1);
        leaf.merge(None, &delta, SegmentKey::default(), None).expect("merged");
        for made in leaf.finish().0 {
            let ptr = node((bucket, &nodes, &lane), MapNodeKind::LivenessLeaf, 0, made.bytes).await;
            children.push(Child { first: made.first, ptr });
        }
    }
    let bytes = format::inner(1, 1, &children);
    (node((bucket, &nodes, &lane), MapNodeKind::LivenessInner, 1, bytes).await, children)
}

/// Once, the walk of an old head stopped at a missing leaf and left its parent marked as walked.
/// The newest head's walk then skipped it, and live segments below it counted as free.
#[tokio::test]
async fn what_an_old_head_could_not_read_stops_the_pass_if_the_newest_needs_it() {
    let bucket = memory_bucket(2).await;
    let (top, leaves) = two_leaves(&bucket).await;
    for number in [10, 20] {
        put_head(&bucket, VOLUME, exact(Some(top), number)).await;
    }
    let candidates = BTreeSet::from([data(1), data(2)]);
    let (owned, incarnations) = owned(20);
    let free = async || {
        let collector = Collector::new(bucket.clone(), MapNodes::new(bucket.clone(), 1 << 20));
        collector.free(&owned, &incarnations, &candidates).await
    };
    assert_eq!(free().await.expect("all is there"), Some(vec![]));
    bucket.delete(&names::segment(leaves[1].ptr.segment)).await.expect("deleted");
    let error = free().await.expect_err("the newest head can't be read");
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

/// Moves a clone's head on whenever a snapshot of its parent is read.
struct Busy(Lock<Option<(VolumeId, u64)>>);

#[async_trait::async_trait]
impl Hook for Busy {
    async fn got(&self, inner: &InMemory, path: &Path, bytes: bytes::Bytes) -> bytes::Bytes {
        let Object::Snapshot(..) = names::parse(path.as_ref()) else { return bytes };
        let moved = self.0.lock().as_mut().map(|(clone, number)| {
            *number += 1;
            (*clone, *number)
        });
        if let Some((volume, number)) = moved {
            let base = exact(None, number);
            let name = |number| Path::from(names::head(volume, &at(number)));
            let made = Ref { volume, base, snapshot: None, next_node: 1 }.encode([5; 16]);
            inner.put_opts(&name(number), made.into(), PutOptions::default()).await.expect("put");
            inner.delete(&name(number - 1)).await.expect("deleted");
        }
        bytes
    }
}

/// Once, each listing was read from its beginning, and a clone's checkpoint meanwhile spoiled every
/// one.
#[tokio::test]
async fn a_busy_clone_does_not_spoil_a_sweep_of_many_snapshots() {
    let store = Hooked::new(Busy(Lock::default()));
    let hook = store.hook.clone();
    let bucket = bucket_in(Arc::new(store), 3).await;
    let clone = VolumeId([8; 16]);
    put_head(&bucket, VOLUME, exact(None, 100)).await;
    put_head(&bucket, clone, exact(None, 1)).await;
    let first = put_snapshot(&bucket, 1).await;
    put_holder(&bucket, clone, &first).await;
    for n in 2..40 {
        put_snapshot(&bucket, n).await;
    }
    *hook.0.lock() = Some((clone, 1));
    let (owned, incarnations) = owned(100);
    let collector = Collector::new(bucket.clone(), MapNodes::new(bucket, 1 << 20));
    let free = collector.free(&owned, &incarnations, &BTreeSet::from([data(1)])).await;
    assert!(free.expect("reads").is_some(), "the pass was given up");
}

/// The collector forgets pins that are gone.
#[tokio::test]
async fn pins_that_are_gone_are_forgotten() {
    let bucket = memory_bucket(1).await;
    let collector = Collector::new(bucket.clone(), MapNodes::new(bucket, 1 << 20));
    let volume = VolumeId([1; 16]);
    for round in 0..100u8 {
        let mut listed = Listed::default();
        listed.add(names::pin(volume, PinId([round; 16]), 1));
        listed.add(names::pin(volume, PinId([0xFF; 16]), u64::from(round)));
        assert_eq!(collector.first_seen(volume, &listed).len(), 2);
    }
    assert!(collector.first_seen(volume, &Listed::default()).is_empty());
    assert!(collector.pins.lock().is_empty());
}

/// A clock that a test sets, in seconds.
struct Set(AtomicU64);

impl Clock for Set {
    fn boot(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
    fn wall_ms(&self) -> u64 {
        0
    }
}

/// Once, a cloner that died after its holder held everything below its snapshot as long as the
/// snapshot lived.
#[tokio::test]
async fn a_clone_that_never_got_its_descriptor_holds_for_a_day() {
    let clock = Arc::new(Set(AtomicU64::new(1)));
    let env = Env { clock: clock.clone(), ..env(4) };
    let bucket = Bucket::open(Arc::new(InMemory::new()), env, true).await.expect("a bucket");
    put_head(&bucket, VOLUME, exact(None, 100)).await;
    let snapshot = put_snapshot(&bucket, 50).await;
    put_holder(&bucket, VolumeId([8; 16]), &snapshot).await;
    let (owned, incarnations) = owned(100);
    let collector = Collector::new(bucket.clone(), MapNodes::new(bucket.clone(), 1 << 20));
    let candidates = BTreeSet::from([data(7)]);
    for (second, freed) in [(1, vec![]), (3600, vec![]), (86_400, vec![data(7)])] {
        clock.0.store(second, Ordering::Relaxed);
        let free = collector.free(&owned, &incarnations, &candidates).await.expect("reads");
        assert_eq!(free, Some(freed), "after {second} s");
    }
    assert!(collector.begun.lock().is_empty());
    let state = bucket.get(&names::volume_state(VolumeId([8; 16]))).await.expect("reads");
    let state = VolumeState::decode(&state.expect("settled"));
    assert_eq!(state, Ok(VolumeState::Withdrawn));
}

/// Keeps one object, and counts the deletes.
struct Keeps {
    kept: Path,
    asked: AtomicU64,
}

#[async_trait::async_trait]
impl Hook for Keeps {
    async fn deleting(&self, at: &Path) -> object_store::Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if *at != self.kept && !self.kept.as_ref().is_empty() {
            return Ok(());
        }
        let (path, source) = (at.to_string(), "it is locked".into());
        Err(object_store::Error::PermissionDenied { path, source })
    }
}

/// Deletion goes on after a segment that can't be deleted. A key that may delete nothing is not
/// tried on all segments.
#[tokio::test(start_paused = true)]
async fn one_segment_that_stays_keeps_none_behind_it() {
    const SEGMENTS: u64 = 1000;
    for kept in [names::segment(data(1)), String::new()] {
        let keeps_all = kept.is_empty();
        let hook = Keeps { kept: Path::from(kept), asked: AtomicU64::new(0) };
        let store = Hooked::new(hook);
        let (objects, hook) = (store.inner.clone(), store.hook.clone());
        let bucket = bucket_in(Arc::new(store), 1).await;
        let free: Vec<SegmentKey> = (1..=SEGMENTS).map(data).collect();
        for key in &free {
            objects.put(&Path::from(names::segment(*key)), "x".into()).await.expect("put");
        }
        let collector = Collector::new(bucket.clone(), MapNodes::new(bucket.clone(), 1 << 20));
        let deleted = collector.delete(&free).await;
        assert!(deleted.failed.is_some());
        let left = bucket.list(&names::stream_prefix(STREAM)).await.expect("listed").len() as u64;
        let asked = hook.asked.load(Ordering::Relaxed);
        match keeps_all {
            // The bucket tries each twice.
            true => {
                let most = 2 * (DELETES_FAILED_MAX + DELETES_IN_FLIGHT) as u64;
                assert!(left == SEGMENTS && asked <= most, "{asked} calls");
                assert_eq!((deleted.left, deleted.count), (free, 0));
            }
            false => {
                assert_eq!(left, 1);
                assert_eq!((deleted.left, deleted.count), (vec![data(1)], free.len() - 1));
            }
        }
    }
}

/// Once, each head was tried, one after the other: a store whose deletes hang held a sweep up for
/// hours.
#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_delete_is_asked_for_few_heads() {
    const HEADS: u64 = 100;
    for kept in [names::head(VOLUME, &at(1)), String::new()] {
        let keeps_all = kept.is_empty();
        let store = Hooked::new(Keeps { kept: Path::from(kept), asked: AtomicU64::new(0) });
        let hook = store.hook.clone();
        let bucket = bucket_in(Arc::new(store), 1).await;
        for number in 1..=HEADS {
            put_head(&bucket, VOLUME, exact(None, number)).await;
        }
        let newest = head_at(HEADS);
        assert!(catalog::delete_heads(&bucket, VOLUME, |at| *at < newest).await.is_err());
        let left = catalog::list_heads(&bucket, VOLUME).await.expect("listed").len() as u64;
        let asked = hook.asked.load(Ordering::Relaxed);
        match keeps_all {
            // The bucket tries each twice.
            true => assert_eq!((left, asked), (HEADS, 2 * DELETES_FAILED_MAX as u64)),
            false => assert_eq!(left, 2, "the one that stays, and the newest"),
        }
    }
}
