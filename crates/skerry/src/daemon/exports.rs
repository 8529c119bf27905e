//! Volumes and snapshots as exports: the bridge from block protocols to the engine.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::name::Target;
use skerry_core::size::SECTOR_BYTES;
use skerry_device::{Attempt, Content, Device, ErrorKind as IoErrorKind, Geometry, StatusRange};
use skerry_serve::{ClientInfo, Export, ExportInfo, Exports, OpenError};
use skerry_volume::{Error, ErrorKind};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::{Engine, EngineDevice};

/// All volumes and snapshots of an engine, by name: `VOLUME` and `VOLUME@SNAPSHOT`.
#[derive(Clone)]
pub(crate) struct EngineExports {
    engine: Arc<dyn Engine>,
    /// The engine's runtime: work that opening a volume starts must not run on a session's thread.
    runtime: Handle,
    /// Held by a client that gets the list of exports: a listing asks the bucket about every
    /// volume.
    listing: Arc<tokio::sync::Mutex<()>>,
}

impl EngineExports {
    /// Makes the exports of this engine, which runs on the caller's runtime.
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
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
impl Exports for EngineExports {
    async fn list(&self) -> Result<Vec<String>, OpenError> {
        let unavailable = |error: Error| OpenError::Unavailable(error.message().to_owned());
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

impl EngineExports {
    async fn attach(&self, target: &Target) -> Result<Export, Error> {
        let device = self.engine.open_device(target).await?;
        Ok(Export::new(device.name(), Arc::new(Served(device))))
    }

    async fn look_at(&self, target: &Target) -> Result<ExportInfo, Error> {
        let found = self.engine.show_volume(&target.volume).await?;
        if let Some(snapshot) = &target.snapshot {
            let all = self.engine.list_snapshots(&target.volume).await?;
            let view = all.into_iter().find(|view| view.name == snapshot.as_str());
            let view = view.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is none"))?;
            let geometry = geometry(view.size_bytes, found.block_size_bytes, true);
            return Ok(ExportInfo::new(target.to_string(), geometry));
        }
        if found.deleted {
            return Err(Error::new(ErrorKind::NotFound, "only its snapshots remain"));
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

struct Served(Arc<dyn EngineDevice>);

#[async_trait]
impl Device for Served {
    fn geometry(&self) -> Geometry {
        let device = &*self.0;
        geometry(device.size_bytes(), device.block_size_bytes(), device.is_read_only())
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        attempt(self.0.try_read(offset, buf), Content::Data)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        attempt(self.0.try_write(offset, data), ())
    }

    fn try_flush(&self) -> Attempt<()> {
        attempt(self.0.try_flush(), ())
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> skerry_device::Result<Content> {
        self.0.read_into(offset, buf).await.map_err(io_error)?;
        Ok(Content::Data)
    }

    async fn write(&self, offset: u64, data: Bytes) -> skerry_device::Result<()> {
        self.0.write(offset, data).await.map_err(io_error)
    }

    async fn zero(&self, offset: u64, len: u64) -> skerry_device::Result<()> {
        self.0.zero(offset, len).await.map_err(io_error)
    }

    async fn flush(&self) -> skerry_device::Result<()> {
        self.0.flush().await.map_err(io_error)
    }

    async fn status(
        &self,
        offset: u64,
        len: u64,
        ranges_max: usize,
    ) -> skerry_device::Result<Vec<StatusRange>> {
        let found = self.0.status(offset, len, ranges_max).await.map_err(io_error)?;
        let ranges = found.into_iter().map(|range| StatusRange {
            offset: range.offset,
            length: range.length,
            hole: range.hole,
        });
        Ok(ranges.collect())
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.0.prefetch(offset, len).await;
    }
}

fn attempt<T>(outcome: Option<Result<(), Error>>, done: T) -> Attempt<T> {
    match outcome {
        None => Attempt::WouldBlock,
        Some(Ok(())) => Attempt::Done(done),
        Some(Err(error)) => Attempt::Failed(io_error(error)),
    }
}

/// The meaning of an engine's error for a client: of a request, and of an attempt to attach.
fn meaning(kind: ErrorKind) -> (IoErrorKind, fn(String) -> OpenError) {
    match kind {
        ErrorKind::Invalid => (IoErrorKind::Invalid, OpenError::Denied),
        // No `Reattach` after a rollback or a release. A client that connects again by itself
        // would go on, with all its memory, on another state.
        ErrorKind::Detached | ErrorKind::Unavailable => {
            (IoErrorKind::Failed, OpenError::Unavailable)
        }
        ErrorKind::NotFound => (IoErrorKind::Failed, |name| OpenError::NotFound { name }),
        ErrorKind::Exists
        | ErrorKind::Busy
        | ErrorKind::Fenced
        | ErrorKind::Corrupt
        | ErrorKind::Internal => (IoErrorKind::Failed, OpenError::Denied),
    }
}

/// Only an error after which another connection finds the same state leaves a request unanswered.
fn io_error(error: Error) -> skerry_device::Error {
    let kind = match error.ends_attachment() {
        true => IoErrorKind::Reattach,
        false => meaning(error.kind()).0,
    };
    skerry_device::Error::new(kind, error.message().to_owned())
}

fn open_error(name: &str, error: Error) -> OpenError {
    let text = match error.kind() {
        ErrorKind::NotFound => name,
        _ => error.message(),
    };
    meaning(error.kind()).1(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_meaning_for_a_client() {
        for (kind, io, open) in [
            (ErrorKind::Detached, IoErrorKind::Failed, "Unavailable"),
            (ErrorKind::Unavailable, IoErrorKind::Failed, "Unavailable"),
            (ErrorKind::Fenced, IoErrorKind::Failed, "Denied"),
            (ErrorKind::Busy, IoErrorKind::Failed, "Denied"),
            (ErrorKind::NotFound, IoErrorKind::Failed, "NotFound"),
            (ErrorKind::Invalid, IoErrorKind::Invalid, "Denied"),
        ] {
            assert_eq!(io_error(Error::new(kind, "x")).kind, io, "{kind:?}");
            let opened = format!("{:?}", open_error("disk", Error::new(kind, "x")));
            assert!(opened.starts_with(open), "{kind:?}: {opened}");
        }
    }
}
