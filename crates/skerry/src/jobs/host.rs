//! Keeps the shards open: one whose database failed is opened again, which finds out what happened. One that another node
//! has opened since is left to that node until somebody says otherwise: each would end the other's work for ever.

use std::sync::Arc;
use std::time::Duration;

use skerry_api::{Error, ErrorKind, Result};
use skerry_jobs::broker::{Broker, Standing};
use skerry_jobs::owner::{DatabaseId, Owner};
use skerry_jobs::shard::Shard;
use skerry_store::meter::Counters;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::open::{NotOpen, Opened, Opener};
use crate::metrics::Metric;

/// Between two attempts to open a shard.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long a database may take to close: what was answered is durable already.
pub(super) const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a start waits for the broker: volumes are served without it.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// The broker of a node, while the node runs.
pub(crate) struct JobsHost {
    broker: Broker,
    opener: Arc<Opener>,
    calls: Arc<Counters>,
    /// All shards are to be opened here, or elsewhere than they are.
    told: watch::Sender<u64>,
    stop: CancellationToken,
    ended: tokio::sync::Mutex<JoinSet<()>>,
}

impl JobsHost {
    /// Opens the shards, now and whenever one is out of service; waits a while for the first time.
    pub(crate) async fn start(opener: Opener) -> Arc<Self> {
        let broker = Broker::opening(opener.shards()).with_budget(opener.handed_out_bytes());
        let calls = opener.calls();
        let (told, stop) = (watch::Sender::default(), CancellationToken::new());
        let opener = Arc::new(opener);
        let (mut tasks, mut settled) = (JoinSet::new(), Vec::new());
        for number in 0..opener.shards() {
            let (tell, tried) = watch::channel(false);
            let keeper = Keeper {
                number,
                opener: opener.clone(),
                broker: broker.clone(),
                told: told.subscribe(),
                stop: stop.clone(),
                tried: tell,
            };
            tasks.spawn(keeper.keep_open());
            settled.push(tried);
        }
        let settled = futures::future::join_all(settled.iter_mut().map(|tried| tried.changed()));
        let _ = tokio::time::timeout(START_TIME_MAX, settled).await;
        Arc::new(Self { broker, opener, calls, told, stop, ended: tokio::sync::Mutex::new(tasks) })
    }

    /// The broker; its shards may be closed.
    pub(crate) fn broker(&self) -> Result<Broker> {
        Ok(self.broker.clone())
    }

    /// What the broker counts, and what is asked of its store. Without labels that people choose: there may be any number
    /// of tenants and task groups.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut all = super::metrics::calls(&self.calls);
        all.extend(super::metrics::of(&self.broker));
        all
    }

    /// Everybody's databases in the bucket, and which is opened here.
    pub(crate) async fn owners(&self) -> Result<(Vec<Owner>, Option<DatabaseId>)> {
        self.opener.owners().await
    }

    /// Takes over the jobs of the node that is named, or takes back this node's own; they are opened when it returns, if
    /// that does not take long.
    pub(crate) async fn take_over(&self, named: &str) -> Result<Option<Owner>> {
        let is_own = self.opener.is_own(named).await?;
        if !is_own {
            self.check_idle()?;
        }
        let taken = self.opener.take_over(named).await?;
        if !is_own {
            // What is open is the database of before.
            (0..self.opener.shards()).for_each(|number| self.broker.set(number, Standing::Opening));
        }
        self.told.send_modify(|count| *count += 1);
        let mut changes = self.broker.changes();
        let open = async {
            while !self.are_open() {
                // The broker is there as long as this.
                let _ = changes.changed().await;
            }
        };
        let _ = tokio::time::timeout(START_TIME_MAX, open).await;
        Ok(taken)
    }

    fn are_open(&self) -> bool {
        self.broker.standings().iter().all(|now| matches!(now, Standing::Open(_)))
    }

    /// What this node has of its own is given up with a take-over: it must be nothing.
    fn check_idle(&self) -> Result<()> {
        let is_known = |now: &Standing| matches!(now, Standing::Open(_) | Standing::Elsewhere(_));
        if !self.broker.standings().iter().all(is_known) {
            let message = "this node's own jobs can't be looked at now; try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        match self.broker.counts().active {
            0 => Ok(()),
            count => {
                let message = format!(
                    "this node has {count} jobs of its own that have not come to their end (`skerry jobs list`): take over \
                     on a node that has none, such as a second one with a data directory of its own"
                );
                Err(Error::new(ErrorKind::InUse, message))
            }
        }
    }

    /// Closes the broker; everything that was answered is durable.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut tasks = self.ended.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

/// What keeps one shard open.
struct Keeper {
    number: u32,
    opener: Arc<Opener>,
    broker: Broker,
    told: watch::Receiver<u64>,
    stop: CancellationToken,
    /// It was tried once.
    tried: watch::Sender<bool>,
}

