//! What is done with volumes: create, list, resize, release. Deletion is in `deletion`, renaming in `naming`.

use crate::error::{Error, ErrorKind, Result};
use crate::info::{CreateVolume, Released, VolumeInfo};
use crate::streams::node::Node;
use crate::streams::stream::{Behalf, Volume, WHOLE};
use skerry_core::descriptor::{FlushLevel, VolumeDesc, VolumeKind, VolumeState};
use skerry_core::hold::Span;
use skerry_core::holder::Holder;
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::name::Name;
use skerry_core::position::Position;
use skerry_core::record::Action;
use skerry_core::refs::Ref;
use skerry_core::root::{Base, Root};
use skerry_core::size::{BlockSize, check_volume};
use skerry_store::claim::{self, ClaimOptions};
use skerry_store::family;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn invalid(e: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, e.to_string())
}

impl Node {
    /// Creates a volume.
    pub async fn create_volume(&self, new: CreateVolume) -> Result<VolumeInfo> {
        let size_bytes = check_volume(new.size_bytes).map_err(invalid)?;
        let block = BlockSize::from_bytes(new.block_size_bytes).map_err(invalid)?;
        let entropy = self.ctx.bucket.entropy();
        let genesis = StreamId::random(entropy.as_ref());
        let root = Root::empty(size_bytes, block, new.name.as_str());
        let desc = VolumeDesc {
            id: VolumeId::random(entropy.as_ref()),
            kind: VolumeKind::Disk,
            home: self.ctx.bucket.id(),
            block,
            flush: new.flush.unwrap_or_else(|| self.default_flush()),
            created_ms: self.ctx.clock().wall_ms(),
            name: new.name.to_string(),
            size_bytes,
            genesis,
            base: Base::exact(root, Position::start(0, genesis, 0)),
            parent: None,
        };
        self.introduce(desc, &new.name, None).await
    }

