//! The local disk of a shard whose database has its log there. It loses unsynced writes.
//!
//! The log has no thread here. Its commits run when no task is ready, a while after they were asked
//! for. So a run can be repeated, and a crash can come before a commit.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_core::start::StartPlace;
use skerry_jobs::opening::MemoryNote;
use skerry_jobs::wal::{Beside, LocalWal};
use skerry_log::sim::SimDisk;
use skerry_log::{Env, Log, Progress, Settings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Small, so that files are switched, and batches are longer than a record.
fn settings() -> Settings {
    Settings {
        file_bytes: 64 << 10,
        cap_bytes: 4 << 20,
        spare_bytes: 1 << 20,
        buffer_bytes: 8 << 10,
        buffers: 8,
        write_threshold_bytes: 2 << 10,
        unsynced_bytes_max: 64 << 10,
        fill_ahead_bytes: 16 << 10,
        fill_piece_bytes: 16 << 10,
    }
}

struct Inner {
    disk: SimDisk,
    note: MemoryNote,
    rng: Mutex<StdRng>,
    log: Mutex<Option<Log>>,
    /// Notified when a commit is to be carried out.
    wanted: Notify,
    is_wanted: AtomicBool,
}

/// A disk with a log on it. Clones share it.
#[derive(Clone)]
pub struct LocalDisk(Arc<Inner>);

impl LocalDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Inner {
            disk: SimDisk::new(),
            note: MemoryNote::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed ^ 0xd15c)),
            log: Mutex::default(),
            wanted: Notify::new(),
            is_wanted: AtomicBool::new(false),
        }))
    }

    /// Opens the log, or makes it.
    pub fn open(&self) -> skerry_jobs::Result<LocalWal> {
        let mut random = StdRng::seed_from_u64(self.0.rng.lock().random());
        let env = Env::new(move || random.random(), || 0).without_thread();
        let opened = Log::open(Arc::new(self.0.disk.clone()), settings(), env);
        let (log, recovery) = opened.map_err(skerry_jobs::wal::log_failed)?;
        let note = Arc::new(self.0.note.clone());
        let beside = Beside { lock: None, note, place: StartPlace::default() };
        let wal = LocalWal::open(log.clone(), recovery, beside)?;
        *self.0.log.lock() = Some(log);
        tokio::spawn(self.clone().commit_when_wanted());
        Ok(wal)
    }

    async fn commit_when_wanted(self) {
        loop {
            self.0.wanted.notified().await;
            let ms = self.0.rng.lock().random_range(1..30);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            self.commit();
            self.0.is_wanted.store(false, Ordering::Relaxed);
        }
    }

    fn commit(&self) {
        let Some(log) = self.0.log.lock().clone() else { return };
        loop {
            match log.commit_once() {
                Ok(Progress::Worked) => {}
                Ok(Progress::Idle) => break,
                Err(_) => {
                    // All waiting calls have been answered.
                    *self.0.log.lock() = None;
                    break;
                }
            }
        }
    }

    /// Commits, or asks for a commit: no task is ready until time passes.
    pub fn on_idle(&self) {
        let is_behind = |log: &Log| log.durable_position() < log.end_position();
        if !self.0.log.lock().as_ref().is_some_and(is_behind) {
            self.commit();
        } else if !self.0.is_wanted.swap(true, Ordering::Relaxed) {
            self.0.wanted.notify_one();
        }
    }

    /// Number of changes and syncs that the disk was asked for.
    pub fn operations(&self) -> u64 {
        self.0.disk.operations()
    }

    /// Stops the disk after this many more operations.
    pub fn stop_after(&self, count: u64) {
        self.0.disk.stop_after(count);
    }

    /// The machine dies, and is started again.
    pub fn crash(&self) {
        *self.0.log.lock() = None;
        self.0.is_wanted.store(false, Ordering::Relaxed);
        self.0.disk.crash(self.0.rng.lock().random());
    }
}
