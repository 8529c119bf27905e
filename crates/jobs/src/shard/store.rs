//! A shard's database: jobs under their keys, written in batches, each whole or not at all.

use super::commit::{Before, Written};
use super::descriptor::Descriptor;
use super::ended_ids::EndedIds;
use crate::database::failed;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Seq, State};
use crate::keys;
use crate::name::{JobId, Tenant};
use crate::steady::Steady;
use bytes::Bytes;
use slatedb::config::{
    DurabilityLevel, FlushOptions, FlushType, PutOptions, ReadOptions, ScanOptions, Ttl,
};
use slatedb::{Db, DbIterator, KeyValue, WriteBatch};
use std::ops::{Bound, Range};
use std::sync::Arc;

/// How long jobs are kept that have come to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Those that succeeded or were called off, milliseconds.
    pub done_ms: u64,
    /// Dead letters, milliseconds.
    pub failed_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY_MS: u64 = 86_400_000;
        Self { done_ms: 7 * DAY_MS, failed_ms: 30 * DAY_MS }
    }
}

/// A shard's database.
#[derive(Clone)]
pub(super) struct Store {
    db: Db,
    clock: Arc<Steady>,
    retention: Retention,
    ended_ids: Arc<EndedIds>,
    apply_log_on_close: bool,
}

/// Changes that are made together.
#[derive(Default)]
pub(super) struct Changes {
    batch: WriteBatch,
}

impl Store {
    pub(super) fn new(
        db: Db,
        clock: Arc<Steady>,
        retention: Retention,
        apply_log_on_close: bool,
    ) -> Self {
        Self { db, clock, retention, ended_ids: Arc::default(), apply_log_on_close }
    }

    /// Notes that the shard was opened once more, durably. A local log is noted where it can't be lost with it.
    pub(super) async fn begin_incarnation(
        &self,
        now: Descriptor,
        give_up_log: bool,
    ) -> Result<Descriptor> {
        let found = self.get(keys::DESCRIPTOR).await?;
        let before = found.map(|bytes| Descriptor::decode(&bytes)).transpose()?;
        if let Some(before) = before {
            if before.number != now.number {
                let detail = format!(
                    "the jobs' database is {}, and was opened as {}: the number of shards can't be changed",
                    before.number, now.number
                );
                return Err(Error::new(ErrorKind::Conflict, detail));
            }
            if before.log.is_some() && before.log != now.log && !give_up_log {
                let detail = "the jobs' database was used with another log on a local disk, which may have jobs that \
                              it does not: put that log back, or set give_up_wal to lose what only it had";
                return Err(Error::new(ErrorKind::Conflict, detail));
            }
        }
        let incarnation = before.map_or(0, |before| before.incarnation) + 1;
        let now = Descriptor { incarnation, ..now };
        self.put_descriptor(now).await?;
        if before.is_none_or(|before| before.log != now.log) {
            self.flush(FlushType::MemTable).await?;
        }
        Ok(now)
    }

    async fn put_descriptor(&self, descriptor: Descriptor) -> Result<()> {
        let mut changes = Changes::default();
        changes.batch.put_with_options(keys::DESCRIPTOR, descriptor.encode(), &for_ever());
        self.write(changes).await?;
        self.sync().await
    }

