//! Destage: turns cut batches into segments, puts several at once, applies them in order.
//!
//! One task for each volume. A batch is built only from the log and from the state at the end of the
//! batch before; a segment counts when every lower number of its stream is durable.

use crate::error::{Error, ErrorKind, Result};
use crate::streams::budget::Held;
use crate::streams::checkin::Frozen;
use crate::streams::parking::Fate;
use crate::streams::state::{Batch, State};
use crate::streams::stream::Volume;
use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{StreamExt, TryStreamExt};
use skerry_core::batch::{BatchPlan, plan};
use skerry_core::names;
use skerry_core::ops::Op;
use skerry_core::pace::{self, Need};
use skerry_core::position::{Position, SegmentKey};
use skerry_core::record::RECORD_HEAD;
use skerry_core::refs::{PUBLISHED, SnapshotInfo};
use skerry_core::seal::Seal;
use skerry_core::segment::{BlockIn, BuiltSegment, SegmentId, SegmentKind, build};
use skerry_core::size::SECTOR_BYTES;
use skerry_core::takeover::{Found, ON_THEIR_WAY_MAX};
use skerry_log::Position as LogPosition;
use skerry_store::bucket::Created;
use skerry_store::segment_io;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many blocks that partial writes are merged with are read at once: a batch must not pay a round trip for each.
const BASES_AT_ONCE: usize = 16;
/// How many blocks are taken over under one hold of the state's lock: bounds how long a client waits for it.
const APPLY_BLOCKS: usize = 256;

/// A segment and what it does to the state.
struct Built {
    /// Room for its bytes, until they are durable.
    room: Option<Held>,
    segment: BuiltSegment,
    zeros: Vec<Range<u64>>,
    batch: Batch,
    /// How long it took to build, on the boot-time clock.
    took: Duration,
}

type Put = Pin<Box<dyn Future<Output = Result<Built>> + Send>>;

/// The destager of one volume.
pub(crate) struct Destager {
    volume: Arc<Volume>,
    flight: FuturesOrdered<Put>,
    checkpoint: Option<tokio::task::JoinHandle<Result<()>>>,
    /// Checkpoints that snapshots wait for: `checkin` bounds how many.
    waiting: VecDeque<Frozen>,
    /// When the last batch was built, on the boot-time clock, and how long that took.
    built: (Duration, Duration),
}

/// What the destager does next.
enum Action {
    /// Build the oldest batch.
    Build(Box<Batch>),
    /// Wait, at most so long.
    Wait(Option<Duration>),
}

