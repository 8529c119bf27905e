//! Positioned IO on one file, blocking: direct where that is possible.
//!
//! Must hold: direct and buffered IO never meet on one file. A page that is dirty in the cache
//! could go to the disk over what direct IO wrote beside it. So a file whose size is no multiple of
//! a page is buffered as a whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, fdatasync, seek};
use rustix::io::Errno;

use super::Options;
use super::aligned::{ALIGN_BYTES, Aligned, is_aligned};
use crate::store::{invalid, io_error};
use crate::{Result, StatusRange};

/// The longest single piece of direct IO that goes through a buffer, and of zeros that are written.
const PIECE_BYTES: usize = 1 << 20;

/// The way by which a file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Past the page cache.
    Direct,
    /// Through the page cache, for this reason.
    Buffered(&'static str),
}

/// An open file of a fixed size.
pub(crate) struct Raw {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    mode: Mode,
    /// Taken for writing by a change of a part of a page, which reads the page before.
    parts: RwLock<()>,
}

impl Raw {
    pub(crate) fn create(path: &Path, size_bytes: u64) -> Result<Self> {
        if size_bytes == 0 {
            return Err(invalid(path, "would be empty"));
        }
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = created.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => invalid(path, "exists already"),
            _ => io_error("create", path, &error),
        })?;
        let sized = file.set_len(size_bytes).and_then(|()| file.sync_all());
        if let Err(error) = sized.and_then(|()| sync_directory_of(path)) {
            // The error counts; a file that stays is refused later by its size.
            let _ = std::fs::remove_file(path);
            return Err(io_error("create", path, &error));
        }
        drop(file);
        Self::open(path, Options { size_bytes: Some(size_bytes), ..Options::default() })
    }

    pub(crate) fn open(path: &Path, options: Options) -> Result<Self> {
        let mut how = OpenOptions::new();
        how.read(true).write(!options.read_only);
        let file = how.open(path).map_err(|error| io_error("open", path, &error))?;
        let size_bytes = size_of(&file, path)?;
        if options.size_bytes.is_some_and(|wanted| wanted != size_bytes) {
            let wanted = options.size_bytes.unwrap_or_default();
            return Err(invalid(path, &format!("has {size_bytes} bytes, and not {wanted}")));
        }
        lock(&file, path, options.read_only)?;
        let (direct, mode) = match (options.buffered, size_bytes % ALIGN_BYTES as u64) {
            (true, _) => (None, Mode::Buffered("asked for")),
            (_, 0) => match open_direct(&how, path) {
                Ok(direct) => (Some(direct), Mode::Direct),
                Err(_) => (None, Mode::Buffered("the file system does no direct IO")),
            },
            _ => (None, Mode::Buffered("the size is no multiple of a page")),
        };
        let file = match direct {
            Some(direct) => {
                drop(file);
                lock(&direct, path, options.read_only)?;
                direct
            }
            None => file,
        };
        Ok(Self { file, path: path.into(), size_bytes, mode, parts: RwLock::default() })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let read = if self.mode != Mode::Direct || is_aligned(offset, buf) {
            self.file.read_exact_at(buf, offset)
        } else {
            self.read_by_pages(offset, buf)
        };
        read.map_err(|error| io_error("read", &self.path, &error))
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let written = if self.mode != Mode::Direct {
            self.file.write_all_at(data, offset)
        } else if is_aligned(offset, data) {
            let _parts = self.parts.read();
            self.file.write_all_at(data, offset)
        } else {
            self.write_by_pages(offset, data)
        };
        written.map_err(|error| io_error("write to", &self.path, &error))
    }

    /// Makes a range zeros that take no space, if the file system can do that.
    pub(crate) fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let ways = [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE];
        for way in ways {
            let _parts = self.parts.write();
            match fallocate(&self.file, way | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(()),
                // A block device refuses parts of its own sectors as invalid.
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(error) => return Err(io_error("zero a part of", &self.path, &error.into())),
            }
        }
        let zeros = Aligned::zeroed(PIECE_BYTES);
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let here = (end - at).min(PIECE_BYTES as u64);
            self.write(at, &zeros.as_ref()[..here as usize])?;
            at += here;
        }
        Ok(())
    }

    /// Makes all writes durable.
    pub(crate) fn sync(&self) -> Result<()> {
        fdatasync(&self.file).map_err(|error| io_error("sync", &self.path, &error.into()))
    }

    /// Tells by the file system's answer what is stored. Without an answer, all of it is.
    pub(crate) fn status(&self, offset: u64, len: u64, max: usize) -> Result<Vec<StatusRange>> {
        let end = offset + len;
        let mut found = Vec::new();
        let mut at = offset;
        while at < end && found.len() < max {
            let (hole, next) = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) if data > at => (true, data.min(end)),
                Ok(_) => (false, seek(&self.file, SeekFrom::Hole(at)).unwrap_or(end).min(end)),
                Err(Errno::NXIO) => (true, end),
                Err(_) => (false, end),
            };
            // A hole that appears meanwhile must not give an empty range.
            let next = if next > at { next } else { end };
            found.push(StatusRange { offset: at, length: next - at, hole });
            at = next;
        }
        Ok(found)
    }

    fn read_by_pages(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut pages = Aligned::zeroed(pages_around(offset, buf.len()).len.min(PIECE_BYTES));
        let mut done = 0;
        while done < buf.len() {
            let around = pages_around(offset + done as u64, buf.len() - done);
            let pages = &mut pages.as_mut()[..around.len.min(PIECE_BYTES)];
            self.file.read_exact_at(pages, around.offset)?;
            let here = (pages.len() - around.before).min(buf.len() - done);
            buf[done..done + here].copy_from_slice(&pages[around.before..around.before + here]);
            done += here;
        }
        Ok(())
    }

    fn write_by_pages(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let around = pages_around(offset, data.len());
        // Another change of these pages, between reading and writing them, would be undone.
        let whole = around.before == 0 && around.len == data.len();
        let _alone = (!whole).then(|| self.parts.write());
        let _beside = whole.then(|| self.parts.read());
        let mut pages = Aligned::zeroed(around.len.min(PIECE_BYTES));
        let mut done = 0;
        while done < data.len() {
            let around = pages_around(offset + done as u64, data.len() - done);
            let pages = &mut pages.as_mut()[..around.len.min(PIECE_BYTES)];
            let here = (pages.len() - around.before).min(data.len() - done);
            if here < pages.len() {
                self.file.read_exact_at(pages, around.offset)?;
            }
            pages[around.before..around.before + here].copy_from_slice(&data[done..done + here]);
            self.file.write_all_at(pages, around.offset)?;
            done += here;
        }
        Ok(())
    }
}

