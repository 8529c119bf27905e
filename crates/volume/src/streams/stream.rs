//! A stream that this node writes: a volume of any kind, without the payload's part.
//!
//! A record is accepted when it is in the log's memory and the state has it. A flush is done when
//! the log has it, or, at level `bucket`, the bucket. The vseq, the log position and the payload's
//! effect of a record move in one critical section. So a replay gives the data that was read.

pub(crate) mod destaging;
pub(crate) mod fence;
pub mod payload;
pub(crate) mod refs;
pub(crate) mod snapshot_list;
pub(crate) mod state;
pub(crate) mod waiting;

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::streams::budget::OverlayShare;
use crate::streams::order::{First, Second};
use crate::streams::stream::destaging::Destaging;
use crate::streams::stream::fence::Fence;
use crate::streams::stream::payload::Payload;
use crate::streams::stream::refs::RefKeeper;
use crate::streams::stream::snapshot_list::Snapshots;
use crate::streams::stream::state::State;
use crate::streams::throttle::Throttle;
use parking_lot::{Mutex, MutexGuard};
use skerry_core::descriptor::VolumeDesc;
use skerry_core::id::StreamId;
use skerry_core::position::Number;
use skerry_core::record::{Action, RECORD_HEAD, RECORD_KIND, Record};
use skerry_core::wire::Hash16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// I/O counts of a volume, for metrics.
#[derive(Debug, Default)]
pub struct IoCounts {
    /// Reads.
    pub reads: AtomicU64,
    /// Bytes read.
    pub read_bytes: AtomicU64,
    /// Writes.
    pub writes: AtomicU64,
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Flushes.
    pub flushes: AtomicU64,
    /// Trims and zeroes.
    pub zeroes: AtomicU64,
}

/// A volume that this node writes, with any payload.
pub struct Stream<P: Payload> {
    /// The part that all volumes share.
    pub ctx: Arc<Context>,
    /// Its descriptor.
    pub desc: Arc<VolumeDesc>,
    /// Its stream.
    pub stream: StreamId,
    /// Its epoch.
    pub epoch: u64,
    /// Its group in the log.
    pub group: u32,
    /// Locked before `snapshots`, never while that is held.
    pub(crate) state: First<State<P>>,
    /// Memory for its changes.
    pub(crate) overlay_share: OverlayShare,
    /// Memory for its live index.
    pub(crate) index_share: OverlayShare,
    /// Locked after `state`, where both are held; its holder locks no state.
    pub(crate) snapshots: Second<Snapshots>,
    /// Orders to its destager, and the answers.
    pub(crate) destaging: Destaging,
    /// Wakes writers that wait for room or for a rollback to end.
    pub(crate) room: Notify,
    /// Held while refs are written or deleted, so that a root in use never loses its last ref.
    pub(crate) refs: tokio::sync::Mutex<RefKeeper>,
    /// Held by a pass of collection: one at a time.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Times of the last lines about a stopped collection, and about an old head that can't be
    /// deleted.
    pub(crate) collection_lines: Throttle,
    pub(crate) head_lines: Throttle,
    /// Held by operations that replace the volume's state or name.
    pub(crate) admin: Arc<tokio::sync::Mutex<()>>,
    pub(crate) fence: Fence,
    /// The number and the head's hash that the next segment follows.
    pub(crate) last_built: Mutex<(Number, Hash16)>,
    /// True once the catalogue is known to have its true name.
    pub(crate) named: AtomicBool,
    /// Counts of I/O.
    pub io: IoCounts,
    /// Attached clients.
    pub clients: AtomicU64,
    /// True once it is out of service and its undestaged records are parked.
    pub(crate) is_parked: AtomicBool,
}

/// Outcome of an attempt that may not wait.
#[derive(Debug)]
pub enum Attempt {
    /// Done.
    Done,
    /// The attempt would have to wait.
    Wait,
    /// The state under it has changed: nothing was done.
    Overtaken,
}

