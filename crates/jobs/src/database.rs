//! Opens a shard's database: SlateDB over any object store, by the broker's clock.

use crate::cache::BlockCache;
use crate::db_clock::DbClock;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::HashRange;
use crate::keys::{self, ByLetter};
use crate::opening::{Found, FoundLog, LogName, Opening};
use crate::reclaim::Reclaim;
use crate::shard::{Descriptor, Retention};
use crate::wal::LocalWal;
use object_store::{ObjectStore, ObjectStoreExt as _};
use skerry_core::env::{Clock, Entropy};
use skerry_core::id::ClaimId;
use skerry_core::start::StartPlace;
use slatedb::admin::Admin;
use slatedb::config::{DbReaderOptions, GarbageCollectorDirectoryOptions, Settings};
use slatedb::fail_parallel::FailPointRegistry;
use slatedb::manifest::VersionedManifest;
use slatedb::{
    CloseReason, CompactorBuilder, Db, DbBuilder, DbReader, DbReaderMode, GarbageCollectorBuilder,
    PrefixExtractor, WalReader,
};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Place and settings of a shard's database.
pub struct DatabaseParts {
    /// The store that it is in.
    pub store: Arc<dyn ObjectStore>,
    /// The path in the store.
    pub path: String,
    /// The hashes of its tenants.
    pub hashes: HashRange,
    /// Place of its log.
    pub log: DatabaseLog,
    /// True to give up the contents of a log that does not go with the database.
    pub give_up_log: bool,
    /// True if a person says that a local log moved here with its node, and that no copy is used.
    pub is_log_moved: bool,
    /// SlateDB's settings.
    pub settings: Settings,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Names its files.
    pub entropy: Arc<dyn Entropy>,
    /// The writer's epoch of the database when it was handed to its owner: 0 before the first
    /// opening, one more with each. If another process has opened it since, the opening fails. If
    /// no epoch was handed out, the last process to open it has it.
    pub expected_epoch: Option<u64>,
    /// Time for which ended jobs are kept: older files are worth a merge.
    pub retention: Retention,
    /// Points where it can be made to fail.
    pub fail_points: Arc<FailPointRegistry>,
    /// The runtime of its merges; by default the caller's. A merge keeps a thread for long.
    pub merging: Option<Handle>,
}

/// Place of a database's log.
#[derive(Clone)]
pub enum DatabaseLog {
    /// In the same store.
    Same,
    /// In another store, with the hash of its URL.
    Store(Arc<dyn ObjectStore>, [u8; 16]),
    /// On a local disk.
    Local(LocalWal),
}

impl DatabaseLog {
    /// The log's name in the descriptor.
    pub fn name(&self) -> LogName {
        match self {
            Self::Same => LogName::Own,
            Self::Store(_, url) => LogName::Store(*url),
            Self::Local(wal) => LogName::Local(wal.id()),
        }
    }
}

/// An open database.
pub struct Database {
    /// The database.
    pub db: Db,
    /// The opening as the descriptor will have it.
    pub opening: Opening,
}

/// Bytes of memory for the files of one database: the filters of some ten million jobs, and the
/// blocks that are read next.
const CACHE_BYTES: u64 = 64 << 20;
/// Interval at which batches are let go that a local log no longer needs.
const LOCAL_GC_INTERVAL: Duration = Duration::from_secs(2);

/// SlateDB's default settings for a shard. The broker decides when it becomes durable. SlateDB
/// seldom polls what no other process changes; while nothing is written, it polls nothing more
/// often.
pub fn settings() -> Settings {
    Settings {
        flush_interval: None,
        manifest_poll_interval: Duration::from_secs(30),
        ..Settings::default()
    }
}

/// Bytes that a compaction asks a local disk for at once, of each of its files. SlateDB's own 8 MiB
/// are made for stores that are far away. They are 150 MiB of reads when a compaction begins, and
/// the log's sync waits behind them.
const LOCAL_FETCH_BYTES: usize = 256 << 10;
/// Number of such fetches at once.
const LOCAL_FETCHES: usize = 2;

