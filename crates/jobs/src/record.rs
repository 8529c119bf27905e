//! Job as bytes: `docs/jobs.md` has the table. A version, a checksum, and fields in a fixed order.
//! An attempt under way is not part of it: it has a row of its own, the lease.

use crate::error::Result;
use crate::job::{Attempt, AttemptNo, Ending, Epoch, Job, JobError, JobState, Seq};
use crate::limit::{Limit, LimitKind};
use crate::name::{Group, JobId, LimitKey, Tenant, Worker};
use crate::retry::RetryPolicy;
use crate::spec::JobSpec;
use bytes::{BufMut, Bytes, BytesMut};
use skerry_core::wire::{FormatError, Reader};

const WHAT: &str = "job record";
/// The version that this code writes, and the newest that it reads.
pub const VERSION: u8 = 2;
/// Version, three reserved bytes, checksum.
pub const HEAD_BYTES: usize = 8;

const CANCEL_ASKED: u8 = 1;
const HAS_ID: u8 = 2;
const HAS_ENDED: u8 = 4;

impl Job {
    /// Encodes the job, without the attempt that is under way.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256 + self.spec.payload.len());
        out.put_bytes(0, HEAD_BYTES);
        put_fixed(&mut out, self);
        put_spec(&mut out, &self.spec);
        let ended = || self.attempts.iter().filter_map(|one| Some((one, one.ended.as_ref()?)));
        out.put_u8(ended().count() as u8);
        ended().for_each(|(attempt, end)| put_attempt(&mut out, attempt, end));
        put_bytes(&mut out, &self.spec.payload);
        let sum = crc32c::crc32c(&out[HEAD_BYTES..]);
        out[0] = VERSION;
        out[4..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        out.freeze()
    }

    /// Decodes a job.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(WHAT, bytes);
        let version = reader.u8()?;
        reader.bytes(3)?;
        let sum = reader.u32()?;
        if version == 0 {
            return Err(FormatError::BadMagic { what: WHAT }.into());
        }
        if crc32c::crc32c(&bytes[HEAD_BYTES..]) != sum {
            return Err(FormatError::BadChecksum { what: WHAT }.into());
        }
        if version > VERSION {
            return Err(FormatError::Newer { what: WHAT, version: u32::from(version) }.into());
        }
        if version < VERSION {
            return Err(invalid(format!("version {version} is an older Skerry's")));
        }
        let job = take_job(&mut reader)?;
        reader.finish()?;
        Ok(job)
    }
}

fn put_fixed(out: &mut BytesMut, job: &Job) {
    let flag = |is_set, bit| if is_set { bit } else { 0 };
    out.put_u64_le(job.seq.0);
    out.put_u64_le(job.created_ms);
    out.put_u64_le(job.ended_ms.unwrap_or_default());
    out.put_u64_le(job.spec.start_at_ms);
    out.put_u32_le(job.uncounted);
    out.put_u32_le(job.spec.lease_ms);
    out.put_u32_le(job.spec.max_run_ms);
    out.put_u32_le(job.spec.retry.initial_ms);
    out.put_u32_le(job.spec.retry.max_ms);
    out.put_u16_le(job.spec.retry.retries);
    out.put_u16_le(job.spec.retry.factor_percent);
    out.put_u8(job.spec.retry.jitter_percent);
    out.put_u8(match job.state {
        JobState::Scheduled | JobState::Running => 0,
        JobState::Succeeded => 2,
        JobState::Failed => 3,
        JobState::Cancelled => 4,
    });
    out.put_u8(job.spec.priority);
    out.put_u8(
        flag(job.cancel_asked, CANCEL_ASKED)
            | flag(job.spec.id.is_some(), HAS_ID)
            | flag(job.ended_ms.is_some(), HAS_ENDED),
    );
}

fn put_spec(out: &mut BytesMut, spec: &JobSpec) {
    if let Some(id) = &spec.id {
        put_text(out, id.as_str());
    }
    put_text(out, spec.tenant.as_str());
    put_text(out, spec.group.as_str());
    out.put_u8(spec.metadata.len() as u8);
    for (key, value) in &spec.metadata {
        put_text(out, key);
        put_text(out, value);
    }
    out.put_u8(spec.limits.len() as u8);
    for limit in &spec.limits {
        put_text(out, limit.key.as_str());
        match &limit.kind {
            LimitKind::Concurrency { max } => {
                out.put_u8(1);
                out.put_u32_le(*max);
            }
            LimitKind::Floating { initial, refresh_ms, group } => {
                out.put_u8(2);
                out.put_u32_le(*initial);
                out.put_u32_le(*refresh_ms);
                put_text(out, group.as_str());
            }
            LimitKind::Rate { count, per_ms, burst } => {
                out.put_u8(3);
                out.put_u32_le(*count);
                out.put_u32_le(*per_ms);
                out.put_u32_le(*burst);
            }
        }
    }
}

