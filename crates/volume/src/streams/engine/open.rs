//! Opening a volume for writing: claim its stream, replay the log's tail, start its destager.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::streams::engine::idle::tidy_when_idle;
use crate::streams::order::{First, Second};
use crate::streams::stream::destaging::Destaging;
use crate::streams::stream::fence::{Fence, watch_fence};
use crate::streams::stream::payload::Payload;
use crate::streams::stream::refs::RefKeeper;
use crate::streams::stream::snapshot_list::Snapshots;
use crate::streams::stream::state::State;
use crate::streams::stream::{IoCounts, Stream};
use crate::streams::tails::parking::Fate;
use crate::streams::tails::tail::{self, Tail, TailRecord, Verdict};
use crate::streams::task::Task;
use crate::streams::throttle::Throttle;
use crate::streams::write::destage::Destager;
use parking_lot::Mutex;
use skerry_core::descriptor::VolumeDesc;
use skerry_core::id::VolumeId;
use skerry_core::label::Label;
use skerry_core::names;
use skerry_core::position::Position;
use skerry_core::record::Action;
use skerry_core::refs::{PUBLISHED, Ref, SnapshotInfo};
use skerry_log::LogPosition;
use skerry_store::map::changes::Changes;
use skerry_store::refs::claim::{self, ClaimOptions, Claimed, Incarnation};
use skerry_store::refs::view::PassedBarrier;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use tokio::sync::Notify;

/// Claims a volume and brings it into service. `fresh` is a group of the log that no record has.
pub(crate) async fn open<P: Payload>(
    ctx: Arc<Context>,
    desc: Arc<VolumeDesc>,
    fresh: u32,
    tail: &Arc<Tail>,
    held_only: bool,
) -> Result<Arc<Stream<P>>> {
    let options = ClaimOptions { owner: Some(ctx.owner()), force: false, held_only };
    let claimed = claim::claim::<P::Changes>(&ctx.bucket, &desc, &options).await?;
    let incarnations = claim::incarnations(&ctx.bucket, desc.id).await?;
    let mut verdict = judge(&ctx, desc.id, &incarnations, &claimed.view.at, tail).await?;
    park(&ctx, desc.id, &incarnations, &mut verdict).await;
    refuse_mixed(&desc, tail, &verdict)?;
    settle_passed(&ctx, &desc, &claimed, tail, &verdict).await?;
    let labels = ctx.catalog.settled_labels(desc.id).await?;
    let has_barrier = verdict.replay(tail).any(|r| matches!(*r.action(), Action::Barrier(_)));
    let must_checkpoint = claimed.must_checkpoint || (claimed.unsettled && has_barrier);
    let group = group_of(tail, &verdict, fresh);
    let volume =
        Arc::new(build(ctx, desc, group, claimed, incarnations, Snapshots::of_labels(&labels)));
    let (replaying, tail) = (volume.clone(), tail.clone());
    // A tail may have millions of records.
    volume.ctx.compute(move || replaying.replay(&tail, &verdict)).await??;
    // If no caller waits for this any more, no caller will have this volume: it ends here, as in a
    // crash.
    let destager = Task::spawn(Destager::new(volume.clone()).run());
    tokio::spawn(watch_fence(Arc::downgrade(&volume)));
    tokio::spawn(tidy_when_idle(Arc::downgrade(&volume)));
    if must_checkpoint && let Err(e) = volume.checkpoint().await {
        // Its tail is the log's again.
        destager.end().await;
        return Err(e);
    }
    destager.keep();
    Ok(volume)
}

/// Judges a tail, seen from `at`.
pub(crate) async fn judge(
    ctx: &Context,
    id: VolumeId,
    incarnations: &[Incarnation],
    at: &Position,
    tail: &Arc<Tail>,
) -> Result<Verdict> {
    let chain = match tail.first_epoch(incarnations) {
        Some(from) => claim::chain(&ctx.bucket, id, incarnations, at, from).await?,
        None => Vec::new(),
    };
    let (tail, at, log) = (tail.clone(), *at, ctx.log_id());
    ctx.compute(move || tail::judge(&tail, &at, &chain, log)).await?
}

/// Moves records that will never be merged out of the log. If that fails, they stay there, with a
/// message. Records of a stream that the bucket does not know stay too: that may be the bucket's
/// fault.
pub(crate) async fn park(
    ctx: &Arc<Context>,
    id: VolumeId,
    incarnations: &[Incarnation],
    verdict: &mut Verdict,
) {
    if verdict.parked.is_empty() {
        return ctx.unnote(id);
    }
    let is_known =
        |r: &TailRecord| incarnations.iter().any(|incarnation| incarnation.stream == r.stream);
    let moved = if verdict.parked.iter().all(is_known) {
        ctx.park(Fate::Fenced, id, verdict.parked.clone()).await.map_err(|e| e.to_string())
    } else {
        Err("the bucket may lack some of its objects".to_owned())
    };
    match moved {
        Ok(()) => {
            verdict.parked.clear();
            ctx.unnote(id);
        }
        Err(reason) => {
            verdict.why = format!("{}; {reason}", verdict.why);
            let (count, why) = (verdict.parked.len(), &verdict.why);
            let line = format!(
                "volume {id}: {count} log records are kept in the log and not merged: {why}"
            );
            ctx.note(id, line);
        }
    }
}

/// The group for new records.
fn group_of(tail: &Tail, verdict: &Verdict, fresh: u32) -> u32 {
    verdict.replay(tail).next().map_or(fresh, |record| record.group)
}