/// Default settings for a database on a local disk.
pub fn local_settings() -> Settings {
    let mut settings = settings();
    let compactor = settings.compactor_options.as_mut();
    if let Some(worker) = compactor.and_then(|compactor| compactor.worker.as_mut()) {
        worker.max_fetch_tasks = LOCAL_FETCHES;
        worker.bytes_to_fetch = LOCAL_FETCH_BYTES;
    }
    settings
}

/// Opens a database, or makes it. Fences the process that had it open. Changes nothing if the
/// database is another shard's, or if its log does not belong to it.
///
/// # Errors
/// `Unavailable` if the store does not answer, `Corrupt` for unreadable data, `Conflict` if
/// database and log do not belong together.
pub async fn open(parts: DatabaseParts) -> Result<Database> {
    let mut seed = [0; 8];
    parts.entropy.fill(&mut seed);
    let admin = Admin::builder(parts.path.clone(), parts.store.clone());
    let admin = admin.with_seed(u64::from_le_bytes(seed)).build();
    let found = admin.read_manifest(None).await.map_err(failed)?;
    if let Some(manifest) = &found {
        check_layout(manifest, &parts.path)?;
    }
    let applied = found.as_ref().map_or(0, VersionedManifest::replay_after_wal_id);
    let (log, logged_ms) = find_log(&parts, applied).await?;
    let opening = {
        let descriptor = match &found {
            Some(_) => read_descriptor(&parts, seed).await?,
            None => None,
        };
        let has_own_rows = may_have_own_rows(&parts, descriptor)
            && find_rows(&parts.path, &parts.store, applied).await?.has_rows;
        let found = Found {
            path: &parts.path,
            hashes: parts.hashes,
            descriptor,
            applied,
            log,
            has_own_rows,
            give_up: parts.give_up_log,
            is_moved: parts.is_log_moved,
        };
        found.check()?;
        if found.has_strange_rows() {
            delete_log(&parts, applied).await?;
        }
        found.opening(ClaimId::random(&*parts.entropy))
    };
    if let DatabaseLog::Local(wal) = &parts.log {
        wal.write_note(&opening)?;
    }
    let last_ms = match &found {
        Some(manifest) => latest_ms(&admin, manifest).await.map_err(failed)?.max(logged_ms),
        None => 0,
    };
    let db = build(parts, seed, last_ms).await?;
    Ok(Database { db, opening })
}

/// Reads with which log a database was opened last; nothing if there is no database. Fences no
/// process, and writes nothing.
///
/// # Errors
/// `Unavailable` if the store does not answer, `Corrupt` for unreadable data.
pub async fn named_log(parts: &DatabaseParts) -> Result<Option<LogName>> {
    let mut seed = [0; 8];
    parts.entropy.fill(&mut seed);
    let admin = Admin::builder(parts.path.clone(), parts.store.clone());
    let admin = admin.with_seed(u64::from_le_bytes(seed)).build();
    let Some(manifest) = admin.read_manifest(None).await.map_err(failed)? else {
        return Ok(None);
    };
    check_layout(&manifest, &parts.path)?;
    let descriptor = read_descriptor(parts, seed).await?;
    Ok(Some(descriptor.map_or(LogName::Unknown, |found| found.log)))
}

