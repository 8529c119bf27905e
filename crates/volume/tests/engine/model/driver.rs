//! The driver: two hosts, a store and disks that go wrong, and the possible ends of an operation.

use crate::model::reference::{Seen, Vol, differ};
use crate::rig::{Gate, Running, World, target};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_core::id::VolumeId;
use skerry_store::objects::faulty::{FaultPlan, Faults, Faulty};
use skerry_volume::{Device, Engine, Error, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const HOSTS: [&str; 2] = ["a", "b"];

/// Longest time of an operation on a store and a disk that work, in the simulated time.
const PATIENCE: Duration = Duration::from_secs(600);

/// The reason why an operation did not end well.
#[derive(Debug)]
pub struct Trouble(pub String);

pub type Outcome<T = ()> = Result<T, Trouble>;

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Self(format!("{:?}: {e}", e.kind()))
    }
}

/// A volume that a task writes; dropping this ends the writes.
pub struct Busy {
    pub id: VolumeId,
    pub task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct Model {
    pub seed: u64,
    pub rng: StdRng,
    pub bare: Arc<InMemory>,
    pub faults: Faults,
    pub worlds: [World; 2],
    pub runs: [Option<Running>; 2],
    pub devices: BTreeMap<VolumeId, Arc<Device>>,
    pub vols: Vec<Vol>,
    /// True if the store may fail.
    pub bad_store: bool,
    /// Hosts that were told to die.
    pub doomed: [bool; 2],
    /// Hosts that may not know yet that a volume was taken from them.
    pub stale: BTreeSet<(usize, VolumeId)>,
    /// Disks that were told to fail.
    pub bad_disk: [bool; 2],
    /// The volumes that an operation under way changes, with the number of acknowledged records
    /// before it.
    pub doing: Vec<(VolumeId, u64)>,
    /// The volume that is being written while something else happens.
    pub busy: Option<Busy>,
    pub trace: Arc<Mutex<Vec<String>>>,
    pub stamp: u64,
}

impl Model {
    pub async fn new(seed: u64, trace: Arc<Mutex<Vec<String>>>) -> Self {
        let bare = Arc::new(InMemory::new());
        let faulty = Faulty::new(bare.clone(), seed ^ 0x5eed, FaultPlan::default());
        let faults = faulty.faults();
        let mut rng = StdRng::seed_from_u64(seed);
        let store: Arc<dyn ObjectStore> = Arc::new(faulty);
        let mut world = World::over(seed, store);
        // The seed does not decide what a cache evicts. Large caches evict nothing but by a
        // restart, so a run can be repeated exactly. With tiny ones almost everything is fetched,
        // each time.
        world.cache_bytes = if seed % 3 == 1 { 32 << 10 } else { 64 << 20 };
        if rng.random_bool(0.5) {
            world.log.file_bytes = 96 << 10;
            world.log.cap_bytes = 8 * (96 << 10);
        }
        world.settings.checkpoint_segments_max = rng.random_range(1..8);
        world.settings.segment_bytes = rng.random_range(8..96) << 10;
        world.settings.segment_records_max = rng.random_range(4..200);
        world.settings.overlay_bytes_max = rng.random_range(1..64) << 10;
        // Every snapshot gets a root of its own, or only the ones that are worth it, or none.
        world.settings.snapshot_garbage_bytes_max =
            [0, 16 << 10, u64::MAX][(seed / 3 % 3) as usize];
        let worlds = [world.clone(), world.neighbour(seed ^ 0xb)];
        let mut model = Self {
            seed,
            rng,
            bare,
            faults,
            worlds,
            runs: [None, None],
            devices: BTreeMap::new(),
            vols: Vec::new(),
            bad_store: false,
            doomed: [false; 2],
            stale: BTreeSet::new(),
            bad_disk: [false; 2],
            doing: Vec::new(),
            busy: None,
            trace,
            stamp: 0,
        };
        model.start(0).await;
        model
    }

