//! Reading many blocks: memory, then local files without waiting, then local files with a thread,
//! then the bucket. Each step passes on the blocks that it could not read.

use super::file::{self, FileError, Frame, GAP_MAX, Wait};
use super::piece::{self, Piece};
use super::{Inner, RUN_BYTES_MAX, Wanted, add, scratch};
use crate::cache::disk::Placed;
use crate::error::{Error, Result};
use crate::objects::local::blocking;
use bytes::Bytes;
use futures::StreamExt;
use skerry_core::FormatError;
use skerry_core::entry::BlockEntry;
use skerry_core::frame::{FRAME_BYTES_MAX, FRAME_RAW_BYTES_MAX, FrameHead, raw_blocks};
use skerry_core::names;
use skerry_core::size::BlockSize;
use std::ops::Range;
use std::sync::Arc;

/// Number of frames of one call: two or three buffers each, of the 1024 that the kernel accepts.
const SCATTER_FRAMES_MAX: usize = 256;
/// Bytes of one call without giving other tasks a turn.
const SCATTER_BYTES_MAX: u64 = 1 << 20;
/// Number of threads that wait for the disk for one read.
const FILE_READS_MAX: usize = 4;
/// The most blocks of a read from local files that enter memory. The kernel keeps those pages
/// already, and a scan would pay for a copy of each block: a third of its time.
const KEEP_BLOCKS_MAX: usize = 8;

/// The target of a read.
pub(super) struct Target<'a> {
    pub(super) wanted: &'a [Wanted],
    pub(super) block: BlockSize,
    pub(super) out: &'a mut [u8],
    /// True if blocks from local files enter memory.
    pub(super) keep: bool,
}

impl Target<'_> {
    pub(super) fn put(&mut self, i: usize, plain: &[u8]) {
        let w = &self.wanted[i];
        self.out[w.at..w.at + w.within.len()].copy_from_slice(&plain[w.within.clone()]);
    }
}

impl Inner {
    pub(super) async fn read_many(
        &self,
        wanted: &[Wanted],
        block: BlockSize,
        out: &mut [u8],
    ) -> Result<()> {
        let missing = self.read_ram(wanted, out);
        self.count_ram(wanted.len(), missing.len());
        if missing.is_empty() {
            return Ok(());
        }
        let keep = missing.len() <= KEEP_BLOCKS_MAX;
        let mut target = Target { wanted, block, out, keep };
        let mut pieces = piece::group(wanted, missing, block)?;
        self.place(&mut pieces).await?;
        self.read_files_at_once(&mut pieces, &mut target).await;
        self.read_files(&mut pieces, &mut target).await?;
        self.read_bucket(pieces, &mut target).await
    }

    /// Reads everything, if that needs no waiting: from memory, and from open local files that the
    /// kernel has in memory.
    pub(super) fn try_read(&self, wanted: &[Wanted], block: BlockSize, out: &mut [u8]) -> bool {
        let missing = self.read_ram(wanted, out);
        let misses = missing.len();
        if misses > 0 {
            let keep = misses <= KEEP_BLOCKS_MAX;
            let mut target = Target { wanted, block, out, keep };
            let Ok(mut pieces) = piece::group(wanted, missing, block) else { return false };
            if !self.place_opened(&mut pieces) {
                return false;
            }
            let all: Vec<usize> = (0..pieces.len()).collect();
            let runs = runs_at_once(&pieces, &all, block);
            let read = |run| self.read_run(&pieces, run, &mut target).iter().all(|good| *good);
            if !runs.into_iter().map(|run| &all[run]).all(read) {
                return false;
            }
        }
        self.count_ram(wanted.len(), misses);
        true
    }

    /// Copies out the blocks in memory. Gives the missing ones.
    fn read_ram(&self, wanted: &[Wanted], out: &mut [u8]) -> Vec<usize> {
        let absent = |(i, w): (usize, &Wanted)| {
            let to = &mut out[w.at..w.at + w.within.len()];
            (!self.ram.copy(&w.entry, w.within.clone(), to)).then_some(i)
        };
        wanted.iter().enumerate().filter_map(absent).collect()
    }

    fn count_ram(&self, wanted: usize, missing: usize) {
        add(&self.counters.ram_hits, wanted - missing);
        add(&self.counters.ram_misses, missing);
    }