fn put_attempt(out: &mut BytesMut, attempt: &Attempt, (at_ms, ending): &(u64, Ending)) {
    out.put_u32_le(attempt.number.0);
    out.put_u32_le(attempt.epoch.0);
    out.put_u64_le(attempt.started_ms);
    put_text(out, attempt.worker.as_str());
    let kind = match ending {
        Ending::Succeeded(_) => 1,
        Ending::Failed(_) => 2,
        Ending::Expired => 3,
        Ending::Cancelled => 4,
        Ending::Returned => 5,
        Ending::TooLong => 6,
    };
    out.put_u8(kind);
    out.put_u64_le(*at_ms);
    match ending {
        Ending::Succeeded(result) => put_bytes(out, result),
        Ending::Failed(error) => {
            out.put_u8(u8::from(error.is_final));
            put_bytes(out, error.code.as_bytes());
            put_bytes(out, error.message.as_bytes());
        }
        Ending::Expired | Ending::Cancelled | Ending::Returned | Ending::TooLong => {}
    }
}

/// Writes a text of at most 256 bytes.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn take_job(reader: &mut Reader<'_>) -> Result<Job> {
    let seq = Seq(reader.u64()?);
    let created_ms = reader.u64()?;
    let ended_ms = reader.u64()?;
    let start_at_ms = reader.u64()?;
    let uncounted = reader.u32()?;
    let lease_ms = reader.u32()?;
    let max_run_ms = reader.u32()?;
    let (initial_ms, max_ms) = (reader.u32()?, reader.u32()?);
    let (retries, factor_percent) = (reader.u16()?, reader.u16()?);
    let jitter_percent = reader.u8()?;
    let retry = RetryPolicy { retries, initial_ms, max_ms, factor_percent, jitter_percent };
    let state = match reader.u8()? {
        0 => JobState::Scheduled,
        2 => JobState::Succeeded,
        3 => JobState::Failed,
        4 => JobState::Cancelled,
        other => return Err(invalid(format!("state {other}"))),
    };
    let priority = reader.u8()?;
    let flags = reader.u8()?;
    let id = (flags & HAS_ID != 0).then(|| take_text(reader)).transpose()?;
    let mut spec = JobSpec {
        id: id.map(|id| JobId::new(&id)).transpose()?,
        tenant: Tenant::new(&take_text(reader)?)?,
        group: Group::new(&take_text(reader)?)?,
        priority,
        start_at_ms,
        payload: Bytes::new(),
        metadata: take_list(reader, |reader| Ok((take_text(reader)?, take_text(reader)?)))?,
        retry,
        lease_ms,
        max_run_ms,
        limits: take_list(reader, take_limit)?,
    };
    let attempts = take_list(reader, take_attempt)?;
    spec.payload = take_bytes(reader)?;
    Ok(Job {
        seq,
        spec,
        state,
        created_ms,
        ended_ms: (flags & HAS_ENDED != 0).then_some(ended_ms),
        cancel_asked: flags & CANCEL_ASKED != 0,
        uncounted,
        attempts,
    })
}

fn take_limit(reader: &mut Reader<'_>) -> Result<Limit> {
    let key = LimitKey::new(&take_text(reader)?)?;
    let kind = match reader.u8()? {
        1 => LimitKind::Concurrency { max: reader.u32()? },
        2 => LimitKind::Floating {
            initial: reader.u32()?,
            refresh_ms: reader.u32()?,
            group: Group::new(&take_text(reader)?)?,
        },
        3 => LimitKind::Rate { count: reader.u32()?, per_ms: reader.u32()?, burst: reader.u32()? },
        other => return Err(invalid(format!("limit of kind {other}"))),
    };
    Ok(Limit { key, kind })
}

fn take_attempt(reader: &mut Reader<'_>) -> Result<Attempt> {
    let number = AttemptNo(reader.u32()?);
    let epoch = Epoch(reader.u32()?);
    let started_ms = reader.u64()?;
    let worker = Worker::new(&take_text(reader)?)?;
    let kind = reader.u8()?;
    let at_ms = reader.u64()?;
    let ending = match kind {
        1 => Ending::Succeeded(take_bytes(reader)?),
        2 => {
            let is_final = reader.u8()? != 0;
            let (code, message) = (take_long_text(reader)?, take_long_text(reader)?);
            Ending::Failed(JobError { code, message, is_final })
        }
        3 => Ending::Expired,
        4 => Ending::Cancelled,
        5 => Ending::Returned,
        6 => Ending::TooLong,
        other => return Err(invalid(format!("end of an attempt of kind {other}"))),
    };
    Ok(Attempt { number, epoch, worker, started_ms, ended: Some((at_ms, ending)) })
}

