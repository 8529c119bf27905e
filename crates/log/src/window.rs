//! Reading many records back in the order of their places: one system call for a window of them,
//! instead of two for each.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    Error, Log, LogPosition, Result, Verified,
    files::LogFile,
    format::{RECORD_HEADER_BYTES, RecordHeader},
};

/// Bytes of a file in one read, unless a record is longer.
const WINDOW_BYTES: usize = 256 << 10;

/// A part of a file as it was during one use.
struct Seen {
    file: Arc<LogFile>,
    nonce: u64,
    sequence: u32,
    /// Offset of `bytes` in the file.
    offset: u32,
}

/// Reads records, and verifies each, as [`Log::read_verified`] does.
pub struct Window {
    log: Log,
    seen: Option<Seen>,
    bytes: Vec<u8>,
    /// The last record that was found in the window, and the place of its payload.
    last: Option<(LogPosition, Range<usize>)>,
    /// The last record that was not in a file yet.
    alone: (LogPosition, Vec<u8>),
}

impl Log {
    /// Makes a reader for many records. It is quick if the caller goes in the order of positions.
    pub fn window(&self) -> Window {
        Window {
            log: self.clone(),
            seen: None,
            bytes: Vec::new(),
            last: None,
            alone: (LogPosition::MAX, Vec::new()),
        }
    }
}

impl Window {
    /// Reads the payload of the record at `record`; `None` if its file was let go.
    ///
    /// # Errors
    /// As [`Log::read_verified`].
    pub fn read(&mut self, record: LogPosition) -> Result<Option<&[u8]>> {
        if self.alone.0 == record {
            return Ok(Some(&self.alone.1));
        }
        if let Some(payload) = self.place(record)? {
            return Ok(Some(&self.bytes[payload]));
        }
        match self.log.read_verified(record)? {
            Verified::Record(found) => {
                self.alone = (record, found.payload);
                Ok(Some(&self.alone.1))
            }
            Verified::Recycled => Ok(None),
        }
    }

    /// Finds the payload of a record in the window; moves the window there if it must.
    fn place(&mut self, record: LogPosition) -> Result<Option<Range<usize>>> {
        // A caller that wants parts of a record asks for it many times: verify it once.
        if let Some((last, payload)) = &self.last
            && *last == record
        {
            return Ok(Some(payload.clone()));
        }
        let mut found = self.find(record)?;
        if found.is_none() {
            self.load(record);
            found = self.find(record)?;
        }
        self.last = found.clone().map(|payload| (record, payload));
        Ok(found)
    }

    /// Finds the payload of a record in the window, if the whole record is in there.
    fn find(&self, record: LogPosition) -> Result<Option<Range<usize>>> {
        let Some(seen) = self.seen.as_ref().filter(|seen| seen.sequence == record.sequence())
        else {
            return Ok(None);
        };
        let Some(at) = record.offset().checked_sub(seen.offset) else { return Ok(None) };
        let from = at as usize + RECORD_HEADER_BYTES as usize;
        let Some(header) = self.bytes.get(at as usize..from) else { return Ok(None) };
        let bad = |reason| Error::Damaged {
            file: seen.file.name.clone(),
            offset: record.offset().into(),
            reason,
        };
        let header = RecordHeader::decode(header)
            .ok()
            .filter(|header| header.position == record && header.nonce == seen.nonce)
            .ok_or_else(|| bad("the record's header is not what was written"))?;
        let layout = header.layout();
        let to = at as usize + layout.end() as usize;
        let Some(body) = self.bytes.get(from..to) else { return Ok(None) };
        if !header.vouches_for(body) {
            return Err(bad("the record's payload is not what was written"));
        }
        Ok(Some(at as usize + layout.payload_at() as usize..to))
    }

    /// Fills the window from a record on with the bytes of its file; leaves it empty if there are
    /// none.
    fn load(&mut self, record: LogPosition) {
        self.seen = None;
        let written = LogPosition::from_u64(self.log.inner.written.load(Ordering::Acquire));
        let Some(source) = self.log.source(record) else { return };
        let file_bytes = self.log.inner.settings.file_bytes;
        let end = if written.sequence() == record.sequence() {
            u64::from(written.offset())
        } else {
            file_bytes
        };
        let from = u64::from(record.offset());
        let here = end.saturating_sub(from) as usize;
        if written <= record || here == 0 {
            return;
        }
        self.bytes.clear();
        self.last = None;
        // A bad place may be another record's. Reading this one alone will show whether it is good.
        let mut is_read = self.extend(&source.file, from, here.min(WINDOW_BYTES));
        if let Ok(header) = RecordHeader::decode(&self.bytes) {
            let whole = header.layout().end() as usize;
            is_read = is_read && self.extend(&source.file, from, whole.min(here));
        }
        if is_read && source.file.is_in_use(record.sequence()) {
            self.seen = Some(Seen {
                file: source.file,
                nonce: source.nonce,
                sequence: record.sequence(),
                offset: record.offset(),
            });
        }
    }

    /// Reads on until the window holds `len` bytes; true if that succeeds.
    fn extend(&mut self, file: &LogFile, from: u64, len: usize) -> bool {
        let has = self.bytes.len();
        if len <= has {
            return true;
        }
        self.bytes.resize(len, 0);
        file.read(from + has as u64, &mut self.bytes[has..]).is_ok()
    }
}
