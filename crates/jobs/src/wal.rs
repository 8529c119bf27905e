//! The database's log on a disk of its own: SlateDB's log interface over `skerry-log`.
//!
//! Participants: SlateDB, which appends write batches, asks for durability, and lets go of batches.
//! And the log, which makes batches durable with one fdatasync for all waiting calls.
//!
//! Must hold: a batch is replayed whole or not at all, in order. A durable batch is replayed after
//! a crash, until it is in the database. One process uses a log.
//!
//! A *WAL file* of SlateDB's is one write batch here, numbered without gaps. A batch is one record,
//! or several if it is long: `docs/jobs.md` has the bytes.

use crate::error::{Error, ErrorKind, Result};
use crate::keys;
use crate::opening::{FoundLog, LogName, LogNote, NoteFile, Opening};
use crate::shard::Descriptor;
use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use parking_lot::Mutex;
use skerry_core::start::StartPlace;
use skerry_log::{CommitterThread, Log, LogPosition, Recovery, Verified};
use slatedb::wal::{
    WalError, WalEvent, WalFileRange, WalFlushResult, WalGc, WalIterator, WalObserver, WalRows,
    WalStatus, WalStatusListener, WalWriter, WriterInit, WriterInitResult, WriterManifest,
};
use slatedb::{RowEntry, ValueDeletable};
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};

/// The log group of all records.
const GROUP: u32 = 0;
/// A record that is a whole batch.
const WHOLE: u8 = 1;
/// The first record of a batch, one in between, and the last.
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Before the rows: version, reserved, number of the batch.
const HEAD_BYTES: usize = 16;
const VERSION: u8 = 1;

const TOMBSTONE: u8 = 0;
const VALUE: u8 = 1;
const MERGE: u8 = 2;
const HAS_CREATED: u8 = 4;
const HAS_EXPIRES: u8 = 8;

/// Share of the log, a quarter, after which SlateDB is asked to flush its memtable. Batches on
/// their way to the store do not count again: a memtable for each batch would be useless, and slow
/// every read.
const ASKED_SHARE: u64 = 4;

/// A database's log. Clones share it.
#[derive(Clone)]
pub struct LocalWal {
    shared: Arc<Shared>,
}

/// The neighbours of a log in its directory.
pub struct Beside {
    /// Keeps other processes from the log, as long as it is used.
    pub lock: Option<File>,
    /// The log's note.
    pub note: Arc<dyn NoteFile>,
    /// The directory's present place.
    pub place: StartPlace,
}

struct Shared {
    log: Log,
    _committer: CommitterThread,
    beside: Beside,
    /// Batches that were found, until they are replayed.
    found: Mutex<Option<Batches>>,
    state: Mutex<State>,
}

struct State {
    /// Batches that are not let go yet.
    kept: VecDeque<Kept>,
    /// Bytes appended since the log was opened.
    appended_bytes: u64,
    status: WalStatus,
    listeners: Vec<WalStatusListener>,
}

/// A batch that the log has.
struct Kept {
    number: u64,
    begins: LogPosition,
    /// Bytes appended before it.
    before_bytes: u64,
}

/// Positions of the batches that were found. Their contents may be gigabytes, and stay on the disk.
#[derive(Default)]
struct Batches {
    all: VecDeque<Batch>,
    /// The records of all batches, in order.
    records: VecDeque<LogPosition>,
    /// The time of the newest row, milliseconds since 1970.
    newest_ms: u64,
    /// The last row says that a clean stop has brought all of them into the files.
    is_applied: bool,
}

/// A batch as it was found.
struct Batch {
    number: u64,
    begins: LogPosition,
    records: usize,
    /// True if the log has more than the shard's descriptor.
    has_rows: bool,
}

/// True for the descriptor that a clean stop writes last.
fn says_applied(row: &RowEntry) -> bool {
    match &row.value {
        ValueDeletable::Value(value) if row.key == keys::DESCRIPTOR => {
            Descriptor::decode(value).is_ok_and(|found| found.log == LogName::Applied)
        }
        _ => false,
    }
}

