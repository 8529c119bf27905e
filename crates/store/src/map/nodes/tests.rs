use super::*;
use crate::objects::bucket::Created;
use crate::objects::testing::{Flips, Hooked, bucket_in, memory_bucket};
use skerry_core::dead::DeadNode;
use skerry_core::entry::BlockEntry;
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::map_node::MapNodeBuilder;
use skerry_core::position::Number;
use skerry_core::segment::{MapNodesBuilder, SegmentId, SegmentKind};
use skerry_core::size::BlockSize;

fn builder(bucket: &Bucket, number: u64) -> MapNodesBuilder {
    MapNodesBuilder::new(SegmentId {
        kind: SegmentKind::MapNodes,
        block: BlockSize::default(),
        volume: VolumeId([1; 16]),
        key: SegmentKey { stream: StreamId([2; 16]), number: Number::map_node(number) },
        epoch: 1,
        predecessor: [0; 16],
        vseq_from: 0,
        vseq_to: 0,
        nonce: bucket.nonce(),
    })
}

fn leaf(n: u64) -> Bytes {
    let segment = SegmentKey { stream: StreamId([3; 16]), number: Number(n + 1) };
    let entries: Vec<_> = (0..128u8)
        .map(|place| {
            (place, BlockEntry { segment, offset: 7, len: 4184, slot: place.into(), source: 0 })
        })
        .collect();
    MapNodeBuilder::new(1).leaf(n * 128, &entries)
}

/// A segment of `count` leaves in the bucket, and the pointers to them.
async fn leaves(bucket: &Bucket, count: u64) -> Vec<MapNodePtr> {
    let mut builder = builder(bucket, 0);
    let ptrs = (0..count).map(|n| builder.push(0, 128, &leaf(n))).collect();
    put(bucket, builder).await;
    ptrs
}

async fn put(bucket: &Bucket, builder: MapNodesBuilder) {
    let built = builder.finish();
    let name = names::segment(built.key);
    assert_eq!(bucket.create(&name, built.chunks).await.expect("put"), Created::Ours);
}

fn fetches(nodes: &MapNodes) -> u64 {
    nodes.counters().fetches.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_lone_leaf_is_read_alone_and_a_walk_reads_in_stretches() {
    let bucket = memory_bucket(1).await;
    let ptrs = leaves(&bucket, 200).await;
    let nodes = MapNodes::new(bucket, MAP_NODE_CACHE_BYTES);
    let node = nodes.get(&ptrs[100]).await.expect("a leaf");
    assert_eq!(node.first_key(), 12_800);
    let bytes = nodes.counters().fetched_bytes.load(Ordering::Relaxed);
    assert_eq!((fetches(&nodes), bytes), (1, u64::from(ptrs[100].len)));

    for (n, ptr) in ptrs.iter().enumerate() {
        let node = nodes.get(ptr).await.expect("a leaf");
        assert_eq!(node.first_key(), n as u64 * 128);
        assert!(nodes.try_get(ptr).is_some());
    }
    let whole: u64 = ptrs.iter().map(|p| u64::from(p.len)).sum();
    let most = whole / (48 << 10) + 3;
    assert!(fetches(&nodes) <= most, "{} reads, {most} are enough", fetches(&nodes));
}

#[tokio::test(start_paused = true)]
async fn many_who_want_one_node_cost_one_read() {
    let bucket = memory_bucket(2).await;
    let ptrs = leaves(&bucket, 1).await;
    let nodes = MapNodes::new(bucket, MAP_NODE_CACHE_BYTES);
    let got = futures::future::join_all((0..10).map(|_| nodes.get(&ptrs[0]))).await;
    assert!(got.iter().all(Result::is_ok));
    assert_eq!(fetches(&nodes), 1);
}

#[tokio::test(start_paused = true)]
async fn memory_stays_within_the_budget() {
    let bucket = memory_bucket(3).await;
    let ptrs = leaves(&bucket, 300).await;
    let budget = 100 << 10;
    let nodes = MapNodes::new(bucket, budget);
    for ptr in &ptrs {
        nodes.get(ptr).await.expect("a leaf");
        assert!(nodes.cached_bytes() <= budget);
    }
    assert!(nodes.cached_bytes() > 0);
}

#[tokio::test(start_paused = true)]
async fn damage_is_named_and_never_given_out() {
    let bucket = memory_bucket(4).await;
    let mut builder = builder(&bucket, 5);
    let ptrs: Vec<_> = (0..3).map(|n| builder.push(0, 128, &leaf(n))).collect();
    let built = builder.finish();
    let mut bytes = built.chunks.concat();
    bytes[ptrs[1].offset as usize + 60] ^= 4;
    let name = names::segment(built.key);
    assert_eq!(bucket.create(&name, bytes).await.expect("put"), Created::Ours);
    let nodes = MapNodes::new(bucket, MAP_NODE_CACHE_BYTES);
    for (n, ptr) in ptrs.iter().enumerate() {
        match nodes.get(ptr).await {
            Ok(_) => assert_ne!(n, 1),
            Err(error) => {
                assert_eq!(n, 1);
                let place = format!("{name} at byte {}", ptr.offset);
                assert!(error.to_string().contains(&place), "{error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_are_kept_by_their_kind() {
    let bucket = memory_bucket(5).await;
    let nodes = MapNodes::new(bucket.clone(), MAP_NODE_CACHE_BYTES);
    let mut builder = builder(&bucket, 6);
    let made = builder.push(0, 128, &leaf(9));
    nodes.insert(&made, MapNodeKind::Leaf, leaf(9));
    let dead = DeadNode { next: None, subtrees: vec![made] }.encode(1);
    let other = builder.push(0, 128, &dead);
    assert_eq!(nodes.get(&made).await.expect("in memory").first_key(), 9 * 128);
    put(&bucket, builder).await;
    for _ in 0..2 {
        assert_eq!(nodes.get_raw(&other, MapNodeKind::Dead).await.expect("a node"), dead);
    }
    assert_eq!(fetches(&nodes), 1);
    // A node read as another kind is refused, in memory or not.
    for nodes in [nodes, MapNodes::new(bucket, MAP_NODE_CACHE_BYTES)] {
        assert!(nodes.get(&other).await.is_err());
        assert!(nodes.get_raw(&other, MapNodeKind::LivenessLeaf).await.is_err());
        assert!(nodes.get_raw(&made, MapNodeKind::Dead).await.is_err());
        assert!(nodes.get(&made).await.is_ok());
    }
}

/// Once, a bit that flipped in one answer put a volume out of service.
#[tokio::test(start_paused = true)]
async fn a_node_that_arrives_damaged_is_read_once_more() {
    let store = Hooked::new(Flips::default());
    let flips = store.hook.clone();
    let bucket = bucket_in(Arc::new(store), 6).await;
    let ptrs = leaves(&bucket, 3).await;
    let nodes = MapNodes::new(bucket, MAP_NODE_CACHE_BYTES);
    flips.0.store(1, Ordering::Relaxed);
    assert_eq!(nodes.get(&ptrs[1]).await.expect("a leaf").first_key(), 128);
    assert_eq!(fetches(&nodes), 2);
    flips.0.store(2, Ordering::Relaxed);
    assert!(nodes.get(&ptrs[0]).await.is_err());
}
