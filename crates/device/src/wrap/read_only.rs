//! Refuses writes: what is below stays as it is.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

/// A device that takes no writes, whatever the device below takes.
pub struct ReadOnly {
    below: Arc<dyn Device>,
}

impl ReadOnly {
    /// Refuses writes to `below`.
    pub fn new(below: Arc<dyn Device>) -> Self {
        Self { below }
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::ReadOnly, "the device is read-only")
}

#[async_trait]
impl Device for ReadOnly {
    fn geometry(&self) -> Geometry {
        Geometry { read_only: true, ..self.below.geometry() }
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.below.try_read(offset, buf)
    }

    fn try_write(&self, _offset: u64, _data: &[u8]) -> Attempt<()> {
        Attempt::Failed(refused())
    }

    fn try_flush(&self) -> Attempt<()> {
        self.below.try_flush()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.below.read(offset, buf).await
    }

    async fn write(&self, _offset: u64, _data: Bytes) -> Result<()> {
        Err(refused())
    }

    async fn zero(&self, _offset: u64, _len: u64) -> Result<()> {
        Err(refused())
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
