//! A bucket in a local directory: its segments as open files, read at a position.
//!
//! This goes around the object store for reading only. It is worth it: a block in the kernel's
//! memory then costs a system call instead of a trip through a thread pool. Segments never change,
//! so an open file stays right. Deleted ones are closed, so that their space comes free. Before a
//! failed or damaged file counts as such, it is opened anew: a good one may have been put back.

use crate::error::{Error, Result};
use crate::objects::direct::DIRECT_BYTES_MIN;
use crate::objects::fresh::Fresh;
use crate::objects::litter;
use crate::objects::local_root::RootDir;
use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags};
use skerry_core::names;
use skerry_core::position::SegmentKey;
use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Number of segments kept open: a quarter of the usual limit of 1024 files for a process.
pub const OPEN_FILES_MAX: usize = 256;

/// Bytes of the newest segments that come into memory at their first read. The kernel may drop them
/// again like all its copies of files.
const FRESH_BYTES_MAX: u64 = 2 << 30;

/// The files of a local bucket.
pub struct LocalDir {
    root: RootDir,
    files: Cache<SegmentKey, Arc<File>>,
    fresh: Mutex<Fresh>,
}

impl std::fmt::Debug for LocalDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalDir({})", self.root.path().display())
    }
}

impl LocalDir {
    /// The bucket at `root`, with at most `open_files_max` open files.
    pub fn new(root: RootDir, open_files_max: usize) -> Self {
        let fresh = Mutex::new(Fresh::new(FRESH_BYTES_MAX));
        Self { root, files: Cache::new(open_files_max), fresh }
    }

    /// A segment's file, if it is open.
    pub(crate) fn opened(&self, key: SegmentKey) -> Option<Arc<File>> {
        self.files.get(&key)
    }

    /// Notes that a segment of `len` bytes was written: around the page cache, if it is large.
    pub(crate) fn note_written(&self, key: SegmentKey, len: u64) {
        if len >= DIRECT_BYTES_MIN as u64 {
            self.fresh.lock().note(key, len);
        }
    }

    /// Gives a segment's file. If it is not open, a thread that may wait opens it.
    pub(crate) async fn open(&self, key: SegmentKey) -> Result<Arc<File>> {
        if let Some(file) = self.opened(key) {
            return Ok(file);
        }
        let name = names::segment(key);
        let path = self.root.path().join(&name);
        let root = self.root.clone();
        let is_fresh = self.fresh.lock().take(key);
        let open = move || match File::open(path) {
            // In another directory, that is no answer.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                root.check().and(Err(error))
            }
            Ok(file) if is_fresh => {
                // Only a hint: a file system without it reads when it must.
                let _ = fadvise(&file, 0, None, Advice::WillNeed);
                Ok(file)
            }
            opened => opened,
        };
        let opened = blocking(open).await?;
        let file = Arc::new(opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { object: name.clone() },
            _ => Error::file("opening", &self.root.path().join(&name), error),
        })?);
        self.files.insert(key, file.clone());
        Ok(file)
    }

    /// Closes a segment that is being deleted, or whose file was damaged.
    pub fn forget(&self, key: SegmentKey) {
        self.files.remove(&key);
        self.fresh.lock().take(key);
    }

    /// True if the stream has a data number from `from` on.
    pub(crate) async fn has_data_from(&self, from: SegmentKey) -> Result<bool> {
        let prefix = names::stream_prefix(from.stream);
        let dir = self.root.path().join(&prefix);
        let root = self.root.clone();
        let look = move || -> std::io::Result<bool> {
            let entries = match std::fs::read_dir(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return root.check().map(|()| false);
                }
                entries => entries?,
            };
            for entry in entries {
                let name = entry?.file_name();
                if names::is_data_from(&format!("{prefix}/{}", name.to_string_lossy()), from) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let looked = blocking(look).await?;
        looked.map_err(|error| {
            Error::file("listing", &self.root.path().join(names::stream_prefix(from.stream)), error)
        })
    }

    /// Deletes the remains of crashed writes that were last written before `deadline`, a time
    /// since 1970. Gives the number of files.
    pub async fn remove_staged(&self, deadline: Duration) -> Result<usize> {
        let root = self.root.clone();
        let sweep = move || {
            let checked = root.check();
            checked.map_err(|error| Error::file("sweeping", root.path(), error))?;
            litter::remove_staged(root.path(), deadline)
        };
        blocking(sweep).await?
    }

    /// Reads bytes of a segment; fewer only at its end.
    pub(crate) async fn read(&self, key: SegmentKey, range: Range<u64>) -> Result<Bytes> {
        let len = range.end.saturating_sub(range.start) as usize;
        let mut read = read_at(self.open(key).await?, range.start, len).await?;
        if read.is_err() {
            // A handle can go stale while the file is there.
            self.forget(key);
            read = read_at(self.open(key).await?, range.start, len).await?;
        }
        read.map_err(|error| {
            Error::file("reading", &self.root.path().join(names::segment(key)), error)
        })
    }
}

/// Runs work that may wait for a disk, off the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("a read of a local file", error.to_string()))
}

/// Reads up to `len` bytes from `at`, without a thread if the kernel has them in memory.
pub(crate) async fn read_at(
    file: Arc<File>,
    at: u64,
    len: usize,
) -> Result<std::io::Result<Bytes>> {
    let mut buffer = vec![0; len];
    if try_read_exact_at(&file, at, &mut [IoSliceMut::new(&mut buffer)], len) {
        return Ok(Ok(buffer.into()));
    }
    blocking(move || {
        let mut filled = 0;
        while filled < len {
            match file.read_at(&mut buffer[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer.into())
    })
    .await
}

/// Set once a file system can't read without waiting, so that it is not asked again.
static NOWAIT_UNSUPPORTED: AtomicBool = AtomicBool::new(false);

/// Fills `buffers`, `len` bytes in all, if that needs no waiting for a disk. False if it would, or
/// at the end of the file.
pub(crate) fn try_read_exact_at(
    file: &File,
    at: u64,
    buffers: &mut [IoSliceMut<'_>],
    len: usize,
) -> bool {
    if NOWAIT_UNSUPPORTED.load(Ordering::Relaxed) {
        return false;
    }
    match rustix::io::preadv2(file, buffers, at, ReadWriteFlags::NOWAIT) {
        Ok(n) => n == len,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            NOWAIT_UNSUPPORTED.store(true, Ordering::Relaxed);
            false
        }
        Err(_) => false,
    }
}