impl Batches {
    /// Reads all records that were found.
    fn read(mut recovery: Recovery) -> Result<Self> {
        let mut found = Self::default();
        let mut open: Option<(Vec<LogPosition>, BytesMut)> = None;
        while let Some(record) = recovery.next().map_err(log_failed)? {
            let (mut records, mut bytes) = match record.kind {
                // A previous batch that a crash cut was never durable as a whole.
                WHOLE | FIRST => (Vec::new(), BytesMut::new()),
                // The rest of a batch whose beginning is let go, and with it all of the batch.
                _ if found.all.is_empty() && open.is_none() => continue,
                _ => open.take().ok_or_else(|| {
                    let (kind, position) = (record.kind, record.position);
                    let detail = format!(
                        "a batch of the jobs' log has no beginning: a record of kind {kind} at {position:?}"
                    );
                    Error::new(ErrorKind::Corrupt, detail)
                })?,
            };
            bytes.extend_from_slice(record.payload);
            records.push(record.position);
            if matches!(record.kind, FIRST | MIDDLE) {
                open = Some((records, bytes));
                continue;
            }
            let (number, rows) = decode(bytes.freeze())?;
            found.push(number, &records, &rows)?;
        }
        Ok(found)
    }

    fn push(&mut self, number: u64, records: &[LogPosition], rows: &[RowEntry]) -> Result<()> {
        let Some(begins) = records.first().copied() else { return Ok(()) };
        if self.all.back().is_some_and(|last| last.number >= number) {
            let detail = format!("batch {number} of the jobs' log is out of order");
            return Err(Error::new(ErrorKind::Corrupt, detail));
        }
        let newest = rows.iter().filter_map(|row| row.create_ts).max();
        let newest_ms = newest.and_then(|ms| ms.try_into().ok()).unwrap_or(0);
        self.newest_ms = self.newest_ms.max(newest_ms);
        self.is_applied = rows.last().is_some_and(says_applied);
        let has_rows = rows.iter().any(|row| row.key != keys::DESCRIPTOR);
        self.all.push_back(Batch { number, begins, records: records.len(), has_rows });
        self.records.extend(records);
        Ok(())
    }

    /// Takes the first batch, and the positions of its records.
    fn pop(&mut self) -> Option<(u64, Vec<LogPosition>)> {
        let batch = self.all.pop_front()?;
        Some((batch.number, self.records.drain(..batch.records).collect()))
    }

    /// Forgets batches that the database's files have.
    fn forget(&mut self, applied: u64) {
        while self.all.front().is_some_and(|batch| batch.number <= applied) {
            self.pop();
        }
    }
}

impl LocalWal {
    /// Reads a log that was just opened to its end.
    ///
    /// # Errors
    /// `Corrupt` for unreadable data.
    pub fn open(log: Log, recovery: Recovery, beside: Beside) -> Result<Self> {
        let committer = log.spawn_committer().map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("the jobs' log has no thread: {error}"))
        })?;
        let found = Batches::read(recovery)?;
        let status = WalStatus {
            closed_reason: None,
            estimated_bytes: 0,
            last_flushed_wal_id: 0,
            last_flushed_seq: None,
            buffered_wal_entries_count: 0,
        };
        let state =
            State { kept: VecDeque::new(), appended_bytes: 0, status, listeners: Vec::new() };
        let found = Mutex::new(Some(found));
        let state = Mutex::new(state);
        let shared = Shared { log, _committer: committer, beside, found, state };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Gives the log's rows that a database's files lack, if these have every batch up to
    /// `applied`.
    pub(crate) fn found(&self, applied: u64) -> Result<FoundLog> {
        let note = self.shared.beside.note.read()?;
        let found = self.shared.found.lock();
        let all = || found.iter().flat_map(|found| &found.all);
        let new = || all().filter(|batch| batch.number > applied);
        Ok(FoundLog {
            name: LogName::Local(self.id()),
            note,
            place: self.shared.beside.place,
            first_new: new().next().map(|batch| batch.number),
            last: all().next_back().map(|batch| batch.number),
            has_rows: new().any(|batch| batch.has_rows),
            is_applied: found.as_ref().is_some_and(|found| found.is_applied),
        })
    }

    /// Notes the opening for which the database is about to be opened, durably.
    pub(crate) fn write_note(&self, opening: &Opening) -> Result<()> {
        let beside = &self.shared.beside;
        let (before, last, place) = (opening.before, opening.id, beside.place);
        beside.note.write(&LogNote { log: self.id(), before, last, place })
    }

    /// Id that tells this log from others.
    pub fn id(&self) -> [u8; 16] {
        self.shared.log.id().as_u128().to_le_bytes()
    }

    /// The writer for SlateDB's builder.
    pub(crate) fn init(&self) -> Box<dyn WriterInit> {
        Box::new(self.clone())
    }

    /// The time of the newest row that was found, milliseconds since 1970, before it is replayed.
    pub(crate) fn newest_ms(&self) -> u64 {
        self.shared.found.lock().as_ref().map_or(0, |found| found.newest_ms)
    }

    /// The log for SlateDB's collector.
    pub(crate) fn gc(&self) -> Arc<dyn WalGc> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl WriterInit for LocalWal {
    /// Fences nothing: the directory's lock makes this process the log's only writer, and the
    /// manifest's epoch the database's.
    async fn fence_and_init(
        &self,
        manifest: &mut WriterManifest,
    ) -> std::result::Result<WriterInitResult, WalError> {
        let mut found = self.shared.found.lock().take().ok_or(WalError::Closed)?;
        let after = manifest.replay_after_wal_id();
        let last = found.all.back().map_or(after, |batch| batch.number.max(after));
        let lacks = found.all.iter().filter(|batch| batch.number > after).zip(after + 1..);
        if let Some((_, number)) = lacks.into_iter().find(|(batch, number)| batch.number != *number)
        {
            let detail = format!("the jobs' log lacks batch {number}, which the database needs");
            let error = Error::new(ErrorKind::Corrupt, detail);
            return Err(WalError::DataError(Arc::new(error)));
        }
        {
            let mut state = self.shared.state.lock();
            let kept = |batch: &Batch| Kept {
                number: batch.number,
                begins: batch.begins,
                before_bytes: 0,
            };
            state.kept = found.all.iter().map(kept).collect();
            state.status.last_flushed_wal_id = last;
        }
        self.shared.let_go(after + 1);
        found.forget(after);
        tokio::spawn(watch_quiet(Arc::downgrade(&self.shared)));
        let writer = Writer { shared: self.shared.clone(), next: last + 1, last: None };
        Ok(WriterInitResult {
            replay_iterator: Box::new(Replay {
                log: self.shared.log.clone(),
                found,
                read: VecDeque::new(),
            }),
            wal_writer: Box::new(writer),
        })
    }
}