/// The party for whom a record is written: decides for what it must wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behalf {
    /// A client: waits while the volume is paused, and while the index has no room.
    Client,
    /// A command: waits while the volume is paused.
    Operator,
    /// The operation that paused the volume.
    WhoPaused,
}

impl<P: Payload> Stream<P> {
    /// The name, for messages.
    pub fn name(&self) -> String {
        self.state.lock().name.clone()
    }

    /// The size, bytes.
    pub fn size_bytes(&self) -> u64 {
        self.state.lock().size_bytes
    }

    /// Bytes that are not in the bucket, and the age of the oldest of them.
    pub fn undestaged(&self, now: Duration) -> (u64, Duration) {
        let state = self.state.lock();
        let age =
            state.dirty_since().map_or_else(Default::default, |since| now.saturating_sub(since));
        (state.undestaged_bytes, age)
    }

    /// True if this node no longer owns the volume: another owner took it, or it was released or
    /// deleted here.
    pub(crate) fn has_left(&self) -> bool {
        use ErrorKind::{Detached, Fenced, NotFound};
        let failure = self.state.lock().failure.as_ref().map(Error::kind);
        matches!(failure, Some(Fenced | Detached | NotFound))
    }

    /// Number of records that are not in the bucket.
    pub(crate) fn undestaged_records(&self) -> usize {
        self.state.lock().undestaged_records
    }

    /// Takes the volume out of service; the first reason stays.
    pub(crate) fn fail(&self, error: Error) {
        if self.end(error.clone()) {
            tracing::error!(volume = %self.name(), %error, "the volume is out of service");
        }
    }

    /// Takes the volume out of service here because an operator asked for it.
    pub(crate) fn retire(&self, error: Error) {
        if self.end(error.clone()) {
            tracing::info!(volume = %self.name(), reason = %error, "the volume is closed here");
        }
    }

    /// Ends the service. True if this call did.
    fn end(&self, error: Error) -> bool {
        let is_gone = matches!(error.kind(), ErrorKind::Fenced | ErrorKind::NotFound);
        let is_log_well = self.ctx.log.failure().is_none();
        let mut state = self.state.lock();
        // A log in memory keeps nothing for the next attachment.
        let is_kept = self.ctx.has_log || state.undestaged_records == 0;
        let error = error.of_volume(!is_gone && is_log_well && is_kept);
        let is_first = state.failure.is_none();
        state.failure.get_or_insert_with(|| error.clone());
        drop(state);
        self.destaging.failed(error);
        self.room.notify_waiters();
        self.destaging.wake();
        is_first
    }

