//! The uplink to the store, shared by all large objects of a node: the number sent at once, and the
//! time for each.
//!
//! An object that is cut off is sent again from its first byte. If so many share the uplink that
//! none finishes in time, none ever does. So a timeout lowers the number sent at once, and gives a
//! single object more time. Objects that finish in half their time raise the number again.
//!
//! A send seems to hang after the time of a call, and after twice the time that the last success
//! suggests. Then it lets the next one try, once, for the time of a call. On a good line the next
//! one finishes, and raises the number again. A try that fails has cost the line half of that time.
//! It keeps its place in the queue, and does not try again.

use object_store::Result;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Time after which a call without an answer has failed.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time for sending a large object. 32 MiB finish at 600 kbit/s; longer waits would
/// only find a dead connection later.
pub const SEND_TIMEOUT_MAX: Duration = Duration::from_secs(480);
/// Size from which on an object waits for its turn, bytes. Smaller ones don't fill an uplink.
pub(crate) const LARGE_BYTES_MIN: usize = 1 << 20;
/// The most large objects sent at once: enough for a fast uplink.
const AT_ONCE_MAX: usize = 32;

#[derive(Debug)]
struct State {
    running: usize,
    /// Times at which running sends let the next one try. Only of sends that have more time than a
    /// call, and have let none try yet.
    long: Vec<Instant>,
    /// The last success: the object's size in bytes, and the time that it took.
    last: (usize, Duration),
    /// Callers that wait for a turn, in the order of asking.
    waiting: VecDeque<u64>,
    /// The number of the next caller.
    next: u64,
    at_once_max: usize,
    timeout: Duration,
    /// Number of changes by timeouts. One wave of timeouts makes one change.
    changes: u64,
}

/// The uplink: decides which caller may send now.
#[derive(Debug)]
pub(crate) struct Line {
    state: Mutex<State>,
    freed: Notify,
}

impl Default for Line {
    fn default() -> Self {
        let state = State {
            running: 0,
            long: Vec::new(),
            last: (1, Duration::ZERO),
            waiting: VecDeque::new(),
            next: 0,
            at_once_max: AT_ONCE_MAX,
            timeout: CALL_TIMEOUT,
            changes: 0,
        };
        Self { state: Mutex::new(state), freed: Notify::new() }
    }
}

/// A turn on the uplink; it ends when this is dropped.
struct Turn<'a> {
    line: &'a Line,
    began: Instant,
    changes: u64,
    leave: Leave,
}

/// The terms of a turn.
#[derive(Clone, Copy)]
struct Leave {
    timeout: Duration,
    /// True if it only tries, beside a long send.
    tries: bool,
    /// Time at which it lets the next one try.
    lets_try: Option<Instant>,
}

/// A place in the queue; dropping it gives it up.
struct Waiter<'a> {
    line: &'a Line,
    number: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.line.state.lock().waiting.retain(|waiting| *waiting != self.number);
        self.line.freed.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        if !self.leave.tries {
            state.running -= 1;
        }
        let own = |at: &Instant| Some(*at) == self.leave.lets_try;
        if let Some(own) = state.long.iter().position(own) {
            state.long.swap_remove(own);
        }
        drop(state);
        self.line.freed.notify_waiters();
    }
}

impl Line {
    /// Sends an object of this many bytes by `call`, when its turn comes. A call beside a long send
    /// that does not finish is made again, in its next turn.
    ///
    /// # Errors
    /// The time that it had, if it did not finish in it.
    pub(crate) async fn send<T, C: Future<Output = Result<T>>>(
        &self,
        bytes: usize,
        call: impl Fn() -> C,
    ) -> Result<Result<T>, Duration> {
        if bytes < LARGE_BYTES_MIN {
            return tokio::time::timeout(CALL_TIMEOUT, call()).await.map_err(|_| CALL_TIMEOUT);
        }
        let mut kept = None;
        loop {
            let place = self.ask(kept);
            let number = place.number;
            let turn = self.turn(place, bytes, kept.is_none()).await;
            match tokio::time::timeout(turn.leave.timeout, call()).await {
                Ok(done) => {
                    if done.is_ok() {
                        self.state.lock().widen(bytes, turn.began.elapsed());
                    }
                    return Ok(done);
                }
                Err(_) if turn.leave.tries => kept = Some(number),
                Err(_) => {
                    self.state.lock().narrow(turn.changes);
                    return Err(turn.leave.timeout);
                }
            }
        }
    }

