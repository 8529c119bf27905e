//! The log as its callers see it: append, wait, trim, close, and what it reports about itself.
//!
//! Nothing here does IO but [`Log::open`], [`Log::commit_once`] and [`Log::try_sync`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use crate::{
    Disk, Env, Error, FullReason, Position, Recovery, Result, Settings, Snapshot, WaitDurable,
    WaitRoom,
    commit::{Committer, Progress},
    counters::Counters,
    error::Failure,
    files::Files,
    format::{checksums, record_bytes},
    recover,
    tail::{NewRecord, State, Tail},
    wait::WaitClosed,
};

/// A disk whose last sync took longer is not waited for on a thread that has other things to do.
const QUICK_SYNC_NS: u64 = 1_000_000;

/// The identity of a log, given at random when it is created and kept for its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub(crate) u128);

impl LogId {
    /// As a number.
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an appended record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the position is the only way to wait for the record or to read it"]
pub struct Appended {
    /// The record's position: for `wait_durable`, `read`, and as a low-water mark.
    pub position: Position,
}

/// An open log. A handle: clones are the same log.
#[derive(Clone)]
pub struct Log {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) id: LogId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock_ns: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) has_thread: bool,
    pub(crate) tail: Mutex<Tail>,
    /// Signalled when a parked committer has work.
    pub(crate) work: Condvar,
    /// Taken after `tail` where both are held.
    pub(crate) files: RwLock<Files>,
    /// Held for a whole commit: there is one at a time. Taken before `tail`.
    pub(crate) committer: Mutex<Committer>,
    /// Copy of `Tail::durable`, for those who only look.
    pub(crate) durable: AtomicU64,
    /// Everything before it can be read from the files.
    pub(crate) written: AtomicU64,
    pub(crate) counters: Counters,
}

impl Inner {
    pub(crate) fn durable(&self) -> Position {
        Position::from_u64(self.durable.load(Ordering::Acquire))
    }

    /// Moves the durable position and wakes whom that satisfies.
    pub(crate) fn publish(&self, durable: Position) {
        let mut tail = self.tail.lock();
        let ready = tail.publish(durable);
        self.durable.store(durable.as_u64(), Ordering::Release);
        drop(tail);
        ready.into_values().for_each(Waker::wake);
    }

    /// Wakes everybody who waits for room or for the end.
    pub(crate) fn wake_changed(&self, mut tail: MutexGuard<'_, Tail>) {
        let waiting = std::mem::take(&mut tail.change_waiters);
        drop(tail);
        waiting.into_values().for_each(Waker::wake);
    }

    /// Wakes the committer's thread if it is parked and has something to do, now or in a while.
    pub(crate) fn wake_committer(&self, mut tail: MutexGuard<'_, Tail>) {
        let is_told = tail.has_work() || (tail.sleeps && tail.gathered_from().is_some());
        if tail.parked && is_told {
            tail.parked = false;
            drop(tail);
            self.work.notify_one();
        }
    }

    /// Takes the log out of service. The first cause is kept and given to everybody.
    pub(crate) fn fail(&self, failure: Failure) -> Error {
        let mut tail = self.tail.lock();
        let cause = match &tail.state {
            State::Failed(first) => Arc::clone(first),
            _ => Arc::new(failure),
        };
        tail.state = State::Failed(Arc::clone(&cause));
        let waiting: BTreeMap<_, _> = std::mem::take(&mut tail.durable_waiters);
        self.wake_changed(tail);
        waiting.into_values().for_each(Waker::wake);
        Error::Failed { cause }
    }

    /// Brings what follows from the set of live files up to date, after one was let go.
    pub(crate) fn released(&self) {
        let mut tail = self.tail.lock();
        tail.over_cap = self.files.read().live.len() > self.settings.max_files();
        tail.kick = true;
        if tail.parked {
            tail.parked = false;
            self.work.notify_one();
        }
        self.wake_changed(tail);
    }
}

impl Log {
    /// Opens the log on `disk`, or creates one where there is none. The caller makes sure that no
    /// other process has it open.
    ///
    /// Until the [`Recovery`] has been read to its end, the log can be read from but not appended
    /// to, and nothing that is at rest is changed.
    ///
    /// # Errors
    /// `Damaged` if a durable place is bad in the newest file or a live file is missing (older
    /// files are verified by the recovery), `UnsupportedFormat`, `Failed`, `Invalid` for settings.
    pub fn open(disk: Arc<dyn Disk>, settings: Settings, env: Env) -> Result<(Self, Recovery)> {
        recover::open(disk, settings, env)
    }

    /// The identity of the log on `disk`, if there is one. Makes and changes nothing.
    ///
    /// # Errors
    /// `UnsupportedFormat`; `Failed` if it can't be read.
    pub fn peek(disk: &dyn Disk) -> Result<Option<LogId>> {
        recover::peek(disk)
    }

