//! A shard over a real database in memory, for tests: its place, openings of it, and requests for
//! work.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(unreachable_pub, reason = "shared by tests")]

use futures::future::join_all;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_core::start;
use skerry_jobs::Result;
use skerry_jobs::broker::Broker;
use skerry_jobs::database::{self, Database, DatabaseLog, DatabaseParts};
use skerry_jobs::hash::HashRange;
use skerry_jobs::job::JobRef;
use skerry_jobs::name::{Group, JobId, Tenant, Worker};
use skerry_jobs::opening::{LogName, MemoryNote};
use skerry_jobs::shard::{Leased, Outcome, Retention, Shard, ShardParts};
use skerry_jobs::spec::JobSpec;
use skerry_jobs::wal::{Beside, LocalWal};
use skerry_log::sim::SimDisk;
use slatedb::Db;
use slatedb::config::Settings;
use slatedb::fail_parallel::FailPointRegistry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The runtime's clock.
pub struct Paused(pub Instant);

impl Clock for Paused {
    fn boot(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as u64
    }
}

pub struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

/// Other bytes at each opening of a database: it names its files by them, and by a time that may
/// stand still.
struct Opened(u64);

impl Opened {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Entropy for Opened {
    fn fill(&self, out: &mut [u8]) {
        let bytes = self.0.to_le_bytes();
        out.iter_mut().zip(bytes.into_iter().cycle()).for_each(|(out, byte)| *out = byte);
    }
}

/// A place for a shard, which may be opened again.
pub struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub path: String,
    /// The shard's, if a test sets no other.
    pub hashes: HashRange,
    pub clock: Arc<Paused>,
    pub log: DatabaseLog,
    pub expected_epoch: Option<u64>,
    /// True if its local log is said to have moved with its node.
    pub is_log_moved: bool,
    /// True to move everything to the database's files at a close.
    pub apply_log: bool,
    pub settings: Settings,
    pub fail_points: Arc<FailPointRegistry>,
}

impl Place {
    pub fn new() -> Self {
        let clock = Arc::new(Paused(Instant::now()));
        Self {
            store: Arc::new(InMemory::new()),
            path: "shard".to_owned(),
            hashes: HashRange::ALL,
            clock,
            log: DatabaseLog::Same,
            expected_epoch: None,
            is_log_moved: false,
            apply_log: false,
            settings: database::settings(),
            fail_points: Arc::new(FailPointRegistry::new()),
        }
    }

    /// Another place in the same store.
    pub fn beside(&self, path: &str) -> Self {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        Self { store, clock, path: path.to_owned(), ..Self::new() }
    }

    pub async fn database(&self) -> Db {
        self.try_database().await.expect("opens")
    }

    pub async fn try_database(&self) -> Result<Db> {
        self.try_database_as(self.hashes, false).await.map(|opened| opened.db)
    }

    async fn try_database_as(&self, hashes: HashRange, give_up_log: bool) -> Result<Database> {
        let parts = DatabaseParts {
            store: self.store.clone(),
            path: self.path.clone(),
            hashes,
            log: self.log.clone(),
            give_up_log,
            is_log_moved: self.is_log_moved,
            settings: self.settings.clone(),
            clock: self.clock.clone(),
            entropy: Arc::new(Opened::next()),
            expected_epoch: self.expected_epoch,
            retention: Retention::default(),
            fail_points: self.fail_points.clone(),
            merging: None,
        };
        database::open(parts).await
    }

    pub async fn open(&self) -> Shard {
        self.try_open(false).await.expect("opens")
    }

    /// Opens the shard, also if that gives up a log that it had.
    pub async fn try_open(&self, give_up_log: bool) -> Result<Shard> {
        Shard::open(self.parts(self.hashes, give_up_log).await?).await
    }

    /// Opens the shard as one of several.
    pub async fn open_as(&self, hashes: HashRange) -> Shard {
        self.try_open_as(hashes).await.expect("opens")
    }

    pub async fn try_open_as(&self, hashes: HashRange) -> Result<Shard> {
        Shard::open(self.parts(hashes, false).await?).await
    }

    /// The parts of a shard, with its database open.
    pub async fn parts(&self, hashes: HashRange, give_up_log: bool) -> Result<ShardParts> {
        let Database { db, opening } = self.try_database_as(hashes, give_up_log).await?;
        Ok(ShardParts {
            db,
            opening,
            clock: self.clock.clone(),
            entropy: Arc::new(Fixed),
            retention: Retention::default(),
            apply_log_on_close: self.apply_log || matches!(self.log.name(), LogName::Local(_)),
        })
    }
}

