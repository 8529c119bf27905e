//! A volume that this node writes: reads, writes, flushes.
//!
//! A write is acknowledged when its record is in the log's memory and the live index knows it; a
//! flush when the log (or, at level `bucket`, the bucket) has it. Sequence number, log position and
//! index entry are assigned in one critical section, so that a replay gives what was read.

use crate::context::Context;
use crate::disk::edges::Seen;
use crate::disk::parts::PartsReader;
use crate::error::{Error, ErrorKind, Result};
use crate::streams::budget::OverlayShare;
use crate::streams::fence::Fence;
use crate::streams::snapshots::Snapshots;
use crate::streams::state::State;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use skerry_core::descriptor::VolumeDesc;
use skerry_core::id::StreamId;
use skerry_core::node::NodePtr;
use skerry_core::position::Number;
use skerry_core::record::{Action, RECORD_HEAD, RECORD_KIND, Record};
use skerry_core::size::SECTOR_BYTES;
use skerry_core::wire::Hash16;
use skerry_store::tree;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// How often a read is resolved anew when what it found was moved meanwhile.
pub(crate) const RESOLVE_TRIES_MAX: usize = 16;

/// A read of more parts than this does not try to do without waiting: reading many blocks together
/// is cheaper than one by one.
const TRY_PARTS_MAX: usize = 16;

/// How far the bucket has got.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Everything below this sequence number is in the bucket, contiguous, and applied.
    pub vseq: u64,
    /// Why it goes no further, if it does not.
    pub failure: Option<Error>,
}

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

/// A volume that this node writes.
pub struct Volume {
    /// What all volumes share.
    pub ctx: Arc<Context>,
    /// What it is.
    pub desc: Arc<VolumeDesc>,
    /// Its stream.
    pub stream: StreamId,
    /// Its epoch.
    pub epoch: u64,
    /// Its group in the log.
    pub group: u32,
    pub(crate) state: Mutex<State>,
    /// What its overlay takes.
    pub(crate) overlay_share: OverlayShare,
    pub(crate) snapshots: Mutex<Snapshots>,
    /// Wakes the destager.
    pub(crate) work: Notify,
    /// Wakes writers that wait for room or for a rollback to end.
    pub(crate) room: Notify,
    pub(crate) progress: watch::Sender<Progress>,
    /// The sequence number up to which somebody waits for the bucket.
    pub(crate) wanted_vseq: AtomicU64,
    /// How many checkpoints were asked for.
    pub(crate) checkpoints_wanted: AtomicU64,
    /// Up to which of them have been served.
    pub(crate) checkpoints_done: watch::Sender<u64>,
    /// Held while refs are written or deleted, so that a root in use never loses its last ref.
    pub(crate) refs: tokio::sync::Mutex<crate::streams::refs::RefKeeper>,
    /// Held by a pass of collection: one at a time.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Held by operations that change what the volume is.
    pub(crate) admin: Arc<tokio::sync::Mutex<()>>,
    pub(crate) fence: Fence,
    /// The number and the head's hash that the next segment follows.
    pub(crate) last_built: Mutex<(Number, Hash16)>,
    /// True once the catalogue is known to call it by its true name.
    pub(crate) named: AtomicBool,
    /// Counts of I/O.
    pub io: IoCounts,
    /// Attached clients.
    pub clients: AtomicU64,
    /// True once it is out of service and what it had not destaged waits outside the log.
    pub(crate) is_aside: AtomicBool,
}

/// The range of a request.
fn range_of(offset: u64, len: usize) -> Range<u64> {
    offset..offset.saturating_add(len as u64)
}

/// No range: what a record says that speaks of the whole volume.
pub(crate) const WHOLE: Range<u64> = 0..0;

/// What an attempt that may not wait came to.
#[derive(Debug)]
pub enum Attempt {
    /// It is done.
    Done,
    /// It would have to wait.
    Wait,
    /// What it builds on has changed: nothing was done.
    Overtaken,
}

/// On whose behalf a record is written: who may be made to wait, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behalf {
    /// A client's: it waits while the volume is paused, and while the index has no room.
    Client,
    /// A command's: it waits while the volume is paused.
    Operator,
    /// That of whoever paused the volume.
    WhoPaused,
}

