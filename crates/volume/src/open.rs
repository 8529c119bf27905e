//! Opening a volume for writing: claim its stream, replay the log's tail, start its destager.

use crate::context::Context;
use crate::destage::Destager;
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Fence;
use crate::refs::RefKeeper;
use crate::snapshots::Snapshots;
use crate::state::{Batch, State};
use crate::tail::{self, Tail, TailRecord, Verdict};
use crate::volume::{IoCounts, Progress, Volume};
use parking_lot::Mutex;
use skerry_core::descriptor::VolumeDesc;
use skerry_core::extents::ExtentMap;
use skerry_core::names;
use skerry_core::ops::Op;
use skerry_core::record::Action;
use skerry_core::refs::{Ref, SnapshotInfo};
use skerry_log::Position as LogPosition;
use skerry_store::claim::{self, ClaimOptions, Claimed};
use skerry_store::view::{PassedBarrier, View};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// A volume that was opened, and why its tail was left out, if it was.
pub(crate) struct Opened {
    pub(crate) volume: Arc<Volume>,
    pub(crate) parked: Option<String>,
}

/// Claims a volume and brings it into service.
pub(crate) async fn open(
    ctx: Arc<Context>,
    desc: Arc<VolumeDesc>,
    group: u32,
    tail: Option<&Tail>,
    force: bool,
) -> Result<Opened> {
    let options = ClaimOptions { owner: Some(ctx.owner()), force };
    let claimed = claim::claim(&ctx.bucket, &desc, &options).await?;
    publish_passed(&ctx, &desc, &claimed.journey.barriers).await?;
    let refs = ctx.catalog.snapshots(desc.id).await?;
    let lives = claim::lives(&ctx.bucket, desc.id).await?;
    let verdict = match tail {
        Some(tail) => tail::judge(tail, claimed.view.at.vseq, &lives, ctx.log_id())?,
        None => Verdict::Replay(Vec::new()),
    };
    let must_checkpoint = claimed.must_checkpoint;
    let volume = Arc::new(build(ctx, desc, group, claimed, lives, Snapshots::of_refs(&refs)));
    let parked = match verdict {
        Verdict::Replay(records) => {
            volume.replay(records, tail.is_some())?;
            None
        }
        Verdict::Fenced(why) => Some(why),
    };
    volume.ctx.volumes_open.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(Destager::new(volume.clone()).run());
    if must_checkpoint {
        volume.checkpoint().await?;
    }
    Ok(Opened { volume, parked })
}

/// Creates the refs of snapshots whose barriers were passed on the way and whose refs are missing.
async fn publish_passed(
    ctx: &Context,
    desc: &VolumeDesc,
    barriers: &[PassedBarrier],
) -> Result<()> {
    for passed in barriers {
        let id = passed.barrier.id;
        let name = names::snapshot(desc.id, id);
        let buried = ctx.bucket.exists(&names::snapshot_gone(desc.id, id)).await?;
        if buried || ctx.bucket.exists(&name).await? {
            continue;
        }
        let made = Ref {
            volume: desc.id,
            base: passed.base.clone(),
            snapshot: Some(SnapshotInfo {
                id,
                created_ms: passed.barrier.created_ms,
                size_bytes: passed.size_bytes,
                name: passed.barrier.name.clone(),
            }),
            next_node: 0,
        };
        // Whoever was first wrote the same snapshot.
        let _ = ctx.bucket.create(&name, vec![made.encode(ctx.bucket.nonce())]).await?;
    }
    Ok(())
}

