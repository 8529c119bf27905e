//! Frames in local files: segments of a local bucket, or files of the disk cache.
//!
//! A read takes blocks of a raw frame alone. The frame's length tells its number of blocks if it is
//! raw. The frame's header, which is read too, tells whether it is.

use super::Wanted;
use super::piece::Piece;
use super::scratch;
use crate::objects::local::try_read_exact_at;
use bytes::Bytes;
use skerry_core::FormatError;
use skerry_core::entry::BlockEntry;
use skerry_core::frame::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES_MAX, FrameHead, head_len};
use skerry_core::size::BlockSize;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

/// Says whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    Yes,
}

/// Says why a read from a file failed.
#[derive(Debug)]
pub(super) enum FileError {
    /// The bytes are not in memory, and the read must not wait for the disk.
    WouldWait,
    /// The system refused the read.
    Io(io::Error),
    /// The bytes are damaged.
    Format(FormatError),
}

impl From<FormatError> for FileError {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

pub(super) fn read_exact(
    file: &File,
    at: u64,
    buffer: &mut [u8],
    wait: Wait,
) -> Result<(), FileError> {
    let len = buffer.len();
    if try_read_exact_at(file, at, &mut [IoSliceMut::new(buffer)], len) {
        return Ok(());
    }
    if wait == Wait::No {
        return Err(FileError::WouldWait);
    }
    file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FormatError::Truncated { what: "frame" }.into(),
        _ => FileError::Io(error),
    })
}

/// Reads and verifies one block of a frame that has the length of a raw one, into memory of its own
/// and without waiting. Gives nothing if the frame is compressed after all.
pub(super) fn raw_block(
    file: &File,
    at: u64,
    entry: &BlockEntry,
    block: BlockSize,
    blocks: usize,
) -> Result<Option<Bytes>, FileError> {
    let wait = Wait::No;
    let mut head = [0; FRAME_HEAD_BYTES_MAX];
    let head = &mut head[..head_len(blocks)];
    let mut plain = vec![0; block.bytes()];
    let both = head.len() + plain.len();
    let mut buffers = [IoSliceMut::new(head), IoSliceMut::new(&mut plain)];
    // The only block of a frame stands right behind its header: one call reads both.
    let whole = blocks == 1 && try_read_exact_at(file, at, &mut buffers, both);
    if !whole {
        read_exact(file, at, head, wait)?;
    }
    let parsed = FrameHead::parse(head)?;
    let i = check(&parsed, entry, block)?;
    if !parsed.is_raw() || parsed.blocks() != blocks {
        return Ok(None);
    }
    if !whole {
        read_exact(file, at + parsed.raw_block_at(i) as u64, &mut plain, wait)?;
    }
    parsed.verify_block(i, &plain)?;
    Ok(Some(plain.into()))
}

/// Reads the stored bytes of a frame; waits for the disk.
pub(super) fn stored(file: &File, at: u64, len: u32) -> Result<Bytes, FileError> {
    if len as usize > FRAME_BYTES_MAX {
        return Err(FormatError::invalid("map entry", "its frame is too long").into());
    }
    let mut bytes = vec![0; len as usize];
    read_exact(file, at, &mut bytes, Wait::Yes)?;
    Ok(bytes.into())
}

/// Reads a frame's header and checks that the map names this frame.
pub(super) fn head_of(
    entry: &BlockEntry,
    stored: &[u8],
    block: BlockSize,
) -> Result<FrameHead, FormatError> {
    let head = FrameHead::parse(stored)?;
    check(&head, entry, block)?;
    Ok(head)
}

/// Checks that the map names the frame of this header, and gives the block's index in it.
fn check(head: &FrameHead, entry: &BlockEntry, block: BlockSize) -> Result<usize, FormatError> {
    if head.block_size() != block {
        return Err(FormatError::invalid("frame", "it has another block size"));
    }
    head.locate(entry)
}

/// A frame that was read whole and unpacked. Taking a block out verifies it.
pub(super) struct Frame<P = Bytes> {
    head: FrameHead,
    plain: P,
    block: BlockSize,
}

impl Frame {
    /// Unpacks the payload into memory of its own.
    pub(super) fn open(head: FrameHead, stored: &Bytes) -> Result<Self, FormatError> {
        let plain = head.unpack(stored)?;
        Ok(Self::new(head, plain))
    }
}

impl<P: AsRef<[u8]>> Frame<P> {
    /// Makes a frame with the payload `plain`.
    pub(super) fn new(head: FrameHead, plain: P) -> Frame<P> {
        let block = head.block_size();
        Frame { head, plain, block }
    }

    /// Gives a block of it, verified.
    pub(super) fn block(&self, entry: &BlockEntry) -> Result<&[u8], FormatError> {
        let i = self.head.locate(entry)?;
        self.nth(i)
    }

