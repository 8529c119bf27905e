//! Copies on write: a base that never changes, and a second device with the blocks that differ.
//!
//! ```text
//! read ──► copied? ──yes──► copies          write of part of a block: base ─► copies, then write
//!             └─────no───► base             write of a whole block:   copies
//! ```
//!
//! The second device also has the map of what is copied, and the identity of the base. Its layout
//! is in `docs/format.md`, "Overlay of a device". Must hold:
//!
//! - a block counts as copied in memory only after all its bytes are in the copies;
//! - the map on the device says so only after those bytes are durable there;
//! - the base is the one for which the copies were made: an overlay that finds another refuses.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::lock::Mutex as AsyncMutex;
use parking_lot::RwLock;

pub use self::layout::Identity;
use self::layout::{Head, PAGE_BYTES};
use super::block_set::BlockSet;
use super::range_lock::RangeLock;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

mod layout;

/// Bytes that are read at once to hash a base.
const HASH_READ_BYTES: u64 = 1 << 20;

/// A device that begins as its base, and keeps what is written to it elsewhere.
pub struct Overlay {
    base: Arc<dyn Device>,
    copies: Arc<dyn Device>,
    head: Head,
    geometry: Geometry,
    map: RwLock<Map>,
    changes: RangeLock,
    flushes: AsyncMutex<()>,
}

struct Map {
    copied: BlockSet,
    /// Pages of the map that the second device lacks.
    unwritten: BTreeSet<u64>,
}

impl Overlay {
    /// Size that the second device needs for a base of `size_bytes`.
    #[must_use]
    pub fn copies_bytes(size_bytes: u64, block_bytes: u32) -> u64 {
        layout::data_offset(size_bytes, block_bytes) + size_bytes
    }

    /// Makes `copies` an overlay of `base`, in blocks of `block_bytes`: a power of two, at least
    /// 512. `given` is an id that names the base's content for good. Without one, the identity is
    /// the hash of the base, which is read whole here and whenever the overlay is opened.
    ///
    /// # Errors
    /// `Invalid` if `copies` is too small, begins with anything but zeros, or a size makes no
    /// sense. An error of either device.
    pub async fn create(
        base: Arc<dyn Device>,
        copies: Arc<dyn Device>,
        block_bytes: u32,
        given: Option<[u8; 16]>,
    ) -> Result<Self> {
        let size_bytes = base.geometry().size_bytes;
        if !block_bytes.is_power_of_two() || block_bytes < PAGE_BYTES as u32 {
            return Err(invalid(format!("an overlay in blocks of {block_bytes} bytes")));
        }
        check_room(&*copies, size_bytes, block_bytes)?;
        if read_page(&*copies, 0).await?.iter().any(|byte| *byte != 0) {
            return Err(invalid("the device for the copies holds something already"));
        }
        let identity = identify(&*base, given).await?;
        let head = Head { block_bytes, size_bytes, identity };
        copies.zero(0, layout::data_offset(size_bytes, block_bytes)).await?;
        copies.flush().await?;
        copies.write(0, head.encode()).await?;
        copies.flush().await?;
        Ok(Self::of(base, copies, head, BlockSet::new(head.blocks())))
    }

    /// Opens an overlay that was created before. `given` is as it was then.
    ///
    /// # Errors
    /// `Invalid` if `copies` is no overlay, or that of another base. `Failed` if its map is
    /// damaged. An error of either device.
    pub async fn open(
        base: Arc<dyn Device>,
        copies: Arc<dyn Device>,
        given: Option<[u8; 16]>,
    ) -> Result<Self> {
        let head = Head::decode(&read_page(&*copies, 0).await?)?;
        check_room(&*copies, head.size_bytes, head.block_bytes)?;
        let found = match head.identity {
            Identity::Hash(_) => identify(&*base, None).await?,
            Identity::Given(_) => identify(&*base, Some(given.unwrap_or_default())).await?,
        };
        if found != head.identity || base.geometry().size_bytes != head.size_bytes {
            let text = format!("the overlay is of base {}, not of {found}", head.identity);
            return Err(invalid(text));
        }
        let mut copied = BlockSet::new(head.blocks());
        for page in 0..head.pages() {
            let bytes = read_page(&*copies, head.page_offset(page)).await?;
            layout::decode_page(&bytes, page, &mut copied)?;
        }
        Ok(Self::of(base, copies, head, copied))
    }

