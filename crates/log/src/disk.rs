//! The few operations that the log needs of a disk, so that a simulated disk can take its place.
//!
//! Must hold for every implementation: data that `sync` has confirmed survives. A creation or
//! removal is for good once `sync_dir` has returned. `read_at` sees every earlier `write_at`.

mod file;
pub(crate) mod mem;

use std::io;

pub use file::FileDisk;
pub use mem::MemDisk;

/// A flat directory of files, for one log and one process.
pub trait Disk: Send + Sync {
    /// Names of all files, the log's and others, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file; an error if the name exists.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// True if zeros written beforehand make later syncs cheaper.
    fn wants_zero_fill(&self) -> bool {
        true
    }
    /// The name of the file system, if it writes rewritten data to another place. There, a reserved
    /// and filled file is no promise of room.
    fn copies_on_write(&self) -> Option<&'static str> {
        None
    }
}

/// An open file. Many threads read while one writes.
pub trait DiskFile: Send + Sync {
    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;
    /// True if the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset` on; fewer bytes only where the file ends.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, making the file longer where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// As [`Self::write_at`], for few bytes that are synced next. Goes around a cache where
    /// possible, which makes write and sync together quicker.
    fn write_around(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)
    }
    /// Makes all earlier writes durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Takes room on the medium for the first `bytes` bytes, without changing length or content. So
    /// the caller meets a full disk here and not at a record. Does nothing where the system can't
    /// reserve.
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
    /// Drops clean cached bytes of a range (`bytes` 0 means to the end), so that the next read
    /// comes from the medium. After an earlier process's failed sync the cache may hold bytes that
    /// the medium does not.
    fn forget_cached(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}
