//! Threads for heavy computing that can wait: destage, and the merging of the jobs' files. They
//! must not delay threads that serve clients.

use skerry_api::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// Niceness of the threads: a tenth of the weight of a thread that serves clients.
const NICENESS: i32 = 10;
/// Number of threads at once; each holds a batch's memory.
const THREADS_MAX: usize = 4;

/// The threads. When this is dropped, they finish their work by themselves.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// Starts the threads, most of them only when there is work.
    pub(crate) fn start() -> Result<Self> {
        let built = Builder::new_multi_thread()
            // The engine runs nothing there but calls that block.
            .worker_threads(1)
            .enable_all()
            .max_blocking_threads(THREADS_MAX)
            .thread_name("background")
            .on_thread_start(|| {
                // Without the permission it works all the same, only less politely.
                let _ = rustix::process::nice(NICENESS);
            })
            .build();
        built.map(|runtime| Self(Some(runtime))).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("no threads for computing: {error}"))
        })
    }

    /// The runtime for work; none after the end.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting is not possible where this may be dropped: on another runtime.
            runtime.shutdown_background();
        }
    }
}
