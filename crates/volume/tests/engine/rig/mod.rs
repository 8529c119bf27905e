//! A node in memory for tests: seeded randomness, tokio's clock, a simulated disk, a store in
//! memory.
//!
//! A node here can die as a process or a machine does. From then on none of its calls to the store
//! ends, its disk handles are dead, and its memory no longer matters.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

mod gate;

pub use gate::Gate;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_core::id::NodeId;
use skerry_core::name::{Name, Target};
use skerry_log::sim::SimDisk;
use skerry_log::{Disk, Log, Progress};
use skerry_store::blocks::{Blocks, BlocksSettings};
use skerry_store::map::nodes::MapNodes;
use skerry_store::objects::bucket::{Bucket, Env};
use skerry_volume::{CreateVolume, Engine, EngineParts, EngineSettings, Parking};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A target.
pub fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

/// A new volume of 4 KiB blocks.
pub fn create(text: &str, size_bytes: u64) -> CreateVolume {
    CreateVolume { name: name(text), size_bytes, block_size_bytes: 4096, flush: None }
}

/// Tokio's clock, which tests pause.
pub struct TokioClock {
    since: tokio::time::Instant,
    /// Microseconds that each look at the clock takes: computing takes no time on a paused clock.
    pub look_us: AtomicU64,
    looks_us: AtomicU64,
}

impl TokioClock {
    pub fn new() -> Self {
        let since = tokio::time::Instant::now();
        Self { since, look_us: AtomicU64::new(0), looks_us: AtomicU64::new(0) }
    }
}

impl Clock for TokioClock {
    fn boot(&self) -> Duration {
        let step = self.look_us.load(Ordering::Relaxed);
        let looks = self.looks_us.fetch_add(step, Ordering::Relaxed);
        self.since.elapsed() + Duration::from_micros(looks)
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.since.elapsed().as_millis() as u64
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

/// The parts that outlive a node: the store, the disk, and the state of randomness.
#[derive(Clone)]
pub struct World {
    pub store: Arc<dyn ObjectStore>,
    pub disk: Arc<SimDisk>,
    pub entropy: Arc<Seeded>,
    pub clock: Arc<TokioClock>,
    pub settings: EngineSettings,
    pub log: skerry_log::Settings,
    /// Tails outside the log.
    pub parked: Arc<Parked>,
    /// True if the log counts as one that survives.
    pub has_log: bool,
    /// Memory for decoded blocks and for map nodes, bytes each.
    pub cache_bytes: u64,
}

/// A node, and the task that commits its log.
pub struct Running {
    pub engine: Arc<Engine>,
    pub log: Log,
    /// Between the node and the store.
    pub gate: Arc<Gate>,
    committer: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gate.kill();
        self.committer.abort();
    }
}

/// Tails outside the log, each on a disk of its own.
#[derive(Default)]
pub struct Parked {
    /// True if there is no room for another.
    pub is_full: AtomicBool,
    begun: Mutex<HashMap<String, Arc<SimDisk>>>,
    whole: Mutex<HashMap<String, Arc<SimDisk>>>,
}

impl Parked {
    pub fn disks(&self) -> Vec<Arc<SimDisk>> {
        self.whole.lock().values().cloned().collect()
    }
}

impl Parking for Parked {
    fn begin(&self, name: &str) -> std::io::Result<Arc<dyn Disk>> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let disk = Arc::new(SimDisk::new());
        self.begun.lock().insert(name.to_owned(), disk.clone());
        Ok(disk)
    }

    fn give_up(&self, name: &str) {
        self.begun.lock().remove(name);
    }

    fn finish(&self, name: &str) -> std::io::Result<()> {
        let disk = self.begun.lock().remove(name).ok_or(std::io::ErrorKind::NotFound)?;
        // Unsynced writes are as good as lost from here on.
        disk.crash(1);
        disk.repair();
        self.whole.lock().insert(name.to_owned(), disk);
        Ok(())
    }