pub fn spec(id: &str) -> JobSpec {
    JobSpec { id: Some(JobId::new(id).expect("a name")), ..JobSpec::default() }
}

pub fn named(id: &str) -> JobRef {
    JobRef::Named(JobId::new(id).expect("a name"))
}

pub fn tenant() -> Tenant {
    Tenant::default()
}

pub async fn lease(shard: &Shard, max: u32, patience: Duration) -> Vec<Leased> {
    lease_of(shard, &Group::default(), max, patience).await
}

pub async fn lease_of(shard: &Shard, group: &Group, max: u32, patience: Duration) -> Vec<Leased> {
    let worker = Worker::new("w").expect("a name");
    let broker = Broker::new(vec![shard.clone()]);
    let leased = broker.lease(group, &worker, max, patience).await.expect("answers");
    leased.into_iter().map(|(_, leased)| leased).collect()
}

pub async fn one(shard: &Shard) -> Leased {
    let mut got = lease(shard, 1, Duration::from_secs(3600)).await;
    got.pop().expect("there is one")
}

/// Many large jobs, in rounds of several together.
pub struct Load {
    pub rounds: usize,
    pub together: usize,
    pub payload_bytes: usize,
}

impl Load {
    /// Enqueues all of them.
    pub async fn enqueue(&self, shard: &Shard) {
        // A database can't compress these payloads.
        let mut rng = StdRng::seed_from_u64(1);
        for round in 0..self.rounds {
            let jobs = (0..self.together).map(|n| {
                let mut payload = vec![0; self.payload_bytes];
                rng.fill_bytes(&mut payload);
                shard.enqueue(JobSpec { payload: payload.into(), ..spec(&format!("{round}-{n}")) })
            });
            join_all(jobs).await.into_iter().for_each(|done| {
                done.expect("takes it");
            });
        }
    }

    /// Does all of them.
    pub async fn work(&self, shard: &Shard) {
        for _ in 0..self.rounds {
            let got = lease(shard, self.together as u32, Duration::ZERO).await;
            assert_eq!(got.len(), self.together);
            let done =
                |leased: Leased| shard.report(leased.ticket(), Outcome::Succeeded("".into()));
            join_all(got.into_iter().map(done)).await.into_iter().for_each(|done| {
                done.expect("holds");
            });
        }
    }
}

/// A database with a log on a local disk.
pub struct Split {
    pub place: Place,
    pub disk: SimDisk,
    /// Id of the log on the disk.
    pub note: MemoryNote,
    /// Place of the disk.
    pub at: start::StartPlace,
}

impl Split {
    pub fn new() -> Self {
        let (note, at) = (MemoryNote::default(), start::StartPlace::default());
        Self { place: Place::new(), disk: SimDisk::new(), note, at }
    }

    pub fn log(&self) -> LocalWal {
        let settings = skerry_log::Settings {
            file_bytes: 1 << 20,
            cap_bytes: 64 << 20,
            buffer_bytes: 64 << 10,
            write_threshold_bytes: 16 << 10,
            unsynced_bytes_max: 64 << 10,
            fill_ahead_bytes: 128 << 10,
            fill_piece_bytes: 64 << 10,
            ..skerry_log::Settings::default()
        };
        // Another log has another id.
        static SEED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let seed = SEED.fetch_add(1 << 40, std::sync::atomic::Ordering::Relaxed);
        let random = std::sync::atomic::AtomicU64::new(seed);
        let random = move || random.fetch_add(0x9E37_79B9, std::sync::atomic::Ordering::Relaxed);
        let env = skerry_log::Env::new(random, || 0);
        let disk = Arc::new(self.disk.clone());
        let (log, recovery) = skerry_log::Log::open(disk, settings, env).expect("opens");
        let beside = Beside { lock: None, note: Arc::new(self.note.clone()), place: self.at };
        LocalWal::open(log, recovery, beside).expect("reads")
    }

    pub async fn open(&mut self, give_up_log: bool) -> Result<Shard> {
        self.place.log = DatabaseLog::Local(self.log());
        let opened = self.place.try_open(give_up_log).await;
        self.place.log = DatabaseLog::Same;
        opened
    }
}
