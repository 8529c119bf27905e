//! A device: one attached volume or snapshot.
//!
//! Its own methods fail with the engine's errors. Front ends see it as [`skerry_device::Device`],
//! which `attach::served` implements.

use crate::context::Context;
use crate::disk::Volume;
use crate::disk::attach::readahead::Readahead;
use crate::disk::edges::{Piece, is_whole, outward, pieces};
use crate::disk::extents::{self, Window};
use crate::disk::reading::Reading;
use crate::error::{Error, Result};
use crate::streams::stream::Attempt;
use bytes::Bytes;
use skerry_core::size::SECTOR_BYTES;
use skerry_device::StatusRange;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::runtime::Handle;

#[derive(Clone)]
enum Kind {
    Head { volume: Arc<Volume>, generation: u64 },
    Reading(Arc<Reading>),
}

/// An attached volume or snapshot. Dropping it detaches.
pub struct Device {
    ctx: Arc<Context>,
    name: String,
    size_bytes: u64,
    kind: Kind,
    readahead: Readahead,
    /// The engine's runtime, for reading ahead: requests come from any thread.
    runtime: Handle,
}

impl Device {
    /// Attaches to a volume that this node writes, once no operation is under way that replaces its
    /// state. So a client sees one state and its own writes on it.
    ///
    /// # Errors
    /// The reason why the volume is out of service, if it is.
    pub(crate) async fn head(volume: Arc<Volume>, name: String) -> Result<Self> {
        let (size_bytes, generation) = volume.let_in().await?;
        let ctx = volume.ctx.clone();
        Ok(Self::new(ctx, name, size_bytes, Kind::Head { volume, generation }))
    }

    /// Attaches to a state that is only read.
    pub(crate) fn reading(ctx: Arc<Context>, reading: Arc<Reading>, name: String) -> Self {
        let size_bytes = reading.state.size_bytes;
        Self::new(ctx, name, size_bytes, Kind::Reading(reading))
    }

    fn new(ctx: Arc<Context>, name: String, size_bytes: u64, kind: Kind) -> Self {
        let (readahead, runtime) = (Readahead::default(), Handle::current());
        Self { ctx, name, size_bytes, kind, readahead, runtime }
    }

