//! A raw file, or a block device of the kernel, as a device.
//!
//! The file has exactly the bytes of the device, so every other tool can read it. Zeroing punches
//! holes, and the file system says what is stored.
//!
//! Must hold: a file has one writer. A lock on it (`flock`) keeps a second one of these devices off,
//! and no other program.

mod aligned;
mod raw;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use self::aligned::Aligned;
pub use self::raw::Mode;
pub(crate) use self::raw::Raw;
use super::blocking;
use crate::{Content, Device, Error, ErrorKind, Geometry, Result, SECTOR_BYTES_MIN, StatusRange};

/// The advised alignment: a page, in which direct IO is done.
const BLOCK_BYTES: u32 = 4096;

/// The wishes for opening a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The size that the file must have, bytes. `None` takes any size.
    pub size_bytes: Option<u64>,
    /// Refuses writes, and opens the file for reading.
    pub read_only: bool,
    /// Goes through the page cache, even if direct IO is possible.
    pub buffered: bool,
}

/// A raw file as a device.
pub struct FileDevice {
    raw: Arc<Raw>,
    geometry: Geometry,
    /// A sync failed: the kernel may have dropped what it could not write.
    lost: Arc<AtomicBool>,
}

impl FileDevice {
    /// Creates a file of `size_bytes` that reads as zeros and takes no space. Its name is durable.
    ///
    /// # Errors
    /// `Invalid` if the file exists or the size is 0, `NoSpace`, `Failed`.
    pub async fn create(path: impl Into<PathBuf>, size_bytes: u64) -> Result<Self> {
        let path = path.into();
        blocking(move || Raw::create(&path, size_bytes).map(|raw| Self::over(raw, false))).await
    }

    /// Opens a file or a block device.
    ///
    /// # Errors
    /// `Invalid` if it is empty, no file, used by another, or not of the wanted size. `Failed` if
    /// the system refuses it.
    pub async fn open(path: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let path = path.into();
        let opened =
            move || Raw::open(&path, options).map(|raw| Self::over(raw, options.read_only));
        blocking(opened).await
    }

    fn over(raw: Raw, read_only: bool) -> Self {
        let geometry = Geometry {
            size_bytes: raw.size_bytes(),
            sector_bytes: SECTOR_BYTES_MIN,
            block_bytes: BLOCK_BYTES,
            read_only,
        };
        Self { raw: Arc::new(raw), geometry, lost: Arc::default() }
    }

    /// Says how the file is read and written. Direct IO is used wherever it is possible.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.raw.mode()
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.raw.path()
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device is read-only"));
        }
        self.geometry.check(offset, len)
    }
}

#[async_trait]
impl Device for FileDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.geometry.check(offset, buf.len() as u64)?;
        let (raw, len) = (self.raw.clone(), buf.len());
        let read = move || {
            let mut bytes = Aligned::zeroed(len);
            raw.read(offset, bytes.as_mut()).map(|()| bytes)
        };
        buf.copy_from_slice(blocking(read).await?.as_ref());
        Ok(Content::Data)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        let raw = self.raw.clone();
        blocking(move || raw.write(offset, &data)).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check_write(offset, len)?;
        let raw = self.raw.clone();
        blocking(move || raw.zero(offset, len)).await
    }

    async fn flush(&self) -> Result<()> {
        let (raw, lost) = (self.raw.clone(), self.lost.clone());
        if self.geometry.read_only {
            return Ok(());
        }
        blocking(move || {
            if lost.load(Ordering::Acquire) {
                return Err(Error::new(ErrorKind::Failed, "an earlier sync of the file failed"));
            }
            // A later sync of the kernel may succeed without those bytes.
            raw.sync().inspect_err(|_| lost.store(true, Ordering::Release))
        })
        .await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.geometry.check(offset, len)?;
        let raw = self.raw.clone();
        blocking(move || raw.status(offset, len, ranges_max)).await
    }
}
