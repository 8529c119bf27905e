//! Volumes and snapshots as exports: the bridge from block protocols to the engine.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::name::Target;
use skerry_core::size::SECTOR_BYTES;
use skerry_serve::{
    Attempt, ClientInfo, Content, Export, ExportInfo, Exports, IoError, IoErrorKind, OpenError,
    Purpose, StatusExtent, ZeroesOptions,
};
use skerry_volume::{Error, ErrorKind};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::{Engine, EngineDevice};

/// Extents of one answer. A client asks again from their end.
const EXTENTS_MAX: usize = 1024;

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

    async fn open(&self, name: &str, client: &ClientInfo) -> Result<Arc<dyn Export>, OpenError> {
        // Only a text in the form of a name can be one.
        let not_found = || OpenError::NotFound { name: name.to_owned() };
        let target: Target = name.parse().map_err(|_| not_found())?;
        let (exports, purpose) = (self.clone(), client.purpose);
        let opened = self.runtime.spawn(async move {
            match purpose {
                Purpose::Describe => exports.describe(&target).await,
                Purpose::Serve => exports.attach(&target).await,
            }
        });
        // A stopping server no longer waits for it: no volume may be claimed then.
        let opened = AbortOnDropHandle::new(opened)
            .await
            .map_err(|error| OpenError::Unavailable(error.to_string()))?;
        opened.map_err(|error| open_error(name, error))
    }
}

impl EngineExports {
    async fn attach(&self, target: &Target) -> Result<Arc<dyn Export>, Error> {
        let device = self.engine.open_device(target).await?;
        let info = info(device.name(), device.size_bytes(), device.block_size_bytes());
        let info = ExportInfo { read_only: device.is_read_only(), ..info };
        Ok(Arc::new(DeviceExport { info, device: Some(device) }))
    }

    /// Opening a volume claims it for this node, and opening a snapshot pins it. A client that only
    /// asks about it must do neither.
    async fn describe(&self, target: &Target) -> Result<Arc<dyn Export>, Error> {
        let found = self.engine.show_volume(&target.volume).await?;
        if let Some(snapshot) = &target.snapshot {
            let all = self.engine.list_snapshots(&target.volume).await?;
            let view = all.into_iter().find(|view| view.name == snapshot.as_str());
            let view = view.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is none"))?;
            let info = info(target.to_string(), view.size_bytes, found.block_size_bytes);
            let info = ExportInfo { read_only: true, ..info };
            return Ok(Arc::new(DeviceExport { info, device: None }));
        }
        if found.deleted {
            return Err(Error::new(ErrorKind::NotFound, "only its snapshots remain"));
        }
        let read_only = found.owner.is_some() && !found.owned_here;
        let info = info(found.name, found.size_bytes, found.block_size_bytes);
        let info = ExportInfo { read_only, ..info };
        Ok(Arc::new(DeviceExport { info, device: None }))
    }
}

fn info(name: String, size_bytes: u64, block_bytes: u64) -> ExportInfo {
    ExportInfo {
        name,
        description: String::new(),
        size_bytes,
        read_only: false,
        block_bytes_min: SECTOR_BYTES as u32,
        block_bytes_preferred: u32::try_from(block_bytes).unwrap_or(u32::MAX),
    }
}

struct DeviceExport {
    info: ExportInfo,
    /// None if it was opened only to be described.
    device: Option<Arc<dyn EngineDevice>>,
}

impl DeviceExport {
    fn device(&self) -> Result<&dyn EngineDevice, IoError> {
        let described = || IoError::new(IoErrorKind::Invalid, "it was opened to be described only");
        self.device.as_deref().ok_or_else(described)
    }

    async fn flush_if(&self, fua: bool) -> Result<(), IoError> {
        if fua { self.flush().await } else { Ok(()) }
    }
}

#[async_trait]
impl Export for DeviceExport {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        let Some(device) = &self.device else { return Attempt::WouldBlock };
        attempt(device.try_read(offset, buf), Content::Data)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        let Some(device) = &self.device else { return Attempt::WouldBlock };
        attempt(device.try_write(offset, data), ())
    }

    fn try_flush(&self) -> Attempt<()> {
        let Some(device) = &self.device else { return Attempt::WouldBlock };
        attempt(device.try_flush(), ())
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content, IoError> {
        self.device()?.read_into(offset, buf).await.map_err(io_error)?;
        Ok(Content::Data)
    }

    async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), IoError> {
        self.device()?.write(offset, data).await.map_err(io_error)?;
        self.flush_if(fua).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.device()?.flush().await.map_err(io_error)
    }

    async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError> {
        self.device()?.zero(offset, len).await.map_err(io_error)?;
        self.flush_if(fua).await
    }

    async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        options: ZeroesOptions,
    ) -> Result<(), IoError> {
        let is_fast = offset.is_multiple_of(SECTOR_BYTES) && len.is_multiple_of(SECTOR_BYTES);
        if options.fast_only && !is_fast {
            let text = "zeroing is fast in whole sectors of 512 bytes only";
            return Err(IoError::new(IoErrorKind::NotSupported, text));
        }
        // Space is never reserved, so a range that must stay allocated gets none either. A later
        // write to it needs room in the bucket, like any other.
        self.device()?.zero(offset, len).await.map_err(io_error)?;
        self.flush_if(options.fua).await
    }

    async fn cache(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.device()?.prefetch(offset, len).await;
        Ok(())
    }

    async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<StatusExtent>, IoError> {
        let found = self.device()?.status(offset, len, EXTENTS_MAX).await.map_err(io_error)?;
        let extents = found.into_iter().map(|range| StatusExtent {
            len_bytes: range.length,
            hole: range.hole,
            zero: range.hole,
        });
        Ok(extents.collect())
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
        // No `Reconnect` after a rollback or a release. A client that connects again by itself
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
fn io_error(error: Error) -> IoError {
    let kind = match error.ends_attachment() {
        true => IoErrorKind::Reconnect,
        false => meaning(error.kind()).0,
    };
    IoError::new(kind, error.message().to_owned())
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

    /// For less than a sector, the rest is read and the whole written: no faster than a write.
    #[tokio::test]
    async fn zeroing_is_fast_in_whole_sectors_only() {
        let fake = crate::fake::Fake::default();
        let new = skerry_volume::CreateVolume {
            name: "disk".parse().expect("a name"),
            size_bytes: 1 << 20,
            block_size_bytes: 4096,
            flush: None,
        };
        fake.create_volume(new).await.expect("creates");
        let exports = EngineExports::new(Arc::new(fake));
        let target = "disk".parse().expect("a target");
        let export = exports.attach(&target).await.expect("attaches");
        let fast = ZeroesOptions { fast_only: true, ..ZeroesOptions::default() };
        for (offset, len) in [(1, 511), (512, 100), (100, 1024), (0, 513)] {
            let slow = export.write_zeroes(offset, len, fast).await.expect_err("it is slow");
            assert_eq!(slow.kind, IoErrorKind::NotSupported, "{offset}, {len}");
            let any = export.write_zeroes(offset, len, ZeroesOptions::default()).await;
            any.expect("zeroes in any way");
        }
        export.write_zeroes(512, 1024, fast).await.expect("zeroes fast");
    }

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
