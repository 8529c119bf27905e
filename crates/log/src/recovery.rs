//! Reading the surviving records, one by one and in order, so that the caller can rebuild its
//! state. Verifies every checksum on the way.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    Error, LogPosition, Result,
    files::LogFile,
    format::{FileHeader, RECORDS_START, RecordHeader, record_bytes},
    inner::Inner,
    scan::Scanner,
    tail::State,
};

/// A use of a file with records to read.
#[derive(Clone)]
pub(crate) struct PastUse {
    pub(crate) file: Arc<LogFile>,
    pub(crate) sequence: u32,
    pub(crate) nonce: u64,
    pub(crate) first_number: u64,
    pub(crate) end: u32,
}

/// A surviving record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered<'a> {
    /// Its position, as `append` gave it.
    pub position: LogPosition,
    /// As given to `append`.
    pub group: u32,
    /// As given to `append`.
    pub kind: u8,
    /// All parts, one after the other.
    pub payload: &'a [u8],
}

struct Cursor {
    past: PastUse,
    scanner: Scanner,
    offset: u32,
    number: u64,
    groups: HashMap<u32, u32>,
}

/// The surviving records, oldest first. Read it to its end: only then does the log take appends.
/// Keeps one record in memory at a time.
#[must_use = "the log takes no records before this has been read to its end"]
pub struct Recovery {
    inner: Arc<Inner>,
    uses: VecDeque<PastUse>,
    cursor: Option<Cursor>,
    total_bytes: u64,
    /// Header of the use that begins after the last record.
    header: Option<FileHeader>,
}

impl Recovery {
    pub(crate) fn new(inner: Arc<Inner>, uses: VecDeque<PastUse>, header: FileHeader) -> Self {
        let total_bytes = uses.iter().map(|past| u64::from(past.end - RECORDS_START)).sum();
        Self { inner, uses, cursor: None, total_bytes, header: Some(header) }
    }

    /// Bytes of all records to read, for a progress bar.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Gives the next record, or `None` after the last.
    ///
    /// # Errors
    /// `Damaged` if a durable record is not what was written, `Failed` if the disk can't be read.
    /// The log takes no records then.
    #[expect(clippy::should_implement_trait, reason = "the record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Recovered<'_>>> {
        let header = loop {
            if self.cursor.is_none() {
                let Some(past) = self.uses.pop_front() else {
                    self.finish()?;
                    return Ok(None);
                };
                self.cursor = Some(Cursor::new(past));
            }
            let Some(cursor) = &mut self.cursor else { continue };
            if cursor.offset == cursor.past.end {
                self.leave_use();
                continue;
            }
            let header = cursor.step()?;
            if !header.mark {
                break header;
            }
        };
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        let payload_at = header.position.offset() + header.layout().payload_at();
        Ok(Some(Recovered {
            position: header.position,
            group: header.group,
            kind: header.kind,
            payload: cursor.scanner.bytes(payload_at, header.payload_bytes)?,
        }))
    }

    /// Leaves a use: its groups are known now, so it may be let go.
    fn leave_use(&mut self) {
        let Some(cursor) = self.cursor.take() else { return };
        let mut files = self.inner.files.write();
        if let Some(live) = files.live.get_mut(&cursor.past.sequence) {
            live.groups = cursor.groups;
            live.known = true;
        }
    }

    /// Begins the new use, and opens the log for appends.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Some(header) = self.header.take() else { return Ok(()) };
        let begun = self.inner.committer.lock().begin_use(&self.inner, &header);
        begun.and_then(|()| self.inner.remove_surplus()).map_err(|e| self.inner.fail(e))?;
        self.inner.files.write().release();
        let mut tail = self.inner.tail.lock();
        if matches!(tail.state, State::Recovering) {
            tail.state = State::Open;
        }
        drop(tail);
        self.inner.released();
        Ok(())
    }
}

impl Cursor {
    fn new(past: PastUse) -> Self {
        let file = Arc::clone(&past.file);
        let scanner = Scanner::new(file, past.sequence, past.nonce, past.end);
        let number = past.first_number;
        Self { past, scanner, offset: RECORDS_START, number, groups: HashMap::new() }
    }

    fn step(&mut self) -> Result<RecordHeader> {
        let header = self.scanner.record_at(self.offset)?;
        let header = header.filter(|header| header.number == self.number);
        let Some(header) = header else {
            return Err(Error::Damaged {
                file: self.past.file.name.clone(),
                offset: self.offset.into(),
                reason: "a record is bad in a file that was complete",
            });
        };
        if !header.mark {
            self.groups.insert(header.group, self.offset);
        }
        self.number += 1;
        // The scanner verified that it fits; the next step would see the fallback as damage.
        self.offset += record_bytes(header.payload_bytes as usize).unwrap_or(self.past.end);
        Ok(header)
    }
}
