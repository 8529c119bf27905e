//! A sparse file as a device: a log of checksummed records with an index in memory.
//!
//! For any file system, with holes or without: the file has only what was written. No byte is
//! believed before its checksum. `docs/format.md` describes the file.
//!
//! Limits: changes and flushes run one at a time. The index takes some 30 bytes of memory for each
//! block of 4 KiB that is stored. The file grows with each write until the caller compacts it.

mod layout;
mod log;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use self::layout::{BLOCK_BYTES, RECORD_HEAD_BYTES, RECORDS_AT};
use self::log::Log;
use super::blocking;
use crate::{Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A sparse file as a device.
pub struct SparseDevice {
    log: Arc<RwLock<Log>>,
    geometry: Geometry,
}

impl SparseDevice {
    /// Creates a file for a device of `size_bytes` that reads as zeros. Its name is durable.
    ///
    /// # Errors
    /// `Invalid` if the file exists or the size is 0, `NoSpace`, `Failed`.
    pub async fn create(path: impl Into<PathBuf>, size_bytes: u64) -> Result<Self> {
        let path = path.into();
        blocking(move || Log::create(&path, size_bytes).map(|log| Self::over(log, false))).await
    }

    /// Opens a file, and cuts off what was written in part and never durable.
    ///
    /// # Errors
    /// `Invalid` if it is no sparse file, or is used by another device. `Failed` if durable bytes
    /// are lost, or if the system refuses it.
    pub async fn open(path: impl Into<PathBuf>, read_only: bool) -> Result<Self> {
        let path = path.into();
        blocking(move || Log::open(&path, read_only).map(|log| Self::over(log, read_only))).await
    }

    fn over(log: Log, read_only: bool) -> Self {
        let block_bytes = BLOCK_BYTES as u32;
        let size_bytes = log.size_bytes;
        let geometry = Geometry { size_bytes, sector_bytes: block_bytes, block_bytes, read_only };
        Self { log: Arc::new(RwLock::new(log)), geometry }
    }

    /// Bytes of the file that a compaction would give back.
    #[must_use]
    pub fn dead_bytes(&self) -> u64 {
        let log = self.log.read();
        log.end - RECORDS_AT - log.index.len() as u64 * (RECORD_HEAD_BYTES as u64 + BLOCK)
    }

    /// Writes what counts into a new file, and puts it in the place of the old one. Requests wait.
    /// A crash leaves one of the two.
    ///
    /// # Errors
    /// `ReadOnly`, `NoSpace` or `Failed`; the device goes on with the old file, mostly.
    pub async fn compact(&self) -> Result<()> {
        self.check_write(0, 0)?;
        self.run(|log| log.write().compact()).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RwLock<Log>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let log = self.log.clone();
        blocking(move || work(&log)).await
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device is read-only"));
        }
        self.geometry.check(offset, len)
    }
}

/// The parts of a range in one block each: block, start in it, length.
fn parts(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, end) = (offset, offset + len);
    std::iter::from_fn(move || {
        let (block, start) = (at / BLOCK, at % BLOCK);
        let here = (BLOCK - start).min(end - at);
        at += here;
        (here > 0).then_some((block, start as usize, here as usize))
    })
}

/// Changes a part of a block, and keeps the rest of it.
fn change(log: &mut Log, block: u64, start: usize, data: &[u8]) -> Result<()> {
    if data.len() == BLOCK_BYTES {
        return log.write(block, data);
    }
    let mut bytes = log.read(block)?.unwrap_or_else(|| Box::new([0; BLOCK_BYTES]));
    bytes[start..start + data.len()].copy_from_slice(data);
    log.write(block, &bytes[..])
}

fn zero(log: &mut Log, offset: u64, len: u64) -> Result<()> {
    let end = offset + len;
    let first = offset.div_ceil(BLOCK);
    let last = if end == log.size_bytes { end.div_ceil(BLOCK) } else { end / BLOCK };
    for (block, start, len) in [(offset, end.min(first * BLOCK)), (last.max(first) * BLOCK, end)]
        .into_iter()
        .filter(|(from, to)| from < to)
        .flat_map(|(from, to)| parts(from, to - from))
    {
        if log.index.contains_key(&block) {
            change(log, block, start, &[0; BLOCK_BYTES][..len])?;
        }
    }
    if first < last { log.zero(first, last - first) } else { Ok(()) }
}

#[async_trait]
impl Device for SparseDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.geometry.check(offset, buf.len() as u64)?;
        let len = buf.len();
        let read = self.run(move |log| {
            let log = log.read();
            let mut bytes = Vec::with_capacity(len);
            for (block, start, len) in parts(offset, len as u64) {
                match log.read(block)? {
                    Some(block) => bytes.extend_from_slice(&block[start..start + len]),
                    None => bytes.resize(bytes.len() + len, 0),
                }
            }
            Ok(bytes)
        });
        buf.copy_from_slice(&read.await?);
        Ok(Content::Data)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        self.run(move |log| {
            let (mut log, mut rest) = (log.write(), &data[..]);
            for (block, start, len) in parts(offset, data.len() as u64) {
                let (here, behind) = rest.split_at(len);
                change(&mut log, block, start, here)?;
                rest = behind;
            }
            Ok(())
        })
        .await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check_write(offset, len)?;
        self.run(move |log| zero(&mut log.write(), offset, len)).await
    }

    async fn flush(&self) -> Result<()> {
        if self.geometry.read_only {
            return Ok(());
        }
        self.run(|log| log.write().flush()).await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.geometry.check(offset, len)?;
        let (log, end) = (self.log.read(), offset + len);
        let (mut found, mut at) = (Vec::new(), offset);
        while at < end && found.len() < ranges_max {
            let block = at / BLOCK;
            let mut stored = log.index.range(block..).map(|(block, _)| *block);
            let hole = !log.index.contains_key(&block);
            let next = if hole {
                stored.next().unwrap_or(u64::MAX / BLOCK)
            } else {
                (block..).zip(stored).take_while(|(want, is)| want == is).count() as u64 + block
            };
            let next = (next * BLOCK).min(end);
            found.push(StatusRange { offset: at, length: next - at, hole });
            at = next;
        }
        Ok(found)
    }
}
