use super::*;
use crate::map::node_writer::MapNodeLane;
use crate::map::nodes::MAP_NODE_CACHE_BYTES;
use crate::objects::bucket::Bucket;
use crate::objects::testing::memory_bucket;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::position::Number;
use skerry_core::size::BlockSize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

fn lane() -> MapNodeLane {
    MapNodeLane {
        volume: VolumeId([1; 16]),
        stream: StreamId([2; 16]),
        epoch: 1,
        block: BlockSize::default(),
        next: Arc::new(AtomicU64::new(0)),
    }
}

fn key(n: u64) -> SegmentKey {
    SegmentKey { stream: StreamId([3; 16]), number: Number(n) }
}

struct Tree {
    bucket: Bucket,
    nodes: MapNodes,
    lane: MapNodeLane,
    top: Option<MapNodePtr>,
    model: BTreeMap<SegmentKey, BTreeMap<u16, u32>>,
}

impl Tree {
    async fn new(seed: u64) -> Self {
        Self::with_cache(seed, MAP_NODE_CACHE_BYTES).await
    }

    async fn with_cache(seed: u64, cache_bytes: u64) -> Self {
        let bucket = memory_bucket(seed).await;
        let nodes = MapNodes::new(bucket.clone(), cache_bytes);
        Self { bucket, nodes, lane: lane(), top: None, model: BTreeMap::new() }
    }

    async fn update(&mut self, changes: &[(SegmentKey, u16, i32)]) -> Updated {
        let mut delta = LivenessDelta::new();
        for &(key, slot, by) in changes {
            delta.add(key, slot, by);
            let slots = self.model.entry(key).or_default();
            let count = slots.entry(slot).or_default();
            *count = count.checked_add_signed(by).expect("nothing below zero");
            slots.retain(|_, count| *count > 0);
        }
        self.model.retain(|_, slots| !slots.is_empty());
        let mut writer = MapNodeWriter::new(&self.bucket, &self.nodes, self.lane.clone(), 1);
        let updated = update(&mut writer, self.top, &delta).await.expect("updates");
        writer.finish().await.expect("put");
        self.top = updated.top;
        updated
    }

    async fn read(&self) -> BTreeMap<SegmentKey, BTreeMap<u16, u32>> {
        let mut walk = Walk::new(&self.nodes, self.top);
        let mut all = BTreeMap::new();
        while let Some(leaf) = walk.next_leaf().await.expect("reads") {
            all.extend(leaf.into_iter().map(|(key, live)| (key, live.slots().collect())));
        }
        all
    }
}

#[tokio::test]
async fn a_tree_says_what_a_map_says() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tree = Tree::new(seed).await;
        for _ in 0..8 {
            let grows = rng.random_bool(0.6);
            let mut changes = Vec::new();
            let mut counts = tree.model.clone();
            for _ in 0..rng.random_range(1..3000) {
                let (at, slot) = (key(rng.random_range(0..2000)), rng.random_range(0..300u16));
                let count = counts.entry(at).or_default().entry(slot).or_default();
                let by = if *count > 0 && !grows { -1 } else { i32::from(grows) };
                *count = count.saturating_add_signed(by);
                changes.push((at, slot, by));
            }
            if !grows {
                // Removes whole stretches.
                let from = rng.random_range(0..2000);
                for (at, slots) in tree.model.range(key(from)..key(from + 500)) {
                    for (slot, count) in slots {
                        let done: i32 = changes
                            .iter()
                            .filter(|c| (c.0, c.1) == (*at, *slot))
                            .map(|c| c.2)
                            .sum();
                        changes.push((*at, *slot, -(*count as i32) - done));
                    }
                }
            }
            tree.update(&changes).await;
            assert_eq!(tree.read().await, tree.model, "seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_small_change_writes_one_leaf_and_the_path_to_it() {
    let mut tree = Tree::new(1).await;
    let all: Vec<_> = (0..40_000).map(|n| (key(n), 0, 1)).collect();
    let made = tree.update(&all).await;
    assert!(made.leaves > 40, "{made:?}");
    assert_eq!(tree.top.map(|top| top.level), Some(1));
    let before = tree.lane.next.load(std::sync::atomic::Ordering::Relaxed);
    let made = tree.update(&[(key(20_000), 1, 1)]).await;
    assert_eq!((made.leaves, made.decoded), (1, 1));
    let after = tree.lane.next.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(after - before, 1, "one segment of nodes");
    let gone: Vec<_> = (1..40_000).filter(|n| *n != 20_000).map(|n| (key(n), 0, -1)).collect();
    tree.update(&gone).await;
    assert_eq!(tree.top.map(|top| top.level), Some(0), "a tree becomes small again");
    let rest = [(key(0), 0, -1), (key(20_000), 0, -1), (key(20_000), 1, -1)];
    tree.update(&rest).await;
    assert_eq!(tree.top, None);
}

#[tokio::test]
async fn a_look_for_a_few_segments_reads_few_leaves() {
    let mut tree = Tree::new(2).await;
    let all: Vec<_> = (0..40_000).map(|n| (key(n), 0, 1)).collect();
    tree.update(&all).await;
    let cold = MapNodes::new(tree.bucket.clone(), MAP_NODE_CACHE_BYTES);
    let own = SegmentKey { stream: lane().stream, number: Number::map_node(0) };
    let candidates: BTreeSet<SegmentKey> = [key(5), key(30_000), key(90_000), own].into();
    let (mut seen, mut listed) = (SeenMapNodes::new(), BTreeSet::new());
    hold(&cold, tree.top, &candidates, &mut seen, &mut listed).await.expect("reads");
    assert_eq!(listed, [key(5), key(30_000), own].into(), "the tree's own nodes are held, too");
    assert!(seen.len() <= 4, "{} nodes were read", seen.len());
}

/// The tree's top is read before it is put.
#[tokio::test]
async fn a_tree_of_many_leaves_is_written_without_a_cache() {
    let mut tree = Tree::with_cache(1, 0).await;
    let changes: Vec<_> = (0..20_000).map(|n| (key(n), 0, 1)).collect();
    tree.update(&changes).await;
    assert!(tree.top.is_some_and(|top| top.level > 0), "{:?}", tree.top);
    assert_eq!(tree.read().await, tree.model);
}
