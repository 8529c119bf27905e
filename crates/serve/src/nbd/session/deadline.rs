//! A time limit for the client's part: to send the rest of a payload, or to take a long reply.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// The time that is left for one transfer. The next one has all of it again.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    /// The number of the transfer that the clock runs for.
    of: Option<u64>,
    clock: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// True if the time for the transfer `now`, if there is one, is over. Otherwise the task is
    /// woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Option<u64>, limit: Duration) -> bool {
        let is_new = self.of != now;
        self.of = now;
        if now.is_none() {
            return false;
        }
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(limit)));
        if is_new {
            clock.as_mut().reset(Instant::now() + limit);
        }
        clock.as_mut().poll(cx).is_ready()
    }
}
