//! Future events and their times. Each timer is removed exactly when it is no longer wanted: none
//! goes off in vain.

use std::collections::BTreeSet;

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The job's start time has come.
    Start(u32),
    /// The job's lease is over.
    Expiry(u32),
    /// The rate limit has a token again.
    Token(u32),
}

/// All timers of a shard, by time. Leases go by a clock of their own, which ignores steps.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(u64, Timer)>,
    leases: BTreeSet<(u64, Timer)>,
}

impl Timers {
    fn of(&mut self, timer: Timer) -> &mut BTreeSet<(u64, Timer)> {
        if let Timer::Expiry(_) = timer { &mut self.leases } else { &mut self.set }
    }

    /// Adds an event at `at_ms`.
    pub(super) fn add(&mut self, at_ms: u64, timer: Timer) {
        self.of(timer).insert((at_ms, timer));
    }

    /// Removes it.
    pub(super) fn remove(&mut self, at_ms: u64, timer: Timer) {
        self.of(timer).remove(&(at_ms, timer));
    }

    /// Takes the next due event. The clock of leases is `stepped_ms` behind.
    pub(super) fn pop(&mut self, now_ms: u64, stepped_ms: u64) -> Option<Timer> {
        let leases_ms = now_ms.saturating_sub(stepped_ms);
        [(&mut self.leases, leases_ms), (&mut self.set, now_ms)].into_iter().find_map(due)
    }

    /// Time of the next event, milliseconds since 1970.
    pub(super) fn next_ms(&self, stepped_ms: u64) -> Option<u64> {
        let lease = self.leases.first().map(|(at_ms, _)| at_ms.saturating_add(stepped_ms));
        let other = self.set.first().map(|(at_ms, _)| *at_ms);
        lease.into_iter().chain(other).min()
    }
}

/// Takes the first timer of a set, if its time has come.
fn due((set, now_ms): (&mut BTreeSet<(u64, Timer)>, u64)) -> Option<Timer> {
    set.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
    set.pop_first().map(|(_, timer)| timer)
}
