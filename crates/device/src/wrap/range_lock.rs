//! Locks ranges of a device in the order in which they were asked for.
//!
//! Not for speed: it looks through all requests under way, whose number the callers bound.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bell::Bell;

/// The locks of a device.
#[derive(Debug, Clone, Default)]
pub(crate) struct RangeLock {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Holders and waiters, in order.
    entries: Mutex<Entries>,
    changed: Bell,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    list: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    range: Range<u64>,
    exclusive: bool,
}

impl Entry {
    fn excludes(&self, other: &Self) -> bool {
        let overlaps = self.range.start < other.range.end && other.range.start < self.range.end;
        overlaps && (self.exclusive || other.exclusive)
    }
}

/// A place in the order. It holds its range once [`Turn::come`] has ended, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    shared: Arc<Shared>,
    entry: Entry,
}

impl RangeLock {
    /// Asks for a range. Later requests for it wait for this one, whether or not it has come.
    pub(crate) fn ask(&self, range: Range<u64>, exclusive: bool) -> Turn {
        let mut entries = self.shared.entries.lock();
        let entry = Entry { number: entries.next, range, exclusive };
        entries.next += 1;
        entries.list.push(entry.clone());
        drop(entries);
        Turn { shared: self.shared.clone(), entry }
    }

    /// Waits for a range, and keeps all others out of it.
    pub(crate) async fn alone(&self, range: Range<u64>) -> Turn {
        self.ask(range, true).come().await
    }

    /// Waits for a range, and shares it with others that share.
    pub(crate) async fn shared(&self, range: Range<u64>) -> Turn {
        self.ask(range, false).come().await
    }
}

impl Turn {
    /// Waits until no earlier request keeps this one out.
    pub(crate) async fn come(self) -> Self {
        loop {
            let changed = self.shared.changed.listen();
            if self.has_come() {
                return self;
            }
            let _ = changed.await;
        }
    }

    fn has_come(&self) -> bool {
        let entries = self.shared.entries.lock();
        let earlier = entries.list.iter().take_while(|entry| entry.number < self.entry.number);
        earlier.into_iter().all(|entry| !entry.excludes(&self.entry))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.entries.lock().list.retain(|entry| entry.number != self.entry.number);
        self.shared.changed.ring();
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn turns_come_in_order_and_only_where_ranges_meet() {
        let lock = RangeLock::default();
        let first = block_on(lock.alone(0..10));
        let (second, third) = (lock.ask(5..15, true), lock.ask(12..20, true));
        assert!(!second.has_come() && !third.has_come(), "the third waits behind the second");
        let beside = lock.ask(20..30, true);
        assert!(beside.has_come());
        drop(second);
        assert!(third.has_come(), "a waiter that goes away keeps nothing out");
        let later = lock.ask(0..1, false);
        drop(first);
        assert!(later.has_come());
    }

    #[test]
    fn shares_wait_for_those_alone_before_them() {
        let lock = RangeLock::default();
        let (one, other) = (block_on(lock.shared(0..10)), block_on(lock.shared(0..10)));
        let alone = lock.ask(0..1, true);
        let behind = lock.ask(0..1, false);
        assert!(!alone.has_come() && !behind.has_come());
        drop((one, other));
        assert!(alone.has_come() && !behind.has_come());
        drop(alone);
        assert!(behind.has_come());
    }
}
