//! The end of the log in memory: buffers, the next position, and the waiters.
//!
//! One mutex holds all of it, for a reservation and a copy, never during IO. The committer takes
//! what has gathered as a list of steps, and it alone carries them out.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use parking_lot::RwLock;

use crate::{
    Error, FullReason, LogPosition, Result, Settings,
    buffer::Buffer,
    error::Failure,
    files::{Files, Live, LogFile},
    format::{RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RECORDS_START, RecordHeader},
};

/// State of the log for calls.
#[derive(Clone)]
pub(crate) enum State {
    /// The caller has not read all recovered records.
    Recovering,
    Open,
    /// No more appends; the committer still has to write the last mark.
    Closing,
    Closed,
    Failed(Arc<Failure>),
}

/// Records one after the other in one file.
pub(crate) struct Chunk {
    pub(crate) start: LogPosition,
    pub(crate) bytes: Buffer,
}

impl Chunk {
    pub(crate) fn end(&self) -> LogPosition {
        self.start.plus(self.bytes.len() as u32)
    }

    /// The bytes from `position` on, if this chunk has them.
    pub(crate) fn from(&self, position: LogPosition) -> Option<&[u8]> {
        let inside = self.start <= position && position < self.end();
        inside.then(|| &self.bytes[(position.as_u64() - self.start.as_u64()) as usize..])
    }
}

/// A file in which the next use may begin.
pub(crate) struct Prepared {
    pub(crate) file: Arc<LogFile>,
    pub(crate) nonce: u64,
}

/// The change from one file to the next.
pub(crate) struct Switch {
    pub(crate) end: LogPosition,
    pub(crate) file: Arc<LogFile>,
    pub(crate) nonce: u64,
    pub(crate) first_number: u64,
}

/// One thing for the committer to do.
pub(crate) enum Step {
    Write(Arc<Chunk>),
    Switch(Switch),
}

/// All that the committer takes at once.
pub(crate) struct Batch {
    pub(crate) steps: VecDeque<Step>,
    /// True if a caller waits for durability.
    pub(crate) sync: bool,
    /// True if a mark is wanted unless records come.
    pub(crate) quiet: bool,
    /// True if an appender found no room, or if room was made.
    pub(crate) kicked: bool,
}

/// The record to append, without its place.
pub(crate) struct NewRecord<'a> {
    pub(crate) mark: bool,
    pub(crate) group: u32,
    pub(crate) kind: u8,
    pub(crate) parts: &'a [&'a [u8]],
    pub(crate) payload_bytes: u32,
    pub(crate) checksum: u32,
    pub(crate) table: &'a [u8],
    /// Length with header and padding.
    pub(crate) record_bytes: u32,
}

/// Steps that must happen before a record gets its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    switch: bool,
    fresh_buffer: bool,
}

/// The end of the log in memory.
pub(crate) struct Tail {
    pub(crate) state: State,
    /// Sequence and nonce of the file of the next record.
    sequence: u32,
    nonce: u64,
    file_end: u32,
    buffer_bytes: usize,
    threshold_bytes: usize,
    /// More uses are live than the cap allows: the cap was lowered, or the log was reopened full.
    pub(crate) over_cap: bool,
    groups: HashMap<u32, u32>,
    pub(crate) next: LogPosition,
    number: u64,
    pub(crate) durable: LogPosition,
    /// A mark says that everything up to here is durable.
    marked_to: LogPosition,
    active: Option<Chunk>,
    queue: VecDeque<Step>,
    /// Every chunk that is not in its file yet, for readers; oldest first.
    unwritten: VecDeque<Arc<Chunk>>,
    pool: Vec<Buffer>,
    pub(crate) prepared: Option<Prepared>,
    sync_wanted: Option<LogPosition>,
    quiet_wanted: bool,
    pub(crate) kick: bool,
    /// The reason why taken steps wait: the disk has no room. The committer tries again after a
    /// while.
    pub(crate) stall: Option<String>,
    /// The reason why the next use has no file: the disk has no room for it.
    pub(crate) starved: Option<String>,
    pub(crate) stop: bool,
    pub(crate) parked: bool,
    /// True if the committer is parked without a limit, so that it must be woken when records
    /// gather.
    pub(crate) sleeps: bool,
    next_waiter: u64,
    pub(crate) durable_waiters: BTreeMap<(LogPosition, u64), Waker>,
    /// Waiters for room, or for the end of the log.
    pub(crate) change_waiters: BTreeMap<u64, Waker>,
}

