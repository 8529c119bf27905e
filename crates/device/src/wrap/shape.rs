//! Adds latency, and bounds the rate of bytes, to be as slow as another device or line.
//!
//! Requests of one kind share a line. Each occupies the line for its bytes at the line's rate, one
//! after another. Latency comes on top, for each request by itself.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use skerry_core::env::Clock;

use super::sleep::Sleep;
use crate::{Attempt, Content, Device, Geometry, Result, StatusRange};

/// A device that is slower than the one below. What is shaped takes no fast path.
pub struct Shape {
    below: Arc<dyn Device>,
    clock: Arc<dyn Clock>,
    sleep: Arc<dyn Sleep>,
    reads: Line,
    writes: Line,
}

/// Bounds of reads, or of writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Time that each request takes besides its bytes.
    pub latency: Duration,
    /// Rate of all requests together, bytes a second; none for no bound.
    pub bytes_per_s: Option<NonZeroU64>,
}

struct Line {
    limits: Limits,
    /// Time since boot at which all bytes so far have passed.
    free_at: Mutex<Duration>,
}

impl Line {
    fn new(limits: Limits) -> Self {
        Self { limits, free_at: Mutex::default() }
    }

    fn is_open(&self) -> bool {
        self.limits == Limits::default()
    }

    /// Takes a place on the line; gives the time to wait.
    fn take(&self, now: Duration, bytes: u64) -> Duration {
        let Some(rate) = self.limits.bytes_per_s else { return self.limits.latency };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock();
        *free_at = now.max(*free_at).saturating_add(lasts);
        (*free_at - now).saturating_add(self.limits.latency)
    }
}

impl Shape {
    /// Slows `below` down. Zeroings and flushes are writes without bytes.
    pub fn new(
        below: Arc<dyn Device>,
        clock: Arc<dyn Clock>,
        sleep: Arc<dyn Sleep>,
        reads: Limits,
        writes: Limits,
    ) -> Self {
        Self { below, clock, sleep, reads: Line::new(reads), writes: Line::new(writes) }
    }

    async fn pass(&self, line: &Line, bytes: u64) {
        let wait = line.take(self.clock.boot(), bytes);
        if !wait.is_zero() {
            self.sleep.sleep(wait).await;
        }
    }
}

#[async_trait]
impl Device for Shape {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        match self.reads.is_open() {
            true => self.below.try_read(offset, buf),
            false => Attempt::WouldBlock,
        }
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        match self.writes.is_open() {
            true => self.below.try_write(offset, data),
            false => Attempt::WouldBlock,
        }
    }

    fn try_flush(&self) -> Attempt<()> {
        match self.writes.is_open() {
            true => self.below.try_flush(),
            false => Attempt::WouldBlock,
        }
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.pass(&self.reads, buf.len() as u64).await;
        self.below.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.pass(&self.writes, data.len() as u64).await;
        self.below.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.pass(&self.writes, 0).await;
        self.below.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        self.pass(&self.writes, 0).await;
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.below.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.below.prefetch(offset, len).await;
    }
}
