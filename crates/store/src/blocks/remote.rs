//! Frames from the bucket: one GET for each run of adjacent ones, and one reader for each fetch.

use super::file::Frame;
use super::many::Target;
use super::piece::{self, Piece};
use super::{Inner, RUN_BYTES_MAX, add};
use crate::cache::disk::FrameKey;
use crate::cache::flight::{Claim, Flight};
use crate::error::{Error, Result};
use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use skerry_core::FormatError;
use skerry_core::entry::BlockPlace;
use skerry_core::names;

/// Number of GETs of one read under way.
const READ_FETCHES_MAX: usize = 8;

type Mine<'a> = (Piece, Flight<'a, FrameKey, Result<Bytes>>);

impl Inner {
    /// Reads frames from the bucket, in ascending order of segment and offset.
    pub(super) async fn read_bucket(
        &self,
        mut pieces: Vec<Piece>,
        target: &mut Target<'_>,
    ) -> Result<()> {
        while !pieces.is_empty() {
            let (mut mine, mut theirs) = (Vec::new(), Vec::new());
            for piece in pieces.drain(..) {
                match self.flights.claim(piece.key()) {
                    Claim::Mine(flight) => mine.push((piece, flight)),
                    Claim::Theirs(landing) => theirs.push((piece, landing)),
                }
            }
            // Own fetches first, so that no reader waits for one that waits itself.
            self.fetch_mine(mine, target).await?;
            for (piece, landing) in theirs {
                match landing.wait().await {
                    Some(stored) => {
                        self.decode_fetched(&piece, stored?, target).await?;
                    }
                    None => pieces.push(piece),
                }
            }
        }
        Ok(())
    }

    async fn fetch_mine(&self, mine: Vec<Mine<'_>>, target: &mut Target<'_>) -> Result<()> {
        let len = |(piece, _): &Mine<'_>| u64::from(piece.entry.len);
        let joins = |(a, _): &Mine<'_>, (b, _): &Mine<'_>| {
            a.entry.segment == b.entry.segment && a.range().end == b.range().start
        };
        let runs = piece::runs(&mine, usize::MAX, RUN_BYTES_MAX, len, joins);
        let mut mine = mine.into_iter();
        let runs: Vec<Vec<Mine<'_>>> =
            runs.into_iter().map(|run| mine.by_ref().take(run.len()).collect()).collect();
        // Boxed one by one: a closure over borrowed runs would keep this future from being `Send`.
        let mut fetches: Vec<BoxFuture<'_, _>> = Vec::with_capacity(runs.len());
        for run in runs {
            fetches.push(self.fetch_run(run).boxed());
        }
        let mut fetches = futures::stream::iter(fetches).buffer_unordered(READ_FETCHES_MAX);
        while let Some(fetched) = fetches.next().await {
            let mut good = Vec::new();
            for (piece, stored) in fetched {
                let stored = self.decode_fetched(&piece, stored?, target).await?;
                good.push((piece.key(), stored));
            }
            if let Some(disk) = &self.disk {
                disk.offer(good);
            }
        }
        Ok(())
    }

    /// Fetches adjacent frames, and lands each.
    async fn fetch_run(&self, run: Vec<Mine<'_>>) -> Vec<(Piece, Result<Bytes>)> {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else {
            return Vec::new();
        };
        let (start, segment) = (first.range().start, first.entry.segment);
        let fetched = self.fetch_range(first, start..last.range().end).await;
        let mut frames = Vec::with_capacity(run.len());
        for (piece, flight) in run {
            let stored = fetched.clone().and_then(|bytes| {
                let range = piece.range();
                let (from, to) = ((range.start - start) as usize, (range.end - start) as usize);
                if to > bytes.len() {
                    let source = FormatError::Truncated { what: "segment" };
                    return Err(Error::format_at(names::segment(segment), range.start, source));
                }
                Ok(bytes.slice(from..to))
            });
            flight.land(stored.clone());
            frames.push((piece, stored));
        }
        frames
    }

    async fn fetch_range(&self, piece: &Piece, range: std::ops::Range<u64>) -> Result<Bytes> {
        let Ok(_permit) = self.fetches.acquire().await else {
            return Err(Error::internal("the reader of blocks", "it was closed"));
        };
        let bytes = self.bucket.segment_range(piece.entry.segment, range).await?;
        add(&self.counters.fetches, 1);
        add(&self.counters.fetched_bytes, bytes.len());
        Ok(bytes)
    }

    /// Verifies a fetched frame and hands its blocks out. Fetches a bad one once more. Gives the
    /// good stored bytes.
    async fn decode_fetched(
        &self,
        piece: &Piece,
        stored: Bytes,
        target: &mut Target<'_>,
    ) -> Result<Bytes> {
        let Err(first) = self.hand_out_fetched(piece, &stored, target) else { return Ok(stored) };
        add(&self.counters.reread, 1);
        tracing::warn!(segment = %names::segment(piece.entry.segment), offset = piece.entry.offset, %first, "a frame is fetched again");
        let stored = self.fetch_range(piece, piece.range()).await?;
        self.hand_out_fetched(piece, &stored, target).map_err(|error| piece.corrupt(error))?;
        Ok(stored)
    }

    /// Hands a fetched frame's blocks out, and keeps its other blocks in memory.
    fn hand_out_fetched(
        &self,
        piece: &Piece,
        stored: &Bytes,
        target: &mut Target<'_>,
    ) -> Result<(), FormatError> {
        let rest = self.hand_out(piece, stored, target, true)?;
        // The rest of the frame was fetched anyway. Without a disk cache it is kept in memory;
        // otherwise a scan in small steps would fetch every frame sixteen times.
        if let Some(frame) = rest
            && (self.disk.is_none() || piece.members.is_empty())
        {
            self.keep_rest(piece, &frame, target);
        }
        Ok(())
    }

    fn keep_rest(&self, piece: &Piece, frame: &Frame, target: &Target<'_>) {
        let taken = |slot| piece.members.iter().any(|&i| target.wanted[i].entry.slot == slot);
        for i in 0..frame.blocks() {
            let slot = frame.first_slot().wrapping_add(i as u16);
            if taken(slot) {
                continue;
            }
            let place = BlockPlace { segment: piece.entry.segment, slot };
            // Damage in an unwanted block shows when a read wants it.
            if let Ok(plain) = frame.nth(i) {
                self.ram.insert(place, Bytes::copy_from_slice(plain));
            }
        }
    }
}