impl Volume {
    /// The name, for messages.
    pub fn name(&self) -> String {
        self.state.lock().name.clone()
    }

    /// The size, bytes.
    pub fn size_bytes(&self) -> u64 {
        self.state.lock().size_bytes
    }

    /// Bytes that are not in the bucket, and for how long the oldest of them have waited.
    pub fn undestaged(&self, now: std::time::Duration) -> (u64, std::time::Duration) {
        let state = self.state.lock();
        let age =
            state.dirty_since().map_or_else(Default::default, |since| now.saturating_sub(since));
        (state.undestaged_bytes, age)
    }

    /// True if this node no longer owns the volume: another owner took it, or it was released or deleted here.
    pub(crate) fn has_left(&self) -> bool {
        use ErrorKind::{Detached, Fenced, NotFound};
        let failure = self.state.lock().failure.as_ref().map(Error::kind);
        matches!(failure, Some(Fenced | Detached | NotFound))
    }

    /// How many records are not in the bucket.
    pub(crate) fn undestaged_records(&self) -> usize {
        self.state.lock().undestaged_records
    }

    /// Takes the volume out of service; the first reason stays.
    pub(crate) fn fail(&self, error: Error) {
        if self.end(error.clone()) {
            tracing::error!(volume = %self.name(), %error, "the volume is out of service");
        }
    }

    /// Takes the volume out of service here because somebody asked for it.
    pub(crate) fn retire(&self, error: Error) {
        if self.end(error.clone()) {
            tracing::info!(volume = %self.name(), reason = %error, "the volume is closed here");
        }
    }

    /// True if this is what ended it.
    fn end(&self, error: Error) -> bool {
        let is_gone = matches!(error.kind(), ErrorKind::Fenced | ErrorKind::NotFound);
        let error = error.of_volume(!is_gone && self.ctx.log.failure().is_none());
        let mut state = self.state.lock();
        let is_first = state.failure.is_none();
        state.failure.get_or_insert_with(|| error.clone());
        drop(state);
        self.progress.send_modify(|progress| {
            progress.failure.get_or_insert(error);
        });
        self.room.notify_waiters();
        self.work.notify_one();
        is_first
    }