    /// The name of its export.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The size when it was attached, bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The block size, bytes.
    pub fn block_size_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Head { volume, .. } => volume.desc.block.bytes() as u64,
            Kind::Reading(reading) => reading.state.payload.block.bytes() as u64,
        }
    }

    /// True if writes are refused.
    pub fn is_read_only(&self) -> bool {
        matches!(self.kind, Kind::Reading(_))
    }

    fn head_of(&self) -> Result<(&Arc<Volume>, u64)> {
        match &self.kind {
            Kind::Head { volume, generation } => Ok((volume, *generation)),
            Kind::Reading(_) => Err(Error::invalid(self.name.to_string(), "is read-only here")),
        }
    }

    /// Reads without waiting; none if that is not possible.
    pub fn try_read(&self, offset: u64, buf: &mut [u8]) -> Option<Result<()>> {
        if !is_whole(&range_of(offset, buf.len())) {
            return None;
        }
        let done = match &self.kind {
            Kind::Head { volume, generation } => {
                volume.try_read(offset, buf, *generation).map(|a| matches!(a, Attempt::Done))
            }
            Kind::Reading(reading) => reading.try_read(offset, buf),
        };
        match done {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(e) => Some(Err(e)),
        }
    }

    /// Writes without waiting; none if that is not possible.
    pub fn try_write(&self, offset: u64, data: &[u8]) -> Option<Result<()>> {
        if !is_whole(&range_of(offset, data.len())) {
            return None;
        }
        let attempt =
            self.head_of().and_then(|(v, generation)| v.try_write(offset, data, generation));
        match attempt {
            Ok(Attempt::Done) => Some(Ok(())),
            Ok(Attempt::Wait | Attempt::Overtaken) => None,
            Err(e) => Some(Err(e)),
        }
    }

    /// Fills `out`. Accepts any offset and length.
    pub async fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let range = range_of(offset, out.len());
        if is_whole(&range) {
            return self.read_sectors(offset, out).await;
        }
        for piece in pieces(range) {
            let here = &mut out[piece.within(offset)];
            match piece {
                Piece::Whole(whole) => self.read_sectors(whole.start, here).await?,
                Piece::Partial(part) => {
                    let sector = outward(&part);
                    let mut all = [0; SECTOR_BYTES as usize];
                    self.read_sectors(sector.start, &mut all).await?;
                    let skip = (part.start - sector.start) as usize;
                    here.copy_from_slice(&all[skip..skip + here.len()]);
                }
            }
        }
        Ok(())
    }

    async fn read_sectors(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.kind {
            Kind::Head { volume, generation } => volume.read_into(offset, out, *generation).await,
            Kind::Reading(reading) => reading.read_into(offset, out).await,
        }
    }

    /// Reads.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        let mut out = vec![0; len];
        self.read_into(offset, &mut out).await?;
        Ok(out.into())
    }

    /// Writes. Accepts any offset and length; whole sectors cost the least.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let (volume, generation) = self.head_of()?;
        let range = range_of(offset, data.len());
        if is_whole(&range) {
            return volume.write(&range, offset, &data, generation).await;
        }
        let request = outward(&range);
        for piece in pieces(range) {
            let here = &data[piece.within(offset)];
            match piece {
                Piece::Whole(whole) => {
                    volume.write(&request, whole.start, here, generation).await?;
                }
                Piece::Partial(part) => {
                    volume.patch(&request, part, Some(here), generation).await?;
                }
            }
        }
        Ok(())
    }

    /// Makes a range read as zeros. Accepts any offset and length.
    pub async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let (volume, generation) = self.head_of()?;
        let range = offset..offset.saturating_add(len);
        if is_whole(&range) {
            return volume.zero(&range, range.clone(), generation).await;
        }
        let request = outward(&range);
        for piece in pieces(range) {
            match piece {
                Piece::Whole(whole) => volume.zero(&request, whole, generation).await?,
                Piece::Partial(part) => volume.patch(&request, part, None, generation).await?,
            }
        }
        Ok(())
    }

    /// Flushes without waiting; none if that is not possible.
    pub fn try_flush(&self) -> Option<Result<()>> {
        let attempt = match &self.kind {
            Kind::Head { volume, generation } => {
                volume.admit(*generation).map(drop).and_then(|()| volume.try_flush())
            }
            Kind::Reading(_) => Ok(Attempt::Done),
        };
        match attempt {
            Ok(Attempt::Done) => Some(Ok(())),
            Ok(Attempt::Wait | Attempt::Overtaken) => None,
            Err(e) => Some(Err(e)),
        }
    }

    /// Makes acknowledged writes durable, as the volume's flush level promises.
    pub async fn flush(&self) -> Result<()> {
        match &self.kind {
            Kind::Head { volume, generation } => {
                // After a rollback, undone writes are not durable, and a later state is not this
                // client's.
                drop(volume.admit(*generation)?);
                volume.flush().await
            }
            Kind::Reading(_) => Ok(()),
        }
    }

    /// Tells which parts of a range hold data, from its beginning on; neighbours differ. Gives at
    /// most `max` parts, as far as a bounded search gets. Ask again from the end of the answer.
    pub async fn status(&self, offset: u64, len: u64, max: usize) -> Result<Vec<StatusRange>> {
        let range = outward(&(offset..offset.saturating_add(len)));
        let mut found = match &self.kind {
            Kind::Head { volume, generation } => {
                volume.block_status(range, max, *generation).await?
            }
            Kind::Reading(reading) => {
                let window = |rest| Ok(Window::of(&reading.state, rest));
                extents::status(&self.ctx, &range, max, window).await?
            }
        };
        if let Some(first) = found.first_mut() {
            let before = offset - first.offset;
            (first.offset, first.length) = (offset, first.length - before);
        }
        Ok(found)
    }

    /// Notes a read. Begins to prefetch what comes next, as long as the client reads in order. The
    /// kernel reads ahead in a local bucket's files.
    pub(crate) fn note_read(&self, offset: u64, len: usize) {
        if self.ctx.bucket.local_dir().is_some() {
            return;
        }
        if let Some(range) = self.readahead.after(range_of(offset, len), self.size_bytes) {
            let (kind, ctx) = (self.kind.clone(), self.ctx.clone());
            self.runtime.spawn(async move { kind.prefetch(&ctx, range).await });
        }
    }

    /// Prefetches a range, so that later reads don't wait. Does not wait for a failing bucket: it
    /// holds memory that others want, and the volume.
    pub async fn prefetch(&self, offset: u64, len: u64) {
        let len = len.min(PREFETCH_BYTES_MAX).min(self.size_bytes.saturating_sub(offset));
        self.kind.prefetch(&self.ctx, range_of(offset, len as usize)).await;
    }
}

impl Kind {
    /// Prefetches a range that lies in the device.
    async fn prefetch(&self, ctx: &Context, range: Range<u64>) {
        // A hint is not worth memory that others wait for.
        let Some(_room) = ctx.buffers.try_take((range.end - range.start) as usize) else { return };
        let whole = outward(&range);
        let mut out = vec![0; (whole.end - whole.start) as usize];
        // The later read waits for data that can't be read now.
        let _ = match self {
            Self::Head { volume, generation } => {
                volume.read_now(whole.start, &mut out, *generation).await
            }
            Self::Reading(reading) => reading.read_now(whole.start, &mut out).await,
        };
    }
}

fn range_of(offset: u64, len: usize) -> Range<u64> {
    offset..offset.saturating_add(len as u64)
}

/// The most bytes of one prefetch.
const PREFETCH_BYTES_MAX: u64 = 4 << 20;

impl Drop for Device {
    fn drop(&mut self) {
        if let Kind::Head { volume, .. } = &self.kind {
            volume.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
