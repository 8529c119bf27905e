//! What happens by itself, and when. Each timer is taken out exactly when it is not wanted any more: none is ever
//! looked at in vain.

use std::collections::BTreeSet;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The job's time has come.
    Start(u32),
    /// The job's lease is over.
    Expiry(u32),
    /// The rate limit has a token again.
    Token(u32),
}

/// All timers of a shard, by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(u64, Timer)>,
}

impl Timers {
    /// At `at_ms`, this happens.
    pub(super) fn add(&mut self, at_ms: u64, timer: Timer) {
        self.set.insert((at_ms, timer));
    }

    /// It does not.
    pub(super) fn remove(&mut self, at_ms: u64, timer: Timer) {
        self.set.remove(&(at_ms, timer));
    }

    /// The next that has come due.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<Timer> {
        let (at_ms, _) = self.set.first()?;
        if *at_ms > now_ms {
            return None;
        }
        self.set.pop_first().map(|(_, timer)| timer)
    }

    /// When the next comes due, milliseconds since 1970.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.set.first().map(|(at_ms, _)| *at_ms)
    }
}
