//! A node in memory for tests: seeded randomness, tokio's clock, a simulated disk, a store in memory.
#![allow(dead_code, reason = "each test file uses a part of it")]

use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_core::id::NodeId;
use skerry_log::sim::SimDisk;
use skerry_log::{Disk, Log, Progress};
use skerry_store::blocks::{Blocks, BlocksSettings};
use skerry_store::bucket::{Bucket, Env};
use skerry_store::nodes::Nodes;
use skerry_volume::{EngineSettings, Node, NodeParts};
use std::sync::Arc;
use std::time::Duration;

/// Tokio's clock, which tests pause.
pub struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn boot(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

/// Randomness from a seed.
pub struct Seeded(Mutex<StdRng>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill_bytes(out);
    }
}

/// What outlives a node: the store, the disk, and where randomness has got to.
pub struct World {
    pub store: Arc<dyn ObjectStore>,
    pub disk: Arc<SimDisk>,
    pub entropy: Arc<Seeded>,
    pub clock: Arc<TokioClock>,
    pub settings: EngineSettings,
    pub log_cap_bytes: u64,
}

/// A node, and the task that commits its log.
pub struct Running {
    pub node: Arc<Node>,
    pub log: Log,
    committer: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.committer.abort();
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::over(seed, Arc::new(InMemory::new()))
    }

    pub fn over(seed: u64, store: Arc<dyn ObjectStore>) -> Self {
        let settings = EngineSettings {
            segment_bytes: 64 << 10,
            inline_cpu: true,
            dirty_age: Duration::from_secs(5),
            overlay_bytes_max: 16 << 10,
            checkpoint_segments_max: 6,
            ..EngineSettings::default()
        };
        Self {
            store,
            disk: Arc::new(SimDisk::new()),
            entropy: Arc::new(Seeded::new(seed)),
            clock: Arc::new(TokioClock(tokio::time::Instant::now())),
            settings,
            log_cap_bytes: 4 << 20,
        }
    }

    /// Another host with a disk of its own on the same store.
    pub fn neighbour(&self, seed: u64) -> Self {
        Self {
            store: self.store.clone(),
            disk: Arc::new(SimDisk::new()),
            entropy: Arc::new(Seeded::new(seed)),
            clock: self.clock.clone(),
            settings: self.settings.clone(),
            log_cap_bytes: self.log_cap_bytes,
        }
    }

    pub fn log_settings(&self) -> skerry_log::Settings {
        skerry_log::Settings {
            file_bytes: 256 << 10,
            cap_bytes: self.log_cap_bytes,
            buffer_bytes: 128 << 10,
            buffers: 4,
            write_threshold_bytes: 32 << 10,
            fill_ahead_bytes: 64 << 10,
            fill_piece_bytes: 64 << 10,
        }
    }

    /// Starts a node called `host`.
    pub async fn start(&self, host: &str) -> skerry_volume::Result<Running> {
        let env = Env { clock: self.clock.clone(), entropy: self.entropy.clone() };
        let bucket = Bucket::open(self.store.clone(), env, true).await?;
        let entropy = self.entropy.clone();
        let next = move || {
            let mut bytes = [0; 8];
            entropy.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        let disk: Arc<dyn Disk> = self.disk.clone();
        let (log, recovery) =
            Log::open(disk, self.log_settings(), skerry_log::Env::new(next, || 0))?;
        let committer = tokio::spawn(commit(log.clone()));
        let mut node = [0; 16];
        node[..host.len().min(16)].copy_from_slice(&host.as_bytes()[..host.len().min(16)]);
        let settings = BlocksSettings { ram_bytes: 256 << 10, ..BlocksSettings::default() };
        let parts = NodeParts {
            nodes: Nodes::new(bucket.clone(), 256 << 10),
            blocks: Blocks::new(bucket.clone(), settings),
            bucket,
            bucket_url: "memory://".into(),
            log: log.clone(),
            recovery,
            has_log: true,
            node: NodeId(node),
            host: host.into(),
            settings: self.settings.clone(),
        };
        let node = Node::open(parts).await?;
        Ok(Running { node, log, committer })
    }
}

/// Steps the log whenever there is something to do.
async fn commit(log: Log) {
    while let Ok(progress) = log.commit_once() {
        match progress {
            Progress::Idle => tokio::time::sleep(Duration::from_micros(100)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}
