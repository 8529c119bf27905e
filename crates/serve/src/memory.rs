//! An export in memory: the reference for the traits' meaning, for tests, examples and benches.
//!
//! Sparse in pages. Ranges that were never written, or were trimmed or zeroed with leave to punch
//! holes, take no memory and read as zeroes. Everything is "durable" at once, and nothing ever
//! waits.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::export::{
    Attempt, ClientInfo, Content, Export, ExportInfo, Exports, IoError, OpenError, StatusExtent,
    ZeroesOptions,
};

/// The unit of allocation, and of locking.
const PAGE_BYTES: usize = 64 << 10;

type Page = RwLock<Option<Box<[u8]>>>;

/// A disk in memory.
pub struct MemoryExport {
    info: ExportInfo,
    pages: Vec<Page>,
}

impl MemoryExport {
    /// An empty disk of `size_bytes`, with 512-byte sectors.
    #[must_use]
    pub fn new(name: &str, size_bytes: u64) -> Self {
        let info = ExportInfo {
            name: name.to_owned(),
            description: "in memory".to_owned(),
            size_bytes,
            read_only: false,
            block_bytes_min: 512,
            block_bytes_preferred: 4096,
        };
        let count = size_bytes.div_ceil(PAGE_BYTES as u64);
        Self { info, pages: (0..count).map(|_| Page::default()).collect() }
    }

    /// Refuses writes from now on.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.info.read_only = true;
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

    fn read_now(&self, offset: u64, buf: &mut [u8]) -> Content {
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
        if any { Content::Data } else { Content::Zeroes }
    }

    fn write_now(&self, offset: u64, data: &[u8]) {
        let mut at = 0;
        for (page, start, len) in self.parts(offset, data.len() as u64) {
            let mut page = page.write();
            let bytes = page.get_or_insert_with(|| vec![0; PAGE_BYTES].into_boxed_slice());
            bytes[start..start + len].copy_from_slice(&data[at..at + len]);
            at += len;
        }
    }

    fn zero_now(&self, offset: u64, len: u64, punch_hole: bool) {
        for (page, start, len) in self.parts(offset, len) {
            let mut page = page.write();
            if punch_hole && len == PAGE_BYTES {
                *page = None;
            } else if punch_hole {
                if let Some(bytes) = page.as_deref_mut() {
                    bytes[start..start + len].fill(0);
                }
            } else {
                let bytes = page.get_or_insert_with(|| vec![0; PAGE_BYTES].into_boxed_slice());
                bytes[start..start + len].fill(0);
            }
        }
    }
}

#[async_trait]
impl Export for MemoryExport {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        Attempt::Done(self.read_now(offset, buf))
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        self.write_now(offset, data);
        Attempt::Done(())
    }

    fn try_flush(&self) -> Attempt<()> {
        Attempt::Done(())
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content, IoError> {
        Ok(self.read_now(offset, buf))
    }

    async fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Result<(), IoError> {
        self.write_now(offset, &data);
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    async fn trim(&self, offset: u64, len: u64, _fua: bool) -> Result<(), IoError> {
        self.zero_now(offset, len, true);
        Ok(())
    }

    async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        options: ZeroesOptions,
    ) -> Result<(), IoError> {
        if options.fast_only && !options.punch_hole {
            let kind = crate::IoErrorKind::NotSupported;
            return Err(IoError::new(kind, "zeroing without a hole writes every byte"));
        }
        self.zero_now(offset, len, options.punch_hole);
        Ok(())
    }

    async fn cache(&self, _offset: u64, _len: u64) -> Result<(), IoError> {
        Ok(())
    }

    async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<StatusExtent>, IoError> {
        let extents = self.parts(offset, len).map(|(page, _, len)| {
            let hole = page.read().is_none();
            StatusExtent { len_bytes: len as u64, hole, zero: hole }
        });
        Ok(extents.collect())
    }
}

/// A fixed set of exports; the first is the default.
#[derive(Default)]
pub struct FixedExports {
    exports: Vec<Arc<dyn Export>>,
}

impl FixedExports {
    /// Serves these exports.
    #[must_use]
    pub fn new(exports: Vec<Arc<dyn Export>>) -> Self {
        Self { exports }
    }
}

#[async_trait]
impl Exports for FixedExports {
    async fn list(&self) -> Result<Vec<String>, OpenError> {
        Ok(self.exports.iter().map(|export| export.info().name).collect())
    }

    async fn open(&self, name: &str, _client: &ClientInfo) -> Result<Arc<dyn Export>, OpenError> {
        let mut exports = self.exports.iter();
        let found = match name {
            "" => exports.next(),
            _ => exports.find(|export| export.info().name == name),
        };
        found.cloned().ok_or_else(|| OpenError::NotFound { name: name.to_owned() })
    }
}
