use super::*;
use crate::map::liveness::Walk;
use crate::map::nodes::MAP_NODE_CACHE_BYTES;
use crate::objects::testing::{Hook, Hooked, bucket_in, memory_bucket};
use object_store::memory::InMemory;
use object_store::path::Path;
use skerry_core::entry::BlockEntry;
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::map_node::MapNodePtr;
use skerry_core::overlay::Overlay;
use skerry_core::position::{Number, Position};
use skerry_core::refs::Ref;
use skerry_core::root::{Base, ROOT_BYTES_MAX};
use skerry_core::size::BlockSize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Number of leaves below one inner node: a trim of 32 MiB that leaves one of them drops all
/// others.
const LEAVES: u64 = 64;
const LEAF_BLOCKS: u64 = 128;
const SLOTS: u64 = 4096;
const DRAIN: usize = 4096;

type Counts = BTreeMap<(SegmentKey, u16), u32>;

struct Volume {
    bucket: Bucket,
    nodes: MapNodes,
    lane: MapNodeLane,
    root: Root,
}

impl Volume {
    async fn new(blocks: u64) -> Self {
        Self::with_cache(blocks, MAP_NODE_CACHE_BYTES).await
    }

    async fn with_cache(blocks: u64, cache_bytes: u64) -> Self {
        Self::in_bucket(memory_bucket(1).await, blocks, cache_bytes)
    }

    fn in_bucket(bucket: Bucket, blocks: u64, cache_bytes: u64) -> Self {
        let block = BlockSize::default();
        Self {
            nodes: MapNodes::new(bucket.clone(), cache_bytes),
            bucket,
            lane: MapNodeLane {
                volume: VolumeId([1; 16]),
                stream: StreamId([2; 16]),
                epoch: 1,
                block,
                next: Arc::new(AtomicU64::new(0)),
            },
            root: Root::empty(block.offset(blocks), block, "disk"),
        }
    }

    async fn checkpoint(&mut self, overlay: &Overlay) -> Vec<SegmentKey> {
        let facts = Facts { size_bytes: self.root.size_bytes, name: self.root.name.clone() };
        let lane = self.lane.clone();
        let made = write(&self.bucket, &self.nodes, lane, &self.root, overlay, facts, DRAIN).await;
        let made = made.expect("makes a checkpoint");
        assert_eq!(made.root.birth, self.root.birth + 1);
        self.root = made.root;
        let encoded = self.root.encode();
        assert!(encoded.len() <= ROOT_BYTES_MAX, "{} bytes", encoded.len());
        assert_eq!(Root::decode(&encoded), Ok(self.root.clone()));
        made.dropped
    }

    /// Counts the references of the map, and of its nodes.
    async fn counted(&self) -> Counts {
        let mut counts = Counts::new();
        let mut todo: Vec<MapNodePtr> = self.root.top.into_iter().collect();
        while let Some(ptr) = todo.pop() {
            *counts.entry((ptr.segment, ptr.slot)).or_default() += 1;
            let node = self.nodes.get(&ptr).await.expect("a node");
            for (_, entry) in node.leaf_entries() {
                *counts.entry((entry.segment, entry.slot)).or_default() += 1;
            }
            todo.extend(node.children().map(|(_, child)| child));
        }
        counts
    }

    async fn listed(&self) -> Counts {
        let mut walk = Walk::new(&self.nodes, self.root.liveness);
        let mut listed = Counts::new();
        while let Some(leaf) = walk.next_leaf().await.expect("reads") {
            for (key, live) in leaf {
                listed.extend(live.slots().map(|(slot, count)| ((key, slot), count)));
            }
        }
        listed
    }
}

fn data(i: u64) -> BlockEntry {
    let segment = SegmentKey { stream: StreamId([3; 16]), number: Number(i / SLOTS + 1) };
    BlockEntry { segment, offset: 7, len: 4184, slot: (i % SLOTS) as u16, source: 0 }
}

/// One block in each leaf.
fn sparse(leaves: u64) -> Overlay {
    let mut overlay = Overlay::new();
    for i in 0..leaves {
        let entry = data(i);
        overlay.set(i * LEAF_BLOCKS, &entry);
        overlay.note_length(entry.segment, 1 << 24);
    }
    overlay
}

/// An ordinary fstrim once made a ref of 141 MB, which no reader accepted. The volume had a block
/// in each 512 KiB of 1.16 TiB, and the trims left one leaf of each 32 MiB. This is a sixteenth of
/// it.
#[tokio::test]
async fn trims_make_no_root_long_and_everything_is_freed_in_the_end() {
    trim_and_free(2400, MAP_NODE_CACHE_BYTES).await;
}

