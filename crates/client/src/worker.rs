//! A worker: takes jobs of a task group, does several at once, and reports their outcomes.

use crate::session::Session;
use crate::task::{Failure, Task};
use bytes::Bytes;
use skerry_api::{Address, Error, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The pauses between two attempts to connect: the first, and the longest.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// The function that does the work.
pub(crate) type Handler =
    dyn Fn(Task) -> futures::future::BoxFuture<'static, Result<Bytes, Failure>> + Send + Sync;

/// News of a worker's node.
#[derive(Debug)]
pub enum Contact<'a> {
    /// The node answers.
    Made,
    /// The node is away; the worker asks again.
    Lost(&'a Error),
}

type Watch = dyn Fn(Contact<'_>) + Send + Sync;

/// A worker of a task group.
#[derive(Clone)]
#[must_use]
pub struct Worker {
    address: Address,
    group: String,
    name: String,
    concurrency: u32,
    watch: Arc<Watch>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, group, name, concurrency, .. } = self;
        let mut worker = f.debug_struct("Worker");
        worker.field("address", address).field("group", group).field("name", name);
        worker.field("concurrency", concurrency).finish_non_exhaustive()
    }
}

impl Worker {
    /// Makes a worker of the node at `address`. It does one job at a time by default.
    pub fn new(address: Address, group: impl Into<String>) -> Self {
        let name = format!("pid-{}", std::process::id());
        Self { address, group: group.into(), name, concurrency: 1, watch: Arc::new(|_| {}) }
    }

    /// Sets the name that people see.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Sets the number of jobs at once.
    pub fn concurrency(self, concurrency: u32) -> Self {
        Self { concurrency: concurrency.max(1), ..self }
    }

    /// Tells `watch` each time that the node answers a new connection, and each time that it does
    /// not. `watch` must not block.
    pub fn watch(self, watch: impl Fn(Contact<'_>) + Send + Sync + 'static) -> Self {
        Self { watch: Arc::new(watch), ..self }
    }

    /// Works until `stop`. Then it takes no more jobs, gives back the jobs that have not begun,
    /// finishes the running ones, and reports. It asks an absent node again and again, after `stop`
    /// for half a minute. It repeats reports that the node has not answered.
    ///
    /// # Errors
    /// `Invalid`, for what the node will never accept: a bad name or task group. `Unavailable` if
    /// the node has not heard how the last jobs ended: other workers get them.
    pub async fn run<H, F>(self, stop: CancellationToken, handler: H) -> Result<()>
    where
        H: Fn(Task) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Bytes, Failure>> + Send + 'static,
    {
        let handler: Arc<Handler> = Arc::new(move |task| Box::pin(handler(task)));
        let mut session = Session::new(self.group, self.name, self.concurrency, handler);
        let mut pause = RECONNECT_FIRST;
        loop {
            let met = || (self.watch)(Contact::Made);
            match session.talk(&self.address, met, &stop).await {
                Ok(()) if session.is_idle() => return Ok(()),
                // Gives back the jobs that came last.
                Ok(()) => {}
                Err(error) if error.kind() == skerry_api::ErrorKind::Invalid => return Err(error),
                Err(error) => {
                    tracing::info!(%error, "the node is away; asking again");
                    (self.watch)(Contact::Lost(&error));
                }
            }
            if stop.is_cancelled() && session.is_idle() {
                return Ok(());
            }
            let last_words_end = session.last_words_end(stop.is_cancelled());
            if last_words_end.is_some_and(|end| end <= Instant::now()) {
                return Err(session.gave_up());
            }
            if session.has_heard() {
                pause = RECONNECT_FIRST;
            }
            session.work_on(pause, &stop).await;
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }
}
