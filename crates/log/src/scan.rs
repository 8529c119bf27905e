//! Reading the records of one use of a file in order, or looking for any that are there.

use std::sync::Arc;

use crate::{
    LogPosition, Result,
    error::Failure,
    files::LogFile,
    format::{RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RecordHeader, record_bytes},
};

/// Bytes of one read: large enough for the disk's best speed, small beside the log's buffers.
const WINDOW_BYTES: u32 = 1 << 20;

/// A use of a file, and a window over it.
pub(crate) struct Scanner {
    pub(crate) file: Arc<LogFile>,
    sequence: u32,
    nonce: u64,
    /// No record reaches beyond it.
    limit: u32,
    window: Vec<u8>,
    window_start: u32,
}

impl Scanner {
    pub(crate) fn new(file: Arc<LogFile>, sequence: u32, nonce: u64, limit: u32) -> Self {
        Self { file, sequence, nonce, limit, window: Vec::new(), window_start: 0 }
    }

    /// No record reaches beyond it.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// True while the file is in the scanned use.
    pub(crate) fn is_current(&self) -> bool {
        self.file.is_in_use(self.sequence)
    }

    /// The bytes of a range inside the limit.
    pub(crate) fn bytes(&mut self, offset: u32, bytes: u32) -> Result<&[u8], Failure> {
        let window_end = self.window_start as usize + self.window.len();
        if offset < self.window_start || (offset + bytes) as usize > window_end {
            let length = bytes.max(WINDOW_BYTES).min(self.limit - offset);
            self.window.resize(length as usize, 0);
            self.window_start = offset;
            if let Err(failure) = self.file.read(offset.into(), &mut self.window) {
                self.window.clear();
                return Err(failure);
            }
        }
        let from = (offset - self.window_start) as usize;
        Ok(&self.window[from..from + bytes as usize])
    }

    /// Reads the header at `offset`, if it is whole, and of this use and place.
    pub(crate) fn header_at(&mut self, offset: u32) -> Result<Option<RecordHeader>, Failure> {
        if self.limit.saturating_sub(offset) < RECORD_ALIGN_BYTES {
            return Ok(None);
        }
        let (nonce, place) = (self.nonce, LogPosition::new(self.sequence, offset));
        let header = RecordHeader::decode(self.bytes(offset, RECORD_HEADER_BYTES)?).ok();
        Ok(header.filter(|header| header.nonce == nonce && header.position == place))
    }

    /// Reads the header of the record at `offset`, if the whole record is good.
    pub(crate) fn record_at(&mut self, offset: u32) -> Result<Option<RecordHeader>, Failure> {
        let Some(header) = self.header_at(offset)? else { return Ok(None) };
        let whole = record_bytes(header.payload_bytes as usize);
        if whole.is_none_or(|whole| whole > self.limit - offset) {
            return Ok(None);
        }
        // One window over the whole record, so that the caller finds the payload there.
        let record = self.bytes(offset, header.layout().end())?;
        let is_whole = header.vouches_for(&record[RECORD_HEADER_BYTES as usize..]);
        Ok(is_whole.then_some(header))
    }

    /// True if something after the bad place at `offset` proves that the place was durable.
    pub(crate) fn covered_later(&mut self, offset: u32) -> Result<bool, Failure> {
        let bad = LogPosition::new(self.sequence, offset);
        let mut place = offset;
        while self.limit.saturating_sub(place) >= RECORD_ALIGN_BYTES {
            if self.header_at(place)?.is_some_and(|header| header.synced_to > bad) {
                return Ok(true);
            }
            place += RECORD_ALIGN_BYTES;
        }
        Ok(false)
    }
}
