//! Operations on disks: create, clone, list, resize.

use crate::disk::Engine;
use crate::disk::Volume;
use crate::error::{Error, ErrorKind, Result};
use crate::info::{CreateVolume, Space, Unreadable, VolumeInfo};
use crate::streams::snapshots::cut::REPLACED_MAX;
use crate::streams::stream::Behalf;
use skerry_core::descriptor::{FlushLevel, VolumeDesc, VolumeKind, VolumeState};
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::name::{Name, NameError};
use skerry_core::overlay::Overlay;
use skerry_core::position::Position;
use skerry_core::record::Action;
use skerry_core::refs::Ref;
use skerry_core::root::{Base, Root};
use skerry_core::size::{BlockSize, check_volume};
use skerry_store::refs::claim;
use std::sync::atomic::Ordering;

fn invalid(name: &Name, error: impl std::fmt::Display) -> Error {
    Error::invalid(format!("volume {name}:"), error.to_string())
}

impl Engine {
    /// Creates a volume.
    pub async fn create_volume(&self, new: CreateVolume) -> Result<VolumeInfo> {
        let size_bytes = check_volume(new.size_bytes).map_err(|e| invalid(&new.name, e))?;
        let block =
            BlockSize::from_bytes(new.block_size_bytes).map_err(|e| invalid(&new.name, e))?;
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
        self.introduce(desc, &new.name, None).await?;
        self.show_volume(&new.name).await
    }

    /// Renames a volume.
    pub async fn rename_volume(&self, name: &Name, new: &Name) -> Result<VolumeInfo> {
        let volume = self.rename(name, new).await?;
        Ok(self.info_here(new.as_str(), &volume))
    }

