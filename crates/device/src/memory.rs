//! A device in memory: the reference for the trait's meaning, for tests, examples and benches.
//!
//! Sparse in pages. Ranges that were never written, and pages that were zeroed as a whole, take no
//! memory. Everything is "durable" at once, and nothing ever waits.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::{
    Attempt, Content, Device, Error, ErrorKind, Geometry, Result, SECTOR_BYTES_MIN, StatusRange,
};

/// The unit of allocation, and of locking.
const PAGE_BYTES: usize = 64 << 10;

/// The advised alignment: that of volumes.
const BLOCK_BYTES: u32 = 4096;

type Page = RwLock<Option<Box<[u8]>>>;

/// A disk in memory.
pub struct MemoryDevice {
    geometry: Geometry,
    pages: Vec<Page>,
}

impl MemoryDevice {
    /// Makes an empty disk of `size_bytes`, with 512-byte sectors. The last one may be
    /// short.
    #[must_use]
    pub fn new(size_bytes: u64) -> Self {
        let geometry = Geometry {
            size_bytes,
            sector_bytes: SECTOR_BYTES_MIN,
            block_bytes: BLOCK_BYTES,
            read_only: false,
        };
        let count = size_bytes.div_ceil(PAGE_BYTES as u64);
        Self { geometry, pages: (0..count).map(|_| Page::default()).collect() }
    }

    /// Refuses writes from now on.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.geometry.read_only = true;
        self
    }

    /// Splits a range into its parts in one page each: page, start in it, length.
    fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = (&Page, usize, usize)> {
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            let index = (at / PAGE_BYTES as u64) as usize;
            let start = (at % PAGE_BYTES as u64) as usize;
            let here = (PAGE_BYTES - start).min((end - at) as usize);
            if here == 0 {
                return None;
            }
            at += here as u64;
            self.pages.get(index).map(|page| (page, start, here))
        })
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device is read-only"));
        }
        self.geometry.check(offset, len)
    }

    fn read_now(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.geometry.check(offset, buf.len() as u64)?;
        let mut at = 0;
        let mut any = false;
        for (page, start, len) in self.parts(offset, buf.len() as u64) {
            let to = at + len;
            match &*page.read() {
                Some(bytes) => {
                    if !any {
                        buf[..at].fill(0);
                        any = true;
                    }
                    buf[at..to].copy_from_slice(&bytes[start..start + len]);
                }
                None if any => buf[at..to].fill(0),
                None => {}
            }
            at = to;
        }
        Ok(if any { Content::Data } else { Content::Zeroes })
    }

    fn write_now(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        let mut at = 0;
        for (page, start, len) in self.parts(offset, data.len() as u64) {
            let mut page = page.write();
            let bytes = page.get_or_insert_with(|| vec![0; PAGE_BYTES].into_boxed_slice());
            bytes[start..start + len].copy_from_slice(&data[at..at + len]);
            at += len;
        }
        Ok(())
    }
}

fn done<T>(result: Result<T>) -> Attempt<T> {
    match result {
        Ok(done) => Attempt::Done(done),
        Err(error) => Attempt::Failed(error),
    }
}

#[async_trait]
impl Device for MemoryDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        done(self.read_now(offset, buf))
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        done(self.write_now(offset, data))
    }

    fn try_flush(&self) -> Attempt<()> {
        Attempt::Done(())
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.read_now(offset, buf)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.write_now(offset, &data)
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check_write(offset, len)?;
        for (page, start, len) in self.parts(offset, len) {
            let mut page = page.write();
            if len == PAGE_BYTES {
                *page = None;
            } else if let Some(bytes) = page.as_deref_mut() {
                bytes[start..start + len].fill(0);
            }
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.geometry.check(offset, len)?;
        let mut at = offset;
        let ranges = self.parts(offset, len).map(|(page, _, len)| {
            let here = at;
            at += len as u64;
            StatusRange { offset: here, length: len as u64, hole: page.read().is_none() }
        });
        Ok(ranges.take(ranges_max).collect())
    }
}