    /// Gives the `i`-th block, verified.
    pub(super) fn nth(&self, i: usize) -> Result<&[u8], FormatError> {
        let size = self.block.bytes();
        let plain = self.plain.as_ref().get(i * size..(i + 1) * size);
        let plain = plain.ok_or(FormatError::Truncated { what: "frame" })?;
        self.head.verify_block(i, plain)?;
        Ok(plain)
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.head.blocks()
    }

    /// The slot of its first block.
    pub(super) fn first_slot(&self) -> u16 {
        self.head.place().first_slot
    }
}

/// Reads consecutive whole raw frames of a file straight to the places of their blocks, in one
/// call, without waiting. `pieces` are in ascending order in file and output, and each is
/// [`Piece::whole`]. Says for each whether its blocks are there and verified.
pub(super) fn scatter(
    file: &File,
    pieces: &[&Piece],
    wanted: &[Wanted],
    block: BlockSize,
    out: &mut [u8],
) -> Option<Vec<bool>> {
    let places: Vec<_> = pieces.iter().filter_map(|p| Some((p.placed_at()?, p.whole?))).collect();
    let heads_len: usize = places.iter().map(|(_, w)| head_len(w.blocks)).sum();
    let gaps: usize = places.len() * GAP_MAX as usize;
    scratch::with(heads_len + gaps, |scratch| {
        scatter_into(file, pieces, &places, wanted, block, scratch, out)
    })
}

/// As [`scatter`], with memory for headers and gaps.
fn scatter_into(
    file: &File,
    pieces: &[&Piece],
    places: &[(u64, super::piece::Whole)],
    wanted: &[Wanted],
    block: BlockSize,
    scratch: &mut [u8],
    out: &mut [u8],
) -> Option<Vec<bool>> {
    let first = places.first()?.0;
    let mut buffers = Vec::with_capacity(3 * places.len());
    let (mut free, mut rest, mut out_at) = (&mut *scratch, &mut *out, 0);
    let mut file_at = first;
    for (at, whole) in places {
        let gap = at.checked_sub(file_at).filter(|gap| *gap <= GAP_MAX)? as usize;
        let (gap_bytes, behind) = free.split_at_mut(gap);
        let (head, behind) = behind.split_at_mut(head_len(whole.blocks));
        free = behind;
        let len = whole.blocks * block.bytes();
        let skip = whole.out_at.checked_sub(out_at)?;
        let (payload, behind) = rest.split_at_mut(skip).1.split_at_mut(len);
        (rest, out_at) = (behind, whole.out_at + len);
        file_at = at + (head.len() + len) as u64;
        if gap > 0 {
            buffers.push(IoSliceMut::new(gap_bytes));
        }
        buffers.push(IoSliceMut::new(head));
        buffers.push(IoSliceMut::new(payload));
    }
    if !try_read_exact_at(file, first, &mut buffers, (file_at - first) as usize) {
        return None;
    }
    Some(verify_scattered(pieces, places, wanted, block, scratch, out))
}

/// The largest gap between two frames that one call reads: the disk cache aligns frames so.
pub(super) const GAP_MAX: u64 = 63;

fn verify_scattered(
    pieces: &[&Piece],
    places: &[(u64, super::piece::Whole)],
    wanted: &[Wanted],
    block: BlockSize,
    scratch: &[u8],
    out: &[u8],
) -> Vec<bool> {
    let mut scratch_at = 0;
    let mut file_at = places.first().map_or(0, |(at, _)| *at);
    let mut good = Vec::with_capacity(pieces.len());
    for (piece, (at, whole)) in pieces.iter().zip(places) {
        scratch_at += (at - file_at) as usize;
        let head = &scratch[scratch_at..scratch_at + head_len(whole.blocks)];
        scratch_at += head.len();
        let len = whole.blocks * block.bytes();
        file_at = at + (head.len() + len) as u64;
        let payload = &out[whole.out_at..whole.out_at + len];
        let first = &wanted[piece.members[0]].entry;
        good.push(verify_whole(head, first, whole.blocks, block, payload).is_ok());
    }
    good
}

fn verify_whole(
    head: &[u8],
    first: &BlockEntry,
    blocks: usize,
    block: BlockSize,
    payload: &[u8],
) -> Result<(), FormatError> {
    let head = FrameHead::parse(head)?;
    let i = check(&head, first, block)?;
    if i != 0 || head.blocks() != blocks || !head.is_raw() {
        return Err(FormatError::invalid("frame", "it is not read whole"));
    }
    let mut plain = payload.chunks_exact(block.bytes()).enumerate();
    plain.try_for_each(|(i, plain)| head.verify_block(i, plain))
}
