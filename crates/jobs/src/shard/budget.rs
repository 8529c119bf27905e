//! The budget of a node for jobs on their way to workers: bytes over all workers and all shards.
//!
//! Each worker has a window of its own (`seat`), and thousands of windows would be gigabytes. A job
//! gives its share back when its message goes to the connection, or is dropped. A worker that finds
//! the budget spent leaves the queues and waits here. Waiting workers pass room on: each takes what
//! it can, and wakes the next if some is left.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::Notify;

/// Default of the bytes of jobs that may be on their way to all workers of a node at once.
pub const BUDGET_BYTES: u64 = 256 << 20;

/// Budget for jobs on their way to workers.
#[derive(Debug)]
pub struct Budget {
    /// Below zero if the last jobs were larger than what was left: at most one of each shard.
    left_bytes: AtomicI64,
    room: Notify,
}

impl Budget {
    /// Makes a budget of this many bytes.
    pub fn new(bytes: u64) -> Arc<Self> {
        let left_bytes = AtomicI64::new(i64::try_from(bytes.max(1)).unwrap_or(i64::MAX));
        Arc::new(Self { left_bytes, room: Notify::new() })
    }

    /// True if no job may be given out.
    pub(super) fn is_spent(&self) -> bool {
        self.left_bytes.load(Ordering::Acquire) <= 0
    }

    /// Takes the share of a job of this many bytes.
    pub(super) fn take(self: &Arc<Self>, bytes: u32) -> OnItsWay {
        self.left_bytes.fetch_sub(bytes.into(), Ordering::AcqRel);
        OnItsWay { budget: self.clone(), bytes }
    }

    /// Waits for room. Workers that wait are woken in turns, each if the one before left some.
    pub(crate) async fn has_room(&self) {
        while self.is_spent() {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            // Room may have come just before.
            if self.is_spent() {
                room.await;
            }
        }
    }

    /// Wakes the next worker if there is room left. A woken worker calls it once it has taken what
    /// it can.
    pub(crate) fn pass_on(&self) {
        if !self.is_spent() {
            self.room.notify_one();
        }
    }
}

/// The share of a job on its way. Dropping it gives it back.
#[derive(Debug)]
pub struct OnItsWay {
    budget: Arc<Budget>,
    bytes: u32,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let bytes = i64::from(self.bytes);
        let before = self.budget.left_bytes.fetch_add(bytes, Ordering::AcqRel);
        if before <= 0 && before + bytes > 0 {
            self.budget.room.notify_one();
        }
    }
}
