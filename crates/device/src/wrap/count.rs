//! Counts operations, bytes, errors and time of a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_core::env::Clock;

use crate::{Attempt, Content, Device, Geometry, Result, StatusRange};

/// Counts what passes to the device below.
pub struct Count {
    below: Arc<dyn Device>,
    clock: Arc<dyn Clock>,
    reads: Counter,
    writes: Counter,
    zeros: Counter,
    flushes: Counter,
}

/// The counts of a device, each from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: Tally,
    /// Writes.
    pub writes: Tally,
    /// Zeroings.
    pub zeros: Tally,
    /// Flushes, which have no bytes.
    pub flushes: Tally,
}

/// The counts of one kind of operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations that began. An attempt on the fast path that declined is none.
    pub operations: u64,
    /// Operations that succeeded or failed. The others are under way, or were dropped.
    pub ended: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Bytes of the operations that succeeded.
    pub bytes: u64,
    /// Time that the operations took which ended, together.
    pub time: Duration,
}

#[derive(Debug, Default)]
struct Counter {
    operations: AtomicU64,
    ended: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    time_ns: AtomicU64,
}

impl Counter {
    fn begin(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self, ok: bool, bytes: u64, time: Duration) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(!ok), Ordering::Relaxed);
        self.bytes.fetch_add(if ok { bytes } else { 0 }, Ordering::Relaxed);
        self.time_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn tally(&self) -> Tally {
        Tally {
            operations: self.operations.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.time_ns.load(Ordering::Relaxed)),
        }
    }
}

impl Count {
    /// Counts from now on.
    pub fn new(below: Arc<dyn Device>, clock: Arc<dyn Clock>) -> Self {
        let [reads, writes, zeros, flushes] = Default::default();
        Self { below, clock, reads, writes, zeros, flushes }
    }

    /// Gives the counts at this moment.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            reads: self.reads.tally(),
            writes: self.writes.tally(),
            zeros: self.zeros.tally(),
            flushes: self.flushes.tally(),
        }
    }

    fn attempt<T>(
        &self,
        to: &Counter,
        bytes: u64,
        call: impl FnOnce() -> Attempt<T>,
    ) -> Attempt<T> {
        let begun = self.clock.boot();
        let attempt = call();
        if !matches!(attempt, Attempt::WouldBlock) {
            to.begin();
            let ok = matches!(attempt, Attempt::Done(_));
            to.end(ok, bytes, self.clock.boot().saturating_sub(begun));
        }
        attempt
    }

    async fn count<T>(
        &self,
        to: &Counter,
        bytes: u64,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        to.begin();
        let begun = self.clock.boot();
        let result = call.await;
        to.end(result.is_ok(), bytes, self.clock.boot().saturating_sub(begun));
        result
    }
}

#[async_trait]
impl Device for Count {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.attempt(&self.reads, buf.len() as u64, || self.below.try_read(offset, buf))
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        self.attempt(&self.writes, data.len() as u64, || self.below.try_write(offset, data))
    }

    fn try_flush(&self) -> Attempt<()> {
        self.attempt(&self.flushes, 0, || self.below.try_flush())
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.count(&self.reads, buf.len() as u64, self.below.read(offset, buf)).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.count(&self.writes, data.len() as u64, self.below.write(offset, data)).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.count(&self.zeros, len, self.below.zero(offset, len)).await
    }

    async fn flush(&self) -> Result<()> {
        self.count(&self.flushes, 0, self.below.flush()).await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.below.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.below.prefetch(offset, len).await;
    }
}
