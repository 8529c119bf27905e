//! Finds the node's jobs database in the bucket, makes one, and takes another node's over: carries out what
//! `skerry_jobs::owner` decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStore;
use parking_lot::Mutex;
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::env::Clock as _;
use skerry_core::id::NodeId;
use skerry_jobs::owner::{self, DatabaseId, Has, Owner};
use skerry_store::bucket::{Bucket, Created, Env};
use tokio::sync::OnceCell;

use super::convert;
use super::open::NotOpen;
use crate::control;
use crate::env::{SystemClock, SystemEntropy};
use crate::identity::Identity;
use crate::output;

/// Records that are read at once.
const READS_MAX: usize = 16;

/// The owners of the databases in a bucket, as one node sees them.
pub(super) struct Owners {
    me: Identity,
    bucket: OnceCell<Bucket>,
    /// The database that this node opens.
    current: Mutex<Option<DatabaseId>>,
    /// One task looks for it, or takes another over, at a time.
    busy: tokio::sync::Mutex<()>,
}

fn failed(error: skerry_store::Error) -> Error {
    control::error(skerry_volume::Error::from(error))
}

impl Owners {
    pub(super) fn new(me: Identity) -> Self {
        let (bucket, current) = (OnceCell::new(), Mutex::new(None));
        Self { me, bucket, current, busy: tokio::sync::Mutex::new(()) }
    }

    async fn bucket(&self, store: &Arc<dyn ObjectStore>) -> Result<&Bucket> {
        let open = async {
            let env = Env { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) };
            Bucket::open(store.clone(), env, true).await.map_err(failed)
        };
        self.bucket.get_or_try_init(|| open).await
    }

    /// The database that this node opens, if that is known.
    pub(super) fn current(&self) -> Option<DatabaseId> {
        *self.current.lock()
    }

    /// The node's own database; makes one if it has none.
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
        let database = match owner::has(self.me.node, &newest(bucket).await?) {
            Has::Its(database) => database,
            Has::WasRelieved(by) => return Err(relieved(&by)),
            Has::Nothing(others) => {
                refuse_older(bucket, self.me.node).await?;
                self.make(bucket, &others).await?
            }
        };
        *self.current.lock() = Some(database);
        Ok(database)
    }

    async fn make(&self, bucket: &Bucket, others: &[Owner]) -> Result<DatabaseId> {
        let database = DatabaseId(NodeId::random(&SystemEntropy));
        self.record(bucket, database, 1, NodeId::NONE).await?;
        if !others.is_empty() {
            let hosts: Vec<&str> = others.iter().map(|owner| owner.host.as_str()).collect();
            tracing::warn!(
                hosts = hosts.join(", "),
                "this node begins without jobs, and other nodes have some in this bucket: `skerry jobs nodes` shows them; \
                 `skerry jobs take-over` opens a lost node's here, schedules included"
            );
        }
        Ok(database)
    }

    /// This node has a database from now on. Fails if another was faster.
    async fn record(
        &self,
        bucket: &Bucket,
        database: DatabaseId,
        number: u64,
        before: NodeId,
    ) -> Result<Owner> {
        let (node, host) = (self.me.node, self.me.host.clone());
        let taken_ms = SystemClock.wall_ms();
        let owner = Owner { database, number, node, before, taken_ms, host };
        write(bucket, &owner).await?;
        Ok(owner)
    }

    /// Fails if a database is not this node's, or not any more.
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
            Some(owner) => Err(relieved(&owner)),
            None => {
                let message = format!("the owner records of jobs database {database} are gone");
                Err(Error::new(ErrorKind::Corrupt, message).into())
            }
        }
    }

    /// Everybody's databases.
    pub(super) async fn all(&self, store: &Arc<dyn ObjectStore>) -> Result<Vec<Owner>> {
        let mut all = newest(self.bucket(store).await?).await?;
        all.retain(|owner| !owner.node.is_none());
        Ok(all)
    }

    /// The database that this node has, or had before another took it over.
    fn own_of<'a>(&self, all: &'a [Owner]) -> Result<&'a Owner> {
        let (me, current) = (self.me.node, self.current());
        let is_it = |owner: &&Owner| Some(owner.database) == current || owner.node == me;
        let had = |owner: &&Owner| owner.before == me && !owner.node.is_none();
        all.iter().find(is_it).or_else(|| all.iter().find(had)).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "this node never had jobs in this bucket: name another")
        })
    }

    /// True if a text names this node's own database, or nothing.
    pub(super) async fn is_own(&self, store: &Arc<dyn ObjectStore>, named: &str) -> Result<bool> {
        let all = newest(self.bucket(store).await?).await?;
        Ok(named.is_empty() || find(&all, named)?.node == self.me.node)
    }

    /// Takes over the database that a text names: by its own id, its node's, or its host's name; the one that was this
    /// node's if it names nothing. What this node has besides is given up: the caller has made sure that it is empty.
    pub(super) async fn take_over(
        &self,
        store: &Arc<dyn ObjectStore>,
        named: &str,
    ) -> Result<Owner> {
        let bucket = self.bucket(store).await?;
        let _busy = self.busy.lock().await;
        let all = newest(bucket).await?;
        let found = match named {
            "" => self.own_of(&all)?,
            named => find(&all, named)?,
        };
        let taken = match found.node == self.me.node {
            true => found.clone(),
            false => self.record(bucket, found.database, found.number + 1, found.node).await?,
        };
        *self.current.lock() = Some(taken.database);
        for own in all.iter().filter(|own| own.node == self.me.node) {
            if own.database == taken.database {
                continue;
            }
            let (number, before) = (own.number + 1, own.node);
            let given_up = Owner { number, node: NodeId::NONE, before, ..own.clone() };
            write(bucket, &given_up).await?;
        }
        tracing::info!(database = %taken.database, host = found.host, "jobs were taken over");
        Ok(taken)
    }
}

