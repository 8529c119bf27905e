//! A memory disk that never answers at once: requests wait at a gate, and can be made to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use skerry_device::memory::MemoryDevice;
use skerry_device::{Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};
use tokio::sync::{Semaphore, watch};

/// Counts of requests that came to the gate and that passed it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) arrived: usize,
    pub(crate) left: usize,
}

pub(crate) struct Gate {
    inner: MemoryDevice,
    open: Semaphore,
    passed: watch::Sender<Passed>,
    flushes: AtomicUsize,
    fails_with: Option<ErrorKind>,
    panics: bool,
}

impl Gate {
    /// A disk whose gate is shut.
    pub(crate) fn shut(size_bytes: u64) -> Arc<Self> {
        Self::build(size_bytes, 0, None, false)
    }

    /// A disk that declines every fast path and then answers.
    pub(crate) fn open(size_bytes: u64) -> Arc<Self> {
        Self::build(size_bytes, Semaphore::MAX_PERMITS, None, false)
    }

    /// A disk on which everything fails.
    pub(crate) fn failing(size_bytes: u64, kind: ErrorKind) -> Arc<Self> {
        Self::build(size_bytes, Semaphore::MAX_PERMITS, Some(kind), false)
    }

    /// A disk that panics when its beginning is read.
    pub(crate) fn panicking(size_bytes: u64) -> Arc<Self> {
        Self::build(size_bytes, Semaphore::MAX_PERMITS, None, true)
    }

    fn build(size: u64, permits: usize, fails: Option<ErrorKind>, panics: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryDevice::new(size),
            open: Semaphore::new(permits),
            passed: watch::Sender::new(Passed::default()),
            flushes: AtomicUsize::new(0),
            fails_with: fails,
            panics,
        })
    }

    /// Lets `n` requests pass.
    pub(crate) fn let_pass(&self, n: usize) {
        self.open.add_permits(n);
    }

    /// Number of flushes so far.
    pub(crate) fn flushes(&self) -> usize {
        self.flushes.load(Ordering::Relaxed)
    }

    pub(crate) fn passed(&self) -> Passed {
        *self.passed.borrow()
    }

    /// Waits until the counts are as wanted.
    pub(crate) async fn wait_until(&self, wanted: impl FnMut(&Passed) -> bool) {
        self.passed.subscribe().wait_for(wanted).await.expect("the gate exists");
    }

    async fn pass(&self) -> Result<()> {
        self.passed.send_modify(|p| p.arrived += 1);
        self.open.acquire().await.expect("never closed").forget();
        self.passed.send_modify(|p| p.left += 1);
        match self.fails_with {
            Some(kind) => Err(Error::new(kind, "it was told to fail")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Device for Gate {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.pass().await?;
        assert!(!self.panics || offset > 0, "a read that panics");
        self.inner.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.pass().await?;
        self.inner.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.pass().await?;
        self.inner.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.pass().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.pass().await?;
        self.inner.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        if self.pass().await.is_ok() {
            self.inner.prefetch(offset, len).await;
        }
    }
}
