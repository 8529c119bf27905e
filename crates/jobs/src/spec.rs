//! The specification of a job.

use crate::error::{Error, Result};
use crate::job::is_reserved;
use crate::limit::{LIMITS_MAX, Limit};
use crate::name::{Group, JobId, Tenant};
use crate::retry::RetryPolicy;
use bytes::Bytes;
use std::collections::BTreeSet;

/// The largest payload and the largest result, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The most entries of a job's metadata.
pub const METADATA_MAX: usize = 16;
/// The longest key and the longest value of metadata, bytes.
pub const METADATA_BYTES_MAX: usize = 256;
/// The lowest priority; 0 is the highest.
pub const PRIORITY_MAX: u8 = 99;
/// The default priority.
pub const PRIORITY_DEFAULT: u8 = 50;
/// The latest time that a job may name, milliseconds since 1970: the end of the year 9999, the last
/// that calendars have.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;
/// The shortest lease, milliseconds.
pub const LEASE_MS_MIN: u32 = 100;
/// The longest lease, milliseconds: a day.
pub const LEASE_MS_MAX: u32 = 86_400_000;
/// The default lease, milliseconds.
pub const LEASE_MS_DEFAULT: u32 = 30_000;

/// The specification of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSpec {
    /// Its id. A job without one gets one, and asking twice makes two jobs.
    pub id: Option<JobId>,
    /// Its tenant.
    pub tenant: Tenant,
    /// The task group whose workers do it.
    pub group: Group,
    /// From 0, the first, to 99.
    pub priority: u8,
    /// Earliest start, milliseconds since 1970; 0 is now.
    pub start_at_ms: u64,
    /// Bytes for the worker. Skerry does not read them.
    pub payload: Bytes,
    /// Entries by which it can be found; keys are unique.
    pub metadata: Vec<(String, String)>,
    /// Its retries.
    pub retry: RetryPolicy,
    /// Time that a worker has it without a heartbeat, milliseconds.
    pub lease_ms: u32,
    /// Longest time of an attempt, milliseconds, whatever its worker's heartbeats; 0 is no limit.
    pub max_run_ms: u32,
    /// All of these must let it run.
    pub limits: Vec<Limit>,
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            id: None,
            tenant: Tenant::default(),
            group: Group::default(),
            priority: PRIORITY_DEFAULT,
            start_at_ms: 0,
            payload: Bytes::new(),
            metadata: Vec::new(),
            retry: RetryPolicy::default(),
            lease_ms: LEASE_MS_DEFAULT,
            max_run_ms: 0,
            limits: Vec::new(),
        }
    }
}

impl JobSpec {
    /// Bytes from its owner: names, limits, payload and metadata, and a number for the rest.
    pub fn bytes(&self) -> usize {
        const NUMBERS: usize = 64;
        let metadata = self.metadata.iter().map(|(key, value)| key.len() + value.len());
        let id = self.id.as_ref().map_or(0, |id| id.as_str().len());
        let names = id + self.tenant.as_str().len() + self.group.as_str().len();
        let limits: usize = self.limits.iter().map(Limit::bytes).sum();
        NUMBERS + names + limits + self.payload.len() + metadata.sum::<usize>()
    }

