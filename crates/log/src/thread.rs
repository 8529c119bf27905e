//! The committer's thread: calls `commit_once` while there is something to do, and parks otherwise.
//! The log starts no other thread.

use std::{
    io,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use crate::{Log, Progress, tail::State};

/// Interval of retries for a record that found no room on the disk.
const STALL_RETRY: Duration = Duration::from_millis(250);

/// Time for which a record stays in memory if no caller wants it durable, once or twice this. Then
/// the committer writes it to its file, without a sync. Records appended before that survive a kill
/// of the process.
const WRITE_AFTER: Duration = Duration::from_millis(5);

/// The running committer. Dropping it stops the thread after the commit under way. Records that are
/// not durable stay in memory, so close the log first.
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
    /// Starts none if the log was opened [without one](crate::Env::without_thread).
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

    /// Waits for work. False if the thread must end.
    fn park(&self) -> bool {
        let inner = &self.inner;
        let mut tail = inner.tail.lock();
        loop {
            if tail.stop || matches!(tail.state, State::Closed | State::Failed(_)) {
                return false;
            }
            if tail.stall.is_some() {
                // No event tells of room on a disk.
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
            // Tries the file that appenders wait for again.
            tail.kick |= timed_out && gathered.is_none();
            if timed_out && tail.gathered_from() == gathered && !tail.stop {
                return true;
            }
        }
    }
}

/// Runs until the log closes or fails. An error ends the thread: the log is out of service, and all
/// waiters know.
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