/// Refuses a tail whose parked records could not be moved out of the log and share the group of new
/// ones. Trimming the destaged records would drop the parked ones.
fn refuse_mixed(desc: &VolumeDesc, tail: &Tail, verdict: &Verdict) -> Result<()> {
    let goes_on = verdict.replay(tail).next().map(|record| record.group);
    if !verdict.parked.iter().any(|record| Some(record.group) == goes_on) {
        return Ok(());
    }
    let why = format!(
        "has {} log records that must not be merged and can't be parked ({}): see to that, and \
         attach it again",
        verdict.parked.len(),
        verdict.why
    );
    // Not `Unavailable`: this volume's trouble keeps no node from starting.
    Err(Error::invalid(format!("volume {}", desc.name), why))
}

/// Creates the missing refs of snapshots whose barriers were passed on the way. Buries the
/// snapshots that were deleted while pending, as the tail says.
async fn settle_passed<C>(
    ctx: &Context,
    desc: &VolumeDesc,
    claimed: &Claimed<C>,
    tail: &Tail,
    verdict: &Verdict,
) -> Result<()> {
    let barriers: &[PassedBarrier] = &claimed.journey.barriers;
    let mut cancelled = BTreeSet::new();
    for record in verdict.replay(tail) {
        let Action::Cancel(id) = *record.action() else { continue };
        cancelled.insert(id);
        let passed = barriers.iter().find(|b| b.barrier.id == id).map(|b| b.barrier.name.clone());
        let name = match passed {
            Some(name) => Some(name),
            None => {
                ctx.catalog.snapshot(desc.id, id).await?.and_then(|r| r.snapshot).map(|s| s.name)
            }
        };
        if let Some(name) = name {
            ctx.catalog.delete_or_bury(desc.id, &name, id).await?;
        }
    }
    for passed in barriers {
        let id = passed.barrier.id;
        if cancelled.contains(&id) {
            continue;
        }
        let numbers = ctx.catalog.snapshot_numbers(desc.id, id).await?;
        if numbers.is_buried || numbers.newest().is_some() {
            continue;
        }
        if claimed.unsettled {
            let why = format!(
                "has a snapshot {:?} in its stream, and no head that was written before it; put \
                 the newest object of the volume's heads back",
                passed.barrier.name
            );
            return Err(Error::corrupt(format!("volume {}", desc.name), why));
        }
        let made = Ref {
            volume: desc.id,
            base: passed.base.clone(),
            snapshot: Some(SnapshotInfo {
                id,
                number: PUBLISHED,
                created_ms: passed.barrier.created_ms,
                size_bytes: passed.size_bytes,
                name: passed.barrier.name.clone(),
            }),
            next_node: 0,
        };
        if let Some(label) = Label::of(&made) {
            ctx.catalog.label(desc.id, &passed.barrier.name, label).await?;
        }
        let name = names::snapshot(desc.id, id, PUBLISHED);
        // The first writer wrote the same snapshot.
        let _ = ctx.bucket.create(&name, vec![made.encode(ctx.bucket.nonce())]).await?;
    }
    Ok(())
}

fn build<P: Payload>(
    ctx: Arc<Context>,
    desc: Arc<VolumeDesc>,
    group: u32,
    claimed: Claimed<P::Changes>,
    incarnations: Vec<Incarnation>,
    snapshots: Snapshots,
) -> Stream<P> {
    let (stream, epoch) = (claimed.view.at.stream, claimed.view.at.epoch);
    let vseq = claimed.view.at.vseq;
    let mut state: State<P> = State::of(claimed.view);
    if claimed.unsettled {
        state.unsettled = true;
        // The parent's segments are no reason for a checkpoint: a clone that writes little should
        // move little.
        state.applied = 0;
    }
    let keeper = RefKeeper {
        heads: claimed.heads,
        own_head: None,
        own_root: None,
        incarnations,
        candidates: BTreeSet::new(),
        next_node: Arc::new(AtomicU64::new(0)),
        covered_node: 0,
    };
    let fence = Fence::new(ctx.clock(), &ctx.settings);
    let overlay_share = ctx.overlays.share();
    overlay_share.set(state.changes.bytes());
    let index_share = ctx.indexes.share();
    Stream {
        ctx,
        index_share,
        overlay_share,
        desc,
        stream,
        epoch,
        group,
        state: First::new(state),
        snapshots: Second::new(snapshots),
        destaging: Destaging::new(vseq),
        room: Notify::new(),
        refs: tokio::sync::Mutex::new(keeper),
        collecting: tokio::sync::Mutex::default(),
        collection_lines: Throttle::default(),
        head_lines: Throttle::default(),
        admin: Arc::default(),
        fence,
        last_built: Mutex::default(),
        named: AtomicBool::new(false),
        io: IoCounts::default(),
        clients: AtomicU64::new(0),
        is_parked: AtomicBool::new(false),
    }
}

impl<P: Payload> Stream<P> {
    /// Applies the records of a tail to the state, as they were applied when they were written.
    fn replay(&self, tail: &Tail, verdict: &Verdict) -> Result<()> {
        let now = self.ctx.clock().boot();
        let parked: BTreeSet<u32> = verdict.parked.iter().map(|r| r.group).collect();
        for group in tail.groups().difference(&parked) {
            let first = verdict.replay(tail).find(|r| r.group == *group);
            let below = first.map_or(LogPosition::MAX, |r| LogPosition::from_u64(r.at));
            self.ctx.log.trim(*group, below);
        }
        for record in verdict.replay(tail) {
            let mut state = self.state.lock();
            if record.vseq != state.vseq {
                let object = format!("record {} of volume {}", record.vseq, state.name);
                return Err(Error::corrupt(object, "is out of order"));
            }
            self.apply(&mut state, &record.action(), record.at, now);
            if state.open.is_full(&self.ctx.settings) {
                state.cut();
            }
        }
        self.index_share.set(self.state.lock().index_bytes());
        Ok(())
    }
}
