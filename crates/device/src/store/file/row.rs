//! Files in a row, as one range of bytes; blocking.
//!
//! Must hold: a sync that returns has made durable each write that was answered before it began.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Raw;
use crate::{Error, ErrorKind, Result, StatusRange};

/// Files of one size, of which the last may be shorter.
pub(super) struct Row {
    files: Vec<Raw>,
    file_bytes: u64,
    /// True for each file that changed since its last sync began. Set after the change: a sync could
    /// take an earlier mark, and miss the bytes.
    changed: Vec<AtomicBool>,
    /// One sync at a time: a second one waits for what the first took from `changed`. True once a
    /// sync failed: the kernel may have dropped bytes, and a later sync would not say so.
    lost: Mutex<bool>,
}

/// The part of a request that lies in one file.
struct Part {
    file: usize,
    offset: u64,
    /// The part's place in the request.
    place: Range<usize>,
}

impl Row {
    pub(super) fn new(files: Vec<Raw>, file_bytes: u64) -> Self {
        let changed = files.iter().map(|_| AtomicBool::new(false)).collect();
        Self { files, file_bytes, changed, lost: Mutex::default() }
    }

    pub(super) fn files(&self) -> &[Raw] {
        &self.files
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.files.iter().map(Raw::size_bytes).sum()
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.parts(offset, buf.len() as u64)
            .try_for_each(|part| self.files[part.file].read(part.offset, &mut buf[part.place]))
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.parts(offset, data.len() as u64).try_for_each(|part| {
            let written = self.files[part.file].write(part.offset, &data[part.place]);
            self.changed[part.file].store(true, Ordering::Release);
            written
        })
    }

    pub(super) fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.parts(offset, len).try_for_each(|part| {
            let zeroed = self.files[part.file].zero(part.offset, part.place.len() as u64);
            self.changed[part.file].store(true, Ordering::Release);
            zeroed
        })
    }

    pub(super) fn sync(&self) -> Result<()> {
        let mut lost = self.lost.lock();
        if *lost {
            return Err(Error::new(ErrorKind::Failed, "an earlier sync failed"));
        }
        for (file, changed) in self.files.iter().zip(&self.changed) {
            if changed.swap(false, Ordering::AcqRel) {
                file.sync().inspect_err(|_| *lost = true)?;
            }
        }
        Ok(())
    }

    pub(super) fn status(&self, offset: u64, len: u64, max: usize) -> Result<Vec<StatusRange>> {
        let mut found: Vec<StatusRange> = Vec::new();
        for part in self.parts(offset, len) {
            let start = part.file as u64 * self.file_bytes;
            let (len, room) = (part.place.len() as u64, max - found.len());
            for range in self.files[part.file].status(part.offset, len, room)? {
                match found.last_mut() {
                    Some(last) if last.hole == range.hole => last.length += range.length,
                    _ => found.push(StatusRange { offset: start + range.offset, ..range }),
                }
            }
            // The file may have more than it told.
            let end = found.last().map_or(offset, |last| last.offset + last.length);
            if found.len() == max || end < start + part.offset + len {
                break;
            }
        }
        Ok(found)
    }

    fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = Part> + use<> {
        let (file_bytes, mut at, end) = (self.file_bytes, offset, offset + len);
        std::iter::from_fn(move || {
            let (file, start) = ((at / file_bytes) as usize, at % file_bytes);
            let to = end.min(at - start + file_bytes);
            let place = (at - offset) as usize..(to - offset) as usize;
            at = to;
            (!place.is_empty()).then_some(Part { file, offset: start, place })
        })
    }
}
