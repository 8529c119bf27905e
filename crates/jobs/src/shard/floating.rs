//! Floating limits: a worker reports again and again how many jobs may run at once.
//!
//! The first job under such a limit makes the broker add a job of its own, the refresher, in the
//! limit's task group. Its worker reports a number, and the job runs again a while later, as long
//! as a job is under the limit. The refresher is a job like any other: if its worker dies, another
//! gets it, and the last number holds until then. But it never fails for good, and the broker
//! replaces one that is cancelled. Otherwise no worker would be asked again.

use super::edit::Edit;
use super::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobRef, Seq, refreshed_by, refresher};
use crate::keys;
use crate::machine::{Floating, Report};
use crate::name::{LimitKey, Tenant};
use crate::rate_row;
use crate::retry::RetryPolicy;
use crate::spec::JobSpec;
use bytes::{BufMut, Bytes, BytesMut};
use skerry_core::wire::{FormatError, Reader};

const WHAT: &str = "limit record";
const VERSION: u8 = 1;

/// The job that refreshes a limit, not before `start_at_ms`.
fn refresher_spec(tenant: &Tenant, key: &LimitKey, limit: &Floating, start_at_ms: u64) -> JobSpec {
    JobSpec {
        id: Some(refresher(key)),
        tenant: tenant.clone(),
        group: limit.group.clone(),
        priority: 0,
        start_at_ms,
        payload: Bytes::copy_from_slice(key.as_str().as_bytes()),
        retry: RetryPolicy {
            retries: u16::MAX,
            initial_ms: limit.refresh_ms,
            max_ms: limit.refresh_ms,
            factor_percent: 100,
            jitter_percent: 10,
        },
        ..JobSpec::default()
    }
}

impl State {
    /// Adds or moves a limit's refresher, after a job came under a limit or a refresher ended. Must
    /// hold: a floating limit with a job under it has a refresher, with the task group and interval
    /// of its newest definition. A new one does not run before `start_at_ms`.
    pub(super) fn see_to_refresher(
        &mut self,
        tenant: &Tenant,
        key: &LimitKey,
        start_at_ms: u64,
        now_ms: u64,
    ) {
        let Some(limit) = self.machine.floating(tenant, key) else { return };
        let name = JobRef::Named(refresher(key));
        let mut start_at_ms = start_at_ms;
        if let Some((group, starts_ms)) = self.machine.group_of(tenant, &name) {
            // One that runs is moved when its attempt ends.
            let Some(starts_ms) = starts_ms else { return };
            // No worker is asked more often than either definition says.
            start_at_ms = starts_ms.min(now_ms + u64::from(limit.refresh_ms));
            if *group == limit.group && start_at_ms == starts_ms {
                return;
            }
            let Some(job) = self.machine.key_of(tenant, &name) else { return };
            if self.machine.remove(tenant, &name, now_ms).is_ok() {
                self.edit(job, Edit::Deleted);
            }
        }
        let spec = refresher_spec(tenant, key, &limit, start_at_ms);
        let taken = self.take(Job::new(Seq(0), spec, now_ms), now_ms);
        taken.expect("there is none of this name, and it is under no limit");
    }

    /// Checks the limit that a job refreshes, if it does, after a change of the job.
    pub(super) fn see_to_its_limit(&mut self, tenant: &Tenant, job: &JobRef, now_ms: u64) {
        let JobRef::Named(id) = job else { return };
        let Some(key) = refreshed_by(id) else { return };
        if let Some(limit) = self.machine.floating(tenant, &key) {
            self.see_to_refresher(tenant, &key, now_ms + u64::from(limit.refresh_ms), now_ms);
        }
    }

    /// Takes a worker's number for a limit; gives the report of the refresher's attempt.
    pub(super) fn refresh(
        &mut self,
        tenant: &Tenant,
        limit: &LimitKey,
        result: &[u8],
        now_ms: u64,
    ) -> Result<Report> {
        let said = std::str::from_utf8(result).ok().and_then(|text| text.trim().parse().ok());
        let max: u32 = said.ok_or_else(|| {
            let detail = format!(
                "limit {limit} is refreshed with a number in decimal digits, and this is none"
            );
            Error::new(ErrorKind::Invalid, detail)
        })?;
        let row = keys::limit(tenant, limit);
        let Some(before) = self.machine.floating(tenant, limit) else {
            self.batch.rows.insert(row, None);
            return Ok(Report::Succeeded);
        };
        if max != before.max {
            self.machine.set_limit(tenant, limit, max, now_ms)?;
        }
        self.batch.rows.insert(row, Some(encode_max(max)));
        let name = JobRef::Named(refresher(limit));
        let asked = self.machine.group_of(tenant, &name);
        if asked.is_some_and(|(group, _)| *group != before.group) {
            // Workers of the new group are asked from now on.
            return Ok(Report::Succeeded);
        }
        Ok(Report::Again { at_ms: now_ms + u64::from(before.refresh_ms) })
    }
}

fn encode_max(max: u32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_bytes(0, 3);
    out.put_u32_le(max);
    let sum = crc32c::crc32c(&out);
    out.put_u32_le(sum);
    out.freeze()
}

/// The number that a worker last reported for a floating limit.
pub(super) fn decode_max(bytes: &[u8]) -> std::result::Result<u32, FormatError> {
    let mut reader = Reader::new(WHAT, rate_row::body(WHAT, VERSION, bytes)?);
    let max = reader.u32()?;
    reader.finish()?;
    Ok(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_of_version_1_is_written_and_read() {
        let sample = crate::record::sample("limit.bin", &encode_max(7));
        assert_eq!(decode_max(&sample), Ok(7));
        assert_eq!(encode_max(7), sample, "what is written changed: it needs a version");
    }

    #[test]
    fn every_flipped_bit_of_a_limit_is_noticed() {
        let good = encode_max(7);
        assert_eq!(decode_max(&good), Ok(7));
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_max(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_row_that_is_longer_is_newer_and_not_damaged() {
        let mut newer = vec![0; 40];
        newer[0] = VERSION + 1;
        let sum = crc32c::crc32c(&newer);
        newer.extend(sum.to_le_bytes());
        assert!(matches!(decode_max(&newer), Err(FormatError::Newer { .. })));
    }
}
