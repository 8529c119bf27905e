//! Volumes and snapshots as exports: the node's names for block protocols.

use std::sync::Arc;

use async_trait::async_trait;
use skerry_core::name::Target;
use skerry_core::size::SECTOR_BYTES;
use skerry_device::Geometry;
use skerry_serve::{ClientInfo, Export, ExportInfo, Exports, OpenError};
use skerry_volume::{Cause, Engine, Error, ErrorKind};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

/// All volumes and snapshots of a node, by name: `VOLUME` and `VOLUME@SNAPSHOT`.
#[derive(Clone)]
pub(crate) struct NodeExports {
    engine: Arc<Engine>,
    /// The engine's runtime: work that opening a volume starts must not run on a session's thread.
    runtime: Handle,
    /// Held by a client that gets the list of exports: a listing asks the bucket about every
    /// volume.
    listing: Arc<tokio::sync::Mutex<()>>,
}

impl NodeExports {
    /// Makes the exports of this engine, which runs on the caller's runtime.
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, runtime: Handle::current(), listing: Arc::default() }
    }

    /// Does something with the volume or snapshot of this name, on the engine's runtime.
    async fn on_runtime<T, F>(
        &self,
        name: &str,
        act: impl FnOnce(Self, Target) -> F,
    ) -> Result<T, OpenError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        // Only a text in the form of a name can be one.
        let not_found = || OpenError::NotFound { name: name.to_owned() };
        let target: Target = name.parse().map_err(|_| not_found())?;
        let acting = self.runtime.spawn(act(self.clone(), target));
        // A stopping server no longer waits for it: no volume may be claimed then.
        let done = AbortOnDropHandle::new(acting)
            .await
            .map_err(|error| OpenError::Unavailable(error.to_string()))?;
        done.map_err(|error| open_error(name, error))
    }
}

#[async_trait]
impl Exports for NodeExports {
    async fn list(&self) -> Result<Vec<String>, OpenError> {
        let unavailable = |error: Error| OpenError::Unavailable(error.to_string());
        let _turn = self.listing.lock().await;
        let mut names = Vec::new();
        for volume in self.engine.list_volumes().await.map_err(unavailable)? {
            if volume.snapshots > 0
                && let Ok(name) = volume.name.parse()
            {
                let all = self.engine.list_snapshots(&name).await.map_err(unavailable)?;
                names.extend(all.iter().map(|one| format!("{}@{}", volume.name, one.name)));
            }
            if !volume.deleted {
                names.push(volume.name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opening a volume claims it for this node, and opening a snapshot pins it. A client that only
    /// asks about it must do neither.
    async fn describe(&self, name: &str, _: &ClientInfo) -> Result<ExportInfo, OpenError> {
        self.on_runtime(name, |exports, target| async move { exports.look_at(&target).await }).await
    }

    async fn open(&self, name: &str, _: &ClientInfo) -> Result<Export, OpenError> {
        self.on_runtime(name, |exports, target| async move { exports.attach(&target).await }).await
    }
}

impl NodeExports {
    async fn attach(&self, target: &Target) -> Result<Export, Error> {
        let device = self.engine.open_device(target).await?;
        Ok(Export::new(device.name().to_owned(), device))
    }

    async fn look_at(&self, target: &Target) -> Result<ExportInfo, Error> {
        let found = self.engine.show_volume(&target.volume).await?;
        let volume = target.volume.to_string();
        if let Some(snapshot) = &target.snapshot {
            let all = self.engine.list_snapshots(&target.volume).await?;
            let view = all.into_iter().find(|view| view.name == snapshot.as_str());
            let missing = Cause::NoSnapshot { volume, snapshot: snapshot.to_string() };
            let view = view.ok_or(missing)?;
            let geometry = geometry(view.size_bytes, found.block_size_bytes, true);
            return Ok(ExportInfo::new(target.to_string(), geometry));
        }
        if found.deleted {
            return Err(Cause::NoVolume { name: volume }.into());
        }
        let read_only = found.owner.is_some() && !found.owned_here;
        let geometry = geometry(found.size_bytes, found.block_size_bytes, read_only);
        Ok(ExportInfo::new(found.name, geometry))
    }
}

fn geometry(size_bytes: u64, block_bytes: u64, read_only: bool) -> Geometry {
    let block_bytes = u32::try_from(block_bytes).unwrap_or(u32::MAX);
    Geometry { size_bytes, sector_bytes: SECTOR_BYTES as u32, block_bytes, read_only }
}

/// The meaning of an engine's error for a client that attaches.
fn open_error(name: &str, error: Error) -> OpenError {
    match error.kind() {
        ErrorKind::NotFound => OpenError::NotFound { name: name.to_owned() },
        ErrorKind::Detached | ErrorKind::Unavailable => OpenError::Unavailable(error.to_string()),
        ErrorKind::Invalid
        | ErrorKind::Exists
        | ErrorKind::Busy
        | ErrorKind::Fenced
        | ErrorKind::Corrupt
        | ErrorKind::Internal => OpenError::Denied(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_meaning_for_a_client() {
        let (object, volume, why) = ("x".to_owned(), "x".to_owned(), "y".to_owned());
        for (cause, open) in [
            (Cause::Detached { volume: volume.clone(), why: why.clone() }, "Unavailable"),
            (Cause::Unavailable { object: object.clone(), why: why.clone() }, "Unavailable"),
            (Cause::Fenced { volume: volume.clone(), why: why.clone() }, "Denied"),
            (Cause::Busy { volume: volume.clone(), why: why.clone() }, "Denied"),
            (Cause::NoVolume { name: volume }, "NotFound"),
            (Cause::Invalid { object, why }, "Denied"),
        ] {
            let opened = format!("{:?}", open_error("disk", cause.clone().into()));
            assert!(opened.starts_with(open), "{cause:?}: {opened}");
        }
    }
}
