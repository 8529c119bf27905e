//! Answers writes from memory, bounded, and writes them back later.
//!
//! A write waits only if the memory is full; it then writes something back itself. A flush writes
//! back all that was answered before it, and flushes below. Until then, a crash may lose any of the
//! writes since the last flush, and keep later ones.
//!
//! Must hold:
//!
//! - bytes leave the memory only after the write below that has them succeeded, and only if no
//!   newer write has taken their place. So a write-back that fails loses nothing: the next flush
//!   tries again, and fails until it succeeds;
//! - write-backs of one range run one after another, so that an older one can't end last;
//! - a read looks into memory *before* it reads below. What is not in memory is below by then.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use self::extents::{Extents, Piece};
use super::range_lock::RangeLock;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

mod extents;

/// The smallest bound on memory, bytes.
pub const BYTES_MIN: usize = 4096;

/// Length of a joined write-back at most, bytes.
const JOINED_BYTES_MAX: u64 = 1 << 20;

/// Keeps writes to the device below in memory for a while.
pub struct WriteCache {
    below: Arc<dyn Device>,
    bytes_max: usize,
    cached: Mutex<Cached>,
    write_backs: RangeLock,
}

#[derive(Default)]
struct Cached {
    extents: Extents,
    /// Offset from which the next write-back for room begins: it goes round the device.
    hand: u64,
}

impl WriteCache {
    /// Keeps at most `bytes_max` bytes of writes to `below`, their administration included.
    ///
    /// # Errors
    /// `Invalid` if `bytes_max` is less than [`BYTES_MIN`].
    pub fn new(below: Arc<dyn Device>, bytes_max: usize) -> Result<Self> {
        if bytes_max < BYTES_MIN {
            return Err(Error::new(ErrorKind::Invalid, "too little memory for a write cache"));
        }
        Ok(Self { below, bytes_max, cached: Mutex::default(), write_backs: RangeLock::default() })
    }

    /// Bytes in memory, their administration included.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.cached.lock().extents.bytes()
    }

    fn check(&self, offset: u64, len: u64) -> Result<()> {
        let geometry = self.below.geometry();
        geometry.check(offset, len)?;
        if geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device is read-only"));
        }
        Ok(())
    }

    /// Caches a piece if there is room.
    fn try_insert(&self, offset: u64, piece: Piece) -> bool {
        let mut cached = self.cached.lock();
        let room = cached.extents.bytes_after(&piece) <= self.bytes_max;
        if room {
            cached.extents.insert(offset, piece);
        }
        room
    }

    async fn insert(&self, offset: u64, piece: Piece) -> Result<()> {
        while !self.try_insert(offset, piece.clone()) {
            let run = {
                let mut cached = self.cached.lock();
                let Some(run) = cached.extents.run(cached.hand, JOINED_BYTES_MAX) else { continue };
                cached.hand = run.end;
                run
            };
            self.write_back(run).await?;
        }
        Ok(())
    }

    /// Writes back all that a range has in memory, joined where it touches.
    async fn write_back(&self, range: Range<u64>) -> Result<()> {
        let _turn = self.write_backs.alone(range.clone()).await;
        let found = self.cached.lock().extents.within(&range);
        for group in found.chunk_by(|one, other| one.joins(other)) {
            let Some(first) = group.first() else { continue };
            match &first.piece {
                Piece::Zeroes(len) => self.below.zero(first.offset, *len).await?,
                Piece::Data(data) if group.len() == 1 => {
                    self.below.write(first.offset, data.clone()).await?;
                }
                Piece::Data(_) => {
                    let parts: Vec<&[u8]> = group.iter().map(|part| part.piece.data()).collect();
                    self.below.write(first.offset, parts.concat().into()).await?;
                }
            }
            let mut cached = self.cached.lock();
            group.iter().for_each(|part| cached.extents.remove(part));
        }
        Ok(())
    }
}

#[async_trait]
impl Device for WriteCache {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        let found = self.cached.lock().extents.within(&range);
        match self.below.try_read(offset, buf) {
            Attempt::Done(content) => {
                Attempt::Done(extents::lay_over(&found, offset, buf, content))
            }
            other => other,
        }
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        if let Err(error) = self.check(offset, data.len() as u64) {
            return Attempt::Failed(error);
        }
        if data.len() > self.bytes_max / 2 {
            return Attempt::WouldBlock;
        }
        match self.try_insert(offset, Piece::copy_of(data)) {
            true => Attempt::Done(()),
            false => Attempt::WouldBlock,
        }
    }

    fn try_flush(&self) -> Attempt<()> {
        match self.cached_bytes() {
            0 => self.below.try_flush(),
            _ => Attempt::WouldBlock,
        }
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.below.geometry().check(offset, buf.len() as u64)?;
        let found = self.cached.lock().extents.within(&(offset..offset + buf.len() as u64));
        if extents::cover(&found, buf.len() as u64) {
            return Ok(extents::lay_over(&found, offset, buf, Content::Zeroes));
        }
        let content = self.below.read(offset, buf).await?;
        Ok(extents::lay_over(&found, offset, buf, content))
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.check(offset, data.len() as u64)?;
        let mut at = offset;
        for part in data.chunks(self.bytes_max / 2) {
            self.insert(at, Piece::copy_of(part)).await?;
            at += part.len() as u64;
        }
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.check(offset, len)?;
        self.insert(offset, Piece::Zeroes(len)).await
    }

    async fn flush(&self) -> Result<()> {
        let mut at = 0;
        loop {
            // Not round the device: what is written behind this flush is none of its business.
            let run = self.cached.lock().extents.run_from(at, JOINED_BYTES_MAX);
            let Some(run) = run else { break };
            at = run.end;
            self.write_back(run).await?;
        }
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.below.geometry().check(offset, len)?;
        let range = offset..offset + len;
        self.write_back(range.clone()).await?;
        let mut ranges = self.below.status(offset, len, ranges_max).await?;
        // Past the end of the range there may be more in memory.
        ranges.retain(|found| found.offset < range.end);
        for found in &mut ranges {
            found.length = found.length.min(range.end - found.offset);
        }
        Ok(ranges)
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.below.prefetch(offset, len).await;
    }
}