    fn of(base: Arc<dyn Device>, copies: Arc<dyn Device>, head: Head, copied: BlockSet) -> Self {
        let (one, other) = (base.geometry(), copies.geometry());
        let geometry = Geometry {
            size_bytes: head.size_bytes,
            sector_bytes: one.sector_bytes.max(other.sector_bytes),
            block_bytes: one.block_bytes.max(other.block_bytes),
            read_only: other.read_only,
        };
        let map = RwLock::new(Map { copied, unwritten: BTreeSet::new() });
        let (changes, flushes) = (RangeLock::default(), AsyncMutex::new(()));
        Self { base, copies, head, geometry, map, changes, flushes }
    }

    /// Identity of the base.
    #[must_use]
    pub fn base(&self) -> Identity {
        self.head.identity
    }

    /// Number of blocks that are copied.
    #[must_use]
    pub fn copied_blocks(&self) -> u64 {
        self.map.read().copied.len()
    }

    /// Offset of a byte in the copies.
    fn place(&self, offset: u64) -> u64 {
        layout::data_offset(self.head.size_bytes, self.head.block_bytes) + offset
    }

    fn block(&self, offset: u64) -> u64 {
        offset / u64::from(self.head.block_bytes)
    }

    /// The first run of a range that is all copied, or not at all.
    fn run(&self, range: &Range<u64>) -> (bool, Range<u64>) {
        let map = self.map.read();
        let (first, last) = (self.block(range.start), self.block(range.end.saturating_sub(1)));
        let copied = map.copied.contains(first);
        let until = (first..=last).find(|block| map.copied.contains(*block) != copied);
        let end = until.map_or(range.end, |block| block * u64::from(self.head.block_bytes));
        (copied, range.start..end)
    }

    /// Copies a block that a change covers in part, unless it is copied.
    async fn copy_up(&self, block: u64) -> Result<()> {
        let block_bytes = u64::from(self.head.block_bytes);
        let start = block * block_bytes;
        let end = (start + block_bytes).min(self.head.size_bytes);
        if self.run(&(start..end)).0 {
            return Ok(());
        }
        let mut buf = vec![0; (end - start) as usize];
        match self.base.read(start, &mut buf).await? {
            Content::Data => self.copies.write(self.place(start), buf.into()).await?,
            Content::Zeroes => self.copies.zero(self.place(start), end - start).await?,
        }
        self.mark(block..block + 1);
        Ok(())
    }

    fn mark(&self, blocks: Range<u64>) {
        let mut map = self.map.write();
        for block in blocks {
            if map.copied.insert(block) {
                map.unwritten.insert(layout::page_of(block));
            }
        }
    }

    /// Changes a range of the copies. `data` is none for zeros.
    async fn change(&self, range: Range<u64>, data: Option<Bytes>) -> Result<()> {
        self.geometry.check(range.start, range.end - range.start)?;
        if self.geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device for the copies is read-only"));
        }
        let block_bytes = u64::from(self.head.block_bytes);
        let blocks = self.block(range.start)..self.block(range.end - 1) + 1;
        let bytes = blocks.start * block_bytes..blocks.end * block_bytes;
        let _turn = self.changes.alone(bytes.clone()).await;
        if range.start > bytes.start {
            self.copy_up(blocks.start).await?;
        }
        if range.end < bytes.end.min(self.head.size_bytes) {
            self.copy_up(blocks.end - 1).await?;
        }
        let (place, len) = (self.place(range.start), range.end - range.start);
        match data {
            Some(data) => self.copies.write(place, data).await?,
            None => self.copies.zero(place, len).await?,
        }
        self.mark(blocks);
        Ok(())
    }

    /// Takes the pages of the map to write, as they are now.
    fn take_pages(&self) -> Unwritten<'_> {
        let mut map = self.map.write();
        let pages = std::mem::take(&mut map.unwritten);
        let page = |page: &u64| (*page, layout::encode_page(*page, &map.copied));
        Unwritten { overlay: self, pages: pages.iter().map(page).collect() }
    }
}

