//! From settings to a running engine: the one place that knows all parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::env::Clock;
use skerry_core::retry::{Patience, Trouble};
use skerry_log::{Disk, FileDisk, Log, MemDisk, Recovery};
use skerry_store::blocks::{Blocks, BlocksSettings};
use skerry_store::cache::disk::DiskCache;
use skerry_store::map::nodes::MapNodes;
use skerry_store::objects::bucket::{Bucket, Env};
use skerry_store::objects::line::SEND_TIMEOUT_MAX;
use skerry_store::objects::local::{LocalDir, OPEN_FILES_MAX};
use skerry_store::objects::meter::{Counters, Meter};
use skerry_store::objects::probe;
use skerry_store::objects::url;
use skerry_volume::{Engine, EngineParts, EngineSettings};

use crate::api_error::of_engine;
use crate::background::Background;
use crate::daemon::engine_host::EngineHost;
use crate::daemon::patience::StartPatience;
use crate::env::{SystemClock, SystemEntropy, cloud_environment, log_env};
use crate::home::bucket_place;
use crate::home::claim::Claim;
use crate::home::identity::Identity;
use crate::home::layout::{Layout, create_private, failed};
use crate::home::lock::Lock;
use crate::home::log_place::LogPlace;
use crate::home::log_room::{free_bytes, held_bytes, warn_of_copies};
use crate::home::machine;
use crate::home::parked::ParkedDir;
use crate::rpc::gate::Starting;
use crate::settings::{ByteSize, Settings};
use crate::values::{human_bytes, invalid};

/// Memory for map nodes, bytes: the leaves of some 4 GiB that are read at random.
const MAP_NODES_RAM_BYTES: u64 = 32 << 20;
/// The log's cap without a disk: bytes that a node may hold in memory before writers wait.
const MEMORY_LOG_BYTES: u64 = 128 << 20;
/// The smallest useful log: two files.
const LOG_CAP_BYTES_MIN: u64 = 128 << 20;

/// The started parts.
pub(crate) struct Started {
    /// Serves the volumes.
    pub(crate) engine: EngineHost,
    /// The start that the node claimed; none if its bucket can't be shared.
    pub(crate) claim: Option<Claim>,
}

/// Opens the bucket and the log, recovers, and gives the engine.
pub(crate) async fn start_engine(
    settings: &Settings,
    layout: &Layout,
    identity: &Identity,
    starting: &Starting,
) -> Result<Started> {
    let store = open_store(settings, layout)?;
    start_engine_over(store, settings, layout, identity, starting).await
}

/// Opens the bucket in this store, and the log; recovers, and gives the engine.
pub(crate) async fn start_engine_over(
    store: url::OpenStore,
    settings: &Settings,
    layout: &Layout,
    identity: &Identity,
    starting: &Starting,
) -> Result<Started> {
    starting.say("it opens its bucket");
    let opened = open_bucket(store, settings, layout, starting).await?;
    let Opened { bucket, url: bucket_url, store, patience } = opened;
    bucket_place::enter(layout, &bucket_url, &bucket.id().to_string())?;
    let claim = patience.attempt(async |patience| {
        claim_start(settings, layout, identity, &bucket.with_patience(patience)).await
    });
    let claim = claim.await?;
    starting.say("it reads its log");
    let log_dir = settings.log.enabled.then(|| layout.log(settings));
    let log_place = LogPlace::enter(layout, log_dir.as_deref())?;
    let OpenLog { log, recovery, lock: log_lock } = open_log(settings, layout, &identity.host)?;
    log_place.confirm(&log.id().to_string())?;
    let committer = log.spawn_committer().map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("the log's thread can't be started: {error}"))
    })?;
    tracing::info!(
        node = %identity.node,
        host = %identity.host,
        bucket = bucket_url,
        log_cap_bytes = log.cap_bytes(),
        "starting"
    );
    let background = Background::start()?;
    let parts = EngineParts {
        map_nodes: MapNodes::new(bucket.clone(), MAP_NODES_RAM_BYTES),
        blocks: open_blocks(settings, layout, &bucket).map_err(of_engine)?,
        bucket,
        bucket_url,
        log,
        recovery,
        has_log: settings.log.enabled,
        parking: settings.log.enabled.then(|| ParkedDir::shared(layout.parked())),
        node: identity.node,
        line: claim.as_ref().and_then(Claim::line),
        host: identity.host.clone(),
        background: background.handle(),
        settings: engine_settings(settings),
    };
    starting.say("it opens its volumes");
    let engine = Engine::open(parts).await.map_err(of_engine)?;
    let engine = EngineHost {
        engine,
        store,
        log_place,
        _committer: committer,
        _background: background,
        _log_lock: log_lock,
    };
    Ok(Started { engine, claim })
}

