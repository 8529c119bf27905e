//! Opens shards as the settings describe them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use object_store::ObjectStore;
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::env::Clock as _;
use skerry_core::wire::hash16;
use skerry_jobs::chain::{Chain, Plan};
use skerry_jobs::database::{self, Database, DatabaseLog, DatabaseParts};
use skerry_jobs::hash::HashRange;
use skerry_jobs::owner::DatabaseId;
use skerry_jobs::shard::{Retention, Shard, ShardParts};
use skerry_jobs::wal::{Beside, LocalWal, log_failed};
use skerry_log::{FileDisk, Log};
use skerry_store::objects::litter;
use skerry_store::objects::meter::{Counters, Meter};
use skerry_store::objects::url;
use tokio::sync::watch;

use super::local_logs::LocalLogs;
use super::log_note::DirNote;
use super::not_open::NotOpen;
use super::owners::Owners;
use crate::api_error::{of_engine, of_jobs};
use crate::background::Background;
use crate::env::{SystemClock, SystemEntropy, cloud_environment, log_env};
use crate::home::identity::Identity;
use crate::home::layout::{Layout, create_private, failed};
use crate::home::log_room::warn_of_copies;
use crate::home::machine;
use crate::settings::{DatabaseSettings, SHARD_MARK, Settings, WalSettings};
use crate::values::invalid;

/// Longest time of a database's close: everything that was answered is durable already.
pub(super) const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// Everything that is needed to open the shards, again and again.
pub(crate) struct Opener {
    shards: u32,
    retention: Retention,
    /// Bytes of jobs that may be on their way to all workers at once.
    handed_out_bytes: u64,
    settings: slatedb::config::Settings,
    data: StorePlace,
    /// Owners of the databases in the node's bucket; nothing if the settings name another place.
    owners: Option<Owners>,
    log: Option<WalPlace>,
    local_logs: Option<LocalLogs>,
    apply_log_on_close: bool,
    give_up_log: bool,
    /// True if a person says that this node is in its own place, though it was moved.
    in_its_place: bool,
    /// Counts calls to the stores.
    calls: Arc<Counters>,
    /// Runtime that merges files.
    background: Background,
    /// Result of opening the first shard, which has the number of shards.
    first: watch::Sender<First>,
    /// A bit for each shard whose directory was cleared of litter.
    cleared_shards: AtomicU64,
}

/// State of the first shard.
#[derive(Debug, Clone, Default)]
struct First {
    is_tried: bool,
    /// Path where its database has been opened: it was made for the number of shards that there are
    /// here.
    path: Option<String>,
}

/// An open shard, and the path of its files.
pub(crate) struct Opened {
    pub(crate) shard: Shard,
    pub(crate) path: String,
}

fn elsewhere() -> Error {
    invalid(
        "the settings say where this node's jobs are ([database]): a node that is started with \
         this place has them",
    )
}

/// Place of the database's log, if it is not the database's own.
enum WalPlace {
    /// A store, in which SlateDB keeps it as objects.
    Store(StorePlace),
    /// A directory of a local disk, with [`SHARD_MARK`] for the shard's number: Skerry's own log.
    Dir(String),
}

/// A place for databases: a store, and a path in it with the shard's number for [`SHARD_MARK`].
struct StorePlace {
    url: String,
    options: BTreeMap<String, String>,
    path: String,
    /// Opened once: if its directory is away when the database is opened again, the opening fails,
    /// and does not make it anew.
    store: OnceLock<Arc<dyn ObjectStore>>,
}

