//! Reading a record back, from memory or from its file, while the log goes on.
//!
//! No lock is held during a file read. A file may be reused meanwhile. So the reader compares its
//! use before and after, and tells its caller to look the data's place up again.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    Error, Log, LogPosition, Result,
    files::LogFile,
    format::{RECORD_HEADER_BYTES, RECORDS_START, RecordHeader},
};

/// Outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the buffer holds nothing useful if the record was recycled"]
pub enum ReadOutcome {
    /// The bytes are in the buffer.
    Read,
    /// The record was trimmed and its file let go. Look up the data's new place.
    Recycled,
}

/// Outcome of a verified read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The record, with both checksums right.
    Record(VerifiedRecord),
    /// The record was trimmed and its file let go. Look up the data's new place.
    Recycled,
}

/// A whole record, read and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRecord {
    /// As given to `append`.
    pub group: u32,
    /// As given to `append`.
    pub kind: u8,
    /// All parts, one after the other.
    pub payload: Vec<u8>,
}

/// A use of a file, to read from.
pub(crate) struct Source {
    pub(crate) file: Arc<LogFile>,
    pub(crate) nonce: u64,
}

/// The first bytes that a read takes in: a whole record of one 4 KiB page, or header and table of
/// one of 1 MiB.
const NEAR_BYTES: usize = 4608;

/// The part of a record that was read from its file.
struct Found {
    source: Source,
    position: LogPosition,
    header: RecordHeader,
    /// Bytes from the record's beginning on.
    near: Vec<u8>,
}

impl Log {
    /// Reads `buf.len()` bytes of the payload of the record at `record`, from `offset` bytes into
    /// it. Verifies each piece that holds some of them. The caller knows the payload's length, and
    /// asks for no more.
    ///
    /// # Errors
    /// `Damaged` if the bytes are not what was written. `Failed` if the disk can't be read; the log
    /// stays in service. `Invalid` if no record can be there.
    pub fn read(&self, record: LogPosition, offset: u32, buf: &mut [u8]) -> Result<ReadOutcome> {
        let nowhere = || Error::NoSuchPosition { position: record };
        if record.as_u64() >= self.inner.written.load(Ordering::Acquire) {
            if record >= self.end_position() {
                return Err(nowhere());
            }
            if let Some(done) = self.read_memory(record, offset, buf) {
                return done.map(|()| ReadOutcome::Read).ok_or_else(nowhere);
            }
        }
        let Some(found) = self.find(record)? else { return Ok(ReadOutcome::Recycled) };
        let end = u64::from(offset) + buf.len() as u64;
        if end > u64::from(found.header.payload_bytes) {
            return Err(nowhere());
        }
        found.read_pieces(offset..end as u32, buf)
    }