    /// Creates a clone of a snapshot. It shares everything.
    pub async fn clone_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        new: &Name,
        size_bytes: Option<u64>,
    ) -> Result<VolumeInfo> {
        let parent = self.resolve(volume).await?;
        let mut found = self.published(parent, volume, snapshot).await?;
        for _ in 0..REPLACED_MAX {
            match self.clone_ref(&found, volume, snapshot, new, size_bytes).await {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    // The owner may have put a higher number of this snapshot meanwhile.
                    let now = self.published(parent, volume, snapshot).await?;
                    if now == found {
                        return Err(e);
                    }
                    found = now;
                }
                done => return done,
            }
        }
        let object = format!("{volume}@{snapshot}");
        Err(Error::unavailable(object, "changes all the time; try again"))
    }

    async fn clone_ref(
        &self,
        found: &Ref,
        volume: &Name,
        snapshot: &Name,
        new: &Name,
        size_bytes: Option<u64>,
    ) -> Result<VolumeInfo> {
        let parent = found.volume;
        let info = found.snapshot.as_ref().ok_or_else(|| Error::no_snapshot(volume, snapshot))?;
        let size_bytes = size_bytes.unwrap_or(info.size_bytes);
        check_volume(size_bytes).map_err(|e| invalid(new, e))?;
        if size_bytes < info.size_bytes {
            let why = format!(
                "can't be smaller than its parent: {volume}@{snapshot} has {} bytes; clone it, \
                 then shrink",
                info.size_bytes
            );
            return Err(Error::invalid("a clone", why));
        }
        let entropy = self.ctx.bucket.entropy();
        let desc = VolumeDesc {
            id: VolumeId::random(entropy.as_ref()),
            kind: VolumeKind::Disk,
            home: self.ctx.bucket.id(),
            block: found.base.root.block,
            flush: self.ctx.catalog.desc(parent).await?.flush,
            created_ms: self.ctx.clock().wall_ms(),
            name: new.to_string(),
            size_bytes,
            genesis: StreamId::random(entropy.as_ref()),
            base: found.base.clone(),
            parent: Some((parent, info.id)),
        };
        self.introduce(desc, new, Some(found)).await?;
        self.show_volume(new).await
    }

    /// Lists all volumes, by name. A damaged one is shown with its fault, and hides no other.
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
        // The true name of a left-over may be younger than the listing.
        if settled { Box::pin(self.list_volumes()).await } else { Ok(out) }
    }

    /// Finds the target of a name.
    async fn listed(&self, name: &str, found: skerry_store::Result<VolumeId>) -> Result<Listed> {
        let id = found?;
        if self.ctx.catalog.state(id).await? != Some(VolumeState::Ready) {
            return Ok(Listed::Nothing);
        }
        if self
            .is_left_over(
                &name.parse().map_err(|e: NameError| Error::invalid(name, e.to_string()))?,
                id,
            )
            .await?
        {
            return Ok(Listed::LeftOver);
        }
        Ok(Listed::Volume(Box::new(self.info(name, id).await?)))
    }

    /// Shows one volume. Does not ask the bucket about a volume that is open here.
    pub async fn show_volume(&self, name: &Name) -> Result<VolumeInfo> {
        if let Some(volume) = self.open_by_name(name) {
            return Ok(self.info_here(name.as_str(), &volume));
        }
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
            // Whatever level the volume has: here, only the bucket keeps flushed data.
            info.flush = FlushLevel::Bucket;
        }
        let labels = self.ctx.catalog.labels(id).await?;
        info.snapshots = labels.len() as u64;
        if entry.gone {
            let newest = labels.iter().max_by_key(|(_, label)| label.created_ms);
            info.size_bytes = newest.map_or(0, |(_, label)| label.size_bytes);
        } else {
            let peek = claim::peek::<Overlay>(&self.ctx.bucket, &desc).await?;
            info.size_bytes = peek.view.size_bytes;
            info.space = Some(Space::of(&peek.view.root));
            info.owned_here = peek.owner.as_ref().is_some_and(|owner| owner.node == self.ctx.node);
            info.owner = peek.owner.map(|owner| owner.host);
        }
        Ok(info)
    }

    /// Describes a volume that can't be read: by its descriptor, if that can be read.
    async fn info_of_damaged(&self, name: &str, id: VolumeId, why: &Error) -> VolumeInfo {
        let mut info = match self.ctx.catalog.entry(id).await {
            Ok(entry) => VolumeInfo {
                unreadable: Unreadable::State,
                ..described(name, &entry.desc, entry.gone)
            },
            Err(_) => unknown(name, id),
        };
        info.failure = Some(why.to_string());
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
            failure: state.failure.as_ref().map(ToString::to_string),
            unreadable: Unreadable::Nothing,
            space: Some(Space::of(&state.root)),
        }
    }

    /// Changes a volume's size. Shrinking needs `shrink`, and its data is gone for good.
    pub async fn resize_volume(
        &self,
        name: &Name,
        size_bytes: u64,
        shrink: bool,
    ) -> Result<VolumeInfo> {
        check_volume(size_bytes).map_err(|e| invalid(name, e))?;
        let volume = self.writable(name).await?;
        let admin = volume.admin.clone().lock_owned().await;
        let now = volume.size_bytes();
        if size_bytes < now && !shrink {
            let why = format!(
                "has {now} bytes: making it smaller destroys what lies beyond; say --shrink if \
                 that is meant"
            );
            return Err(Error::invalid(format!("volume {name}"), why));
        }
        let resizing = volume.clone();
        // To its end, even if the caller goes away: half of it would be a tail of zeros.
        let done = tokio::spawn(async move {
            let _admin = admin;
            resizing.resize(size_bytes).await?;
            resizing.flush().await
        });
        done.await.map_err(|error| Error::lost_task("a resize", error))??;
        Ok(self.info_here(name.as_str(), &volume))
    }
}

/// Target of a name in a listing.
enum Listed {
    Volume(Box<VolumeInfo>),
    /// A volume that is not made yet, or never was.
    Nothing,
    /// A left-over of a crash; the name is free now.
    LeftOver,
}

/// Describes a volume by its descriptor alone.
fn described(name: &str, desc: &VolumeDesc, deleted: bool) -> VolumeInfo {
    VolumeInfo {
        size_bytes: desc.size_bytes,
        block_size_bytes: desc.block.bytes() as u64,
        flush: desc.flush,
        created_ms: desc.created_ms,
        deleted,
        unreadable: Unreadable::Nothing,
        ..unknown(name, desc.id)
    }
}

/// Describes a volume of which only name and id can be read.
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
        unreadable: Unreadable::Descriptor,
        space: None,
    }
}

impl Volume {
    /// Changes the size. A shrink first zeroes the end, so that growing never brings it back.
    async fn resize(&self, size_bytes: u64) -> Result<()> {
        let (now, generation) = {
            let state = self.state.lock();
            (state.size_bytes, state.generation)
        };
        // No write may come between the two records.
        let _paused = self.pause();
        if size_bytes < now {
            let cut = size_bytes..now;
            self.zero_in_pieces(cut.clone(), generation, Behalf::WhoPaused, &cut).await?;
        }
        self.note(generation, Behalf::WhoPaused, &Action::Resize(size_bytes)).await
    }
}