/// Pages of the map on their way. Those not written are unwritten again when this is dropped.
struct Unwritten<'a> {
    overlay: &'a Overlay,
    pages: Vec<(u64, Bytes)>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.overlay.map.write().unwritten.extend(self.pages.iter().map(|(page, _)| *page));
    }
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

fn check_room(copies: &dyn Device, size_bytes: u64, block_bytes: u32) -> Result<()> {
    let needed = Overlay::copies_bytes(size_bytes, block_bytes);
    if copies.geometry().size_bytes < needed {
        return Err(invalid(format!("the device for the copies needs {needed} bytes")));
    }
    Ok(())
}

async fn read_page(device: &dyn Device, offset: u64) -> Result<[u8; PAGE_BYTES]> {
    let mut page = [0; PAGE_BYTES];
    if device.read(offset, &mut page).await? == Content::Zeroes {
        page = [0; PAGE_BYTES];
    }
    Ok(page)
}

/// The identity of a base: the id that is given, or the hash of all its bytes.
async fn identify(base: &dyn Device, given: Option<[u8; 16]>) -> Result<Identity> {
    if let Some(id) = given {
        return Ok(Identity::Given(id));
    }
    let size = base.geometry().size_bytes;
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < size {
        let mut buf = vec![0; HASH_READ_BYTES.min(size - at) as usize];
        if base.read(at, &mut buf).await? == Content::Zeroes {
            buf.fill(0);
        }
        hasher.update(&buf);
        at += buf.len() as u64;
    }
    Ok(Identity::Hash(*hasher.finalize().as_bytes()))
}

#[async_trait]
impl Device for Overlay {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        if range.end > self.geometry.size_bytes {
            return Attempt::WouldBlock;
        }
        match self.run(&range) {
            (_, run) if run != range => Attempt::WouldBlock,
            (true, _) => self.copies.try_read(self.place(offset), buf),
            (false, _) => self.base.try_read(offset, buf),
        }
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        let range = offset..offset.saturating_add(data.len() as u64);
        if range.end > self.geometry.size_bytes || self.run(&range) != (true, range) {
            return Attempt::WouldBlock;
        }
        self.copies.try_write(self.place(offset), data)
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.geometry.check(offset, buf.len() as u64)?;
        let end = offset + buf.len() as u64;
        let (mut at, mut any) = (offset, false);
        while at < end {
            let (copied, run) = self.run(&(at..end));
            let place = (run.start - offset) as usize..(run.end - offset) as usize;
            let content = if copied {
                self.copies.read(self.place(at), &mut buf[place.clone()]).await?
            } else {
                self.base.read(at, &mut buf[place.clone()]).await?
            };
            match content {
                Content::Zeroes => buf[place].fill(0),
                Content::Data => any = true,
            }
            at = run.end;
        }
        Ok(if any { Content::Data } else { Content::Zeroes })
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.change(offset..offset.saturating_add(data.len() as u64), Some(data)).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.change(offset..offset.saturating_add(len), None).await
    }

    async fn flush(&self) -> Result<()> {
        // One at a time: a later flush must not pass while pages that it needs are on their way.
        let _alone = self.flushes.lock().await;
        let mut unwritten = self.take_pages();
        self.copies.flush().await?;
        if unwritten.pages.is_empty() {
            return Ok(());
        }
        for (page, bytes) in &unwritten.pages {
            self.copies.write(self.head.page_offset(*page), bytes.clone()).await?;
        }
        self.copies.flush().await?;
        unwritten.pages.clear();
        Ok(())
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.geometry.check(offset, len)?;
        let (copied, run) = self.run(&(offset..offset + len));
        let len = run.end - offset;
        let mut ranges = if copied {
            self.copies.status(self.place(offset), len, ranges_max).await?
        } else {
            self.base.status(offset, len, ranges_max).await?
        };
        let shift = if copied { self.place(0) } else { 0 };
        for range in &mut ranges {
            range.offset -= shift;
            range.length = range.length.min(run.end.saturating_sub(range.offset));
        }
        ranges.retain(|range| range.length > 0);
        Ok(ranges)
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        if self.geometry.check(offset, len).is_ok() {
            match self.run(&(offset..offset + len)) {
                (true, run) => {
                    self.copies.prefetch(self.place(offset), run.end - run.start).await;
                }
                (false, run) => self.base.prefetch(offset, run.end - run.start).await,
            }
        }
    }
}
