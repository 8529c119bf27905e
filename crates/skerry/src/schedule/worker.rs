//! The node's own worker: a client of the node's API like any other, in the node's process.
//!
//! Must hold: it has ended before the API stops, since the API brings its jobs; and nothing of it
//! outlives the engine.

use std::sync::Arc;
use std::time::Duration;

use skerry_client::{Address, Worker};
use skerry_core::env::Clock as _;
use skerry_volume::Engine;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::handler::Handler;
use super::{GROUP, Schedules};
use crate::env::SystemClock;

/// Its name for people.
const NAME: &str = "skerry";
/// Snapshots at once: most schedules are due on the hour, and each snapshot waits for a sync.
const CONCURRENCY: u32 = 8;

/// Interval of tries to look at the schedules: opening the jobs may take a while.
const HASTEN_RETRY: Duration = Duration::from_secs(5);

/// Looks once, at the start, for schedules that wait too long because a clock was ahead.
async fn hasten(address: Address) {
    loop {
        let looked =
            async { Schedules::connect(&address).await?.hasten(SystemClock.wall_ms()).await };
        match looked.await {
            Ok(0) => return,
            Ok(schedules) => {
                tracing::warn!(
                    schedules,
                    "the clock was ahead: schedules of snapshots go on by the right one"
                );
                return;
            }
            Err(error) => tracing::debug!(%error, "the schedules can't be looked at now"),
        }
        tokio::time::sleep(HASTEN_RETRY).await;
    }
}

/// The worker, while the node serves. Dropping it ends the worker.
pub(crate) struct SnapshotWorker {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
    _hasten: AbortOnDropHandle<()>,
}

impl SnapshotWorker {
    /// Starts it on a node that accepts connections at `address`.
    pub(crate) fn start(address: Address, engine: Arc<Engine>) -> Self {
        let stop = CancellationToken::new();
        let hasten = AbortOnDropHandle::new(tokio::spawn(hasten(address.clone())));
        let worker = Worker::new(address.clone(), GROUP).name(NAME).concurrency(CONCURRENCY);
        let handler = Arc::new(Handler { engine, clock: Arc::new(SystemClock), address });
        let working = worker.run(stop.clone(), move |task| {
            let handler = handler.clone();
            async move { handler.handle(task).await }
        });
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = working.await {
                tracing::error!(%error, "scheduled snapshots have stopped");
            }
        }));
        Self { stop, task, _hasten: hasten }
    }

    /// Lets it finish its jobs, for this time at most.
    pub(crate) async fn stop(self, time_max: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(time_max, self.task).await.is_err() {
            tracing::warn!("scheduled snapshots that were being taken are cut off");
        }
    }
}
