//! The committer's thread: calls `commit_once` while there is something to do, and is parked
//! otherwise. The only thread that the log ever starts.

use std::{
    io,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use crate::{Log, Progress, tail::State};

/// How soon a record that found no room on the disk is tried again.
const STALL_RETRY: Duration = Duration::from_millis(250);

/// How long a record that is not asked for stays in memory, once or twice this: then it is written to its file, without a
/// sync. What was appended before that outlives the process if that is killed.
const WRITE_AFTER: Duration = Duration::from_millis(5);

/// The running committer. Dropping it stops the thread after the commit under way; what was
/// appended and not made durable stays in memory, so close the log first.
#[derive(Debug)]
pub struct CommitterThread {
    log: LogRef,
    thread: Option<JoinHandle<()>>,
}

struct LogRef(Log);

impl std::fmt::Debug for LogRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.id().fmt(f)
    }
}

impl Log {
    /// Starts the thread that writes and syncs. One is enough; a second only waits for the first.
    /// None starts if the log was opened [without one](crate::Env::without_thread).
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn spawn_committer(&self) -> io::Result<CommitterThread> {
        let log = self.clone();
        self.inner.tail.lock().stop = false;
        if !self.inner.has_thread {
            return Ok(CommitterThread { log: LogRef(log), thread: None });
        }
        let thread = Builder::new().name("log-committer".to_owned()).spawn(move || run(&log))?;
        Ok(CommitterThread { log: LogRef(self.clone()), thread: Some(thread) })
    }

    /// Waits for work. False when the thread is to end.
    fn park(&self) -> bool {
        let inner = &self.inner;
        let mut tail = inner.tail.lock();
        loop {
            if tail.stop || matches!(tail.state, State::Closed | State::Failed(_)) {
                return false;
            }
            if tail.stall.is_some() {
                // Room on a disk is not told of.
                inner.work.wait_for(&mut tail, STALL_RETRY);
                return !tail.stop;
            }
            if tail.has_work() {
                return true;
            }
            tail.parked = true;
            let gathered = tail.gathered_from();
            tail.sleeps = gathered.is_none();
            let timed_out = match gathered {
                Some(_) => inner.work.wait_for(&mut tail, WRITE_AFTER).timed_out(),
                None if tail.waits_for_disk() => {
                    inner.work.wait_for(&mut tail, STALL_RETRY).timed_out()
                }
                None => {
                    inner.work.wait(&mut tail);
                    false
                }
            };
            (tail.parked, tail.sleeps) = (false, false);
            // The file that appenders wait for is tried again.
            tail.kick |= timed_out && gathered.is_none();
            if timed_out && tail.gathered_from() == gathered && !tail.stop {
                return true;
            }
        }
    }
}

/// An error ends the thread: the log is out of service, and everybody has been told.
fn run(log: &Log) {
    loop {
        match log.commit_once() {
            Ok(Progress::Worked) if !log.inner.tail.lock().stop => {}
            Ok(_) => {
                if !log.park() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

impl Drop for CommitterThread {
    fn drop(&mut self) {
        self.log.0.inner.tail.lock().stop = true;
        self.log.0.inner.work.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed there; there is nothing to add here.
            let _ = thread.join();
        }
    }
}
