//! Keeps the shards open. A shard whose database failed is opened again, which finds out what
//! happened. If another node has opened it since, it stays closed here until an operator decides
//! otherwise: each node would end the other's work for ever.

use std::sync::Arc;
use std::time::Duration;

use skerry_api::{Error, ErrorKind, Result};
use skerry_core::env::Clock as _;
use skerry_jobs::broker::{Broker, Standing};
use skerry_jobs::chain::Chain;
use skerry_jobs::owner::DatabaseId;
use skerry_jobs::shard::Shard;
use skerry_store::objects::meter::Counters;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::not_open::NotOpen;
use super::opener::{CLOSE_TIME_MAX, Opened, Opener};
use crate::env::SystemClock;
use crate::metric::Metric;

/// Interval between two attempts to open a shard.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Longest interval between two attempts; a shard that was open for as long counts as sound.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Longest time that a start waits for the broker: volumes are served without it.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// The broker of a node, while the node runs.
pub(crate) struct JobsHost {
    broker: Broker,
    opener: Arc<Opener>,
    calls: Arc<Counters>,
    told: watch::Sender<Order>,
    found: Vec<watch::Receiver<Found>>,
    /// Held during a take-over.
    taking: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    ended: tokio::sync::Mutex<JoinSet<()>>,
}

/// An order to the keepers of all shards: find their databases anew.
#[derive(Debug, Clone, Copy, Default)]
struct Order {
    /// Grows with each order.
    turn: u64,
    /// True while no shard may serve. So the database that a take-over gives up stays as empty as
    /// it was found.
    is_held: bool,
}

/// Findings of a shard's keeper.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// True once the shard was tried.
    is_tried: bool,
    /// Number of jobs in its database while none can come, with the order's turn; nothing if it
    /// does not open.
    counted: Option<(u64, Option<usize>)>,
}

impl JobsHost {
    /// Opens the shards, now and whenever one is out of service; waits a while for the first time.
    pub(crate) async fn start(opener: Opener) -> Arc<Self> {
        let broker = Broker::opening(opener.shards()).with_budget(opener.handed_out_bytes());
        let calls = opener.calls();
        let (told, stop) = (watch::Sender::default(), CancellationToken::new());
        let opener = Arc::new(opener);
        let (mut tasks, mut found) = (JoinSet::new(), Vec::new());
        for number in 0..opener.shards() {
            let (tell, finds) = watch::channel(Found::default());
            let keeper = Keeper {
                number,
                opener: opener.clone(),
                broker: broker.clone(),
                told: told.subscribe(),
                stop: stop.clone(),
                found: tell,
            };
            tasks.spawn(keeper.keep_open());
            found.push(finds);
        }
        let mut all = found.clone();
        let settled = all.iter_mut().map(|found| found.wait_for(|found| found.is_tried));
        let _ = tokio::time::timeout(START_TIME_MAX, futures::future::join_all(settled)).await;
        let (taking, ended) = (tokio::sync::Mutex::default(), tokio::sync::Mutex::new(tasks));
        Arc::new(Self { broker, opener, calls, told, found, taking, stop, ended })
    }

    /// The broker; its shards may be closed.
    pub(crate) fn broker(&self) -> Result<Broker> {
        Ok(self.broker.clone())
    }

