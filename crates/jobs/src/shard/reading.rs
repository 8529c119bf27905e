//! What a shard tells of its jobs. Everything that is told is durable, and nothing is missing that had happened
//! before it was asked.

use super::calls::no_job;
use super::state::Totals;
use super::store::Row;
use super::{Inner, Shard};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobRef, Seq, State as JobState};
use crate::keys;
use crate::machine::{Counts, GroupCounts};
use crate::name::{Group, Tenant};
use bytes::Bytes;
use tokio::sync::oneshot;

/// The most jobs that one listing gives.
pub const LISTED_MAX: usize = 1000;
/// A listing ends beyond so many bytes of names, metadata and errors: it is to fit a message without payloads and results.
const LISTED_BYTES_MAX: usize = 1 << 20;
/// And beyond so many bytes of payloads and results, also of jobs that don't match.
const LISTED_CONTENT_BYTES_MAX: usize = 16 << 20;
/// The most rows that one listing looks at: what does not match costs time too.
const ROWS_MAX: usize = 10_000;

/// Which jobs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Whose; all tenants' if none.
    pub tenant: Option<Tenant>,
    /// Of which task group.
    pub group: Option<Group>,
    /// In which state.
    pub state: Option<JobState>,
    /// With this entry of metadata; needs a tenant.
    pub metadata: Option<(String, String)>,
    /// The value of the entry only begins so.
    pub is_prefix: bool,
    /// So many at most.
    pub limit: usize,
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Bytes);

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Jobs, oldest first, those that have come to their end after the others; by the value if metadata were asked for.
    pub jobs: Vec<Job>,
    /// Where it goes on, if it does. There may be more even if there are no jobs here.
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

    /// What the keys begin with that are looked at, in their order.
    fn prefixes(&self) -> Vec<Vec<u8>> {
        if let (Some(tenant), Some(entry)) = (&self.tenant, &self.metadata) {
            return vec![keys::metadata_prefix(tenant, entry, self.is_prefix)];
        }
        let kinds: &[u8] = match self.state {
            Some(JobState::Failed) => &[keys::DEAD],
            Some(state) if state.is_final() => &[keys::FINAL],
            Some(_) => &[keys::ACTIVE],
            None => &[keys::ACTIVE, keys::FINAL],
        };
        kinds.iter().map(|kind| vec![*kind]).collect()
    }
}

impl Shard {
    /// A job, as it was when everything was durable that happened before this call.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn show(&self, tenant: &Tenant, job: &JobRef) -> Result<Job> {
        // Where it is, before the wait: its record may say another moment later that it has ended.
        let (mark, seq) = {
            let state = self.inner.state.lock();
            state.check()?;
            (self.inner.pending(&state), state.place_or_ending(tenant, job))
        };
        self.inner.wait_durable(mark).await?;
        self.inner.find(tenant, job, seq).await?.ok_or_else(|| no_job(tenant, job))
    }

    /// A job, once it has come to its end.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn await_end(&self, tenant: &Tenant, job: &JobRef) -> Result<Job> {
        loop {
            if let Some(ended) = self.end_of(tenant, job)?
                && let Ok(job) = ended.await
            {
                return Ok(job);
            }
            // It had ended, or is deleted, or nobody will tell. One that was restarted meanwhile is waited for again.
            let found = self.show(tenant, job).await?;
            if found.state.is_final() {
                return Ok(found);
            }
        }
    }

    /// Tells how a job ends, if it has not, or if its record does not say so yet.
    fn end_of(&self, tenant: &Tenant, job: &JobRef) -> Result<Option<oneshot::Receiver<Job>>> {
        let mut state = self.inner.state.lock();
        state.check()?;
        let Some(seq) = state.place_or_ending(tenant, job) else { return Ok(None) };
        let (tell, ended) = oneshot::channel();
        let waiting = state.awaiting.entry(seq).or_default();
        waiting.retain(|other| !other.is_closed());
        waiting.push(tell);
        Ok(Some(ended))
    }

    /// Jobs that match, from where a listing before ended.
    ///
    /// # Errors
    /// `Invalid`, `Unavailable`.
    pub async fn list(&self, query: &Query, after: Option<&Cursor>) -> Result<Listed> {
        query.check()?;
        self.inner.catch_up().await?;
        let mut listed = Listed { jobs: Vec::new(), next: None };
        let (mut looked_at, mut bytes, mut content_bytes) = (0, 0, 0);
        let after = after.map(|cursor| cursor.0.clone());
        let prefixes = query.prefixes();
        let begun = after
            .as_ref()
            .and_then(|after| prefixes.iter().position(|prefix| after.starts_with(prefix)));
        for prefix in prefixes.iter().skip(begun.unwrap_or(0)) {
            let rows = self.inner.store.rows(prefix, after.as_deref());
            let mut rows = self.inner.read(rows).await?;
            while let Some(Row { key, value, is_kept }) = self.inner.read(rows.next()).await? {
                looked_at += 1;
                if is_kept && let Some(job) = self.inner.job_of_row(&key, &value).await? {
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
                    listed.next = Some(Cursor(key));
                    return Ok(listed);
                }
            }
        }
        Ok(listed)
    }

    /// How many jobs there are that have not come to their end.
    pub fn counts(&self) -> Counts {
        self.inner.state.lock().machine.counts()
    }

    /// The same, by task group.
    pub fn groups(&self) -> Vec<(Group, GroupCounts)> {
        self.inner.state.lock().machine.groups()
    }

    /// What has happened since the shard was opened.
    pub fn totals(&self) -> Totals {
        self.inner.state.lock().totals
    }
}

impl Inner {
    /// A job, as its record says; at this place, if it is known.
    pub(super) async fn find(
        &self,
        tenant: &Tenant,
        job: &JobRef,
        seq: Option<Seq>,
    ) -> Result<Option<Job>> {
        let seq = match (seq, job) {
            (Some(seq), _) => Some(seq),
            (None, JobRef::Named(id)) => self.read(self.store.ended(tenant, id)).await?,
            (None, JobRef::Assigned(seq)) => Some(*seq),
        };
        let found = match seq {
            Some(seq) => self.read(self.store.job(seq)).await?,
            None => None,
        };
        let is_it = |found: &Job| found.spec.tenant == *tenant && found.name() == *job;
        Ok(found.filter(is_it))
    }

    /// The job that a row is, or points to; none if it has gone since.
    async fn job_of_row(&self, key: &[u8], value: &[u8]) -> Result<Option<Job>> {
        if matches!(key.first(), Some(&keys::ACTIVE | &keys::FINAL)) {
            return Job::decode(value).map(Some);
        }
        let seq = keys::seq_of(key).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "a row of the jobs' database has a name that is none")
        })?;
        self.read(self.store.job(seq)).await
    }
}
