//! The start of a program where the system may have no room for one.
//!
//! Such an error passes, and the job is not its cause. So it costs no attempt: the worker waits, and
//! tries again. It keeps the lease meanwhile.

use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::time::Instant;

use super::Say;

/// The pauses between two tries: the first, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Time after which the worker says again that the system has no room.
const AGAIN: Duration = Duration::from_secs(60);

/// Errors that pass: too many open files here or in the system, too many processes, no memory, and a
/// program that is being written.
const PASSING: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM, Errno::TXTBSY];

/// Starts programs, and says if they can't be started for now.
pub(super) struct Starts {
    say: Box<Say>,
    last_said: Mutex<Option<Instant>>,
}

impl Starts {
    pub(super) fn new(say: Box<Say>) -> Self {
        Self { say, last_said: Mutex::default() }
    }

    /// Calls `spawn` until it succeeds, or fails for good.
    pub(super) async fn start<T>(&self, spawn: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut pause = PAUSE_FIRST;
        loop {
            match spawn() {
                Err(error) if passes(&error) => self.tell(&error),
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Says the error, once for all jobs that meet it.
    fn tell(&self, error: &io::Error) {
        let mut last = self.last_said.lock();
        if last.is_none_or(|last| last.elapsed() >= AGAIN) {
            *last = Some(Instant::now());
            (self.say)(format!("the program can't be started now: {error}; trying again"));
        }
    }
}

fn passes(error: &io::Error) -> bool {
    PASSING.iter().any(|passing| error.raw_os_error() == Some(passing.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_error_that_passes_is_said_once_and_waited_for() {
        let said = Arc::new(AtomicUsize::new(0));
        let count = said.clone();
        let starts = Starts::new(Box::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        for passing in PASSING {
            let tries = AtomicUsize::new(0);
            let spawn = || match tries.fetch_add(1, Ordering::Relaxed) {
                0..5 => Err(passing.into()),
                _ => Ok("started"),
            };
            assert_eq!(starts.start(spawn).await.expect("starts"), "started");
        }
        assert_eq!(said.load(Ordering::Relaxed), 1);
        let gone = starts.start(|| Err::<(), _>(Errno::NOENT.into())).await;
        assert!(gone.is_err(), "it does not pass");
    }
}