    /// Finds frames in open local files. False if one is in none of them.
    fn place_opened(&self, pieces: &mut [Piece]) -> bool {
        for piece in pieces.iter_mut() {
            piece.placed = match (self.bucket.local_dir(), &self.disk) {
                (Some(dir), _) => dir
                    .opened(piece.entry.segment)
                    .map(|file| Placed { file, at: u64::from(piece.entry.offset) }),
                (None, Some(disk)) => disk.find(piece.key()),
                (None, None) => None,
            };
            if piece.placed.is_none() {
                return false;
            }
        }
        true
    }

    /// Finds which frames are in local files.
    pub(super) async fn place(&self, pieces: &mut [Piece]) -> Result<()> {
        if let Some(dir) = self.bucket.local_dir() {
            let mut last = None;
            for piece in pieces {
                let segment = piece.entry.segment;
                let file = match &last {
                    Some((of, file)) if *of == segment => Arc::clone(file),
                    _ => dir.open(segment).await?,
                };
                last = Some((segment, file.clone()));
                piece.placed = Some(Placed { file, at: u64::from(piece.entry.offset) });
            }
        } else if let Some(disk) = &self.disk {
            for piece in pieces {
                piece.placed = disk.find(piece.key());
                if piece.placed.is_none() {
                    add(&self.counters.disk_misses, 1);
                }
            }
        }
        Ok(())
    }

    /// Reads the frames that the kernel has in memory.
    async fn read_files_at_once(&self, pieces: &mut Vec<Piece>, target: &mut Target<'_>) {
        let placed: Vec<usize> =
            (0..pieces.len()).filter(|&i| pieces[i].placed.is_some()).collect();
        if placed.is_empty() {
            return;
        }
        let mut done = vec![false; pieces.len()];
        let mut read_bytes = 0;
        for run in runs_at_once(pieces, &placed, target.block) {
            if read_bytes >= SCATTER_BYTES_MAX {
                tokio::task::yield_now().await;
                read_bytes = 0;
            }
            let run = &placed[run];
            read_bytes += run.iter().map(|&i| u64::from(pieces[i].entry.len)).sum::<u64>();
            let answered = self.read_run(pieces, run, target);
            if !answered.iter().any(|good| *good) && self.bucket.local_dir().is_some() {
                // One is not in memory, so the rest of a scan is not either: don't ask for each.
                break;
            }
            run.iter().zip(answered).for_each(|(&i, good)| done[i] = good);
        }
        let mut done = done.into_iter();
        pieces.retain(|_| !done.next().unwrap_or(false));
    }

    fn scatter(&self, pieces: &[Piece], run: &[usize], target: &mut Target<'_>) -> Vec<bool> {
        let run: Vec<&Piece> = run.iter().map(|&i| &pieces[i]).collect();
        let Some(placed) = &run[0].placed else { return vec![false; run.len()] };
        let read = file::scatter(&placed.file, &run, target.wanted, target.block, target.out);
        let Some(good) = read else { return vec![false; run.len()] };
        for (piece, _) in run.iter().zip(&good).filter(|(_, good)| **good) {
            self.count_file_blocks(piece.members.len());
            for &i in piece.members.iter().filter(|_| target.keep) {
                let w = &target.wanted[i];
                let plain = Bytes::copy_from_slice(&target.out[w.at..w.at + w.within.len()]);
                self.ram.insert(w.entry.place(), plain);
            }
        }
        good
    }

    /// Reads a run that [`runs_at_once`] found, without waiting. Says which of its frames were
    /// read.
    fn read_run(&self, pieces: &[Piece], run: &[usize], target: &mut Target<'_>) -> Vec<bool> {
        let piece = &pieces[run[0]];
        if piece.whole.is_some() {
            return self.scatter(pieces, run, target);
        }
        let apart = raw_blocks(piece.entry.len, target.block)
            .filter(|blocks| 2 * piece.members.len() <= *blocks)
            .is_some_and(|blocks| self.by_block(piece, blocks, target));
        vec![apart || self.whole_frame(piece, target)]
    }

