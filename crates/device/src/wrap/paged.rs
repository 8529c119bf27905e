//! Maps pages of a large device onto a small one, in order of first use.
//!
//! A page takes a *slot* of the small device when it is first written, and gives the slot up when
//! it is zeroed whole. Pages without a slot read as zeros. Without a free slot, a write to a new
//! page fails as `NoSpace`.
//!
//! The map is in memory. A caller that keeps the small device flushes it, and then stores
//! [`Paged::pages`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::range_lock::RangeLock;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

/// A large device on a small one.
pub struct Paged {
    below: Arc<dyn Device>,
    geometry: Geometry,
    page_bytes: u64,
    map: Mutex<Map>,
    requests: RangeLock,
}

/// The slots of the small device.
#[derive(Debug)]
struct Map {
    slots: BTreeMap<u64, u64>,
    /// Given up, the last one first.
    free: Vec<u64>,
    /// The first that was never used.
    fresh: u64,
    count: u64,
}

/// Part of a request in one page.
struct Part {
    page: u64,
    start: u64,
    /// Of the request's bytes.
    place: Range<usize>,
}

impl Part {
    fn len(&self) -> u64 {
        self.place.len() as u64
    }
}

impl Map {
    fn allocate(&mut self) -> Option<u64> {
        self.free.pop().or_else(|| {
            let slot = self.fresh;
            self.fresh += u64::from(slot < self.count);
            (slot < self.count).then_some(slot)
        })
    }
}

impl Paged {
    /// Makes a device of `size_bytes` on `below`. `pages` are the pages that have a slot, from an
    /// earlier [`Paged::pages`].
    ///
    /// # Errors
    /// `Invalid` if a page is not a power of two, or less than a block of `below`. `Invalid` if
    /// `pages` don't fit: two have one slot, or it is not there.
    pub fn new(
        below: Arc<dyn Device>,
        size_bytes: u64,
        page_bytes: u64,
        pages: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Self> {
        let invalid = |text: &'static str| Error::new(ErrorKind::Invalid, text);
        let geometry = Geometry { size_bytes, ..below.geometry() };
        if !page_bytes.is_power_of_two() || page_bytes < u64::from(geometry.block_bytes) {
            return Err(invalid("a page is a power of two, and at least a block"));
        }
        let count = below.geometry().size_bytes / page_bytes;
        let slots: BTreeMap<u64, u64> = pages.into_iter().collect();
        let mut used: Vec<u64> = slots.values().copied().collect();
        used.sort_unstable();
        let fresh = used.last().map_or(0, |last| last + 1);
        if fresh > count || used.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(invalid("the pages do not fit the device"));
        }
        let free = (0..fresh).rev().filter(|slot| used.binary_search(slot).is_err()).collect();
        let map = Mutex::new(Map { slots, free, fresh, count });
        Ok(Self { below, geometry, page_bytes, map, requests: RangeLock::default() })
    }

    /// The pages that have a slot, and their slots, in order of pages.
    #[must_use]
    pub fn pages(&self) -> Vec<(u64, u64)> {
        self.map.lock().slots.iter().map(|(page, slot)| (*page, *slot)).collect()
    }

    fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = Part> + use<> {
        let (page_bytes, mut at, end) = (self.page_bytes, offset, offset + len);
        std::iter::from_fn(move || {
            let (page, start) = (at / page_bytes, at % page_bytes);
            let to = end.min((page + 1) * page_bytes);
            let place = (at - offset) as usize..(to - offset) as usize;
            at = to;
            (!place.is_empty()).then_some(Part { page, start, place })
        })
    }

    fn slot(&self, page: u64) -> Option<u64> {
        self.map.lock().slots.get(&page).copied()
    }

    /// True if a part covers its page, or what the device has of it.
    fn is_whole(&self, part: &Part) -> bool {
        let here = self.geometry.size_bytes - part.page * self.page_bytes;
        part.len() == self.page_bytes.min(here)
    }

    fn pages_of(&self, offset: u64, len: u64) -> Range<u64> {
        offset / self.page_bytes..(offset + len).div_ceil(self.page_bytes)
    }

