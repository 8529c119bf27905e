//! The files of a log: live ones with records that are still needed, free ones, and the use of
//! each.
//!
//! A file keeps its name over all its uses; a use has a sequence that is never given twice. A use
//! is *live* from its first record until none of its records is needed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use crate::{
    DiskFile, Error, LogPosition, Result,
    error::{Failure, SYNC},
    format::{FILE_HEADER_BYTES, FileHeader, LiveEntry, RECORDS_START, Unreadable},
};

/// A file of the log, open for the life of the process.
pub(crate) struct LogFile {
    pub(crate) name: String,
    disk: Box<dyn DiskFile>,
    /// Sequence of the present use; 0 while free. A reader checks it after each read.
    sequence: AtomicU32,
    /// Bytes from the beginning that were written at least once. Only the committer changes it.
    filled: AtomicU64,
    /// The copy of the header that is the newest whole one; the next use takes the other.
    newest_copy: AtomicU8,
    /// For a free file: the newest use when it was freed. Headers up to that one may list the file.
    listed_to: AtomicU32,
}

impl LogFile {
    /// Makes a free file whose first `filled` bytes have been written before.
    pub(crate) fn new(name: String, disk: Box<dyn DiskFile>, filled: u64) -> Self {
        Self {
            name,
            disk,
            sequence: AtomicU32::new(0),
            filled: AtomicU64::new(filled),
            // The first use takes the other copy, which is the first.
            newest_copy: AtomicU8::new(1),
            listed_to: AtomicU32::new(0),
        }
    }

    /// Reads the header of the newest use from the medium; `None` if neither copy is whole.
    pub(crate) fn load_header(&self) -> Result<Option<FileHeader>> {
        self.forget_cached(RECORDS_START.into())?;
        let mut bytes = [0; RECORDS_START as usize];
        self.read(0, &mut bytes)?;
        let mut newest: Option<FileHeader> = None;
        for (copy, bytes) in (0..).zip(bytes.chunks(FILE_HEADER_BYTES)) {
            match FileHeader::decode(bytes) {
                Ok(header) => {
                    if newest.as_ref().is_none_or(|other| other.sequence < header.sequence) {
                        newest = Some(header);
                        self.newest_copy.store(copy, Ordering::Relaxed);
                    }
                }
                Err(Unreadable::Bad) => {}
                Err(Unreadable::Version(version)) => {
                    return Err(Error::UnsupportedFormat { file: self.name.clone(), version });
                }
            }
        }
        Ok(newest)
    }

    /// Drops clean cached bytes before `bytes`, or all for 0.
    pub(crate) fn forget_cached(&self, bytes: u64) -> Result<(), Failure> {
        self.disk.forget_cached(0, bytes).map_err(|e| self.failure("fadvise", e))
    }

    pub(crate) fn filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    /// True if the file is still in the use `sequence`.
    pub(crate) fn is_in_use(&self, sequence: u32) -> bool {
        self.sequence.load(Ordering::SeqCst) == sequence
    }

    /// True if the newest durable header, that of the use `header`, may list this file, which is
    /// not in use.
    pub(crate) fn is_listed(&self, header: u32) -> bool {
        self.listed_to.load(Ordering::Relaxed) >= header
    }

    pub(crate) fn set_use(&self, sequence: u32) {
        self.sequence.store(sequence, Ordering::SeqCst);
    }

    /// Reads; gives zeros where the file has no bytes yet.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Failure> {
        let done = self.disk.read_at(offset, buf).map_err(|e| self.failure("a read", e))?;
        buf[done..].fill(0);
        Ok(())
    }

    pub(crate) fn write(&self, offset: u32, bytes: &[u8]) -> Result<(), Failure> {
        self.disk.write_at(offset.into(), bytes).map_err(|e| self.failure("a write", e))
    }

    /// As [`Self::write`], for few bytes that are synced next.
    pub(crate) fn write_around(&self, offset: u32, bytes: &[u8]) -> Result<(), Failure> {
        self.disk.write_around(offset.into(), bytes).map_err(|e| self.failure("a write", e))
    }

    pub(crate) fn sync(&self) -> Result<(), Failure> {
        self.disk.sync().map_err(|e| self.failure(SYNC, e))
    }

    /// Takes room on the medium for the whole file.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), Failure> {
        if self.filled() >= bytes {
            return Ok(());
        }
        self.disk.reserve(bytes).map_err(|e| self.failure("reserving space", e))
    }

    /// Appends zeros to the filled part, at most up to `limit`. Gives their number.
    pub(crate) fn fill(&self, limit: u64, zeros: &[u8]) -> Result<u64, Failure> {
        let from = self.filled();
        let count = limit.saturating_sub(from).min(zeros.len() as u64);
        self.disk
            .write_at(from, &zeros[..count as usize])
            .map_err(|e| self.failure("zero-filling", e))?;
        self.filled.store(from + count, Ordering::Relaxed);
        Ok(count)
    }

    /// Writes and syncs the header of a new use. Overwrites the copy that does not hold the use
    /// before, so that a torn write leaves that one readable.
    pub(crate) fn write_header(&self, header: &FileHeader) -> Result<(), Failure> {
        let copy = 1 - self.newest_copy.load(Ordering::Relaxed);
        self.write(u32::from(copy) * FILE_HEADER_BYTES as u32, &header.encode())?;
        self.sync()?;
        self.newest_copy.store(copy, Ordering::Relaxed);
        Ok(())
    }

    fn failure(&self, operation: &'static str, source: io::Error) -> Failure {
        Failure::new(&self.name, operation, source)
    }
}

