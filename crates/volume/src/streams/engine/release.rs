//! Releasing a volume, so that another node may write it.

use crate::error::{Error, Result};
use crate::info::Released;
use crate::streams::engine::Engine;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use skerry_core::descriptor::{FlushLevel, VolumeDesc};
use skerry_core::name::Name;
use skerry_store::refs::claim::{self, ClaimOptions};
use std::sync::Arc;

impl<P: Payload> Engine<P> {
    /// Releases a volume, so that another node may write it. By force, takes it from its owner.
    pub async fn release_volume(&self, name: &Name, force: bool) -> Result<Released> {
        let id = self.resolve(name).await?;
        self.refuse_deleted(id, name).await?;
        if let Some(open) = self.open_here(id) {
            // It may have been taken over long ago, unnoticed here.
            open.look_at_attach().await;
        }
        let desc = self.ctx.catalog.desc(id).await?;
        let Some(volume) = self.open_here(id) else {
            return self.release_elsewhere(&desc, name, force).await;
        };
        let _admin = volume.admin.lock().await;
        // Clients that write or attach from now on wait, and learn in the end that the volume was
        // released.
        let _paused = volume.pause();
        volume.refuse_clients(force, true)?;
        volume.drain().await?;
        volume.checkpoint().await?;
        // Out of service before the seal is there: its own seal must not look like a take-over. No
        // caller opens it meanwhile.
        let _turn = self.opening.take(id).await;
        let why = "was released here; attach again to claim it";
        volume.retire(Error::detached(name, why));
        self.seal_for_nobody(&desc, true).await?;
        self.open_now.lock().remove(&id);
        Ok(Released { held_by: Some(self.ctx.host.clone()), may_lose: false })
    }

    async fn release_elsewhere(
        &self,
        desc: &Arc<VolumeDesc>,
        name: &Name,
        force: bool,
    ) -> Result<Released> {
        let peek = claim::peek::<P::Changes>(&self.ctx.bucket, desc).await?;
        let Some(owner) = peek.owner else {
            return Ok(Released { held_by: None, may_lose: false });
        };
        if owner.node != self.ctx.node && !force {
            let why = format!(
                "is held by host {}; release it there, or say --force: what that host has not \
                 destaged is lost then",
                owner.host
            );
            return Err(Error::fenced(name, why));
        }
        let has_rest = self.tails.lock().by_volume.contains_key(&desc.id)
            || !self.ctx.waiting_tails(Some(desc.id))?.is_empty();
        if has_rest && !force {
            let why = "has records here that are not in the bucket: attach it, so that they get \
                       there, and release it then; or say --force: they are never merged then";
            return Err(Error::busy(name, why));
        }
        self.seal_for_nobody(desc, true).await?;
        // Undestaged records of this node are in its log, if it is still the same log.
        let is_other_log = self.ctx.has_log && owner.log != self.ctx.log_id();
        let is_elsewhere = owner.node != self.ctx.node || is_other_log;
        let is_local = desc.flush == FlushLevel::Local;
        let may_lose = has_rest || (is_elsewhere && is_local);
        Ok(Released { held_by: Some(owner.host), may_lose })
    }

    async fn seal_for_nobody(&self, desc: &VolumeDesc, force: bool) -> Result<()> {
        let options = ClaimOptions { owner: None, force, held_only: false };
        claim::claim::<P::Changes>(&self.ctx.bucket, desc, &options).await?;
        Ok(())
    }
}

/// Takes a volume out of service here once it may have been released, whatever becomes of the
/// attempt or of its caller. Attaching again finds out the owner.
pub(crate) struct GivenUp<'a, P: Payload>(pub(crate) &'a Stream<P>);

impl<P: Payload> Drop for GivenUp<'_, P> {
    fn drop(&mut self) {
        let why = "was being released; attach again to find its owner";
        self.0.retire(Error::detached(self.0.name(), why));
    }
}
