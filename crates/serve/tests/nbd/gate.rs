//! A memory disk that never answers at once: requests wait at a gate, and can be made to fail.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use skerry_serve::memory::MemoryExport;
use skerry_serve::{
    Content, Export, ExportInfo, IoError, IoErrorKind, StatusExtent, ZeroesOptions,
};
use tokio::sync::{Semaphore, watch};

/// Counts of requests that came to the gate and that passed it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) arrived: usize,
    pub(crate) left: usize,
}

pub(crate) struct Gate {
    inner: MemoryExport,
    open: Semaphore,
    passed: watch::Sender<Passed>,
    fails_with: Option<IoErrorKind>,
    panics: bool,
}

impl Gate {
    /// A disk whose gate is shut.
    pub(crate) fn shut(name: &str, size_bytes: u64) -> Arc<Self> {
        Self::build(name, size_bytes, 0, None, false)
    }

    /// A disk that declines every fast path and then answers.
    pub(crate) fn open(name: &str, size_bytes: u64) -> Arc<Self> {
        Self::build(name, size_bytes, Semaphore::MAX_PERMITS, None, false)
    }

    /// A disk on which everything fails.
    pub(crate) fn failing(name: &str, size_bytes: u64, kind: IoErrorKind) -> Arc<Self> {
        Self::build(name, size_bytes, Semaphore::MAX_PERMITS, Some(kind), false)
    }

    /// A disk that panics when its beginning is read.
    pub(crate) fn panicking(name: &str, size_bytes: u64) -> Arc<Self> {
        Self::build(name, size_bytes, Semaphore::MAX_PERMITS, None, true)
    }

    fn build(
        name: &str,
        size: u64,
        permits: usize,
        fails: Option<IoErrorKind>,
        panics: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryExport::new(name, size),
            open: Semaphore::new(permits),
            passed: watch::Sender::new(Passed::default()),
            fails_with: fails,
            panics,
        })
    }

    /// Lets `n` requests pass.
    pub(crate) fn let_pass(&self, n: usize) {
        self.open.add_permits(n);
    }

    pub(crate) fn passed(&self) -> Passed {
        *self.passed.borrow()
    }

    /// Waits until the counts are as wanted.
    pub(crate) async fn wait_until(&self, wanted: impl FnMut(&Passed) -> bool) {
        self.passed.subscribe().wait_for(wanted).await.expect("the gate exists");
    }

    async fn pass(&self) -> Result<(), IoError> {
        self.passed.send_modify(|p| p.arrived += 1);
        self.open.acquire().await.expect("never closed").forget();
        self.passed.send_modify(|p| p.left += 1);
        match self.fails_with {
            Some(kind) => Err(IoError::new(kind, "it was told to fail")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Export for Gate {
    fn info(&self) -> ExportInfo {
        self.inner.info()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content, IoError> {
        self.pass().await?;
        assert!(!self.panics || offset > 0, "a read that panics");
        self.inner.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), IoError> {
        self.pass().await?;
        self.inner.write(offset, data, fua).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.pass().await
    }

    async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError> {
        self.pass().await?;
        self.inner.trim(offset, len, fua).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, o: ZeroesOptions) -> Result<(), IoError> {
        self.pass().await?;
        self.inner.write_zeroes(offset, len, o).await
    }

    async fn cache(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.pass().await?;
        self.inner.cache(offset, len).await
    }

    async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<StatusExtent>, IoError> {
        self.pass().await?;
        self.inner.block_status(offset, len).await
    }
}
