//! Notes blocks that changed since they were last taken, for copying them.
//!
//! A block is marked *after* the write below it returned, failed or was dropped, and before the
//! write is answered. A mark before the write is not enough. A copier could take the mark, read
//! the old bytes, and find no mark later.
//!
//! So after a take, every byte that a later read may find different is marked, or belongs to a
//! write under way. Holding requests ([`gate`](super::gate)) ends the writes under way.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use skerry_core::env::Clock;

use self::marks::Marks;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

mod marks;

/// Sub-blocks of a block at most: a mark keeps one bit for each.
pub const SUB_BLOCKS_MAX: u64 = 64;

/// Notes what changes on the device below. It begins with nothing marked.
pub struct Dirty {
    below: Arc<dyn Device>,
    clock: Arc<dyn Clock>,
    sizes: Sizes,
    marks: Mutex<Marks>,
}

/// The units in which changes are noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The unit that is taken, bytes: a power of two. The device's last block may be shorter.
    pub block_bytes: u64,
    /// The unit in which changes are noted, bytes: a power of two, and `block_bytes` /
    /// [`SUB_BLOCKS_MAX`] at least.
    pub sub_block_bytes: u64,
}

/// A choice among the blocks that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Blocks whose first change since they were last taken is at least so old come first, the
    /// oldest before the others.
    pub age_max: Duration,
    /// Younger blocks follow if so many of their sub-blocks changed; the most changed come first.
    pub changed_min: u32,
    /// Number of blocks at most.
    pub blocks_max: usize,
}

impl Wanted {
    /// Every block that changed.
    pub const ALL: Self = Self { age_max: Duration::ZERO, changed_min: 0, blocks_max: usize::MAX };
}

/// A block that changed since it was last taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Number of the block.
    pub block: u64,
    /// Time of the first change, by the clock's time since boot.
    pub since: Duration,
    /// The sub-blocks that changed: the lowest bit is the block's first.
    pub sub_blocks: u64,
}

impl Sizes {
    fn check(self) -> Result<()> {
        let Self { block_bytes: block, sub_block_bytes: sub } = self;
        let fits = sub <= block && block.checked_div(sub).is_some_and(|n| n <= SUB_BLOCKS_MAX);
        if block.is_power_of_two() && sub.is_power_of_two() && fits {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, format!("a block of {block} bytes in parts of {sub}")))
    }

    /// Gives the runs of bytes that changed in a block, in order, of a device of `size_bytes`.
    #[must_use]
    pub fn runs(self, changed: &Changed, size_bytes: u64) -> Vec<Range<u64>> {
        let start = changed.block * self.block_bytes;
        let mut runs: Vec<Range<u64>> = Vec::new();
        for sub in (0..SUB_BLOCKS_MAX).filter(|sub| changed.sub_blocks >> sub & 1 == 1) {
            let from = start + sub * self.sub_block_bytes;
            let to = (from + self.sub_block_bytes).min(size_bytes);
            match runs.last_mut() {
                Some(last) if last.end == from => last.end = to,
                _ => runs.push(from..to),
            }
        }
        runs
    }
}

impl Dirty {
    /// Notes what changes on `below` from now on.
    ///
    /// # Errors
    /// `Invalid` if `sizes` break a rule of theirs.
    pub fn new(below: Arc<dyn Device>, clock: Arc<dyn Clock>, sizes: Sizes) -> Result<Self> {
        sizes.check()?;
        Ok(Self { below, clock, sizes, marks: Mutex::default() })
    }

    /// Takes blocks that changed. They are unmarked from now on: read them after this call.
    #[must_use = "the blocks are unmarked, and must be copied"]
    pub fn take(&self, wanted: &Wanted) -> Vec<Changed> {
        self.marks.lock().take(self.clock.boot(), wanted)
    }

    /// Marks a block again that was taken and could not be copied. It keeps its age.
    pub fn put_back(&self, changed: &Changed) {
        self.marks.lock().add(changed.block, changed.sub_blocks, changed.since);
    }

    /// Number of blocks that are marked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.marks.lock().len()
    }

    /// Marks every block that a range touches, as far as it lies in the device.
    fn mark(&self, offset: u64, len: u64) {
        let Sizes { block_bytes, sub_block_bytes } = self.sizes;
        let end = offset.saturating_add(len).min(self.below.geometry().size_bytes);
        if offset >= end {
            return;
        }
        let now = self.clock.boot();
        let mut marks = self.marks.lock();
        for block in offset / block_bytes..=(end - 1) / block_bytes {
            let start = block * block_bytes;
            let first = offset.saturating_sub(start) / sub_block_bytes;
            let last = (end - 1 - start).min(block_bytes - 1) / sub_block_bytes;
            marks.add(block, bits(first, last), now);
        }
    }
}

/// The bits from `first` to `last`, both included.
fn bits(first: u64, last: u64) -> u64 {
    u64::MAX >> (SUB_BLOCKS_MAX - 1 - (last - first)) << first
}

/// Marks a range when it is dropped: when the write below has ended, however it ended.
struct MarkAtEnd<'a> {
    dirty: &'a Dirty,
    offset: u64,
    len: u64,
}

impl Drop for MarkAtEnd<'_> {
    fn drop(&mut self) {
        self.dirty.mark(self.offset, self.len);
    }
}

#[async_trait]
impl Device for Dirty {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.below.try_read(offset, buf)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        let attempt = self.below.try_write(offset, data);
        if !matches!(attempt, Attempt::WouldBlock) {
            self.mark(offset, data.len() as u64);
        }
        attempt
    }

    fn try_flush(&self) -> Attempt<()> {
        self.below.try_flush()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.below.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let _mark = MarkAtEnd { dirty: self, offset, len: data.len() as u64 };
        self.below.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let _mark = MarkAtEnd { dirty: self, offset, len };
        self.below.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.below.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.below.prefetch(offset, len).await;
    }
}
