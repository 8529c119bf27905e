//! The uplink to the store, shared by all large objects of a node: the number sent at once, and the
//! time for each.
//!
//! An object that is cut off is sent again from its first byte. If so many share the uplink that
//! none finishes in time, none ever does. So a timeout lowers the number sent at once, and gives a
//! single object more time. Objects that finish in half their time raise the number again.
//!
//! A send that takes longer than a call should has a slow line, or hangs by itself. So it lets the
//! next one try, once, for the time of a call. On a good line the next one finishes, and raises the
//! number again. On a slow line the try costs the first one half of that time.

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
    /// Start times of running sends that have more time than a call, and have let none try yet.
    long: Vec<Instant>,
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
    timeout: Duration,
    changes: u64,
    /// True if it only tries, beside a long send.
    tries: bool,
}

/// A place in the queue; dropping it gives it up.
struct Place<'a> {
    line: &'a Line,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.state.lock().waiting.retain(|waiting| *waiting != self.number);
        self.line.freed.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        if !self.tries {
            state.running -= 1;
            if self.timeout > CALL_TIMEOUT
                && let Some(own) = state.long.iter().position(|began| *began == self.began)
            {
                state.long.swap_remove(own);
            }
        }
        drop(state);
        self.line.freed.notify_waiters();
    }
}

impl Line {
    /// Sends an object of this many bytes by `call`, when its turn comes.
    ///
    /// # Errors
    /// The time that it had, if it did not finish in it.
    pub(crate) async fn send<T>(
        &self,
        bytes: usize,
        call: impl Future<Output = Result<T>>,
    ) -> Result<Result<T>, Duration> {
        if bytes < LARGE_BYTES_MIN {
            return tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| CALL_TIMEOUT);
        }
        let turn = self.turn().await;
        match tokio::time::timeout(turn.timeout, call).await {
            Ok(done) => {
                if done.is_ok() {
                    self.state.lock().widen(turn.began.elapsed());
                }
                Ok(done)
            }
            Err(_) => {
                if !turn.tries {
                    self.state.lock().narrow(turn.changes);
                }
                Err(turn.timeout)
            }
        }
    }

    /// Waits for a turn, in the order of asking.
    async fn turn(&self) -> Turn<'_> {
        let place = self.ask();
        loop {
            // Before the look, so that no turn that ends meanwhile is missed.
            let freed = self.freed.notified();
            let (now, mut try_at) = (Instant::now(), None);
            {
                let mut state = self.state.lock();
                if state.waiting.front() == Some(&place.number) {
                    if let Some((timeout, tries)) = state.begin(now) {
                        let changes = state.changes;
                        return Turn { line: self, began: now, timeout, changes, tries };
                    }
                    try_at = state.try_at();
                }
            }
            match try_at {
                Some(at) => drop(tokio::time::timeout_at(at, freed).await),
                None => freed.await,
            }
        }
    }

    fn ask(&self) -> Place<'_> {
        let mut state = self.state.lock();
        state.next += 1;
        let number = state.next;
        state.waiting.push_back(number);
        Place { line: self, number }
    }
}

impl State {
    /// Begins a turn, if there is one now. Gives its time, and true if it only tries.
    fn begin(&mut self, now: Instant) -> Option<(Duration, bool)> {
        if self.running < self.at_once_max {
            self.running += 1;
            if self.timeout > CALL_TIMEOUT {
                self.long.push(now);
            }
            return Some((self.timeout, false));
        }
        let oldest = self.long.iter().position(|began| *began + CALL_TIMEOUT <= now)?;
        self.long.swap_remove(oldest);
        Some((CALL_TIMEOUT, true))
    }

    /// Time at which a long send lets the next one try.
    fn try_at(&self) -> Option<Instant> {
        self.long.iter().min().map(|began| *began + CALL_TIMEOUT)
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

    /// Takes in a send that finished after this time.
    fn widen(&mut self, took: Duration) {
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
