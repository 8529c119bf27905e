//! Raw images as pieces: bytes, and holes that read as zeros. Blocking; runs on a thread of its
//! own.
//!
//! Pieces come in order and without gaps, are multiples of 512 bytes, and hold at most
//! [`PIECE_BYTES_MAX`] bytes of data. A hole is a file system's hole, or a run of zeros.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom as From};
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use skerry_api::PIECE_BYTES_MAX;
use skerry_api::client::Piece;
use skerry_api::v1::{Data, Hole};
use skerry_core::size::SECTOR_BYTES;

use crate::zeros::is_zero;

/// Length of the runs in which zeros are looked for. Shorter ones cost less as data than as
/// messages of their own.
const ZERO_RUN_BYTES: usize = 64 << 10;

/// Reads a raw image piece by piece.
pub(crate) struct Reader {
    file: File,
    /// The file's own size.
    file_bytes: u64,
    at: u64,
    /// End of the known data.
    data_end: u64,
    ready: VecDeque<Piece>,
}

impl Reader {
    /// Reads from the start of `file`, a regular file or a block device.
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        let file_bytes = file.seek(From::End(0))?;
        Ok(Self { file, file_bytes, at: 0, data_end: 0, ready: VecDeque::new() })
    }

    /// Number of bytes to come: the file's size, rounded up to a multiple of 512.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.file_bytes.next_multiple_of(SECTOR_BYTES)
    }

    fn step(&mut self) -> io::Result<()> {
        if self.at >= self.data_end && !self.find_data()? {
            return Ok(());
        }
        let len = (self.data_end - self.at).min(PIECE_BYTES_MAX as u64) as usize;
        let mut bytes = vec![0; len.next_multiple_of(SECTOR_BYTES as usize)];
        self.file.read_exact_at(&mut bytes[..len], self.at)?;
        self.split(Bytes::from(bytes));
        Ok(())
    }

    /// Finds the next data, and skips a hole. False if only a hole is left.
    fn find_data(&mut self) -> io::Result<bool> {
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(start) => start - start % SECTOR_BYTES,
            Err(Errno::NXIO) => self.size_bytes(),
            // A file system (or device) without holes.
            Err(Errno::INVAL) => self.at,
            Err(error) => return Err(error.into()),
        };
        let start = start.max(self.at);
        self.push_hole(start - self.at);
        if start >= self.file_bytes {
            return Ok(false);
        }
        let end = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.next_multiple_of(SECTOR_BYTES),
            Err(Errno::INVAL) => self.file_bytes,
            Err(error) => return Err(error.into()),
        };
        // At least one sector, even if the hole has just come into being.
        self.data_end = end.max(start + SECTOR_BYTES).min(self.file_bytes);
        Ok(true)
    }

    fn push_hole(&mut self, length: u64) {
        if length == 0 {
            return;
        }
        match self.ready.back_mut() {
            Some(Piece::Hole(hole)) => hole.length += length,
            _ => self.ready.push_back(Piece::Hole(Hole { offset: self.at, length })),
        }
        self.at += length;
    }

    /// Cuts bytes into data and runs of zeros.
    fn split(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let zero = first_run_is_zero(&bytes);
            let runs = bytes.chunks(ZERO_RUN_BYTES).take_while(|run| is_zero(run) == zero);
            let len = runs.map(<[u8]>::len).sum();
            let run = bytes.split_to(len);
            if zero {
                self.push_hole(len as u64);
            } else {
                self.ready.push_back(Piece::Data(Data { offset: self.at, bytes: run }));
                self.at += len as u64;
            }
        }
    }
}

impl Iterator for Reader {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            if self.at >= self.size_bytes() {
                return None;
            }
            if let Err(error) = self.step() {
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

fn first_run_is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZERO_RUN_BYTES).next().is_some_and(is_zero)
}

/// Writes pieces to a new file, leaving holes out.
pub(crate) struct Writer {
    file: File,
    at: u64,
    size_bytes: u64,
}

impl Writer {
    /// Writes to `file`, which is empty and will have `size_bytes`.
    pub(crate) fn new(file: File, size_bytes: u64) -> Self {
        Self { file, at: 0, size_bytes }
    }

    /// Writes the next piece. Gives the number of bytes that it stands for.
    pub(crate) fn write(&mut self, piece: &Piece) -> io::Result<u64> {
        let (offset, length) = extent(piece);
        let end = offset.checked_add(length).filter(|end| *end <= self.size_bytes);
        let (true, Some(end)) = (offset == self.at, end) else {
            return Err(io::Error::other("the node sent pieces out of order"));
        };
        if let Piece::Data(data) = piece {
            self.file.write_all_at(&data.bytes, offset)?;
        }
        self.at = end;
        Ok(length)
    }

    /// Gives the file its size and makes it durable.
    pub(crate) fn finish(self) -> io::Result<()> {
        if self.at != self.size_bytes {
            return Err(io::Error::other("the node stopped before the end"));
        }
        self.file.set_len(self.size_bytes)?;
        self.file.sync_all()
    }
}

/// Offset and length of a piece.
pub(crate) fn extent(piece: &Piece) -> (u64, u64) {
    match piece {
        Piece::Data(data) => (data.offset, data.bytes.len() as u64),
        Piece::Hole(hole) => (hole.offset, hole.length),
    }
}

#[cfg(test)]
mod tests;
