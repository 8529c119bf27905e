//! The blocks that memory did not have, grouped by frame, and the runs of frames that are read
//! together.

use super::Wanted;
use crate::cache::disk::{FrameKey, Placed};
use crate::error::{Error, Result};
use skerry_core::FormatError;
use skerry_core::entry::BlockEntry;
use skerry_core::frame::{FRAME_BYTES_MAX, raw_blocks};
use skerry_core::names;
use skerry_core::size::BlockSize;
use std::ops::Range;

/// Set if all blocks of a raw frame are wanted, one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    pub(super) blocks: usize,
    pub(super) out_at: usize,
}

/// A frame, and the wanted blocks in it.
pub(super) struct Piece {
    /// The entry of one of its blocks.
    pub(super) entry: BlockEntry,
    /// Indices of its wanted blocks, by slot. Empty for a prefetch.
    pub(super) members: Vec<usize>,
    /// The place of the wanted blocks in the output. Set if they are whole, consecutive in the
    /// frame, and consecutive in the output.
    pub(super) straight_at: Option<usize>,
    /// Set if the frame is raw, going by its length, and wanted as a whole.
    pub(super) whole: Option<Whole>,
    /// Its place in a local file, if it has one.
    pub(super) placed: Option<Placed>,
}

impl Piece {
    /// Makes a frame that is only prefetched.
    pub(super) fn near(entry: BlockEntry) -> Self {
        Self { entry, members: Vec::new(), straight_at: None, whole: None, placed: None }
    }

    pub(super) fn key(&self) -> FrameKey {
        (self.entry.segment, self.entry.offset)
    }

    pub(super) fn placed_at(&self) -> Option<u64> {
        self.placed.as_ref().map(|placed| placed.at)
    }

    /// Its range in the segment.
    pub(super) fn range(&self) -> Range<u64> {
        let start = u64::from(self.entry.offset);
        start..start + u64::from(self.entry.len)
    }

    /// Makes an error of this frame, with its name and place.
    pub(super) fn corrupt(&self, error: FormatError) -> Error {
        Error::format_at(names::segment(self.entry.segment), u64::from(self.entry.offset), error)
    }
}

/// Groups the wanted blocks `which` by frame, in the order of segments and offsets.
pub(super) fn group(
    wanted: &[Wanted],
    mut which: Vec<usize>,
    block: BlockSize,
) -> Result<Vec<Piece>> {
    which.sort_by_key(|&i| {
        let entry = &wanted[i].entry;
        (entry.segment, entry.offset, entry.slot, wanted[i].at)
    });
    let mut pieces: Vec<Piece> = Vec::new();
    for i in which {
        let entry = wanted[i].entry;
        match pieces.last_mut() {
            Some(last)
                if last.key() == (entry.segment, entry.offset) && last.entry.len == entry.len =>
            {
                last.members.push(i);
            }
            _ => pieces.push(Piece { members: vec![i], ..Piece::near(entry) }),
        }
    }
    for piece in &mut pieces {
        if piece.entry.len as usize > FRAME_BYTES_MAX {
            return Err(piece.corrupt(FormatError::invalid("map entry", "its frame is too long")));
        }
        piece.straight_at = straight_at(piece, wanted, block);
        piece.whole = whole(piece, block);
    }
    Ok(pieces)
}

fn straight_at(piece: &Piece, wanted: &[Wanted], block: BlockSize) -> Option<usize> {
    let first = &wanted[*piece.members.first()?];
    let in_order = piece.members.iter().enumerate().all(|(n, &i)| {
        let w = &wanted[i];
        w.within == (0..block.bytes())
            && usize::from(w.entry.slot) == usize::from(first.entry.slot) + n
            && w.at == first.at + n * block.bytes()
    });
    in_order.then_some(first.at)
}

fn whole(piece: &Piece, block: BlockSize) -> Option<Whole> {
    let blocks = raw_blocks(piece.entry.len, block)?;
    let out_at = piece.straight_at?;
    (piece.members.len() == blocks).then_some(Whole { blocks, out_at })
}

/// Cuts a list into runs of at most `count_max`. `joins(a, b)` says whether one read may take `b`
/// after `a`; `len` counts towards `bytes_max`.
pub(super) fn runs<T>(
    list: &[T],
    count_max: usize,
    bytes_max: u64,
    len: impl Fn(&T) -> u64,
    joins: impl Fn(&T, &T) -> bool,
) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (i, item) in list.iter().enumerate() {
        let more = len(item);
        match runs.last_mut() {
            Some(run)
                if run.len() < count_max
                    && bytes + more <= bytes_max
                    && joins(&list[i - 1], item) =>
            {
                run.end = i + 1;
                bytes += more;
            }
            _ => {
                runs.push(i..i + 1);
                bytes = more;
            }
        }
    }
    runs
}