/// A use of a file that holds records which may be needed.
pub(crate) struct Live {
    pub(crate) file: Arc<LogFile>,
    pub(crate) nonce: u64,
    /// The offset of the last needed record of each group.
    pub(crate) groups: HashMap<u32, u32>,
    /// End of its records; `None` while appenders add to it.
    pub(crate) end: Option<u32>,
    /// True once everything in it is durable and a later use has begun.
    pub(crate) closed: bool,
    /// True if its groups are known. A recovered use does not know them before its records are
    /// read.
    pub(crate) known: bool,
}

impl Live {
    /// Makes a use that takes appends.
    pub(crate) fn open(file: Arc<LogFile>, nonce: u64) -> Self {
        Self { file, nonce, groups: HashMap::new(), end: None, closed: false, known: true }
    }

    /// Makes a use of an earlier process, which ended at `end`.
    pub(crate) fn recovered(file: Arc<LogFile>, nonce: u64, end: u32) -> Self {
        Self { file, nonce, groups: HashMap::new(), end: Some(end), closed: true, known: false }
    }
}

/// All files of a log.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) live: BTreeMap<u32, Live>,
    /// Files that are ready for another use. The log touches none of them before its next use's
    /// header is written.
    pub(crate) free: Vec<Arc<LogFile>>,
    /// Number of the next new file.
    pub(crate) next_slot: u32,
    /// The number of files when the disk had no room for another; none while it has.
    pub(crate) disk_files: Option<usize>,
}

impl Files {
    /// Ends the use `sequence` at `end` and begins the next one.
    pub(crate) fn switch(
        &mut self,
        sequence: u32,
        groups: HashMap<u32, u32>,
        end: u32,
        next: Live,
    ) {
        if let Some(live) = self.live.get_mut(&sequence) {
            live.groups = groups;
            live.end = Some(end);
        }
        next.file.set_use(sequence + 1);
        self.live.insert(sequence + 1, next);
    }

    /// Forgets `group` where its last record is before `below`.
    pub(crate) fn trim(&mut self, group: u32, below: LogPosition) {
        for (&sequence, live) in self.live.range_mut(..=below.sequence()) {
            let last = live.groups.get(&group).copied();
            if last.is_some_and(|last| LogPosition::new(sequence, last) < below) {
                live.groups.remove(&group);
            }
        }
    }

    /// Frees every closed use without needed records; true if there was one. The header of the
    /// newest use may be under way, and list it.
    pub(crate) fn release(&mut self) -> bool {
        let newest = self.live.keys().last().copied().unwrap_or_default();
        self.release_listed_to(newest)
    }

    /// As [`Self::release`], where the newest header that may list freed files is known.
    pub(crate) fn release_listed_to(&mut self, newest: u32) -> bool {
        let idle =
            self.live.extract_if(.., |_, live| live.closed && live.known && live.groups.is_empty());
        let freed: Vec<_> = idle.map(|(_, live)| live.file).collect();
        for file in &freed {
            // Before any overwrite: a reader that still sees the old use read old bytes.
            file.set_use(0);
            file.listed_to.store(newest, Ordering::Relaxed);
        }
        let any = !freed.is_empty();
        self.free.extend(freed);
        any
    }

    /// Takes the free files beyond `keep` that no header needs. `header` is the newest durable one:
    /// it needs the files that it lists until a newer one is durable.
    pub(crate) fn take_surplus(&mut self, keep: usize, header: u32) -> Vec<Arc<LogFile>> {
        let (mut kept, mut surplus): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.free).into_iter().partition(|file| file.is_listed(header));
        while kept.len() < keep
            && let Some(file) = surplus.pop()
        {
            kept.push(file);
        }
        self.free = kept;
        surplus
    }

    /// Gives the live list for the header of the use `sequence`.
    pub(crate) fn live_before(&self, sequence: u32) -> Vec<LiveEntry> {
        let needed = |live: &Live| !live.known || !live.groups.is_empty();
        self.live
            .range(..sequence)
            .filter(|(_, live)| needed(live))
            .filter_map(|(&sequence, live)| Some(LiveEntry { sequence, end: live.end? }))
            .collect()
    }

    /// The groups with needed records in the oldest `count` files that take no more appends.
    pub(crate) fn holders(&self, count: usize) -> BTreeSet<u32> {
        let ended = self.live.values().filter(|live| live.end.is_some());
        ended.take(count).flat_map(|live| live.groups.keys().copied()).collect()
    }

    /// Notes that the disk has no room for another file.
    pub(crate) fn note_full(&mut self) {
        self.disk_files = Some(self.live.len() + self.free.len());
    }

    /// The possible number of files: the `max` of the cap, or the present number if the disk is
    /// full.
    pub(crate) fn files_max(&self, max: usize) -> usize {
        self.disk_files.map_or(max, |files| files.min(max)).max(1)
    }

    /// Bytes pinned by ended uses, each counted as a whole file.
    pub(crate) fn pinned_bytes(&self, file_bytes: u64) -> u64 {
        self.live.values().filter(|live| live.end.is_some()).count() as u64 * file_bytes
    }
}