    /// Metrics of the broker and of its calls to the store. No labels that people choose: there may
    /// be any number of tenants and task groups.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut all = super::metrics::calls(&self.calls);
        all.extend(super::metrics::of(&self.broker));
        all
    }

    /// The chains of all databases in the bucket, and the database that is opened here.
    pub(crate) async fn owners(&self) -> Result<(Vec<Chain>, Option<DatabaseId>)> {
        self.opener.owners().await
    }

    /// Takes over the jobs of the named node, or takes back this node's own. Waits for them to
    /// open, but not for long.
    pub(crate) async fn take_over(&self, named: &str) -> Result<()> {
        let _one = self.taking.lock().await;
        let plan = self.opener.plan(named).await?;
        let taken = match plan.and_then(|plan| plan.gives_up) {
            None => self.opener.take_over(named, None).await,
            Some(own) => {
                // Workers are not sent away in vain.
                check_idle(self.broker.counts().active)?;
                let _held = self.hold();
                check_idle(self.count_held().await?)?;
                self.opener.take_over(named, Some(own)).await
            }
        };
        self.tell(false);
        taken?;
        let mut changes = self.broker.changes();
        let open = async {
            while !self.are_open() {
                // The broker exists as long as this does.
                let _ = changes.changed().await;
            }
        };
        let _ = tokio::time::timeout(START_TIME_MAX, open).await;
        Ok(())
    }

    fn tell(&self, is_held: bool) {
        self.told.send_modify(|told| *told = Order { turn: told.turn + 1, is_held });
    }

    /// Takes all shards out of service until the result is dropped.
    fn hold(&self) -> impl Drop + '_ {
        (0..self.opener.shards()).for_each(|number| self.broker.set(number, Standing::Opening));
        self.tell(true);
        Held(self)
    }

    /// Counts the jobs in this node's databases, while no shard is in service. Each shard was
    /// closed and is read anew, so the count has all that was acknowledged.
    async fn count_held(&self) -> Result<usize> {
        let turn = self.told.borrow().turn;
        let unknown = || {
            let message = "this node's own jobs can't be looked at now; try again";
            Error::new(ErrorKind::Unavailable, message)
        };
        let count = async {
            let mut sum = 0;
            for found in &self.found {
                let mut found = found.clone();
                let of_now = |found: &Found| found.counted.is_some_and(|(of, _)| of == turn);
                let found = found.wait_for(of_now).await.map_err(|_| unknown())?;
                sum += found.counted.and_then(|(_, active)| active).ok_or_else(unknown)?;
            }
            Ok(sum)
        };
        tokio::time::timeout(START_TIME_MAX, count).await.unwrap_or_else(|_| Err(unknown()))
    }

    fn are_open(&self) -> bool {
        self.broker.standings().iter().all(|now| matches!(now, Standing::Open(_)))
    }

    /// Closes the broker; everything that was answered is durable.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut tasks = self.ended.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

/// While it lives, no shard is in service.
struct Held<'a>(&'a JobsHost);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.tell(false);
    }
}

/// Refuses a take-over while the database that it would give up has jobs.
fn check_idle(active: usize) -> Result<()> {
    if active == 0 {
        return Ok(());
    }
    let message = format!(
        "this node has {active} jobs of its own that have not ended (`skerry jobs list`): take \
         over on a node that has none, such as a second one with a data directory of its own"
    );
    Err(Error::new(ErrorKind::InUse, message))
}

/// History of a shard since it was sound.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    /// True if its owner took it back from a node that had opened it.
    has_reclaimed: bool,
    /// Number of failures soon after an opening.
    flaps: u32,
}

impl Past {
    /// Notes for how long the shard was open. After a while it counts as sound, and its history is
    /// over.
    fn note_open_for(&mut self, was_open: Duration) {
        *self = match was_open < RETRY_INTERVAL_MAX {
            true => Self { flaps: self.flaps + 1, ..*self },
            false => Self::default(),
        };
    }
}

/// Keeps one shard open.
struct Keeper {
    number: u32,
    opener: Arc<Opener>,
    broker: Broker,
    told: watch::Receiver<Order>,
    stop: CancellationToken,
    found: watch::Sender<Found>,
}

impl Keeper {
    async fn keep_open(mut self) {
        let (shard, mut past) = (self.number, Past::default());
        loop {
            // Orders from here on are noticed.
            let told = *self.told.borrow_and_update();
            let opened = tokio::select! {
                opened = self.opener.open(shard) => opened,
                () = self.stop.cancelled() => return,
            };
            let why = match opened {
                Ok(Opened { shard: open, path }) => {
                    if !self.waits_held(&open).await {
                        return self.close(open).await;
                    }
                    if !self.opener.is_at(shard, &path) {
                        let _ = tokio::time::timeout(CLOSE_TIME_MAX, open.close()).await;
                        continue;
                    }
                    tracing::info!(shard, path, "jobs can be used");
                    self.stands(Standing::Open(open.clone()));
                    let since = SystemClock.boot();
                    let why = tokio::select! {
                        why = open.out_of_service() => why,
                        () = moves_from(&self.opener, shard, &path, &mut self.told) => {
                            self.stands(Standing::Opening);
                            let _ = tokio::time::timeout(CLOSE_TIME_MAX, open.close()).await;
                            continue;
                        }
                        () = self.stop.cancelled() => return self.close(open).await,
                    };
                    past.note_open_for(SystemClock.boot().saturating_sub(since));
                    self.stands(Standing::Failed(why.message().to_owned()));
                    // Closing lets go of resources such as a log.
                    let _ = tokio::time::timeout(CLOSE_TIME_MAX, open.close()).await;
                    NotOpen::from(why)
                }
                Err(why) => {
                    self.counted(told, None);
                    why
                }
            };
            let why = self.judge(why, &mut past).await;
            self.stands(standing(&why));
            let retry = retry_after(&why, past.flaps);
            if !may_try_again(shard, &why, retry, &mut self.told, &self.stop).await {
                return;
            }
        }
    }

