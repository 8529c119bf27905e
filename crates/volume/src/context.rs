//! Everything that the volumes of a node share: the bucket, the caches, the log, the settings.

use crate::error::{Error, Result};
use crate::settings::EngineSettings;
use crate::streams::budget::{Buffers, OverlayBudget};
use crate::streams::heavy;
use crate::streams::scratch::Scratch;
use crate::streams::tails::parking::Parking;
use parking_lot::Mutex;
use skerry_core::env::Clock;
use skerry_core::id::{ClaimId, LogId, NodeId, VolumeId};
use skerry_core::seal::Owner;
use skerry_log::{Log, Recovery};
use skerry_store::blocks::Blocks;
use skerry_store::map::nodes::MapNodes;
use skerry_store::objects::bucket::Bucket;
use skerry_store::refs::catalog::Catalog;
use skerry_store::space::collect::Collector;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::Semaphore;

/// Parts of a node's engine.
pub struct EngineParts {
    /// The bucket, opened and probed.
    pub bucket: Bucket,
    /// Its URL, for people, without secrets.
    pub bucket_url: String,
    /// The reader of map nodes.
    pub map_nodes: MapNodes,
    /// The reader of blocks.
    pub blocks: Blocks,
    /// The log, opened.
    pub log: Log,
    /// The surviving records in it.
    pub recovery: Recovery,
    /// True if the log is on a disk; without one, the default flush level is `bucket`.
    pub has_log: bool,
    /// The place for tails that are not merged, or not now; none without a log on a disk.
    pub parking: Option<Arc<dyn Parking>>,
    /// The node.
    pub node: NodeId,
    /// Tells its log from one that was copied with its data directory, once a copy of the node has
    /// run.
    pub line: Option<ClaimId>,
    /// The host's name.
    pub host: String,
    /// A runtime whose blocking threads do the heavy computing, at a low priority if it must yield
    /// to clients. Without it, computing runs where it is called: for simulations.
    pub background: Option<Handle>,
    /// Limits.
    pub settings: EngineSettings,
}

/// Everything that the volumes of a node share.
pub struct Context {
    /// The bucket.
    pub bucket: Bucket,
    /// Its URL, for people, without secrets.
    pub(crate) bucket_url: String,
    /// Map nodes.
    pub map_nodes: MapNodes,
    /// Blocks.
    pub blocks: Blocks,
    /// Names and descriptors.
    pub catalog: Catalog,
    /// The collector.
    pub collector: Collector,
    /// The node's log.
    pub log: Log,
    /// Limits.
    pub settings: EngineSettings,
    /// The node.
    pub node: NodeId,
    line: Option<ClaimId>,
    /// The host's name.
    pub host: String,
    /// True if the log is on a disk. Without one, only the bucket keeps flushed data, whatever a
    /// volume's level.
    pub has_log: bool,
    /// Memory for changes that are in the bucket and not in the maps.
    pub(crate) overlays: Arc<OverlayBudget>,
    /// Memory for records that are in the log and not in the bucket.
    pub(crate) indexes: Arc<OverlayBudget>,
    /// The runtime for heavy computing.
    pub background: Option<Handle>,
    /// Limits the tasks that compute there and wait for the store in between.
    pub(crate) heavy: Arc<Semaphore>,
    /// The place for tails that are not merged, or not now; none if the log is not on a disk.
    pub(crate) parking: Option<Arc<dyn Parking>>,
    /// Messages for people about volumes whose tail could not be moved out of the log, or that
    /// could not be opened.
    pub(crate) attention: Mutex<BTreeMap<VolumeId, String>>,
    /// Held while a tail is moved, one at a time. The others wait without a thread.
    pub(crate) parking_now: tokio::sync::Mutex<()>,
    /// Number of lost volumes whose tails are being parked.
    pub(crate) leaving: AtomicUsize,
    /// True once the node is about to stop: it begins nothing by itself any more.
    pub(crate) stopping: AtomicBool,
    /// Memory for building batches.
    pub(crate) scratch: Scratch,
    /// Memory for the buffers of all volumes.
    pub(crate) buffers: Buffers,
    /// True if clients send so much that background work must leave them the processors.
    pub(crate) clients_active: AtomicBool,
    /// Wakes the task that watches the log's room.
    pub(crate) pressure: Notify,
}

impl Context {
    /// Builds the shared part of a node made of `parts`. Gives it and the surviving records.
    pub(crate) fn new(parts: EngineParts) -> (Self, Recovery) {
        let settings = &parts.settings;
        let ctx = Self {
            overlays: OverlayBudget::new(settings.overlay_bytes_max),
            indexes: OverlayBudget::new(settings.index_bytes_max),
            scratch: Scratch::new(settings.segment_bytes + settings.record_bytes_max),
            buffers: Buffers::new(settings.buffer_bytes_max),
            catalog: Catalog::new(parts.bucket.clone()),
            collector: Collector::new(parts.bucket.clone(), parts.map_nodes.clone()),
            bucket: parts.bucket,
            bucket_url: parts.bucket_url,
            map_nodes: parts.map_nodes,
            blocks: parts.blocks,
            log: parts.log,
            settings: parts.settings,
            node: parts.node,
            line: parts.line,
            host: parts.host,
            has_log: parts.has_log,
            background: parts.background,
            heavy: Arc::new(Semaphore::new(heavy::AT_ONCE_MAX)),
            parking: parts.parking,
            attention: Mutex::default(),
            parking_now: tokio::sync::Mutex::default(),
            leaving: AtomicUsize::default(),
            stopping: AtomicBool::default(),
            clients_active: AtomicBool::default(),
            pressure: Notify::new(),
        };
        (ctx, parts.recovery)
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.bucket.clock()
    }

    /// The log's id in seals. A record from before the node began its line never follows a seal
    /// from after that, so it is never merged.
    pub fn log_id(&self) -> LogId {
        let line = self.line.map_or(0, |line| u128::from_be_bytes(line.0));
        LogId((self.log.id().as_u128() ^ line).to_be_bytes())
    }

    /// This node as an owner.
    pub fn owner(&self) -> Owner {
        Owner { node: self.node, log: self.log_id(), lease: 0, host: self.host.clone() }
    }

    /// Bytes of all open or attached changes that are in the bucket and not in the maps.
    pub fn overlay_bytes(&self) -> usize {
        self.overlays.all_bytes()
    }

    /// Used share of the log's room, percent: of its cap, or of the room on its disk.
    pub(crate) fn log_percent(&self) -> u64 {
        self.log.used_percent()
    }

    /// Notes a message that people should see.
    pub(crate) fn note(&self, volume: VolumeId, line: String) {
        tracing::error!("{line}");
        self.attention.lock().insert(volume, line);
    }

    /// Removes the message about a volume: all is well with it.
    pub(crate) fn unnote(&self, volume: VolumeId) {
        self.attention.lock().remove(&volume);
    }

    /// Runs heavy computing in the background, or here if there is no background.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let Some(background) = &self.background else { return Ok(work()) };
        background
            .spawn_blocking(work)
            .await
            .map_err(|error| Error::lost_task("a computing task", error))
    }
}
