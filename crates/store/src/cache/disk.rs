//! The disk cache: frames as they were fetched, in a ring of files on a local disk.
//!
//! It holds stored bytes and believes nothing: whoever reads a frame checks that it is the one that
//! was meant and that its blocks have their hashes, and takes anything else for a miss. So nothing
//! is synced, a crash or a flipped bit costs a fetch, and all of it may be deleted at any time.
//! Reading never waits for writing: one thread writes, and what it can't keep up with is dropped.
//!
//! `docs/format.md` ("Disk cache") has the bytes. Must hold: the files never add up to more than the
//! budget, and the index in memory is bounded by [`FRAME_BYTES_MIN`].

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

/// Size of the disk cache unless told otherwise, bytes.
pub const DISK_CACHE_BYTES: u64 = 4 << 30;
/// A file of the ring takes at most one frame for each of these bytes, so that well compressed
/// frames don't let the index in memory grow: at most 2 Mi frames for 4 GiB.
pub const FRAME_BYTES_MIN: u64 = 2048;

/// How many batches may wait to be written: many, since each may be one small frame; what they
/// cost together is bounded by [`QUEUE_BYTES_MAX`].
const QUEUE_LEN: usize = 1024;
/// How many bytes may wait to be written: one segment of the largest size. More is dropped, since
/// memory is dearer than a second fetch.
const QUEUE_BYTES_MAX: u64 = 36 << 20;
/// Frames are queued in batches of about this many bytes, so that overload costs only some of them.
const BATCH_BYTES: usize = 1 << 20;

/// Which frame: its segment, and where it begins there.
pub(crate) type FrameKey = (SegmentKey, u32);

/// Where a frame lies in a local file.
pub(crate) struct Placed {
    /// The file.
    pub(crate) file: Arc<File>,
    /// Where the frame begins in it, bytes.
    pub(crate) at: u64,
}

/// What the disk cache did.
#[derive(Debug, Default)]
pub struct DiskCounters {
    /// Frames written.
    pub written: AtomicU64,
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Frames not written, because the disk could not keep up or failed.
    pub dropped: AtomicU64,
    /// Frames found damaged, or replaced by another one.
    pub damaged: AtomicU64,
    /// Frames in the index.
    pub frames: AtomicU64,
}

enum Job {
    Write(Vec<(FrameKey, Bytes)>),
    /// Tells when everything before it is done.
    Mark(Arc<(Mutex<bool>, Condvar)>),
}

/// What the reading side and the writing thread share.
struct Shared {
    index: Index,
    counters: DiskCounters,
    queued_bytes: AtomicU64,
}

/// The disk cache. Dropping it ends its thread after what is queued.
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
    /// Opens the cache of `bucket` in `dir`, which is made if it is missing, with files of `bytes` in
    /// all. What is there already is looked through in the background and counts as a hit from then on.
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

    /// Where a frame lies, if it seems to be there.
    pub(crate) fn find(&self, key: FrameKey) -> Option<Placed> {
        self.shared.index.find(key)
    }

    /// Forgets a frame that turned out not to be what was asked for.
    pub(crate) fn forget(&self, key: FrameKey) {
        self.shared.counters.damaged.fetch_add(1, Ordering::Relaxed);
        self.shared.index.remove(key);
    }

    /// Hands over frames to be written; drops those for which there is no room in the queue.
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

    /// Waits until what was found at the start is indexed and what was offered is written. Blocks the
    /// thread: for tests and for stopping.
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

    /// What it did.
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

/// The thread that writes.
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
