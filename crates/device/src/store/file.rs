//! A raw file, or a block device of the kernel, as a device. Or several files in a row.
//!
//! The file has exactly the bytes of the device, so every other tool can read it. Zeroing punches
//! holes, and the file system says what is stored.
//!
//! Must hold: a file has one writer. A lock on it (`flock`) keeps a second one of these devices off,
//! and no other program.

mod aligned;
mod raw;
mod row;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use self::aligned::Aligned;
pub use self::raw::Mode;
pub(crate) use self::raw::{Raw, lock, sync_directory_of};
use self::row::Row;
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

/// A raw file as a device, or several of one size.
pub struct FileDevice {
    row: Arc<Row>,
    geometry: Geometry,
}

impl FileDevice {
    /// Creates a file of `size_bytes` that reads as zeros and takes no space. Its name is durable.
    ///
    /// # Errors
    /// `Invalid` if the file exists or the size is 0, `NoSpace`, `Failed`.
    pub async fn create(path: impl Into<PathBuf>, size_bytes: u64) -> Result<Self> {
        let path = path.into();
        blocking(move || Raw::create(&path, size_bytes).map(|raw| Self::of_one(raw, false))).await
    }

    /// Opens a file or a block device.
    ///
    /// # Errors
    /// `Invalid` if it is empty, no file, used by another, or not of the wanted size. `Failed` if
    /// the system refuses it.
    pub async fn open(path: impl Into<PathBuf>, options: Options) -> Result<Self> {
        let path = path.into();
        let opened =
            move || Raw::open(&path, options).map(|raw| Self::of_one(raw, options.read_only));
        blocking(opened).await
    }

    fn of_one(raw: Raw, read_only: bool) -> Self {
        let size_bytes = raw.size_bytes();
        Self::over(vec![raw], size_bytes, read_only)
    }

    /// Puts files in a row. All but the last have `file_bytes`, and none is missing.
    pub(crate) fn over(files: Vec<Raw>, file_bytes: u64, read_only: bool) -> Self {
        let row = Row::new(files, file_bytes);
        let geometry = Geometry {
            size_bytes: row.size_bytes(),
            sector_bytes: SECTOR_BYTES_MIN,
            block_bytes: BLOCK_BYTES,
            read_only,
        };
        Self { row: Arc::new(row), geometry }
    }

    /// Says how each file is read and written. Direct IO is used wherever it is possible.
    pub fn modes(&self) -> impl Iterator<Item = Mode> {
        self.row.files().iter().map(Raw::mode)
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
        let (row, len) = (self.row.clone(), buf.len());
        let read = move || {
            let mut bytes = Aligned::zeroed(len);
            row.read(offset, bytes.as_mut()).map(|()| bytes)
        };
        buf.copy_from_slice(blocking(read).await?.as_ref());
        Ok(Content::Data)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        let row = self.row.clone();
        blocking(move || row.write(offset, &data)).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check_write(offset, len)?;
        let row = self.row.clone();
        blocking(move || row.zero(offset, len)).await
    }

    async fn flush(&self) -> Result<()> {
        if self.geometry.read_only {
            return Ok(());
        }
        let row = self.row.clone();
        blocking(move || row.sync()).await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.geometry.check(offset, len)?;
        let row = self.row.clone();
        blocking(move || row.status(offset, len, ranges_max)).await
    }
}
