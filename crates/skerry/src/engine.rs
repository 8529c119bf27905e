//! The binary's view of an engine: the seam between serving and storing.
//!
//! The methods are those of `skerry_volume`'s node; errors are its errors. Every server (the
//! control API, block exports, metrics) goes through here, so that tests can run over a small
//! engine in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::id::VolumeId;
use skerry_core::name::{Name, Target};
use skerry_volume::{
    CreateVolume, DiffRange, FsckReport, NodeStatus, Released, Result, SnapshotView, StatusRange,
    VolumeInfo,
};

use crate::metric::Metric;

/// All volumes of one data directory.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    /// Creates an empty volume.
    async fn create_volume(&self, new: CreateVolume) -> Result<VolumeInfo>;
    /// Lists all volumes of the bucket, by name.
    async fn list_volumes(&self) -> Result<Vec<VolumeInfo>>;
    /// Shows one volume.
    async fn show_volume(&self, name: &Name) -> Result<VolumeInfo>;
    /// The volume's present name; none if it is deleted, or never existed.
    async fn name_of(&self, id: VolumeId) -> Result<Option<Name>>;
    /// Changes the size. Refuses a smaller one without `shrink`.
    async fn resize_volume(&self, name: &Name, size_bytes: u64, shrink: bool)
    -> Result<VolumeInfo>;
    /// Changes the name.
    async fn rename_volume(&self, name: &Name, new: &Name) -> Result<VolumeInfo>;
    /// Deletes a volume, with or without its snapshots. `force` deletes it under its clients.
    async fn delete_volume(&self, name: &Name, snapshots: bool, force: bool) -> Result<()>;
    /// Releases a volume. With `force`, takes it from its owner.
    async fn release_volume(&self, name: &Name, force: bool) -> Result<Released>;
    /// Creates a clone of a snapshot.
    async fn clone_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        new: &Name,
        size_bytes: Option<u64>,
    ) -> Result<VolumeInfo>;
    /// Goes back to a snapshot. Gives the snapshot that keeps the state before.
    async fn rollback_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        force: bool,
    ) -> Result<SnapshotView>;
    /// Takes a snapshot. Without a name, the time names it.
    async fn create_snapshot(&self, volume: &Name, snapshot: Option<&Name>)
    -> Result<SnapshotView>;
    /// Lists a volume's snapshots, oldest first.
    async fn list_snapshots(&self, volume: &Name) -> Result<Vec<SnapshotView>>;
    /// Deletes a snapshot.
    async fn delete_snapshot(&self, volume: &Name, snapshot: &Name) -> Result<()>;
    /// Finds the ranges in which two snapshots of a volume differ, in order.
    async fn diff_snapshots(&self, volume: &Name, from: &Name, to: &Name)
    -> Result<Vec<DiffRange>>;
    /// Opens a volume or a snapshot for reading and writing its content.
    async fn open_device(&self, target: &Target) -> Result<Arc<dyn EngineDevice>>;
    /// The node's state.
    fn status(&self) -> NodeStatus;
    /// Checks the whole bucket.
    async fn fsck(&self) -> Result<FsckReport>;
    /// Makes everything durable and stops.
    async fn shutdown(&self) -> Result<()>;
    /// The present metrics.
    fn metrics(&self) -> Vec<Metric>;
}

/// One volume (writable) or one snapshot (read-only), opened. Offsets and lengths are in bytes. Any
/// are accepted, and multiples of 512 are served best.
#[async_trait]
pub(crate) trait EngineDevice: Send + Sync + 'static {
    /// `VOLUME` or `VOLUME@SNAPSHOT`.
    fn name(&self) -> String;
    /// Its present size.
    fn size_bytes(&self) -> u64;
    /// The size of its blocks.
    fn block_size_bytes(&self) -> u64;
    /// True for snapshots, and for volumes that another node writes.
    fn is_read_only(&self) -> bool;
    /// Fills `buf`, if that is possible without waiting.
    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>>;
    /// Accepts a write, if that is possible without waiting; otherwise nothing has happened.
    fn try_write(&self, offset: u64, data: &[u8]) -> Option<Result<()>>;
    /// Flushes, if that is possible without waiting for others.
    fn try_flush(&self) -> Option<Result<()>>;
    /// Fills `out`.
    async fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()>;
    /// Reads `len` bytes.
    async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let mut out = vec![0; len];
        self.read_into(offset, &mut out).await?;
        Ok(out.into())
    }
    /// Writes. Later reads see the data; a later flush makes it durable.
    async fn write(&self, offset: u64, data: Bytes) -> Result<()>;
    /// Makes a range read as zeros, and takes no space for it.
    async fn zero(&self, offset: u64, len: u64) -> Result<()>;
    /// Makes earlier acknowledged writes durable.
    async fn flush(&self) -> Result<()>;
    /// Tells what is stored from `offset` on: in order, without gaps, `max` ranges at most. They
    /// may end before `offset + len`.
    async fn status(&self, offset: u64, len: u64, max: usize) -> Result<Vec<StatusRange>>;
    /// Prefetches a range; a hint. Returns when the range is there, or can't be fetched.
    async fn prefetch(&self, offset: u64, len: u64);
}
