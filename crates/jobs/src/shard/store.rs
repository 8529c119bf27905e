//! A shard's database: jobs under their keys, written in batches, each whole or not at all.

use super::commit::{Before, Written};
use super::descriptor::Descriptor;
use super::ended_ids::EndedIds;
use crate::database::failed;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobKey, JobRef, JobState};
use crate::keys;
use crate::lease_row;
use crate::name::Tenant;
use crate::opening::{LogName, Opening, check_hashes};
use crate::reclaim;
use crate::steady::Steady;
use bytes::Bytes;
use slatedb::config::{
    CloseOptions, DurabilityLevel, FlushOptions, FlushType, PutOptions, ReadOptions, ScanOptions,
    Ttl,
};
use slatedb::{Db, DbIterator, KeyValue, WriteBatch};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Time for which ended jobs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Time for jobs that succeeded or were cancelled, milliseconds.
    pub done_ms: u64,
    /// Time for dead letters, milliseconds.
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
    /// Bytes of jobs that were deleted since the files last had all deletions.
    freed_bytes: Arc<AtomicU64>,
}

/// Changes that are made together.
#[derive(Default)]
pub(super) struct Changes {
    batch: WriteBatch,
    /// Bytes of jobs that are deleted.
    freed_bytes: usize,
}

impl Store {
    pub(super) fn new(
        db: Db,
        clock: Arc<Steady>,
        retention: Retention,
        apply_log_on_close: bool,
    ) -> Self {
        let (ended_ids, freed_bytes) = (Arc::default(), Arc::default());
        Self { db, clock, retention, ended_ids, apply_log_on_close, freed_bytes }
    }

    /// Counts an opening of the shard, durably, in the database itself. A local log can be lost,
    /// with all that only it has: then places and leases would be given twice.
    pub(super) async fn begin_incarnation(&self, opening: &Opening) -> Result<Descriptor> {
        let found = self.get(keys::DESCRIPTOR).await?;
        let before = found.map(|bytes| Descriptor::decode(&bytes)).transpose()?;
        check_hashes(before.as_ref(), opening.hashes)?;
        let is_expected =
            |before: Descriptor| [opening.before, opening.id].contains(&before.opening);
        if matches!(opening.log, LogName::Local(_)) && !before.is_none_or(is_expected) {
            let detail = "the jobs' database was opened elsewhere just now, and its log may not be this one any more";
            return Err(Error::new(ErrorKind::Unavailable, detail));
        }
        if before.is_none() && self.has_rows().await? {
            let detail = "the jobs' database has rows and no descriptor: it was split or merged, and not finished";
            return Err(Error::new(ErrorKind::Corrupt, detail));
        }
        let now = Descriptor::after(before.map_or(0, |before| before.incarnation), opening);
        self.put_descriptor(now).await?;
        self.flush(FlushType::MemTable).await?;
        Ok(now)
    }

    async fn put_descriptor(&self, descriptor: Descriptor) -> Result<()> {
        let mut changes = Changes::default();
        changes.batch.put_with_options(keys::DESCRIPTOR, descriptor.encode(), &for_ever());
        self.write(changes).await?;
        self.sync().await
    }

    async fn has_rows(&self) -> Result<bool> {
        let mut rows = self.db.scan_with_options(.., &durable()).await.map_err(failed)?;
        Ok(rows.next().await.map_err(failed)?.is_some())
    }

    /// Reads a job, active or ended. One that is neither may just have been restarted.
    pub(super) async fn job(
        &self,
        key: JobKey,
        tenant: &Tenant,
        name: &JobRef,
    ) -> Result<Option<Job>> {
        let is_it =
            |job: &Job| job.seq == key.seq && job.spec.tenant == *tenant && job.name() == *name;
        if let Some(job) = self.active_job(key).await?.filter(is_it) {
            return Ok(Some(job));
        }
        if let Some(job) = self.ended_job(tenant, name).await?.filter(is_it) {
            return Ok(Some(job));
        }
        Ok(self.active_job(key).await?.filter(is_it))
    }

