//! Names that a crash left behind, and renaming.
//!
//! A volume's stream holds its true name; the catalogue leads from names to volumes. A rename is
//! durable in the stream first. Then the new name is claimed, and then the old one freed. A node
//! that meets a name other than the true one finishes the rename.

use crate::error::{Error, ErrorKind, Result};
use crate::streams::engine::Engine;
use crate::streams::stream::payload::Payload;
use crate::streams::stream::{Behalf, Stream};
use skerry_core::descriptor::VolumeState;
use skerry_core::id::VolumeId;
use skerry_core::name::Name;
use skerry_core::record::Action;
use skerry_store::refs::claim;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl<P: Payload> Stream<P> {
    /// Notes a new true name, and waits until it is in the bucket: the catalogue must not be ahead
    /// of it.
    async fn call(&self, name: &Name) -> Result<()> {
        let generation = self.state.lock().generation;
        let action = Action::Rename(name.to_string());
        self.note(generation, Behalf::Operator, &action).await?;
        self.drain().await
    }
}

impl<P: Payload> Engine<P> {
    /// The present name of a volume; none if the id is unknown, or the volume is deleted. During a
    /// rename, it is the new name.
    pub async fn name_of(&self, id: VolumeId) -> Result<Option<Name>> {
        if let Some(open) = self.open_here(id) {
            return parsed(&open.name()).map(Some);
        }
        let catalog = &self.ctx.catalog;
        if catalog.state(id).await? != Some(VolumeState::Ready) {
            return Ok(None);
        }
        let entry = catalog.entry(id).await?;
        if entry.gone {
            return Ok(None);
        }
        let peek = claim::peek::<P::Changes>(&self.ctx.bucket, &entry.desc).await?;
        parsed(&peek.view.name).map(Some)
    }

    /// Renames a volume.
    pub(crate) async fn rename(&self, name: &Name, new: &Name) -> Result<Arc<Stream<P>>> {
        let volume = self.writable(name).await?;
        // This may lock the volume itself.
        if volume.name() != new.as_str() {
            self.free_left_over(new).await?;
        }
        let _admin = volume.admin.clone().lock_owned().await;
        // A half-done rename is finished by now, and may have been this one.
        let old = parsed(&volume.name())?;
        if old != *new {
            if self.ctx.catalog.resolve(new).await?.is_some() {
                return Err(Error::volume_exists(new));
            }
            volume.named.store(false, Ordering::Release);
            volume.call(new).await?;
            self.take_name(&volume, &old, new).await?;
        }
        Ok(volume)
    }

    /// Claims the true name and frees the old one. Goes back to the old one if another volume has
    /// the new.
    async fn take_name(&self, volume: &Stream<P>, old: &Name, new: &Name) -> Result<()> {
        let id = volume.desc.id;
        match self.ctx.catalog.claim(new, id).await {
            Ok(()) => self.ctx.catalog.free(old, id).await?,
            Err(e) if e.kind() == skerry_store::ErrorKind::Exists => {
                volume.call(old).await?;
                volume.named.store(true, Ordering::Release);
                return Err(Error::volume_exists(new));
            }
            Err(e) => return Err(e.into()),
        }
        volume.named.store(true, Ordering::Release);
        Ok(())
    }

    /// Finishes the rename of a volume that was opened by `name`, if that is not its true name.
    pub(crate) async fn settle_name(&self, volume: &Arc<Stream<P>>, name: &Name) -> Result<()> {
        if volume.named.load(Ordering::Acquire) && volume.name() == name.as_str() {
            return Ok(());
        }
        let _admin = volume.admin.lock().await;
        let truth = volume.name();
        if truth == name.as_str() {
            volume.named.store(true, Ordering::Release);
            return Ok(());
        }
        // An owner that was taken over without knowing it knows an old name.
        volume.look_for_seal().await?;
        let truth = parsed(&truth)?;
        // A rename that only the log has may yet be lost with it.
        volume.drain().await?;
        match self.take_name(volume, name, &truth).await {
            // Another volume has the wanted name: this one stays.
            Err(e) if e.kind() == ErrorKind::Exists => Ok(()),
            done => done,
        }
    }

    /// Frees a name without a volume, if a crash left it behind.
    pub(crate) async fn free_left_over(&self, name: &Name) -> Result<()> {
        let catalog = &self.ctx.catalog;
        let Some(holder) = catalog.resolve(name).await? else { return Ok(()) };
        // Its creator may have died half-way. If it is only slow, it will notice.
        if catalog.settle(holder, VolumeState::Withdrawn).await? == VolumeState::Withdrawn {
            return Ok(catalog.free(name, holder).await?);
        }
        self.is_left_over(name, holder).await.map(drop)
    }

    /// True if a rename or a deletion left a volume's name behind. Then the name is free.
    pub(crate) async fn is_left_over(&self, name: &Name, id: VolumeId) -> Result<bool> {
        let catalog = &self.ctx.catalog;
        if let Some(open) = self.open_here(id) {
            if open.name() == name.as_str() {
                return Ok(false);
            }
            // A volume whose rename may not be in the bucket yet keeps its old name. No caller
            // waits for it here.
            let truth = parsed(&open.name())?;
            if open.undestaged_records() > 0 && catalog.resolve(&truth).await? != Some(id) {
                return Ok(false);
            }
            match self.settle_name(&open, name).await {
                Ok(()) => return Ok(open.name() != name.as_str()),
                Err(_) if open.has_left() => {}
                Err(e) => return Err(e),
            }
        }
        let entry = catalog.entry(id).await?;
        if entry.gone {
            let left = !catalog.labels(id).await?.is_empty();
            if !left {
                catalog.free(name, id).await?;
            }
            return Ok(!left);
        }
        let truth = claim::peek::<P::Changes>(&self.ctx.bucket, &entry.desc).await?.view.name;
        if truth == name.as_str() {
            return Ok(false);
        }
        let truth = parsed(&truth)?;
        // The owner claims the true name. Until it has, the old one leads to the volume.
        let renamed = catalog.resolve(&truth).await? == Some(id);
        if renamed {
            catalog.free(name, id).await?;
        }
        Ok(renamed)
    }
}

/// Parses a name from a volume's stream.
fn parsed(name: &str) -> Result<Name> {
    name.parse().map_err(|e: skerry_core::name::NameError| {
        Error::corrupt("a name in the volume's stream:", e.to_string())
    })
}