impl Opener {
    /// Reads the settings; by default, jobs are in the node's own bucket.
    pub(crate) fn new(settings: &Settings, layout: &Layout, me: &Identity) -> Result<Self> {
        let jobs = &settings.jobs;
        if jobs.shards == 0 || jobs.shards > SHARDS_MAX {
            return Err(invalid(format!("{} shards of jobs: 1 to {SHARDS_MAX}", jobs.shards)));
        }
        let data = match &settings.database {
            Some(to) => StorePlace::of(&to.backend, &to.path, &to.options, jobs.shards)?,
            None => StorePlace::in_bucket(settings, layout),
        };
        let shards = u16::try_from(jobs.shards).unwrap_or(u16::MAX);
        let owners = settings.database.is_none().then(|| Owners::new(me.clone(), shards));
        let log = settings.database.as_ref().and_then(|database| database.wal.as_ref());
        let apply_log_on_close = log.is_none_or(|log| log.apply_wal_on_close);
        let give_up_log = settings.database.as_ref().is_some_and(|database| database.give_up_wal);
        let give_up_log = give_up_log || jobs.give_up_wal;
        let log = log.map(|to| WalPlace::of(to, jobs.shards));
        let retention = Retention {
            done_ms: jobs.done_retention_s.0.saturating_mul(1000),
            failed_ms: jobs.failed_retention_s.0.saturating_mul(1000),
        };
        Ok(Self {
            shards: jobs.shards,
            retention,
            handed_out_bytes: jobs.handed_out_bytes.0,
            settings: slatedb_settings(settings.database.as_ref(), data.is_local())?,
            local_logs: LocalLogs::new(settings, layout, &data.url),
            data,
            owners,
            log: log.transpose()?,
            apply_log_on_close,
            give_up_log,
            in_its_place: settings.node.in_its_place,
            calls: Arc::default(),
            background: Background::start()?,
            first: watch::Sender::default(),
            cleared_shards: AtomicU64::new(0),
        })
    }

