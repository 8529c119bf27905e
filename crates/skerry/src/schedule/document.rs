//! The payload of a schedule's job: a JSON document, version 1.

use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};
use skerry_client::{NewJob, v1};
use skerry_core::id::VolumeId;
use std::time::Duration;

use super::auto_name::{TIME_MS_MAX, compact};
use super::{GROUP, Interval, SINCE_KEY, TENANT, VOLUME_KEY};
use crate::values::invalid;

/// The version of new documents.
const VERSION: u32 = 1;
/// The most snapshots that are kept.
const KEEP_MAX: u32 = 1000;
/// The lease of a job. If the node that takes a snapshot is killed, the next one does the job after
/// it.
const LEASE: Duration = Duration::from_secs(10);
/// Number of retries of a failed job, after 2 s, 4 s and so on, at most a minute, until it is
/// followed. Then its handler gives up.
const RETRIES: u32 = 65_535;
/// The longest wait between two tries, milliseconds.
const RETRY_MS_MAX: u32 = 60_000;
/// The wait before the first retry, milliseconds.
const RETRY_MS: u32 = 2_000;

/// Number of kept snapshots: 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep(u32);

impl Keep {
    /// Makes a number, if it is in range.
    pub(crate) fn new(count: u32) -> Result<Self> {
        if (1..=KEEP_MAX).contains(&count) {
            return Ok(Self(count));
        }
        Err(invalid(format!("{count} snapshots can't be kept: 1 to {KEEP_MAX}")))
    }

    /// The number.
    pub(crate) fn count(self) -> u32 {
        self.0
    }
}

/// One time of a schedule, with everything for finding the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The volume, whatever its present name.
    pub(crate) volume: VolumeId,
    /// Tells this schedule of the volume from earlier ones: time of its creation, milliseconds
    /// since 1970.
    pub(crate) since_ms: u64,
    /// Due time of the snapshot, milliseconds since 1970.
    pub(crate) due_ms: u64,
    /// The interval of snapshots.
    pub(crate) every: Interval,
    /// Number of kept snapshots.
    pub(crate) keep: Keep,
}

/// The part that tells how to read the rest.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The document. Its fields are a promise to later versions.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    volume: String,
    since_ms: u64,
    due_ms: u64,
    every_ms: u64,
    keep: u32,
}

impl Schedule {
    /// True if its time is further away than one interval: then a clock that was ahead made it.
    pub(crate) fn is_beyond(&self, now_ms: u64) -> bool {
        self.due_ms > now_ms.saturating_add(self.every.ms())
    }

    /// The document.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let document = serde_json::json!(Document {
            version: VERSION,
            volume: self.volume.to_string(),
            since_ms: self.since_ms,
            due_ms: self.due_ms,
            every_ms: self.every.ms(),
            keep: self.keep.count(),
        });
        document.to_string().into_bytes()
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]: it is no document, of another version, or impossible.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let no_json = |error: serde_json::Error| corrupt(&error.to_string());
        let Versioned { version } = serde_json::from_slice(bytes).map_err(no_json)?;
        if version != VERSION {
            return Err(corrupt(&format!("version {version} is not known here")));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(no_json)?;
        let every = Interval::of_ms(document.every_ms);
        let every = every.ok_or_else(|| corrupt(&format!("every {} ms", document.every_ms)))?;
        if document.due_ms > TIME_MS_MAX || !document.due_ms.is_multiple_of(every.ms()) {
            return Err(corrupt(&format!("every {every}, but due at {} ms", document.due_ms)));
        }
        Ok(Self {
            volume: document.volume.parse().map_err(|error| corrupt(&format!("{error}")))?,
            since_ms: document.since_ms,
            due_ms: document.due_ms,
            every,
            keep: Keep::new(document.keep).map_err(|error| corrupt(error.message()))?,
        })
    }

    /// The job's id: one for each time of each schedule.
    pub(crate) fn job_id(&self) -> String {
        format!("snapshots/{}/{}/{}", self.volume, self.since_ms, compact(self.due_ms))
    }

    /// The job that waits for its time. Jobs of one volume are done one after the other, so there
    /// is never more than one snapshot too many.
    pub(crate) fn job(&self) -> NewJob {
        let retry = v1::RetryPolicy {
            retries: Some(RETRIES),
            initial_ms: Some(RETRY_MS),
            max_ms: Some(RETRY_MS_MAX),
            ..v1::RetryPolicy::default()
        };
        NewJob::new(self.encode())
            .id(self.job_id())
            .tenant(TENANT)
            .group(GROUP)
            .start_at_ms(self.due_ms)
            .metadata(VOLUME_KEY, self.volume.to_string())
            .metadata(SINCE_KEY, self.since_ms.to_string())
            .concurrency_limit(format!("snapshots/{}", self.volume), 1)
            .retry(retry)
            .lease(LEASE)
    }
}

fn corrupt(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the job holds no schedule of snapshots: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = concat!(
        r#"{"due_ms":1700002800000,"every_ms":3600000,"keep":24,"since_ms":1700000000123,"#,
        r#""version":1,"volume":"30313233343536373839616263646566"}"#,
    );

    fn schedule() -> Schedule {
        Schedule {
            volume: VolumeId(*b"0123456789abcdef"),
            since_ms: 1_700_000_000_123,
            due_ms: 1_700_002_800_000,
            every: Interval::parse("1h").expect("an hour"),
            keep: Keep::new(24).expect("a number"),
        }
    }

    #[test]
    fn documents_are_as_they_were() {
        let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
        assert_eq!(json(&schedule().encode()), json(SAMPLE.as_bytes()));
        assert_eq!(Schedule::decode(SAMPLE.as_bytes()), Ok(schedule()));
        let id = "snapshots/30313233343536373839616263646566/1700000000123/20231114T230000Z";
        assert_eq!(schedule().job_id(), id);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let with = |from: &str, to: &str| SAMPLE.replace(from, to);
        for bad in [
            String::new(),
            "[]".to_owned(),
            with(r#""version":1"#, r#""version":2"#),
            with(r#""version":1,"#, ""),
            with(r#""version":1"#, r#""version":1,"more":1"#),
            with("3600000", "3600001"),
            with("3600000", "0"),
            with("1700002800000", "1700002800001"),
            with("1700002800000", "18446744073709551615"),
            with(r#""keep":24"#, r#""keep":0"#),
            with(r#""keep":24"#, r#""keep":1001"#),
            with("30313233", "x"),
        ] {
            let error = Schedule::decode(bad.as_bytes()).expect_err(&bad);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad}");
        }
    }
}