impl Tail {
    /// The tail of a log whose newest use is `sequence`, without records yet.
    pub(crate) fn new(settings: &Settings, sequence: u32, nonce: u64, number: u64) -> Self {
        let start = LogPosition::new(sequence, RECORDS_START);
        Self {
            state: State::Recovering,
            sequence,
            nonce,
            file_end: settings.file_end(),
            buffer_bytes: settings.buffer_bytes,
            threshold_bytes: settings.write_threshold_bytes,
            over_cap: false,
            groups: HashMap::new(),
            next: start,
            number,
            durable: start,
            marked_to: start,
            active: None,
            queue: VecDeque::new(),
            unwritten: VecDeque::new(),
            pool: (0..settings.buffers).map(|_| Buffer::default()).collect(),
            prepared: None,
            sync_wanted: None,
            quiet_wanted: false,
            kick: false,
            stall: None,
            starved: None,
            stop: false,
            parked: false,
            sleeps: false,
            next_waiter: 0,
            durable_waiters: BTreeMap::new(),
            change_waiters: BTreeMap::new(),
        }
    }

    /// Fails unless appends are allowed.
    pub(crate) fn check_open(&self) -> Result<()> {
        match &self.state {
            State::Open => Ok(()),
            State::Recovering => Err(Error::Recovering),
            State::Closing | State::Closed => Err(Error::Closed),
            State::Failed(cause) => Err(Error::Failed { cause: Arc::clone(cause) }),
        }
    }

    /// Checks that a record of this length would find room now.
    pub(crate) fn check_room(&self, record_bytes: u32) -> Result<(), FullReason> {
        if self.over_cap {
            return Err(FullReason::Files);
        }
        self.plan(record_bytes).map(drop)
    }

    fn plan(&self, record_bytes: u32) -> Result<Plan, FullReason> {
        let switch = self.file_end - self.next.offset() < record_bytes;
        if switch && self.prepared.is_none() {
            return Err(FullReason::Files);
        }
        let fits = |chunk: &Chunk| chunk.bytes.len() + record_bytes as usize <= self.buffer_bytes;
        let fresh_buffer = switch || !self.active.as_ref().is_some_and(fits);
        if fresh_buffer && self.pool.is_empty() {
            return Err(FullReason::Buffers);
        }
        Ok(Plan { switch, fresh_buffer })
    }

    /// Gives a record its place and copies it there.
    pub(crate) fn append(
        &mut self,
        record: &NewRecord<'_>,
        files: &RwLock<Files>,
    ) -> Result<LogPosition, FullReason> {
        let plan = self.plan(record.record_bytes)?;
        if plan.fresh_buffer {
            self.seal();
        }
        if plan.switch {
            self.switch(files);
        }
        let position = self.next;
        let header = self.header_of(record, position).encode();
        let chunk = match &mut self.active {
            Some(chunk) => chunk,
            None => {
                let mut bytes = self.pool.pop().unwrap_or_default();
                bytes.reset(self.buffer_bytes);
                self.active.insert(Chunk { start: position, bytes })
            }
        };
        push_record(&mut chunk.bytes, &header, record);
        if !record.mark {
            self.groups.insert(record.group, position.offset());
        }
        self.next = position.plus(record.record_bytes);
        self.number += 1;
        Ok(position)
    }

    fn header_of(&self, record: &NewRecord<'_>, position: LogPosition) -> RecordHeader {
        RecordHeader {
            mark: record.mark,
            kind: record.kind,
            group: record.group,
            nonce: self.nonce,
            position,
            number: self.number,
            synced_to: self.durable,
            payload_bytes: record.payload_bytes,
            checksum: record.checksum,
        }
    }

    /// True if there are records, and none of them is needed.
    pub(crate) fn is_needless(&self, files: &RwLock<Files>) -> bool {
        let files = files.read();
        let is_needed = |live: &Live| !live.known || !live.groups.is_empty();
        let has_records = self.next.offset() > RECORDS_START || files.live.len() > 1;
        has_records && self.groups.is_empty() && !files.live.values().any(is_needed)
    }

    /// Goes on in the next file, if one is prepared.
    pub(crate) fn switch(&mut self, files: &RwLock<Files>) {
        let Some(Prepared { file, nonce }) = self.prepared.take() else { return };
        let live = Live::open(Arc::clone(&file), nonce);
        let groups = std::mem::take(&mut self.groups);
        files.write().switch(self.sequence, groups, self.next.offset(), live);
        let end = self.next;
        self.queue.push_back(Step::Switch(Switch { end, file, nonce, first_number: self.number }));
        self.sequence += 1;
        self.nonce = nonce;
        self.next = LogPosition::new(self.sequence, RECORDS_START);
    }

    fn seal(&mut self) {
        if let Some(chunk) = self.active.take() {
            let chunk = Arc::new(chunk);
            self.unwritten.push_back(Arc::clone(&chunk));
            self.queue.push_back(Step::Write(chunk));
        }
    }

