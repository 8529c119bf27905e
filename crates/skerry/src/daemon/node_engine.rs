//! The engine of a real node, behind the seam.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::id::VolumeId;
use skerry_core::name::{Name, Target};
use skerry_store::objects::meter;
use skerry_volume::{
    CreateVolume, Device, DiffRange, FsckReport, Node, NodeStatus, Released, Result, SnapshotView,
    StatusRange, VolumeInfo,
};
use tokio::runtime::Handle;

use crate::background::Background;
use crate::engine::{Engine, EngineDevice};
use crate::home::lock::Lock;
use crate::home::log_place::LogPlace;
use crate::metric::Metric;
use crate::metrics::node;

/// A node, the counters of its store, and the threads beside it.
pub(crate) struct NodeEngine {
    pub(crate) node: Arc<Node>,
    pub(crate) store: Arc<meter::Counters>,
    /// Notes the log's place.
    pub(crate) log_place: LogPlace,
    /// Computes for the node.
    pub(crate) _background: Background,
    /// Commits the log; ends with the engine.
    pub(crate) _committer: skerry_log::CommitterThread,
    /// Keeps every other node off the log.
    pub(crate) _log_lock: Option<Lock>,
}

#[async_trait]
impl Engine for NodeEngine {
    async fn create_volume(&self, new: CreateVolume) -> Result<VolumeInfo> {
        self.node.create_volume(new).await
    }

    async fn list_volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.node.list_volumes().await
    }

    async fn show_volume(&self, name: &Name) -> Result<VolumeInfo> {
        self.node.show_volume(name).await
    }

    async fn name_of(&self, id: VolumeId) -> Result<Option<Name>> {
        self.node.name_of(id).await
    }

    async fn resize_volume(
        &self,
        name: &Name,
        size_bytes: u64,
        shrink: bool,
    ) -> Result<VolumeInfo> {
        self.node.resize_volume(name, size_bytes, shrink).await
    }

    async fn rename_volume(&self, name: &Name, new: &Name) -> Result<VolumeInfo> {
        self.node.rename_volume(name, new).await
    }

    async fn delete_volume(&self, name: &Name, snapshots: bool, force: bool) -> Result<()> {
        self.node.delete_volume(name, snapshots, force).await
    }

    async fn release_volume(&self, name: &Name, force: bool) -> Result<Released> {
        self.node.release_volume(name, force).await
    }

    async fn clone_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        new: &Name,
        size_bytes: Option<u64>,
    ) -> Result<VolumeInfo> {
        self.node.clone_volume(volume, snapshot, new, size_bytes).await
    }

    async fn rollback_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        force: bool,
    ) -> Result<SnapshotView> {
        self.node.rollback_volume(volume, snapshot, force).await
    }

    async fn create_snapshot(
        &self,
        volume: &Name,
        snapshot: Option<&Name>,
    ) -> Result<SnapshotView> {
        self.node.create_snapshot(volume, snapshot).await
    }

    async fn list_snapshots(&self, volume: &Name) -> Result<Vec<SnapshotView>> {
        self.node.list_snapshots(volume).await
    }

    async fn delete_snapshot(&self, volume: &Name, snapshot: &Name) -> Result<()> {
        self.node.delete_snapshot(volume, snapshot).await
    }

    async fn diff_snapshots(
        &self,
        volume: &Name,
        from: &Name,
        to: &Name,
    ) -> Result<Vec<DiffRange>> {
        self.node.diff_snapshots(volume, from, to).await
    }

    async fn open_device(&self, target: &Target) -> Result<Arc<dyn EngineDevice>> {
        let device = self.node.open_device(target).await?;
        Ok(Arc::new(NodeDevice { device, runtime: Handle::current() }))
    }

    fn status(&self) -> NodeStatus {
        self.node.status()
    }

    async fn fsck(&self) -> Result<FsckReport> {
        self.node.fsck().await
    }

    async fn shutdown(&self) -> Result<()> {
        self.node.shutdown().await?;
        self.log_place.end(self.node.is_drained());
        Ok(())
    }

    fn metrics(&self) -> Vec<Metric> {
        node::all(&self.node, &self.store)
    }
}

struct NodeDevice {
    device: Arc<Device>,
    /// The runtime for reading ahead, whichever thread asks for it.
    runtime: Handle,
}

#[async_trait]
impl EngineDevice for NodeDevice {
    fn name(&self) -> String {
        self.device.name().to_owned()
    }

    fn size_bytes(&self) -> u64 {
        self.device.size_bytes()
    }

    fn block_size_bytes(&self) -> u64 {
        self.device.block_size_bytes()
    }

    fn is_read_only(&self) -> bool {
        self.device.is_read_only()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        if let Some(range) = self.device.read_ahead(offset, buf.len() as u64) {
            let device = self.device.clone();
            self.runtime.spawn(async move {
                device.prefetch(range.start, range.end - range.start).await;
            });
        }
        self.device.try_read(offset, buf)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Option<Result<()>> {
        self.device.try_write(offset, data)
    }

    fn try_flush(&self) -> Option<Result<()>> {
        self.device.try_flush()
    }

    async fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.device.read_into(offset, out).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.device.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.device.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        self.device.flush().await
    }

    async fn status(&self, offset: u64, len: u64, max: usize) -> Result<Vec<StatusRange>> {
        self.device.status(offset, len, max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.device.prefetch(offset, len).await;
    }
}