    /// Reads a job that has not ended, with its lease if a worker has it.
    pub(super) async fn active_job(&self, key: JobKey) -> Result<Option<Job>> {
        let rows = self.rows(&keys::active(key), None).await?;
        Ok(Jobs::new(rows).next().await?.map(|(_, job)| job))
    }

    /// Reads the record of a waiting job.
    pub(super) async fn waiting_job(&self, key: JobKey) -> Result<Option<Job>> {
        self.get_job(&keys::active(key)).await
    }

    /// Reads jobs of one hash at these places that have not ended, oldest first. Costs as much as
    /// there are places, also if all jobs have ended: the database passes over deleted rows one by
    /// one.
    pub(super) async fn active_in(&self, places: Range<JobKey>) -> Result<Jobs> {
        let options = ScanOptions { read_ahead_bytes: AHEAD_BYTES, ..durable() };
        let range = keys::active(places.start)..keys::active(places.end);
        let rows = self.db.scan_with_options(range, &options).await.map_err(failed)?;
        Ok(Jobs::new(self.rows_of(rows)))
    }

    /// Reads an ended job.
    pub(super) async fn ended_job(&self, tenant: &Tenant, name: &JobRef) -> Result<Option<Job>> {
        self.get_job(&keys::ended(tenant, name)).await
    }

    async fn get_job(&self, key: &[u8]) -> Result<Option<Job>> {
        self.get(key).await?.map(|bytes| Job::decode(&bytes)).transpose()
    }

