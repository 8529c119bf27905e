//! Splits requests at the multiples of a size, for a device that takes no larger ones.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

/// Passes on each part of a request between two boundaries as a request of its own.
pub struct Split {
    below: Arc<dyn Device>,
    boundary_bytes: u64,
    parts_max: usize,
}

impl Split {
    /// Splits at the multiples of `boundary_bytes`, and has `parts_max` parts of a request under
    /// way at once.
    ///
    /// # Errors
    /// `Invalid` if one of both is 0.
    pub fn new(below: Arc<dyn Device>, boundary_bytes: u64, parts_max: usize) -> Result<Self> {
        if boundary_bytes == 0 || parts_max == 0 {
            return Err(Error::new(ErrorKind::Invalid, "split into nothing"));
        }
        Ok(Self { below, boundary_bytes, parts_max })
    }

    fn is_one(&self, offset: u64, len: u64) -> bool {
        offset % self.boundary_bytes + len <= self.boundary_bytes
    }

    /// The parts of a range, in order. Refuses a range past the end, of which no part may run.
    fn parts(&self, offset: u64, len: u64) -> Result<Vec<Range<u64>>> {
        self.below.geometry().check(offset, len)?;
        let (mut at, end) = (offset, offset + len);
        let mut parts = Vec::new();
        while at < end {
            let to = end.min(at - at % self.boundary_bytes + self.boundary_bytes);
            parts.push(at..to);
            at = to;
        }
        Ok(parts)
    }

    /// Runs parts to their end, also after one has failed; gives the first failure.
    async fn run<T>(
        &self,
        parts: impl Iterator<Item = impl Future<Output = Result<T>>>,
    ) -> Result<Vec<T>> {
        let results: Vec<Result<T>> = stream::iter(parts).buffered(self.parts_max).collect().await;
        results.into_iter().collect()
    }
}

#[async_trait]
impl Device for Split {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        if !self.is_one(offset, buf.len() as u64) {
            return Attempt::WouldBlock;
        }
        self.below.try_read(offset, buf)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        if !self.is_one(offset, data.len() as u64) {
            return Attempt::WouldBlock;
        }
        self.below.try_write(offset, data)
    }

    fn try_flush(&self) -> Attempt<()> {
        self.below.try_flush()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        let parts = self.parts(offset, buf.len() as u64)?;
        if let [_] = parts[..] {
            return self.below.read(offset, buf).await;
        }
        let mut rest = &mut *buf;
        let mut reads = Vec::new();
        for part in &parts {
            let (here, behind) = rest.split_at_mut((part.end - part.start) as usize);
            reads.push(self.below.read(part.start, here));
            rest = behind;
        }
        let contents = self.run(reads.into_iter()).await?;
        if contents.iter().all(|content| *content == Content::Zeroes) {
            return Ok(Content::Zeroes);
        }
        for (part, content) in parts.iter().zip(contents) {
            if content == Content::Zeroes {
                buf[(part.start - offset) as usize..(part.end - offset) as usize].fill(0);
            }
        }
        Ok(Content::Data)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let writes = self.parts(offset, data.len() as u64)?.into_iter().map(|part| {
            let place = (part.start - offset) as usize..(part.end - offset) as usize;
            self.below.write(part.start, data.slice(place))
        });
        self.run(writes).await.map(drop)
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let parts = self.parts(offset, len)?.into_iter();
        let zeros = parts.map(|part| self.below.zero(part.start, part.end - part.start));
        self.run(zeros).await.map(drop)
    }

    async fn flush(&self) -> Result<()> {
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.below.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        let Ok(parts) = self.parts(offset, len) else { return };
        let parts =
            parts.into_iter().map(|part| self.below.prefetch(part.start, part.end - part.start));
        stream::iter(parts).buffered(self.parts_max).collect::<()>().await;
    }
}
