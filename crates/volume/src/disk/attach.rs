//! Attaching: a device of a volume that this node writes, or of a state that it only reads.

pub mod device;
mod readahead;
mod served;

use crate::disk::Engine;
use crate::disk::attach::device::Device;
use crate::disk::reading::Reading;
use crate::error::{Error, ErrorKind, Result};
use crate::streams::snapshots::cut::REPLACED_MAX;
use crate::streams::snapshots::pins::Pinned;
use skerry_core::id::VolumeId;
use skerry_core::name::{Name, Target};
use skerry_core::root::Base;
use skerry_store::refs::claim;
use skerry_store::refs::view;
use std::sync::Arc;

/// Number of tries to pin a volume whose owner makes checkpoints meanwhile.
const PIN_TRIES_MAX: usize = 5;

impl Engine {
    /// Attaches a volume or a snapshot. Serves a volume that another node writes read-only.
    pub async fn open_device(&self, target: &Target) -> Result<Arc<Device>> {
        if target.snapshot.is_none()
            && let Some(volume) = self.open_by_name(&target.volume)
        {
            // A bucket that is down keeps no client from a volume that this node writes.
            volume.look_at_attach().await;
            if let Ok(device) = Device::head(volume, target.to_string()).await {
                return Ok(Arc::new(device));
            }
        }
        let id = self.resolve(&target.volume).await?;
        match &target.snapshot {
            Some(snapshot) => self.open_snapshot(id, target, snapshot).await,
            None => self.open_head(id, target).await,
        }
    }

    async fn open_head(&self, id: VolumeId, target: &Target) -> Result<Arc<Device>> {
        if let Some(volume) = self.open_here(id) {
            volume.look_at_attach().await;
        }
        match self.writable_of(id, &target.volume).await {
            Ok(volume) => Ok(Arc::new(Device::head(volume, target.to_string()).await?)),
            Err(e) if e.kind() == ErrorKind::Fenced && self.open_here(id).is_none() => {
                tracing::info!(volume = %target, reason = %e, "served read-only");
                self.open_read_only(id, target).await
            }
            Err(e) => Err(e),
        }
    }

    async fn open_read_only(&self, id: VolumeId, target: &Target) -> Result<Arc<Device>> {
        let desc = self.ctx.catalog.desc(id).await?;
        for _ in 0..PIN_TRIES_MAX {
            let peek = claim::peek(&self.ctx.bucket, &desc).await?;
            let mut bases = vec![(id, peek.view.base())];
            if peek.unsettled_base {
                bases.push((desc.base_volume(), desc.base.clone()));
            }
            let pinned = self.pin(bases, target).await?;
            // The copy in the pin must still have been the newest when the pin was there.
            if claim::pin_holds(&self.ctx.bucket, id, &peek).await? {
                let reading = Arc::new(Reading::new(self.ctx.clone(), peek.view, pinned));
                return Ok(self.attach_reading(reading, target));
            }
        }
        let why = "changes too quickly to be read here now; try again";
        Err(Error::unavailable(target.to_string(), why))
    }

    /// Pins a state before it is read. Without write access to the bucket, the reader reads
    /// unpinned.
    async fn pin(&self, bases: Vec<(VolumeId, Base)>, target: &Target) -> Result<Option<Pinned>> {
        match Pinned::hold(&self.ctx, bases).await {
            Ok(pinned) => Ok(Some(pinned)),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%target, %error, "read without a pin: a collection may end it");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn attach_reading(&self, reading: Arc<Reading>, target: &Target) -> Arc<Device> {
        Arc::new(Device::reading(self.ctx.clone(), reading, target.to_string()))
    }

    async fn open_snapshot(
        &self,
        id: VolumeId,
        target: &Target,
        snapshot: &Name,
    ) -> Result<Arc<Device>> {
        for _ in 0..REPLACED_MAX {
            let found = self.published(id, &target.volume, snapshot).await?;
            let info = found
                .snapshot
                .as_ref()
                .ok_or_else(|| Error::no_snapshot(&target.volume, snapshot))?;
            let number = (info.id, info.number);
            let _turn = self.shared.turn(number).await;
            let shared = self.shared.find(number);
            if let Some(reading) = shared.as_ref().filter(|reading| reading.is_pinned()) {
                return Ok(self.attach_reading(reading.clone(), target));
            }
            let pinned = self.pin(vec![(id, found.base.clone())], target).await?;
            if let (None, Some(reading)) = (&pinned, shared) {
                return Ok(self.attach_reading(reading, target));
            }
            // From here on the pin holds the state, if that still counts.
            if !self.ctx.catalog.is_newest(id, info).await? {
                continue;
            }
            let view = view::open(&self.ctx.bucket, id, &found.base).await?;
            let reading = Arc::new(Reading::new(self.ctx.clone(), view, pinned));
            self.shared.add(number, &reading);
            return Ok(self.attach_reading(reading, target));
        }
        Err(Error::unavailable(target.to_string(), "changes all the time; attach it again"))
    }
}
