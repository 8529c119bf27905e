//! Requests that must wait: each is a future that the connection's task drives.
//!
//! Flushes and writes wait for another task (the log's). They run on the connection's own task: a
//! hop to another would be most of their cost. Other requests may have work to do (fetch,
//! decompress, walk a map), and run on a task of their own. So they neither delay the connection's
//! fast path nor share one processor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use skerry_device::{Content, Device, Error, ErrorKind, Result, StatusRange};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

use super::super::wire::Request;
use super::Session;
use super::output::HEADROOM_BYTES;

/// Extents in one reply to `BLOCK_STATUS`: 8 KiB of reply. The client asks again for the rest.
pub(super) const EXTENTS_MAX: usize = 1024;

/// A request in flight.
pub(super) type SlowFuture = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// The request to the device. Offset and length are the request's.
pub(super) enum Work {
    /// Data goes to `buf` from [`HEADROOM_BYTES`] on.
    Read {
        buf: Vec<u8>,
    },
    Write {
        data: Bytes,
        fua: bool,
    },
    Flush,
    Zero {
        fua: bool,
    },
    /// Only the first `len` bytes.
    Cache {
        len: u32,
    },
    Status {
        one: bool,
    },
}

impl Work {
    /// Bytes that are held until it has ended.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Read { buf } => buf.len(),
            Self::Write { data, .. } => data.len(),
            // The fetched bytes are in memory, whichever part holds them.
            Self::Cache { len } => *len as usize,
            _ => 0,
        }
    }

    fn runs_here(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Flush)
    }
}

/// A request that has ended.
pub(super) struct Finished {
    request: Request,
    held_bytes: usize,
    outcome: Outcome,
}

enum Outcome {
    Plain(Result<()>),
    Wrote(Result<()>, Option<Vec<u8>>),
    Read(Vec<u8>, Result<Content>),
    Status(bool, Result<Vec<StatusRange>>),
}

/// Begins `work`.
pub(super) fn start(
    elsewhere: &Handle,
    device: Arc<dyn Device>,
    request: Request,
    work: Work,
    held_bytes: usize,
) -> SlowFuture {
    if work.runs_here() {
        return Box::pin(async move {
            let outcome = perform(device, request, work).await;
            Finished { request, held_bytes, outcome }
        });
    }
    let task = elsewhere.spawn(perform(device, request, work));
    Box::pin(async move {
        let outcome = task.await.unwrap_or_else(|error| {
            let text = format!("the request's task ended without an answer: {error}");
            Outcome::Plain(Err(Error::new(ErrorKind::Failed, text)))
        });
        Finished { request, held_bytes, outcome }
    })
}

async fn perform(device: Arc<dyn Device>, request: Request, work: Work) -> Outcome {
    let Request { offset, len, .. } = request;
    let len_bytes = u64::from(len);
    match work {
        Work::Read { mut buf } => {
            let room = &mut buf[HEADROOM_BYTES..HEADROOM_BYTES + len as usize];
            let result = device.read(offset, room).await;
            Outcome::Read(buf, result)
        }
        Work::Write { data, fua } => {
            let written = device.write(offset, data.clone()).await;
            let result = durable_if(fua, &*device, written).await;
            // If the device has kept nothing, the buffer can be used again.
            Outcome::Wrote(result, data.try_into_mut().ok().map(BytesMut::into))
        }
        Work::Flush => Outcome::Plain(device.flush().await),
        Work::Zero { fua } => {
            let zeroed = device.zero(offset, len_bytes).await;
            Outcome::Plain(durable_if(fua, &*device, zeroed).await)
        }
        Work::Cache { len } => {
            device.prefetch(offset, u64::from(len)).await;
            Outcome::Plain(Ok(()))
        }
        Work::Status { one } => {
            Outcome::Status(one, device.status(offset, len_bytes, EXTENTS_MAX).await)
        }
    }
}

/// Flushes after a write, if it must be durable.
async fn durable_if(fua: bool, device: &dyn Device, written: Result<()>) -> Result<()> {
    match written {
        Ok(()) if fua => device.flush().await,
        written => written,
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Answers a request that has ended.
    pub(super) fn finish(&mut self, finished: Finished) {
        let Finished { request, held_bytes, outcome } = finished;
        self.slow_bytes -= held_bytes;
        if self.stream.is_none() {
            return;
        }
        match outcome {
            Outcome::Plain(result) => self.answer(&request, result),
            Outcome::Wrote(result, buf) => {
                self.output.pool.give(buf.unwrap_or_default());
                self.answer(&request, result);
            }
            Outcome::Read(buf, result) => self.answer_read(&request, buf, result),
            Outcome::Status(one, result) => self.answer_status(&request, one, result),
        }
    }
}
