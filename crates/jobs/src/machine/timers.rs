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

/// All timers of a shard, by time. Leases go by a clock of their own, that knows no steps.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(u64, Timer)>,
    leases: BTreeSet<(u64, Timer)>,
}

impl Timers {
    fn of(&mut self, timer: Timer) -> &mut BTreeSet<(u64, Timer)> {
        if let Timer::Expiry(_) = timer { &mut self.leases } else { &mut self.set }
    }

    /// At `at_ms`, this happens.
    pub(super) fn add(&mut self, at_ms: u64, timer: Timer) {
        self.of(timer).insert((at_ms, timer));
    }

    /// It does not.
    pub(super) fn remove(&mut self, at_ms: u64, timer: Timer) {
        self.of(timer).remove(&(at_ms, timer));
    }

    /// The next that has come due; the clock of leases is `stepped_ms` behind.
    pub(super) fn pop(&mut self, now_ms: u64, stepped_ms: u64) -> Option<Timer> {
        let leases_ms = now_ms.saturating_sub(stepped_ms);
        [(&mut self.leases, leases_ms), (&mut self.set, now_ms)].into_iter().find_map(due)
    }

    /// When the next comes due, milliseconds since 1970.
    pub(super) fn next_ms(&self, stepped_ms: u64) -> Option<u64> {
        let lease = self.leases.first().map(|(at_ms, _)| at_ms.saturating_add(stepped_ms));
        let other = self.set.first().map(|(at_ms, _)| *at_ms);
        lease.into_iter().chain(other).min()
    }
}

/// The first timer of a set, if its time has come.
fn due((set, now_ms): (&mut BTreeSet<(u64, Timer)>, u64)) -> Option<Timer> {
    set.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
    set.pop_first().map(|(_, timer)| timer)
}