    /// Waits while no shard may serve, and counts the jobs of this one; false if the node stops.
    async fn waits_held(&mut self, open: &Shard) -> bool {
        loop {
            let told = *self.told.borrow_and_update();
            if !told.is_held {
                return true;
            }
            self.counted(told, Some(open.counts().active));
            tokio::select! {
                () = hears(&mut self.told) => {}
                () = self.stop.cancelled() => return false,
            }
        }
    }

    fn counted(&self, told: Order, active: Option<usize>) {
        if told.is_held {
            self.found.send_modify(|found| found.counted = Some((told.turn, active)));
        }
    }

    /// Decides whether a fenced shard may be opened again. A relieved node may have opened it just
    /// before it read the record, and closed it again. The owner by the record takes it back, once
    /// for each time that it was sound. Otherwise two nodes that both believe to be the owner would
    /// go on for ever. A node from which a database was taken back has nothing elsewhere, and
    /// begins anew.
    async fn judge(&self, why: NotOpen, past: &mut Past) -> NotOpen {
        let may_reclaim = why.is_fenced && !past.has_reclaimed && self.opener.is_owner().await;
        past.has_reclaimed |= may_reclaim;
        let begins_anew = why.is_fenced && !may_reclaim && self.opener.begins_anew().await;
        NotOpen { is_fenced: why.is_fenced && !may_reclaim && !begins_anew, ..why }
    }

    fn stands(&self, now: Standing) {
        self.broker.set(self.number, now);
        self.found.send_modify(|found| found.is_tried = true);
    }

    async fn close(&self, open: Shard) {
        self.stands(Standing::Failed("the node stops".to_owned()));
        match tokio::time::timeout(CLOSE_TIME_MAX, open.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    %error,
                    "the jobs' database was not closed; the next start mends it"
                );
            }
            Err(_) => {
                tracing::warn!("the jobs' database did not close in time; the next start mends it")
            }
        }
    }
}

/// Waits until this node has another database, or no shard may serve.
async fn moves_from(opener: &Opener, shard: u32, path: &str, told: &mut watch::Receiver<Order>) {
    while opener.is_at(shard, path) && !told.borrow().is_held {
        hears(told).await;
    }
}

/// Waits for an order.
async fn hears(told: &mut watch::Receiver<Order>) {
    if told.changed().await.is_err() {
        // No further order can come.
        std::future::pending().await
    }
}

/// Interval after which a shard is opened again by itself, if it is. Each time that a shard opens
/// or closes, all workers must connect again. So a shard that failed `flaps` times soon after it
/// opened is opened less and less often.
fn retry_after(why: &NotOpen, flaps: u32) -> Option<Duration> {
    let interval = RETRY_INTERVAL
        .saturating_mul(1_u32.checked_shl(flaps.saturating_sub(1)).unwrap_or(u32::MAX));
    (!why.is_fenced).then_some(interval.min(RETRY_INTERVAL_MAX))
}