fn engine_settings(settings: &Settings) -> EngineSettings {
    EngineSettings {
        dirty_age: Duration::from_secs(settings.destage.dirty_age_s.0),
        guest_wait_max: settings.bucket.guest_wait_s.map(|s| Duration::from_secs(s.0)),
        ..EngineSettings::default()
    }
}

/// Claims a start of the node, unless its bucket is its own: in its data directory, or in its
/// memory.
async fn claim_start(
    settings: &Settings,
    layout: &Layout,
    identity: &Identity,
    bucket: &Bucket,
) -> Result<Option<Claim>> {
    let is_shared = |url: &String| !url.starts_with(bucket_place::NEW_EACH_TIME);
    if !settings.bucket.url.as_ref().is_some_and(is_shared) {
        return Ok(None);
    }
    let place = machine::place(layout)?;
    let jobs = settings.database.as_ref().and_then(|database| database.wal.as_ref());
    let jobs = jobs.filter(|log| log.backend == "fs").map(|log| PathBuf::from(&log.path));
    let logs = std::iter::once(layout.log(settings)).chain(jobs).collect();
    let in_its_place = settings.node.in_its_place;
    let claim = Claim::take(bucket, layout, logs, identity, place, in_its_place).await?;
    Ok(Some(claim))
}

/// A bucket that was opened and checked.
struct Opened {
    bucket: Bucket,
    url: String,
    store: Arc<Counters>,
    /// The patience of the rest of the start with it.
    patience: StartPatience,
}

/// Opens the store of the node's bucket.
fn open_store(settings: &Settings, layout: &Layout) -> Result<url::OpenStore> {
    if let Some(dir) = layout.bucket_elsewhere(settings) {
        // If it fails, the store says why.
        let _ = create_private(&dir);
    }
    let local = layout.bucket().to_string_lossy().into_owned();
    let options = url::StoreOptions {
        settings: settings.bucket.options.clone(),
        environment: cloud_environment(),
        timeout_max: Some(SEND_TIMEOUT_MAX),
    };
    url::open(settings.bucket.url.as_deref().unwrap_or(&local), &options).map_err(of_engine)
}

async fn open_bucket(
    opened: url::OpenStore,
    settings: &Settings,
    layout: &Layout,
    starting: &Starting,
) -> Result<Opened> {
    let is_known = bucket_place::is_known(layout, &opened.display)?;
    let patience = StartPatience::new(&settings.bucket, is_known, starting.clone());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let meter = Meter::new(opened.store, clock.clone());
    let counters = meter.counters();
    let env = Env { clock, entropy: Arc::new(SystemEntropy) };
    let meter: Arc<dyn ObjectStore> = Arc::new(meter);
    let open = patience.attempt(async |patience| {
        let opened = Bucket::open_with(meter.clone(), env.clone(), true, patience).await;
        opened.map_err(of_engine)
    });
    let mut bucket = open.await?.with_patience(Patience::COMMAND);
    let probe = patience.attempt(async |patience| {
        match probe::probe(&bucket.with_patience(patience)).await {
            // The node found it fit when it first met it, and a full bucket can be read.
            Err(error) if is_known && error.trouble() == Trouble::Full => {
                tracing::warn!(%error, "the bucket is full");
                Ok(())
            }
            probed => probed.map_err(of_engine),
        }
    });
    probe.await?;
    if let Some(root) = opened.local_root {
        bucket = bucket.with_local_dir(Arc::new(LocalDir::new(root, OPEN_FILES_MAX)));
    }
    Ok(Opened { bucket, url: opened.display, store: counters, patience })
}

