//! Reads and writes of a disk's whole sectors.
//!
//! A write is acknowledged when its record is in the log's memory and the live index has it.

use crate::disk::Volume;
use crate::disk::build::end_of_extents;
use crate::disk::edges::Seen;
use crate::disk::parts::PartsReader;
use crate::disk::payload::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::streams::stream::state::State;
use crate::streams::stream::{Attempt, Behalf};
use bytes::Bytes;
use parking_lot::MutexGuard;
use skerry_core::map_node::MapNodePtr;
use skerry_core::overlay::Overlaid;
use skerry_core::record::Action;
use skerry_core::size::SECTOR_BYTES;
use skerry_store::map::tree;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Number of times that a read looks again after the data was moved.
pub(crate) const RESOLVE_TRIES_MAX: usize = 16;

/// The most parts of a read that tries not to wait: reading many blocks together is cheaper than
/// one by one.
const TRY_PARTS_MAX: usize = 16;

/// Extents of the live index that one record of zeros covers at most: as many as the longest write
/// may. The state's lock is held while they are taken out.
const ZERO_EXTENTS_MAX: usize = 2048;

/// The range of a request.
fn range_of(offset: u64, len: usize) -> Range<u64> {
    offset..offset.saturating_add(len as u64)
}

/// Fails unless a range is whole sectors of the volume.
fn check_range(state: &State<Disk>, range: &Range<u64>) -> Result<()> {
    if range.end > state.size_bytes || range.start > range.end {
        let why = format!("ends at byte {}, and this goes to {}", state.size_bytes, range.end);
        return Err(Error::invalid(format!("volume {}", state.name), why));
    }
    if !range.start.is_multiple_of(SECTOR_BYTES) || !range.end.is_multiple_of(SECTOR_BYTES) {
        let why = "is read and written in whole sectors of 512 bytes";
        return Err(Error::invalid(format!("volume {}", state.name), why));
    }
    Ok(())
}

impl State<Disk> {
    /// The end of a piece of a range (bytes) that one record of zeros covers: whole blocks, but for
    /// the range's own ends.
    fn end_of_zeros(&self, rest: Range<u64>) -> u64 {
        let sectors = rest.start / SECTOR_BYTES..rest.end / SECTOR_BYTES;
        let end = end_of_extents(&self.payload.live, sectors, ZERO_EXTENTS_MAX) * SECTOR_BYTES;
        end.next_multiple_of(self.payload.block.bytes() as u64).min(rest.end)
    }
}

