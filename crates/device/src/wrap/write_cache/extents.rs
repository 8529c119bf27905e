//! The bytes in memory, by offset, without overlap. Does no IO.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::Content;

/// Memory that a piece costs besides its data, about: an entry of the map, and an allocation.
const PIECE_BYTES: usize = 96;

/// Bytes that were written, or zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    /// So many zeros, which cost no memory.
    Zeroes(u64),
}

impl Piece {
    /// A piece with memory of its own: a part of a caller's buffer would keep all of it.
    pub(super) fn copy_of(data: &[u8]) -> Self {
        Self::Data(Bytes::copy_from_slice(data))
    }

    pub(super) fn data(&self) -> &[u8] {
        match self {
            Self::Data(data) => data,
            Self::Zeroes(_) => &[],
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zeroes(len) => *len,
        }
    }

    fn bytes(&self) -> usize {
        PIECE_BYTES + self.data().len()
    }

    fn slice(&self, range: Range<u64>) -> Self {
        match self {
            Self::Data(data) => Self::Data(data.slice(range.start as usize..range.end as usize)),
            Self::Zeroes(_) => Self::Zeroes(range.end - range.start),
        }
    }
}

/// A piece, or a part of one, as it was found. Parts of one write have its version.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) piece: Piece,
    version: u64,
}

impl Found {
    fn end(&self) -> u64 {
        self.offset + self.piece.len()
    }

    /// True if both are data, and the other begins at the end of this one.
    pub(super) fn joins(&self, other: &Self) -> bool {
        let data = |found: &Self| matches!(found.piece, Piece::Data(_));
        data(self) && data(other) && self.end() == other.offset
    }
}

/// The pieces in memory.
#[derive(Debug, Default)]
pub(super) struct Extents {
    pieces: BTreeMap<u64, (Piece, u64)>,
    bytes: usize,
    versions: u64,
}

impl Extents {
    /// Bytes that all pieces cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes after an insertion at most: it may cut a piece into two.
    pub(super) fn bytes_after(&self, piece: &Piece) -> usize {
        self.bytes + piece.bytes() + PIECE_BYTES
    }

    /// Adds a piece in place of all that is in its range.
    pub(super) fn insert(&mut self, offset: u64, piece: Piece) {
        self.cut(&(offset..offset + piece.len()), None);
        self.versions += 1;
        self.put(offset, piece, self.versions);
    }

    /// Removes what is left of a piece that was found: no newer piece.
    pub(super) fn remove(&mut self, found: &Found) {
        self.cut(&(found.offset..found.end()), Some(found.version));
    }

    /// Gives the pieces of a range, clipped to it, in order.
    pub(super) fn within(&self, range: &Range<u64>) -> Vec<Found> {
        let clip = |(offset, piece, version): (u64, &Piece, u64)| {
            let (from, to) = (offset.max(range.start), (offset + piece.len()).min(range.end));
            Found { offset: from, piece: piece.slice(from - offset..to - offset), version }
        };
        self.overlapping(range).map(clip).collect()
    }

    /// Gives the range of the next pieces from an offset on that touch. Goes round at the end.
    pub(super) fn run(&self, from: u64, len_max: u64) -> Option<Range<u64>> {
        self.run_from(from, len_max).or_else(|| self.run_from(0, len_max))
    }

    /// Gives the range of the next pieces from an offset on that touch: one piece, or more of
    /// `len_max` bytes together. A piece that begins before the offset counts from there.
    pub(super) fn run_from(&self, from: u64, len_max: u64) -> Option<Range<u64>> {
        let mut run: Option<Range<u64>> = None;
        for (offset, piece, _) in self.overlapping(&(from..u64::MAX)) {
            let end = offset + piece.len();
            match &mut run {
                None => run = Some(offset.max(from)..end),
                Some(run) if run.end == offset && end - run.start <= len_max => run.end = end,
                Some(_) => break,
            }
        }
        run
    }

    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Piece, u64)> {
        let before = self.pieces.range(..range.start).next_back();
        let first = before.filter(|(offset, (piece, _))| *offset + piece.len() > range.start);
        let rest = self.pieces.range(range.start..range.end.max(range.start));
        first.into_iter().chain(rest).map(|(offset, (piece, version))| (*offset, piece, *version))
    }

    /// Cuts a range out of all pieces, or out of those of a version.
    fn cut(&mut self, range: &Range<u64>, version: Option<u64>) {
        let hit = |found: &(u64, &Piece, u64)| version.is_none_or(|version| version == found.2);
        let offsets: Vec<u64> = self.overlapping(range).filter(hit).map(|found| found.0).collect();
        for offset in offsets {
            let Some((piece, version)) = self.pieces.remove(&offset) else { continue };
            self.bytes -= piece.bytes();
            let end = offset + piece.len();
            for part in [offset..range.start.min(end), range.end.max(offset)..end] {
                if part.start < part.end {
                    let rest = match piece.slice(part.start - offset..part.end - offset) {
                        Piece::Data(data) => Piece::copy_of(&data),
                        zeroes => zeroes,
                    };
                    self.put(part.start, rest, version);
                }
            }
        }
    }

    fn put(&mut self, offset: u64, piece: Piece, version: u64) {
        self.bytes += piece.bytes();
        self.pieces.insert(offset, (piece, version));
    }
}

/// True if pieces within a range of `len` bytes leave no gap.
pub(super) fn cover(found: &[Found], len: u64) -> bool {
    found.iter().map(|found| found.piece.len()).sum::<u64>() == len
}

/// Lays pieces over what was read from `offset`.
pub(super) fn lay_over(found: &[Found], offset: u64, buf: &mut [u8], content: Content) -> Content {
    let zeroes = found.iter().all(|found| matches!(found.piece, Piece::Zeroes(_)));
    if content == Content::Zeroes {
        if zeroes {
            return content;
        }
        buf.fill(0);
    }
    for part in found {
        let start = (part.offset - offset) as usize;
        let to = &mut buf[start..start + part.piece.len() as usize];
        match &part.piece {
            Piece::Data(data) => to.copy_from_slice(data),
            Piece::Zeroes(_) => to.fill(0),
        }
    }
    Content::Data
}
