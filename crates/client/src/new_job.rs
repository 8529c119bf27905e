//! What somebody wants done, put together a field at a time.

use bytes::Bytes;
use skerry_api::v1;
use std::time::Duration;

/// A job to be enqueued. What is not said is the node's default.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct NewJob {
    pub(crate) spec: v1::JobSpec,
}

impl NewJob {
    /// A job whose worker gets these bytes: 1 MiB at most.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { spec: v1::JobSpec { payload: payload.into(), ..v1::JobSpec::default() } }
    }

    fn with(mut self, set: impl FnOnce(&mut v1::JobSpec)) -> Self {
        set(&mut self.spec);
        self
    }

    /// Its id: one that the tenant has already is not enqueued again.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.with(|spec| spec.id = id.into())
    }

    /// Whose it is.
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        self.with(|spec| spec.tenant = tenant.into())
    }

    /// Which workers do it.
    pub fn group(self, group: impl Into<String>) -> Self {
        self.with(|spec| spec.group = group.into())
    }

    /// 0, the first, to 99.
    pub fn priority(self, priority: u8) -> Self {
        self.with(|spec| spec.priority = Some(priority.into()))
    }

    /// Not before this, milliseconds since 1970.
    pub fn start_at_ms(self, at_ms: u64) -> Self {
        self.with(|spec| spec.start_at_ms = at_ms)
    }

    /// What it can be found by: 16 entries at most.
    pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|spec| drop(spec.metadata.insert(key.into(), value.into())))
    }

    /// When it is tried again.
    pub fn retry(self, retry: v1::RetryPolicy) -> Self {
        self.with(|spec| spec.retry = Some(retry))
    }

    /// How long a worker has it without a sign of life: 100 ms to a day.
    pub fn lease(self, lease: Duration) -> Self {
        let ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        self.with(|spec| spec.lease_ms = ms)
    }

    /// How long an attempt may take in all: at least 100 ms. Then it has failed, whatever its worker says.
    pub fn max_run(self, time: Duration) -> Self {
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.with(|spec| spec.max_run_ms = ms)
    }

    /// At most so many jobs of the tenant run at once under this name.
    pub fn concurrency_limit(self, name: impl Into<String>, max: u32) -> Self {
        let kind = v1::limit::Kind::Concurrency(v1::ConcurrencyLimit { max });
        self.limit(v1::Limit { name: name.into(), kind: Some(kind) })
    }

    /// A limit that must let it run: 8 at most.
    pub fn limit(self, limit: v1::Limit) -> Self {
        self.with(|spec| spec.limits.push(limit))
    }
}