    /// Counts of calls to the databases' stores.
    pub(crate) fn calls(&self) -> Arc<Counters> {
        self.calls.clone()
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> u32 {
        self.shards
    }

    /// Bytes of jobs that may be on their way to all workers at once.
    pub(crate) fn handed_out_bytes(&self) -> u64 {
        self.handed_out_bytes
    }

    /// Opens a shard, if its database is this node's.
    pub(crate) async fn open(&self, number: u32) -> std::result::Result<Opened, NotOpen> {
        let opened = self.open_owned(number).await;
        if number == 0 {
            let path = opened.as_ref().ok().map(|opened| opened.path.clone());
            self.first.send_modify(|first| {
                *first = First { is_tried: true, path: path.or(first.path.take()) };
            });
        }
        opened
    }

    async fn open_owned(&self, number: u32) -> std::result::Result<Opened, NotOpen> {
        let store = self.data.open(&self.calls)?;
        let Some(owners) = &self.owners else {
            let path = self.data.path_of(number);
            self.may_begin(&store, number, &path, &self.data.path_of(0)).await?;
            let shard = self.open_shard(&store, &path, number).await?;
            return Ok(Opened { shard, path });
        };
        let database = owners.find(&store).await?;
        let path = database.shard(number);
        self.may_begin(&store, number, &path, &database.shard(0)).await?;
        let shard = self.open_shard(&store, &path, number).await?;
        // Another node may have owned it since before it was opened here.
        if let Err(why) = owners.check(&store, database).await {
            let _ = tokio::time::timeout(CLOSE_TIME_MAX, shard.close()).await;
            return Err(why);
        }
        Ok(Opened { shard, path })
    }

    /// Refuses to make a shard if the first one was made for another number of shards. Jobs in
    /// another shard would seem gone, and be taken again.
    async fn may_begin(
        &self,
        store: &Arc<dyn ObjectStore>,
        number: u32,
        path: &str,
        first_path: &str,
    ) -> Result<()> {
        if number == 0 {
            return Ok(());
        }
        let manifest = object_store::path::Path::from(format!("{path}/manifest"));
        let found = store.list(Some(&manifest)).next().await.transpose();
        let found = found.map_err(|error| {
            let error = skerry_store::Error::from_store("list", manifest.as_ref(), &error);
            of_engine(error)
        })?;
        if found.is_some() {
            return Ok(());
        }
        let mut first = self.first.subscribe();
        let first = first.wait_for(|first| first.is_tried).await;
        if first.is_ok_and(|first| first.path.as_deref() == Some(first_path)) {
            return Ok(());
        }
        let message = format!(
            "shard {number} is not there yet, and is made only when shard 0 is open, which says \
             how many there are"
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// True if the newest record of the database that this node opens names this node.
    pub(crate) async fn is_owner(&self) -> bool {
        let Some(owners) = &self.owners else { return false };
        match (self.data.open(&self.calls), owners.current()) {
            (Ok(store), Some(database)) => owners.check(&store, database).await.is_ok(),
            _ => false,
        }
    }

    /// True if this node is to begin with a new database, as nothing of its own is elsewhere.
    pub(crate) async fn begins_anew(&self) -> bool {
        let Some(owners) = &self.owners else { return false };
        match self.data.open(&self.calls) {
            Ok(store) => owners.begins_anew(&store).await.unwrap_or(false),
            Err(_) => false,
        }
    }

    /// True if a shard that was opened below this path is still this node's, as far as it knows.
    pub(crate) fn is_at(&self, number: u32, path: &str) -> bool {
        let is_it = |database: DatabaseId| database.shard(number) == path;
        self.owners.is_none() || self.current().is_some_and(is_it)
    }

    /// The chains of all databases in the bucket, and the database that is opened here.
    pub(crate) async fn owners(&self) -> Result<(Vec<Chain>, Option<DatabaseId>)> {
        let Some(owners) = &self.owners else { return Ok((Vec::new(), None)) };
        let all = owners.all(&self.data.open(&self.calls)?).await?;
        Ok((all, owners.current()))
    }

    /// The database that is opened here, if records name its owner.
    pub(crate) fn current(&self) -> Option<DatabaseId> {
        self.owners.as_ref().and_then(Owners::current)
    }

    /// Plans the take-over of the named database; nothing if the settings name the jobs' place.
    pub(crate) async fn plan(&self, named: &str) -> Result<Option<Plan>> {
        match &self.owners {
            Some(owners) => owners.plan(&self.data.open(&self.calls)?, named).await.map(Some),
            None if named.is_empty() => Ok(None),
            None => Err(elsewhere()),
        }
    }

    /// Takes over the named database; `idle` is the one that the node may give up.
    pub(crate) async fn take_over(&self, named: &str, idle: Option<DatabaseId>) -> Result<()> {
        match &self.owners {
            Some(owners) => owners.take_over(&self.data.open(&self.calls)?, named, idle).await,
            None => Ok(()),
        }
    }

    /// The log of a shard's database: where the settings say, or the one with which the database
    /// was made.
    async fn log_of(
        &self,
        parts: &DatabaseParts,
        number: u32,
    ) -> std::result::Result<DatabaseLog, NotOpen> {
        if let Some(place) = &self.log {
            return Ok(place.open(number, &self.calls).await?);
        }
        let dir = match &self.local_logs {
            Some(local) => local.choose(parts).await?,
            None => None,
        };
        match dir {
            Some(dir) => Ok(open_log(dir).await?),
            None => Ok(DatabaseLog::Same),
        }
    }

    async fn open_shard(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &str,
        number: u32,
    ) -> std::result::Result<Shard, NotOpen> {
        if !self.cleared_shards.fetch_or(1 << number, Ordering::Relaxed) & (1 << number) != 0
            && let Some(dir) = self.data.dir_of(path)
        {
            clear_litter(dir).await;
        }
        let mut parts = DatabaseParts {
            store: store.clone(),
            path: path.to_owned(),
            hashes: HashRange::part(number, self.shards),
            log: DatabaseLog::Same,
            give_up_log: self.give_up_log,
            is_log_moved: self.in_its_place,
            settings: self.settings.clone(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            // Records decide which node may open it, and are read before and after.
            expected_epoch: None,
            retention: self.retention,
            fail_points: Arc::default(),
            // A merge's thread drives the connections that it opens, and the log's PUTs would use
            // them.
            merging: self.background.handle().filter(|_| self.data.is_local()),
        };
        parts.log = self.log_of(&parts, number).await?;
        let Database { db, opening } = database::open(parts).await?;
        let parts = ShardParts {
            db,
            opening,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            retention: self.retention,
            apply_log_on_close: self.apply_log_on_close,
        };
        Ok(Shard::open(parts).await?)
    }
}

/// Age from which on unfinished files count as litter: another process may still write younger
/// ones.
const LITTER_AGE: Duration = Duration::from_secs(86_400);

/// Deletes unfinished files that crashes left in a database's directory.
async fn clear_litter(dir: PathBuf) {
    let now = Duration::from_millis(SystemClock.wall_ms());
    let clear = move || litter::remove_all_staged(&dir, now.saturating_sub(LITTER_AGE));
    match tokio::task::spawn_blocking(clear).await {
        Ok(Ok(0)) => {}
        Ok(Ok(files)) => tracing::info!(files, "deleted unfinished files of the jobs' database"),
        Ok(Err(error)) => tracing::warn!(%error, "unfinished files of the jobs' database stay"),
        Err(error) => tracing::warn!(%error, "unfinished files of the jobs' database stay"),
    }
}

/// The most shards of a node.
const SHARDS_MAX: u32 = 64;

/// The most bytes of a shard's log on a local disk. With every quarter, SlateDB is asked to flush
/// its memtable.
const LOG_BYTES_MAX: u64 = 2 << 30;

impl WalPlace {
    fn of(to: &WalSettings, shards: u32) -> Result<Self> {
        if to.backend != "fs" {
            return StorePlace::of(&to.backend, &to.path, &to.options, shards).map(Self::Store);
        }
        if shards > 1 && !to.path.contains(SHARD_MARK) {
            let message = format!("{shards} shards can't share the log {:?}", to.path);
            return Err(invalid(format!("{message}: put {SHARD_MARK} into it")));
        }
        Ok(Self::Dir(to.path.clone()))
    }

    async fn open(&self, shard: u32, calls: &Arc<Counters>) -> Result<DatabaseLog> {
        let dir = match self {
            Self::Store(place) => {
                return Ok(DatabaseLog::Store(place.open(calls)?, hash16(place.url.as_bytes())));
            }
            Self::Dir(path) => PathBuf::from(path.replace(SHARD_MARK, &shard.to_string())),
        };
        open_log(dir).await
    }
}

/// Opens the log of a shard in a thread of its own: it reads gigabytes at worst.
async fn open_log(dir: PathBuf) -> Result<DatabaseLog> {
    let opened = tokio::task::spawn_blocking(move || open_dir(&dir)).await;
    opened.unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, error.to_string())))
}

/// Opens the log of a shard in a directory that no other process uses.
fn open_dir(dir: &Path) -> Result<DatabaseLog> {
    let unusable = |error: &std::io::Error| failed("can't be used for the jobs' log", dir, error);
    create_private(dir).map_err(|error| unusable(&error))?;
    let lock = File::create(dir.join("lock")).map_err(|error| unusable(&error))?;
    if lock.try_lock().is_err() {
        let message = format!("the jobs' log in {} is in use: stop its process", dir.display());
        return Err(Error::new(ErrorKind::InUse, message));
    }
    let limits =
        skerry_log::Settings { cap_bytes: LOG_BYTES_MAX, ..skerry_log::Settings::default() };
    warn_of_copies(dir);
    let disk = Arc::new(FileDisk::new(dir));
    let (log, recovery) =
        Log::open(disk, limits, log_env()).map_err(|error| of_jobs(log_failed(error)))?;
    let (note, place) = (Arc::new(DirNote::new(dir)), machine::place_of(dir)?);
    let beside = Beside { lock: Some(lock), note, place };
    let wal = LocalWal::open(log, recovery, beside).map_err(of_jobs)?;
    Ok(DatabaseLog::Local(wal))
}

impl StorePlace {
    /// True if it is in a directory of this machine.
    fn is_local(&self) -> bool {
        self.url.starts_with("file://") || !self.url.contains("://")
    }