    /// Reads the whole record at `record` and verifies its checksums.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_verified(&self, record: LogPosition) -> Result<Verified> {
        let Some(header) = self.header_of(record)? else { return Ok(Verified::Recycled) };
        if header.payload_bytes as usize > self.inner.settings.buffer_bytes {
            return Err(Error::NoSuchPosition { position: record });
        }
        let mut payload = vec![0; header.payload_bytes as usize];
        match self.read(record, 0, &mut payload)? {
            ReadOutcome::Recycled => Ok(Verified::Recycled),
            ReadOutcome::Read => Ok(Verified::Record(VerifiedRecord {
                group: header.group,
                kind: header.kind,
                payload,
            })),
        }
    }

    /// Reads the header of the record at `record`; `None` if its use is over.
    fn header_of(&self, record: LogPosition) -> Result<Option<RecordHeader>> {
        let nowhere = || Error::NoSuchPosition { position: record };
        if record.as_u64() >= self.inner.written.load(Ordering::Acquire) {
            if record >= self.end_position() {
                return Err(nowhere());
            }
            let header = self.in_memory(record, |bytes| RecordHeader::decode(bytes).ok());
            if let Some(header) = header {
                return header.map(Some).ok_or_else(nowhere);
            }
        }
        Ok(self.find(record)?.map(|found| found.header))
    }

    /// Reads the beginning of a record in its file, and verifies its header. `None` if its use is
    /// over.
    fn find(&self, record: LogPosition) -> Result<Option<Found>> {
        if record.offset() < RECORDS_START {
            return Err(Error::NoSuchPosition { position: record });
        }
        let Some(source) = self.source(record) else { return Ok(None) };
        let mut near = vec![0; NEAR_BYTES];
        source.file.read(record.offset().into(), &mut near)?;
        if !source.file.is_in_use(record.sequence()) {
            return Ok(None);
        }
        let header = RecordHeader::decode(&near)
            .ok()
            .filter(|header| header.position == record && header.nonce == source.nonce);
        let Some(header) = header else {
            return Err(damaged(&source, record, "the record's header is not what was written"));
        };
        Ok(Some(Found { source, position: record, header, near }))
    }

    pub(crate) fn source(&self, record: LogPosition) -> Option<Source> {
        let files = self.inner.files.read();
        let live = files.live.get(&record.sequence())?;
        Some(Source { file: Arc::clone(&live.file), nonce: live.nonce })
    }

    /// Copies from a buffer. `None` if the record is in none; `Some(None)` if it is too short.
    fn read_memory(&self, record: LogPosition, offset: u32, buf: &mut [u8]) -> Option<Option<()>> {
        self.in_memory(record, |bytes| {
            let layout = RecordHeader::decode(bytes).ok()?.layout();
            let payload = bytes.get(layout.payload_at() as usize..layout.end() as usize)?;
            buf.copy_from_slice(payload.get(offset as usize..)?.get(..buf.len())?);
            Some(())
        })
    }

    /// Calls `look` on the bytes from a record on, if a buffer holds them.
    fn in_memory<T>(&self, record: LogPosition, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let tail = self.inner.tail.lock();
        if let Some(bytes) = tail.active_from(record) {
            return Some(look(bytes));
        }
        let chunk = tail.sealed_with(record)?;
        drop(tail);
        chunk.from(record).map(look)
    }
}

impl Found {
    /// Copies a range of the payload, after verifying the pieces that hold it.
    fn read_pieces(mut self, range: Range<u32>, buf: &mut [u8]) -> Result<ReadOutcome> {
        if range.is_empty() {
            return Ok(ReadOutcome::Read);
        }
        let layout = self.header.layout();
        let pieces = layout.pieces_of(&range);
        let held = layout.bytes_of(pieces.clone());
        self.bring_near(layout.payload_at())?;
        let (from, to) = (layout.payload_at() + held.start, layout.payload_at() + held.end);
        let far: Vec<u8>;
        let bytes = match self.near.get(from as usize..to as usize) {
            Some(bytes) => bytes,
            None => {
                let mut read = vec![0; held.len()];
                self.source.file.read(u64::from(self.position.offset() + from), &mut read)?;
                far = read;
                &far
            }
        };
        let table = &self.near[RECORD_HEADER_BYTES as usize..layout.payload_at() as usize];
        let is_good = self.header.vouches_for_pieces(table, pieces, bytes);
        if !self.source.file.is_in_use(self.position.sequence()) {
            return Ok(ReadOutcome::Recycled);
        }
        if !is_good {
            let reason = "the record's payload is not what was written";
            return Err(damaged(&self.source, self.position, reason));
        }
        let skip = (range.start - held.start) as usize;
        buf.copy_from_slice(&bytes[skip..skip + buf.len()]);
        Ok(ReadOutcome::Read)
    }

    /// Reads on until `near` has this many bytes: the table of a record of more than 1 MiB is long.
    fn bring_near(&mut self, bytes: u32) -> Result<()> {
        let has = self.near.len();
        if has < bytes as usize {
            self.near.resize(bytes as usize, 0);
            let from = u64::from(self.position.offset()) + has as u64;
            self.source.file.read(from, &mut self.near[has..])?;
        }
        Ok(())
    }
}

fn damaged(source: &Source, record: LogPosition, reason: &'static str) -> Error {
    Error::Damaged { file: source.file.name.clone(), offset: record.offset().into(), reason }
}