/// Time without an append after which a log is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// Tells the log when it is quiet: it marks its end, and gives spare room back.
async fn watch_quiet(shared: Weak<Shared>) {
    let mut end = None;
    loop {
        tokio::time::sleep(QUIET).await;
        let Some(shared) = shared.upgrade() else { return };
        let now = shared.log.end_position();
        if end.replace(now) == Some(now) {
            shared.log.note_quiet();
        }
    }
}

/// Bytes of batches that a replay reads at once, but for the last batch.
const READ_BYTES: usize = 4 << 20;

/// The batches to replay.
struct Replay {
    log: Log,
    /// Batches that are not read yet.
    found: Batches,
    read: VecDeque<WalRows>,
}

#[async_trait]
impl WalIterator for Replay {
    async fn next(&mut self) -> std::result::Result<Option<WalRows>, WalError> {
        if self.read.is_empty() {
            let read = without_delay(|| read_some(&self.log, &mut self.found));
            self.read = read.map_err(|error| WalError::DataError(Arc::new(error)))?;
        }
        Ok(self.read.pop_front())
    }
}

/// Reads from the disk. Other tasks don't wait for the read where they have another thread.
fn without_delay<T>(read: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(read),
        _ => read(),
    }
}

fn read_some(log: &Log, found: &mut Batches) -> Result<VecDeque<WalRows>> {
    let (mut all, mut read_bytes) = (VecDeque::new(), 0);
    while read_bytes < READ_BYTES
        && let Some((number, records)) = found.pop()
    {
        let mut bytes = BytesMut::new();
        for record in records {
            match log.read_verified(record).map_err(log_failed)? {
                Verified::Record(read) => bytes.extend_from_slice(&read.payload),
                Verified::Recycled => {
                    let detail = format!("batch {number} of the jobs' log was let go");
                    return Err(Error::new(ErrorKind::Internal, detail));
                }
            }
        }
        read_bytes += bytes.len();
        let (_, rows) = decode(bytes.freeze())?;
        all.push_back(WalRows { rows, last_consumed_wal_file_id: number });
    }
    Ok(all)
}

struct Writer {
    shared: Arc<Shared>,
    next: u64,
    /// The last batch that was appended: its number, its last record's position, and its sequence
    /// number.
    last: Option<(u64, LogPosition, u64)>,
}

