//! Requests that are not whole sectors: read, merge, write.
//!
//! The log and the live index know sectors only. So a partial sector is read and written back as a
//! whole. It is written only over the state that was read: a write between, from any connection,
//! makes this one read again. So neither loses the other's bytes, and whole sectors cost nothing
//! extra.

use crate::disk::Volume;
use crate::disk::io::RESOLVE_TRIES_MAX;
use crate::disk::payload::{Disk, Part};
use crate::error::{ErrorKind, Result};
use crate::streams::stream::state::State;
use crate::streams::stream::{Attempt, Behalf};
use skerry_core::map_node::MapNodePtr;
use skerry_core::size::SECTOR_BYTES;
use std::ops::Range;

/// One sector, bytes.
const SECTOR: usize = SECTOR_BYTES as usize;

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Whole sectors.
    Whole(Range<u64>),
    /// Less than a sector, within one.
    Partial(Range<u64>),
}

impl Piece {
    /// Its bytes.
    pub(crate) fn range(&self) -> &Range<u64> {
        let (Self::Whole(range) | Self::Partial(range)) = self;
        range
    }

    /// Its place within a request that begins at `start`.
    pub(crate) fn within(&self, start: u64) -> Range<usize> {
        let range = self.range();
        (range.start - start) as usize..(range.end - start) as usize
    }
}

/// True if a range is whole sectors.
pub(crate) fn is_whole(range: &Range<u64>) -> bool {
    range.start.is_multiple_of(SECTOR_BYTES) && range.end.is_multiple_of(SECTOR_BYTES)
}

/// The whole sectors that hold a range.
pub(crate) fn outward(range: &Range<u64>) -> Range<u64> {
    range.start - range.start % SECTOR_BYTES
        ..range.end.saturating_add(SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES
}

/// Cuts a range into whole sectors and at most two partial ones, in order.
pub(crate) fn pieces(range: Range<u64>) -> impl Iterator<Item = Piece> {
    let first = range.start.checked_next_multiple_of(SECTOR_BYTES).unwrap_or(u64::MAX);
    let last = range.end - range.end % SECTOR_BYTES;
    let parts = if first > last {
        [Piece::Partial(range), Piece::Whole(0..0), Piece::Partial(0..0)]
    } else {
        [
            Piece::Partial(range.start..first),
            Piece::Whole(first..last),
            Piece::Partial(last..range.end),
        ]
    };
    parts.into_iter().filter(|piece| !piece.range().is_empty())
}

/// A state's sources of a range. While they are equal, the range holds equal bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) parts: Vec<Part>,
    pub(crate) top: Option<MapNodePtr>,
}

impl Seen {
    /// The sources of whole sectors in `state`.
    pub(crate) fn of(state: &State<Disk>, range: &Range<u64>) -> Self {
        let mut parts = Vec::new();
        state.resolve(range.clone(), &mut parts);
        Self { parts, top: state.top() }
    }
}

impl Volume {
    /// Changes bytes within one sector to `data`, or to zeros without it. They are a piece of
    /// `request`, whose whole sectors must lie in the volume.
    pub(crate) async fn patch(
        &self,
        request: &Range<u64>,
        range: Range<u64>,
        data: Option<&[u8]>,
        generation: u64,
    ) -> Result<()> {
        let sector = outward(&range);
        let within = (range.start - sector.start) as usize..(range.end - sector.start) as usize;
        loop {
            let mut whole = [0; SECTOR];
            let seen = self.read_seen(&sector, &mut whole, generation).await?;
            match data {
                Some(data) => whole[within.clone()].copy_from_slice(data),
                None => whole[within.clone()].fill(0),
            }
            if self.write_over(request, &seen, sector.start, &whole, generation).await? {
                return Ok(());
            }
        }
    }

    /// Reads whole sectors, and gives their sources.
    async fn read_seen(&self, range: &Range<u64>, out: &mut [u8], generation: u64) -> Result<Seen> {
        let (mut tries, mut waiting) = (0, self.ctx.guest_waits());
        loop {
            self.check_fence_patiently().await?;
            let seen = Seen::of(&*self.admit_range(range, generation)?, range);
            tries += 1;
            match self.parts(seen.top).read(&seen.parts, out).await {
                Ok(true) => return Ok(seen),
                Ok(false) => {}
                Err(e) if e.kind() == ErrorKind::NotFound && tries < RESOLVE_TRIES_MAX => {}
                Err(e) => waiting.after(self.if_missing(e).await).await?,
            }
        }
    }

    /// Writes, if the range still has the seen sources; false if not.
    async fn write_over(
        &self,
        request: &Range<u64>,
        seen: &Seen,
        offset: u64,
        data: &[u8],
        generation: u64,
    ) -> Result<bool> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.append_write(request, offset, data, generation, Some(seen))? {
                Attempt::Done => return Ok(true),
                Attempt::Overtaken => return Ok(false),
                Attempt::Wait => self.wait_room(room, data.len(), Behalf::Client).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_whole_sectors_and_what_is_left() {
        for start in 0..1100u64 {
            for end in start..1600 {
                let all: Vec<Piece> = pieces(start..end).collect();
                let mut at = start;
                for piece in &all {
                    assert_eq!(piece.range().start, at, "{start}..{end}: {all:?}");
                    at = piece.range().end;
                    match piece {
                        Piece::Whole(range) => assert!(is_whole(range), "{all:?}"),
                        Piece::Partial(range) => {
                            assert!(!is_whole(range), "{all:?}");
                            assert_eq!(outward(range).end - outward(range).start, SECTOR_BYTES);
                        }
                    }
                }
                assert_eq!(at, end, "{start}..{end}: {all:?}");
            }
        }
    }
}
