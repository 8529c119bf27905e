//! The log for its callers: append, wait, trim, close, and its state.
//!
//! Only [`Log::commit_once`] and [`Log::try_sync`] do IO here; `recover` opens a log.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    Error, FullReason, LogId, LogPosition, Result, Settings, Snapshot, WaitDurable, WaitRoom,
    commit::Progress,
    counters::Counters,
    format::{checksums, record_bytes},
    inner::Inner,
    tail::{NewRecord, State},
    wait::WaitClosed,
};

/// The longest last sync of a disk for which a busy thread syncs itself, nanoseconds.
const QUICK_SYNC_NS: u64 = 1_000_000;

/// The place of an appended record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the position is the only way to wait for the record or to read it"]
pub struct Appended {
    /// The record's position: for `wait_durable`, `read`, and as a low-water mark.
    pub position: LogPosition,
}

/// An open log. A handle: clones are the same log.
#[derive(Clone)]
pub struct Log {
    pub(crate) inner: Arc<Inner>,
}

impl Log {
    /// The log's identity.
    pub fn id(&self) -> LogId {
        self.inner.id
    }

    /// The settings that the log was opened with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Appends one record whose payload is all of `parts` in order, and gives its position. The
    /// record is then in memory; [`Self::wait_durable`] makes it durable.
    ///
    /// An append that begins after another returned has the later position.
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

    /// [`Self::append`], waiting for room as long as it takes. Other records may overtake it.
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

    /// Waits until a record with this payload length would find room. Another appender may be
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

    /// Waits until the record at `position`, and all before it, are durable. Asks for the sync,
    /// too.
    ///
    /// # Errors
    /// `Failed` if the log failed before that; `Invalid` for a position never given out.
    pub fn wait_durable(&self, position: LogPosition) -> WaitDurable {
        WaitDurable::new(Arc::clone(&self.inner), position)
    }

    /// Asks that the record at `position` become durable soon, without waiting for it.
    pub fn request_sync(&self, position: LogPosition) {
        let mut tail = self.inner.tail.lock();
        tail.want_sync(position);
        self.inner.wake_committer(tail);
    }

    /// Makes the record at `position`, and all before it, durable on the caller's own thread. Does
    /// so only if the disk is quick and no other thread is about to: two changes of thread cost as
    /// much. True if the record is durable; otherwise wait with [`Self::wait_durable`].
    ///
    /// Blocks the thread for about a millisecond at most, if the next sync is like the last.
    ///
    /// # Errors
    /// `Failed` if this sync failed.
    pub fn try_sync(&self, position: LogPosition) -> Result<bool> {
        if self.inner.durable() > position {
            return Ok(true);
        }
        if self.inner.counters.last_sync_ns.load(Ordering::Relaxed) > QUICK_SYNC_NS {
            return Ok(false);
        }
        let Some(mut committer) = self.inner.committer.try_lock() else { return Ok(false) };
        {
            let mut tail = self.inner.tail.lock();
            // The waiting call will report the cause.
            if tail.check_open().is_err() || position >= tail.next {
                return Ok(false);
            }
            // Others wait, or the committer's thread is about to begin, and does all at once.
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

    /// The end of the durable records.
    pub fn durable_position(&self) -> LogPosition {
        self.inner.durable()
    }

    /// The end of the appended records. The next record may stand at a later place.
    pub fn end_position(&self) -> LogPosition {
        self.inner.tail.lock().next
    }

    /// Says that records of `group` before `below` are no longer needed. Spares later appends, even
    /// with [`LogPosition::MAX`]. A mark may be repeated or go back: it only ever lets go of
    /// records. The log keeps no marks at rest, so give them again after recovery.
    pub fn trim(&self, group: u32, below: LogPosition) {
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

    /// Tells the log that callers are idle. The log makes all appended records durable, and an
    /// empty record says so on disk. With it, recovery tells damage to the last records from a torn
    /// end. Costs nothing if that has been done already.
    pub fn note_quiet(&self) {
        let mut tail = self.inner.tail.lock();
        tail.want_mark();
        self.inner.wake_committer(tail);
    }

    /// Closes the log: it takes no more appends, makes everything durable and marks it so. The
    /// committer must be running (or stepped by the caller meanwhile).
    ///
    /// # Errors
    /// `Failed` if the log failed, now or before.
    pub async fn close(&self) -> Result<()> {
        {
            let mut tail = self.inner.tail.lock();
            match tail.state {
                // No record was appended, and the old ones were not verified: leave everything as
                // it is.
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

    /// Carries out what has gathered: writes, changes of file, a sync if one is wanted. Then it
    /// prepares at most one piece of a file. All disk operations happen here and in
    /// [`Self::try_sync`], one at a time, in one deterministic order. A thread
    /// ([`Self::spawn_committer`]) or a simulator calls it again and again.
    ///
    /// # Errors
    /// `Failed` once anything has failed; the log is out of service then.
    pub fn commit_once(&self) -> Result<Progress> {
        self.inner.committer.lock().step(&self.inner)
    }

    /// The reason why the log is out of service, if it is.
    pub fn failure(&self) -> Option<String> {
        match &self.inner.tail.lock().state {
            State::Failed(cause) => Some(cause.to_string()),
            _ => None,
        }
    }

    /// The groups whose records pin the oldest quarter of the files that the cap allows, at least
    /// one file. Trim these to make room.
    pub fn holders_of_oldest(&self) -> BTreeSet<u32> {
        self.inner.files.read().holders((self.inner.settings.max_files() / 4).max(1))
    }

    /// The reason why records or appenders wait, if the disk has no room for them. The log goes on
    /// as soon as there is room.
    pub fn stall(&self) -> Option<String> {
        self.inner.tail.lock().want_of_room().map(str::to_owned)
    }

    /// Used bytes of the cap: whole files that are pinned, and the present one so far.
    pub fn used_bytes(&self) -> u64 {
        let tail = self.inner.tail.lock();
        let pinned = self.inner.files.read().pinned_bytes(self.inner.settings.file_bytes);
        pinned + u64::from(tail.next.offset())
    }

    /// Used share of the log's room, percent. The room is its cap, or the present files if the disk
    /// has no room for another.
    pub fn used_percent(&self) -> u64 {
        let files_max = self.inner.files.read().files_max(self.inner.settings.max_files());
        self.used_bytes() * 100 / (files_max as u64 * self.inner.settings.file_bytes).max(1)
    }

    /// The cap on all files together, in whole files.
    pub fn cap_bytes(&self) -> u64 {
        self.inner.settings.max_files() as u64 * self.inner.settings.file_bytes
    }

    /// The counters since the log was opened.
    pub fn counters(&self) -> Snapshot {
        self.inner.counters.snapshot()
    }
}
