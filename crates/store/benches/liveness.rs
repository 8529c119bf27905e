//! Measures a checkpoint's update of liveness on a full volume. It has 1 TiB of 4 KiB blocks that
//! were overwritten at random, in segments of 16 MiB with one live slot in eight. `cargo bench -p
//! skerry-store --bench liveness -- [random blocks of the checkpoint]`.
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::unwrap_used, reason = "a bench may stop")]

use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::liveness::LivenessDelta;
use skerry_core::map_node::MapNodePtr;
use skerry_core::position::{Number, SegmentKey};
use skerry_core::size::BlockSize;
use skerry_store::map::liveness::{Updated, update};
use skerry_store::map::node_writer::{MapNodeLane, MapNodeWriter};
use skerry_store::map::nodes::MapNodes;
use skerry_store::objects::bucket::{Bucket, Env};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Segments that a full volume of 1 TiB references, if an eighth of each is live.
const SEGMENTS: u64 = 8 * (1 << 40) / (16 << 20) / 8;
const SLOTS: u16 = 4096;
const STRIDE: u16 = 8;
/// Blocks that one checkpoint of a busy volume merges: 16 MiB of overlay.
const CHECKPOINT_BLOCKS: u64 = 380_000;

struct Outside(Mutex<StdRng>, Instant);

impl Clock for Outside {
    fn boot(&self) -> Duration {
        self.1.elapsed()
    }
    fn wall_ms(&self) -> u64 {
        0
    }
}

impl Entropy for Outside {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap().fill_bytes(out);
    }
}

/// CPU time of the whole process, without that of other processes.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn key(n: u64) -> SegmentKey {
    SegmentKey { stream: StreamId([3; 16]), number: Number(n + 1) }
}

struct Volume {
    bucket: Bucket,
    nodes: MapNodes,
    lane: MapNodeLane,
    top: Option<MapNodePtr>,
}

impl Volume {
    async fn apply(&mut self, delta: &LivenessDelta) -> Updated {
        let mut writer = MapNodeWriter::new(&self.bucket, &self.nodes, self.lane.clone(), 1);
        let updated = update(&mut writer, self.top, delta).await.unwrap();
        writer.finish().await.unwrap();
        self.top = updated.top;
        updated
    }

    /// Writes as many segments as a full volume has, some at a time.
    async fn fill(&mut self) {
        for first in (0..SEGMENTS).step_by(512) {
            let mut delta = LivenessDelta::new();
            for n in first..(first + 512).min(SEGMENTS) {
                (0..SLOTS).step_by(STRIDE.into()).for_each(|slot| delta.add(key(n), slot, 1));
                delta.length(key(n), 16 << 20);
            }
            self.apply(&delta).await;
        }
    }
}

async fn run(blocks: u64) {
    let outside = Arc::new(Outside(Mutex::new(StdRng::seed_from_u64(2)), Instant::now()));
    let env = Env { clock: outside.clone(), entropy: outside };
    let bucket = Bucket::open(Arc::new(InMemory::new()), env, true).await.unwrap();
    let lane = MapNodeLane {
        volume: VolumeId([1; 16]),
        stream: StreamId([2; 16]),
        epoch: 1,
        block: BlockSize::default(),
        next: Arc::new(AtomicU64::new(0)),
    };
    let nodes = MapNodes::new(bucket.clone(), 256 << 20);
    let mut volume = Volume { bucket, nodes, lane, top: None };
    volume.fill().await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut gone = BTreeSet::new();
    let mut delta = LivenessDelta::new();
    while (gone.len() as u64) < blocks {
        let at = (rng.random_range(0..SEGMENTS), rng.random_range(0..SLOTS / STRIDE) * STRIDE);
        if gone.insert(at) {
            delta.add(key(at.0), at.1, -1);
        }
    }
    for n in 0..blocks.div_ceil(SLOTS.into()) {
        (0..SLOTS).for_each(|slot| delta.add(key(SEGMENTS + n), slot, 1));
    }
    let (before, began) = (cpu(), Instant::now());
    let updated = volume.apply(&delta).await;
    let (took, wall) = (cpu() - before, began.elapsed());
    println!(
        "{SEGMENTS} segments, {blocks} random blocks: {} ms of CPU ({} ms), {} entries looked into, {} leaves written",
        took.as_millis(),
        wall.as_millis(),
        updated.decoded,
        updated.leaves
    );
}

fn main() {
    let blocks = std::env::args().filter_map(|arg| arg.parse().ok()).next();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for blocks in blocks.map_or(vec![1, 1000, CHECKPOINT_BLOCKS], |blocks| vec![blocks]) {
            run(blocks).await;
        }
    });
}
