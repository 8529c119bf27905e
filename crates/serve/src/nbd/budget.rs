//! The bytes that all connections hold together, and the connection that may hold more.
//!
//! A large request takes its room here before its buffer is allocated. A connection without room
//! waits in a queue. It is woken when it is first in the queue and room was given back. One
//! connection at a time may go beyond the budget. So a large request is served, however much the
//! others hold, and for however long. If that connection waits for the bucket, the large requests
//! behind it wait, too.
//!
//! Small requests are counted and never wait for others. A connection that holds nothing may always
//! go on with one (see [`super::Limits`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// The count of a whole server.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
    /// True if the queue may not be empty. A share that gives room back looks here first.
    is_waited_for: AtomicBool,
    queue: Mutex<Queue>,
}

/// Connections that wait for room, by number, in the order of their coming.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, Waker)>,
    /// The connection that holds more than the budget.
    beyond: Option<u64>,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let (used, is_waited_for) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { used, max, is_waited_for, queue: Mutex::default() })
    }

    /// Bytes that all connections hold.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    fn wake_next(&self) {
        if self.is_waited_for.load(Ordering::SeqCst)
            && let Some((_, waker)) = self.queue.lock().waiting.front()
        {
            waker.wake_by_ref();
        }
    }
}

impl Queue {
    fn leave(&mut self, number: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != number);
    }
}

/// One connection's share; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// The connection's number.
    number: u64,
    mine: usize,
    /// True if it went beyond the budget, and may still be there.
    may_be_beyond: bool,
    waits: bool,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>, number: u64) -> Self {
        Self { budget, number, mine: 0, may_be_beyond: false, waits: false }
    }

    /// Sets the bytes that the connection holds.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.mine, bytes);
        if bytes > before {
            self.budget.used.fetch_add(bytes - before, Ordering::SeqCst);
        } else if bytes < before {
            self.budget.used.fetch_sub(before - bytes, Ordering::SeqCst);
            self.come_back();
            self.budget.wake_next();
        }
    }

    /// Lets another connection go beyond the budget, once this one holds nothing.
    fn come_back(&mut self) {
        if self.mine > 0 || !std::mem::take(&mut self.may_be_beyond) {
            return;
        }
        let mut queue = self.budget.queue.lock();
        queue.beyond = queue.beyond.filter(|number| *number != self.number);
    }

    /// Takes room for `bytes` more, which the next [`Self::set`] must count. If there is none, the
    /// task is woken when there may be.
    pub(crate) fn poll_take(&mut self, cx: &Context<'_>, bytes: usize) -> bool {
        let budget = &*self.budget;
        let mut queue = budget.queue.lock();
        // Before the count is read: a share that gives room back from now on wakes the first.
        budget.is_waited_for.store(true, Ordering::SeqCst);
        let is_next = queue.waiting.front().is_none_or(|(first, _)| *first == self.number);
        let used = budget.used_bytes();
        if used <= budget.max {
            queue.beyond = None;
        }
        let fits = used.saturating_add(bytes) <= budget.max;
        if !is_next || !(fits || queue.beyond.is_none()) {
            match queue.waiting.iter_mut().find(|(number, _)| *number == self.number) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => queue.waiting.push_back((self.number, cx.waker().clone())),
            }
            self.waits = true;
            return false;
        }
        if !fits {
            queue.beyond = Some(self.number);
            self.may_be_beyond = true;
        }
        self.mine += bytes;
        budget.used.fetch_add(bytes, Ordering::SeqCst);
        drop(queue);
        self.waits = true;
        self.stop_waiting();
        true
    }

    /// Leaves the queue to the connections behind.
    pub(crate) fn stop_waiting(&mut self) {
        if !std::mem::take(&mut self.waits) {
            return;
        }
        let mut queue = self.budget.queue.lock();
        queue.leave(self.number);
        self.budget.is_waited_for.store(!queue.waiting.is_empty(), Ordering::SeqCst);
        if let Some((_, waker)) = queue.waiting.front() {
            waker.wake_by_ref();
        }
    }

    /// True if all connections together hold less than half of the budget.
    pub(crate) fn is_roomy(&self) -> bool {
        self.budget.used_bytes() < self.budget.max / 2
    }

    /// True if all connections together hold as much as they may.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.budget.used_bytes() >= self.budget.max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        self.stop_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares<const N: usize>(max: usize) -> [Share; N] {
        let budget = Budget::new(max);
        std::array::from_fn(|number| Share::new(budget.clone(), number as u64))
    }

    fn take(share: &mut Share, bytes: usize) -> bool {
        share.poll_take(&Context::from_waker(Waker::noop()), bytes)
    }

    #[test]
    fn shares_add_up_and_are_given_back() {
        let [mut a, mut b] = shares(100);
        a.set(60);
        assert!(!b.is_exhausted());
        b.set(40);
        assert!(a.is_exhausted());
        a.set(10);
        assert!(!a.is_exhausted());
        a.set(60);
        drop(b);
        assert!(!a.is_exhausted());
    }

    #[test]
    fn one_at_a_time_goes_beyond_and_the_others_wait_their_turn() {
        let [mut a, mut b, mut c, mut d] = shares(100);
        assert!(take(&mut a, 80));
        assert!(take(&mut b, 80), "one goes beyond");
        assert!(!take(&mut c, 80) && !take(&mut d, 10));
        assert_eq!(a.budget.used_bytes(), 160);
        b.set(0);
        assert!(!take(&mut d, 10), "it would fit, but another came before");
        assert!(take(&mut c, 80), "beyond, as nothing fits");
        assert!(!take(&mut d, 10));
        drop(a);
        assert!(take(&mut d, 10));
        assert_eq!(c.budget.used_bytes(), 90);
        assert!(take(&mut d, 80), "the budget sufficed again: another may go beyond");
    }

    #[test]
    fn who_leaves_the_queue_lets_the_next_one_in() {
        let [mut a, mut b, mut c, mut d] = shares(100);
        assert!(take(&mut a, 100) && take(&mut b, 100));
        assert!(!take(&mut c, 100) && !take(&mut d, 100));
        drop(c);
        drop(a);
        drop(b);
        assert!(take(&mut d, 100));
        assert!(!d.may_be_beyond, "it fits");
    }
}
