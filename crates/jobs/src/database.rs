//! Opening a shard's database: SlateDB over any object store, told the time by the broker's clock.

use crate::cache::BlockCache;
use crate::db_clock::DbClock;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::ByLetter;
use crate::reclaim::Reclaim;
use crate::shard::Retention;
use crate::wal::LocalWal;
use object_store::ObjectStore;
use skerry_core::env::{Clock, Entropy};
use slatedb::admin::Admin;
use slatedb::config::{GarbageCollectorDirectoryOptions, Settings};
use slatedb::fail_parallel::FailPointRegistry;
use slatedb::manifest::VersionedManifest;
use slatedb::{
    CloseReason, CompactorBuilder, Db, DbBuilder, GarbageCollectorBuilder, PrefixExtractor,
    WalReader,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

use std::error::Error as _;
/// Where a shard's database is, and how it behaves.
pub struct DatabaseParts {
    /// The store that it is in.
    pub store: Arc<dyn ObjectStore>,
    /// Below this path.
    pub path: String,
    /// Where its log is.
    pub log: DatabaseLog,
    /// What SlateDB is told.
    pub settings: Settings,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Names its files.
    pub entropy: Arc<dyn Entropy>,
    /// The writer's epoch that the database has, as its owner was told when he was handed it (0 before the first, one
    /// more with each opening): if another has opened it since, it is not opened. If nothing was handed out, whoever opens
    /// it last has it.
    pub expected_epoch: Option<u64>,
    /// How long jobs are kept that have come to their end: files that are older are worth a merge.
    pub retention: Retention,
    /// Where it can be made to fail.
    pub fail_points: Arc<FailPointRegistry>,
    /// Where its files are merged; where it is opened if nothing is said. A merge keeps a thread for long.
    pub merging: Option<Handle>,
}

/// Where a database's log is.
#[derive(Clone)]
pub enum DatabaseLog {
    /// In the same store.
    Same,
    /// In another store.
    Store(Arc<dyn ObjectStore>),
    /// On a local disk.
    Local(LocalWal),
}

impl DatabaseLog {
    /// Tells a log on a local disk from others.
    pub fn id(&self) -> Option<[u8; 16]> {
        match self {
            Self::Local(wal) => Some(wal.id()),
            Self::Same | Self::Store(_) => None,
        }
    }
}

/// Memory for the files of one database, bytes: the filters of some ten million jobs, and the blocks that are read next.
const CACHE_BYTES: u64 = 64 << 20;
/// How often batches that a local log does not need any more are let go.
const LOCAL_GC_INTERVAL: Duration = Duration::from_secs(2);

/// What a shard's database is told unless told otherwise: it is made durable when the broker says so, and looks
/// seldom at what nobody else changes; while nothing is written, at nothing more often than at that.
pub fn settings() -> Settings {
    Settings {
        flush_interval: None,
        manifest_poll_interval: Duration::from_secs(30),
        ..Settings::default()
    }
}

/// What a compaction asks a local disk for at once, of each of its files, bytes. SlateDB's own 8 MiB, made for stores that
/// are far away, are 150 MiB of reads when a compaction begins, and the log's sync waits behind them.
const LOCAL_FETCH_BYTES: usize = 256 << 10;
/// So many of those at once.
const LOCAL_FETCHES: usize = 2;

/// The same for a database on a local disk.
pub fn local_settings() -> Settings {
    let mut settings = settings();
    let compactor = settings.compactor_options.as_mut();
    if let Some(worker) = compactor.and_then(|compactor| compactor.worker.as_mut()) {
        worker.max_fetch_tasks = LOCAL_FETCHES;
        worker.bytes_to_fetch = LOCAL_FETCH_BYTES;
    }
    settings
}

/// Opens a database, or makes it. Whoever had it open is fenced.
///
/// # Errors
/// `Unavailable` if the store does not answer, `Corrupt` for what can't be read.
pub async fn open(parts: DatabaseParts) -> Result<Db> {
    let mut seed = [0; 8];
    parts.entropy.fill(&mut seed);
    let admin = Admin::builder(parts.path.clone(), parts.store.clone());
    let admin = admin.with_seed(u64::from_le_bytes(seed)).build();
    let found = admin.read_manifest(None).await.map_err(failed)?;
    if let Some(manifest) = &found {
        check_layout(manifest, &parts.path)?;
    }
    let last_ms = match &found {
        Some(manifest) => latest_ms(&parts, &admin, manifest).await.map_err(failed)?,
        None => 0,
    };
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
        DatabaseLog::Store(log) => builder.with_wal_object_store(log),
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

/// What SlateDB says, as data that is bad, when an object that it was to create is there: because somebody else was
/// faster, or because it was created and the answer to that was lost. Trying again finds out.
const CREATED_BEFORE: &str = "version already exists";

/// What is said when another has opened the database.
pub(crate) const FENCED: &str = "another node has opened the jobs' database";

/// What a failure of the database means.
pub fn failed(error: slatedb::Error) -> Error {
    if matches!(error.kind(), slatedb::ErrorKind::Closed(CloseReason::Fenced)) {
        return Error::fenced(FENCED);
    }
    let text = error.to_string();
    let kind = match error.kind() {
        slatedb::ErrorKind::Data if text.contains(CREATED_BEFORE) => ErrorKind::Unavailable,
        slatedb::ErrorKind::Data => ErrorKind::Corrupt,
        slatedb::ErrorKind::Invalid | slatedb::ErrorKind::Internal => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("the jobs' database failed: {text}"))
}

/// Refuses a database whose rows are not where this Skerry looks for them.
fn check_layout(manifest: &VersionedManifest, path: &str) -> Result<()> {
    let layout = manifest.segment_extractor_name();
    if layout == Some(ByLetter.name()) {
        return Ok(());
    }
    let detail = format!(
        "the jobs' database at {path} was made by another version of Skerry, in a layout that this one does not read \
         ({}): let that version finish its jobs, then delete the database, or name another path in [database]",
        layout.unwrap_or("without segments")
    );
    Err(Error::new(ErrorKind::Corrupt, detail))
}

/// The time that a database has seen, milliseconds since 1970: its clock goes on from there even if the machine's was
/// set back since. SlateDB names its files by time, and refuses one that is older than another; and it writes nothing
/// that is older than what its log has.
async fn latest_ms(
    parts: &DatabaseParts,
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
    let logged_ms = logged_ms(parts, manifest.replay_after_wal_id()).await?;
    Ok(begun_ms.max(newest).max(logged_ms))
}

/// The time of the newest row that only the log has.
async fn logged_ms(
    parts: &DatabaseParts,
    applied: u64,
) -> std::result::Result<u64, slatedb::Error> {
    let store = match &parts.log {
        // A store whose bucket is away for a while says of everything that it is not there.
        slatedb::ErrorKind::Data if is_not_found(&error) => ErrorKind::Unavailable,
        DatabaseLog::Local(wal) => return Ok(wal.newest_ms()),
        DatabaseLog::Same => &parts.store,
        DatabaseLog::Store(log) => log,
    };
    let reader = WalReader::new(parts.path.clone(), store.clone());
    // The last that has rows: those who opened the database since have left files with none.
    for file in reader.list(applied + 1..).await?.iter().rev() {
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

        let (mut rows, mut newest) = (file.iterator().await?, None);
        while let Some(row) = rows.next().await? {
            newest = newest.max(row.create_ts);
        }
        if let Some(ms) = newest {
            return Ok(ms.try_into().unwrap_or(0));
        }
    }
    Ok(0)
}
