//! Finds the node's jobs database in the bucket, makes one, and takes another node's over: carries
//! out what `skerry_jobs::chain` decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStore;
use parking_lot::Mutex;
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::env::Clock as _;
use skerry_core::id::NodeId;
use skerry_jobs::chain::{self, Chain, Has, Plan, Taker};
use skerry_jobs::owner::{self, DatabaseId, Owner};
use skerry_store::objects::bucket::{Bucket, Created, Env};
use tokio::sync::OnceCell;

use super::not_open::NotOpen;
use crate::api_error::{of_engine, of_jobs};
use crate::env::{SystemClock, SystemEntropy};
use crate::home::identity::Identity;
use crate::values::time;

/// Records that are read at once.
const READS_MAX: usize = 16;

/// The owners of the databases in a bucket, as one node sees them.
pub(super) struct Owners {
    me: Identity,
    shards: u16,
    bucket: OnceCell<Bucket>,
    /// The database that this node opens.
    current: Mutex<Option<DatabaseId>>,
    /// Held by the task that looks for the database or takes another over.
    busy: tokio::sync::Mutex<()>,
}

impl Owners {
    pub(super) fn new(me: Identity, shards: u16) -> Self {
        let (bucket, current) = (OnceCell::new(), Mutex::new(None));
        Self { me, shards, bucket, current, busy: tokio::sync::Mutex::new(()) }
    }

    async fn bucket(&self, store: &Arc<dyn ObjectStore>) -> Result<&Bucket> {
        let open = async {
            let env = Env { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) };
            Bucket::open(store.clone(), env, true).await.map_err(of_engine)
        };
        self.bucket.get_or_try_init(|| open).await
    }

    /// The database that this node opens, if that is known.
    pub(super) fn current(&self) -> Option<DatabaseId> {
        *self.current.lock()
    }

    /// Finds the node's own database; makes one if it has none.
    pub(super) async fn find(
        &self,
        store: &Arc<dyn ObjectStore>,
    ) -> std::result::Result<DatabaseId, NotOpen> {
        let bucket = self.bucket(store).await?;
        let _busy = self.busy.lock().await;
        if let Some(current) = self.current() {
            self.check_in(bucket, current).await?;
            return Ok(current);
        }
        let chains = read_all(bucket).await?;
        let database = match chain::has(self.me.node, &chains) {
            Has::Its(owner) => self.check_shards(&chains, owner.database)?,
            Has::Several(_) => return Err(chain::several(self.me.node).into()),
            Has::WasRelieved(by) => return Err(relieved(&by)),
            Has::Unclear(unread) => return Err(unread.error().into()),
            Has::Nothing(others) => {
                refuse_older(bucket, self.me.node).await?;
                self.make(bucket, &others).await?
            }
        };
        *self.current.lock() = Some(database);
        Ok(database)
    }

    /// True if this node has nothing, and nothing of its own is elsewhere. Then it gave its own up
    /// for a database that its owner took back.
    pub(super) async fn begins_anew(&self, store: &Arc<dyn ObjectStore>) -> Result<bool> {
        let bucket = self.bucket(store).await?;
        let _busy = self.busy.lock().await;
        let begins = matches!(chain::has(self.me.node, &read_all(bucket).await?), Has::Nothing(_));
        if begins {
            *self.current.lock() = None;
        }
        Ok(begins)
    }

    fn check_shards(&self, chains: &[Chain], database: DatabaseId) -> Result<DatabaseId> {
        let chain = chains.iter().find(|chain| chain.database == database);
        let checked = chain.map_or(Ok(()), |chain| chain.check_shards(self.shards));
        checked.map(|()| database).map_err(of_jobs)
    }

    async fn make(&self, bucket: &Bucket, others: &[Owner]) -> Result<DatabaseId> {
        let database = DatabaseId(NodeId::random(&SystemEntropy));
        let (node, before, host) = (self.me.node, NodeId::NONE, self.me.host.clone());
        let (shards, taken_ms) = (self.shards, SystemClock.wall_ms());
        write(bucket, &Owner { database, number: 1, node, before, taken_ms, shards, host }).await?;
        if !others.is_empty() {
            let hosts: Vec<&str> = others.iter().map(|owner| owner.host.as_str()).collect();
            tracing::warn!(
                hosts = hosts.join(", "),
                "this node begins without jobs, and other nodes have some in this bucket: `skerry \
                 jobs nodes` shows them; `skerry jobs take-over` opens a lost node's here, \
                 schedules included"
            );
        }
        Ok(database)
    }

    /// Fails if a database is not this node's, or no longer.
    pub(super) async fn check(
        &self,
        store: &Arc<dyn ObjectStore>,
        database: DatabaseId,
    ) -> std::result::Result<(), NotOpen> {
        let bucket = self.bucket(store).await?;
        self.check_in(bucket, database).await
    }

    async fn check_in(
        &self,
        bucket: &Bucket,
        database: DatabaseId,
    ) -> std::result::Result<(), NotOpen> {
        match newest_of(bucket, database).await? {
            Some(owner) if owner.node == self.me.node => Ok(()),
            Some(owner) if owner.node.is_none() => {
                // It was given up here: the node looks for its database anew.
                let mut current = self.current.lock();
                *current = current.filter(|current| *current != database);
                let message = "this node gave this jobs database up; another is looked for";
                Err(Error::new(ErrorKind::Unavailable, message).into())
            }
            Some(owner) => Err(relieved(&owner)),
            None => {
                let message = format!("the owner records of jobs database {database} are gone");
                Err(Error::new(ErrorKind::Corrupt, message).into())
            }
        }
    }

    /// The chains of all databases.
    pub(super) async fn all(&self, store: &Arc<dyn ObjectStore>) -> Result<Vec<Chain>> {
        read_all(self.bucket(store).await?).await
    }

    fn plan_by(&self, chains: &[Chain], named: &str) -> Result<Plan> {
        let taker = Taker {
            node: self.me.node,
            host: self.me.host.clone(),
            shards: self.shards,
            now_ms: SystemClock.wall_ms(),
            current: self.current(),
        };
        chain::plan(&taker, chains, named).map_err(of_jobs)
    }

    /// Plans the take-over of the named database.
    pub(super) async fn plan(&self, store: &Arc<dyn ObjectStore>, named: &str) -> Result<Plan> {
        self.plan_by(&self.all(store).await?, named)
    }

    /// Takes over the named database. The database that this node gives up for it must be the one
    /// that the caller has found idle.
    pub(super) async fn take_over(
        &self,
        store: &Arc<dyn ObjectStore>,
        named: &str,
        idle: Option<DatabaseId>,
    ) -> Result<()> {
        let bucket = self.bucket(store).await?;
        let _busy = self.busy.lock().await;
        let plan = self.plan_by(&read_all(bucket).await?, named)?;
        if plan.gives_up.is_some() && plan.gives_up != idle {
            let message = "this node's own jobs can't be looked at now; try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        // A record may be there although its making failed. Only the records then tell what this
        // node has.
        *self.current.lock() = None;
        for record in &plan.records {
            write(bucket, record).await?;
        }
        *self.current.lock() = Some(plan.database);
        tracing::info!(database = %plan.database, "jobs were taken over");
        Ok(())
    }
}

