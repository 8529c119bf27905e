//! Deleting volumes, damaged ones included: the tombstone decides, and everything after it can be
//! repeated.
//!
//! The node opens a volume first, so that its stream has this node's seal and its log records are
//! in the bucket. A snapshot on its way must not be lost with the head. A volume that can't be
//! opened, or is out of service, is deleted all the same, unless that would lose something that
//! should stay.

use crate::error::{Error, ErrorKind, Result};
use crate::info::SnapshotState;
use crate::streams::engine::Engine;
use crate::streams::engine::release::GivenUp;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use skerry_core::descriptor::VolumeState;
use skerry_core::id::VolumeId;
use skerry_core::name::Name;
use skerry_core::names;
use skerry_store::refs::catalog;
use skerry_store::refs::claim;
use std::sync::Arc;

impl<P: Payload> Engine<P> {
    /// Deletes a volume. Its snapshots stay, and keep its name, unless `snapshots` deletes them
    /// too.
    ///
    /// # Errors
    /// Unless forced: `Busy` while clients are attached; `Fenced` if it is damaged and another host
    /// wrote it.
    pub async fn delete_volume(&self, name: &Name, snapshots: bool, force: bool) -> Result<()> {
        let id = self.resolve_even_damaged(name).await?;
        if !self.ctx.catalog.is_gone(id).await? {
            match self.open_for_writing(id, false).await {
                Ok(volume) => self.delete_open(&volume, snapshots, force).await?,
                Err(e) if is_damage(&e) => {
                    self.delete_unread(id, name, &e, snapshots, force).await?
                }
                Err(e) => return Err(e),
            }
            catalog::delete_heads(&self.ctx.bucket, id, |_| true).await?;
        }
        if snapshots {
            for (name, label) in self.ctx.catalog.labels(id).await? {
                self.ctx.catalog.delete_snapshot(id, &name, label.id).await?;
            }
        }
        self.finish_deletion(id, name).await
    }

    /// Finds the volume of this name. One with an unreadable state counts as a volume.
    async fn resolve_even_damaged(&self, name: &Name) -> Result<VolumeId> {
        let missing = || Error::no_volume(name);
        let id = self.ctx.catalog.resolve(name).await?.ok_or_else(missing)?;
        match self.ctx.catalog.state(id).await.map_err(Error::from) {
            Ok(Some(VolumeState::Ready)) => Ok(id),
            Ok(_) => Err(missing()),
            Err(e) if is_damage(&e) => Ok(id),
            Err(e) => Err(e),
        }
    }

    async fn delete_open(
        &self,
        volume: &Arc<Stream<P>>,
        snapshots: bool,
        force: bool,
    ) -> Result<()> {
        let id = volume.desc.id;
        let _admin = volume.admin.lock().await;
        // Pending snapshots must not be lost with the head, nor anything else if this fails
        // half-way.
        let _paused = volume.pause();
        volume.refuse_clients(force, false)?;
        if let Err(e) = volume.drain().await
            && (volume.state.lock().failure.is_none()
                || !(snapshots || force) && has_pending(volume))
        {
            return Err(e);
        }
        let _given_up = GivenUp(volume);
        self.ctx.catalog.bury(&names::volume_gone(id)).await?;
        self.close_deleted(id).await;
        // A snapshot that is being published now is published before its ref is looked for.
        drop(volume.refs.lock().await);
        self.ctx.log.trim(volume.group, skerry_log::LogPosition::MAX);
        Ok(())
    }

    /// Deletes a volume that can't be opened.
    async fn delete_unread(
        &self,
        id: VolumeId,
        name: &Name,
        why: &Error,
        snapshots: bool,
        force: bool,
    ) -> Result<()> {
        if !force {
            self.refuse_held_elsewhere(id, name, why).await?;
            let has_rest = self.tails.lock().by_volume.contains_key(&id)
                || !self.ctx.waiting_tails(Some(id))?.is_empty();
            if has_rest && !snapshots {
                let why = format!(
                    "can't be opened ({why}), and has records here that are not in the bucket, of \
                     snapshots perhaps: delete it with --snapshots, or with --force"
                );
                return Err(Error::busy(name, why));
            }
        }
        self.ctx.catalog.bury(&names::volume_gone(id)).await?;
        self.close_deleted(id).await;
        self.drop_tail(id);
        self.drop_parked(id)?;
        self.ctx.unnote(id);
        Ok(())
    }

    /// Refuses if another node wrote the volume last: its incarnations tell, whatever else is
    /// damaged.
    async fn refuse_held_elsewhere(&self, id: VolumeId, name: &Name, why: &Error) -> Result<()> {
        let host = match claim::last_owner(&self.ctx.bucket, id).await {
            Ok(None) => return Ok(()),
            Ok(Some(owner)) if owner.node == self.ctx.node => return Ok(()),
            Ok(Some(owner)) => format!("host {}", owner.host),
            Err(e) if e.is_unavailable() => return Err(e.into()),
            Err(e) => format!("a host that can't be read ({e})"),
        };
        let why = format!(
            "can't be opened ({why}), and was written by {host}: delete it there, or say --force"
        );
        Err(Error::fenced(name, why))
    }

    /// Frees the name of a deleted volume without snapshots, and deletes its free segments.
    pub(crate) async fn finish_deletion(&self, id: VolumeId, name: &Name) -> Result<()> {
        if self.ctx.catalog.settled_labels(id).await?.is_empty() {
            self.ctx.catalog.free(name, id).await?;
        }
        if let Err(error) = self.free_deleted(id).await {
            tracing::warn!(volume = %name, %error, "a deleted volume's segments stay until the next sweep");
        }
        Ok(())
    }
}

/// True if something of the volume is damaged or lost, so that another try won't help.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

fn has_pending<P: Payload>(volume: &Stream<P>) -> bool {
    let name = volume.name();
    let views = volume.snapshots.lock().views(&name);
    views.iter().any(|view| view.state == SnapshotState::Pending)
}
