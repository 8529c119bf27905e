//! The budget of a node for jobs on their way to workers: bytes over all workers and all shards together.
//!
//! Each worker has a window of its own (`seat`), and thousands of windows would be gigabytes. What a job takes of the
//! budget is given back when its message is handed to the connection, or dropped. A worker that finds the budget spent
//! leaves its place in the queues and waits here. Room is passed from one that waits to the next: each takes what it can
//! and wakes the next if some is left.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::Notify;

/// Bytes of jobs that may be on their way to all workers of a node at once, unless it is told otherwise.
pub const BUDGET_BYTES: u64 = 256 << 20;

/// What is left for jobs on their way.
#[derive(Debug)]
pub struct Budget {
    /// Less than none if the last jobs were larger than what was left: one of each shard at most.
    left_bytes: AtomicI64,
    room: Notify,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Arc<Self> {
        let left_bytes = AtomicI64::new(i64::try_from(bytes.max(1)).unwrap_or(i64::MAX));
        Arc::new(Self { left_bytes, room: Notify::new() })
    }

    /// True if no job may be given out.
    pub(super) fn is_spent(&self) -> bool {
        self.left_bytes.load(Ordering::Acquire) <= 0
    }

    /// A job of so many bytes is on its way.
    pub(super) fn take(self: &Arc<Self>, bytes: u32) -> OnItsWay {
        self.left_bytes.fetch_sub(bytes.into(), Ordering::AcqRel);
        OnItsWay { budget: self.clone(), bytes }
    }

    /// Waits until there is room. Workers that wait are woken in turns, each if the one before left some.
    pub(crate) async fn has_room(&self) {
        while self.is_spent() {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            // It may have come just before.
            if self.is_spent() {
                room.await;
            }
        }
    }

    /// A worker that was woken has taken what it can: what is left is for the next.
    pub(crate) fn pass_on(&self) {
        if !self.is_spent() {
            self.room.notify_one();
        }
    }
}

/// What a job on its way takes of the budget; dropped, it is given back.
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