    /// Reads a row. Does not see what is not yet durable: a crash would undo what a caller was
    /// told.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let options = ReadOptions::default().with_durability_filter(DurabilityLevel::Remote);
        let found = self.db.get_key_value_with_options(key, &options).await.map_err(failed)?;
        Ok(found.filter(|row| is_kept(row, self.clock.now_ms())).map(|row| row.value))
    }

    /// True if a job of this name has ended.
    pub(super) async fn has_ended(&self, tenant: &Tenant, name: &JobRef) -> Result<bool> {
        let key = keys::ended(tenant, name);
        Ok(self.ended_ids.may_have(&key) && self.get(&key).await?.is_some())
    }

    /// Learns the names of ended jobs, so that not every new id is looked for in the files.
    pub(super) async fn learn_ended_ids(&self) -> Result<()> {
        let rows = self.db.scan_prefix_with_options([keys::ENDED], .., &in_one_go()).await;
        let mut rows = self.rows_of(rows.map_err(failed)?);
        let (mut bytes, mut has_waited) = (0, false);
        while let Some(row) = rows.next().await? {
            bytes += row.key.len() + row.value.len();
            if bytes > LEARNED_AT_ONCE_BYTES && !has_waited {
                tokio::time::sleep(LEARNS_AFTER).await;
                has_waited = true;
            }
            if bytes > LEARNED_BYTES_MAX {
                tracing::warn!(
                    "too much is kept of jobs that have ended to read their ids: new jobs are taken more slowly"
                );
                return Ok(());
            }
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

    /// Reads all jobs that have not ended, oldest first.
    pub(super) async fn active(&self) -> Result<Jobs> {
        let rows = self.db.scan_prefix_with_options([keys::ACTIVE], .., &in_one_go()).await;
        Ok(Jobs::new(self.rows_of(rows.map_err(failed)?)))
    }

    /// Writes a job's rows, and deletes its previous ones.
    pub(super) fn put(&self, changes: &mut Changes, written: &Written) {
        let (batch, job, key) = (&mut changes.batch, &written.now, written.now.key());
        let is_active = !job.state.is_final() && !written.is_gone;
        match written.before {
            Before::Active if !is_active => {
                batch.delete(keys::active(key));
                changes.freed_bytes += job.bytes();
            }
            Before::Nothing | Before::Active => {}
            Before::Ended => {
                remove_ended(batch, job, key);
                changes.freed_bytes += job.bytes();
            }
        }
        if written.had_lease && !(is_active && job.state == JobState::Running) {
            batch.delete(keys::lease(key));
        }
        if written.is_gone {
            if written.before != Before::Nothing {
                each_entry(job, |key| batch.delete(key));
            }
            return;
        }
        let expires = match job.state {
            JobState::Scheduled | JobState::Running => None,
            JobState::Failed => Some(self.retention.failed_ms),
            JobState::Succeeded | JobState::Cancelled => Some(self.retention.done_ms),
        };
        let kept = PutOptions { ttl: expires.map_or(Ttl::NoExpiry, Ttl::ExpireAfterMillis) };
        if is_active {
            put_active(batch, key, written);
        } else {
            self.put_ended(batch, job, key, &kept);
        }
        if written.before != Before::Active || !is_active {
            each_entry(job, |key| batch.put_with_options(key, [], &kept));
        }
    }

    fn put_ended(&self, batch: &mut WriteBatch, job: &Job, key: JobKey, kept: &PutOptions) {
        let ended = keys::ended(&job.spec.tenant, &job.name());
        if job.spec.id.is_some() {
            self.ended_ids.add(&ended);
        }
        batch.put_with_options(ended, job.encode(), kept);
        if job.state == JobState::Failed {
            batch.put_with_options(keys::dead(key, &job.spec.tenant, &job.name()), [], kept);
        }
    }

    /// Reads rows whose keys begin with `prefix`, after `after`, in their order.
    pub(super) async fn rows(&self, prefix: &[u8], after: Option<&[u8]>) -> Result<Rows> {
        let rest = after.and_then(|after| after.strip_prefix(prefix)).map(<[u8]>::to_vec);
        let from = rest.map_or(Bound::Unbounded, |rest| Bound::Excluded(Bytes::from(rest)));
        let range = (from, Bound::<Bytes>::Unbounded);
        let rows = self.db.scan_prefix_with_options(prefix, range, &durable()).await;
        Ok(self.rows_of(rows.map_err(failed)?))
    }

    /// Makes changes, all or none. They are visible at once, and durable after [`Store::sync`].
    pub(super) async fn write(&self, changes: Changes) -> Result<()> {
        if !changes.batch.is_empty() {
            self.freed_bytes.fetch_add(changes.freed_bytes as u64, Ordering::Relaxed);
            self.db.write(changes.batch).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Bytes of jobs that were deleted since the files last had all deletions.
    pub(super) fn freed_bytes(&self) -> u64 {
        self.freed_bytes.load(Ordering::Relaxed)
    }

    /// True if the files have much that has expired, and a merge would not know the time.
    pub(super) fn expires_unseen(&self) -> bool {
        let manifest = self.db.manifest();
        reclaim::expires_unseen(&manifest, self.clock.now_ms(), self.retention.done_ms)
    }

    /// Moves everything that was written to the files. Adds a row of now that says nothing, so that
    /// the files tell the time.
    pub(super) async fn tell_files(&self) -> Result<()> {
        let freed_bytes = self.freed_bytes();
        let mut changes = Changes::default();
        changes.batch.delete([keys::PAUSED]);
        self.write(changes).await?;
        self.flush(FlushType::MemTable).await?;
        self.freed_bytes.fetch_sub(freed_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything durable that was written.
    pub(super) async fn sync(&self) -> Result<()> {
        self.flush(FlushType::Wal).await
    }

    pub(super) async fn flush(&self, flush_type: FlushType) -> Result<()> {
        self.db.flush_with_options(FlushOptions { flush_type }).await.map_err(failed)
    }

    /// Closes the database; everything that was written is durable. If its log is applied, another
    /// log may follow.
    pub(super) async fn close(&self, descriptor: Descriptor) -> Result<()> {
        if !self.apply_log_on_close {
            return self.close_with(Some(FlushType::Wal)).await;
        }
        let applied = self.apply_log(descriptor).await;
        applied.and(self.close_with(Some(FlushType::MemTable)).await)
    }

    async fn apply_log(&self, descriptor: Descriptor) -> Result<()> {
        self.put_descriptor(Descriptor { log: LogName::Applied, ..descriptor }).await?;
        self.flush(FlushType::MemTable).await
    }

    /// Closes the database as it is: loses rows that are not durable, and moves none to its files.
    pub(super) async fn abandon(&self) -> Result<()> {
        self.close_with(None).await
    }

    async fn close_with(&self, flush_type: Option<FlushType>) -> Result<()> {
        self.db.close_with_options(CloseOptions { flush_type }).await.map_err(failed)
    }
}

/// True until a row has expired. SlateDB shows it until its file is merged.
fn is_kept(row: &KeyValue, now_ms: u64) -> bool {
    let expires_ms = row.expire_ts.and_then(|expires_ms| u64::try_from(expires_ms).ok());
    expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
}

/// For rows that do not expire, whatever SlateDB's default is.
fn for_ever() -> PutOptions {
    PutOptions { ttl: Ttl::NoExpiry }
}

/// Bytes that a read in order asks for at once.
const AHEAD_BYTES: usize = 256 << 10;

/// Bytes that are read at most to learn the ids of ended jobs: a start must not read for hours.
const LEARNED_BYTES_MAX: usize = 4 << 30;

/// Bytes that are read as soon as a shard is open.
const LEARNED_AT_ONCE_BYTES: usize = 64 << 20;
/// Time after which the rest is read. A shard that fails again and again must not read gigabytes
/// each time.
const LEARNS_AFTER: Duration = Duration::from_secs(60);

/// For reading nothing that is not durable.
fn durable() -> ScanOptions {
    ScanOptions::default().with_durability_filter(DurabilityLevel::Remote)
}

/// For reading much in order: far ahead, and without pushing other blocks out of memory.
fn in_one_go() -> ScanOptions {
    ScanOptions { read_ahead_bytes: 4 << 20, max_fetch_tasks: 4, cache_blocks: false, ..durable() }
}

/// Writes a job's record, if it has changed, and its lease.
fn put_active(batch: &mut WriteBatch, key: JobKey, written: &Written) {
    if written.is_changed {
        batch.put_with_options(keys::active(key), written.now.encode(), &for_ever());
    }
    if let Some(attempt) = written.now.under_way() {
        batch.put_with_options(keys::lease(key), lease_row::encode(attempt), &for_ever());
    }
}

fn remove_ended(batch: &mut WriteBatch, job: &Job, key: JobKey) {
    let (tenant, name) = (&job.spec.tenant, job.name());
    batch.delete(keys::ended(tenant, &name));
    batch.delete(keys::dead(key, tenant, &name));
}

/// The keys of a job's metadata.
fn each_entry(job: &Job, mut each: impl FnMut(Vec<u8>)) {
    for entry in &job.spec.metadata {
        each(keys::metadata(&job.spec.tenant, entry, job.seq, &job.name()));
    }
}

impl Changes {
    /// Sets a row, or deletes it.
    pub(super) fn set(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        match value {
            Some(value) => self.batch.put_with_options(key, value, &for_ever()),
            None => self.batch.delete(key),
        }
    }
}

/// Jobs that have not ended, one after the other, each with its lease if a worker has it.
pub(super) struct Jobs {
    rows: Rows,
    /// The row after the last job's.
    peeked: Option<Row>,
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
    /// True if the row has not expired.
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
    pub(super) fn new(rows: Rows) -> Self {
        Self { rows, peeked: None }
    }

    /// The next job, with the last key that may be of it.
    pub(super) async fn next(&mut self) -> Result<Option<(Bytes, Job)>> {
        let first = match self.peeked.take() {
            Some(row) => Some(row),
            None => self.rows.next().await?,
        };
        let Some(first) = first else { return Ok(None) };
        let mut job = Job::decode(&first.value)?;
        let lease = keys::lease_after(&first.key);
        self.peeked = self.rows.next().await?;
        if let Some(row) = self.peeked.take_if(|row| row.key == lease) {
            job.begin(lease_row::decode(&row.value)?);
        }
        Ok(Some((lease.into(), job)))
    }
}
