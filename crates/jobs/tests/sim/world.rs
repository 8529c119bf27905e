//! The world outside a shard: time, a store that goes wrong, and the database on it.

use crate::disk::LocalDisk;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_core::id::ClaimId;
use skerry_jobs::Result;
use skerry_jobs::database::{self, Database, DatabaseLog, DatabaseParts};
use skerry_jobs::hash::HashRange;
use skerry_jobs::keys::ByLetter;
use skerry_jobs::opening::{LogName, Opening};
use skerry_jobs::shard::{Retention, Shard, ShardParts};
use skerry_store::objects::faulty::{FaultPlan, Faults, Faulty};
use slatedb::config::Settings;
use slatedb::{Db, DbBuilder};
use slatedb_common::clock::{SystemClock, SystemClockTicker};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time when every run begins, milliseconds since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;

struct Times {
    /// Time of the lives that have ended.
    before: Duration,
    /// Time when this life began, by its runtime's clock.
    since: Option<Instant>,
    /// Error of the wall clock.
    skew_ms: i64,
    /// The latest time that the shard was told in this life.
    seen_ms: u64,
    /// Boot time when it was told.
    seen_at: Duration,
}

/// The time, over all lives of the shard: each has a runtime of its own, whose clock begins anew.
pub struct Time(Mutex<Times>);

impl Time {
    fn new() -> Self {
        let before = Duration::ZERO;
        Self(Mutex::new(Times { before, since: None, skew_ms: 0, seen_ms: 0, seen_at: before }))
    }

    /// Notes that a runtime begins.
    pub fn begin_life(&self) {
        self.0.lock().since = Some(Instant::now());
    }

    /// Notes that its time has ended.
    pub fn end_life(&self) {
        let mut times = self.0.lock();
        let since = times.since.take();
        times.before += since.map_or(Duration::ZERO, |since| since.elapsed());
    }

    /// Sets the wall clock.
    pub fn jump(&self, by_ms: i64) {
        self.0.lock().skew_ms += by_ms;
    }

    /// The wall clock's time; the shard does not learn of this look.
    pub fn peek_ms(&self) -> u64 {
        let skew_ms = self.0.lock().skew_ms;
        BEGIN_MS.saturating_add_signed(skew_ms) + self.boot().as_millis() as u64
    }

    /// The latest time that the shard was told since this was forgotten.
    pub fn seen_ms(&self) -> u64 {
        let now = self.boot();
        let times = self.0.lock();
        match times.seen_ms {
            0 => 0,
            // The shard's time goes on even if the wall clock was set back.
            seen_ms => seen_ms + (now - times.seen_at).as_millis() as u64,
        }
    }

    /// Forgets the time: a shard that is opened does not know what the previous one was told.
    pub fn forget_seen(&self) {
        self.0.lock().seen_ms = 0;
    }
}

impl Clock for Time {
    fn boot(&self) -> Duration {
        let times = self.0.lock();
        times.before + times.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn wall_ms(&self) -> u64 {
        let (now_ms, now, seen_ms) = (self.peek_ms(), self.boot(), self.seen_ms());
        let mut times = self.0.lock();
        times.seen_ms = seen_ms.max(now_ms);
        times.seen_at = now;
        now_ms
    }
}

/// The database's clock. It is never set, because the database refuses to be opened by one that
/// went back.
struct DbClock(Arc<Time>);

impl std::fmt::Debug for DbClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DbClock")
    }
}

impl SystemClock for DbClock {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        let now_ms = BEGIN_MS + self.0.boot().as_millis() as u64;
        chrono::DateTime::from_timestamp_millis(now_ms as i64).expect("a time of this age")
    }

    fn sleep<'a>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn ticker<'a>(&'a self, duration: Duration) -> SystemClockTicker<'a> {
        SystemClockTicker::new(self, duration)
    }
}

/// Random bytes by seed.
struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill_bytes(out);
    }
}

/// The wall clock, read by actors that do not tell the shard.
struct OnTheWall(Arc<Time>);

impl Clock for OnTheWall {
    fn boot(&self) -> Duration {
        self.0.boot()
    }

    fn wall_ms(&self) -> u64 {
        self.0.peek_ms()
    }
}