    fn list(&self) -> std::io::Result<Vec<String>> {
        Ok(self.whole.lock().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> std::io::Result<Arc<dyn Disk>> {
        let disk = self.whole.lock().get(name).cloned().ok_or(std::io::ErrorKind::NotFound)?;
        Ok(disk)
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.whole.lock().remove(name);
        Ok(())
    }

    fn place(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// Limits so small that everything happens all the time.
fn tiny() -> EngineSettings {
    EngineSettings {
        segment_bytes: 64 << 10,
        dirty_age: Duration::from_secs(5),
        overlay_bytes_max: 16 << 10,
        checkpoint_segments_max: 6,
        drain_nodes_max: 2,
        snapshot_garbage_bytes_max: 16 << 10,
        snapshot_drain_nodes_max: 20,
        idle_age: Duration::from_secs(9),
        record_bytes_max: 64 << 10,
        pin_ttl: Duration::from_secs(60),
        ..EngineSettings::default()
    }
}

fn tiny_log() -> skerry_log::Settings {
    skerry_log::Settings {
        file_bytes: 256 << 10,
        cap_bytes: 4 << 20,
        spare_bytes: 1 << 20,
        buffer_bytes: 128 << 10,
        buffers: 4,
        write_threshold_bytes: 32 << 10,
        unsynced_bytes_max: 512 << 10,
        fill_ahead_bytes: 64 << 10,
        fill_piece_bytes: 64 << 10,
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::over(seed, Arc::new(InMemory::new()))
    }

    pub fn over(seed: u64, store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            disk: Arc::new(SimDisk::new()),
            parked: Arc::default(),
            entropy: Arc::new(Seeded::new(seed)),
            clock: Arc::new(TokioClock::new()),
            settings: tiny(),
            log: tiny_log(),
            has_log: true,
            cache_bytes: 256 << 10,
        }
    }

    /// Another host with a disk of its own on the same store.
    pub fn neighbour(&self, seed: u64) -> Self {
        Self {
            disk: Arc::new(SimDisk::new()),
            parked: Arc::default(),
            entropy: Arc::new(Seeded::new(seed)),
            ..self.clone()
        }
    }

    /// Loses the log: an empty disk takes its place.
    pub fn lose_disk(&mut self) {
        self.disk = Arc::new(SimDisk::new());
        self.parked = Arc::default();
    }

    /// Starts a node called `host`.
    pub async fn start(&self, host: &str) -> skerry_volume::Result<Running> {
        self.start_behind(host, Gate::new(self.store.clone())).await
    }

    /// Starts a node called `host` behind a gate that may be told when to shut.
    pub async fn start_behind(
        &self,
        host: &str,
        gate: Arc<Gate>,
    ) -> skerry_volume::Result<Running> {
        let (parts, committer) = self.parts(host, gate.clone()).await?;
        let log = parts.log.clone();
        let engine = Engine::open(parts).await?;
        Ok(Running { engine, log, gate, committer: committer.keep() })
    }

    /// The parts of a node called `host`, and the task that commits its log.
    pub async fn parts(
        &self,
        host: &str,
        gate: Arc<Gate>,
    ) -> skerry_volume::Result<(EngineParts, Committer)> {
        let env = Env { clock: self.clock.clone(), entropy: self.entropy.clone() };
        let bucket = Bucket::open(gate, env, true).await?;
        let entropy = self.entropy.clone();
        let next = move || {
            let mut bytes = [0; 8];
            entropy.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        let disk: Arc<dyn Disk> = self.disk.clone();
        let (log, recovery) = Log::open(disk, self.log.clone(), skerry_log::Env::new(next, || 0))?;
        let committer = Committer(tokio::spawn(commit(log.clone())));
        let mut node = [0; 16];
        node[..host.len().min(16)].copy_from_slice(&host.as_bytes()[..host.len().min(16)]);
        let settings = BlocksSettings { ram_bytes: self.cache_bytes, ..BlocksSettings::default() };
        let parts = EngineParts {
            map_nodes: MapNodes::new(bucket.clone(), self.cache_bytes),
            blocks: Blocks::new(bucket.clone(), settings),
            bucket,
            bucket_url: "memory://".into(),
            log,
            recovery,
            has_log: self.has_log,
            parking: self.has_log.then(|| self.parked.clone() as Arc<dyn Parking>),
            node: NodeId(node),
            line: None,
            host: host.into(),
            background: None,
            settings: self.settings.clone(),
        };
        Ok((parts, committer))
    }
}

/// A task that ends with this, unless it is kept: a start that fails or dies leaves none behind.
pub struct Committer(tokio::task::JoinHandle<()>);

impl Committer {
    fn keep(mut self) -> tokio::task::JoinHandle<()> {
        std::mem::replace(&mut self.0, tokio::spawn(std::future::ready(())))
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Steps the log whenever it has work.
async fn commit(log: Log) {
    while let Ok(progress) = log.commit_once() {
        match progress {
            Progress::Idle => tokio::time::sleep(Duration::from_micros(900)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}