async fn build(parts: DatabaseParts, seed: [u8; 8], last_ms: u64) -> Result<Db> {
    let seldom = parts.settings.manifest_poll_interval;
    let clock = Arc::new(DbClock::new(parts.clock, last_ms, seldom));
    let collector = parts.settings.garbage_collector_options.clone();
    let compactor = parts.settings.compactor_options.clone().map(|options| {
        let done_ms = parts.retention.done_ms;
        let reclaim = Reclaim::new(parts.store.clone(), &parts.path, clock.clone(), done_ms);
        let compactor = CompactorBuilder::new(parts.path.clone(), parts.store.clone());
        let compactor = compactor.with_options(options).with_scheduler_supplier(Arc::new(reclaim));
        match parts.merging {
            Some(merging) => compactor.with_runtime(merging),
            None => compactor,
        }
    });
    let builder: DbBuilder<String> = Db::builder(parts.path.clone(), parts.store.clone());
    let builder = builder
        .with_settings(Settings { compactor_options: None, ..parts.settings })
        .with_system_clock(clock.clone())
        .with_db_cache(Arc::new(BlockCache::new(CACHE_BYTES)), 0)
        .with_segment_extractor(Arc::new(ByLetter))
        .with_fp_registry(parts.fail_points)
        .with_seed(u64::from_le_bytes(seed));
    let builder = match parts.expected_epoch {
        None => builder,
        Some(epoch) => builder.with_expected_epoch(epoch),
    };
    let builder = match compactor {
        None => builder,
        Some(compactor) => builder.with_compactor_builder(compactor),
    };
    let builder = match parts.log {
        DatabaseLog::Same => builder,
        DatabaseLog::Store(log, _) => builder.with_wal_object_store(log),
        DatabaseLog::Local(wal) => {
            let mut options = collector.unwrap_or_default();
            let interval = Some(LOCAL_GC_INTERVAL);
            options.wal_options =
                Some(GarbageCollectorDirectoryOptions { interval, ..Default::default() });
            let collector = GarbageCollectorBuilder::new(parts.path, parts.store)
                .with_options(options)
                .with_system_clock(clock.clone())
                .with_wal_gc(wal.gc());
            builder.with_wal_writer(wal.init()).with_gc_builder(collector)
        }
    };
    let db = builder.build().await.map_err(failed)?;
    clock.watch(db.subscribe());
    Ok(db)
}

/// SlateDB's message when an object that it was to create is there; SlateDB reports it as bad data.
/// Either another process was faster, or the answer to its own creation was lost. A retry finds
/// out.
const CREATED_BEFORE: &str = "version already exists";

/// Message when another node has opened the database.
pub(crate) const FENCED: &str = "another node has opened the jobs' database";

/// Turns a failure of the database into the broker's error.
pub fn failed(error: slatedb::Error) -> Error {
    if matches!(error.kind(), slatedb::ErrorKind::Closed(CloseReason::Fenced)) {
        return Error::fenced(FENCED);
    }
    let text = error.to_string();
    let kind = match error.kind() {
        slatedb::ErrorKind::Data if text.contains(CREATED_BEFORE) => ErrorKind::Unavailable,
        // A store whose bucket is away for a while says of every object that it is missing.
        slatedb::ErrorKind::Data if is_not_found(&error) => ErrorKind::Unavailable,
        slatedb::ErrorKind::Data => ErrorKind::Corrupt,
        slatedb::ErrorKind::Invalid | slatedb::ErrorKind::Internal => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("the jobs' database failed: {text}"))
}

