//! The trait, and the outcomes of its calls.

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, Geometry, Result, StatusRange};

/// An attached device. Dropping it detaches.
///
/// Offsets and lengths are in bytes, and no range is empty. A device serves any offset and length;
/// whole sectors cost the least. It refuses a range past its end as
/// [`Invalid`](crate::ErrorKind::Invalid).
///
/// The `try_` methods are the fast path. They allocate nothing for the caller, and return without
/// waiting. Their defaults decline. The asynchronous methods run to their end: callers drop none of
/// their futures half-way.
#[async_trait]
pub trait Device: Send + Sync + 'static {
    /// Describes the device. Always gives the same.
    fn geometry(&self) -> Geometry;

    /// Fills all of `buf` from `offset` if that is possible without waiting.
    ///
    /// May leave `buf` half-filled when it declines or fails.
    fn try_read(&self, _offset: u64, _buf: &mut [u8]) -> Attempt<Content> {
        Attempt::WouldBlock
    }

    /// Accepts a write, as [`Device::write`], if that is possible without waiting.
    ///
    /// Nothing has happened when it declines.
    fn try_write(&self, _offset: u64, _data: &[u8]) -> Attempt<()> {
        Attempt::WouldBlock
    }

    /// Flushes, as [`Device::flush`], if everything is durable already or can become so at once.
    /// May wait for a quick disk, for a millisecond or so.
    fn try_flush(&self) -> Attempt<()> {
        Attempt::WouldBlock
    }

    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// `Invalid` past the end; `Reattach` and `Failed` as [`ErrorKind`](crate::ErrorKind) says.
    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content>;

    /// Writes `data` at `offset`. Once it returns, every later read sees the data. A later flush
    /// makes it durable.
    ///
    /// # Errors
    /// `Invalid` past the end, `ReadOnly`, `NoSpace`, `Reattach` or `Failed`.
    async fn write(&self, offset: u64, data: Bytes) -> Result<()>;

    /// Makes a range read as zeros. Whole sectors of it take no space, and no zeros are written for
    /// them. So this also discards a range. No device reserves space for later writes.
    ///
    /// # Errors
    /// As [`Device::write`].
    async fn zero(&self, offset: u64, len: u64) -> Result<()>;

    /// Makes durable every write and zeroing that was answered before this call, on any attachment
    /// to what the device stores.
    ///
    /// # Errors
    /// `NoSpace`, `Reattach` or `Failed`; then earlier writes may be lost.
    async fn flush(&self) -> Result<()>;

    /// Tells what is stored from `offset` on: at least one range, in order, without gaps, from
    /// `offset`, and `ranges_max` (1 or more) at most. They may end before `offset + len`, or past
    /// it. Ask again from the end of the answer.
    ///
    /// # Errors
    /// As [`Device::read`].
    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>>;

    /// Prefetches a range for expected reads; a hint. Returns when the range is there, or can't be
    /// fetched: the number of these calls bounds the fetches under way.
    async fn prefetch(&self, _offset: u64, _len: u64) {}
}

/// The outcome of a fast-path call.
#[derive(Debug)]
pub enum Attempt<T> {
    /// Done, as if the asynchronous call had returned this.
    Done(T),
    /// The call would have to wait. Nothing has happened: call the asynchronous one.
    WouldBlock,
    /// The call failed, and the asynchronous one would fail too.
    Failed(Error),
}

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The buffer holds the bytes.
    Data,
    /// The whole range reads as zeros; the buffer was *not* written.
    Zeroes,
}