    /// Checks that all fields are in range.
    ///
    /// # Errors
    /// `Invalid` names the field.
    pub fn check(&self) -> Result<()> {
        if let Some(id) = self.id.as_ref().filter(|id| is_reserved(id)) {
            let detail = format!(
                "job id {id} is the broker's own: such ids begin with '~', or are '_' and 16 digits"
            );
            return Err(Error::invalid(detail));
        }
        check_priority(self.priority)?;
        check_payload("payload", &self.payload)?;
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&self.lease_ms) {
            let detail = format!(
                "a lease of {} ms is not between {LEASE_MS_MIN} ms and a day",
                self.lease_ms
            );
            return Err(Error::invalid(detail));
        }
        if self.max_run_ms != 0 && self.max_run_ms < LEASE_MS_MIN {
            let detail = format!(
                "a longest run of {} ms is shorter than {LEASE_MS_MIN} ms; \
                 0 is as long as it wants",
                self.max_run_ms
            );
            return Err(Error::invalid(detail));
        }
        check_time("start", self.start_at_ms)?;
        self.retry.check()?;
        self.check_metadata()?;
        self.check_limits()
    }

    fn check_metadata(&self) -> Result<()> {
        if self.metadata.len() > METADATA_MAX {
            let detail = format!("{} entries of metadata: 16 at most", self.metadata.len());
            return Err(Error::invalid(detail));
        }
        let mut keys = BTreeSet::new();
        for (key, value) in &self.metadata {
            let bad = |text: &str| text.len() > METADATA_BYTES_MAX || text.contains('\0');
            if key.is_empty() || bad(key) || bad(value) {
                let shown: String = key.chars().take(METADATA_BYTES_MAX).collect();
                let detail = format!(
                    "metadata {shown:?}: a key has 1 to 256 bytes, a value 256 at most, \
                     both without zero bytes"
                );
                return Err(Error::invalid(detail));
            }
            if !keys.insert(key) {
                return Err(Error::invalid(format!("metadata {key:?} is there twice")));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<()> {
        if self.limits.len() > LIMITS_MAX {
            let detail = format!("{} limits: a job has {LIMITS_MAX} at most", self.limits.len());
            return Err(Error::invalid(detail));
        }
        let mut keys = BTreeSet::new();
        for limit in &self.limits {
            limit.kind.check(&limit.key)?;
            if !keys.insert(&limit.key) {
                return Err(Error::invalid(format!("limit {} is there twice", limit.key)));
            }
        }
        Ok(())
    }
}

/// Checks that a priority is in range.
///
/// # Errors
/// `Invalid` if not.
pub fn check_priority(priority: u8) -> Result<()> {
    if priority > PRIORITY_MAX {
        let detail = format!("priority {priority} is not between 0, the first, and 99");
        return Err(Error::invalid(detail));
    }
    Ok(())
}

/// Checks that calendars have a time.
///
/// # Errors
/// `Invalid` if not.
pub fn check_time(what: &str, at_ms: u64) -> Result<()> {
    if at_ms > TIME_MS_MAX {
        let detail = format!(
            "the {what} time {at_ms} is after the year 9999: times are milliseconds since 1970"
        );
        return Err(Error::invalid(detail));
    }
    Ok(())
}

/// Checks the size of a payload or a result.
///
/// # Errors
/// `Invalid` if it is too large.
pub fn check_payload(what: &str, bytes: &[u8]) -> Result<()> {
    if bytes.len() > PAYLOAD_BYTES_MAX {
        let detail = format!(
            "a {what} of {} bytes: 1 MiB at most; put it into a bucket and name it here",
            bytes.len()
        );
        return Err(Error::invalid(detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::LimitKind;
    use crate::name::LimitKey;

    fn limit(key: &str) -> Limit {
        let key = LimitKey::new(key).expect("a name");
        Limit { key, kind: LimitKind::Concurrency { max: 1 } }
    }

    #[test]
    fn every_field_has_its_range() {
        let good = JobSpec::default;
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let many = (0..17).map(|n| pair(&n.to_string(), "")).collect();
        let limits = (0..9).map(|n| limit(&n.to_string())).collect();
        assert_eq!(good().check(), Ok(()));
        for bad in [
            JobSpec { id: JobId::new("~1").ok(), ..good() },
            JobSpec { id: JobId::new("_00000000000000ff").ok(), ..good() },
            JobSpec { priority: 100, ..good() },
            JobSpec { payload: vec![0; PAYLOAD_BYTES_MAX + 1].into(), ..good() },
            JobSpec { start_at_ms: TIME_MS_MAX + 1, ..good() },
            JobSpec { max_run_ms: 99, ..good() },
            JobSpec { lease_ms: 99, ..good() },
            JobSpec { lease_ms: LEASE_MS_MAX + 1, ..good() },
            JobSpec { retry: RetryPolicy { jitter_percent: 101, ..Default::default() }, ..good() },
            JobSpec { metadata: many, ..good() },
            JobSpec { metadata: vec![pair("", "")], ..good() },
            JobSpec { metadata: vec![pair("a\0", "")], ..good() },
            JobSpec { metadata: vec![pair("a", &"x".repeat(257))], ..good() },
            JobSpec { metadata: vec![pair("a", "1"), pair("a", "2")], ..good() },
            JobSpec { limits, ..good() },
            JobSpec { limits: vec![limit("a"), limit("a")], ..good() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