#[async_trait]
impl WalWriter for Writer {
    async fn append(&mut self, batch: &[RowEntry]) -> std::result::Result<(), WalError> {
        let Some(seq) = batch.last().map(|row| row.seq) else { return Ok(()) };
        let bytes = encode(self.next, batch);
        let limit = self.shared.log.settings().max_payload_bytes();
        let (mut begun, mut last) = (None, LogPosition::ZERO);
        let mut pieces = bytes.chunks(limit).peekable();
        while let Some(piece) = pieces.next() {
            let kind = match (begun.is_none(), pieces.peek().is_none()) {
                (true, true) => WHOLE,
                (true, false) => FIRST,
                (false, false) => MIDDLE,
                (false, true) => LAST,
            };
            let appended = self.shared.log.append_waiting(GROUP, kind, &[piece]).await;
            last = appended.map_err(unavailable)?.position;
            begun.get_or_insert(last);
        }
        // Every batch is flushed at once: its sync begins while SlateDB is still about to ask for
        // it.
        self.shared.log.request_sync(last);
        let mut state = self.shared.state.lock();
        let before_bytes = state.appended_bytes;
        let kept = |begins| Kept { number: self.next, begins, before_bytes };
        state.kept.extend(begun.map(kept));
        state.appended_bytes += bytes.len() as u64;
        state.status.estimated_bytes += bytes.len();
        state.status.buffered_wal_entries_count += 1;
        self.last = Some((self.next, last, seq));
        self.next += 1;
        Ok(())
    }

    async fn flush(&mut self) -> std::result::Result<WalFlushResult, WalError> {
        let Some((number, position, seq)) = self.last else {
            let wal_id = self.next - 1;
            return Ok(WalFlushResult { wal_id, completion: async { Ok(()) }.boxed() });
        };
        self.shared.log.request_sync(position);
        let shared = self.shared.clone();
        let completion = async move {
            match shared.log.wait_durable(position).await {
                Ok(_) => {
                    shared.flushed(number, seq);
                    Ok(())
                }
                Err(error) => Err(shared.failed(unavailable(error))),
            }
        };
        Ok(WalFlushResult { wal_id: number, completion: completion.boxed() })
    }

    fn should_flush_memtable(&self, replay_after_wal_id: u64) -> bool {
        let state = self.shared.state.lock();
        state.bytes_after(replay_after_wal_id) > self.shared.log.cap_bytes() / ASKED_SHARE
    }

    fn observer(&self) -> Box<dyn WalObserver> {
        Box::new(LocalWal { shared: self.shared.clone() })
    }

    fn status(&self) -> std::result::Result<WalStatus, WalStatus> {
        self.shared.status()
    }

    async fn close(&mut self) -> std::result::Result<(), WalError> {
        let flushed = self.flush().await?.completion.await;
        self.shared.closed(WalError::Closed);
        let ended = self.shared.log.close().await.map_err(unavailable);
        flushed.and(ended.map(drop))
    }
}

impl WalObserver for LocalWal {
    fn status(&self) -> std::result::Result<WalStatus, WalStatus> {
        self.shared.status()
    }

    fn subscribe(&self, listener: WalStatusListener) -> std::result::Result<(), WalError> {
        self.shared.state.lock().listeners.push(listener);
        Ok(())
    }
}

#[async_trait]
impl WalGc for LocalWal {
    async fn collect(
        &self,
        referenced: Vec<WalFileRange>,
        _min_age: Duration,
        dry_run: bool,
    ) -> std::result::Result<(), WalError> {
        // The newest manifest has no end. Others are of SlateDB's checkpoints, which a merge leaves
        // behind for a quarter of an hour: their readers can't read this log.
        let newest = referenced.iter().filter(|WalFileRange(_, to)| *to == Bound::Unbounded);
        let first = newest.map(|WalFileRange(from, _)| match from {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        });
        if let Some(first) = first.min().filter(|_| !dry_run) {
            self.shared.let_go(first);
        }
        Ok(())
    }
}

impl State {
    /// Bytes appended after a batch.
    fn bytes_after(&self, number: u64) -> u64 {
        let next = self.kept.partition_point(|kept| kept.number <= number);
        self.kept.get(next).map_or(0, |next| self.appended_bytes - next.before_bytes)
    }
}

impl Shared {
    fn status(&self) -> std::result::Result<WalStatus, WalStatus> {
        let status = self.state.lock().status.clone();
        if status.closed_reason.is_some() { Err(status) } else { Ok(status) }
    }

    /// Lets go of batches before `first`: they are in the database.
    fn let_go(&self, first: u64) {
        let mut state = self.state.lock();
        while state.kept.front().is_some_and(|kept| kept.number < first) {
            state.kept.pop_front();
        }
        let below = state.kept.front().map_or_else(|| self.log.end_position(), |kept| kept.begins);
        self.log.trim(GROUP, below);
    }

    /// Notes that everything up to this batch is durable.
    fn flushed(&self, number: u64, seq: u64) {
        self.tell(|status| {
            if status.last_flushed_wal_id < number {
                status.last_flushed_wal_id = number;
                status.last_flushed_seq = Some(seq);
                status.estimated_bytes = 0;
                status.buffered_wal_entries_count = 0;
            }
            WalEvent::WalFlushed(status.clone())
        });
    }