/// A checkpoint once looked in the bucket for nodes that it had spilled and not put, when the cache
/// had dropped them.
#[tokio::test]
async fn what_is_not_put_yet_is_read_without_a_cache() {
    for cache_bytes in [0, 64 << 10] {
        trim_and_free(100, cache_bytes).await;
    }
}

async fn trim_and_free(groups: u64, cache_bytes: u64) {
    let mut volume = Volume::with_cache(groups * LEAVES * LEAF_BLOCKS, cache_bytes).await;
    volume.checkpoint(&sparse(groups * LEAVES)).await;
    let full = volume.root.stored_bytes();
    let mut trims = Overlay::new();
    for group in 0..groups {
        let first = group * LEAVES * LEAF_BLOCKS;
        trims.zero(first + LEAF_BLOCKS..first + LEAVES * LEAF_BLOCKS);
    }
    volume.checkpoint(&trims).await;
    let pending = volume.root.dead_pending.expect("more than one checkpoint lets go");
    assert_eq!(pending.subtrees, groups * (LEAVES - 1) - DRAIN as u64);
    assert_eq!(pending.subtrees, pending.blocks);
    assert_eq!(volume.root.live_blocks(), groups);

    let (at, id) = (Position::default(), VolumeId([1; 16]));
    let base = Base::exact(volume.root.clone(), at);
    let head = Ref { volume: id, base, snapshot: None, next_node: 1 }.encode([0; 16]);
    assert!(head.len() < 1024, "a ref of {} bytes", head.len());

    let mut rounds = 1;
    while volume.root.dead_pending.is_some() {
        volume.checkpoint(&Overlay::new()).await;
        rounds += 1;
    }
    assert_eq!(rounds, (groups * (LEAVES - 1)).div_ceil(DRAIN as u64));
    assert_eq!(volume.listed().await, volume.counted().await);
    assert!(volume.root.stored_bytes() < full, "{full}");
    assert_eq!(volume.root.live_blocks(), groups);
}

#[tokio::test]
async fn what_is_trimmed_whole_leaves_nothing() {
    let mut volume = Volume::new(1 << 40).await;
    volume.checkpoint(&sparse(3 * LEAVES)).await;
    let mut trim = Overlay::new();
    trim.zero(0..1 << 40);
    let dropped = volume.checkpoint(&trim).await;
    assert_eq!((volume.root.top, volume.root.liveness), (None, None));
    assert_eq!((volume.root.dead_pending, volume.root.stored_bytes()), (None, 0));
    assert!(dropped.contains(&data(0).segment), "{dropped:?}");
}

/// A tree that grows reads the levels that were put on top of it.
#[tokio::test]
async fn a_tree_grows_without_a_cache() {
    let mut volume = Volume::with_cache(LEAF_BLOCKS, 0).await;
    volume.checkpoint(&sparse(1)).await;
    let blocks = 100 * LEAVES * LEAF_BLOCKS;
    volume.root.size_bytes = volume.root.block.offset(blocks);
    volume.checkpoint(&sparse(2)).await;
    assert_eq!(volume.root.live_blocks(), 2);
    assert_eq!(volume.listed().await, volume.counted().await);
}

/// A disk that accepts this number of further objects of streams.
struct Full(AtomicI64);

#[async_trait::async_trait]
impl Hook for Full {
    async fn putting(&self, _inner: &InMemory, at: &Path) -> object_store::Result<()> {
        let is_node = at.as_ref().starts_with("streams/");
        if is_node && self.0.fetch_sub(1, Ordering::Relaxed) <= 0 {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
            return Err(object_store::Error::Generic { store: "full", source });
        }
        Ok(())
    }
}

/// Once, each failed attempt left the objects that it had put, and so filled the room that was made
/// for it.
#[tokio::test]
async fn a_checkpoint_that_fails_leaves_nothing() {
    let store = Hooked::new(Full(AtomicI64::new(0)));
    let full = store.hook.clone();
    let bucket = bucket_in(Arc::new(store), 1).await;
    let leaves = 70_000;
    let volume = Volume::in_bucket(bucket.clone(), leaves * LEAF_BLOCKS, MAP_NODE_CACHE_BYTES);
    let overlay = sparse(leaves);
    for _ in 0..3 {
        full.0.store(1, Ordering::Relaxed);
        let facts = Facts { size_bytes: volume.root.size_bytes, name: "disk".to_owned() };
        let (lane, root) = (volume.lane.clone(), &volume.root);
        let made = write(&bucket, &volume.nodes, lane, root, &overlay, facts, DRAIN).await;
        assert!(made.expect_err("full").is_unavailable());
        assert!(full.0.load(Ordering::Relaxed) < 0, "nothing was put");
        assert_eq!(bucket.list("streams").await.expect("listed"), vec![]);
    }
}