    /// Fails unless the volume may serve a client that attached at `generation`.
    pub(crate) fn admit(&self, generation: u64) -> Result<MutexGuard<'_, State<P>>> {
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.generation != generation {
            let why = "was rolled back under this connection; attach again";
            return Err(Error::detached(&state.name, why));
        }
        Ok(state)
    }

    /// Counts a client in, once the volume is not paused. Gives the size and the generation that
    /// the client sees.
    pub(crate) async fn let_in(&self) -> Result<(u64, u64)> {
        loop {
            let changed = self.room.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if !state.paused {
                    self.clients.fetch_add(1, Ordering::Relaxed);
                    return Ok((state.size_bytes, state.generation));
                }
            }
            changed.await;
        }
    }

    fn record(&self, vseq: u64, action: Action) -> Record {
        Record { volume: self.desc.id, stream: self.stream, vseq, action }
    }

    /// Takes the volume out of service because the log failed.
    fn log_failed(&self, state: MutexGuard<'_, State<P>>, error: skerry_log::Error) -> Error {
        drop(state);
        let error = Error::from(error);
        if error.kind() != ErrorKind::Internal {
            self.fail(error.clone());
        }
        error
    }

    /// Cuts the batch when it is full, and wakes the destager.
    fn after_append(&self, mut state: MutexGuard<'_, State<P>>) {
        let settings = &self.ctx.settings;
        let full = state.open.is_full(settings);
        let first = state.open.records() == 1;
        if full {
            state.cut();
        }
        if state.undestaged_records.is_multiple_of(64) {
            let percent = self.ctx.log_percent();
            self.fence.note_pressure(percent, settings.delay_from_percent);
            if percent >= settings.pressure_percent {
                self.ctx.pressure.notify_one();
            }
        }
        drop(state);
        if full || first {
            self.destaging.wake();
        }
    }

    pub(crate) fn index_is_full(&self) -> bool {
        self.index_share.is_over()
    }

    /// Used share of the log or of the memory for indexes, whichever is higher, percent.
    pub(crate) fn filled_percent(&self) -> u64 {
        self.ctx.log_percent().max(self.index_share.used_percent())
    }

    /// True if the volume itself has no room now. If not, the log has none.
    fn is_held_back(&self, state: &State<P>, on_behalf: Behalf) -> bool {
        match on_behalf {
            Behalf::Client => state.paused || self.index_is_full(),
            Behalf::Operator => state.paused,
            Behalf::WhoPaused => false,
        }
    }

    /// Waits until a writer may try again: for the log, for the index, or for the end of a
    /// rollback.
    pub(crate) async fn wait_room(
        &self,
        room: std::pin::Pin<&mut tokio::sync::futures::Notified<'_>>,
        len: usize,
        on_behalf: Behalf,
    ) -> Result<()> {
        let is_held_back = {
            let mut state = self.state.lock();
            if !state.paused || on_behalf == Behalf::WhoPaused {
                state.cut();
            }
            self.is_held_back(&state, on_behalf)
        };
        self.destaging.wake();
        if is_held_back {
            room.await;
            return Ok(());
        }
        self.ctx.pressure.notify_one();
        self.ctx.log.wait_room(RECORD_HEAD + len)?.await.map_err(Error::from)
    }

    /// Delays writers in proportion when the log is nearly full, before they have to wait.
    pub(crate) async fn delay(&self) {
        let settings = &self.ctx.settings;
        let percent = self.ctx.log_percent().min(100);
        self.fence.note_pressure(percent, settings.delay_from_percent);
        if percent > settings.delay_from_percent {
            let over = (percent - settings.delay_from_percent) as u32;
            let span = (100 - settings.delay_from_percent).max(1) as u32;
            tokio::time::sleep(settings.delay_max * over / span).await;
        }
    }

    /// Appends a record at the state's next vseq, and applies it to the state. If the log is full,
    /// nothing is done.
    pub(crate) fn append(
        &self,
        mut state: MutexGuard<'_, State<P>>,
        action: &Action,
        data: &[u8],
        now: Duration,
    ) -> Result<Attempt> {
        let head = self.record(state.vseq, action.clone()).encode();
        let appended = match self.ctx.log.append(self.group, RECORD_KIND, &[&head, data]) {
            Ok(appended) => appended,
            Err(skerry_log::Error::Full { .. }) => return Ok(Attempt::Wait),
            Err(e) => return Err(self.log_failed(state, e)),
        };
        self.apply(&mut state, action, appended.position.as_u64(), now);
        self.index_share.set(state.index_bytes());
        self.after_append(state);
        Ok(Attempt::Done)
    }

    /// Appends a record about the whole volume, waiting for room.
    pub(crate) async fn note(
        &self,
        generation: u64,
        on_behalf: Behalf,
        action: &Action,
    ) -> Result<()> {
        self.append_waiting(generation, on_behalf, action, |_| Ok(())).await
    }

    /// Appends a record without data, waiting for room. `check` must accept it whenever it is
    /// tried.
    pub(crate) async fn append_waiting(
        &self,
        generation: u64,
        on_behalf: Behalf,
        action: &Action,
        check: impl Fn(&State<P>) -> Result<()>,
    ) -> Result<()> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let now = self.ctx.clock().boot();
            {
                let state = self.admit(generation)?;
                check(&state)?;
                if !self.is_held_back(&state, on_behalf)
                    && let Attempt::Done = self.append(state, action, &[], now)?
                {
                    return Ok(());
                }
            }
            self.wait_room(room, 0, on_behalf).await?;
        }
    }
}
