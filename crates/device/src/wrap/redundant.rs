//! Drops writes that change nothing, so that nothing is stored or sent for them.
//!
//! A write reads its range first, and writes the blocks that differ. Writes of one range run one
//! after another. Without that, a write could compare with bytes that an earlier write is about to
//! change, drop itself, and be lost.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::range_lock::RangeLock;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

/// Passes on what changes the device below. Its writes take no fast path: they read.
pub struct Redundant {
    below: Arc<dyn Device>,
    writes: RangeLock,
    dropped_bytes: AtomicU64,
}

impl Redundant {
    /// Drops writes to `below` that change nothing. All writes to `below` must pass here.
    pub fn new(below: Arc<dyn Device>) -> Self {
        Self { below, writes: RangeLock::default(), dropped_bytes: AtomicU64::new(0) }
    }

    /// Bytes of writes and zeroings that were dropped, or not passed on as a part of one.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes.load(Ordering::Relaxed)
    }

    fn check(&self, offset: u64, len: u64) -> Result<Range<u64>> {
        let geometry = self.below.geometry();
        geometry.check(offset, len)?;
        if geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device is read-only"));
        }
        Ok(offset..offset + len)
    }

    /// True if nothing is stored in a range. A range of zeros that is stored is given up later.
    async fn is_hole(&self, range: &Range<u64>) -> Result<bool> {
        let mut at = range.start;
        while at < range.end {
            for found in self.below.status(at, range.end - at, 16).await? {
                if !found.hole {
                    return Ok(false);
                }
                at = found.offset + found.length;
            }
        }
        Ok(true)
    }
}

/// The runs of blocks in which two texts at `offset` differ, as ranges of the texts.
fn differing(old: &[u8], new: &[u8], offset: u64, block_bytes: u64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < new.len() {
        let here = block_bytes - (offset + at as u64) % block_bytes;
        let end = (at as u64 + here).min(new.len() as u64) as usize;
        if old.get(at..end) != new.get(at..end) {
            match runs.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => runs.push(at..end),
            }
        }
        at = end;
    }
    runs
}

#[async_trait]
impl Device for Redundant {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.below.try_read(offset, buf)
    }

    fn try_flush(&self) -> Attempt<()> {
        self.below.try_flush()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.below.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let range = self.check(offset, data.len() as u64)?;
        let _turn = self.writes.alone(range).await;
        let mut old = vec![0; data.len()];
        if self.below.read(offset, &mut old).await? == Content::Zeroes {
            old.fill(0);
        }
        let block_bytes = u64::from(self.below.geometry().block_bytes);
        let mut same = data.len();
        for run in differing(&old, &data, offset, block_bytes) {
            same -= run.len();
            self.below.write(offset + run.start as u64, data.slice(run)).await?;
        }
        self.dropped_bytes.fetch_add(same as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let range = self.check(offset, len)?;
        let _turn = self.writes.alone(range.clone()).await;
        if self.is_hole(&range).await? {
            self.dropped_bytes.fetch_add(len, Ordering::Relaxed);
            return Ok(());
        }
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