impl Destager {
    pub(crate) fn new(volume: Arc<Volume>) -> Self {
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
        if let Err(error) = work.await {
            let error = self.volume.if_missing(error).await;
            self.volume.fail(error);
        }
        if let Some(checkpoint) = self.checkpoint.take() {
            checkpoint.abort();
        }
        self.volume.overlay_share.set(0);
        if self.volume.has_left() {
            self.volume.put_aside(Fate::Fenced).await;
        } else if self.volume.ctx.log.failure().is_none() {
            self.volume.put_aside(Fate::Stuck).await;
            self.volume.is_aside.store(true, Ordering::Release);
        }
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

    fn next_action(&self) -> Action {
        let settings = &self.volume.ctx.settings;
        if self.flight.len() >= settings.puts_in_flight_max.min(ON_THEIR_WAY_MAX as usize)
            || self.overlay_is_full()
        {
            return Action::Wait(None);
        }
        let mut state = self.volume.state.lock();
        if state.cut.is_empty() {
            let wanted = self.volume.wanted_vseq.load(Ordering::Acquire) > state.open.vseq_from;
            let now = self.volume.ctx.clock().boot();
            let due = state.open.since.map(|since| since + settings.dirty_age);
            if wanted || due.is_some_and(|due| due <= now) {
                state.cut();
            } else {
                return Action::Wait(due.map(|due| due - now));
            }
        }
        // A snapshot is named by a root, and there is none yet that says everything: a checkpoint comes first.
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

    /// How long to rest before the oldest batch is built.
    fn rest(&self, state: &State) -> Option<Duration> {
        let (built_at, step) = self.built;
        let batch = state.cut.front()?;
        let now = self.volume.ctx.clock().boot();
        let need = Need {
            is_wanted: self.volume.wanted_vseq.load(Ordering::Acquire) > batch.vseq_from
                || batch.has_barrier(),
            clients_active: self.volume.ctx.clients_active.load(Ordering::Relaxed),
            filled_percent: self.volume.filled_percent(state),
            age: batch.since.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            age_max: self.volume.ctx.settings.dirty_age,
        };
        let left = (built_at + pace::rest(step, &need)).saturating_sub(now);
        (left > Duration::ZERO).then_some(left)
    }

    /// True while a checkpoint is behind: the overlay must not grow without bound.
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
                return done.map_err(|e| Error::new(ErrorKind::Internal, format!("a checkpoint failed: {e}")))?;
            }
            () = volume.work.notified() => {}
            () = sleep => {}
        }
        Ok(())
    }

    /// Builds a batch's segment and sends it on its way.
    async fn build(&mut self, batch: Batch) -> Result<()> {
        let volume = self.volume.clone();
        let block = volume.desc.block;
        let size = batch.size_before.max(batch.size_after);
        let plan = plan(&batch.spans, block, size);
        let room = self.room_for(&plan).await?;
        let mut base = HashMap::new();
        if plan.blocks.iter().any(|b| b.needs_base) {
            // Partial blocks are merged with the state at the end of the batch before: get there first.
            while let Some(done) = self.flight.next().await {
                self.apply(done?).await?;
            }
            base = volume.base_blocks(&plan).await?;
        }
        let id = self.next_id(&batch);
        let ctx = volume.ctx.clone();
        let built = ctx.compute(move || volume.assemble(&id, batch, &plan, &base, room)).await??;
        self.volume.note_built(&built.segment);
        self.built = (self.volume.ctx.clock().boot(), built.took);
        self.flight.push_back(Box::pin(put(self.volume.clone(), built)));
        Ok(())
    }

    /// Waits for room for a segment's blocks, for what they are merged with, and for the segment. What is on its way is
    /// applied meanwhile: its end makes room.
    async fn room_for(&mut self, plan: &BatchPlan) -> Result<Option<Held>> {
        let volume = self.volume.clone();
        let bases = plan.blocks.iter().filter(|b| b.needs_base).count();
        let bytes = (2 * plan.blocks.len() + bases) * volume.desc.block.bytes();
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

    fn next_id(&self, batch: &Batch) -> SegmentId {
        self.volume.next_segment(batch.vseq_from, batch.vseq_to)
    }

    /// Takes a segment that is durable, as is everything before it, into the state.
    async fn apply(&mut self, mut built: Built) -> Result<()> {
        let volume = self.volume.clone();
        built.room = None;
        for zeros in &built.zeros {
            volume.state.lock().overlay.zero(zeros.clone());
        }
        if !built.segment.entries.is_empty() {
            let length = built.segment.len_bytes() as u64;
            volume.state.lock().overlay.note_length(built.segment.key, length);
        }
        for chunk in built.segment.entries.chunks(APPLY_BLOCKS) {
            let mut state = volume.state.lock();
            chunk.iter().for_each(|(index, entry)| state.overlay.set(*index, entry));
        }
        if let Some(info) = volume.take_position(&built) {
            if volume.wants_own_root(info.id) {
                self.waiting.push_back(volume.freeze_for(info));
            } else {
                volume.publish_snapshot(info).await?;
            }
        }
        volume.ctx.blocks.admit(&built.segment);
        volume.forget_live(&built);
        let batch = &built.batch;
        volume.ctx.log.trim(volume.group, LogPosition::from_u64(batch.last_record + 1));
        volume.progress.send_modify(|progress| progress.vseq = batch.vseq_to);
        volume.room.notify_waiters();
        volume.ctx.pressure.notify_one();
        Ok(())
    }

    async fn reap_checkpoint(&mut self) -> Result<()> {
        if self.checkpoint.as_ref().is_some_and(tokio::task::JoinHandle::is_finished)
            && let Some(task) = self.checkpoint.take()
        {
            task.await.map_err(|e| {
                Error::new(ErrorKind::Internal, format!("a checkpoint failed: {e}"))
            })??;
        }
        Ok(())
    }

    /// Starts a checkpoint when one is due. Freezing happens here, between two segments, so that a
    /// checkpoint passes a barrier only after the snapshot's ref was created, or creates it.
    fn begin_checkpoint(&mut self) {
        if self.checkpoint.is_none()
            && let Some(job) = self.waiting.pop_front().or_else(|| self.volume.freeze())
        {
            let volume = self.volume.clone();
            self.checkpoint = Some(tokio::spawn(async move {
                // What a snapshot was cut from is worth a pass.
                let always = job.is_of_snapshot();
                volume.check_in(job).await?;
                // Beside whatever comes next.
                tokio::spawn(async move { volume.collect_now_and_then(always).await });
                Ok(())
            }));
        }
    }
}