    /// Makes a descriptor a volume: propose, see that what it hangs on is still there, take the name, settle.
    /// Of a clone `parent` is the ref that it copies: its holder comes before anything else.
    pub(crate) async fn introduce(
        &self,
        desc: VolumeDesc,
        name: &Name,
        parent: Option<&Ref>,
    ) -> Result<VolumeInfo> {
        let catalog = &self.ctx.catalog;
        self.free_left_over(name).await?;
        if catalog.resolve(name).await?.is_some() {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("volume {name} exists already; choose another name"),
            ));
        }
        let id = desc.id;
        if let Some(((of, snapshot), parent)) = desc.parent.zip(parent) {
            let span = Span::of_snapshot(parent);
            catalog.hold(of, &Holder::Clone { clone: id, snapshot, span }).await?;
        }
        catalog.propose(&desc).await?;
        let named = async {
            // From here on the descriptor holds what it was made of, if that still counts.
            if let Some(parent) = parent
                && let Some(info) = &parent.snapshot
                && !catalog.is_newest(parent.volume, info).await?
            {
                let detail = format!(
                    "the snapshot that {name} was to be cloned from was deleted or replaced meanwhile"
                );
                return Err(Error::new(ErrorKind::NotFound, detail));
            }
            catalog.claim(name, id).await.map_err(|e| match e.kind() {
                skerry_store::ErrorKind::Exists => Error::new(
                    ErrorKind::Exists,
                    format!("volume {name} exists already; choose another name"),
                ),
                _ => Error::from(e),
            })
        };
        let state = if let Err(e) = named.await {
            if catalog.settle(id, VolumeState::Withdrawn).await? == VolumeState::Withdrawn
                && let Some((parent, _)) = desc.parent
            {
                family::delete_holders(&self.ctx.bucket, parent, id).await?;
            }
            return Err(e);
        } else {
            catalog.settle(id, VolumeState::Ready).await?
        };
        if state != VolumeState::Ready {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("somebody else was creating {name}; try again"),
            ));
        }
        self.show_volume(name).await
    }

    /// All volumes, by name. One that is damaged is shown with what is wrong with it, and hides no other.
    ///
    /// # Errors
    /// If the bucket does not answer.
    pub async fn list_volumes(&self) -> Result<Vec<VolumeInfo>> {
        let mut out = Vec::new();
        let mut settled = false;
        for (name, found) in self.ctx.catalog.all().await? {
            let id = found.as_ref().map_or(VolumeId::NONE, |id| *id);
            match self.listed(&name, found).await {
                Ok(Listed::Volume(info)) => out.push(*info),
                Ok(Listed::Nothing) => {}
                Ok(Listed::LeftOver) => settled = true,
                Err(e) if e.kind() == ErrorKind::Unavailable => return Err(e),
                Err(e) => out.push(self.info_of_damaged(&name, id, &e).await),
            }
        }
        // The true name of what was left over may be younger than the listing.
        if settled { Box::pin(self.list_volumes()).await } else { Ok(out) }
    }

    /// What a name leads to.
    async fn listed(&self, name: &str, found: skerry_store::Result<VolumeId>) -> Result<Listed> {
        let id = found?;
        if self.ctx.catalog.state(id).await? != Some(VolumeState::Ready) {
            return Ok(Listed::Nothing);
        }
        if self.is_left_over(&name.parse().map_err(invalid)?, id).await? {
            return Ok(Listed::LeftOver);
        }
        Ok(Listed::Volume(Box::new(self.info(name, id).await?)))
    }

    /// One volume.
    pub async fn show_volume(&self, name: &Name) -> Result<VolumeInfo> {
        let id = self.resolve(name).await?;
        self.info(name.as_str(), id).await
    }

    async fn info(&self, name: &str, id: VolumeId) -> Result<VolumeInfo> {
        if let Some(volume) = self.open_here(id) {
            return Ok(self.info_here(name, &volume));
        }
        let entry = self.ctx.catalog.entry(id).await?;
        let desc = entry.desc;
        let mut info = described(name, &desc, entry.gone);
        if !self.ctx.has_log {
            // Whatever was asked for: here, only the bucket keeps what was flushed.
            info.flush = FlushLevel::Bucket;
        }
        let labels = self.ctx.catalog.labels(id).await?;
        info.snapshots = labels.len() as u64;
        if entry.gone {
            let newest = labels.iter().max_by_key(|(_, label)| label.created_ms);
            info.size_bytes = newest.map_or(0, |(_, label)| label.size_bytes);
        } else {
            let peek = claim::peek(&self.ctx.bucket, &desc).await?;
            info.size_bytes = peek.view.size_bytes;
            info.owned_here = peek.owner.as_ref().is_some_and(|owner| owner.node == self.ctx.node);
            info.owner = peek.owner.map(|owner| owner.host);
        }
        Ok(info)
    }

    /// What can be said of a volume that can't be read: what its descriptor tells, if that can be.
    async fn info_of_damaged(&self, name: &str, id: VolumeId, why: &Error) -> VolumeInfo {
        let mut info = match self.ctx.catalog.entry(id).await {
            Ok(entry) => described(name, &entry.desc, entry.gone),
            Err(_) => unknown(name, id),
        };
        info.failure = Some(why.message().to_owned());
        info
    }

    pub(crate) fn info_here(&self, name: &str, volume: &Volume) -> VolumeInfo {
        let now = self.ctx.clock().boot();
        let state = volume.state.lock();
        let age =
            state.dirty_since().map_or(0, |since| now.saturating_sub(since).as_millis() as u64);
        VolumeInfo {
            name: name.to_owned(),
            id: volume.desc.id,
            size_bytes: state.size_bytes,
            block_size_bytes: volume.desc.block.bytes() as u64,
            flush: volume.flush_level(),
            created_ms: volume.desc.created_ms,
            clients: volume.clients.load(Ordering::Relaxed),
            undestaged_bytes: state.undestaged_bytes,
            undestaged_age_ms: age,
            snapshots: volume.snapshots.lock().len() as u64,
            owner: Some(self.ctx.host.clone()),
            owned_here: true,
            deleted: false,
            failure: state.failure.as_ref().map(|e| e.message().to_owned()),
        }
    }

    /// Changes a volume's size. Shrinking needs leave, and what is cut off is gone for good.
    pub async fn resize_volume(
        &self,
        name: &Name,
        size_bytes: u64,
        shrink: bool,
    ) -> Result<VolumeInfo> {
        check_volume(size_bytes).map_err(invalid)?;
        let volume = self.writable(name).await?;
        let _admin = volume.admin.lock().await;
        let now = volume.size_bytes();
        if size_bytes < now && !shrink {
            let detail = format!(
                "volume {name} has {now} bytes: making it smaller destroys what lies beyond; say --shrink if that is meant"
            );
            return Err(Error::new(ErrorKind::Invalid, detail));
        }
        volume.resize(size_bytes).await?;
        volume.flush().await?;
        Ok(self.info_here(name.as_str(), &volume))
    }

    /// Gives a volume up, so that another node may write it; by force, takes it from the node that has it.
    pub async fn release_volume(&self, name: &Name, force: bool) -> Result<Released> {
        let id = self.resolve(name).await?;
        self.refuse_deleted(id, name).await?;
        if let Some(open) = self.open_here(id) {
            // It may have been taken from here long ago, and nobody has noticed yet.
            open.look_at_attach().await;
        }
        let desc = self.ctx.catalog.desc(id).await?;
        let Some(volume) = self.open_here(id) else {
            return self.release_elsewhere(&desc, name, force).await;
        };
        let _admin = volume.admin.lock().await;
        // Who writes or attaches from now on waits, and is told in the end that the volume was released.
        let _paused = volume.pause();
        volume.refuse_clients(force, true)?;
        volume.drain().await?;
        volume.checkpoint().await?;
        // Out of service before the seal is there: its own seal must not look like a take-over. Nobody opens it meanwhile.
        let _turn = self.opening.take(id).await;
        let text = format!("volume {name} was released here; attach again to claim it");
        volume.retire(Error::new(ErrorKind::Detached, text));
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
        let peek = claim::peek(&self.ctx.bucket, desc).await?;
        let Some(owner) = peek.owner else {
            return Ok(Released { held_by: None, may_lose: false });
        };
        if owner.node != self.ctx.node && !force {
            let detail = format!(
                "volume {name} is held by host {}; release it there, or say --force: what that host has not \
                 destaged is lost then",
                owner.host
            );
            return Err(Error::new(ErrorKind::Fenced, detail));
        }
        let has_rest = self.tails.lock().by_volume.contains_key(&desc.id)
            || !self.ctx.stuck_tails(Some(desc.id))?.is_empty();
        if has_rest && !force {
            let detail = format!(
                "volume {name} has records here that are not in the bucket: attach it, so that they get there, and \
                 release it then; or say --force: they are never merged then"
            );
            return Err(Error::new(ErrorKind::Busy, detail));
        }
        self.seal_for_nobody(desc, true).await?;
        // What was not destaged from here is in this log, if it is the one that was used.
        let is_other_log = self.ctx.has_log && owner.log != self.ctx.log_id();
        let is_elsewhere = owner.node != self.ctx.node || is_other_log;
        let is_local = desc.flush == FlushLevel::Local;
        let may_lose = has_rest || (is_elsewhere && is_local);
        Ok(Released { held_by: Some(owner.host), may_lose })
    }

    async fn seal_for_nobody(&self, desc: &VolumeDesc, force: bool) -> Result<()> {
        let options = ClaimOptions { owner: None, force, held_only: false };
        claim::claim(&self.ctx.bucket, desc, &options).await?;
        Ok(())
    }
}