    /// The directory of a path, if it is on this machine.
    fn dir_of(&self, path: &str) -> Option<PathBuf> {
        let root = self.url.strip_prefix("file://").unwrap_or(&self.url);
        self.is_local().then(|| Path::new(root).join(path))
    }

    fn in_bucket(settings: &Settings, layout: &Layout) -> Self {
        let local = || layout.bucket().to_string_lossy().into_owned();
        Self {
            url: settings.bucket.url.clone().unwrap_or_else(local),
            options: settings.bucket.options.clone(),
            // Records name the database in the bucket.
            path: String::new(),
            store: OnceLock::new(),
        }
    }

    fn of(
        backend: &str,
        path: &str,
        options: &BTreeMap<String, String>,
        shards: u32,
    ) -> Result<Self> {
        let path = path.trim_end_matches('/');
        if shards > 1 && !path.contains(SHARD_MARK) {
            let message = format!(
                "{shards} shards of jobs can't share the path {path:?}: put {SHARD_MARK} into it"
            );
            return Err(invalid(message));
        }
        // The store begins with the path before the shard's number.
        let whole = path.find(SHARD_MARK).map_or(path.len(), |at| at);
        let end = path[..whole].rfind('/').unwrap_or(0);
        let (root, rest) = path.split_at(if whole == path.len() { path.len() } else { end });
        let rest = match rest.trim_start_matches('/') {
            "" => "jobs",
            rest => rest,
        };
        let url = match backend {
            "fs" => {
                let root = if root.is_empty() { "." } else { root };
                std::path::absolute(root)
                    .map_err(|error| invalid(format!("{root:?} is no directory: {error}")))?
                    .to_string_lossy()
                    .into_owned()
            }
            "memory" => "memory://".to_owned(),
            "s3" => format!("s3://{root}"),
            "gcs" => format!("gs://{root}"),
            "azure" => format!("az://{root}"),
            other => {
                let message = format!(
                    "{other:?} is no backend of the jobs' database: fs, s3, gcs, azure or memory"
                );
                return Err(invalid(message));
            }
        };
        let (options, path) = (options.clone(), rest.to_owned());
        Ok(Self { url, options, path, store: OnceLock::new() })
    }