impl Volume {
    /// The identity of the segment that follows the last one built.
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

    /// A segment was built, and its number is used up.
    pub(crate) fn note_built(&self, built: &BuiltSegment) {
        *self.last_built.lock() = (built.key.number, built.hash);
        self.fence.next_number.store(built.key.number.0 + 1, Ordering::Release);
    }

    /// The blocks that a batch's partial writes are merged with, several at once.
    async fn base_blocks(self: &Arc<Self>, plan: &BatchPlan) -> Result<HashMap<u64, Bytes>> {
        let partial: Vec<u64> =
            plan.blocks.iter().filter(|b| b.needs_base).map(|b| b.index).collect();
        let read = futures::stream::iter(partial).map(|index| {
            let volume = self.clone();
            async move { Ok((index, volume.base_block(index).await?)) }
        });
        read.buffer_unordered(BASES_AT_ONCE).try_collect().await
    }

    /// The bytes of a block at the end of the batches that are in the bucket; zeros for a hole.
    async fn base_block(&self, index: u64) -> Result<Bytes> {
        let mut waiting = self.ctx.work_waits();
        loop {
            match self.read_base_block(index).await {
                Ok(Some(block)) => return Ok(block),
                Ok(None) => return Ok(Bytes::from(vec![0; self.desc.block.bytes()])),
                Err(e) => {
                    waiting.after(e).await?;
                    self.check_in_service()?;
                }
            }
        }
    }

    /// Puts a batch's blocks together from the log and builds its segment. Computes and reads the log; waits for nothing.
    fn assemble(
        &self,
        id: &SegmentId,
        batch: Batch,
        plan: &BatchPlan,
        base: &HashMap<u64, Bytes>,
        mut room: Option<Held>,
    ) -> Result<Built> {
        let began = self.ctx.clock().boot();
        let bytes = self.desc.block.bytes();
        let mut raw = self.ctx.scratch.take(plan.blocks.len() * bytes);
        for (block, out) in plan.blocks.iter().zip(raw.chunks_exact_mut(bytes)) {
            match base.get(&block.index) {
                Some(base) => out.copy_from_slice(base),
                None if plan.covers(block, bytes) => {}
                None => out.fill(0),
            }
        }
        self.copy_pieces(plan, &mut raw)?;
        let mut zeros: Vec<Range<u64>> = plan.zeros.clone();
        let mut blocks = Vec::with_capacity(plan.blocks.len());
        for (block, data) in plan.blocks.iter().zip(raw.chunks_exact(bytes)) {
            if is_zero(data) {
                zeros.push(block.index..block.index + 1);
            } else {
                blocks.push(BlockIn { index: block.index, data });
            }
        }
        let zeros = join_ranges(zeros);
        let mut ops: Vec<Op> =
            zeros.iter().map(|r| Op::Zero { first: r.start, blocks: r.end - r.start }).collect();
        ops.extend(batch.ops.iter().filter(|op| self.is_wanted(op)).cloned());
        let segment = build(id, &ops, &blocks);
        self.ctx.scratch.give_back(raw);
        if let Some(room) = &mut room {
            room.shrink_to(segment.chunks.iter().map(Bytes::len).sum());
        }
        let took = self.ctx.clock().boot().saturating_sub(began);
        Ok(Built { room, segment, zeros, batch, took })
    }

    /// A barrier whose snapshot was deleted while it was pending is left out.
    fn is_wanted(&self, op: &Op) -> bool {
        match op {
            Op::Barrier(barrier) => self.snapshots.lock().send(barrier.id),
            _ => true,
        }
    }

