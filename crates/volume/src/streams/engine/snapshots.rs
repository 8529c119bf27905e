//! Operations on snapshots, by names: take, list, delete, roll back.

use crate::error::{Error, Result};
use crate::info::SnapshotView;
use crate::streams::engine::Engine;
use crate::streams::snapshots::cut::{free_name, timestamp_name};
use crate::streams::stream::Behalf;
use crate::streams::stream::payload::Payload;
use skerry_core::descriptor::FlushLevel;
use skerry_core::id::VolumeId;
use skerry_core::name::Name;
use skerry_core::refs::Ref;

impl<P: Payload> Engine<P> {
    /// Takes a snapshot. Without a name, the time names it.
    pub async fn create_snapshot(
        &self,
        volume: &Name,
        snapshot: Option<&Name>,
    ) -> Result<SnapshotView> {
        let volume = self.writable(volume).await?;
        let _admin = volume.admin.lock().await;
        volume.snapshot(snapshot, Behalf::Operator).await
    }

    /// Lists all snapshots of a volume, oldest first; for a volume that another node writes, the
    /// published ones. Does not ask the bucket about a volume that is open here.
    pub async fn list_snapshots(&self, volume: &Name) -> Result<Vec<SnapshotView>> {
        if let Some(open) = self.open_by_name(volume) {
            return Ok(open.snapshots.lock().views(volume.as_str()));
        }
        let id = self.resolve(volume).await?;
        if let Some(open) = self.open_here(id) {
            return Ok(open.snapshots.lock().views(volume.as_str()));
        }
        let labels = self.ctx.catalog.labels(id).await?;
        Ok(crate::streams::stream::snapshot_list::Snapshots::of_labels(&labels)
            .views(volume.as_str()))
    }

    /// Gives the ref of a snapshot, once it is in the bucket.
    pub(crate) async fn published(
        &self,
        id: VolumeId,
        volume: &Name,
        snapshot: &Name,
    ) -> Result<Ref> {
        if let Some(open) = self.open_here(id) {
            // An unknown snapshot may be the new owner's, if the volume was taken over meanwhile.
            open.wait_snapshot(snapshot).await?;
        }
        if let Some(found) = self.ctx.catalog.find_snapshot(id, snapshot).await? {
            return Ok(found);
        }
        // A label comes before its ref: a listing in between shows this snapshot already.
        let labels = self.ctx.catalog.labels(id).await?;
        if !labels.iter().any(|(name, _)| name == snapshot.as_str()) {
            return Err(Error::no_snapshot(volume, snapshot));
        }
        let why = "is not in the bucket yet: try again, and run fsck if that lasts";
        Err(Error::unavailable(format!("snapshot {volume}@{snapshot}"), why))
    }

    /// Deletes a snapshot. Nothing depends on it.
    pub async fn delete_snapshot(&self, volume: &Name, snapshot: &Name) -> Result<()> {
        let id = self.resolve(volume).await?;
        if !self.ctx.catalog.is_gone(id).await? {
            return self.writable(volume).await?.delete_snapshot(snapshot).await;
        }
        // By its label: its ref may be damaged.
        let labels = self.ctx.catalog.labels(id).await?;
        let found = labels.iter().find(|(name, _)| name == snapshot.as_str());
        let (name, label) = found.ok_or_else(|| Error::no_snapshot(volume, snapshot))?;
        self.ctx.catalog.delete_snapshot(id, name, label.id).await?;
        self.finish_deletion(id, volume).await
    }

    /// Puts a volume back to one of its snapshots. First keeps the present state as a snapshot,
    /// which it gives.
    pub async fn rollback_volume(
        &self,
        name: &Name,
        snapshot: &Name,
        force: bool,
    ) -> Result<SnapshotView> {
        let volume = self.writable(name).await?;
        let admin = volume.admin.clone().lock_owned().await;
        let found = self.published(volume.desc.id, name, snapshot).await?;
        let info = found.snapshot.as_ref().ok_or_else(|| Error::no_snapshot(name, snapshot))?;
        let to = (info.id, found.base.clone());
        let kept: Name = {
            let snapshots = volume.snapshots.lock();
            let stamp = timestamp_name(self.ctx.clock().wall_ms());
            let free =
                free_name(&format!("before-rollback-{stamp}"), |n| snapshots.get(n).is_some());
            free.parse().map_err(|e: skerry_core::name::NameError| {
                Error::internal("the snapshot before a rollback:", e.to_string())
            })?
        };
        volume.roll_back(to, kept, force, admin).await
    }

    /// The flush level of a volume that is created without one.
    pub(crate) fn default_flush(&self) -> FlushLevel {
        if self.ctx.has_log { self.ctx.settings.default_flush } else { FlushLevel::Bucket }
    }
}