/// The way to open the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By hand.
    Bare,
    /// As a node opens it.
    Node,
    /// As a node opens it, with its log on a local disk.
    Split,
}

/// The parts that survive a shard: its store, its disk, and the time.
pub struct World {
    pub time: Arc<Time>,
    pub faults: Faults,
    /// The disk of the database's log, if it is on one.
    pub disk: Option<LocalDisk>,
    kind: Kind,
    store: Arc<dyn ObjectStore>,
    settings: Settings,
    apply_log_on_close: bool,
    seed: u64,
    opened: Mutex<u64>,
}

impl World {
    /// An empty store that works; the seed chooses how the database uses it.
    pub fn new(seed: u64, kind: Kind) -> Self {
        let faulty = Faulty::new(Arc::new(InMemory::new()), seed ^ 0x5eed, FaultPlan::default());
        let faults = faulty.faults();
        let mut rng = StdRng::seed_from_u64(seed ^ 0xdb);
        let usual = if kind == Kind::Bare { Settings::default() } else { database::settings() };
        let mut settings = Settings {
            flush_interval: None,
            // Goes by the age of objects, which the store in memory tells by the real time.
            garbage_collector_options: None,
            ..usual
        };
        if rng.random_bool(0.3) {
            settings.object_store_max_retries = Some(rng.random_range(0..4));
        }
        if rng.random_bool(0.5) {
            settings.l0_sst_size_bytes = rng.random_range(1..32) << 10;
        }
        let apply_log_on_close = kind == Kind::Split && rng.random();
        let disk = (kind == Kind::Split).then(|| LocalDisk::new(seed));
        let (time, store, opened) = (Arc::new(Time::new()), Arc::new(faulty), Mutex::new(0));
        Self { time, faults, disk, kind, store, settings, apply_log_on_close, seed, opened }
    }

    fn entropy(&self, number: u64) -> Arc<dyn Entropy> {
        Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(self.seed ^ number))))
    }

    /// The database, with its opening.
    async fn database(&self) -> Result<Database> {
        let number = {
            let mut opened = self.opened.lock();
            *opened += 1;
            *opened
        };
        if self.kind == Kind::Bare {
            let (id, before) = (ClaimId::NONE, ClaimId::NONE);
            let opening = Opening { hashes: HashRange::ALL, log: LogName::Own, id, before };
            return Ok(Database { db: self.bare_database(number).await?, opening });
        }
        let log = match &self.disk {
            Some(disk) => DatabaseLog::Local(disk.open()?),
            None => DatabaseLog::Same,
        };
        let parts = DatabaseParts {
            store: self.store.clone(),
            path: "shard".to_owned(),
            hashes: HashRange::ALL,
            log,
            give_up_log: false,
            is_log_moved: false,
            settings: self.settings.clone(),
            clock: Arc::new(OnTheWall(self.time.clone())),
            entropy: self.entropy(number << 32),
            expected_epoch: None,
            retention: Retention::default(),
            fail_points: Arc::default(),
            merging: None,
        };
        database::open(parts).await
    }

    async fn bare_database(&self, number: u64) -> Result<Db> {
        let builder: DbBuilder<&str> = Db::builder("shard", self.store.clone());
        let builder = builder
            .with_settings(self.settings.clone())
            .with_segment_extractor(Arc::new(ByLetter))
            .with_system_clock(Arc::new(DbClock(self.time.clone())))
            .with_seed(self.seed ^ (number << 32));
        builder.build().await.map_err(database::failed)
    }

    /// Opens the shard.
    pub async fn open(&self) -> Result<Shard> {
        let Database { db, opening } = self.database().await?;
        let parts = ShardParts {
            db,
            opening,
            clock: self.time.clone(),
            entropy: self.entropy(*self.opened.lock()),
            retention: Retention::default(),
            apply_log_on_close: self.apply_log_on_close,
        };
        Shard::open(parts).await
    }

    /// All rows of the shard's database, which no shard has open.
    pub async fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Database { db, .. } = self.database().await.expect("the store works");
        let mut found = db.scan(..).await.expect("the store works");
        let mut rows = Vec::new();
        while let Some(row) = found.next().await.expect("the store works") {
            rows.push((row.key.to_vec(), row.value.to_vec()));
        }
        db.close().await.expect("the store works");
        rows
    }
}
