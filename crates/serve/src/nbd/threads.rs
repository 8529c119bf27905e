//! Threads for sessions, each with a runtime of its own.
//!
//! A connection stays on one thread. On a runtime with shared work, every request of a busy
//! connection costs a second look for events. Now and then it wakes another thread. That was a
//! third of the server's time on small requests. Requests that must wait run elsewhere.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads for sessions. Dropping this ends them, and cuts off the work that still runs on them.
#[derive(Debug)]
pub struct SessionThreads {
    threads: Vec<(Handle, oneshot::Sender<()>)>,
    next: AtomicUsize,
}

impl SessionThreads {
    /// Starts `count` threads, one at least.
    ///
    /// # Errors
    /// If the system gives no thread or no descriptor.
    pub fn start(count: usize) -> io::Result<Self> {
        let threads = (0..count.max(1)).map(start_one).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// The thread for the next connection: each in turn.
    pub(super) fn next(&self) -> &Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.threads[turn % self.threads.len()].0
    }
}

fn start_one(number: usize) -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    thread::Builder::new().name(format!("nbd-{number}")).spawn(move || {
        // Ends when the other half is dropped.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok((handle, stop))
}