    /// The log's identity.
    pub fn id(&self) -> LogId {
        self.inner.id
    }

    /// The settings that the log was opened with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Appends one record whose payload is all of `parts` in order, and says where it is. It is in
    /// memory then; [`Self::wait_durable`] makes it durable.
    ///
    /// Two appends, one begun after the other returned, have positions in that order.
    ///
    /// # Errors
    /// `Full` if there is no room now: trim, or [`Self::wait_room`] and try again. `Failed` after
    /// any failure of the disk. `Invalid` if the payload is too long, the log closed or recovering.
    pub fn append(&self, group: u32, kind: u8, parts: &[&[u8]]) -> Result<Appended> {
        let payload_bytes = parts.iter().map(|part| part.len()).sum();
        let record_bytes = self.checked_record_bytes(payload_bytes)?;
        // The long part of the work, outside the lock.
        let (checksum, table) = checksums(parts, payload_bytes as u32);
        let record = NewRecord {
            mark: false,
            group,
            kind,
            parts,
            payload_bytes: payload_bytes as u32,
            checksum,
            table: &table,
            record_bytes,
        };
        let mut tail = self.inner.tail.lock();
        tail.check_open()?;
        let placed = if tail.over_cap {
            Err(FullReason::Files)
        } else {
            tail.append(&record, &self.inner.files)
        };
        if placed.is_err() {
            tail.kick = true;
        }
        self.inner.wake_committer(tail);
        let position = placed.map_err(|reason| Error::Full { reason })?;
        Counters::count(&self.inner.counters.records, 1);
        Counters::count(&self.inner.counters.payload_bytes, payload_bytes as u64);
        Ok(Appended { position })
    }

    /// [`Self::append`], waiting for room as long as it takes. Others may overtake it.
    ///
    /// # Errors
    /// As `append`, but for `Full`.
    pub async fn append_waiting(&self, group: u32, kind: u8, parts: &[&[u8]]) -> Result<Appended> {
        let payload_bytes = parts.iter().map(|part| part.len()).sum();
        loop {
            match self.append(group, kind, parts) {
                Err(Error::Full { .. }) => self.wait_room(payload_bytes)?.await?,
                done => return done,
            }
        }
    }

    /// Waits until a record with so many bytes of payload would find room. Another appender may be
    /// quicker: try again, and wait again.
    ///
    /// # Errors
    /// At once if no record may be so long; later, if the log fails or is closed.
    pub fn wait_room(&self, payload_bytes: usize) -> Result<WaitRoom> {
        let record_bytes = self.checked_record_bytes(payload_bytes)?;
        Ok(WaitRoom::new(Arc::clone(&self.inner), record_bytes))
    }

    fn checked_record_bytes(&self, payload_bytes: usize) -> Result<u32> {
        let limit_bytes = self.inner.settings.max_payload_bytes();
        record_bytes(payload_bytes)
            .filter(|_| payload_bytes <= limit_bytes)
            .ok_or(Error::TooLong { payload_bytes, limit_bytes })
    }

    /// Waits until the record at `position`, and all before it, are durable; asks for it, too.
    ///
    /// # Errors
    /// `Failed` if the log failed before that; `Invalid` for a position never given out.
    pub fn wait_durable(&self, position: Position) -> WaitDurable {
        WaitDurable::new(Arc::clone(&self.inner), position)
    }

    /// Asks that the record at `position` be made durable soon, without waiting for it.
    pub fn request_sync(&self, position: Position) {
        let mut tail = self.inner.tail.lock();
        tail.want_sync(position);
        self.inner.wake_committer(tail);
    }

    /// Makes the record at `position`, and all before it, durable on the caller's own thread, if nobody
    /// else is about to and the disk is quick: two changes of thread cost as much as such a sync. Says
    /// whether it is durable; if not, [`Self::wait_durable`] will see to it.
    ///
    /// Blocks the thread for about a millisecond at most, if the next sync is like the last.
    ///
    /// # Errors
    /// `Failed` if this sync failed.
    pub fn try_sync(&self, position: Position) -> Result<bool> {
        if self.inner.durable() > position {
            return Ok(true);
        }
        if self.inner.counters.last_sync_ns.load(Ordering::Relaxed) > QUICK_SYNC_NS {
            return Ok(false);
        }
        let Some(mut committer) = self.inner.committer.try_lock() else { return Ok(false) };
        {
            let mut tail = self.inner.tail.lock();
            // Whoever waits is told why.
            if tail.check_open().is_err() || position >= tail.next {
                return Ok(false);
            }
            // Others wait, or the committer's thread is about to begin: it does all at once.
            if !tail.durable_waiters.is_empty() || tail.has_work() {
                return Ok(false);
            }
            tail.want_sync(position);
        }
        let is_more_to_do = match committer.serve_one(&self.inner) {
            Ok(more) => more,
            Err(error @ Error::Failed { .. }) => return Err(error),
            Err(_) => return Ok(false),
        };
        drop(committer);
        let mut tail = self.inner.tail.lock();
        tail.kick |= is_more_to_do;
        self.inner.wake_committer(tail);
        Ok(self.inner.durable() > position)
    }

