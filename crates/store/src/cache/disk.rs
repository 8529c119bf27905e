//! The disk cache: fetched frames in a ring of files on a local disk.
//!
//! It holds stored bytes and trusts none. A reader of a frame checks that the map means this frame,
//! and that its blocks have their checksums; any other frame is a miss. So the cache syncs nothing.
//! A crash or a flipped bit costs a fetch, and all of it may be deleted at any time. Reading never
//! waits for writing: one thread writes, and drops frames when it can't keep up.
//!
//! `docs/format.md` ("Disk cache") has the bytes. Must hold: the files never exceed the budget, and
//! [`FRAME_BYTES_MIN`] bounds the index in memory.

mod index;
mod ring;

use crate::error::{Error, Result};
use bytes::Bytes;
use index::Index;
use parking_lot::{Condvar, Mutex};
use ring::Ring;
use skerry_core::id::BucketId;
use skerry_core::position::SegmentKey;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Default size of the disk cache, bytes.
pub const DISK_CACHE_BYTES: u64 = 4 << 30;
/// Bytes of a ring file for each frame that it may take. So well compressed frames can't let the
/// index in memory grow: at most 2 Mi frames for 4 GiB.
pub const FRAME_BYTES_MIN: u64 = 2048;

/// Number of batches that may wait for the writer. It is large, since each may be one small frame;
/// [`QUEUE_BYTES_MAX`] bounds their total.
const QUEUE_LEN: usize = 1024;
/// Bytes that may wait for the writer: one segment of the largest size. More is dropped, since
/// memory is dearer than a second fetch.
const QUEUE_BYTES_MAX: u64 = 36 << 20;
/// Bytes of a batch in the queue, about, so that overload drops only some frames.
const BATCH_BYTES: usize = 1 << 20;

/// Names a frame: its segment, and its offset there.
pub(crate) type FrameKey = (SegmentKey, u32);

/// Place of a frame in a local file.
pub(crate) struct Placed {
    /// The file.
    pub(crate) file: Arc<File>,
    /// Offset of the frame in it, bytes.
    pub(crate) at: u64,
}

/// Counters of the disk cache.
#[derive(Debug, Default)]
pub struct DiskCounters {
    /// Frames written.
    pub written: AtomicU64,
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Frames that were not written, because the disk could not keep up or failed.
    pub dropped: AtomicU64,
    /// Frames that were damaged, or replaced by another one.
    pub damaged: AtomicU64,
    /// Frames in the index.
    pub frames: AtomicU64,
}

enum Job {
    Write(Vec<(FrameKey, Bytes)>),
    /// Reports when all jobs before it are done.
    Mark(Arc<(Mutex<bool>, Condvar)>),
}

/// State that the readers and the writing thread share.
struct Shared {
    index: Index,
    counters: DiskCounters,
    queued_bytes: AtomicU64,
}

/// The disk cache. Dropping it ends its thread after the queued jobs.
pub struct DiskCache {
    shared: Arc<Shared>,
    dir: PathBuf,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskCache({})", self.dir.display())
    }
}

impl DiskCache {
    /// Opens the cache of `bucket` in `dir`, which it creates if missing, with files of `bytes` in
    /// all. A background scan indexes old frames, which count as hits from then on.
    ///
    /// # Errors
    /// If the directory can't be made or read, or no thread can be started.
    pub fn open(dir: &Path, bytes: u64, bucket: BucketId) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|error| Error::file("creating", dir, error))?;
        let shared = Arc::new(Shared {
            index: Index::new(),
            counters: DiskCounters::default(),
            queued_bytes: AtomicU64::new(0),
        });
        let ring = Ring::open(dir, bytes, bucket)?;
        let (jobs, queue) = sync_channel(QUEUE_LEN);
        let writer = Writer { shared: shared.clone(), ring };
        let thread = std::thread::Builder::new()
            .name("skerry-cache".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| Error::file("starting the thread of", dir, error))?;
        Ok(Self { shared, dir: dir.to_owned(), jobs: Some(jobs), thread: Some(thread) })
    }

    /// Finds the likely place of a frame.
    pub(crate) fn find(&self, key: FrameKey) -> Option<Placed> {
        self.shared.index.find(key)
    }

    /// Forgets a frame that turned out to be another.
    pub(crate) fn forget(&self, key: FrameKey) {
        self.shared.counters.damaged.fetch_add(1, Ordering::Relaxed);
        self.shared.index.remove(key);
    }

    /// Queues frames for the writer. Drops frames for which the queue has no room.
    pub(crate) fn offer(&self, frames: impl IntoIterator<Item = (FrameKey, Bytes)>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (key, frame) in frames {
            bytes += frame.len();
            batch.push((key, frame));
            if bytes >= BATCH_BYTES {
                self.offer_batch(std::mem::take(&mut batch), std::mem::take(&mut bytes) as u64);
            }
        }
        if !batch.is_empty() {
            self.offer_batch(batch, bytes as u64);
        }
    }

    fn offer_batch(&self, frames: Vec<(FrameKey, Bytes)>, bytes: u64) {
        let count = frames.len() as u64;
        let Some(jobs) = &self.jobs else { return };
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let full = queued + bytes > QUEUE_BYTES_MAX;
        if full || jobs.try_send(Job::Write(frames)).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.counters.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Waits until all old frames are indexed and all offered ones written. Blocks the thread: for
    /// tests and for stopping.
    pub fn settle(&self) {
        let Some(jobs) = &self.jobs else { return };
        let mark = Arc::new((Mutex::new(false), Condvar::new()));
        if jobs.send(Job::Mark(mark.clone())).is_ok() {
            let mut reached = mark.0.lock();
            while !*reached {
                mark.1.wait(&mut reached);
            }
        }
    }

    /// The counters.
    pub fn counters(&self) -> &DiskCounters {
        &self.shared.counters
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The writing thread.
struct Writer {
    shared: Arc<Shared>,
    ring: Ring,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        self.ring.scan(&self.shared.index);
        self.count_frames();
        while let Ok(job) = queue.recv() {
            match job {
                Job::Write(frames) => self.write(&frames),
                Job::Mark(mark) => {
                    *mark.0.lock() = true;
                    mark.1.notify_all();
                }
            }
        }
    }

    fn write(&mut self, frames: &[(FrameKey, Bytes)]) {
        let bytes: u64 = frames.iter().map(|(_, frame)| frame.len() as u64).sum();
        let counters = &self.shared.counters;
        for (key, frame) in frames {
            match self.ring.append(&self.shared.index, *key, frame) {
                Ok(()) => {
                    counters.written.fetch_add(1, Ordering::Relaxed);
                    counters.written_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
                }
                Err(error) => {
                    counters.dropped.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%error, "the disk cache could not be written");
                }
            }
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.count_frames();
    }

    fn count_frames(&self) {
        self.shared.counters.frames.store(self.shared.index.len() as u64, Ordering::Relaxed);
    }
}