fn relieved(by: &Owner) -> NotOpen {
    let message = format!(
        "host {} (node {}) took this node's jobs over at {}",
        by.host,
        by.node,
        time(by.taken_ms)
    );
    NotOpen { error: Error::new(ErrorKind::Fenced, message), is_fenced: true }
}

async fn write(bucket: &Bucket, owner: &Owner) -> Result<()> {
    let name = owner.database.owner(owner.number);
    match bucket.create(&name, owner.encode(bucket.nonce())).await.map_err(of_engine)? {
        Created::Ours => Ok(()),
        Created::Theirs => {
            let message = format!(
                "another node took jobs database {} at the same time: see `skerry jobs nodes`",
                owner.database
            );
            Err(Error::new(ErrorKind::Fenced, message))
        }
    }
}

/// The chains of all databases. A damaged one keeps no other from being read.
async fn read_all(bucket: &Bucket) -> Result<Vec<Chain>> {
    let listed = bucket.list(owner::OWNERS).await.map_err(of_engine)?;
    let numbers: Vec<_> = listed.iter().filter_map(|object| owner::parse(&object.name)).collect();
    let reads = numbers.into_iter().map(|(database, number)| try_read(bucket, database, number));
    let read: Vec<_> = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    let mut chains: BTreeMap<DatabaseId, BTreeMap<_, _>> = BTreeMap::new();
    for (database, number, record) in read {
        chains.entry(database).or_default().insert(number, record);
    }
    Ok(chains.into_iter().map(|(database, records)| Chain { database, records }).collect())
}

/// A record, or the reason why it can't be read.
type Tried = (DatabaseId, u64, std::result::Result<Owner, String>);

async fn try_read(bucket: &Bucket, database: DatabaseId, number: u64) -> Result<Tried> {
    let record = match read(bucket, database, number).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => Err(error.message().to_owned()),
        read => Ok(read?),
    };
    Ok((database, number, record))
}

async fn newest_of(bucket: &Bucket, database: DatabaseId) -> Result<Option<Owner>> {
    let listed = bucket.list(&database.owners()).await.map_err(of_engine)?;
    let numbers = listed.iter().filter_map(|object| owner::parse(&object.name));
    match numbers.map(|(_, number)| number).max() {
        Some(number) => read(bucket, database, number).await.map(Some),
        None => Ok(None),
    }
}

async fn read(bucket: &Bucket, database: DatabaseId, number: u64) -> Result<Owner> {
    let name = database.owner(number);
    let named = |error: Error| Error::new(error.kind(), format!("{name}: {error}"));
    let found = bucket.get(&name).await.map_err(of_engine)?;
    let gone = || Error::new(ErrorKind::Unavailable, format!("{name} is gone; try again"));
    let owner = Owner::decode(&found.ok_or_else(gone)?).map_err(of_jobs).map_err(named)?;
    if (owner.database, owner.number) != (database, number) {
        let message = format!("{name} is the record of another database or number");
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(owner)
}

/// Refuses to begin beside a database of the previous layout, below the node's id: its jobs must
/// not seem gone.
async fn refuse_older(bucket: &Bucket, node: NodeId) -> Result<()> {
    let older = format!("jobs/{node}");
    let found = bucket.list(&format!("{older}/0/manifest")).await.map_err(of_engine)?;
    if found.is_empty() {
        return Ok(());
    }
    let message = format!(
        "this node's jobs are below {older} in the bucket, in the layout of an older Skerry: let \
         that version finish them, then delete everything below {older}"
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}