    /// Writes a mark if no record came since the last sync, and no mark stands yet.
    pub(crate) fn append_mark(&mut self, files: &RwLock<Files>) {
        if self.next != self.durable || self.next == self.marked_to {
            return;
        }
        // A file that is full to the last byte needs no mark: its successor's header says as much.
        if self.file_end - self.next.offset() < RECORD_ALIGN_BYTES {
            return;
        }
        let mark = NewRecord {
            mark: true,
            group: 0,
            kind: 0,
            parts: &[],
            payload_bytes: 0,
            checksum: 0,
            table: &[],
            record_bytes: RECORD_ALIGN_BYTES,
        };
        if self.append(&mark, files).is_ok() {
            self.marked_to = self.next;
        }
    }

    /// Takes all that has gathered.
    pub(crate) fn take_batch(&mut self) -> Batch {
        self.seal();
        Batch {
            steps: std::mem::take(&mut self.queue),
            sync: self.wants_sync(),
            quiet: std::mem::take(&mut self.quiet_wanted),
            kicked: std::mem::take(&mut self.kick),
        }
    }

    fn wants_sync(&self) -> bool {
        self.sync_wanted.is_some_and(|position| position >= self.durable)
    }

    /// True if the committer has something to do.
    pub(crate) fn has_work(&self) -> bool {
        let gathered = self.active.as_ref().map_or(0, |chunk| chunk.bytes.len());
        !self.queue.is_empty()
            || gathered >= self.threshold_bytes
            || self.quiet_wanted
            || self.kick
            || self.stall.is_some()
            || self.wants_sync()
    }

    /// True if appenders wait for the file of the next use, and the disk has no room for it.
    pub(crate) fn waits_for_disk(&self) -> bool {
        self.starved.is_some() && self.prepared.is_none() && !self.change_waiters.is_empty()
    }

    /// The reason why records or appenders wait, if the disk has no room for them.
    pub(crate) fn want_of_room(&self) -> Option<&str> {
        let starved = self.starved.as_deref().filter(|_| self.waits_for_disk());
        self.stall.as_deref().or(starved)
    }

    /// Beginning of the records gathered in memory, if any.
    pub(crate) fn gathered_from(&self) -> Option<LogPosition> {
        self.active.as_ref().map(|chunk| chunk.start)
    }

    /// Asks that the record at `position`, or the last one if none is there, become durable.
    pub(crate) fn want_sync(&mut self, position: LogPosition) {
        let last = LogPosition::from_u64(self.next.as_u64() - 1);
        self.sync_wanted = self.sync_wanted.max(Some(position.min(last)));
    }

    /// Asks for a mark once everything is durable.
    pub(crate) fn want_mark(&mut self) {
        if self.next != self.marked_to {
            self.want_sync(LogPosition::MAX);
        }
        self.quiet_wanted = true;
    }

    /// Takes back the buffer of the oldest chunk, which is now in its file.
    pub(crate) fn written(&mut self, chunk: Arc<Chunk>) {
        self.unwritten.pop_front();
        // A reader may still hold it; then its memory goes with the reader.
        self.pool.push(Arc::try_unwrap(chunk).map(|chunk| chunk.bytes).unwrap_or_default());
    }

    /// The sealed chunk that holds `position`.
    pub(crate) fn sealed_with(&self, position: LogPosition) -> Option<Arc<Chunk>> {
        self.unwritten.iter().find(|chunk| chunk.from(position).is_some()).cloned()
    }

    /// The bytes from `position` on, if the active buffer has them.
    pub(crate) fn active_from(&self, position: LogPosition) -> Option<&[u8]> {
        self.active.as_ref()?.from(position)
    }

    /// Forgets `group` in the present file, if its last record is before `below`.
    pub(crate) fn trim(&mut self, group: u32, below: LogPosition) {
        let last = self.groups.get(&group).copied();
        if last.is_some_and(|last| LogPosition::new(self.sequence, last) < below) {
            self.groups.remove(&group);
        }
    }

    /// Moves the durable position. Gives the waiters that it satisfies.
    pub(crate) fn publish(&mut self, durable: LogPosition) -> BTreeMap<(LogPosition, u64), Waker> {
        self.durable = durable;
        let rest = self.durable_waiters.split_off(&(durable, 0));
        std::mem::replace(&mut self.durable_waiters, rest)
    }

    /// Gives a number that no other waiter has.
    pub(crate) fn waiter_id(&mut self) -> u64 {
        self.next_waiter += 1;
        self.next_waiter
    }
}

fn push_record(
    out: &mut Buffer,
    header: &[u8; RECORD_HEADER_BYTES as usize],
    record: &NewRecord<'_>,
) {
    out.extend(header);
    out.extend(record.table);
    for part in record.parts {
        out.extend(part);
    }
    out.pad_to_multiple(RECORD_ALIGN_BYTES as usize);
}