    /// Fails unless the volume may be served to somebody who attached at `generation`.
    pub(crate) fn admit<'a>(
        &'a self,
        range: &Range<u64>,
        generation: u64,
    ) -> Result<MutexGuard<'a, State>> {
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.generation != generation {
            return Err(Error::new(
                ErrorKind::Detached,
                format!(
                    "volume {} was rolled back under this connection; attach again",
                    state.name
                ),
            ));
        }
        if range.end > state.size_bytes || range.start > range.end {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "volume {} ends at byte {}, and this goes to {}",
                    state.name, state.size_bytes, range.end
                ),
            ));
        }
        if !range.start.is_multiple_of(SECTOR_BYTES) || !range.end.is_multiple_of(SECTOR_BYTES) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("volume {} is read and written in whole sectors of 512 bytes", state.name),
            ));
        }
        Ok(state)
    }

    /// Counts a client in, once the volume is not paused; gives the size and the generation that the client sees.
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

    /// Reads without waiting, if that is possible.
    pub fn try_read(&self, offset: u64, buf: &mut [u8], generation: u64) -> Result<Attempt> {
        if self.fence.must_check(self.ctx.clock()) {
            return Ok(Attempt::Wait);
        }
        let range = offset..offset.saturating_add(buf.len() as u64);
        let mut parts = Vec::new();
        let top = {
            let state = self.admit(&range, generation)?;
            state.resolve(range, &mut parts);
            state.top()
        };
        if parts.len() > TRY_PARTS_MAX || !self.parts(top).try_read(&parts, buf)? {
            return Ok(Attempt::Wait);
        }
        self.count_read(buf.len());
        Ok(Attempt::Done)
    }

    /// Reads what ranges resolve to over the tree below `top`.
    pub(crate) fn parts(&self, top: Option<NodePtr>) -> PartsReader<'_> {
        PartsReader { ctx: &self.ctx, block: self.desc.block, top }
    }

    fn count_read(&self, bytes: usize) {
        self.io.reads.fetch_add(1, Ordering::Relaxed);
        self.io.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Fills `out`, waiting for what is not at hand, and for a bucket that fails for a reason that can pass.
    pub async fn read_into(&self, offset: u64, out: &mut [u8], generation: u64) -> Result<()> {
        let mut waiting = self.ctx.guest_waits();
        while let Err(error) = self.read_now(offset, out, generation).await {
            waiting.after(error).await?;
        }
        Ok(())
    }

    async fn read_now(&self, offset: u64, out: &mut [u8], generation: u64) -> Result<()> {
        self.check_fence().await?;
        let len = out.len();
        let range = offset..offset.saturating_add(len as u64);
        let mut last = None;
        for _ in 0..RESOLVE_TRIES_MAX {
            let (parts, top) = {
                let state = self.admit(&range, generation)?;
                let mut parts = Vec::new();
                state.resolve(range.clone(), &mut parts);
                (parts, state.top())
            };
            match self.parts(top).read(&parts, out).await {
                Ok(true) => {
                    self.count_read(len);
                    return Ok(());
                }
                Ok(false) => {}
                // A segment that was collected while this read was under way: look again.
                Err(e) if e.kind() == ErrorKind::NotFound => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(match last {
            Some(missing) => self.if_missing(missing).await,
            None => {
                let text = format!("volume {}: a read was overtaken too often", self.name());
                Error::new(ErrorKind::Unavailable, text)
            }
        })
    }

    /// Reads one whole block of the state that is in the bucket: what batches are merged with.
    pub(crate) async fn read_base_block(&self, index: u64) -> Result<Option<Bytes>> {
        let (said, top) = {
            let state = self.state.lock();
            (state.overlaid(index), state.top())
        };
        let entry = match said {
            skerry_core::overlay::Overlaid::Data(entry) => Some(entry),
            skerry_core::overlay::Overlaid::Zero => None,
            skerry_core::overlay::Overlaid::Below => {
                tree::lookup(&self.ctx.nodes, top, index).await?
            }
        };
        match entry {
            Some(entry) => Ok(Some(self.ctx.blocks.read(&entry, self.desc.block).await?)),
            None => Ok(None),
        }
    }

    /// Writes without waiting, if there is room.
    pub fn try_write(&self, offset: u64, data: &[u8], generation: u64) -> Result<Attempt> {
        if data.len() > self.ctx.settings.record_bytes_max
            || self.fence.must_check(self.ctx.clock())
        {
            return Ok(Attempt::Wait);
        }
        if self.fence.is_delayed() {
            return Ok(Attempt::Wait);
        }
        self.append_write(&range_of(offset, data.len()), offset, data, generation, None)
    }

    /// Appends a piece of a request of `whole`, which must lie in the volume: no part of it is written if it doesn't.
    /// If it builds on what was `seen`, the piece must still be that.
    pub(crate) fn append_write(
        &self,
        whole: &Range<u64>,
        offset: u64,
        data: &[u8],
        generation: u64,
        seen: Option<&Seen>,
    ) -> Result<Attempt> {
        let range = range_of(offset, data.len());
        let now = self.ctx.clock().boot();
        let mut state = self.admit(whole, generation)?;
        if data.is_empty() {
            return Ok(Attempt::Done);
        }
        if state.paused || self.index_is_full(&state) {
            return Ok(Attempt::Wait);
        }
        if seen.is_some_and(|seen| *seen != Seen::of(&state, &range)) {
            return Ok(Attempt::Overtaken);
        }
        let head =
            self.record(state.vseq, Action::Write { offset, len: data.len() as u64 }).encode();
        let appended = match self.ctx.log.append(self.group, RECORD_KIND, &[&head, data]) {
            Ok(appended) => appended,
            Err(skerry_log::Error::Full { .. }) => return Ok(Attempt::Wait),
            Err(e) => return Err(self.log_failed(state, e)),
        };
        state.content(range, appended.position.as_u64(), false, now);
        self.after_append(state);
        self.io.writes.fetch_add(1, Ordering::Relaxed);
        self.io.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(Attempt::Done)
    }

    /// A log that failed takes the volume out of service.
    fn log_failed(&self, state: MutexGuard<'_, State>, error: skerry_log::Error) -> Error {
        drop(state);
        let error = Error::from(error);
        if error.kind() != ErrorKind::Internal {
            self.fail(error.clone());
        }
        error
    }

    /// Cuts the batch when it is full, and wakes the destager.
    fn after_append(&self, mut state: MutexGuard<'_, State>) {
        let settings = &self.ctx.settings;
        let full = state.open.is_full(settings);
        let first = state.open.spans.len() == 1;
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
            self.work.notify_one();
        }
    }

    fn index_is_full(&self, state: &State) -> bool {
        state.index_bytes() > self.ctx.settings.index_bytes_max
    }

    /// How much of the log or of its own index is used, whichever is more, percent.
    pub(crate) fn filled_percent(&self, state: &State) -> u64 {
        let index = state.index_bytes() * 100 / self.ctx.settings.index_bytes_max.max(1);
        self.ctx.log_percent().max(index as u64)
    }

    /// True if the volume itself has no room now. If it has, it is the log that has none.
    fn is_held_back(&self, state: &State, on_behalf: Behalf) -> bool {
        match on_behalf {
            Behalf::Client => state.paused || self.index_is_full(state),
            Behalf::Operator => state.paused,
            Behalf::WhoPaused => false,
        }
    }

    /// Writes, waiting for room where there is none.
    pub async fn write(&self, offset: u64, data: &[u8], generation: u64) -> Result<()> {
        self.check_fence_patiently().await?;
        self.delay().await;
        let whole = range_of(offset, data.len());
        for (i, piece) in data.chunks(self.ctx.settings.record_bytes_max).enumerate() {
            let offset = offset + (i * self.ctx.settings.record_bytes_max) as u64;
            loop {
                let room = self.room.notified();
                tokio::pin!(room);
                room.as_mut().enable();
                match self.append_write(&whole, offset, piece, generation, None)? {
                    Attempt::Done => break,
                    Attempt::Wait | Attempt::Overtaken => {
                        self.wait_room(room, piece.len(), Behalf::Client).await?
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until a writer may try again: for the log, for the index, or for a rollback to end.
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
        self.work.notify_one();
        if is_held_back {
            room.await;
            return Ok(());
        }
        self.ctx.pressure.notify_one();
        self.ctx.log.wait_room(RECORD_HEAD + len)?.await.map_err(Error::from)
    }

    /// When the log is nearly full, writers are delayed in proportion before they have to wait.
    async fn delay(&self) {
        let settings = &self.ctx.settings;
        let percent = self.ctx.log_percent().min(100);
        self.fence.note_pressure(percent, settings.delay_from_percent);
        if percent > settings.delay_from_percent {
            let over = (percent - settings.delay_from_percent) as u32;
            let span = (100 - settings.delay_from_percent).max(1) as u32;
            tokio::time::sleep(settings.delay_max * over / span).await;
        }
    }

    /// Makes a range read as zeros.
    pub async fn zero(&self, offset: u64, len: u64, generation: u64) -> Result<()> {
        self.check_fence_patiently().await?;
        if len == 0 {
            return Ok(());
        }
        let range = offset..offset.saturating_add(len);
        drop(self.admit(&range, generation)?);
        self.delay().await;
        let action = Action::Zero { offset, len };
        self.append_waiting(&range, generation, Behalf::Client, action, |state, at, now| {
            state.content(range.clone(), at, true, now);
        })
        .await?;
        self.io.zeroes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Appends a record that has no data, waiting for room; `apply` takes it into the state. `range` is what it speaks
    /// of, and must lie in the volume when the record is appended.
    pub(crate) async fn append_waiting(
        &self,
        range: &Range<u64>,
        generation: u64,
        on_behalf: Behalf,
        action: Action,
        apply: impl Fn(&mut State, u64, std::time::Duration),
    ) -> Result<()> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let now = self.ctx.clock().boot();
            {
                let mut state = self.admit(range, generation)?;
                if !self.is_held_back(&state, on_behalf) {
                    let head = self.record(state.vseq, action.clone()).encode();
                    match self.ctx.log.append(self.group, RECORD_KIND, &[&head]) {
                        Ok(appended) => {
                            apply(&mut state, appended.position.as_u64(), now);
                            self.after_append(state);
                            return Ok(());
                        }
                        Err(skerry_log::Error::Full { .. }) => {}
                        Err(e) => return Err(self.log_failed(state, e)),
                    }
                }
            }
            self.wait_room(room, 0, on_behalf).await?;
        }
    }
}
