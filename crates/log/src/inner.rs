//! The parts of an open log, and their locks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use crate::{
    Disk, Error, LogId, LogPosition, Settings,
    committer::Committer,
    counters::Counters,
    error::Failure,
    files::Files,
    tail::{State, Tail},
};

/// The parts of an open log.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) id: LogId,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock_ns: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) has_thread: bool,
    pub(crate) tail: Mutex<Tail>,
    /// Signalled when a parked committer has work.
    pub(crate) work: Condvar,
    /// Locked after `tail` where both are held.
    pub(crate) files: RwLock<Files>,
    /// Held for a whole commit, so only one runs at a time. Locked before `tail`.
    pub(crate) committer: Mutex<Committer>,
    /// Copy of `Tail::durable`, for readers without the lock.
    pub(crate) durable: AtomicU64,
    /// Everything before it can be read from the files.
    pub(crate) written: AtomicU64,
    pub(crate) counters: Counters,
}

impl Inner {
    pub(crate) fn durable(&self) -> LogPosition {
        LogPosition::from_u64(self.durable.load(Ordering::Acquire))
    }

    /// Moves the durable position and wakes the waiters that it satisfies.
    pub(crate) fn publish(&self, durable: LogPosition) {
        let mut tail = self.tail.lock();
        let ready = tail.publish(durable);
        self.durable.store(durable.as_u64(), Ordering::Release);
        drop(tail);
        ready.into_values().for_each(Waker::wake);
    }

    /// Wakes all waiters for room or for the end.
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

    /// Takes the log out of service. Keeps the first cause, and gives it to every caller.
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

    /// Updates what follows from the set of live files, after one was let go.
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

    /// Removes free files that the cap has no room for, that exceed the spare for a burst, or that are
    /// longer than present files. Runs only after the new header is durable: the one before may still
    /// have listed them.
    pub(crate) fn remove_surplus(&self) -> Result<(), Failure> {
        let mut files = self.files.write();
        let room = self.settings.max_files().saturating_sub(files.live.len());
        let room = room.min(self.settings.spare_files());
        let (mut keep, mut surplus): (Vec<_>, Vec<_>) = std::mem::take(&mut files.free)
            .into_iter()
            .partition(|file| file.filled() <= self.settings.file_bytes);
        surplus.extend(keep.drain(room.min(keep.len())..));
        files.free = keep;
        for file in &surplus {
            let removed = self.disk.remove(&file.name);
            removed.map_err(|e| Failure::new(&file.name, "the removal", e))?;
        }
        if !surplus.is_empty() {
            self.disk.sync_dir().map_err(|e| Failure::new("(directory)", "fsync", e))?;
        }
        Ok(())
    }
}