/// What a name of a listing leads to.
enum Listed {
    Volume(Box<VolumeInfo>),
    /// A volume that is not made yet, or never was.
    Nothing,
    /// What a crash left behind; the name is free now.
    LeftOver,
}

/// What a descriptor alone tells of a volume.
fn described(name: &str, desc: &VolumeDesc, deleted: bool) -> VolumeInfo {
    VolumeInfo {
        size_bytes: desc.size_bytes,
        block_size_bytes: desc.block.bytes() as u64,
        flush: desc.flush,
        created_ms: desc.created_ms,
        deleted,
        ..unknown(name, desc.id)
    }
}

/// A volume of which nothing but its name and its id can be read.
fn unknown(name: &str, id: VolumeId) -> VolumeInfo {
    VolumeInfo {
        name: name.to_owned(),
        id,
        size_bytes: 0,
        block_size_bytes: 0,
        flush: FlushLevel::default(),
        created_ms: 0,
        clients: 0,
        undestaged_bytes: 0,
        undestaged_age_ms: 0,
        snapshots: 0,
        owner: None,
        owned_here: false,
        deleted: false,
        failure: None,
    }
}

/// From the moment on when a volume may have been given up, whatever comes of the attempt or of who asked
/// for it: it is out of service here. Attaching again finds out whose it is.
pub(crate) struct GivenUp<'a>(pub(crate) &'a Volume);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        let name = self.0.name();
        let text = format!("volume {name} was being given up; attach again to see whose it is");
        self.0.retire(Error::new(ErrorKind::Detached, text));
    }
}

impl Volume {
    /// Changes the size: a shrink first zeroes what is cut off, so that growing never brings it back.
    async fn resize(&self, size_bytes: u64) -> Result<()> {
        let (now, generation) = {
            let state = self.state.lock();
            (state.size_bytes, state.generation)
        };
        // Nothing may be written between the two.
        let _paused = self.pause();
        if size_bytes < now {
            let action = Action::Zero { offset: size_bytes, len: now - size_bytes };
            self.append_waiting(
                &WHOLE,
                generation,
                Behalf::WhoPaused,
                action,
                |state, at, time| {
                    state.content(size_bytes..now, at, true, time);
                },
            )
            .await?;
        }
        let action = Action::Resize(size_bytes);
        self.append_waiting(
            &WHOLE,
            generation,
            Behalf::WhoPaused,
            action.clone(),
            |state, at, now| {
                self.take(state, &action, at, now);
            },
        )
        .await
    }
}