fn find<'a>(all: &'a [Owner], named: &str) -> Result<&'a Owner> {
    let is_it = |owner: &&Owner| {
        !owner.node.is_none()
            && [owner.database.to_string(), owner.node.to_string(), owner.host.clone()]
                .iter()
                .any(|name| name == named)
    };
    let mut found = all.iter().filter(is_it);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let message =
                format!("no node {named:?} has jobs in this bucket: see `skerry jobs nodes`");
            Err(Error::new(ErrorKind::NotFound, message))
        }
        (Some(_), Some(_)) => {
            let message =
                format!("{named:?} is more than one node: name its id (`skerry jobs nodes`)");
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

fn relieved(by: &Owner) -> NotOpen {
    let message = format!(
        "host {} (node {}) took this node's jobs over at {}",
        by.host,
        by.node,
        output::time(by.taken_ms)
    );
    NotOpen { error: Error::new(ErrorKind::Fenced, message), is_fenced: true }
}

async fn write(bucket: &Bucket, owner: &Owner) -> Result<()> {
    let name = owner.database.owner(owner.number);
    match bucket.create(&name, owner.encode(bucket.nonce())).await.map_err(failed)? {
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

/// The newest record of each database.
async fn newest(bucket: &Bucket) -> Result<Vec<Owner>> {
    let listed = bucket.list(owner::OWNERS).await.map_err(failed)?;
    let mut last: BTreeMap<DatabaseId, u64> = BTreeMap::new();
    for (database, number) in listed.iter().filter_map(|object| owner::parse(&object.name)) {
        let last = last.entry(database).or_default();
        *last = number.max(*last);
    }
    let reads = last.into_iter().map(|(database, number)| read(bucket, database, number));
    stream::iter(reads).buffered(READS_MAX).try_collect().await
}

async fn newest_of(bucket: &Bucket, database: DatabaseId) -> Result<Option<Owner>> {
    let listed = bucket.list(&database.owners()).await.map_err(failed)?;
    let numbers = listed.iter().filter_map(|object| owner::parse(&object.name));
    match numbers.map(|(_, number)| number).max() {
        Some(number) => read(bucket, database, number).await.map(Some),
        None => Ok(None),
    }
}

async fn read(bucket: &Bucket, database: DatabaseId, number: u64) -> Result<Owner> {
    let name = database.owner(number);
    let named = |error: Error| Error::new(error.kind(), format!("{name}: {error}"));
    let found = bucket.get(&name).await.map_err(failed)?;
    let gone = || Error::new(ErrorKind::Unavailable, format!("{name} is gone; try again"));
    let owner = Owner::decode(&found.ok_or_else(gone)?).map_err(convert::error).map_err(named)?;
    if (owner.database, owner.number) != (database, number) {
        let message = format!("{name} is the record of another database or number");
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(owner)
}

/// A database of the layout before stands below the node's id: its jobs must not seem gone.
async fn refuse_older(bucket: &Bucket, node: NodeId) -> Result<()> {
    let older = format!("jobs/{node}");
    let found = bucket.list(&format!("{older}/0/manifest")).await.map_err(failed)?;
    if found.is_empty() {
        return Ok(());
    }
    let message = format!(
        "this node's jobs are below {older} in the bucket, in the layout of an older Skerry: let that version finish \
         them, then delete everything below {older}"
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}
