//! Records the operations on a device in a log, and replays such a log at a chosen speed.
//!
//! The log is a compressed stream (`.zst`); `docs/format.md`, "Record of operations", has its
//! bytes. The log of a recorder that died ends somewhere; a reader says so, and gives all before.
//!
//! An operation is recorded when it begins, or when it is done on the fast path. So of two
//! operations one after another, the first comes first. Two at once come in either order.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use skerry_core::env::Clock;

pub use self::format::{Action, End, LEN_MAX, Log, LogError, Operation};
use self::format::{Encoder, Header};
pub use self::replay::{Replayed, Speed, replay};
use crate::{Attempt, Content, Device, Geometry, Result, StatusRange};

mod format;
mod replay;

/// Tells whether the bytes of writes are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Offset and length alone. A replay writes bytes of its own.
    Places,
    /// The bytes, too. The log is as secret as the device then.
    Bytes,
}

/// Records what passes to the device below. The log is written on the request's own thread.
pub struct Record {
    below: Arc<dyn Device>,
    clock: Arc<dyn Clock>,
    keep: Keep,
    begun: Duration,
    log: Mutex<Recording>,
}

/// A log being written.
enum Recording {
    Open(Encoder<Box<dyn Write + Send>>),
    /// Ended well, or by an error that no caller has heard of yet.
    Ended(Option<io::Error>),
}

impl Record {
    /// Records into `to` from now on.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn new(
        below: Arc<dyn Device>,
        clock: Arc<dyn Clock>,
        keep: Keep,
        to: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let header = Header { size_bytes: below.geometry().size_bytes };
        let encoder = Encoder::new(Box::new(to) as Box<dyn Write + Send>, &header)?;
        let begun = clock.boot();
        Ok(Self { below, clock, keep, begun, log: Mutex::new(Recording::Open(encoder)) })
    }

    /// Ends the log. Operations still pass, and are not recorded any more.
    ///
    /// # Errors
    /// Those of the writer, also if recording ended by one before. No operation fails by them.
    pub fn finish(&self) -> io::Result<()> {
        match std::mem::replace(&mut *self.log.lock(), Recording::Ended(None)) {
            Recording::Open(encoder) => encoder.finish(),
            Recording::Ended(Some(error)) => Err(error),
            Recording::Ended(None) => Ok(()),
        }
    }

    fn note(&self, action: Action) {
        let mut log = self.log.lock();
        let Recording::Open(encoder) = &mut *log else { return };
        // Read below the lock, so that times rise.
        let at = self.clock.boot().saturating_sub(self.begun);
        if let Err(error) = encoder.add(&Operation { at, action }) {
            *log = Recording::Ended(Some(error));
        }
    }

    /// Notes a write, in parts that a reader accepts.
    fn note_write(&self, offset: u64, data: &[u8]) {
        let mut at = offset;
        for part in data.chunks(LEN_MAX as usize) {
            self.note(match self.keep {
                Keep::Bytes => Action::Write { offset: at, data: Bytes::copy_from_slice(part) },
                Keep::Places => Action::WriteAt { offset: at, len: part.len() as u64 },
            });
            at = at.saturating_add(part.len() as u64);
        }
    }

    fn note_read(&self, offset: u64, len: usize) {
        self.note(Action::Read { offset, len: (len as u64).min(LEN_MAX) });
    }
}

/// True if an attempt was an operation.
fn was_done<T>(attempt: &Attempt<T>) -> bool {
    !matches!(attempt, Attempt::WouldBlock)
}

#[async_trait]
impl Device for Record {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        let attempt = self.below.try_read(offset, buf);
        if was_done(&attempt) {
            self.note_read(offset, buf.len());
        }
        attempt
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        let attempt = self.below.try_write(offset, data);
        if was_done(&attempt) {
            self.note_write(offset, data);
        }
        attempt
    }

    fn try_flush(&self) -> Attempt<()> {
        let attempt = self.below.try_flush();
        if was_done(&attempt) {
            self.note(Action::Flush);
        }
        attempt
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.note_read(offset, buf.len());
        self.below.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.note_write(offset, &data);
        self.below.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.note(Action::Zero { offset, len });
        self.below.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        self.note(Action::Flush);
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.below.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        self.below.prefetch(offset, len).await;
    }
}