fn is_not_found(error: &slatedb::Error) -> bool {
    let is_it = |error: &object_store::Error| matches!(error, object_store::Error::NotFound { .. });
    let mut source = error.source();
    while let Some(error) = source {
        let alone = error.downcast_ref::<object_store::Error>();
        let shared = error.downcast_ref::<Arc<object_store::Error>>().map(|shared| &**shared);
        if alone.or(shared).is_some_and(is_it) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Refuses a database whose rows are not where this version looks for them.
fn check_layout(manifest: &VersionedManifest, path: &str) -> Result<()> {
    let layout = manifest.segment_extractor_name();
    if layout == Some(ByLetter.name()) {
        return Ok(());
    }
    let detail = format!(
        "the jobs' database at {path} was made by another version of Skerry, in a layout that this \
         one does not read ({}): let that version finish its jobs, then delete the database, or \
         name another path in [database]",
        layout.unwrap_or("without segments")
    );
    Err(Error::new(ErrorKind::Corrupt, detail))
}

/// The latest time that a database has seen, milliseconds since 1970. Its clock goes on from there
/// even if the machine's was set back since. SlateDB names its files by time, and refuses one older
/// than another. It writes nothing older than its log.
async fn latest_ms(
    admin: &Admin,
    manifest: &VersionedManifest,
) -> std::result::Result<u64, slatedb::Error> {
    let files = manifest.all_sst_views().map(|view| view.id.max(view.sst.id.value()));
    let trees = manifest.segments().iter();
    let merged = trees.filter_map(|tree| tree.last_compacted_l0_sst_view_id());
    let newest = files.chain(merged).max().map_or(0, |id| id.timestamp_ms());
    let newest = newest.max(manifest.last_l0_clock_tick().try_into().unwrap_or(0));
    let compactions = admin.read_compactions(None).await?;
    let begun = compactions.iter().flat_map(|all| all.recent_compactions());
    let begun_ms = begun.map(|one| one.id().timestamp_ms()).max().unwrap_or(0);
    Ok(begun_ms.max(newest))
}

/// Reads the descriptor from the database's files. Fences no process, and writes nothing.
async fn read_descriptor(parts: &DatabaseParts, seed: [u8; 8]) -> Result<Option<Descriptor>> {
    let options = DbReaderOptions {
        skip_wal_replay: true,
        object_store_max_retries: parts.settings.object_store_max_retries,
        ..DbReaderOptions::default()
    };
    let builder = DbReader::builder(parts.path.clone(), parts.store.clone());
    let builder = builder.with_reader_mode(DbReaderMode::FollowLatest).with_options(options);
    let builder = builder.with_segment_extractor(Arc::new(ByLetter)).with_db_cache_disabled();
    let builder = builder.with_seed(u64::from_le_bytes(seed));
    let reader = builder.build().await.map_err(failed)?;
    let row = reader.get(keys::DESCRIPTOR).await.map_err(failed);
    let _ = reader.close().await;
    row?.map(|bytes| Descriptor::decode(&bytes)).transpose()
}

/// Finds the rows of the log that the database's files lack, and the time of the newest.
async fn find_log(parts: &DatabaseParts, applied: u64) -> Result<(FoundLog, u64)> {
    if let DatabaseLog::Local(wal) = &parts.log {
        return Ok((wal.found(applied)?, wal.newest_ms()));
    }
    let mut log = FoundLog {
        name: parts.log.name(),
        note: None,
        place: StartPlace::default(),
        first_new: None,
        last: None,
        has_rows: false,
        is_applied: false,
    };
    let Some(store) = log_store(parts) else { return Ok((log, 0)) };
    let found = find_rows(&parts.path, store, applied).await?;
    log.has_rows = found.has_rows;
    Ok((log, found.newest_ms))
}

/// Rows of a log in a store that the database's files lack.
#[derive(Default)]
struct FoundRows {
    /// True if there are more than descriptors.
    has_rows: bool,
    /// Time of the newest.
    newest_ms: u64,
}

async fn find_rows(path: &str, store: &Arc<dyn ObjectStore>, applied: u64) -> Result<FoundRows> {
    let reader = WalReader::new(path.to_owned(), store.clone());
    let mut found = FoundRows::default();
    // From the last file on: later openings left files without any rows.
    for file in reader.list(applied + 1..).await.map_err(failed)?.iter().rev() {
        let (mut rows, mut newest) = (file.iterator().await.map_err(failed)?, None);
        while let Some(row) = rows.next().await.map_err(failed)? {
            newest = newest.max(row.create_ts);
            found.has_rows |= row.key != keys::DESCRIPTOR;
        }
        let newest_ms = newest.and_then(|ms| ms.try_into().ok()).unwrap_or(0);
        found.newest_ms = found.newest_ms.max(newest_ms);
        if found.has_rows {
            break;
        }
    }
    Ok(found)
}

/// True if the log is elsewhere now, and an older version may have left rows in the database's own
/// store. Its descriptor does not name a log in a store.
fn may_have_own_rows(parts: &DatabaseParts, descriptor: Option<Descriptor>) -> bool {
    let is_own = matches!(parts.log, DatabaseLog::Same);
    !is_own && descriptor.is_some_and(|found| found.log == LogName::Unknown)
}

/// Gives the log's store, unless the log is on a local disk.
fn log_store(parts: &DatabaseParts) -> Option<&Arc<dyn ObjectStore>> {
    match &parts.log {
        DatabaseLog::Same => Some(&parts.store),
        DatabaseLog::Store(log, _) => Some(log),
        DatabaseLog::Local(_) => None,
    }
}

/// Deletes the log's rows that the database's files lack: they are given up.
async fn delete_log(parts: &DatabaseParts, applied: u64) -> Result<()> {
    let Some(store) = log_store(parts) else { return Ok(()) };
    let reader = WalReader::new(parts.path.clone(), store.clone());
    for file in reader.list(applied + 1..).await.map_err(failed)? {
        let location = file.metadata().await.map_err(failed)?.metadata.location;
        let deleted = store.delete(&location).await;
        deleted.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
    }
    Ok(())
}
