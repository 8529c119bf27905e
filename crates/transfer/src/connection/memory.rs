//! Account of the bytes that a connection holds.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Account of the bytes that a connection holds for received frames. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    free: Arc<Semaphore>,
    limit_bytes: usize,
    peak_bytes: Arc<AtomicUsize>,
}

/// Bytes of an account, given back when dropped.
#[derive(Debug)]
pub(super) struct Charge(OwnedSemaphorePermit);

impl Memory {
    pub(super) fn new(limit_bytes: usize) -> Self {
        let free = Arc::new(Semaphore::new(limit_bytes));
        Self { free, limit_bytes, peak_bytes: Arc::default() }
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.limit_bytes - self.free.available_permits()
    }

    /// Most bytes that were held at once.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes may be held. Nothing if they never may.
    pub(super) async fn charge(&self, bytes: usize) -> Option<Charge> {
        if bytes > self.limit_bytes {
            return None;
        }
        let permits = u32::try_from(bytes).ok()?;
        let permit = self.free.clone().acquire_many_owned(permits).await.ok()?;
        self.peak_bytes.fetch_max(self.held_bytes(), Ordering::Relaxed);
        Some(Charge(permit))
    }
}

impl Charge {
    /// Joins another charge of the same account.
    pub(super) fn join(&mut self, other: Self) {
        self.0.merge(other.0);
    }
}