    /// Every record before this position is durable.
    pub fn durable_position(&self) -> Position {
        self.inner.durable()
    }

    /// The end of what has been appended. The next record may be at a later place than this.
    pub fn end_position(&self) -> Position {
        self.inner.tail.lock().next
    }

    /// Says that no record of `group` before `below` is needed any more. What is appended later is
    /// not touched, even with [`Position::MAX`]. A mark may be given again or go back: only what
    /// is let go of counts. Marks are not kept at rest: give them again after recovery.
    pub fn trim(&self, group: u32, below: Position) {
        let below = {
            let mut tail = self.inner.tail.lock();
            let below = below.min(tail.next);
            tail.trim(group, below);
            below
        };
        let freed = {
            let mut files = self.inner.files.write();
            files.trim(group, below);
            files.release()
        };
        if freed {
            self.inner.released();
        }
    }

    /// Tells the log that nothing is happening: what has been appended is made durable, and an
    /// empty record says so on disk, so that damage to the last records can be told from a torn
    /// end. Costs nothing if that has been done already.
    pub fn note_quiet(&self) {
        let mut tail = self.inner.tail.lock();
        tail.want_mark();
        self.inner.wake_committer(tail);
    }

    /// Closes the log: no more appends; everything is made durable and marked so. The committer
    /// must be running (or stepped by the caller meanwhile).
    ///
    /// # Errors
    /// `Failed` if the log failed, now or before.
    pub async fn close(&self) -> Result<()> {
        {
            let mut tail = self.inner.tail.lock();
            match tail.state {
                // Nothing was appended, and what is there was not verified: leave it as it is.
                State::Recovering => tail.state = State::Closed,
                State::Open => {
                    tail.state = State::Closing;
                    tail.want_mark();
                }
                State::Closing | State::Closed | State::Failed(_) => {}
            }
            self.inner.wake_changed(tail);
            self.inner.wake_committer(self.inner.tail.lock());
        }
        WaitClosed::new(Arc::clone(&self.inner)).await
    }

    /// Does what has gathered: writes, changes of file, a sync if one is wanted; then at most one
    /// piece of making files ready. Everything on the disk happens in here and in [`Self::try_sync`], one at a
    /// time, in one deterministic order. A thread ([`Self::spawn_committer`]) or a simulator calls it again and again.
    ///
    /// # Errors
    /// `Failed` once anything has failed; the log is out of service then.
    pub fn commit_once(&self) -> Result<Progress> {
        self.inner.committer.lock().step(&self.inner)
    }

    /// Why the log is out of service, if it is.
    pub fn failure(&self) -> Option<String> {
        match &self.inner.tail.lock().state {
            State::Failed(cause) => Some(cause.to_string()),
            _ => None,
        }
    }

    /// The groups whose records keep the oldest quarter of the files that the cap allows, at least one file, from
    /// being used again: those to trim when room is wanted.
    pub fn holders_of_oldest(&self) -> BTreeSet<u32> {
        self.inner.files.read().holders((self.inner.settings.max_files() / 4).max(1))
    }

    /// Why records wait, if the disk has no room: for those that are not durable, or for the file that appenders wait
    /// for. The log goes on as soon as there is room.
    pub fn stall(&self) -> Option<String> {
        self.inner.tail.lock().want_of_room().map(str::to_owned)
    }

    /// Bytes of the cap that are in use: whole files that are pinned, and the present one so far.
    pub fn used_bytes(&self) -> u64 {
        let tail = self.inner.tail.lock();
        let pinned = self.inner.files.read().pinned_bytes(self.inner.settings.file_bytes);
        pinned + u64::from(tail.next.offset())
    }

    /// How much of the log's room is in use, percent: of its cap, or of the files that there are, if its disk has no room
    /// for another.
    pub fn used_percent(&self) -> u64 {
        let files_max = self.inner.files.read().files_max(self.inner.settings.max_files());
        self.used_bytes() * 100 / (files_max as u64 * self.inner.settings.file_bytes).max(1)
    }

    /// The cap on all files together, in whole files.
    pub fn cap_bytes(&self) -> u64 {
        self.inner.settings.max_files() as u64 * self.inner.settings.file_bytes
    }

    /// What the log has counted since it was opened.
    pub fn counters(&self) -> Snapshot {
        self.inner.counters.snapshot()
    }
}
