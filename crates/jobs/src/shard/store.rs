//! A shard's database: jobs under their keys, written in batches, each whole or not at all.

use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Seq, State};
use crate::keys;
use crate::name::{JobId, Tenant};
use bytes::{BufMut, BytesMut};
use skerry_core::wire::{FormatError, Reader};
use slatedb::config::{FlushOptions, FlushType, PutOptions, Ttl};
use slatedb::{Db, DbIterator, WriteBatch};

/// What the shard's descriptor is called in messages.
const WHAT: &str = "shard descriptor";
const VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"SKRJ";

/// How long jobs are kept that have come to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Those that succeeded or were called off, milliseconds.
    pub done_ms: u64,
    /// Dead letters, milliseconds.
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
    retention: Retention,
}

/// Changes that are made together.
#[derive(Default)]
pub(super) struct Changes {
    batch: WriteBatch,
}

impl Store {
    pub(super) fn new(db: Db, retention: Retention) -> Self {
        Self { db, retention }
    }

    /// Notes that the shard was opened once more, durably; says how often it was.
    pub(super) async fn begin_incarnation(&self) -> Result<u64> {
        let found = self.db.get(keys::DESCRIPTOR).await.map_err(failed)?;
        let before = found.map(|bytes| decode_descriptor(&bytes)).transpose()?.unwrap_or(0);
        let mut changes = Changes::default();
        changes.batch.put(keys::DESCRIPTOR, encode_descriptor(before + 1));
        self.write(changes).await?;
        self.sync().await?;
        Ok(before + 1)
    }

    /// A job, wherever it stands.
    pub(super) async fn job(&self, seq: Seq) -> Result<Option<Job>> {
        match self.get_job(&keys::active(seq)).await? {
            None => self.get_job(&keys::ended(seq)).await,
            found => Ok(found),
        }
    }

    async fn get_job(&self, key: &[u8]) -> Result<Option<Job>> {
        let found = self.db.get(key).await.map_err(failed)?;
        found.map(|bytes| Job::decode(&bytes)).transpose()
    }

    /// The place of a job that has come to its end.
    pub(super) async fn ended(&self, tenant: &Tenant, id: &JobId) -> Result<Option<Seq>> {
        let found = self.db.get(keys::named(tenant, id)).await.map_err(failed)?;
        Ok(found.and_then(|value| keys::seq_of(&value)))
    }

    /// All jobs that have not come to their end, oldest first.
    pub(super) async fn active(&self) -> Result<Jobs> {
        let rows = self.db.scan_prefix([keys::ACTIVE], ..).await.map_err(failed)?;
        Ok(Jobs { rows })
    }

    /// Puts a job where it belongs. `was_final`: it had come to its end before.
    pub(super) fn put(&self, changes: &mut Changes, job: &Job, is_new: bool, was_final: bool) {
        let batch = &mut changes.batch;
        let expires = match job.state {
            State::Scheduled | State::Running => None,
            State::Failed => Some(self.retention.failed_ms),
            State::Succeeded | State::Cancelled => Some(self.retention.done_ms),
        };
        let ttl = expires.map_or(Ttl::NoExpiry, Ttl::ExpireAfterMillis);
        let kept = PutOptions { ttl };
        if expires.is_none() {
            batch.put_with_options(keys::active(job.seq), job.encode(), &kept);
            if was_final {
                remove_final(batch, job);
            }
        } else {
            batch.put_with_options(keys::ended(job.seq), job.encode(), &kept);
            if !is_new || was_final {
                batch.delete(keys::active(job.seq));
            }
            if let Some(id) = &job.spec.id {
                let place = job.seq.0.to_be_bytes();
                batch.put_with_options(keys::named(&job.spec.tenant, id), place, &kept);
            }
            if job.state == State::Failed {
                batch.put_with_options(keys::dead(job.seq), [], &kept);
            }
        }
        if is_new || expires.is_some() {
            for entry in &job.spec.metadata {
                let key = keys::metadata(&job.spec.tenant, entry, job.seq);
                batch.put_with_options(key, [], &kept);
            }
        }
    }

    /// Makes changes, all or none. They are seen at once, and durable after [`Store::sync`].
    pub(super) async fn write(&self, changes: Changes) -> Result<()> {
        if !changes.batch.is_empty() {
            self.db.write(changes.batch).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Everything that was written is durable.
    pub(super) async fn sync(&self) -> Result<()> {
        let options = FlushOptions { flush_type: FlushType::Wal };
        self.db.flush_with_options(options).await.map_err(failed)
    }

    /// Closes the database; everything that was written is durable.
    pub(super) async fn close(&self) -> Result<()> {
        self.db.close().await.map_err(failed)
    }
}

fn remove_final(batch: &mut WriteBatch, job: &Job) {
    batch.delete(keys::ended(job.seq));
    batch.delete(keys::dead(job.seq));
    if let Some(id) = &job.spec.id {
        batch.delete(keys::named(&job.spec.tenant, id));
    }
}

/// Jobs, one after the other.
pub(super) struct Jobs {
    rows: DbIterator,
}

impl Jobs {
    pub(super) async fn next(&mut self) -> Result<Option<Job>> {
        let row = self.rows.next().await.map_err(failed)?;
        row.map(|row| Job::decode(&row.value)).transpose()
    }
}

fn encode_descriptor(incarnation: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u16_le(VERSION);
    out.put_u16_le(0);
    out.put_u64_le(incarnation);
    let sum = crc32c::crc32c(&out);
    out.put_u32_le(sum);
    out.to_vec()
}

fn decode_descriptor(bytes: &[u8]) -> Result<u64> {
    let mut reader = Reader::new(WHAT, bytes);
    if reader.bytes(4)? != MAGIC {
        return Err(FormatError::BadMagic { what: WHAT }.into());
    }
    let version = reader.u16()?;
    if version > VERSION {
        return Err(FormatError::Newer { what: WHAT, version: version.into() }.into());
    }
    reader.u16()?;
    let incarnation = reader.u64()?;
    if reader.u32()? != crc32c::crc32c(&bytes[..bytes.len().saturating_sub(4)]) {
        return Err(FormatError::BadChecksum { what: WHAT }.into());
    }
    reader.finish()?;
    Ok(incarnation)
}

/// What a failure of the database means.
pub(super) fn failed(error: slatedb::Error) -> Error {
    let kind = match error.kind() {
        slatedb::ErrorKind::Data => ErrorKind::Corrupt,
        slatedb::ErrorKind::Invalid | slatedb::ErrorKind::Internal => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("the jobs' database failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_descriptor_is_noticed() {
        let good = encode_descriptor(7);
        assert_eq!(decode_descriptor(&good), Ok(7));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_descriptor(&bad).is_err(), "bit {bit}");
        }
    }
}
