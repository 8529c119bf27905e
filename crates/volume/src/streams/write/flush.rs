//! Flushing: makes records durable before a flush is answered.

use crate::error::{Error, Result};
use crate::streams::stream::payload::Payload;
use crate::streams::stream::{Attempt, Stream};
use skerry_core::descriptor::FlushLevel;
use skerry_log::LogPosition;
use std::sync::atomic::Ordering;

impl<P: Payload> Stream<P> {
    /// The flush level here: without a log on a disk, no less than the bucket.
    pub(crate) fn flush_level(&self) -> FlushLevel {
        if self.ctx.has_log { self.desc.flush } else { FlushLevel::Bucket }
    }

    /// Flushes without waiting for others, if that is possible: on a quick log that no other caller
    /// uses now.
    pub fn try_flush(&self) -> Result<Attempt> {
        let record = {
            let state = self.state.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state.last_record
        };
        if self.flush_level() != FlushLevel::Local {
            return Ok(Attempt::Wait);
        }
        if record > 0 {
            match self.ctx.log.try_sync(LogPosition::from_u64(record)) {
                Ok(true) => {}
                Ok(false) => return Ok(Attempt::Wait),
                Err(e) => return Err(self.out_of_log(e)),
            }
        }
        // A caller that can wait looks into a doubt about the stream.
        if self.fence.must_check(self.ctx.clock()) {
            return Ok(Attempt::Wait);
        }
        self.io.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(Attempt::Done)
    }

    /// Takes the volume out of service because the log can't sync.
    fn out_of_log(&self, error: skerry_log::Error) -> Error {
        let error = Error::from(error);
        self.fail(error.clone());
        error
    }

    /// Makes everything that was acknowledged durable, as the volume's flush level promises.
    pub async fn flush(&self) -> Result<()> {
        self.io.flushes.fetch_add(1, Ordering::Relaxed);
        let (record, vseq) = {
            let state = self.state.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            (state.last_record, state.vseq)
        };
        match self.flush_level() {
            FlushLevel::Local => self.wait_log(record).await?,
            FlushLevel::Bucket => self.wait_bucket(vseq).await?,
        }
        self.check_fence_patiently().await
    }

    /// Waits until a record is durable in the log.
    pub(crate) async fn wait_log(&self, record: u64) -> Result<()> {
        if record == 0 {
            return Ok(());
        }
        let position = LogPosition::from_u64(record);
        self.ctx.log.wait_durable(position).await.map_err(|e| self.out_of_log(e))
    }

    /// Waits until all records below a vseq are in the bucket.
    pub async fn wait_bucket(&self, vseq: u64) -> Result<()> {
        self.destaging.order(vseq);
        self.destaging.wait(vseq).await
    }

    /// Waits until all records below a vseq are in the bucket, and the snapshots there have their
    /// refs.
    pub(crate) async fn wait_published(&self, vseq: u64) -> Result<()> {
        self.wait_bucket(vseq).await?;
        self.destaging.wait_until(|| !self.snapshots.lock().is_pending_below(vseq)).await
    }

    /// Puts everything written so far into the bucket.
    pub async fn drain(&self) -> Result<()> {
        let vseq = self.state.lock().vseq;
        self.wait_published(vseq).await
    }
}