/// Waits until a shard is to be opened again; false if the node stops.
async fn may_try_again(
    shard: u32,
    why: &NotOpen,
    retry: Option<Duration>,
    told: &mut watch::Receiver<Order>,
    stop: &CancellationToken,
) -> bool {
    let error = &why.error;
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
pub(crate) mod tests {
    use super::*;
    use futures::{FutureExt as _, poll};

    /// Parts of the node of this number on a bucket in a directory, with its shards open.
    pub(crate) async fn open(
        bucket: &std::path::Path,
        number: u8,
    ) -> (tempfile::TempDir, Arc<JobsHost>) {
        let (dir, opener) = node(bucket, number);
        let host = JobsHost::start(opener).await;
        assert!(host.are_open());
        (dir, host)
    }

    /// Once, an owner that had taken its shard back stayed closed when it lost the shard again,
    /// months later.
    #[test]
    fn a_shard_that_was_sound_for_a_while_has_no_past() {
        let mut past = Past { has_reclaimed: true, flaps: 3 };
        past.note_open_for(RETRY_INTERVAL);
        assert_eq!((past.has_reclaimed, past.flaps), (true, 4));
        past.note_open_for(RETRY_INTERVAL_MAX);
        assert_eq!((past.has_reclaimed, past.flaps), (false, 0));
    }

    /// Two nodes on one database would end each other's work for ever.
    #[tokio::test]
    async fn who_was_fenced_stays_closed_until_told() {
        let (tell, stop) = (watch::Sender::new(Order::default()), CancellationToken::new());
        let mut told = tell.subscribe();
        let why = |is_fenced| {
            let error = Error::new(ErrorKind::Unavailable, "why");
            NotOpen { error, is_fenced }
        };
        assert_eq!(retry_after(&why(false), 0), Some(RETRY_INTERVAL), "what failed is tried again");
        assert_eq!(retry_after(&why(true), 0), None, "it is another's");
        let fenced = why(true);
        let mut waiting = may_try_again(0, &fenced, None, &mut told, &stop).boxed();
        assert!(poll!(&mut waiting).is_pending());
        tell.send_replace(Order { turn: 1, is_held: false });
        assert!(waiting.await, "somebody says so");
        stop.cancel();
        assert!(!may_try_again(0, &fenced, None, &mut told, &stop).await);
    }

    #[test]
    fn a_shard_that_flaps_is_opened_less_and_less_often() {
        let why = NotOpen { error: Error::new(ErrorKind::Unavailable, "why"), is_fenced: false };
        let seconds = [0, 1, 2, 3, 5, 6, 99].map(|flaps| retry_after(&why, flaps));
        let seconds = seconds.map(|after| after.map_or(0, |after| after.as_secs()));
        assert_eq!(seconds, [2, 2, 4, 8, 32, 60, 60]);
    }

    fn node(bucket: &std::path::Path, number: u8) -> (tempfile::TempDir, Opener) {
        let mut settings = crate::settings::Settings::default();
        settings.bucket.url = Some(format!("file://{}", bucket.display()));
        opener(&settings, number)
    }

    fn opener(settings: &crate::settings::Settings, number: u8) -> (tempfile::TempDir, Opener) {
        let dir = tempfile::tempdir().expect("a directory");
        let node = skerry_core::id::NodeId([number; 16]);
        let me = crate::home::identity::Identity { node, host: format!("host-{number}") };
        let layout = crate::home::layout::Layout::new(dir.path()).expect("a layout");
        let opener = Opener::new(settings, &layout, &me).expect("an opener");
        (dir, opener)
    }

    async fn enqueue(host: &JobsHost, id: &str) -> skerry_jobs::Result<()> {
        let tenant = skerry_jobs::name::Tenant::default();
        let id = Some(skerry_jobs::name::JobId::new(id)?);
        let spec = skerry_jobs::spec::JobSpec { id, ..Default::default() };
        host.broker.shard_of(&tenant)?.enqueue(spec).await.map(|_| ())
    }

    /// The database that a take-over gives up has no jobs, also if one comes meanwhile.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_acknowledged_while_a_database_is_given_up() {
        let bucket = tempfile::tempdir().expect("a directory");
        let (_dir, opener) = node(bucket.path(), 1);
        let host = JobsHost::start(opener).await;
        assert!(host.are_open());
        let held = host.hold();
        assert!(enqueue(&host, "late").await.is_err(), "it would be lost");
        assert_eq!(host.count_held().await.expect("counted"), 0);
        drop(held);
        host.stop().await;
    }

    /// Once, two nodes on one database ended each other's work for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_nodes_on_one_database_the_fenced_one_stays_closed_until_told() {
        let place = tempfile::tempdir().expect("a directory");
        let (_first, one) = beside(place.path(), 1);
        let one = JobsHost::start(one).await;
        assert!(one.are_open());
        let (_second, two) = beside(place.path(), 2);
        let two = JobsHost::start(two).await;
        assert!(two.are_open());
        // The first node finds out with its next write.
        assert!(enqueue(&one, "late").await.is_err());
        stands_elsewhere(&one).await;
        // It opens nothing by itself, whatever else happens; and the other node works on.
        let mut changes = one.broker.changes();
        let reopened = tokio::time::timeout(RETRY_INTERVAL * 2, changes.changed()).await;
        assert!(reopened.is_err(), "it opens the database again");
        assert!(two.are_open());
        enqueue(&two, "mine").await.expect("it is not fenced");
        one.take_over("").await.expect("it is told");
        assert!(one.are_open());
        enqueue(&one, "again").await.expect("it has the database");
        assert!(enqueue(&two, "late").await.is_err());
        stands_elsewhere(&two).await;
        one.stop().await;
        two.stop().await;
    }

    /// Waits until a node has found out that another node has its database.
    async fn stands_elsewhere(host: &JobsHost) {
        while !matches!(host.broker.standings()[..], [Standing::Elsewhere(_)]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Parts of a node whose settings name a place for its jobs.
    fn beside(database: &std::path::Path, number: u8) -> (tempfile::TempDir, Opener) {
        let database = format!("backend = 'fs'\npath = '{}'", database.join("db").display());
        let database = Some(toml::from_str(&database).expect("TOML"));
        let settings = crate::settings::Settings { database, ..Default::default() };
        opener(&settings, number)
    }
}