    /// Copies every piece from its record; each record is verified.
    fn copy_pieces(&self, plan: &BatchPlan, raw: &mut [u8]) -> Result<()> {
        let bytes = self.desc.block.bytes();
        let mut todo: Vec<(u64, usize, usize)> = Vec::with_capacity(plan.pieces.len());
        for (b, block) in plan.blocks.iter().enumerate() {
            for p in block.pieces.start as usize..block.pieces.end as usize {
                todo.push((plan.pieces[p].source.at, p, b * bytes));
            }
        }
        todo.sort_unstable();
        let mut window = self.ctx.log.window();
        for (at, p, offset) in todo {
            let piece = &plan.pieces[p];
            let start = offset + piece.at as usize;
            let out = &mut raw[start..start + piece.len as usize];
            if piece.source.is_zero() {
                out.fill(0);
                continue;
            }
            let payload = window.read(LogPosition::from_u64(at))?.ok_or_else(|| {
                Error::new(
                    ErrorKind::Internal,
                    format!("log record {at} was let go before it was destaged"),
                )
            })?;
            let from = RECORD_HEAD + piece.source.skip as usize * SECTOR_BYTES as usize;
            let data = payload.get(from..from + out.len()).ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("log record {at} is shorter than was written"),
                )
            })?;
            out.copy_from_slice(data);
        }
        Ok(())
    }

    /// Moves the place that is in the bucket; gives what a barrier at the end makes a snapshot of.
    fn take_position(&self, built: &Built) -> Option<SnapshotInfo> {
        let mut state = self.state.lock();
        state.at = Position {
            epoch: self.epoch,
            stream: self.stream,
            number: built.segment.key.number,
            vseq: built.batch.vseq_to,
            hash: built.segment.hash,
        };
        state.applied += 1;
        self.overlay_share.set(state.overlay_bytes());
        let mut published = None;
        for op in &built.batch.ops {
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

    /// Takes out of the live index what the overlay says now.
    fn forget_live(&self, built: &Built) {
        let before = built.batch.last_record + 1;
        let per_block = self.desc.block.bytes() as u64 / SECTOR_BYTES;
        let sectors = |blocks: &Range<u64>| blocks.start * per_block..blocks.end * per_block;
        for zeros in &built.zeros {
            self.state.lock().live.clear_older(sectors(zeros), before);
        }
        for chunk in built.segment.entries.chunks(APPLY_BLOCKS) {
            let mut state = self.state.lock();
            for (index, _) in chunk {
                state.live.clear_older(sectors(&(*index..index + 1)), before);
            }
        }
        let mut state = self.state.lock();
        let State { undestaged_bytes, undestaged_records, .. } = &mut *state;
        *undestaged_bytes = undestaged_bytes.saturating_sub(built.batch.bytes as u64);
        let records = (built.batch.vseq_to - built.batch.vseq_from) as usize;
        *undestaged_records = undestaged_records.saturating_sub(records);
    }
}

/// Puts a batch's segment, and gives the batch back when it is durable.
async fn put(volume: Arc<Volume>, built: Built) -> Result<Built> {
    volume.put_segment(&built.segment).await?;
    Ok(built)
}

impl Volume {
    /// Puts a segment, again and again until it is durable or known to be somebody else's.
    pub(crate) async fn put_segment(&self, built: &BuiltSegment) -> Result<()> {
        let name = names::segment(built.key);
        let mut waiting = self.ctx.work_waits();
        loop {
            match self.ctx.bucket.create(&name, built.chunks.clone()).await {
                Ok(Created::Ours) => return Ok(()),
                Ok(Created::Theirs) => match segment_io::read(&self.ctx.bucket, built.key).await {
                    // Ours, nonce and all, but not what was put: the log still has it.
                    Ok(Found::Segment(head)) if head.hash == built.hash => {
                        let detail = format!(
                            "{name} is not what was put there; remove it and start the node again"
                        );
                        return Err(Error::new(ErrorKind::Corrupt, detail));
                    }
                    Ok(Found::Seal(seal)) => return Err(self.sealed_by(&seal)),
                    Ok(_) => return Err(self.fenced("an unknown writer")),
                    Err(e) if e.is_unavailable() => self.wait_for_store(&mut waiting, &e).await?,
                    Err(e) => return Err(e.into()),
                },
                // Denied, full, unreachable: the log keeps what is written until the store takes it.
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

fn is_zero(data: &[u8]) -> bool {
    // A block's first bytes tell almost always; comparing it with itself shifted tells for sure, at memcmp's speed.
    data.first() == Some(&0) && data[..data.len() - 1] == data[1..]
}

fn join_ranges(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}
