//! A directory of the local file system.

use std::{
    fs::{File, OpenOptions},
    io,
    num::NonZeroU64,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate},
    io::Errno,
};

use super::{Disk, DiskFile};

/// A directory of the local file system. The caller locks it against other processes.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    copies_on_write: Option<&'static str>,
}

/// File systems that never write to one place twice, by their numbers in statfs.
const COPY_ON_WRITE: [(u32, &str); 4] =
    [(0x9123_683E, "btrfs"), (0x2FC1_2FC1, "zfs"), (0xCA45_1A4E, "bcachefs"), (0x3434, "nilfs2")];

/// Mode of new files: they hold what guests write.
const FILE_MODE: u32 = 0o600;

impl FileDisk {
    /// Uses the directory `dir`, which must exist.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref().to_owned();
        // If statfs fails, the next call says why.
        let kind = rustix::fs::statfs(&dir).map_or(0, |found| found.f_type as u32);
        let found = COPY_ON_WRITE.iter().find(|(number, _)| *number == kind);
        Self { dir, copies_on_write: found.map(|(_, name)| *name) }
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is not the log's.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.dir.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        let file = options.open(&path)?;
        Ok(Box::new(FsFile::new(file, &path)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Box::new(FsFile::new(file, &path)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// False on such file systems: zeros would go to one place and the records to another.
    fn wants_zero_fill(&self) -> bool {
        self.copies_on_write.is_none()
    }

    fn copies_on_write(&self) -> Option<&'static str> {
        self.copies_on_write
    }
}

/// A file, opened twice. Each handle reads the other's writes. Only `cached` syncs, so that the
/// system reports failed writes to it.
struct FsFile {
    cached: File,
    /// None where the file system has no direct IO.
    direct: Option<File>,
    /// True if direct IO needs offsets or lengths that records do not have (on a disk of blocks
    /// above 512 bytes).
    is_refused: AtomicBool,
}

impl FsFile {
    fn new(cached: File, path: &Path) -> Self {
        let flags = OFlags::DIRECT.bits() as i32;
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        Self { cached, direct, is_refused: AtomicBool::new(false) }
    }
}

impl DiskFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.cached.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.cached.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.cached.write_all_at(bytes, offset)
    }

    fn write_around(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let direct = self.direct.as_ref().filter(|_| !self.is_refused.load(Ordering::Relaxed));
        match direct.map(|file| file.write_all_at(bytes, offset)) {
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                self.is_refused.store(true, Ordering::Relaxed);
                self.write_at(offset, bytes)
            }
            Some(done) => done,
            None => self.write_at(offset, bytes),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.cached.sync_data()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.cached, FallocateFlags::KEEP_SIZE, 0, bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn forget_cached(&self, offset: u64, bytes: u64) -> io::Result<()> {
        Ok(fadvise(&self.cached, offset, NonZeroU64::new(bytes), Advice::DontNeed)?)
    }
}