    /// Waits for a turn, in the order of asking.
    async fn turn(&self, place: Waiter<'_>, bytes: usize, may_try: bool) -> Turn<'_> {
        loop {
            // Before the look, so that no turn that ends meanwhile is missed.
            let freed = self.freed.notified();
            let (now, mut try_at) = (Instant::now(), None);
            {
                let mut state = self.state.lock();
                if state.waiting.front() == Some(&place.number) {
                    if let Some(leave) = state.begin(now, bytes, may_try) {
                        let changes = state.changes;
                        return Turn { line: self, began: now, changes, leave };
                    }
                    try_at = state.try_at().filter(|_| may_try);
                }
            }
            match try_at {
                Some(at) => drop(tokio::time::timeout_at(at, freed).await),
                None => freed.await,
            }
        }
    }

    /// Joins the queue: at its end, or at the place that a failed try has `kept`.
    fn ask(&self, kept: Option<u64>) -> Waiter<'_> {
        let mut state = self.state.lock();
        let number = kept.unwrap_or(state.next + 1);
        state.next = state.next.max(number);
        let at = state.waiting.partition_point(|other| *other < number);
        state.waiting.insert(at, number);
        Waiter { line: self, number }
    }
}

impl State {
    /// Begins the turn of an object of this many bytes, if there is one now.
    fn begin(&mut self, now: Instant, bytes: usize, may_try: bool) -> Option<Leave> {
        if self.running < self.at_once_max {
            self.running += 1;
            let (timeout, tries) = (self.timeout, false);
            let lets_try = (timeout > CALL_TIMEOUT).then(|| now + self.patience(bytes));
            self.long.extend(lets_try);
            return Some(Leave { timeout, tries, lets_try });
        }
        let due = self.long.iter().position(|at| may_try && *at <= now)?;
        self.long.swap_remove(due);
        Some(Leave { timeout: CALL_TIMEOUT, tries: true, lets_try: None })
    }

    /// Time after which an object of this many bytes probably hangs: twice the time that it takes
    /// at the speed of the last success.
    ///
    /// Once, the next one tried after the time of a call. On a line on which each object takes
    /// longer, all tries failed. They cost a third of the line, and the place of the sender.
    fn patience(&self, bytes: usize) -> Duration {
        let (of, took) = self.last;
        // A smaller object tells the speed; a larger one promises nothing for a smaller one.
        let factor = 2.0 * (bytes as f64 / of as f64).max(1.0);
        took.mul_f64(factor).clamp(CALL_TIMEOUT, SEND_TIMEOUT_MAX)
    }

    /// Time at which a long send lets the next one try.
    fn try_at(&self) -> Option<Instant> {
        self.long.iter().min().copied()
    }

    /// Takes in a timeout of a send that began after this many changes.
    fn narrow(&mut self, changes: u64) {
        if changes != self.changes {
            return;
        }
        self.changes += 1;
        if self.running > 1 {
            self.at_once_max = self.running / 2;
        } else {
            self.timeout = (2 * self.timeout).min(SEND_TIMEOUT_MAX);
        }
    }

    /// Takes in a send of this many bytes that finished after this time.
    fn widen(&mut self, bytes: usize, took: Duration) {
        self.last = (bytes, took);
        if took <= self.timeout / 2 {
            self.at_once_max = (self.at_once_max + 1).min(AT_ONCE_MAX);
        }
        if took <= self.timeout / 4 {
            self.timeout = (self.timeout / 2).max(CALL_TIMEOUT);
        }
    }
}

#[cfg(test)]
#[path = "line/tests.rs"]
mod tests;
