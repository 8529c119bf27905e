//! Answers about a shard's jobs. Must hold: an answer tells only what is durable, and lacks nothing
//! that happened before the call.

use super::calls::no_job;
use super::cursor::Cursor;
use super::state::Totals;
use super::store::{Jobs, Row, Rows};
use super::{Inner, Shard};
use crate::error::{Error, Result};
use crate::hash::TenantHash;
use crate::job::{Job, JobKey, JobRef, JobState};
use crate::keys::{self, Pointer};
use crate::machine::{Counts, GroupCounts, Why};
use crate::name::{Group, Tenant};
use bytes::Bytes;

/// The most jobs of one listing.
pub const LISTED_MAX: usize = 1000;
/// Bytes of names, metadata and errors beyond which a listing ends: it must fit a message without
/// payloads and results.
const LISTED_BYTES_MAX: usize = 1 << 20;
/// Bytes of payloads and results beyond which a listing ends, including jobs that don't match.
const LISTED_CONTENT_BYTES_MAX: usize = 16 << 20;
/// The most rows that one listing reads: rows that don't match cost time too.
const ROWS_MAX: usize = 10_000;

/// The jobs that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The jobs' tenant; all tenants if none.
    pub tenant: Option<Tenant>,
    /// The jobs' task group.
    pub group: Option<Group>,
    /// The jobs' state.
    pub state: Option<JobState>,
    /// An entry of the jobs' metadata; needs a tenant.
    pub metadata: Option<(String, String)>,
    /// True if the entry's value is only a prefix.
    pub is_prefix: bool,
    /// Largest number of jobs.
    pub limit: usize,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Jobs in the order of their rows: by the tenant's hash, then by age; then ended jobs, by
    /// name. By value and age if metadata were asked for.
    pub jobs: Vec<Job>,
    /// The point where it goes on, if it does. There may be more even if this part has no jobs.
    pub next: Option<Cursor>,
}

impl Query {
    fn check(&self) -> Result<()> {
        if !(1..=LISTED_MAX).contains(&self.limit) {
            return Err(Error::invalid(format!("{} jobs: 1 to {LISTED_MAX}", self.limit)));
        }
        if self.metadata.is_some() && self.tenant.is_none() {
            return Err(Error::invalid("metadata are searched for within a tenant: name one"));
        }
        Ok(())
    }

    fn wants(&self, job: &Job) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| job.spec.tenant == *tenant)
            && self.group.as_ref().is_none_or(|group| job.spec.group == *group)
            && self.state.is_none_or(|state| job.state == state)
    }

    /// Prefixes of the keys that are read, in their order.
    fn prefixes(&self) -> Vec<Vec<u8>> {
        if let (Some(tenant), Some(entry)) = (&self.tenant, &self.metadata) {
            return vec![keys::metadata_prefix(tenant, entry, self.is_prefix)];
        }
        let kinds: &[u8] = match self.state {
            Some(JobState::Failed) => &[keys::DEAD],
            Some(state) if state.is_final() => &[keys::ENDED],
            Some(_) => &[keys::ACTIVE],
            None => &[keys::ACTIVE, keys::ENDED],
        };
        let prefix = |kind: &u8| match &self.tenant {
            Some(tenant) if *kind == keys::ENDED => keys::ended_of(tenant),
            Some(tenant) => keys::of_hash(*kind, TenantHash::of(tenant)),
            None => vec![*kind],
        };
        kinds.iter().map(prefix).collect()
    }
}