    /// Reads a few blocks of a raw frame of `blocks` blocks, each alone.
    fn by_block(&self, piece: &Piece, blocks: usize, target: &mut Target<'_>) -> bool {
        let Some(placed) = &piece.placed else { return false };
        for &i in &piece.members {
            let entry = &target.wanted[i].entry;
            let read = file::raw_block(&placed.file, placed.at, entry, target.block, blocks);
            let Ok(Some(plain)) = read else { return false };
            target.put(i, &plain);
            if target.keep {
                self.ram.insert(entry.place(), plain);
            }
        }
        self.count_file_blocks(piece.members.len());
        true
    }

    /// Reads and unpacks a frame once, however many of its blocks are wanted.
    fn whole_frame(&self, piece: &Piece, target: &mut Target<'_>) -> bool {
        let Some(placed) = &piece.placed else { return false };
        let len = piece.entry.len as usize;
        if len > FRAME_BYTES_MAX {
            return false;
        }
        let read = scratch::with(len + FRAME_RAW_BYTES_MAX, |memory| {
            let (stored, plain) = memory.split_at_mut(len);
            file::read_exact(&placed.file, placed.at, stored, Wait::No)?;
            self.unpack(piece, stored, plain, target)
        });
        if read.is_ok() {
            self.count_file_blocks(piece.members.len());
        }
        read.is_ok()
    }

    /// As [`Self::hand_out`], by way of the memory `plain`.
    fn unpack(
        &self,
        piece: &Piece,
        stored: &[u8],
        plain: &mut [u8],
        target: &mut Target<'_>,
    ) -> Result<(), FileError> {
        let head = self.head_of(piece, stored, target)?;
        if let Some(at) = straight(piece, &head) {
            return Ok(self.unpack_straight(piece, &head, stored, at, target, target.keep)?);
        }
        let plain = plain.get_mut(..head.blocks() * target.block.bytes());
        let plain = plain.ok_or(FormatError::Truncated { what: "frame" })?;
        head.unpack_into(stored, plain)?;
        Ok(self.take_out(piece, &Frame::new(head, &*plain), target, target.keep)?)
    }

    fn count_file_blocks(&self, n: usize) {
        let local = self.bucket.local_dir().is_some();
        add(if local { &self.counters.local_blocks } else { &self.counters.disk_hits }, n);
    }

    /// Reads the remaining frames in local files with threads that may wait for the disk. Frames
    /// that the disk cache lacks after all are left for the bucket. Damage in a local bucket is an
    /// error.
    async fn read_files(&self, pieces: &mut Vec<Piece>, target: &mut Target<'_>) -> Result<()> {
        let (placed, mut left): (Vec<Piece>, Vec<Piece>) =
            std::mem::take(pieces).into_iter().partition(|piece| piece.placed.is_some());
        let len = |piece: &Piece| u64::from(piece.entry.len);
        let joins = |a: &Piece, b: &Piece| near(a, b).is_some();
        let runs = piece::runs(&placed, usize::MAX, RUN_BYTES_MAX, len, joins);
        let mut reads = futures::stream::iter(runs.into_iter().map(|run| {
            let frames: Vec<_> = placed[run.clone()].iter().map(place_of).collect();
            async move { (run, read_frames(frames).await) }
        }))
        .buffer_unordered(FILE_READS_MAX);
        let mut failed = Vec::new();
        while let Some((run, frames)) = reads.next().await {
            for (i, frame) in run.zip(frames?) {
                match self.decode_file(&placed[i], frame, target) {
                    Ok(()) => {}
                    Err(error) => failed.push((i, error)),
                }
            }
        }
        drop(reads);
        let mut placed: Vec<_> = placed.into_iter().map(Some).collect();
        for (i, error) in failed {
            let Some(piece) = placed[i].take() else { continue };
            match &self.disk {
                Some(disk) => {
                    disk.forget(piece.key());
                    add(&self.counters.disk_misses, 1);
                    left.push(piece);
                }
                None => self.again_from_file(&piece, error, target).await?,
            }
        }
        left.sort_by_key(Piece::key);
        *pieces = left;
        Ok(())
    }

    fn decode_file(
        &self,
        piece: &Piece,
        stored: Result<Bytes, FileError>,
        target: &mut Target<'_>,
    ) -> Result<(), FileError> {
        self.hand_out(piece, &stored?, target, target.keep)?;
        self.count_file_blocks(piece.members.len());
        Ok(())
    }