fn open_blocks(
    settings: &Settings,
    layout: &Layout,
    bucket: &Bucket,
) -> skerry_store::Result<Blocks> {
    let cache = layout.cache(settings);
    let disk = match bucket.local_dir() {
        Some(_) => None,
        None => {
            // It has guests' data. If it can't be made, opening it says so.
            let _ = create_private(&cache);
            Some(DiskCache::open(&cache, settings.cache.disk_bytes.0, bucket.id())?)
        }
    };
    Ok(Blocks::new(bucket.clone(), BlocksSettings { ram_bytes: settings.cache.ram_bytes.0, disk }))
}

/// A log that this node alone has open.
struct OpenLog {
    log: Log,
    recovery: Recovery,
    /// None for a log in memory.
    lock: Option<Lock>,
}

fn open_log(settings: &Settings, layout: &Layout, host: &str) -> Result<OpenLog> {
    let mut limits = skerry_log::Settings::default();
    let mut lock = None;
    let disk: Arc<dyn Disk> = if settings.log.enabled {
        let dir = layout.log(settings);
        check_cap(settings, limits.cap_bytes_max())?;
        create_private(&dir).map_err(|error| failed("can't be made", &dir, &error))?;
        // Opening a log removes files and begins a use: not beside another node.
        lock = Some(Lock::take_log(settings, layout, host)?);
        // The log's files count as its room: restarts with a full log must not make it smaller each
        // time.
        let free_bytes = free_bytes(&dir)?.saturating_add(held_bytes(&dir)?);
        limits.cap_bytes = settings.log.cap_bytes(free_bytes).max(LOG_CAP_BYTES_MIN);
        warn_of_copies(&dir);
        Arc::new(FileDisk::new(dir))
    } else {
        limits.file_bytes = 16 << 20;
        limits.cap_bytes = MEMORY_LOG_BYTES;
        Arc::new(MemDisk::new())
    };
    let opened = Log::open(disk, limits, log_env());
    let (log, recovery) = opened.map_err(of_engine)?;
    Ok(OpenLog { log, recovery, lock })
}

/// Refuses a cap that a log can't have.
fn check_cap(settings: &Settings, most: u64) -> Result<()> {
    match settings.log.cap_bytes {
        Some(ByteSize(cap)) if cap > most => Err(invalid(format!(
            "[log] cap_bytes is {}, and a log has {} at most",
            human_bytes(cap),
            human_bytes(most)
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opening a log removes files and begins a use: it must not happen beside another writer.
    #[test]
    fn a_log_is_opened_by_one_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::default();
        settings.log.dir = Some(dir.path().join("log"));
        let open = |name: &str| {
            let layout = Layout::new(&dir.path().join(name)).expect("a layout");
            open_log(&settings, &layout, "h")
        };
        let first = open("a").expect("opened");
        let error = open("b").err().expect("in use");
        assert_eq!(error.kind(), ErrorKind::InUse);
        drop(first);
        open("b").expect("opened");
    }

    /// Once, it was an internal error.
    #[test]
    fn a_cap_that_a_log_can_not_have_is_refused_with_the_limit() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::default();
        let layout = Layout::new(dir.path()).expect("a layout");
        settings.log.cap_bytes = Some(ByteSize(64 << 30));
        let error = open_log(&settings, &layout, "h").err().expect("too much");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        for said in ["cap_bytes", "64 GiB", "30 GiB"] {
            assert!(error.message().contains(said), "{error}");
        }
        settings.log.cap_bytes = Some(ByteSize(30 << 30));
        check_cap(&settings, skerry_log::Settings::default().cap_bytes_max()).expect("the most");
    }
}
