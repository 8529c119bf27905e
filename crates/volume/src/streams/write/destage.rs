//! Destage: turns cut batches into segments, puts several at once, applies them in order.
//!
//! Each volume has one task. It builds a batch only from the log and from the state at the end of
//! the batch before. A segment counts when every lower number of its stream is durable.

use crate::error::{Error, Result};
use crate::streams::budget::Held;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::{Payload, Planned};
use crate::streams::stream::state::{Batch, State};
use crate::streams::tails::parking::Fate;
use crate::streams::task::Task;
use crate::streams::write::checkpoint::Frozen;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use skerry_core::names;
use skerry_core::ops::Op;
use skerry_core::pace::{self, Need};
use skerry_core::position::{Position, SegmentKey};
use skerry_core::refs::{PUBLISHED, SnapshotInfo};
use skerry_core::seal::Seal;
use skerry_core::segment::{BuiltSegment, SegmentId, SegmentKind};
use skerry_core::takeover::{Found, ON_THEIR_WAY_MAX};
use skerry_log::LogPosition;
use skerry_store::objects::bucket::Created;
use skerry_store::objects::segment_io;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A segment and its changes to the state.
struct Built<P: Payload> {
    /// Room for its bytes, until they are durable.
    room: Option<Held>,
    segment: BuiltSegment,
    made: P::Made,
    batch: Batch<P>,
    /// Time of building it, on the boot-time clock.
    took: Duration,
}

type Put<P> = Pin<Box<dyn Future<Output = Result<Built<P>>> + Send>>;

/// The destager of one volume.
pub(crate) struct Destager<P: Payload> {
    volume: Arc<Stream<P>>,
    flight: FuturesOrdered<Put<P>>,
    /// The task ends when this is dropped.
    checkpoint: Option<Task<Result<()>>>,
    /// Checkpoints that snapshots wait for; `checkpoint` bounds their number.
    waiting: VecDeque<Frozen<P>>,
    /// Time at which the last batch was built, on the boot-time clock, and the duration.
    built: (Duration, Duration),
}

/// The destager's next action.
enum Action<P: Payload> {
    /// Build the oldest batch.
    Build(Box<Batch<P>>),
    /// Wait, at most for this time.
    Wait(Option<Duration>),
}

impl<P: Payload> Destager<P> {
    pub(crate) fn new(volume: Arc<Stream<P>>) -> Self {
        Self {
            volume,
            flight: FuturesOrdered::new(),
            checkpoint: None,
            waiting: VecDeque::new(),
            built: Default::default(),
        }
    }

    /// Runs until the volume is out of service.
    pub(crate) async fn run(mut self) {
        let work: Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> = Box::pin(self.work());
        let done = AssertUnwindSafe(work).catch_unwind().await;
        let done = done.unwrap_or_else(|_| {
            // The panic printed itself. Without this, writers would wait for room for ever.
            Err(Error::internal("destaging", "panicked; report it"))
        });
        if let Err(error) = done {
            let error = self.volume.if_missing(error).await;
            self.volume.fail(error);
        }
        self.checkpoint = None;
        // The others need the memory, however long parking the records takes.
        self.flight = FuturesOrdered::new();
        self.waiting.clear();
        self.volume.overlay_share.set(0);
        self.volume.index_share.set(0);
        if self.volume.has_left() {
            self.volume.park_tail(Fate::Fenced).await;
        } else if self.volume.ctx.log.failure().is_none() {
            self.volume.park_tail(Fate::Waiting).await;
            self.volume.is_parked.store(true, Ordering::Release);
        }
        self.volume.destaging.end();
    }

    async fn work(&mut self) -> Result<()> {
        loop {
            if self.volume.state.lock().failure.is_some() {
                return Ok(());
            }
            self.reap_checkpoint().await?;
            self.begin_checkpoint();
            match self.next_action() {
                Action::Build(batch) => self.build(*batch).await?,
                Action::Wait(limit) => self.wait(limit).await?,
            }
        }
    }

    fn next_action(&self) -> Action<P> {
        let settings = &self.volume.ctx.settings;
        if self.flight.len() >= settings.puts_in_flight_max.min(ON_THEIR_WAY_MAX as usize)
            || self.overlay_is_full()
        {
            return Action::Wait(None);
        }
        let mut state = self.volume.state.lock();
        if state.cut.is_empty() {
            let wanted = self.volume.destaging.is_wanted(state.open.vseq_from);
            let now = self.volume.ctx.clock().boot();
            let due = state.open.since.map(|since| since.saturating_add(settings.dirty_age));
            if wanted || due.is_some_and(|due| due <= now) {
                state.cut();
            } else {
                return Action::Wait(due.map(|due| due - now));
            }
        }
        // A snapshot needs a root, and no complete one exists yet: a checkpoint comes first.
        if state.unsettled && state.cut.front().is_some_and(Batch::has_barrier) {
            return Action::Wait(None);
        }
        if let Some(rest) = self.rest(&state) {
            return Action::Wait(Some(rest));
        }
        match state.cut.pop_front() {
            Some(batch) => Action::Build(Box::new(batch)),
            None => Action::Wait(None),
        }
    }

