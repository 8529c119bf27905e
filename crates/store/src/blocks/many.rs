//! Reading many blocks: memory, then local files without waiting, then local files with a thread,
//! then the bucket; each step hands on what it could not answer.

use super::file::{self, FileError, Frame, GAP_MAX, Wait};
use super::piece::{self, Piece};
use super::{Inner, RUN_BYTES_MAX, Wanted, add};
use crate::cache::disk::Placed;
use crate::error::{Error, Result};
use crate::local::blocking;
use bytes::Bytes;
use futures::StreamExt;
use skerry_core::entry::BlockEntry;
use skerry_core::names;
use skerry_core::size::BlockSize;
use std::sync::Arc;

/// How many frames one call reads: two or three buffers each, of the 1024 that the kernel takes.
const SCATTER_FRAMES_MAX: usize = 256;
/// What one call reads without giving other tasks a turn, bytes.
const SCATTER_BYTES_MAX: u64 = 1 << 20;
/// How many threads wait for the disk for one read.
const FILE_READS_MAX: usize = 4;
/// A read from local files of more blocks than this does not enter memory: the kernel keeps those
/// pages already, and long scans would pay for a copy of each block.
const KEEP_BLOCKS_MAX: usize = 32;

/// What a read works on.
pub(super) struct Target<'a> {
    pub(super) wanted: &'a [Wanted],
    pub(super) block: BlockSize,
    pub(super) out: &'a mut [u8],
    /// Whether blocks from local files enter memory.
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
        let mut missing = Vec::new();
        for (i, w) in wanted.iter().enumerate() {
            let to = &mut out[w.at..w.at + w.within.len()];
            if !self.ram.copy(&w.entry, w.within.clone(), to) {
                missing.push(i);
            }
        }
        add(&self.counters.ram_hits, wanted.len() - missing.len());
        if missing.is_empty() {
            return Ok(());
        }
        add(&self.counters.ram_misses, missing.len());
        let keep = missing.len() <= KEEP_BLOCKS_MAX;
        let mut target = Target { wanted, block, out, keep };
        let mut pieces = piece::group(wanted, missing, block)?;
        self.place(&mut pieces).await?;
        self.read_files_at_once(&mut pieces, &mut target).await;
        self.read_files(&mut pieces, &mut target).await?;
        self.read_bucket(pieces, &mut target).await
    }

    /// Finds out which frames are in local files.
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

    /// Reads what the kernel has in memory: whole frames straight to their place, others by block.
    async fn read_files_at_once(&self, pieces: &mut Vec<Piece>, target: &mut Target<'_>) {
        let placed: Vec<usize> =
            (0..pieces.len()).filter(|&i| pieces[i].placed.is_some()).collect();
        if placed.is_empty() {
            return;
        }
        let mut done = vec![false; pieces.len()];
        let joins = |a: &usize, b: &usize| follows(&pieces[*a], &pieces[*b], target.block);
        let len = |i: &usize| u64::from(pieces[*i].entry.len);
        for (n, run) in piece::runs(&placed, SCATTER_FRAMES_MAX, SCATTER_BYTES_MAX, len, joins)
            .into_iter()
            .enumerate()
        {
            if n > 0 {
                tokio::task::yield_now().await;
            }
            let run = &placed[run];
            let answered = if pieces[run[0]].whole.is_some() {
                self.scatter(pieces, run, target)
            } else {
                self.by_block(&pieces[run[0]], target)
            };
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

    fn by_block(&self, piece: &Piece, target: &mut Target<'_>) -> Vec<bool> {
        let Some(placed) = &piece.placed else { return vec![false] };
        for &i in &piece.members {
            let entry = &target.wanted[i].entry;
            let read = file::block(&placed.file, placed.at, entry, target.block, Wait::No);
            let Ok(plain) = read else { return vec![false] };
            target.put(i, &plain);
            self.count_file_blocks(1);
            if target.keep {
                self.ram.insert(entry.place(), plain);
            }
        }
        vec![true]
    }

    fn count_file_blocks(&self, n: usize) {
        let local = self.bucket.local_dir().is_some();
        add(if local { &self.counters.local_blocks } else { &self.counters.disk_hits }, n);
    }

    /// Reads what is left in local files with threads that may wait for the disk. What the disk cache
    /// does not have after all is left for the bucket; a local bucket's damage is an error.
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
        let frame = Frame::open(&piece.entry, stored?, target.block)?;
        for &i in &piece.members {
            let entry = &target.wanted[i].entry;
            let plain = frame.block(entry)?;
            target.put(i, plain);
            if target.keep {
                self.ram.insert(entry.place(), Bytes::copy_from_slice(plain));
            }
        }
        self.count_file_blocks(piece.members.len());
        Ok(())
    }

    /// A second look at a frame of a local bucket that was not right; then it is damaged.
    async fn again_from_file(
        &self,
        piece: &Piece,
        first: FileError,
        target: &mut Target<'_>,
    ) -> Result<()> {
        add(&self.counters.reread, 1);
        tracing::warn!(segment = %names::segment(piece.entry.segment), offset = piece.entry.offset, ?first, "a frame is read again");
        let frame = read_frames(vec![place_of(piece)]).await?.into_iter().next();
        let frame = frame.unwrap_or(Err(first));
        self.decode_file(piece, frame, target).map_err(|error| file_error(piece, error))
    }

    /// Tells the kernel, or the cache, what will be wanted.
    pub(super) async fn prefetch(&self, entries: &[BlockEntry], block: BlockSize) {
        let absent = entries.iter().filter(|entry| !self.ram.contains(&entry.place()));
        let mut frames: Vec<Piece> = absent
            .map(|&entry| Piece { entry, members: Vec::new(), whole: None, placed: None })
            .filter(|piece| piece.entry.len as usize <= file::FRAME_MAX)
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

/// True if `b` can be read by the same call as `a` before it.
fn follows(a: &Piece, b: &Piece, block: BlockSize) -> bool {
    match (a.whole, b.whole) {
        (Some(x), Some(y)) => {
            near(a, b).is_some_and(|gap| gap <= GAP_MAX)
                && x.out_at + x.blocks * block.bytes() <= y.out_at
        }
        _ => false,
    }
}

/// How far apart two frames of the same file are, if the second comes after the first.
fn near(a: &Piece, b: &Piece) -> Option<u64> {
    let (x, y) = (a.placed.as_ref()?, b.placed.as_ref()?);
    if !Arc::ptr_eq(&x.file, &y.file) {
        return None;
    }
    y.at.checked_sub(x.at + u64::from(a.entry.len)).filter(|gap| *gap <= GAP_MAX)
}

type Place = Option<(Arc<std::fs::File>, u64, u32)>;

fn place_of(piece: &Piece) -> Place {
    piece.placed.as_ref().map(|placed| (placed.file.clone(), placed.at, piece.entry.len))
}

/// Reads frames that stand close to one another, in one go, off the runtime's own threads.
async fn read_frames(frames: Vec<Place>) -> Result<Vec<Result<Bytes, FileError>>> {
    blocking(move || {
        let (Some(Some((file, start, _))), Some(Some((_, last, len)))) =
            (frames.first(), frames.last())
        else {
            return Vec::new();
        };
        let span = (last + u64::from(*len) - start) as usize;
        let mut bytes = vec![0; span];
        // If the span can't be had as a whole, each frame tells for itself what is wrong.
        if std::os::unix::fs::FileExt::read_exact_at(&**file, &mut bytes, *start).is_err() {
            let one = |(file, at, len): &(Arc<std::fs::File>, u64, u32)| {
                file::stored(file, *at, *len, Wait::Yes)
            };
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
