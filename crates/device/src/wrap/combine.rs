//! Joins writes that touch, for a device that takes few large writes better than many small ones.
//!
//! Nothing waits for a timer. While as many writes are under way as may be, others queue up. When
//! one ends, the oldest in the queue goes on, with all that touch it. A write is answered when the
//! joined write has ended.
//!
//! Two writes in the queue are both unanswered, so either may come first where they overlap.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::channel::oneshot;
use parking_lot::Mutex;

use super::bell::Bell;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

/// Joins writes to the device below. Its callers bound the number of writes, and so its memory.
pub struct Combine {
    below: Arc<dyn Device>,
    limits: Limits,
    queue: Mutex<Queue>,
    freed: Bell,
}

/// Bounds of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Writes under way at the device below, at most. Others queue up.
    pub under_way_max: usize,
    /// Length of a joined write at most, bytes. A longer write goes alone.
    pub joined_bytes_max: usize,
}

#[derive(Default)]
struct Queue {
    under_way: usize,
    waiting: Vec<Waiting>,
}

struct Waiting {
    offset: u64,
    data: Bytes,
    answer: oneshot::Sender<Result<()>>,
}

impl Waiting {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Writes that are passed on as one.
struct Joined<'a> {
    to: &'a Combine,
    parts: Vec<Waiting>,
}

impl Combine {
    /// Joins writes to `below`.
    ///
    /// # Errors
    /// `Invalid` if no write may be under way.
    pub fn new(below: Arc<dyn Device>, limits: Limits) -> Result<Self> {
        if limits.under_way_max == 0 {
            return Err(Error::new(ErrorKind::Invalid, "no write may be under way"));
        }
        Ok(Self { below, limits, queue: Mutex::default(), freed: Bell::default() })
    }

    /// Takes the oldest write and all that it can be joined with, if another may be under way.
    fn next(&self) -> Option<Joined<'_>> {
        let mut queue = self.queue.lock();
        if queue.under_way >= self.limits.under_way_max || queue.waiting.is_empty() {
            return None;
        }
        queue.under_way += 1;
        let parts = joinable(&mut queue.waiting, self.limits.joined_bytes_max as u64);
        Some(Joined { to: self, parts })
    }
}

/// Removes the oldest of the waiting, and those which together with it are one range of at most
/// `bytes_max`.
fn joinable(waiting: &mut Vec<Waiting>, bytes_max: u64) -> Vec<Waiting> {
    let first = waiting.remove(0);
    let (mut start, mut end) = (first.offset, first.end());
    let mut parts = vec![first];
    loop {
        let touching = waiting.iter().position(|other| {
            let together = other.end().max(end) - other.offset.min(start);
            other.offset <= end && start <= other.end() && together <= bytes_max
        });
        let Some(index) = touching else { return parts };
        let part = waiting.remove(index);
        (start, end) = (start.min(part.offset), end.max(part.end()));
        parts.push(part);
    }
}

impl Joined<'_> {
    /// Writes the parts as one, and answers each.
    async fn run(mut self) {
        let (offset, data) = self.bytes();
        let result = self.to.below.write(offset, data).await;
        for part in self.parts.drain(..) {
            let _ = part.answer.send(result.clone());
        }
    }

    /// All bytes as one. Later parts win over earlier ones.
    fn bytes(&self) -> (u64, Bytes) {
        if let [one] = &self.parts[..] {
            return (one.offset, one.data.clone());
        }
        let start = self.parts.iter().map(|part| part.offset).min().unwrap_or(0);
        let end = self.parts.iter().map(Waiting::end).max().unwrap_or(start);
        let mut bytes = BytesMut::zeroed((end - start) as usize);
        for part in &self.parts {
            let at = (part.offset - start) as usize;
            bytes[at..at + part.data.len()].copy_from_slice(&part.data);
        }
        (start, bytes.freeze())
    }
}

impl Drop for Joined<'_> {
    /// Makes room for the next. If the caller was dropped that carried the write out, the parts of
    /// the other callers are written again.
    fn drop(&mut self) {
        let mut queue = self.to.queue.lock();
        queue.under_way -= 1;
        let again = self.parts.drain(..).filter(|part| !part.answer.is_canceled());
        queue.waiting.splice(..0, again);
        drop(queue);
        self.to.freed.ring();
    }
}

#[async_trait]
impl Device for Combine {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.below.try_read(offset, buf)
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        self.below.try_write(offset, data)
    }

    fn try_flush(&self) -> Attempt<()> {
        self.below.try_flush()
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.below.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        // A write past the end must not fail what it is joined with.
        self.below.geometry().check(offset, data.len() as u64)?;
        let (answer, mut answered) = oneshot::channel();
        self.queue.lock().waiting.push(Waiting { offset, data, answer });
        loop {
            let freed = self.freed.listen();
            if let Some(joined) = self.next() {
                joined.run().await;
            }
            match answered.try_recv() {
                Ok(Some(result)) => return result,
                Ok(None) => {
                    // Whatever comes first: the answer, or room for another write.
                    if let futures::future::Either::Left((result, _)) =
                        futures::future::select(&mut answered, freed).await
                    {
                        return result.unwrap_or_else(|_| Err(lost()));
                    }
                }
                Err(_) => return Err(lost()),
            }
        }
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
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

/// Cannot happen: each write in the queue is answered, or written again.
fn lost() -> Error {
    Error::new(ErrorKind::Failed, "a joined write was dropped without an answer")
}