    /// The rest before the oldest batch is built.
    fn rest(&self, state: &State<P>) -> Option<Duration> {
        let (built_at, step) = self.built;
        let batch = state.cut.front()?;
        let now = self.volume.ctx.clock().boot();
        let need = Need {
            is_wanted: self.volume.destaging.is_wanted(batch.vseq_from) || batch.has_barrier(),
            clients_active: self.volume.ctx.clients_active.load(Ordering::Relaxed),
            filled_percent: self.volume.filled_percent(),
            age: batch.since.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            age_max: self.volume.ctx.settings.dirty_age,
        };
        let left = (built_at + pace::rest(step, &need)).saturating_sub(now);
        (left > Duration::ZERO).then_some(left)
    }

    /// True while a checkpoint is behind: changes must not grow without bound.
    fn overlay_is_full(&self) -> bool {
        self.checkpoint.is_some() && self.volume.overlay_share.is_full()
    }

    async fn wait(&mut self, limit: Option<Duration>) -> Result<()> {
        let volume = self.volume.clone();
        let sleep = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let checkpoint = async {
            match &mut self.checkpoint {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(done) = self.flight.next() => return self.apply(done?).await,
            done = checkpoint => {
                self.checkpoint = None;
                return done.map_err(|error| Error::lost_task("a checkpoint", error))?;
            }
            () = volume.destaging.woken() => {}
            () = sleep => {}
        }
        Ok(())
    }

    /// Builds a batch's segment and sends it on its way.
    async fn build(&mut self, batch: Batch<P>) -> Result<()> {
        let volume = self.volume.clone();
        let Planned { mut plan, room_bytes, needs_base } = P::plan(&volume, &batch);
        let mut room = self.room_for(room_bytes).await?;
        if needs_base {
            // Its base is the state at the end of the batch before: get there first.
            while let Some(done) = self.flight.next().await {
                self.apply(done?).await?;
            }
            P::read_base(&volume, &mut plan).await?;
        }
        let id = volume.next_segment(batch.vseq_from, batch.vseq_to);
        let ctx = volume.ctx.clone();
        let build = move || {
            let began = volume.ctx.clock().boot();
            let ops = batch.ops.iter().filter(|op| volume.is_wanted(op)).cloned().collect();
            let (segment, made) = P::build(&volume, &id, plan, ops)?;
            if let Some(room) = &mut room {
                room.shrink_to(segment.len_bytes());
            }
            let took = volume.ctx.clock().boot().saturating_sub(began);
            Ok(Built { room, segment, made, batch, took })
        };
        let built: Result<Built<P>> = ctx.compute(build).await?;
        let built = built?;
        self.volume.note_built(&built.segment);
        self.built = (self.volume.ctx.clock().boot(), built.took);
        self.flight.push_back(Box::pin(put(self.volume.clone(), built)));
        Ok(())
    }

    /// Waits for room for a segment and its parts. Applies segments on their way meanwhile: their
    /// end makes room.
    async fn room_for(&mut self, bytes: usize) -> Result<Option<Held>> {
        let volume = self.volume.clone();
        let room = volume.ctx.buffers.take(bytes);
        tokio::pin!(room);
        loop {
            tokio::select! {
                biased;
                Some(done) = self.flight.next() => self.apply(done?).await?,
                room = &mut room => return Ok(room),
            }
        }
    }

    /// Applies a segment to the state. The segment and all before it are durable.
    async fn apply(&mut self, built: Built<P>) -> Result<()> {
        let volume = self.volume.clone();
        let Built { room, segment, made, batch, .. } = built;
        drop(room);
        P::apply_segment(&volume, &segment, &made);
        if let Some(info) = volume.take_position(&segment, &batch) {
            if volume.wants_own_root(info.id) {
                self.waiting.push_back(volume.freeze_for(info));
            } else {
                volume.publish_snapshot(info).await?;
            }
        }
        for (id, name) in &batch.cancelled {
            volume.bury_cancelled(*id, name).await?;
        }
        P::forget(&volume, &segment, &made, batch.last_record + 1);
        volume.count_out(&batch);
        volume.ctx.log.trim(volume.group, LogPosition::from_u64(batch.last_record + 1));
        volume.destaging.reached(batch.vseq_to);
        volume.room.notify_waiters();
        volume.ctx.pressure.notify_one();
        Ok(())
    }

    async fn reap_checkpoint(&mut self) -> Result<()> {
        if self.checkpoint.as_ref().is_some_and(Task::is_finished)
            && let Some(task) = self.checkpoint.take()
        {
            task.await.map_err(|error| Error::lost_task("a checkpoint", error))??;
        }
        Ok(())
    }

    /// Starts a checkpoint when one is due. Freezing happens here, between two segments. So a
    /// checkpoint passes a barrier only after the snapshot's ref was created, or creates it.
    fn begin_checkpoint(&mut self) {
        if self.checkpoint.is_none()
            && let Some(job) = self.waiting.pop_front().or_else(|| self.volume.freeze())
        {
            let volume = self.volume.clone();
            self.checkpoint = Some(Task::spawn(async move {
                // The segments before a snapshot's cut are worth a pass.
                let always = job.is_of_snapshot();
                volume.write_checkpoint(job).await?;
                // Beside the next steps.
                tokio::spawn(async move { volume.collect_now_and_then(always).await });
                Ok(())
            }));
        }
    }
}

impl<P: Payload> Stream<P> {
    /// The identity of the segment after the last one built.
    pub(crate) fn next_segment(&self, vseq_from: u64, vseq_to: u64) -> SegmentId {
        let (last, predecessor) = *self.last_built.lock();
        SegmentId {
            kind: SegmentKind::Foreground,
            block: self.desc.block,
            volume: self.desc.id,
            key: SegmentKey { stream: self.stream, number: last.next() },
            epoch: self.epoch,
            predecessor,
            vseq_from,
            vseq_to,
            nonce: self.ctx.bucket.nonce(),
        }
    }