impl Keeper {
    async fn keep_open(mut self) {
        let (shard, mut has_reclaimed) = (self.number, false);
        loop {
            // What is said from here on is heard.
            self.told.mark_unchanged();
            let opened = tokio::select! {
                opened = self.opener.open(shard) => opened,
                () = self.stop.cancelled() => return,
            };
            let why = match opened {
                Ok(Opened { shard: open, path }) => {
                    tracing::info!(shard, path, "jobs can be used");
                    self.stands(Standing::Open(open.clone()));
                    let why = tokio::select! {
                        why = open.out_of_service() => why,
                        () = moves_from(&self.opener, shard, &path, &mut self.told) => {
                            self.stands(Standing::Opening);
                            let _ = tokio::time::timeout(CLOSE_TIME_MAX, open.close()).await;
                            continue;
                        }
                        () = self.stop.cancelled() => return self.close(open).await,
                    };
                    self.stands(Standing::Failed(why.message().to_owned()));
                    // It lets go what it holds, such as a log.
                    let _ = tokio::time::timeout(CLOSE_TIME_MAX, open.close()).await;
                    NotOpen::from(why)
                }
                Err(why) => why,
            };
            let why = self.judge(why, &mut has_reclaimed).await;
            self.stands(standing(&why));
            if !may_try_again(shard, &why, &mut self.told, &self.stop).await {
                return;
            }
        }
    }

    /// A node that was relieved may have opened a shard just before it looked at the record, and closed it again: who is
    /// the owner by the record takes it back, once, so that two which both believe to be it do not go on for ever.
    async fn judge(&self, why: NotOpen, has_reclaimed: &mut bool) -> NotOpen {
        let may_reclaim = why.is_fenced && !*has_reclaimed && self.opener.is_owner().await;
        *has_reclaimed |= may_reclaim;
        NotOpen { is_fenced: why.is_fenced && !may_reclaim, ..why }
    }

    fn stands(&self, now: Standing) {
        self.broker.set(self.number, now);
        self.tried.send_replace(true);
    }

    async fn close(&self, open: Shard) {
        self.stands(Standing::Failed("the node stops".to_owned()));
        match tokio::time::timeout(CLOSE_TIME_MAX, open.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the jobs' database was not closed; the next start sees to it");
            }
            Err(_) => {
                tracing::warn!("the jobs' database does not end in time; the next start sees to it")
            }
        }
    }
}

/// Waits until this node has another database.
async fn moves_from(opener: &Opener, shard: u32, path: &str, told: &mut watch::Receiver<u64>) {
    while opener.is_at(shard, path) {
        hears(told).await;
    }
}

/// Waits until something is said.
async fn hears(told: &mut watch::Receiver<u64>) {
    if told.changed().await.is_err() {
        // There is nobody any more who could say something.
        std::future::pending().await
    }
}

/// When a shard is opened again by itself, if it is.
fn retry_after(why: &NotOpen) -> Option<Duration> {
    (!why.is_fenced).then_some(RETRY_INTERVAL)
}

/// Waits until a shard is to be opened again; false if the node stops.
async fn may_try_again(
    shard: u32,
    why: &NotOpen,
    told: &mut watch::Receiver<u64>,
    stop: &CancellationToken,
) -> bool {
    let (error, retry) = (&why.error, retry_after(why));
    match retry {
        Some(_) => tracing::error!(shard, %error, "jobs are out of service, and are opened again"),
        None => {
            tracing::error!(shard, %error, "jobs stay closed here until `skerry jobs take-over`")
        }
    }
    let again = async {
        match retry {
            Some(interval) => tokio::time::sleep(interval).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = again => true,
        () = hears(told) => true,
        () = stop.cancelled() => false,
    }
}

fn standing(why: &NotOpen) -> Standing {
    let reason = why.error.message();
    if why.is_fenced {
        let advice = "they stay closed on this one until `skerry jobs take-over` is called here";
        return Standing::Elsewhere(format!("{reason}: {advice}"));
    }
    Standing::Failed(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, poll};

    /// Two nodes on one database would end each other's work for ever.
    #[tokio::test]
    async fn who_was_fenced_stays_closed_until_told() {
        let (tell, stop) = (watch::Sender::new(0), CancellationToken::new());
        let mut told = tell.subscribe();
        let why = |is_fenced| {
            let error = Error::new(ErrorKind::Unavailable, "why");
            NotOpen { error, is_fenced }
        };
        assert_eq!(retry_after(&why(false)), Some(RETRY_INTERVAL), "what failed is tried again");
        assert_eq!(retry_after(&why(true)), None, "it is another's");
        let fenced = why(true);
        let mut waiting = may_try_again(0, &fenced, &mut told, &stop).boxed();
        assert!(poll!(&mut waiting).is_pending());
        tell.send_replace(1);
        assert!(waiting.await, "somebody says so");
        stop.cancel();
        assert!(!may_try_again(0, &fenced, &mut told, &stop).await);
    }
}
