//! Threads for heavy computing that can wait: destage, and the merging of the jobs' files, must not delay who talks to a
//! client.

use skerry_api::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// What the threads give way by: a tenth of the weight of one that serves clients.
const NICENESS: i32 = 10;
/// Threads at once; each holds a batch's memory.
const THREADS_MAX: usize = 4;

/// The threads. What they do when this is dropped is finished by them alone.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// Starts them; most only when there is work.
    pub(crate) fn start() -> Result<Self> {
        let built = Builder::new_multi_thread()
            // Of the engine, nothing runs there but calls that block.
            .worker_threads(1)
            .enable_all()
            .max_blocking_threads(THREADS_MAX)
            .thread_name("background")
            .on_thread_start(|| {
                // Without the permission to give way it works all the same, only less politely.
                let _ = rustix::process::nice(NICENESS);
            })
            .build();
        built.map(|runtime| Self(Some(runtime))).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("no threads for computing: {error}"))
        })
    }

    /// Where to send work; none after the end.
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
