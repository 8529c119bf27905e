//! Reading a record back, from memory or from its file, while the log goes on.
//!
//! No lock is held during a file read. A file may be reused meanwhile: its use is compared before
//! and after, and the caller is told to look its data up again.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    Error, Log, Position, Result,
    files::LogFile,
    format::{RECORD_HEADER_BYTES, RECORDS_START, RecordHeader},
};

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the buffer holds nothing useful if the record was recycled"]
pub enum ReadOutcome {
    /// The bytes are in the buffer.
    Read,
    /// The record was trimmed and its file let go: look up where the data is now.
    Recycled,
}

/// What became of a verified read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The record, with both checksums right.
    Record(VerifiedRecord),
    /// The record was trimmed and its file let go: look up where the data is now.
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

impl Log {
    /// Reads `buf.len()` bytes of the payload of the record at `record`, from `offset` bytes into
    /// it. The caller knows the payload's length, and asks for no more. The checksum is not
    /// verified: that would mean reading the whole record for every part of it (see
    /// [`Self::read_verified`]); recovery verifies every record.
    ///
    /// # Errors
    /// `Failed` if the disk can't be read (the log stays in service), `Invalid` if no record can
    /// be there.
    pub fn read(&self, record: Position, offset: u32, buf: &mut [u8]) -> Result<ReadOutcome> {
        let from = u64::from(RECORD_HEADER_BYTES) + u64::from(offset);
        self.read_raw(record, from, buf).map(|source| match source {
            Some(_) => ReadOutcome::Read,
            None => ReadOutcome::Recycled,
        })
    }

    /// Reads the whole record at `record` and verifies its checksums.
    ///
    /// # Errors
    /// As [`Self::read`], and `Damaged` if the record is not what was written.
    pub fn read_verified(&self, record: Position) -> Result<Verified> {
        let mut header = [0; RECORD_HEADER_BYTES as usize];
        let Some(source) = self.read_raw(record, 0, &mut header)? else {
            return Ok(Verified::Recycled);
        };
        let bad = |reason| Error::Damaged {
            file: source.file.name.clone(),
            offset: record.offset().into(),
            reason,
        };
        let header = RecordHeader::decode(&header)
            .ok()
            .filter(|header| header.position == record && header.nonce == source.nonce)
            .filter(|header| header.payload_bytes as usize <= self.inner.settings.buffer_bytes)
            .ok_or_else(|| bad("the record's header is not what was written"))?;
        let mut payload = vec![0; header.payload_bytes as usize];
        if self.read_raw(record, RECORD_HEADER_BYTES.into(), &mut payload)?.is_none() {
            return Ok(Verified::Recycled);
        }
        if crc32c::crc32c(&payload) != header.payload_crc {
            return Err(bad("the record's payload is not what was written"));
        }
        Ok(Verified::Record(VerifiedRecord { group: header.group, kind: header.kind, payload }))
    }

    /// Reads bytes from `from` bytes after `record`. `None` if its use is over.
    fn read_raw(&self, record: Position, from: u64, buf: &mut [u8]) -> Result<Option<Source>> {
        let nowhere = || Error::NoSuchPosition { position: record };
        if record.as_u64() >= self.inner.written.load(Ordering::Acquire) {
            if record >= self.end_position() {
                return Err(nowhere());
            }
            if let Some(done) = self.read_memory(record, from, buf) {
                done.ok_or_else(nowhere)?;
                return Ok(self.source(record));
            }
        }
        let end = u64::from(record.offset()) + from + buf.len() as u64;
        if record.offset() < RECORDS_START || end > u64::from(u32::MAX) {
            return Err(nowhere());
        }
        let Some(source) = self.source(record) else { return Ok(None) };
        source.file.read(u64::from(record.offset()) + from, buf)?;
        Ok(source.file.is_in_use(record.sequence()).then_some(source))
    }

    pub(crate) fn source(&self, record: Position) -> Option<Source> {
        let files = self.inner.files.read();
        let live = files.live.get(&record.sequence())?;
        Some(Source { file: Arc::clone(&live.file), nonce: live.nonce })
    }

    /// Copies from a buffer. `None` if the record is in none; `Some(None)` if it is too short.
    fn read_memory(&self, record: Position, from: u64, buf: &mut [u8]) -> Option<Option<()>> {
        let copy = |bytes: &[u8], buf: &mut [u8]| {
            let part = bytes.get(from as usize..)?.get(..buf.len())?;
            buf.copy_from_slice(part);
            Some(())
        };
        let tail = self.inner.tail.lock();
        if let Some(bytes) = tail.active_from(record) {
            return Some(copy(bytes, buf));
        }
        let chunk = tail.sealed_with(record)?;
        drop(tail);
        chunk.from(record).map(|bytes| copy(bytes, buf))
    }
}
