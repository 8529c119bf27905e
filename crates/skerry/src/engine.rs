//! What the binary needs of an engine: the seam between serving and storing.
//!
//! The methods are those of `skerry_volume`'s node; errors are its errors. Everything that is
//! served (the control API, block exports, metrics) goes through here, so that it can be tested
//! over a small engine in memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::id::VolumeId;
use skerry_core::name::{Name, Target};
use skerry_volume::{
    CreateVolume, DiffRange, FsckReport, NodeStatus, Released, Result, SnapshotView, StatusRange,
    VolumeInfo,
};

use crate::metrics::Metric;

/// All volumes of one data folder.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    /// Makes an empty volume.
    async fn create_volume(&self, new: CreateVolume) -> Result<VolumeInfo>;
    /// All volumes of the bucket, by name.
    async fn list_volumes(&self) -> Result<Vec<VolumeInfo>>;
    /// One volume.
    async fn show_volume(&self, name: &Name) -> Result<VolumeInfo>;
    /// What a volume is called now; nothing if it is deleted, or was never there.
    async fn name_of(&self, id: VolumeId) -> Result<Option<Name>>;
    /// Changes the size; refused if it shrinks and `shrink` doesn't allow it.
    async fn resize_volume(&self, name: &Name, size_bytes: u64, shrink: bool)
    -> Result<VolumeInfo>;
    /// Changes the name.
    async fn rename_volume(&self, name: &Name, new: &Name) -> Result<VolumeInfo>;
    /// Deletes a volume, with its snapshots or without, under its clients or not.
    async fn delete_volume(&self, name: &Name, snapshots: bool, force: bool) -> Result<()>;
    /// Gives a volume up; with `force` takes it from whoever holds it.
    async fn release_volume(&self, name: &Name, force: bool) -> Result<Released>;
    /// Makes a writable volume out of a snapshot.
    async fn clone_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        new: &Name,
        size_bytes: Option<u64>,
    ) -> Result<VolumeInfo>;
    /// Goes back to a snapshot; returns the snapshot that keeps the state before.
    async fn rollback_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        force: bool,
    ) -> Result<SnapshotView>;
    /// Takes a snapshot; the time names it if nothing else does.
    async fn create_snapshot(&self, volume: &Name, snapshot: Option<&Name>)
    -> Result<SnapshotView>;
    /// A volume's snapshots, the oldest first.
    async fn list_snapshots(&self, volume: &Name) -> Result<Vec<SnapshotView>>;
    /// Deletes a snapshot.
    async fn delete_snapshot(&self, volume: &Name, snapshot: &Name) -> Result<()>;
    /// Where two snapshots of a volume differ, in order.
    async fn diff_snapshots(&self, volume: &Name, from: &Name, to: &Name)
    -> Result<Vec<DiffRange>>;
    /// Opens a volume or a snapshot for reading and writing its content.
    async fn open_device(&self, target: &Target) -> Result<Arc<dyn EngineDevice>>;
    /// How the node is.
    fn status(&self) -> NodeStatus;
    /// Checks everything that the bucket holds.
    async fn fsck(&self) -> Result<FsckReport>;
    /// Makes everything durable and stops.
    async fn shutdown(&self) -> Result<()>;
    /// What there is to count and measure, now.
    fn metrics(&self) -> Vec<Metric>;
}

/// One volume (writable) or one snapshot (read-only), opened. Offsets and lengths are in bytes; any
/// will do, and multiples of 512 are served best.
#[async_trait]
pub(crate) trait EngineDevice: Send + Sync + 'static {
    /// `VOLUME` or `VOLUME@SNAPSHOT`.
    fn name(&self) -> String;
    /// Its size now.
    fn size_bytes(&self) -> u64;
    /// The size of its blocks.
    fn block_size_bytes(&self) -> u64;
    /// True for snapshots, and for volumes that another node writes.
    fn is_read_only(&self) -> bool;
    /// Fills `buf`, if that is possible without waiting.
    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>>;
    /// Accepts a write, if that is possible without waiting; nothing has happened if it is not.
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
    /// Writes; later reads see it, a later flush makes it durable.
    async fn write(&self, offset: u64, data: Bytes) -> Result<()>;
    /// Makes a range read as zeros and takes no space for it.
    async fn zero(&self, offset: u64, len: u64) -> Result<()>;
    /// Makes durable what was acknowledged before.
    async fn flush(&self) -> Result<()>;
    /// What is stored from `offset` on: in order, without gaps, `max` ranges at most; they may end
    /// before `offset + len`.
    async fn status(&self, offset: u64, len: u64, max: usize) -> Result<Vec<StatusRange>>;
    /// Fetches a range ahead of reads; a hint. Returns when it is there, or can't be had.
    async fn prefetch(&self, offset: u64, len: u64);
}
