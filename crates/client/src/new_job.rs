//! A job to enqueue, built field by field.

use bytes::Bytes;
use skerry_api::v1;
use std::time::Duration;

/// A job to enqueue. The node's default stands for a field that is not set.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct NewJob {
    pub(crate) spec: v1::JobSpec,
}

impl NewJob {
    /// Makes a job with this payload for its worker: 1 MiB at most.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { spec: v1::JobSpec { payload: payload.into(), ..v1::JobSpec::default() } }
    }

    fn with(mut self, set: impl FnOnce(&mut v1::JobSpec)) -> Self {
        set(&mut self.spec);
        self
    }

    /// Sets the id. The node does not enqueue a second job of the tenant with one id.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.with(|spec| spec.id = id.into())
    }

    /// Sets the tenant.
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        self.with(|spec| spec.tenant = tenant.into())
    }

    /// Sets the task group: its workers do the job.
    pub fn group(self, group: impl Into<String>) -> Self {
        self.with(|spec| spec.group = group.into())
    }

    /// Sets the priority, from 0, the first, to 99.
    pub fn priority(self, priority: u8) -> Self {
        self.with(|spec| spec.priority = Some(priority.into()))
    }

    /// Sets the earliest start, milliseconds since 1970.
    pub fn start_at_ms(self, at_ms: u64) -> Self {
        self.with(|spec| spec.start_at_ms = at_ms)
    }

    /// Adds an entry of metadata, by which people find the job: 16 entries at most.
    pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|spec| drop(spec.metadata.insert(key.into(), value.into())))
    }

    /// Sets the retry policy.
    pub fn retry(self, retry: v1::RetryPolicy) -> Self {
        self.with(|spec| spec.retry = Some(retry))
    }

    /// Sets the time of a lease without a heartbeat: 100 ms to a day.
    pub fn lease(self, lease: Duration) -> Self {
        let ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        self.with(|spec| spec.lease_ms = ms)
    }

    /// Sets the longest time of an attempt: at least 100 ms. After it the attempt has failed, even
    /// if its worker reports otherwise.
    pub fn max_run(self, time: Duration) -> Self {
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.with(|spec| spec.max_run_ms = ms)
    }

    /// Adds a concurrency limit: at most `max` jobs of the tenant run at once under this name.
    pub fn concurrency_limit(self, name: impl Into<String>, max: u32) -> Self {
        let kind = v1::limit::Kind::Concurrency(v1::ConcurrencyLimit { max });
        self.limit(v1::Limit { name: name.into(), kind: Some(kind) })
    }

    /// Adds a limit that must let the job run: 8 at most.
    pub fn limit(self, limit: v1::Limit) -> Self {
        self.with(|spec| spec.limits.push(limit))
    }
}