    /// Gives a stored frame's wanted blocks to the target, verified. If they are all of the frame,
    /// it unpacks straight to their place. Otherwise it goes by way of the unpacked frame, and
    /// returns that.
    pub(super) fn hand_out(
        &self,
        piece: &Piece,
        stored: &Bytes,
        target: &mut Target<'_>,
        keep: bool,
    ) -> Result<Option<Frame>, FormatError> {
        let head = self.head_of(piece, stored, target)?;
        if let Some(at) = straight(piece, &head) {
            self.unpack_straight(piece, &head, stored, at, target, keep)?;
            return Ok(None);
        }
        let frame = Frame::open(head, stored)?;
        self.take_out(piece, &frame, target, keep)?;
        Ok(Some(frame))
    }

    fn head_of(
        &self,
        piece: &Piece,
        stored: &[u8],
        target: &Target<'_>,
    ) -> Result<FrameHead, FormatError> {
        let head = file::head_of(&piece.entry, stored, target.block)?;
        if !head.is_raw() {
            add(&self.counters.unpacked_frames, 1);
        }
        Ok(head)
    }

    /// Unpacks all blocks of a frame straight to their places, verified.
    fn unpack_straight(
        &self,
        piece: &Piece,
        head: &FrameHead,
        stored: &[u8],
        at: usize,
        target: &mut Target<'_>,
        keep: bool,
    ) -> Result<(), FormatError> {
        let out = &mut target.out[at..at + head.blocks() * target.block.bytes()];
        head.unpack_into(stored, out)?;
        let mut plain = out.chunks_exact(target.block.bytes()).enumerate();
        plain.try_for_each(|(i, plain)| head.verify_block(i, plain))?;
        for &i in piece.members.iter().filter(|_| keep) {
            let w = &target.wanted[i];
            let plain = &target.out[w.at..w.at + w.within.len()];
            self.ram.insert(w.entry.place(), Bytes::copy_from_slice(plain));
        }
        Ok(())
    }

    /// Copies the wanted blocks from an unpacked frame, verified.
    fn take_out<P: AsRef<[u8]>>(
        &self,
        piece: &Piece,
        frame: &Frame<P>,
        target: &mut Target<'_>,
        keep: bool,
    ) -> Result<(), FormatError> {
        for &i in &piece.members {
            let entry = &target.wanted[i].entry;
            let plain = frame.block(entry)?;
            target.put(i, plain);
            if keep {
                self.ram.insert(entry.place(), Bytes::copy_from_slice(plain));
            }
        }
        Ok(())
    }

    /// Reads a bad frame of a local bucket again. If it is still bad, it is damaged.
    async fn again_from_file(
        &self,
        piece: &Piece,
        first: FileError,
        target: &mut Target<'_>,
    ) -> Result<()> {
        add(&self.counters.reread, 1);
        tracing::warn!(segment = %names::segment(piece.entry.segment), offset = piece.entry.offset, ?first, "a frame is read again");
        let mut place = place_of(piece);
        if let Some(dir) = self.bucket.local_dir() {
            let segment = piece.entry.segment;
            dir.forget(segment);
            let file = dir.open(segment).await?;
            place = Some((file, u64::from(piece.entry.offset), piece.entry.len));
        }
        let frame = read_frames(vec![place]).await?.into_iter().next();
        let frame = frame.unwrap_or(Err(first));
        self.decode_file(piece, frame, target).map_err(|error| file_error(piece, error))
    }

    /// Tells the kernel, or the cache, which blocks a read will want.
    pub(super) async fn prefetch(&self, entries: &[BlockEntry], block: BlockSize) {
        let absent = entries.iter().filter(|entry| !self.ram.contains(&entry.place()));
        let mut frames: Vec<Piece> = absent
            .map(|&entry| Piece::near(entry))
            .filter(|piece| piece.entry.len as usize <= FRAME_BYTES_MAX)
            .collect();
        frames.sort_by_key(Piece::key);
        frames.dedup_by_key(|piece| piece.key());
        if let Err(error) = self.prefetch_frames(frames, block).await {
            tracing::debug!(%error, "blocks could not be fetched ahead");
        }
    }