    fn open(&self, calls: &Arc<Counters>) -> Result<Arc<dyn ObjectStore>> {
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let options = url::StoreOptions {
            settings: self.options.clone(),
            environment: cloud_environment(),
            timeout_max: None,
        };
        if let Some(dir) = self.dir_of("") {
            // It has jobs' payloads. If it can't be made, opening it says so.
            let _ = create_private(&dir);
        }
        let opened = url::open(&self.url, &options);
        let opened = opened.map_err(of_engine)?;
        let store = Meter::adding_to(calls.clone(), opened.store, Arc::new(SystemClock));
        Ok(self.store.get_or_init(|| Arc::new(store)).clone())
    }

    fn path_of(&self, shard: u32) -> String {
        self.path.replace(SHARD_MARK, &shard.to_string())
    }
}

/// SlateDB's settings: the broker's defaults, with the settings file's over them.
fn slatedb_settings(
    database: Option<&DatabaseSettings>,
    is_local: bool,
) -> Result<slatedb::config::Settings> {
    let defaults = if is_local { database::local_settings() } else { database::settings() };
    let Some(told) = database.map(|database| &database.slatedb).filter(|told| !told.is_empty())
    else {
        return Ok(defaults);
    };
    let mut all = serde_json::to_value(&defaults).map_err(internal)?;
    let mut told = serde_json::to_value(told).map_err(internal)?;
    if let Some(cache) = told.get_mut(CACHE) {
        expand_cache_puts(cache);
    }
    lay_over(&mut all, told.clone());
    let wrong = |error: String| invalid(format!("in [database.slatedb]: {error}"));
    let settings: slatedb::config::Settings =
        serde_json::from_value(all).map_err(|error| wrong(error.to_string()))?;
    let known = serde_json::to_value(&settings).map_err(internal)?;
    match unknown(&known, &told) {
        Some(name) => Err(wrong(format!("SlateDB has no setting {name}"))),
        None => Ok(settings),
    }
}

/// SlateDB's settings of the local read cache.
const CACHE: &str = "object_store_cache_options";
/// A setting for both of SlateDB's: written files go into the cache, too.
const CACHE_PUTS: &str = "cache_puts";

fn expand_cache_puts(cache: &mut serde_json::Value) {
    let Some(cache) = cache.as_object_mut() else { return };
    if let Some(puts) = cache.remove(CACHE_PUTS) {
        for name in ["cache_on_flush", "cache_on_compaction"] {
            cache.entry(name).or_insert_with(|| puts.clone());
        }
    }
}

/// The name of a setting that the file has and SlateDB lacks.
fn unknown(known: &serde_json::Value, told: &serde_json::Value) -> Option<String> {
    told.as_object()?.iter().find_map(|(name, told)| match known.get(name) {
        None => Some(name.clone()),
        Some(known) if known.is_object() => {
            unknown(known, told).map(|inner| format!("{name}.{inner}"))
        }
        Some(_) => None,
    })
}

fn internal(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("SlateDB's settings can't be read: {error}"))
}

