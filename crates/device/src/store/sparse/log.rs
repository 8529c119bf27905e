//! The log of a sparse file with its index; blocking.
//!
//! Must hold:
//!
//! - the index names a record only after all of it was written, and a reader checks it again;
//! - records stand without a gap. What a failed write left is cut off before the next one;
//! - after a failed sync, no flush succeeds: the kernel may have dropped what it could not write.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::fdatasync;

use super::layout::{
    BLOCK_BYTES, Note, RECORD_HEAD_BYTES, RECORDS_AT, Record, decode_start, encode_start,
};
use crate::store::file::{lock, sync_directory_of};
use crate::store::{invalid, io_error};
use crate::{Error, ErrorKind, Result};

/// A block's bytes.
type Block = [u8; BLOCK_BYTES];

/// An open log.
pub(super) struct Log {
    file: File,
    path: PathBuf,
    pub(super) size_bytes: u64,
    /// The offset of each stored block's newest record.
    pub(super) index: BTreeMap<u64, u64>,
    /// End of the last record.
    pub(super) end: u64,
    next_number: u64,
    note: Note,
    lost: bool,
    /// A write failed, and may have left bytes behind the last record.
    uncut: bool,
}

impl Log {
    pub(super) fn create(path: &Path, size_bytes: u64) -> Result<Self> {
        if size_bytes == 0 {
            return Err(invalid(path, "would be empty"));
        }
        if path.try_exists().map_err(|error| io_error("look at", path, &error))? {
            return Err(invalid(path, "exists already"));
        }
        let mut log = Self::begin(path, size_bytes)?;
        log.finish(path, RECORDS_AT)?;
        Ok(log)
    }

    /// Begins a log below a name of its own, which [`Log::finish`] changes.
    fn begin(path: &Path, size_bytes: u64) -> Result<Self> {
        let path = name_of_new(path);
        let failed = |error: std::io::Error| io_error("create", &path, &error);
        let mut how = File::options();
        let how = how.read(true).write(true).create(true).truncate(false);
        let file = how.open(&path).map_err(failed)?;
        lock(&file, &path, false)?;
        file.set_len(0).map_err(failed)?;
        let note = Note { number: 1, durable_bytes: RECORDS_AT };
        Ok(Self::empty(file, path, size_bytes, note))
    }

    fn empty(file: File, path: PathBuf, size_bytes: u64, note: Note) -> Self {
        Self {
            file,
            path,
            size_bytes,
            index: BTreeMap::new(),
            end: RECORDS_AT,
            next_number: 0,
            note,
            lost: false,
            uncut: false,
        }
    }

    /// Makes a begun log durable, and gives it its name.
    fn finish(&mut self, path: &Path, end: u64) -> Result<()> {
        let finish = || {
            self.file.write_all_at(&encode_start(self.size_bytes, end), 0)?;
            self.file.sync_all()?;
            std::fs::rename(&self.path, path)
        };
        finish().map_err(|error| io_error("create", path, &error))?;
        self.note.durable_bytes = end;
        self.path = path.into();
        sync_directory_of(path).map_err(|error| io_error("create", path, &error))
    }

    pub(super) fn open(path: &Path, read_only: bool) -> Result<Self> {
        let failed = |error: std::io::Error| io_error("open", path, &error);
        let file = File::options().read(true).write(!read_only).open(path).map_err(failed)?;
        lock(&file, path, read_only)?;
        let found = file.metadata().map_err(failed)?;
        // A compaction may have replaced the file between opening and locking it.
        if std::fs::metadata(path).map_err(failed)?.ino() != found.ino() {
            return Err(invalid(path, "is in use by another device"));
        }
        let len = found.len();
        let mut start = vec![0; len.min(RECORDS_AT) as usize];
        file.read_exact_at(&mut start, 0).map_err(failed)?;
        let (size_bytes, note) = decode_start(&start).map_err(|problem| invalid(path, problem))?;
        let mut log = Self::empty(file, path.into(), size_bytes, note);
        log.recover(len)?;
        if !read_only && log.end < len {
            log.cut()?;
        }
        Ok(log)
    }