impl Volume {
    /// Fails unless the range may be served to a client that attached at `generation`.
    pub(crate) fn admit_range(
        &self,
        range: &Range<u64>,
        generation: u64,
    ) -> Result<MutexGuard<'_, State<Disk>>> {
        let state = self.admit(generation)?;
        check_range(&state, range)?;
        Ok(state)
    }

    /// Reads without waiting, if that is possible.
    pub fn try_read(&self, offset: u64, buf: &mut [u8], generation: u64) -> Result<Attempt> {
        if self.fence.must_check(self.ctx.clock()) {
            return Ok(Attempt::Wait);
        }
        let range = offset..offset.saturating_add(buf.len() as u64);
        let mut parts = Vec::new();
        let top = {
            let state = self.admit_range(&range, generation)?;
            state.resolve(range, &mut parts);
            state.top()
        };
        if parts.len() > TRY_PARTS_MAX || !self.parts(top).try_read(&parts, buf)? {
            return Ok(Attempt::Wait);
        }
        self.count_read(buf.len());
        Ok(Attempt::Done)
    }

    /// Makes a reader of resolved ranges over the tree below `top`.
    pub(crate) fn parts(&self, top: Option<MapNodePtr>) -> PartsReader<'_> {
        PartsReader { ctx: &self.ctx, block: self.desc.block, top }
    }

    fn count_read(&self, bytes: usize) {
        self.io.reads.fetch_add(1, Ordering::Relaxed);
        self.io.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Fills `out`. Waits for data, and for a bucket that fails for a reason that can pass.
    pub async fn read_into(&self, offset: u64, out: &mut [u8], generation: u64) -> Result<()> {
        let mut waiting = self.ctx.guest_waits();
        while let Err(error) = self.read_now(offset, out, generation).await {
            waiting.after(error).await?;
        }
        Ok(())
    }

    /// Fills `out`, in one attempt.
    pub(crate) async fn read_now(
        &self,
        offset: u64,
        out: &mut [u8],
        generation: u64,
    ) -> Result<()> {
        self.check_fence().await?;
        let len = out.len();
        let range = offset..offset.saturating_add(len as u64);
        let mut last = None;
        for _ in 0..RESOLVE_TRIES_MAX {
            let (parts, top) = {
                let state = self.admit_range(&range, generation)?;
                let mut parts = Vec::new();
                state.resolve(range.clone(), &mut parts);
                (parts, state.top())
            };
            match self.parts(top).read(&parts, out).await {
                Ok(true) => {
                    self.count_read(len);
                    return Ok(());
                }
                Ok(false) => {}
                // A segment was collected while this read was under way: look again.
                Err(e) if e.kind() == ErrorKind::NotFound => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(match last {
            Some(missing) => self.if_missing(missing).await,
            None => {
                let why = "was overtaken too often by changes; try again";
                Error::unavailable(format!("a read of volume {}", self.name()), why)
            }
        })
    }

    /// Reads one whole block of the state in the bucket, the base of batches.
    pub(crate) async fn read_base_block(&self, index: u64) -> Result<Option<Bytes>> {
        let (said, top) = {
            let state = self.state.lock();
            (state.overlaid(index), state.top())
        };
        let entry = match said {
            Overlaid::Data(entry) => Some(entry),
            Overlaid::Zero => None,
            Overlaid::Below => tree::lookup(&self.ctx.map_nodes, top, index).await?,
        };
        match entry {
            Some(entry) => Ok(Some(self.ctx.blocks.read(&entry, self.desc.block).await?)),
            None => Ok(None),
        }
    }

    /// Writes without waiting, if there is room.
    pub fn try_write(&self, offset: u64, data: &[u8], generation: u64) -> Result<Attempt> {
        if data.len() > self.ctx.settings.record_bytes_max
            || self.fence.must_check(self.ctx.clock())
        {
            return Ok(Attempt::Wait);
        }
        if self.fence.is_delayed() {
            return Ok(Attempt::Wait);
        }
        self.append_write(&range_of(offset, data.len()), offset, data, generation, None)
    }

    /// Appends a piece of the request `whole`, which must lie in the volume; otherwise it writes
    /// nothing. If the piece builds on `seen`, the state must still be that.
    pub(crate) fn append_write(
        &self,
        whole: &Range<u64>,
        offset: u64,
        data: &[u8],
        generation: u64,
        seen: Option<&Seen>,
    ) -> Result<Attempt> {
        let now = self.ctx.clock().boot();
        let state = self.admit_range(whole, generation)?;
        if data.is_empty() {
            return Ok(Attempt::Done);
        }
        if state.paused || self.index_is_full() {
            return Ok(Attempt::Wait);
        }
        if seen.is_some_and(|seen| *seen != Seen::of(&state, &range_of(offset, data.len()))) {
            return Ok(Attempt::Overtaken);
        }
        let action = Action::Write { offset, len: data.len() as u64 };
        let attempt = self.append(state, &action, data, now)?;
        if let Attempt::Done = attempt {
            self.io.writes.fetch_add(1, Ordering::Relaxed);
            self.io.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Ok(attempt)
    }

    /// Writes a piece of the request `whole`. Waits for room if there is none.
    pub(crate) async fn write(
        &self,
        whole: &Range<u64>,
        offset: u64,
        data: &[u8],
        generation: u64,
    ) -> Result<()> {
        self.check_fence_patiently().await?;
        self.delay().await;
        for (i, piece) in data.chunks(self.ctx.settings.record_bytes_max).enumerate() {
            let offset = offset + (i * self.ctx.settings.record_bytes_max) as u64;
            loop {
                let room = self.room.notified();
                tokio::pin!(room);
                room.as_mut().enable();
                match self.append_write(whole, offset, piece, generation, None)? {
                    Attempt::Done => break,
                    Attempt::Wait | Attempt::Overtaken => {
                        self.wait_room(room, piece.len(), Behalf::Client).await?
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a piece of the request `whole`, which must lie in the volume, read as zeros.
    pub(crate) async fn zero(
        &self,
        whole: &Range<u64>,
        range: Range<u64>,
        generation: u64,
    ) -> Result<()> {
        self.check_fence_patiently().await?;
        if range.is_empty() {
            return Ok(());
        }
        drop(self.admit_range(whole, generation)?);
        self.delay().await;
        self.zero_in_pieces(range, generation, Behalf::Client, whole).await?;
        self.io.zeroes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Appends records of zeros for a range. Each takes few extents out of the live index. A
    /// request of `whole` must still lie in the volume at each append.
    pub(crate) async fn zero_in_pieces(
        &self,
        range: Range<u64>,
        generation: u64,
        on_behalf: Behalf,
        whole: &Range<u64>,
    ) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = self.state.lock().end_of_zeros(at..range.end);
            let action = Action::Zero { offset: at, len: end - at };
            let check = |state: &State<Disk>| check_range(state, whole);
            self.append_waiting(generation, on_behalf, &action, check).await?;
            at = end;
        }
        Ok(())
    }
}
