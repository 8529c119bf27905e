//! Floating limits: a worker says again and again how many jobs may run at once.
//!
//! Whoever enqueues the first job under such a limit brings a job of the broker's own into being, in the limit's task
//! group: its worker answers with a number, and it runs again a while later, as long as a job is under the limit.
//! It is a job like any other: if its worker dies, another gets it, and what was said last holds until then.

use super::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Seq, refresher};
use crate::keys;
use crate::limit::{Limit, LimitKind};
use crate::machine::Report;
use crate::name::{LimitKey, Tenant};
use crate::retry::RetryPolicy;
use crate::spec::JobSpec;
use bytes::{BufMut, Bytes, BytesMut};
use skerry_core::wire::{FormatError, Reader};

const WHAT: &str = "limit record";
const VERSION: u8 = 1;

/// The job that refreshes a limit.
fn refresher_spec(tenant: &Tenant, limit: &Limit) -> Option<JobSpec> {
    let LimitKind::Floating { refresh_ms, group, .. } = &limit.kind else { return None };
    Some(JobSpec {
        id: Some(refresher(&limit.key)),
        tenant: tenant.clone(),
        group: group.clone(),
        priority: 0,
        payload: Bytes::copy_from_slice(limit.key.as_str().as_bytes()),
        // As long as anybody is under the limit.
        retry: RetryPolicy {
            retries: u16::MAX,
            initial_ms: *refresh_ms,
            max_ms: *refresh_ms,
            factor_percent: 100,
            jitter_percent: 10,
        },
        ..JobSpec::default()
    })
}

impl State {
    /// A job has come under a limit: one that floats has a job that refreshes it.
    pub(super) fn see_to_refresher(
        &mut self,
        tenant: &Tenant,
        limit: &Limit,
        now_ms: u64,
    ) -> Result<()> {
        let Some(spec) = refresher_spec(tenant, limit) else { return Ok(()) };
        let job = Job::new(Seq(0), spec, now_ms);
        if self.machine.place_of(tenant, &job.name()).is_none() {
            self.take(job, now_ms)?;
        }
        Ok(())
    }

    /// A worker says how much a limit lets through: its report, and what becomes of the job.
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
        let Some((refresh_ms, before)) = self.machine.floating(tenant, limit) else {
            self.batch.rows.insert(row, None);
            return Ok(Report::Succeeded);
        };
        if max != before {
            self.machine.set_limit(tenant, limit, max, now_ms)?;
        }
        self.batch.rows.insert(row, Some(encode_max(max)));
        Ok(Report::Again { at_ms: now_ms + u64::from(refresh_ms) })
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

/// How many jobs a floating limit lets run, as it was said last.
pub(super) fn decode_max(bytes: &[u8]) -> Result<u32> {
    let mut reader = Reader::new(WHAT, bytes);
    let version = reader.u8()?;
    reader.bytes(3)?;
    let max = reader.u32()?;
    if reader.u32()? != crc32c::crc32c(&bytes[..8]) {
        return Err(FormatError::BadChecksum { what: WHAT }.into());
    }
    if version > VERSION {
        return Err(FormatError::Newer { what: WHAT, version: version.into() }.into());
    }
    reader.finish()?;
    Ok(max)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
