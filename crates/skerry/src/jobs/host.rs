//! Keeps the broker open: a shard whose database failed is opened again, which finds out what happened.

use std::sync::Arc;
use std::time::Duration;

use skerry_api::{Error, ErrorKind, Result};
use skerry_jobs::broker::Broker;
use skerry_store::meter::Counters;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::open::Opener;
use crate::metrics::Metric;

/// Between two attempts to open the shards.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long the databases may take to close: what was answered is durable already.
pub(super) const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a start waits for the broker: volumes are served without it.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// The broker, or why there is none.
type Now = std::result::Result<Broker, String>;

/// The broker of a node, while the node runs.
pub(crate) struct JobsHost {
    now: watch::Receiver<Now>,
    calls: Arc<Counters>,
    stop: CancellationToken,
    ended: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl JobsHost {
    /// Opens the broker, now and whenever it is out of service; waits a while for the first time.
    pub(crate) async fn start(opener: Opener) -> Arc<Self> {
        let (tell, mut now) = watch::channel(Err("they are being opened; try again".to_owned()));
        let stop = CancellationToken::new();
        let calls = opener.calls();
        let task = tokio::spawn(keep_open(opener, tell, stop.clone()));
        let _ = tokio::time::timeout(START_TIME_MAX, now.changed()).await;
        now.mark_unchanged();
        Arc::new(Self { now, calls, stop, ended: tokio::sync::Mutex::new(Some(task)) })
    }

    /// The broker.
    pub(crate) fn broker(&self) -> Result<Broker> {
        self.now.borrow().clone().map_err(|reason| {
            let message = format!("this node's jobs can't be used now: {reason}");
            Error::new(ErrorKind::Unavailable, message)
        })
    }

    /// What the broker counts, while there is one, and what is asked of its store. Without labels that people choose: there may be any
    /// number of tenants and task groups.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut all = super::metrics::calls(&self.calls);
        if let Ok(broker) = &*self.now.borrow() {
            all.extend(super::metrics::of(broker));
        }
        all
    }

    /// Closes the broker; everything that was answered is durable.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        if let Some(task) = self.ended.lock().await.take() {
            let _ = task.await;
        }
    }
}

async fn keep_open(opener: Opener, tell: watch::Sender<Now>, stop: CancellationToken) {
    loop {
        let opened = tokio::select! {
            opened = opener.open() => opened,
            () = stop.cancelled() => return,
        };
        match opened {
            Ok(broker) => {
                tracing::info!("jobs can be used");
                say(&tell, Ok(broker.clone()));
                let why = tokio::select! {
                    why = broker.out_of_service() => why,
                    () = stop.cancelled() => return close(&tell, broker).await,
                };
                tracing::error!(%why, "jobs are out of service, and are opened again");
                say(&tell, Err(why.message().to_owned()));
                // It lets go what it holds, such as a log.
                let _ = tokio::time::timeout(CLOSE_TIME_MAX, broker.close()).await;
            }
            Err(error) => {
                tracing::error!(%error, "jobs can't be opened; trying again");
                say(&tell, Err(error.message().to_owned()));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn say(tell: &watch::Sender<Now>, now: Now) {
    tell.send_modify(|before| *before = now);
}

async fn close(tell: &watch::Sender<Now>, broker: Broker) {
    say(tell, Err("the node stops".to_owned()));
    match tokio::time::timeout(CLOSE_TIME_MAX, broker.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the jobs' database was not closed; the next start sees to it");
        }
        Err(_) => {
            tracing::warn!("the jobs' database does not end in time; the next start sees to it")
        }
    }
}