/// The state of a view with nothing in the log.
pub(crate) fn state_of(view: View, block: skerry_core::size::BlockSize) -> State {
    let vseq = view.at.vseq;
    let batch = Batch {
        vseq_from: vseq,
        vseq_to: vseq,
        size_before: view.size_bytes,
        size_after: view.size_bytes,
        ..Batch::default()
    };
    State {
        block,
        size_bytes: view.size_bytes,
        name: view.name.clone(),
        vseq,
        last_record: 0,
        live: ExtentMap::new(),
        open: batch,
        cut: VecDeque::new(),
        undestaged_bytes: 0,
        undestaged_records: 0,
        overlay: view.overlay,
        frozen: None,
        root: Arc::new(view.root),
        root_at: view.root_at,
        at: view.at,
        applied: view.applied,
        size_at: view.size_bytes,
        name_at: view.name,
        failure: None,
        generation: 0,
        paused: false,
    }
}

fn build(
    ctx: Arc<Context>,
    desc: Arc<VolumeDesc>,
    group: u32,
    claimed: Claimed,
    lives: Vec<skerry_core::descriptor::Life>,
    snapshots: Snapshots,
) -> Volume {
    let (stream, epoch) = (claimed.view.at.stream, claimed.view.at.epoch);
    let vseq = claimed.view.at.vseq;
    let state = state_of(claimed.view, desc.block);
    let keeper = RefKeeper {
        heads: claimed.heads,
        own_head: None,
        lives,
        candidates: BTreeSet::new(),
        next_node: Arc::new(AtomicU64::new(0)),
        covered_node: 0,
    };
    let fence = Fence::new(ctx.clock(), ctx.settings.suspend_gap);
    Volume {
        ctx,
        desc,
        stream,
        epoch,
        group,
        state: Mutex::new(state),
        snapshots: Mutex::new(snapshots),
        work: Notify::new(),
        room: Notify::new(),
        progress: watch::Sender::new(Progress { vseq, failure: None }),
        wanted_vseq: AtomicU64::new(0),
        checkpoints_wanted: AtomicU64::new(0),
        checkpoints_done: watch::Sender::new(0),
        refs: tokio::sync::Mutex::new(keeper),
        admin: tokio::sync::Mutex::new(()),
        fence,
        last_built: Mutex::default(),
        io: IoCounts::default(),
        clients: AtomicU64::new(0),
    }
}

impl Volume {
    /// Takes the records of a tail into the state, as they were taken when they were written.
    fn replay(&self, records: Vec<TailRecord>, had_tail: bool) -> Result<()> {
        let now = self.ctx.clock().boot();
        match records.first() {
            Some(first) => self.ctx.log.trim(self.group, LogPosition::from_u64(first.at)),
            None if had_tail => self.ctx.log.trim(self.group, LogPosition::MAX),
            None => {}
        }
        for record in records {
            let mut state = self.state.lock();
            if record.vseq != state.vseq {
                let detail =
                    format!("record {} of volume {} is out of order", record.vseq, state.name);
                return Err(Error::new(ErrorKind::Corrupt, detail));
            }
            self.take(&mut state, &record.action, record.at, now);
            let settings = &self.ctx.settings;
            if state.open.bytes >= settings.segment_bytes
                || state.open.spans.len() >= settings.segment_records_max
            {
                state.cut();
            }
        }
        Ok(())
    }

    /// Takes one record into the state.
    pub(crate) fn take(&self, state: &mut State, action: &Action, at: u64, now: Duration) {
        match action {
            Action::Write { offset, len } => state.content(*offset..offset + len, at, false, now),
            Action::Zero { offset, len } => state.content(*offset..offset + len, at, true, now),
            Action::Resize(size) => {
                state.record(at, now);
                state.open.ops.push(Op::Resize(*size));
                state.size_bytes = *size;
                state.cut();
            }
            Action::Barrier(barrier) => {
                state.record(at, now);
                state.open.ops.push(Op::Barrier(barrier.clone()));
                self.snapshots.lock().add(barrier, state.size_bytes, state.vseq);
                state.cut();
            }
            Action::Cancel(id) => {
                state.record(at, now);
                self.snapshots.lock().remove_id(*id);
            }
            Action::Rename(name) => {
                state.record(at, now);
                state.open.ops.push(Op::Rename(name.clone()));
                state.name.clone_from(name);
                state.cut();
            }
        }
    }
}