    /// Notes that a segment was built: its number is used up.
    pub(crate) fn note_built(&self, built: &BuiltSegment) {
        *self.last_built.lock() = (built.key.number, built.hash);
        self.fence.next_number.store(built.key.number.0 + 1, Ordering::Release);
    }

    /// Leaves out a barrier whose snapshot was deleted while pending.
    fn is_wanted(&self, op: &Op) -> bool {
        match op {
            Op::Barrier(barrier) => self.snapshots.lock().send(barrier.id),
            _ => true,
        }
    }

    /// Moves the position that is in the bucket. Gives the snapshot of a barrier at the end.
    fn take_position(&self, segment: &BuiltSegment, batch: &Batch<P>) -> Option<SnapshotInfo> {
        let mut state = self.state.lock();
        state.at = Position {
            epoch: self.epoch,
            stream: self.stream,
            number: segment.key.number,
            vseq: batch.vseq_to,
            hash: segment.hash,
        };
        state.applied += 1;
        self.overlay_share.set(state.changed_bytes());
        let mut published = None;
        for op in &batch.ops {
            match op {
                Op::Resize(size) => state.size_at = *size,
                Op::Rename(name) => state.name_at.clone_from(name),
                Op::Barrier(barrier) => {
                    published = Some(SnapshotInfo {
                        id: barrier.id,
                        number: PUBLISHED,
                        created_ms: barrier.created_ms,
                        size_bytes: state.size_at,
                        name: barrier.name.clone(),
                    });
                }
                Op::Zero { .. } | Op::Rollback(_) => {}
            }
        }
        published
    }

    /// Removes a batch from the counts: it is in the bucket.
    fn count_out(&self, batch: &Batch<P>) {
        let mut state = self.state.lock();
        let State { undestaged_bytes, undestaged_records, .. } = &mut *state;
        *undestaged_bytes = undestaged_bytes.saturating_sub(batch.bytes as u64);
        *undestaged_records = undestaged_records.saturating_sub(batch.records() as usize);
        self.index_share.set(state.index_bytes());
    }
}

/// Puts a batch's segment, and gives the batch back when it is durable.
async fn put<P: Payload>(volume: Arc<Stream<P>>, built: Built<P>) -> Result<Built<P>> {
    volume.put_segment(&built.segment).await?;
    Ok(built)
}

impl<P: Payload> Stream<P> {
    /// Puts a segment, again and again until it is durable, or another owner's object stands there.
    pub(crate) async fn put_segment(&self, built: &BuiltSegment) -> Result<()> {
        let name = names::segment(built.key);
        let mut waiting = self.ctx.work_waits();
        loop {
            match self.ctx.bucket.create(&name, built.chunks.clone()).await {
                Ok(Created::Ours) => return Ok(()),
                Ok(Created::Theirs) => match segment_io::read(&self.ctx.bucket, built.key).await {
                    // This node's, nonce and all, but not the bytes that were put: the log still
                    // has them.
                    Ok(Found::Segment(head)) if head.hash == built.hash => {
                        let why = "differs from this node's segment; remove it and start the \
                                   node again";
                        return Err(Error::corrupt(name, why));
                    }
                    Ok(Found::Seal(seal)) => return Err(self.sealed_by(&seal)),
                    Ok(_) => return Err(self.fenced("an unknown writer")),
                    Err(e) if e.is_unavailable() => self.wait_for_store(&mut waiting, &e).await?,
                    Err(e) => return Err(e.into()),
                },
                // Denied, full, unreachable: the log keeps the records until the store accepts the
                // segment.
                Err(e) => self.wait_for_store(&mut waiting, &e).await?,
            }
        }
    }

    /// Takes the volume out of service because its stream was sealed.
    pub(crate) fn sealed_by(&self, seal: &Seal) -> Error {
        match &seal.owner {
            Some(owner) => self.fenced(&format!("host {}", owner.host)),
            None => self.fenced("an operator"),
        }
    }
}