    fn check_change(&self, offset: u64, len: u64) -> Result<()> {
        self.geometry.check(offset, len)?;
        if self.geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device is read-only"));
        }
        Ok(())
    }

    async fn write_part(&self, part: Part, data: Bytes) -> Result<()> {
        if let Some(slot) = self.slot(part.page) {
            return self.below.write(slot * self.page_bytes + part.start, data).await;
        }
        let Some(slot) = self.map.lock().allocate() else {
            return Err(Error::new(ErrorKind::NoSpace, "the device has no room for another page"));
        };
        let mut unused = Unused { paged: self, slot: Some(slot) };
        let place = slot * self.page_bytes;
        if !self.is_whole(&part) {
            self.below.zero(place, self.page_bytes).await?;
        }
        self.below.write(place + part.start, data).await?;
        unused.slot = None;
        self.map.lock().slots.insert(part.page, slot);
        Ok(())
    }

    async fn zero_part(&self, part: Part) -> Result<()> {
        let Some(slot) = self.slot(part.page) else { return Ok(()) };
        let place = slot * self.page_bytes;
        if !self.is_whole(&part) {
            return self.below.zero(place + part.start, part.len()).await;
        }
        self.below.zero(place, self.page_bytes).await?;
        let mut map = self.map.lock();
        map.slots.remove(&part.page);
        map.free.push(slot);
        Ok(())
    }
}

/// A slot that no page has yet. It is free again when this is dropped.
struct Unused<'a> {
    paged: &'a Paged,
    slot: Option<u64>,
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.paged.map.lock().free.push(slot);
        }
    }
}

#[async_trait]
impl Device for Paged {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        if let Err(error) = self.geometry.check(offset, buf.len() as u64) {
            return Attempt::Failed(error);
        }
        if self.pages_of(offset, buf.len() as u64).count() > 1 {
            return Attempt::WouldBlock;
        }
        // Held over the call: the slot stays the page's.
        let map = self.map.lock();
        match map.slots.get(&(offset / self.page_bytes)) {
            None => Attempt::Done(Content::Zeroes),
            Some(slot) => {
                self.below.try_read(slot * self.page_bytes + offset % self.page_bytes, buf)
            }
        }
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        let len = data.len() as u64;
        if let Err(error) = self.check_change(offset, len) {
            return Attempt::Failed(error);
        }
        let map = self.map.lock();
        match map.slots.get(&(offset / self.page_bytes)) {
            Some(slot) if self.pages_of(offset, len).count() == 1 => {
                self.below.try_write(slot * self.page_bytes + offset % self.page_bytes, data)
            }
            _ => Attempt::WouldBlock,
        }
    }

    fn try_flush(&self) -> Attempt<()> {
        self.below.try_flush()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.geometry.check(offset, buf.len() as u64)?;
        // A slot must not go to another page meanwhile.
        let _turn = self.requests.shared(self.pages_of(offset, buf.len() as u64)).await;
        let mut any = false;
        for part in self.parts(offset, buf.len() as u64) {
            let to = &mut buf[part.place];
            let content = match self.slot(part.page) {
                Some(slot) => self.below.read(slot * self.page_bytes + part.start, to).await?,
                None => Content::Zeroes,
            };
            match content {
                Content::Zeroes => to.fill(0),
                Content::Data => any = true,
            }
        }
        Ok(if any { Content::Data } else { Content::Zeroes })
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let len = data.len() as u64;
        self.check_change(offset, len)?;
        let _turn = self.requests.alone(self.pages_of(offset, len)).await;
        for part in self.parts(offset, len) {
            let data = data.slice(part.place.clone());
            self.write_part(part, data).await?;
        }
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check_change(offset, len)?;
        let _turn = self.requests.alone(self.pages_of(offset, len)).await;
        for part in self.parts(offset, len) {
            self.zero_part(part).await?;
        }
        Ok(())
    }

    async fn flush(&self) -> Result<()> {
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.geometry.check(offset, len)?;
        let map = self.map.lock();
        let range = |part: Part| StatusRange {
            offset: part.page * self.page_bytes + part.start,
            length: part.len(),
            hole: !map.slots.contains_key(&part.page),
        };
        Ok(self.parts(offset, len).take(ranges_max).map(range).collect())
    }
}