impl Shard {
    /// Gives a job as it was when everything was durable that happened before this call.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn show(&self, tenant: &Tenant, job: &JobRef) -> Result<Job> {
        // The key is taken before the wait: a moment later, the job's record may say that it has
        // ended.
        let (mark, key) = {
            let state = self.inner.state.lock();
            state.check()?;
            (self.inner.pending(&state), state.key_or_ending(tenant, job))
        };
        self.inner.wait_durable(mark).await?;
        self.inner.find(tenant, job, key).await?.ok_or_else(|| no_job(tenant, job))
    }

    /// Tells what a job waits for now; nothing if a worker has it or it has ended.
    pub fn why(&self, tenant: &Tenant, job: &JobRef) -> Option<Why> {
        let (state, _) = self.inner.at_once();
        state.machine.why(tenant, job)
    }

    /// Lists jobs that match, from the end of the previous part.
    ///
    /// # Errors
    /// `Invalid`, `Unavailable`.
    pub async fn list(&self, query: &Query, after: Option<&Cursor>) -> Result<Listed> {
        query.check()?;
        let after = after.map(|cursor| cursor.open(query)).transpose()?;
        self.inner.catch_up().await?;
        let mut listed = Listed { jobs: Vec::new(), next: None };
        let (mut looked_at, mut bytes, mut content_bytes) = (0, 0, 0);
        let prefixes = query.prefixes();
        let begun = after
            .as_ref()
            .and_then(|after| prefixes.iter().position(|prefix| after.starts_with(prefix)));
        for prefix in prefixes.iter().skip(begun.unwrap_or(0)) {
            let rows = self.inner.store.rows(prefix, after.as_deref());
            let mut rows = Listing::new(self.inner.read(rows).await?, prefix);
            while let Some((last, job)) = self.inner.read(rows.next(&self.inner)).await? {
                looked_at += 1;
                if let Some(job) = job {
                    content_bytes += job.content_bytes();
                    if query.wants(&job) {
                        bytes += job.bytes() - job.content_bytes();
                        listed.jobs.push(job);
                    }
                }
                if listed.jobs.len() >= query.limit
                    || looked_at >= ROWS_MAX
                    || bytes >= LISTED_BYTES_MAX
                    || content_bytes >= LISTED_CONTENT_BYTES_MAX
                {
                    listed.next = Some(Cursor::seal(query, &last));
                    return Ok(listed);
                }
            }
        }
        Ok(listed)
    }

    /// Numbers of jobs that have not ended.
    pub fn counts(&self) -> Counts {
        self.inner.state.lock().machine.counts()
    }

    /// Numbers of jobs that have not ended, by task group.
    pub fn groups(&self) -> Vec<(Group, GroupCounts)> {
        self.inner.state.lock().machine.groups()
    }

    /// Totals since the shard was opened.
    pub fn totals(&self) -> Totals {
        self.inner.state.lock().totals
    }
}

impl Inner {
    /// Reads a job's record; by its key, if that is known.
    pub(super) async fn find(
        &self,
        tenant: &Tenant,
        job: &JobRef,
        key: Option<JobKey>,
    ) -> Result<Option<Job>> {
        let key = key.or(match job {
            JobRef::Named(_) => None,
            JobRef::Assigned(seq) => Some(JobKey { hash: TenantHash::of(tenant), seq: *seq }),
        });
        self.read(async {
            match key {
                Some(key) => self.store.job(key, tenant, job).await,
                None => self.store.ended_job(tenant, job).await,
            }
        })
        .await
    }
}

/// Jobs that rows are, or point to.
enum Listing {
    /// Jobs that have not ended.
    Active(Jobs),
    /// Rows of other kinds.
    Rows(Rows),
}

impl Listing {
    fn new(rows: Rows, prefix: &[u8]) -> Self {
        match prefix.first() {
            Some(&keys::ACTIVE) => Self::Active(Jobs::new(rows)),
            _ => Self::Rows(rows),
        }
    }

    /// Gives the next job, with the key after which the listing goes on. No job if the row has
    /// expired, or the job is gone.
    async fn next(&mut self, inner: &Inner) -> Result<Option<(Bytes, Option<Job>)>> {
        let rows = match self {
            Self::Active(jobs) => {
                let next = jobs.next().await?;
                return Ok(next.map(|(last, job)| (last, Some(job))));
            }
            Self::Rows(rows) => rows,
        };
        let Some(Row { key, value, is_kept }) = rows.next().await? else { return Ok(None) };
        let job = match key.first() {
            _ if !is_kept => None,
            Some(&keys::ENDED) => Some(Job::decode(&value)?),
            _ => {
                let Pointer { tenant, seq, name } = Pointer::decode(&key)?;
                let of = JobKey { hash: TenantHash::of(&tenant), seq };
                inner.store.job(of, &tenant, &name).await?
            }
        };
        Ok(Some((key, job)))
    }
}