fn take_list<T>(
    reader: &mut Reader<'_>,
    take: impl Fn(&mut Reader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let len = reader.u8()?;
    (0..len).map(|_| take(reader)).collect()
}

pub(crate) fn take_text(reader: &mut Reader<'_>) -> Result<String> {
    let len = reader.u16()?;
    text(reader.bytes(len.into())?)
}

fn take_long_text(reader: &mut Reader<'_>) -> Result<String> {
    text(&take_bytes(reader)?)
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| invalid("a text that is not UTF-8".to_owned()))
}

fn take_bytes(reader: &mut Reader<'_>) -> Result<Bytes> {
    let len = reader.u32()?;
    Ok(Bytes::copy_from_slice(reader.bytes(len as usize)?))
}

fn invalid(detail: String) -> crate::Error {
    FormatError::invalid(WHAT, detail).into()
}

/// A sample of what this version writes. `SKERRY_WRITE_SAMPLE=1` writes it; a later version keeps
/// it readable.
#[cfg(test)]
pub(crate) fn sample(name: &str, now: &[u8]) -> Vec<u8> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/jobs/v2");
    let path = std::path::Path::new(dir).join(name);
    if std::env::var_os("SKERRY_WRITE_SAMPLE").is_some() {
        std::fs::create_dir_all(dir).expect("the directory can be made");
        std::fs::write(&path, now).expect("the file can be written");
    }
    std::fs::read(path).expect("the sample is there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// A job with something in every field.
    fn full() -> Job {
        let limit = |key: &str, kind| Limit { key: LimitKey::new(key).expect("a name"), kind };
        let group = Group::new("refreshers").expect("a name");
        let worker = Worker::new("w-1").expect("a name");
        let error = JobError { code: "E42".into(), message: "näh".into(), is_final: true };
        let endings = [
            Some((5, Ending::Succeeded("done".into()))),
            Some((6, Ending::Failed(error))),
            Some((7, Ending::Expired)),
            Some((8, Ending::Cancelled)),
            Some((9, Ending::Returned)),
            Some((9, Ending::TooLong)),
        ];
        let attempts = endings.into_iter().zip(1..).map(|(ended, number)| Attempt {
            number: AttemptNo(number),
            epoch: Epoch(1),
            worker: worker.clone(),
            started_ms: 4,
            ended,
        });
        Job {
            seq: Seq(77),
            spec: JobSpec {
                id: JobId::new("mail-1").ok(),
                tenant: Tenant::new("acme").expect("a name"),
                group: Group::new("mail").expect("a name"),
                priority: 3,
                start_at_ms: 1_700_000_000_000,
                payload: "{\"to\": \"x\"}".into(),
                metadata: vec![("user".into(), "42".into()), ("empty".into(), String::new())],
                retry: RetryPolicy::default(),
                lease_ms: 10_000,
                max_run_ms: 600_000,
                limits: vec![
                    limit("a", LimitKind::Concurrency { max: 2 }),
                    limit("b", LimitKind::Floating { initial: 3, refresh_ms: 4_000, group }),
                    limit("c", LimitKind::Rate { count: 5, per_ms: 6, burst: 7 }),
                ],
            },
            state: JobState::Failed,
            created_ms: 3,
            ended_ms: Some(9),
            cancel_asked: true,
            uncounted: 2,
            attempts: attempts.collect(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Job::decode(&full().encode()), Ok(full()));
        let plain = Job::new(Seq(1), JobSpec::default(), 2);
        assert_eq!(Job::decode(&plain.encode()), Ok(plain));
    }

    #[test]
    fn a_job_that_runs_is_written_as_it_waited() {
        let waits = Job { state: JobState::Scheduled, ended_ms: None, ..full() };
        let mut runs = waits.clone();
        runs.lease(AttemptNo(6), Epoch(2), Worker::new("w").expect("a name"), 11);
        assert_eq!(Job::decode(&runs.encode()), Ok(waits));
    }

    #[test]
    fn the_sample_of_version_2_is_written_and_read() {
        let sample = sample("record.bin", &full().encode());
        assert_eq!(Job::decode(&sample), Ok(full()));
        assert_eq!(full().encode(), sample, "what is written changed: it needs a version");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = full().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let is_reserved = (8..32).contains(&bit);
            assert_eq!(Job::decode(&bad).is_err(), !is_reserved, "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(Job::decode(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_newer_record_is_refused_as_newer() {
        let mut newer = full().encode().to_vec();
        newer[0] = VERSION + 1;
        let error = Job::decode(&newer).expect_err("newer");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("newer"), "{error}");
    }
}