    /// A job, wherever it stands. One that is in neither place may just have gone back to the first.
    pub(super) async fn job(&self, seq: Seq) -> Result<Option<Job>> {
        for key in [keys::active(seq), keys::ended(seq), keys::active(seq)] {
            if let Some(job) = self.get_job(&key).await? {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// The job at a place, if it has not come to its end.
    pub(super) async fn active_job(&self, seq: Seq) -> Result<Option<Job>> {
        self.get_job(&keys::active(seq)).await
    }

    /// Jobs at these places that have not come to their end, oldest first. It costs as much as there are places, also
    /// where everything has come to its end: what was deleted is passed over row by row.
    pub(super) async fn active_in(&self, places: Range<Seq>) -> Result<Jobs> {
        let options = ScanOptions { read_ahead_bytes: AHEAD_BYTES, ..durable() };
        let range = keys::active(places.start)..keys::active(places.end);
        let rows = self.db.scan_with_options(range, &options).await.map_err(failed)?;
        Ok(Jobs { rows })
    }

    async fn get_job(&self, key: &[u8]) -> Result<Option<Job>> {
        self.get(key).await?.map(|bytes| Job::decode(&bytes)).transpose()
    }

    /// A row. What is written and not yet durable is not seen: nobody may be told what a crash would undo.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let options = ReadOptions::default().with_durability_filter(DurabilityLevel::Remote);
        let found = self.db.get_key_value_with_options(key, &options).await.map_err(failed)?;
        Ok(found.filter(|row| is_kept(row, self.clock.now_ms())).map(|row| row.value))
    }

    /// The place of a job that has come to its end.
    pub(super) async fn ended(&self, tenant: &Tenant, id: &JobId) -> Result<Option<Seq>> {
        let key = keys::named(tenant, id);
        if !self.ended_ids.may_have(&key) {
            return Ok(None);
        }
        Ok(self.get(&key).await?.and_then(|value| keys::seq_of(&value)))
    }

    /// Learns which jobs have come to their end, so that not every new id is looked for in the files.
    pub(super) async fn learn_ended_ids(&self) -> Result<()> {
        let rows = self.db.scan_prefix_with_options([keys::NAMED], .., &in_one_go()).await;
        let mut rows = self.rows_of(rows.map_err(failed)?);
        while let Some(row) = rows.next().await? {
            if row.is_kept && !self.ended_ids.add(&row.key) {
                return Ok(());
            }
        }
        self.ended_ids.has_all();
        Ok(())
    }

    fn rows_of(&self, rows: DbIterator) -> Rows {
        Rows { rows, clock: self.clock.clone() }
    }

    /// All jobs that have not come to their end, oldest first.
    pub(super) async fn active(&self) -> Result<Jobs> {
        let rows = self.db.scan_prefix_with_options([keys::ACTIVE], .., &in_one_go()).await;
        let rows = rows.map_err(failed)?;
        Ok(Jobs { rows })
    }

    /// Puts a job where it belongs, and takes away what it was.
    pub(super) fn put(&self, changes: &mut Changes, written: &Written) {
        let (batch, job) = (&mut changes.batch, &written.now);
        let is_final = job.state.is_final();
        match written.before {
            Before::Nothing => {}
            Before::Active if is_final || written.is_gone => batch.delete(keys::active(job.seq)),
            Before::Active => {}
            Before::Ended => remove_ended(batch, job),
        }
        if written.is_gone {
            if written.before != Before::Nothing {
                each_entry(job, |key| batch.delete(key));
            }
            return;
        }
        let expires = match job.state {
            State::Scheduled | State::Running => None,
            State::Failed => Some(self.retention.failed_ms),
            State::Succeeded | State::Cancelled => Some(self.retention.done_ms),
        };
        let kept = PutOptions { ttl: expires.map_or(Ttl::NoExpiry, Ttl::ExpireAfterMillis) };
        if is_final {
            self.put_ended(batch, job, &kept);
        } else {
            batch.put_with_options(keys::active(job.seq), job.encode(), &kept);
        }
        if written.before != Before::Active || is_final {
            each_entry(job, |key| batch.put_with_options(key, [], &kept));
        }
    }

    fn put_ended(&self, batch: &mut WriteBatch, job: &Job, kept: &PutOptions) {
        batch.put_with_options(keys::ended(job.seq), job.encode(), kept);
        if let Some(id) = &job.spec.id {
            let (key, place) = (keys::named(&job.spec.tenant, id), job.seq.0.to_be_bytes());
            self.ended_ids.add(&key);
            batch.put_with_options(key, place, kept);
        }
        if job.state == State::Failed {
            batch.put_with_options(keys::dead(job.seq), [], kept);
        }
    }

    /// Rows whose keys begin with `prefix`, from after `after` on, in their order.
    pub(super) async fn rows(&self, prefix: &[u8], after: Option<&[u8]>) -> Result<Rows> {
        let rest = after.and_then(|after| after.strip_prefix(prefix)).map(<[u8]>::to_vec);
        let from = rest.map_or(Bound::Unbounded, |rest| Bound::Excluded(Bytes::from(rest)));
        let range = (from, Bound::<Bytes>::Unbounded);
        let rows = self.db.scan_prefix_with_options(prefix, range, &durable()).await;
        Ok(self.rows_of(rows.map_err(failed)?))
    }

    /// Makes changes, all or none. They are seen at once, and durable after [`Store::sync`].
    pub(super) async fn write(&self, changes: Changes) -> Result<()> {
        if !changes.batch.is_empty() {
            self.db.write(changes.batch).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Everything that was written is durable.
    pub(super) async fn sync(&self) -> Result<()> {
        self.flush(FlushType::Wal).await
    }

    pub(super) async fn flush(&self, flush_type: FlushType) -> Result<()> {
        self.db.flush_with_options(FlushOptions { flush_type }).await.map_err(failed)
    }

    /// Closes the database; everything that was written is durable. If its log is applied, another log may follow.
    pub(super) async fn close(&self, descriptor: Descriptor) -> Result<()> {
        let applied = self.apply_log(descriptor).await;
        applied.and(self.abandon().await)
    }

    async fn apply_log(&self, descriptor: Descriptor) -> Result<()> {
        if self.apply_log_on_close {
            self.put_descriptor(Descriptor { log: None, ..descriptor }).await?;
            self.flush(FlushType::MemTable).await?;
        }
        Ok(())
    }

    /// Closes the database as it is.
    pub(super) async fn abandon(&self) -> Result<()> {
        self.db.close().await.map_err(failed)
    }
}

/// True until a row's time is over. SlateDB shows it until its file is merged.
fn is_kept(row: &KeyValue, now_ms: u64) -> bool {
    let expires_ms = row.expire_ts.and_then(|expires_ms| u64::try_from(expires_ms).ok());
    expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
}

/// For rows that do not expire, whatever SlateDB is told of others.
fn for_ever() -> PutOptions {
    PutOptions { ttl: Ttl::NoExpiry }
}

/// How much is asked for at once by who reads on, bytes.
const AHEAD_BYTES: usize = 256 << 10;

/// For reading nothing that is not durable.
fn durable() -> ScanOptions {
    ScanOptions::default().with_durability_filter(DurabilityLevel::Remote)
}

/// For reading much in order: far ahead, and without driving from memory what is asked for again.
fn in_one_go() -> ScanOptions {
    ScanOptions { read_ahead_bytes: 4 << 20, max_fetch_tasks: 4, cache_blocks: false, ..durable() }
}

fn remove_ended(batch: &mut WriteBatch, job: &Job) {
    batch.delete(keys::ended(job.seq));
    batch.delete(keys::dead(job.seq));
    if let Some(id) = &job.spec.id {
        batch.delete(keys::named(&job.spec.tenant, id));
    }
}

/// The keys of a job's metadata.
fn each_entry(job: &Job, mut each: impl FnMut(Vec<u8>)) {
    for entry in &job.spec.metadata {
        each(keys::metadata(&job.spec.tenant, entry, job.seq));
    }
}

impl Changes {
    /// A row is this, or gone.
    pub(super) fn set(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        match value {
            Some(value) => self.batch.put_with_options(key, value, &for_ever()),
            None => self.batch.delete(key),
        }
    }
}

/// Jobs that have not come to their end, one after the other.
pub(super) struct Jobs {
    rows: DbIterator,
}

/// Rows, one after the other.
pub(super) struct Rows {
    rows: DbIterator,
    clock: Arc<Steady>,
}

/// A row of the database.
pub(super) struct Row {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    /// Its time is not over.
    pub(super) is_kept: bool,
}

impl Rows {
    pub(super) async fn next(&mut self) -> Result<Option<Row>> {
        let row = self.rows.next().await.map_err(failed)?;
        Ok(row.map(|row| {
            let is_kept = is_kept(&row, self.clock.now_ms());
            Row { key: row.key, value: row.value, is_kept }
        }))
    }
}

impl Jobs {
    pub(super) async fn next(&mut self) -> Result<Option<Job>> {
        let row = self.rows.next().await.map_err(failed)?;
        row.map(|row| Job::decode(&row.value)).transpose()
    }
}
