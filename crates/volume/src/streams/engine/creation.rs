//! Creation of a volume of any kind: propose, check that its base is still there, take the name,
//! settle.

use crate::error::{Error, Result};
use crate::streams::engine::Engine;
use crate::streams::stream::payload::Payload;
use skerry_core::descriptor::{VolumeDesc, VolumeState};
use skerry_core::hold::Span;
use skerry_core::holder::Holder;
use skerry_core::name::Name;
use skerry_core::refs::Ref;
use skerry_store::space::family;

impl<P: Payload> Engine<P> {
    /// Makes a descriptor a volume: propose, check that its base is still there, take the name,
    /// settle. For a clone, `parent` is the ref that it copies: its holder comes before anything
    /// else.
    pub(crate) async fn introduce(
        &self,
        desc: VolumeDesc,
        name: &Name,
        parent: Option<&Ref>,
    ) -> Result<()> {
        let catalog = &self.ctx.catalog;
        self.free_left_over(name).await?;
        if catalog.resolve(name).await?.is_some() {
            return Err(Error::volume_exists(name));
        }
        let id = desc.id;
        if let Some(((of, snapshot), parent)) = desc.parent.zip(parent) {
            let span = Span::of_snapshot(parent);
            catalog.hold(of, &Holder::Clone { clone: id, snapshot, span }).await?;
        }
        let named = async {
            catalog.propose(&desc).await?;
            // From here on the descriptor holds its base, if that still counts.
            if let Some(parent) = parent
                && let Some(info) = &parent.snapshot
                && !catalog.is_newest(parent.volume, info).await?
            {
                let object = format!("the snapshot that {name} was to be cloned from");
                return Err(Error::gone(object, "was deleted or replaced meanwhile"));
            }
            catalog.claim(name, id).await.map_err(|e| match e.kind() {
                skerry_store::ErrorKind::Exists => Error::volume_exists(name),
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
            let why = format!("was creating {name}; try again");
            return Err(Error::unavailable("another client", why));
        }
        Ok(())
    }
}