fn lay_over(all: &mut serde_json::Value, told: serde_json::Value) {
    match (all, told) {
        (serde_json::Value::Object(all), serde_json::Value::Object(told)) => {
            for (name, value) in told {
                lay_over(all.entry(name).or_insert(serde_json::Value::Null), value);
            }
        }
        (all, told) => *all = told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opener(dir: &Path, shards: u32) -> Opener {
        let path = dir.join("jobs/%shard%");
        let database = format!("backend = 'fs'\npath = '{}'", path.display());
        let database = Some(toml::from_str(&database).expect("TOML"));
        let mut settings = Settings { database, ..Settings::default() };
        settings.jobs.shards = shards;
        let me = Identity { node: skerry_core::id::NodeId([1; 16]), host: "host".to_owned() };
        Opener::new(&settings, &Layout::new(dir).expect("a layout"), &me).expect("an opener")
    }

    /// A tenant's jobs would be looked for in a shard where they are not, and be taken once more.
    #[tokio::test(flavor = "multi_thread")]
    async fn another_number_of_shards_makes_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let one = opener(dir.path(), 1).open(0).await.ok().expect("opens");
        one.shard.close().await.expect("closes");
        let two = opener(dir.path(), 2);
        assert!(two.open(0).await.is_err(), "it was made for one shard");
        let refused = two.open(1).await.err().expect("it would be made");
        assert!(refused.error.message().contains("shard 0"), "{}", refused.error);
        assert!(!dir.path().join("jobs/1").exists());

        let other = tempfile::tempdir().expect("a directory");
        let two = opener(other.path(), 2);
        let (second, first) = tokio::join!(two.open(1), two.open(0));
        for opened in [first, second] {
            opened.ok().expect("opens").shard.close().await.expect("closes");
        }
    }

    fn place(backend: &str, path: &str, shards: u32) -> Result<StorePlace> {
        StorePlace::of(backend, path, &BTreeMap::new(), shards)
    }

    #[test]
    fn a_place_is_a_store_and_a_path_in_it() {
        for (backend, path, url, db) in [
            ("fs", "/var/jobs/%shard%", "/var/jobs", "%shard%"),
            ("fs", "/var/jobs", "/var/jobs", "jobs"),
            ("s3", "bucket/a/%shard%/db", "s3://bucket/a", "%shard%/db"),
            ("s3", "bucket/a/shard-%shard%", "s3://bucket/a", "shard-%shard%"),
            ("memory", "%shard%", "memory://", "%shard%"),
        ] {
            let made = place(backend, path, 1).expect("a place");
            assert_eq!((&made.url[..], &made.path[..]), (url, db), "{path}");
        }
        assert!(place("fs", "/var/jobs", 2).is_err());
        assert!(place("ftp", "x", 1).is_err());
    }

    #[tokio::test]
    async fn what_crashes_left_of_a_database_is_cleared_when_it_is_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = place("fs", &format!("{}/%shard%", dir.path().display()), 1).expect("a place");
        let compacted = place.dir_of(&place.path_of(0)).expect("it is here").join("compacted");
        std::fs::create_dir_all(&compacted).expect("made");
        for name in ["a.sst", "a.sst#1", "young.sst#1"] {
            let file = File::create(compacted.join(name)).expect("made");
            if !name.starts_with("young") {
                file.set_modified(std::time::UNIX_EPOCH).expect("set");
            }
        }
        clear_litter(place.dir_of(&place.path_of(0)).expect("it is here")).await;
        let left = std::fs::read_dir(&compacted).expect("listed");
        let mut left: Vec<_> = left.map(|entry| entry.expect("there").file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.sst", "young.sst#1"]);
        let elsewhere =
            StorePlace::of("s3", "bucket/%shard%", &BTreeMap::new(), 1).expect("a place");
        assert_eq!(elsewhere.dir_of(&elsewhere.path_of(0)), None);
    }

    /// Other calls are served while gigabytes of a log are read.
    #[test]
    fn a_log_is_not_read_where_others_are_served() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = WalPlace::Dir(dir.path().to_string_lossy().into_owned());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.max_blocking_threads(1).build().expect("a runtime").block_on(async {
            let (go_on, told) = std::sync::mpsc::channel();
            let busy = tokio::task::spawn_blocking(move || told.recv());
            let calls = Arc::default();
            let mut opening = std::pin::pin!(place.open(0, &calls));
            assert!(futures::poll!(opening.as_mut()).is_pending(), "it waits for another thread");
            go_on.send(()).expect("it waits");
            busy.await.expect("runs").expect("is told");
            opening.await.expect("opens");
        });
    }

    #[test]
    fn a_directory_that_went_away_is_not_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("bucket");
        let place = place("fs", &format!("{}/%shard%", root.display()), 1).expect("a place");
        place.open(&Arc::default()).expect("opens");
        std::fs::remove_dir(&root).expect("it was made, and is empty");
        place.open(&Arc::default()).expect("it was opened before");
        assert!(!root.exists(), "the database would begin anew in an empty directory");
    }

    #[test]
    fn any_setting_of_slatedb_can_be_set() {
        let told = |text: &str| {
            let text = format!("backend = 'fs'\n[slatedb]\n{text}");
            slatedb_settings(Some(&toml::from_str(&text).expect("TOML")), true)
        };
        let set =
            told("l0_max_ssts = 99\n[slatedb.object_store_cache_options]\nroot_folder = \"/c\"");
        let set = set.expect("settings");
        assert_eq!(set.l0_max_ssts, 99);
        assert_eq!(set.object_store_cache_options.root_folder, Some("/c".into()));
        assert_eq!(set.flush_interval, None);
        let worker = "[slatedb.compactor_options.worker]\nmax_fetch_tasks = 7";
        let worker = told(worker).expect("settings").compactor_options.and_then(|all| all.worker);
        let worker = worker.expect("it merges here");
        assert_eq!((worker.max_fetch_tasks, worker.bytes_to_fetch), (7, 256 << 10));
        assert!(told("l0_max_ssts = \"many\"").is_err());
        let cache =
            "[slatedb.object_store_cache_options]\ncache_puts = true\ncache_on_flush = false";
        let cache = told(cache).expect("settings").object_store_cache_options;
        assert_eq!((cache.cache_on_flush, cache.cache_on_compaction), (false, true));
        for (typo, name) in [
            ("l0_max_sst = 9", "l0_max_sst"),
            ("[slatedb.compactor_options.worker]\nfetch = 1", "compactor_options.worker.fetch"),
        ] {
            let refused = told(typo).expect_err("there is no such setting");
            assert!(refused.message().ends_with(name), "{refused}");
        }
    }
}
