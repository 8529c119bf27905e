//! Turns: at most one task at a time works on a key, and tasks with other keys don't wait for it.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use tokio::sync::OwnedMutexGuard;

/// Number of keys from which on unused ones are forgotten.
const FORGET_FROM: usize = 64;

/// One lock for each key that a task uses.
#[derive(Debug)]
pub(crate) struct Turns<K> {
    locks: Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { locks: Mutex::default() }
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// Waits for the turn of `key`; it lasts until the guard is dropped.
    pub(crate) async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let lock = self.lock_of(key);
        lock.lock_owned().await
    }

    fn lock_of(&self, key: K) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= FORGET_FROM {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::default();
        locks.insert(key, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_turn_keeps_out_its_own_key_only() {
        let turns = Turns::default();
        let one = turns.take(1).await;
        assert!(turns.take(1).now_or_never().is_none(), "two turns of one key");
        assert!(turns.take(2).now_or_never().is_some(), "another key waits");
        drop(one);
        assert!(turns.take(1).now_or_never().is_some());
        for key in 0..1000 {
            drop(turns.take(key).await);
        }
        assert!(turns.locks.lock().len() <= FORGET_FROM, "keys pile up");
    }
}