    /// Takes over all records up to the first that is not whole.
    fn recover(&mut self, len: u64) -> Result<()> {
        let mut bytes = [0; RECORD_HEAD_BYTES + BLOCK_BYTES];
        while self.end < len {
            let here = (len - self.end).min(bytes.len() as u64) as usize;
            let read = self.file.read_exact_at(&mut bytes[..here], self.end);
            read.map_err(|error| io_error("read", &self.path, &error))?;
            let record = Record::decode(&bytes[..here]).filter(|it| it.number == self.next_number);
            let Some(record) = record else { break };
            if record.first.checked_add(record.count).is_none_or(|end| end > self.blocks()) {
                break;
            }
            self.take(&record);
        }
        if self.end < self.note.durable_bytes {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("{} has lost durable bytes from {} on", self.path.display(), self.end),
            ));
        }
        Ok(())
    }

    /// Cuts off what is behind the last record, durably: a client's bytes there could pass for a
    /// record, once a shorter one ends before them.
    fn cut(&self) -> Result<()> {
        let cut = self.file.set_len(self.end).and_then(|()| self.file.sync_all());
        cut.map_err(|error| io_error("cut", &self.path, &error))
    }

    fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(BLOCK_BYTES as u64)
    }

    /// Notes a record that stands at the end.
    fn take(&mut self, record: &Record<'_>) {
        if record.block.is_some() {
            self.index.insert(record.first, self.end);
        } else {
            let blocks = record.first..record.first + record.count;
            while let Some((block, _)) = self.index.range(blocks.clone()).next() {
                let block = *block;
                self.index.remove(&block);
            }
        }
        self.next_number += 1;
        self.end += record.len();
    }

    /// Reads a block, checked. `None` if nothing is stored.
    pub(super) fn read(&self, block: u64) -> Result<Option<Box<Block>>> {
        let Some(offset) = self.index.get(&block) else { return Ok(None) };
        let mut bytes = [0; RECORD_HEAD_BYTES + BLOCK_BYTES];
        let read = self.file.read_exact_at(&mut bytes, *offset);
        read.map_err(|error| io_error("read", &self.path, &error))?;
        let found = Record::decode(&bytes).filter(|record| record.first == block);
        let found = found.and_then(|record| record.block?.try_into().ok());
        found.map(|block: Block| Some(Box::new(block))).ok_or_else(|| {
            let text = format!("{} is damaged at {offset}", self.path.display());
            Error::new(ErrorKind::Failed, text)
        })
    }

    pub(super) fn write(&mut self, block: u64, bytes: &[u8]) -> Result<()> {
        self.append(block, 1, Some(bytes))
    }

    pub(super) fn zero(&mut self, first: u64, count: u64) -> Result<()> {
        match self.index.range(first..first + count).next() {
            Some(_) => self.append(first, count, None),
            None => Ok(()),
        }
    }

    fn append(&mut self, first: u64, count: u64, block: Option<&[u8]>) -> Result<()> {
        let record = Record { number: self.next_number, first, count, block };
        let mut bytes = Vec::with_capacity(record.len() as usize);
        record.encode_to(&mut bytes);
        if self.uncut {
            self.cut()?;
            self.uncut = false;
        }
        let written = self.file.write_all_at(&bytes, self.end);
        self.uncut = written.is_err();
        written.map_err(|error| io_error("write to", &self.path, &error))?;
        self.take(&record);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        if self.lost {
            return Err(Error::new(ErrorKind::Failed, "an earlier sync failed"));
        }
        if self.note.durable_bytes == self.end {
            return Ok(());
        }
        let synced = fdatasync(&self.file);
        self.lost = synced.is_err();
        synced.map_err(|error| io_error("sync", &self.path, &error.into()))?;
        let note = Note { number: self.note.number + 1, durable_bytes: self.end };
        let noted = self.file.write_all_at(&note.encode(), note.offset());
        noted.map_err(|error| io_error("write to", &self.path, &error))?;
        self.note = note;
        Ok(())
    }

    /// Puts a log of only the blocks that count in this one's place.
    pub(super) fn compact(&mut self) -> Result<()> {
        let mut new = Self::begin(&self.path, self.size_bytes)?;
        let copied = self.copy_to(&mut new);
        let finished = copied.and_then(|()| new.finish(&self.path, new.end));
        if new.path == self.path {
            // An error then was one of syncing the new name: a crash may bring the old file back.
            new.lost = self.lost || finished.is_err();
            *self = new;
        } else {
            // The error counts. What stays is overwritten by the next compaction.
            let _ = std::fs::remove_file(&new.path);
        }
        finished
    }

    fn copy_to(&self, new: &mut Self) -> Result<()> {
        for block in self.index.keys() {
            if let Some(bytes) = self.read(*block)? {
                new.write(*block, &bytes[..])?;
            }
        }
        Ok(())
    }
}

fn name_of_new(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
