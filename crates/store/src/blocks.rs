//! Blocks of volumes: read from memory, from local files or from the bucket, verified, and kept.
//!
//! A read looks for a block in this order. First in memory, among decoded blocks. Then in the
//! segment's own file if the bucket is a local directory, or in the disk cache if not. Last in the
//! bucket, by one ranged GET for each run of adjacent frames. A read first asks the kernel whether
//! it has the bytes in memory. Only if not does a thread wait for the disk. Without a local
//! directory and a disk cache, no thread is used.
//!
//! Must hold: every byte given out matches the checksum in its frame's header, and the frame is the
//! one that the map names. Memory never exceeds its budget. Of many readers that want a frame from
//! the bucket at once, one fetches it.

mod file;
mod many;
mod piece;
mod ram;
mod remote;
mod scratch;

use crate::cache::disk::{DiskCache, FrameKey};
use crate::cache::flight::Flights;
use crate::error::{Error, Result};
use crate::objects::bucket::Bucket;
use bytes::Bytes;
use futures::FutureExt;
use ram::Ram;
use skerry_core::entry::BlockEntry;
use skerry_core::segment::BuiltSegment;
use skerry_core::size::BlockSize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Semaphore;

/// Default memory for decoded blocks, bytes.
pub const RAM_BYTES: u64 = 256 << 20;
/// Number of GETs of blocks under way at a time, each of at most [`RUN_BYTES_MAX`]. It bounds the
/// memory for fetches to 64 MiB.
pub const FETCHES_MAX: usize = 32;
/// The most that one GET fetches, bytes.
pub const RUN_BYTES_MAX: u64 = 2 << 20;

/// Settings of a cache of blocks.
#[derive(Debug)]
pub struct BlocksSettings {
    /// Memory for decoded blocks, bytes.
    pub ram_bytes: u64,
    /// The disk cache; ignored if the bucket is a local directory.
    pub disk: Option<DiskCache>,
}

impl Default for BlocksSettings {
    fn default() -> Self {
        Self { ram_bytes: RAM_BYTES, disk: None }
    }
}

/// A part of a block, and its place in the output.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The block.
    pub entry: BlockEntry,
    /// The range of its bytes.
    pub within: Range<usize>,
    /// Offset in the output, bytes.
    pub at: usize,
}

/// Counters of blocks by their source.
#[derive(Debug, Default)]
pub struct BlockCounters {
    /// Blocks found decoded in memory.
    pub ram_hits: AtomicU64,
    /// Blocks not found in memory.
    pub ram_misses: AtomicU64,
    /// Blocks read from the files of a local bucket.
    pub local_blocks: AtomicU64,
    /// Blocks read from the disk cache.
    pub disk_hits: AtomicU64,
    /// Frames that the disk cache did not have, or had damaged.
    pub disk_misses: AtomicU64,
    /// GETs of the bucket.
    pub fetches: AtomicU64,
    /// Bytes of those GETs.
    pub fetched_bytes: AtomicU64,
    /// Frames that were damaged and read again.
    pub reread: AtomicU64,
    /// Compressed frames that were unpacked.
    pub unpacked_frames: AtomicU64,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

struct Inner {
    bucket: Bucket,
    ram: Ram,
    disk: Option<DiskCache>,
    flights: Flights<FrameKey, Result<Bytes>>,
    fetches: Semaphore,
    counters: BlockCounters,
}

/// Reads and keeps blocks. Clones share everything.
#[derive(Clone)]
pub struct Blocks {
    inner: Arc<Inner>,
}

impl Blocks {
    /// Makes a reader of the blocks of `bucket`.
    pub fn new(bucket: Bucket, settings: BlocksSettings) -> Self {
        let disk = settings.disk.filter(|_| bucket.local_dir().is_none());
        let inner = Inner {
            bucket,
            ram: Ram::new(settings.ram_bytes),
            disk,
            flights: Flights::new(),
            fetches: Semaphore::new(FETCHES_MAX),
            counters: BlockCounters::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Reads blocks, or parts of them, into `out`, if no read needs to wait. Sources are memory,
    /// and local files that the kernel has in memory. Otherwise false, also if a block is damaged,
    /// which [`Blocks::read_many`] reports. Then `out` holds anything.
    pub fn try_read(&self, wanted: &[Wanted], block: BlockSize, out: &mut [u8]) -> bool {
        fit(wanted, block, out.len()) && self.inner.try_read(wanted, block, out)
    }

    /// Reads one whole block.
    ///
    /// # Errors
    /// [`Error::NotFound`] with the segment's name if it is gone. [`Error::Format`] with name and
    /// offset if it is damaged.
    pub async fn read(&self, entry: &BlockEntry, block: BlockSize) -> Result<Bytes> {
        let mut out = vec![0; block.bytes()];
        let wanted = [Wanted { entry: *entry, within: 0..block.bytes(), at: 0 }];
        self.read_many(&wanted, block, &mut out).await?;
        Ok(out.into())
    }

    /// Reads many blocks, or parts of them, into `out`. Fetches each frame once, adjacent ones
    /// together, several runs at a time. Ascending order and whole frames cost the fewest copies.
    ///
    /// # Errors
    /// As [`Blocks::read`]. Then `out` holds anything.
    pub async fn read_many(
        &self,
        wanted: &[Wanted],
        block: BlockSize,
        out: &mut [u8],
    ) -> Result<()> {
        if !fit(wanted, block, out.len()) {
            return Err(Error::internal("a read of blocks", "it does not fit its buffer"));
        }
        self.inner.read_many(wanted, block, out).boxed().await
    }

    /// Prefetches blocks, so that a later read does not wait. Leaves errors to that read. The
    /// caller decides how much, and where this runs.
    pub async fn prefetch(&self, entries: &[BlockEntry], block: BlockSize) {
        self.inner.prefetch(entries, block).boxed().await;
    }

    /// Keeps the frames of a segment that was just created in the disk cache, if there is one. For
    /// a local bucket, notes that readers will take the segment from the disk. Only for segments
    /// that are known to be in the bucket.
    pub fn admit(&self, built: &BuiltSegment) {
        if let Some(dir) = self.inner.bucket.local_dir() {
            dir.note_written(built.key, built.len_bytes() as u64);
        }
        let Some(disk) = &self.inner.disk else { return };
        disk.offer(built.frame_bytes().map(|(at, frame)| ((built.key, at), frame)));
    }

    /// Memory of decoded blocks, with overhead, bytes, about.
    pub fn cached_bytes(&self) -> u64 {
        self.inner.ram.bytes()
    }

    /// The counters.
    pub fn counters(&self) -> &BlockCounters {
        &self.inner.counters
    }

    /// The disk cache, if one is in use.
    pub fn disk(&self) -> Option<&DiskCache> {
        self.inner.disk.as_ref()
    }
}

/// True if every wanted part lies within its block, and in an output of `len` bytes.
fn fit(wanted: &[Wanted], block: BlockSize, len: usize) -> bool {
    wanted.iter().all(|w| {
        w.within.end <= block.bytes()
            && w.within.start <= w.within.end
            && w.at.checked_add(w.within.len()).is_some_and(|end| end <= len)
    })
}

#[cfg(test)]
mod tests;