    async fn prefetch_frames(&self, mut frames: Vec<Piece>, block: BlockSize) -> Result<()> {
        self.place(&mut frames).await?;
        let (placed, frames): (Vec<Piece>, Vec<Piece>) =
            frames.into_iter().partition(|piece| piece.placed.is_some());
        let len = |piece: &Piece| u64::from(piece.entry.len);
        let runs =
            piece::runs(&placed, usize::MAX, RUN_BYTES_MAX, len, |a, b| near(a, b).is_some());
        for run in runs {
            let (Some(first), Some(last)) =
                (&placed[run.start].placed, &placed[run.end - 1].placed)
            else {
                continue;
            };
            let end = last.at + u64::from(placed[run.end - 1].entry.len);
            let len = std::num::NonZeroU64::new(end - first.at);
            // Only a hint: a file system without it reads when it must.
            let _ = rustix::fs::fadvise(&first.file, first.at, len, rustix::fs::Advice::WillNeed);
        }
        let mut target = Target { wanted: &[], block, out: &mut [], keep: true };
        self.read_bucket(frames, &mut target).await
    }
}

/// The place in the output for all blocks of a frame, if the frame can be unpacked there.
fn straight(piece: &Piece, head: &FrameHead) -> Option<usize> {
    piece.straight_at.filter(|_| piece.members.len() == head.blocks())
}

/// Groups the frames `placed` into runs that one call reads: consecutive whole raw frames.
fn runs_at_once(pieces: &[Piece], placed: &[usize], block: BlockSize) -> Vec<Range<usize>> {
    let joins = |a: &usize, b: &usize| follows(&pieces[*a], &pieces[*b], block);
    let len = |i: &usize| u64::from(pieces[*i].entry.len);
    piece::runs(placed, SCATTER_FRAMES_MAX, SCATTER_BYTES_MAX, len, joins)
}

/// True if one call can read `b` after `a`.
fn follows(a: &Piece, b: &Piece, block: BlockSize) -> bool {
    match (a.whole, b.whole) {
        (Some(x), Some(y)) => {
            near(a, b).is_some_and(|gap| gap <= GAP_MAX)
                && x.out_at + x.blocks * block.bytes() <= y.out_at
        }
        _ => false,
    }
}

/// Distance between two frames of one file, if the second follows the first closely.
fn near(a: &Piece, b: &Piece) -> Option<u64> {
    let (x, y) = (a.placed.as_ref()?, b.placed.as_ref()?);
    if !Arc::ptr_eq(&x.file, &y.file) {
        return None;
    }
    y.at.checked_sub(x.at + u64::from(a.entry.len)).filter(|gap| *gap <= GAP_MAX)
}

type FileRange = Option<(Arc<std::fs::File>, u64, u32)>;

fn place_of(piece: &Piece) -> FileRange {
    piece.placed.as_ref().map(|placed| (placed.file.clone(), placed.at, piece.entry.len))
}

/// Reads frames that stand close together in one go, off the runtime's own threads.
async fn read_frames(frames: Vec<FileRange>) -> Result<Vec<Result<Bytes, FileError>>> {
    blocking(move || {
        let (Some(Some((file, start, _))), Some(Some((_, last, len)))) =
            (frames.first(), frames.last())
        else {
            return Vec::new();
        };
        let span = (last + u64::from(*len) - start) as usize;
        let mut bytes = vec![0; span];
        // If the span can't be read as a whole, each frame reports its own error.
        if std::os::unix::fs::FileExt::read_exact_at(&**file, &mut bytes, *start).is_err() {
            let one =
                |(file, at, len): &(Arc<std::fs::File>, u64, u32)| file::stored(file, *at, *len);
            return frames.iter().flatten().map(one).collect();
        }
        let bytes = Bytes::from(bytes);
        let slice = |(_, at, len): &(Arc<std::fs::File>, u64, u32)| {
            let from = (at - start) as usize;
            Ok(bytes.slice(from..from + *len as usize))
        };
        frames.iter().flatten().map(slice).collect()
    })
    .await
}

fn file_error(piece: &Piece, error: FileError) -> Error {
    match error {
        FileError::Format(error) => piece.corrupt(error),
        FileError::Io(error) => {
            let name = names::segment(piece.entry.segment);
            Error::file("reading", std::path::Path::new(&name), error)
        }
        FileError::WouldWait => {
            Error::internal(names::segment(piece.entry.segment), "a read would not wait")
        }
    }
}