    pub fn say(&self, line: impl Into<String>) {
        let at = self.worlds[0].clock.clone();
        let now = skerry_core::env::Clock::boot(&*at);
        let line = format!("{:>9.3} {}", now.as_secs_f64(), line.into());
        if std::env::var_os("SKERRY_TRACE").is_some() {
            eprintln!("{line}");
        }
        if let Ok(mut trace) = self.trace.lock() {
            trace.push(line);
        }
    }

    /// Fails the run: this must not happen.
    pub fn wrong(&self, what: impl std::fmt::Display) -> ! {
        panic!("seed {}: {what}", self.seed);
    }

    /// True if operations may fail.
    pub fn disturbed(&self) -> bool {
        self.bad_store || self.doomed.contains(&true) || self.bad_disk.contains(&true)
    }

    /// Notes that an operation changes this volume from here on.
    pub fn begin(&mut self, v: usize) {
        let vol = &self.vols[v];
        if !self.is_doing(vol.id) {
            self.doing.push((vol.id, vol.end()));
        }
    }

    pub fn is_doing(&self, id: VolumeId) -> bool {
        self.doing.iter().any(|(doing, _)| *doing == id)
    }

    pub fn is_busy(&self, id: VolumeId) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.id == id)
    }

    pub fn chance(&mut self, of_a_hundred: u32) -> bool {
        self.rng.random_range(0..100) < of_a_hundred
    }

    pub fn engine(&self, host: usize) -> Option<Arc<Engine>> {
        self.runs[host].as_ref().map(|run| run.engine.clone())
    }

    pub fn gate(&self, host: usize) -> Arc<Gate> {
        match &self.runs[host] {
            Some(run) => run.gate.clone(),
            None => self.wrong("a host that is down was asked"),
        }
    }

    /// Starts a host whose store and disk work; that must succeed.
    pub async fn start(&mut self, host: usize) {
        let started = tokio::time::timeout(PATIENCE, self.worlds[host].start(HOSTS[host])).await;
        match started {
            Ok(Ok(run)) => self.runs[host] = Some(run),
            Ok(Err(e)) => self.wrong(format!("host {} can't start: {e}", HOSTS[host])),
            Err(_) => self.wrong(format!("host {} hangs while it starts", HOSTS[host])),
        }
    }

    /// Waits for an operation on a host, unless the host dies of it or it takes too long.
    pub async fn on<T>(
        &self,
        host: usize,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Outcome<T> {
        let gate = self.gate(host);
        let patience = if self.disturbed() { Duration::from_secs(40) } else { PATIENCE };
        tokio::select! {
            biased;
            done = work => done.map_err(Trouble::from),
            () = gate.died() => Err(Trouble("the host died".into())),
            () = tokio::time::sleep(patience) => {
                if !self.disturbed() {
                    self.wrong("an operation hangs");
                }
                Err(Trouble("it took too long and was given up".into()))
            }
        }
    }

    pub fn at(&self, id: VolumeId) -> usize {
        match self.vols.iter().position(|v| v.id == id) {
            Some(at) => at,
            None => self.wrong("an unknown volume"),
        }
    }

    /// The device of a volume on its host.
    pub async fn device(&mut self, host: usize, v: usize) -> Outcome<Arc<Device>> {
        let id = self.vols[v].id;
        if let Some(device) = self.devices.get(&id) {
            return Ok(device.clone());
        }
        let Some(engine) = self.engine(host) else { return Err(Trouble("down".into())) };
        let name = target(self.vols[v].name());
        let device = self.on(host, async { engine.open_device(&name).await }).await?;
        if device.is_read_only() {
            self.wrong(format!("{} is read-only on its owner's host", self.vols[v].name()));
        }
        self.vols[v].owner = Some(host);
        // The volume was taken from this host once, and released by its taker. This host writes it
        // again, and is judged.
        self.stale.remove(&(host, id));
        self.devices.insert(id, device.clone());
        Ok(device)
    }

    /// Reads all of a device, in pieces of odd sizes.
    pub async fn read_all(&mut self, host: usize, device: &Device) -> Outcome<Vec<u8>> {
        let size = device.size_bytes();
        let mut image = Vec::with_capacity(size as usize);
        while (image.len() as u64) < size {
            let at = image.len() as u64;
            let len = (self.rng.random_range(1..600u64) * 512).min(size - at);
            let part = self.on(host, async { device.read(at, len as usize).await }).await?;
            image.extend_from_slice(&part);
        }
        Ok(image)
    }

    /// The present state of a volume, on the host that writes it.
    pub async fn see(&mut self, host: usize, v: usize) -> Outcome<Seen> {
        if self.vols[v].names.len() > 1 {
            // A rename may have been half done: attaching finishes it.
            self.devices.remove(&self.vols[v].id);
        }
        let device = self.device(host, v).await?;
        let image = self.read_all(host, &device).await?;
        self.one_name(host, v).await;
        let Some(engine) = self.engine(host) else { return Err(Trouble("down".into())) };
        let name = crate::rig::name(self.vols[v].name());
        let listed = self.on(host, async { engine.list_snapshots(&name).await }).await?;
        Ok(Seen { image, snaps: listed.into_iter().map(|s| s.name).collect() })
    }

    /// Reads everything that is published with a host that has never read anything, from the store
    /// itself.
    pub async fn observe(&mut self) {
        let mut world = self.worlds[0].neighbour(self.rng.random());
        world.store = self.bare.clone();
        let seer = match world.start("observer").await {
            Ok(seer) => seer,
            Err(e) => self.wrong(format!("an observer can't start: {e}")),
        };
        for v in 0..self.vols.len() {
            if let Err(e) = self.observe_one(&seer.engine, v).await {
                self.wrong(format!("observing {}: {e}", self.vols[v].name()));
            }
        }
    }

    async fn observe_one(&mut self, engine: &Engine, v: usize) -> Result<(), String> {
        let mut found = None;
        for name in &self.vols[v].names {
            match engine.show_volume(&crate::rig::name(name)).await {
                Ok(info) if info.id == self.vols[v].id => found = Some((name.clone(), info)),
                Ok(_) | Err(_) => {}
            }
        }
        let Some((name, info)) = found else { return Err("it is not there".into()) };
        let listed = engine.list_snapshots(&crate::rig::name(&name)).await;
        for view in listed.map_err(|e| format!("listing snapshots: {e}"))? {
            let full = format!("{name}@{}", view.name);
            let device = match engine.open_device(&target(&full)).await {
                Ok(device) => device,
                // This store never fails: the owner has published the label, and not yet the ref.
                Err(e) if e.kind() == ErrorKind::Unavailable => continue,
                Err(e) => return Err(format!("opening {full}: {e}")),
            };
            let image = read_whole(&device).await.map_err(|e| format!("reading {full}: {e}"))?;
            let wanted = match self.vols[v].snap(&view.name) {
                Some(snap) => snap.image.clone(),
                None if self.vols[v].snaps.iter().any(|s| s.name.is_none()) => continue,
                None => return Err(format!("{full} should not be there")),
            };
            if let Some(diff) = differ(&wanted, &image) {
                return Err(format!("{full}: {diff}"));
            }
        }
        if info.deleted || info.owner.is_none() {
            return Ok(());
        }
        let device = engine.open_device(&target(&name)).await;
        let device = device.map_err(|e| format!("opening {name}: {e}"))?;
        if !device.is_read_only() {
            return Err(format!("{name} was claimed though {:?} writes it", info.owner));
        }
        let image = read_whole(&device).await.map_err(|e| format!("reading {name}: {e}"))?;
        let vol = &self.vols[v];
        vol.state_of_image(&image, vol.bucketed)
    }
}

async fn read_whole(device: &Device) -> Result<Vec<u8>, Error> {
    Ok(device.read(0, device.size_bytes() as usize).await?.to_vec())
}
