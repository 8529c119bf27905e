//! The sweep: looks at every object of every stream that this node may collect, and deletes
//! segments that nothing holds.
//!
//! Only its owner sweeps a living volume. A deleted one has no owner, and any node may sweep it.

use crate::error::Result;
use crate::streams::engine::Engine;
use crate::streams::stream::payload::Payload;
use skerry_core::id::VolumeId;
use skerry_core::names::{self, Object};
use skerry_store::refs::claim;
use skerry_store::space::collect::Owned;
use skerry_store::space::family;
use std::collections::BTreeSet;
use std::time::Duration;

impl<P: Payload> Engine<P> {
    /// Deletes every free segment of the volumes that this node writes, and of the deleted ones.
    /// Gives their number. Lists all their streams: made for once a day.
    pub async fn sweep(&self) -> Result<usize> {
        let mut swept = 0;
        let mut failed = None;
        for volume in self.open_volumes().into_iter().filter(|v| !v.has_left()) {
            match volume.sweep().await {
                Ok(count) => swept += count,
                // It left this node meanwhile: its next owner sweeps its segments.
                Err(_) if volume.has_left() => {}
                // A volume that can't be swept keeps no other from it.
                Err(e) => failed = Some(e),
            }
        }
        for id in self.deleted().await? {
            if self.ctx.collector.is_over(id) {
                continue;
            }
            match self.sweep_deleted(id).await {
                Ok(count) => swept += count,
                Err(e) => failed = Some(e),
            }
        }
        self.clear_litter().await?;
        failed.map_or(Ok(swept), Err)
    }

    /// Deletes the litter of crashes in a local bucket.
    async fn clear_litter(&self) -> Result<()> {
        let Some(dir) = self.ctx.bucket.local_dir() else { return Ok(()) };
        let now = Duration::from_millis(self.ctx.clock().wall_ms());
        let removed = dir.remove_staged(now.saturating_sub(self.ctx.settings.litter_age)).await?;
        if removed > 0 {
            tracing::info!(files = removed, "deleted objects that crashes left in the bucket");
        }
        Ok(())
    }

    async fn deleted(&self) -> Result<Vec<VolumeId>> {
        let listed = self.ctx.bucket.list(names::VOLUMES).await?;
        let gone = |name: &str| match names::parse(name) {
            Object::VolumeGone(id) => Some(id),
            _ => None,
        };
        Ok(listed.iter().filter_map(|object| gone(&object.name)).collect())
    }

    /// Finishes the deletion of a volume, and deletes the free segments of its streams. A volume of
    /// which nothing is left is not looked at again until this node starts anew.
    async fn sweep_deleted(&self, id: VolumeId) -> Result<usize> {
        self.ctx.catalog.settled_labels(id).await?;
        let freed = self.free_deleted(id).await?;
        if freed == Some(0) && family::is_over(&self.ctx.bucket, id).await? {
            self.ctx.collector.note_over(id);
        }
        Ok(freed.unwrap_or_default())
    }

    /// Deletes the free segments of a deleted volume's streams. Gives their number, or none if the
    /// pass gave up.
    pub(crate) async fn free_deleted(&self, id: VolumeId) -> Result<Option<usize>> {
        let incarnations = claim::incarnations(&self.ctx.bucket, id).await?;
        let collector = &self.ctx.collector;
        let candidates: BTreeSet<_> =
            collector.sweep_candidates(&incarnations).await?.into_iter().collect();
        let owned = Owned { volume: id, writing: None, head: None };
        let free = collector.free(&owned, &incarnations, &candidates).await?;
        collector.delete(free.as_deref().unwrap_or_default()).await.all()?;
        // Its own parents need no longer hold anything for it.
        family::release(&self.ctx.bucket, &self.ctx.catalog, id).await?;
        Ok(free.map(|free| free.len()))
    }
}
