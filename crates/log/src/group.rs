//! Reading the records of one group while the log is in use.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    Error, Log, LogPosition, Recovered, Result,
    files::LogFile,
    format::{RECORDS_START, record_bytes},
    scan::Scanner,
};

/// The readable part of a use of a file.
struct Part {
    file: Arc<LogFile>,
    sequence: u32,
    nonce: u64,
    end: u32,
}

/// The records of one group, oldest first. Keeps a window of a file in memory.
pub struct GroupRecords {
    group: u32,
    parts: VecDeque<Part>,
    here: Option<(Scanner, u32)>,
}

impl Log {
    /// Reads the records of `group` that have been written, from files that are still needed. Make
    /// the last one durable first ([`Self::wait_durable`]). A trim of the group meanwhile cuts this
    /// short.
    pub fn group_records(&self, group: u32) -> GroupRecords {
        let written = LogPosition::from_u64(self.inner.written.load(Ordering::Acquire));
        let files = self.inner.files.read();
        let parts = files.live.iter().filter_map(|(&sequence, live)| {
            // The end of a file that is being left may not have been written yet.
            let end = match live.end {
                _ if sequence == written.sequence() => written.offset(),
                Some(end) if sequence < written.sequence() => end,
                _ => return None,
            };
            let may_hold = !live.known || live.end.is_none() || live.groups.contains_key(&group);
            if !may_hold {
                return None;
            }
            Some(Part { file: Arc::clone(&live.file), sequence, nonce: live.nonce, end })
        });
        GroupRecords { group, parts: parts.collect(), here: None }
    }
}

impl GroupRecords {
    /// Gives the next record, or `None` after the last.
    ///
    /// # Errors
    /// `Damaged` if a record is not what was written, `Failed` if the disk can't be read.
    #[expect(clippy::should_implement_trait, reason = "the record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Recovered<'_>>> {
        let header = loop {
            let Some((scanner, offset)) = &mut self.here else {
                let Some(part) = self.parts.pop_front() else { return Ok(None) };
                let scanner = Scanner::new(part.file, part.sequence, part.nonce, part.end);
                self.here = Some((scanner, RECORDS_START));
                continue;
            };
            if *offset >= scanner.limit() {
                self.here = None;
                continue;
            }
            let Some(header) = scanner.record_at(*offset)? else {
                if !scanner.is_current() {
                    // Let go meanwhile: nothing in it is needed.
                    self.here = None;
                    continue;
                }
                return Err(Error::Damaged {
                    file: scanner.file.name.clone(),
                    offset: (*offset).into(),
                    reason: "a record is not what was written",
                });
            };
            let whole = record_bytes(header.payload_bytes as usize);
            *offset += whole.unwrap_or(scanner.limit() - *offset);
            if !header.mark && header.group == self.group {
                break header;
            }
        };
        let Some((scanner, _)) = &mut self.here else { return Ok(None) };
        let payload_at = header.position.offset() + header.layout().payload_at();
        Ok(Some(Recovered {
            position: header.position,
            group: header.group,
            kind: header.kind,
            payload: scanner.bytes(payload_at, header.payload_bytes)?,
        }))
    }
}