    fn failed(&self, error: WalError) -> WalError {
        self.closed(error.clone());
        error
    }

    fn closed(&self, reason: WalError) {
        self.tell(|status| {
            status.closed_reason.get_or_insert(reason);
            WalEvent::WalClosed(status.clone())
        });
    }

    fn tell(&self, change: impl FnOnce(&mut WalStatus) -> WalEvent) {
        let (event, listeners) = {
            let mut state = self.state.lock();
            (change(&mut state.status), state.listeners.clone())
        };
        listeners.iter().for_each(|listener| listener(event.clone()));
    }
}

fn unavailable(error: skerry_log::Error) -> WalError {
    WalError::Unavailable(Arc::new(error))
}

/// Turns a failure of the log into the broker's error.
pub fn log_failed(error: skerry_log::Error) -> Error {
    use skerry_log::ErrorKind as Log;
    let kind = match error.kind() {
        Log::Damaged | Log::UnsupportedFormat => ErrorKind::Corrupt,
        Log::Full | Log::Failed => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the jobs' log: {error}"))
}

fn encode(number: u64, rows: &[RowEntry]) -> Bytes {
    let bytes: usize = rows.iter().map(|row| row.key.len() + 64).sum();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + bytes);
    out.put_u8(VERSION);
    out.put_bytes(0, 7);
    out.put_u64_le(number);
    for row in rows {
        let (kind, value) = match &row.value {
            ValueDeletable::Tombstone => (TOMBSTONE, None),
            ValueDeletable::Value(value) => (VALUE, Some(value)),
            ValueDeletable::Merge(value) => (MERGE, Some(value)),
        };
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags =
            flag(row.create_ts.is_some(), HAS_CREATED) | flag(row.expire_ts.is_some(), HAS_EXPIRES);
        out.put_u8(kind | flags);
        out.put_u64_le(row.seq);
        put_bytes(&mut out, &row.key);
        value.into_iter().for_each(|value| put_bytes(&mut out, value));
        row.create_ts.into_iter().for_each(|at| out.put_i64_le(at));
        row.expire_ts.into_iter().for_each(|at| out.put_i64_le(at));
    }
    out.freeze()
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn decode(mut bytes: Bytes) -> Result<(u64, Vec<RowEntry>)> {
    let bad = || Error::new(ErrorKind::Corrupt, "a batch of the jobs' log is not what was written");
    if bytes.len() < HEAD_BYTES {
        return Err(bad());
    }
    let version = bytes.get_u8();
    if version > VERSION {
        let detail = format!("the jobs' log has version {version}, of a newer Skerry");
        return Err(Error::new(ErrorKind::Corrupt, detail));
    }
    bytes.advance(7);
    let number = bytes.get_u64_le();
    let mut rows = Vec::new();
    while bytes.has_remaining() {
        rows.push(take_row(&mut bytes).ok_or_else(bad)?);
    }
    Ok((number, rows))
}

fn take_row(bytes: &mut Bytes) -> Option<RowEntry> {
    let flags = bytes.try_get_u8().ok()?;
    let seq = bytes.try_get_u64_le().ok()?;
    let key = take_bytes(bytes)?;
    let value = match flags & 3 {
        TOMBSTONE => ValueDeletable::Tombstone,
        VALUE => ValueDeletable::Value(take_bytes(bytes)?),
        MERGE => ValueDeletable::Merge(take_bytes(bytes)?),
        _ => return None,
    };
    let mut time = |flag| match flags & flag {
        0 => Some(None),
        _ => bytes.try_get_i64_le().ok().map(Some),
    };
    let (create_ts, expire_ts) = (time(HAS_CREATED)?, time(HAS_EXPIRES)?);
    Some(RowEntry { key, value, seq, create_ts, expire_ts })
}

fn take_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32_le().ok()? as usize;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written() {
        let row = |value, create_ts, expire_ts| RowEntry {
            key: Bytes::from_static(b"key"),
            value,
            seq: 7,
            create_ts,
            expire_ts,
        };
        let rows = vec![
            row(ValueDeletable::Value("x".into()), Some(-1), None),
            row(ValueDeletable::Tombstone, None, Some(5)),
            row(ValueDeletable::Merge(Bytes::new()), Some(1), Some(2)),
        ];
        let bytes = encode(9, &rows);
        assert_eq!(decode(bytes.clone()).expect("reads"), (9, rows));
        for len in 0..bytes.len() {
            let cut = decode(bytes.slice(..len));
            assert!(cut.is_err() || cut.is_ok_and(|(_, rows)| rows.len() < 3), "{len} bytes");
        }
    }
}