/// The whole pages around a range.
struct Pages {
    offset: u64,
    len: usize,
    /// Bytes of the first page before the range.
    before: usize,
}

fn pages_around(offset: u64, len: usize) -> Pages {
    let before = (offset % ALIGN_BYTES as u64) as usize;
    let len = (before + len).next_multiple_of(ALIGN_BYTES);
    Pages { offset: offset - before as u64, len, before }
}

fn size_of(file: &File, path: &Path) -> Result<u64> {
    let kind = file.metadata().map_err(|error| io_error("look at", path, &error))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(invalid(path, "is neither a file nor a block device"));
    }
    let size = seek(file, SeekFrom::End(0)).map_err(|e| io_error("look at", path, &e.into()))?;
    if size == 0 {
        return Err(invalid(path, "is empty"));
    }
    Ok(size)
}

/// Opens the file for direct IO, and tries it: some file systems refuse only the reads.
fn open_direct(how: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = how.clone().custom_flags(OFlags::DIRECT.bits() as i32).open(path)?;
    file.read_exact_at(Aligned::zeroed(ALIGN_BYTES).as_mut(), 0)?;
    Ok(file)
}

/// Keeps other devices off. A file system without locks keeps none off.
pub(crate) fn lock(file: &File, path: &Path, shared: bool) -> Result<()> {
    let locked = if shared { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Err(TryLockError::WouldBlock) => Err(invalid(path, "is in use by another device")),
        Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Unsupported => {
            Err(io_error("lock", path, &error))
        }
        _ => Ok(()),
    }
}

/// Makes the names in the directory of `path` durable.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
