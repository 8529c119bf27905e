//! Checkpoints of a volume that is being written: freeze the changes, write the tree, publish the
//! head.
//!
//! A snapshot that would hold much beyond its content gets a root of its own. A checkpoint is cut
//! at its barrier, and its ref names the new root. So the snapshot waits for its ref until the tree
//! is written. Nothing else waits.
//!
//! Must hold: the ref of such a snapshot is created before the head that passes its barrier. Its
//! root stands among the volume's heads like any other. So a snapshot's neighbours still tell what
//! it alone holds.

use crate::error::Result;
use crate::streams::heavy;
use crate::streams::stream::Stream;
use crate::streams::stream::destaging::Ticket;
use crate::streams::stream::payload::Payload;
use crate::streams::stream::state::State;
use skerry_core::id::SnapshotId;
use skerry_core::position::Position;
use skerry_core::refs::SnapshotInfo;
use skerry_core::root::{Base, Root};
use skerry_store::map::checkpoint::{self, Checkpoint, Facts};
use skerry_store::map::node_writer::MapNodeLane;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The most sets of frozen changes at once: the one being written, and one that a snapshot waits
/// for.
const FROZEN_MAX: usize = 2;

/// Input of a checkpoint, cut between two segments. It merges into the root of the checkpoint
/// before.
pub(crate) struct Frozen<P: Payload> {
    at: Position,
    changes: Arc<P::Changes>,
    facts: Facts,
    ticket: Ticket,
    /// The snapshot at whose barrier it was cut, if its ref will name the new root.
    snapshot: Option<SnapshotInfo>,
}

impl<P: Payload> Frozen<P> {
    fn cut(state: &mut State<P>, ticket: Ticket, snapshot: Option<SnapshotInfo>) -> Self {
        let facts = Facts { size_bytes: state.size_at, name: state.name_at.clone() };
        Self { at: state.at, changes: state.freeze(), facts, ticket, snapshot }
    }

    /// True if a snapshot's ref will name the new root.
    pub(crate) fn is_of_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }
}

impl<P: Payload> Stream<P> {
    /// Freezes the changes if a checkpoint is due.
    pub(crate) fn freeze(&self) -> Option<Frozen<P>> {
        let ticket = self.destaging.newest_ticket();
        let mut state = self.state.lock();
        let due = self.overlay_share.is_due()
            || state.applied >= self.ctx.settings.checkpoint_segments_max
            || self.destaging.is_open(ticket);
        if !due || !state.frozen.is_empty() {
            return None;
        }
        // The place of a head names it: a second one at this place, with another root, is
        // impossible.
        if state.head_at.is_some_and(|head| head.order() == state.at.order()) {
            drop(state);
            self.destaging.done(ticket);
            return None;
        }
        let frozen = Frozen::cut(&mut state, ticket, None);
        self.overlay_share.set(state.changed_bytes());
        Some(frozen)
    }

    /// True if a snapshot whose barrier was just passed should get a root of its own.
    pub(crate) fn wants_own_root(&self, snapshot: SnapshotId) -> bool {
        let garbage_max = self.ctx.settings.snapshot_garbage_bytes_max;
        let state = self.state.lock();
        state.garbage_bytes_max() > garbage_max
            && state.frozen.len() < FROZEN_MAX
            && self.snapshots.lock().has(snapshot)
    }

    /// Freezes the changes at the barrier that was just passed.
    pub(crate) fn freeze_for(&self, snapshot: SnapshotInfo) -> Frozen<P> {
        let ticket = self.destaging.newest_ticket();
        let mut state = self.state.lock();
        let frozen = Frozen::cut(&mut state, ticket, Some(snapshot));
        self.overlay_share.set(state.changed_bytes());
        frozen
    }

    /// Writes frozen changes, publishes their snapshot if there is one, and publishes the new head.
    pub(crate) async fn write_checkpoint(self: &Arc<Self>, job: Frozen<P>) -> Result<()> {
        let before = self.state.lock().root_at;
        let made = self.write_tree(&job).await?;
        let mut keeper = self.refs.lock().await;
        let base = Base::exact(made.root.clone(), job.at);
        if let Some(info) = job.snapshot {
            let id = info.id;
            self.create_snapshot_ref(&keeper, info, base.clone()).await?;
            keeper.own_root = Some((id, base.clone()));
        }
        self.publish_head(&mut keeper, base, before, made.dropped).await?;
        {
            let mut state = self.state.lock();
            state.root = Arc::new(made.root);
            state.root_at = job.at;
            state.unsettled = false;
            state.head_at = Some(job.at);
            state.frozen.pop_front();
            self.overlay_share.set(state.changed_bytes());
        }
        drop(keeper);
        self.delete_old_heads().await;
        self.destaging.done(job.ticket);
        self.destaging.wake();
        Ok(())
    }

    /// Writes the tree. Also releases the subtrees that its snapshot does not need, up to a bound.
    async fn write_tree(self: &Arc<Self>, job: &Frozen<P>) -> Result<Checkpoint> {
        let root = self.state.lock().root.clone();
        let mut made = self.write_step(&root, &job.changes, &job.facts).await?;
        let drain_max = self.ctx.settings.drain_nodes_max.max(1);
        let steps = match job.snapshot {
            Some(_) => self.ctx.settings.snapshot_drain_nodes_max.div_ceil(drain_max),
            None => 1,
        };
        let nothing = Arc::new(P::Changes::default());
        for _ in 1..steps {
            if made.root.dead_pending.is_none() {
                break;
            }
            let next = self.write_step(&Arc::new(made.root), &nothing, &job.facts).await?;
            made.dropped.extend(next.dropped);
            made.root = next.root;
        }
        Ok(made)
    }

    async fn write_step(
        self: &Arc<Self>,
        root: &Arc<Root>,
        changes: &Arc<P::Changes>,
        facts: &Facts,
    ) -> Result<Checkpoint> {
        let lane = MapNodeLane {
            volume: self.desc.id,
            stream: self.stream,
            epoch: self.epoch,
            block: self.desc.block,
            next: self.refs.lock().await.next_node.clone(),
        };
        let mut waiting = self.ctx.work_waits();
        loop {
            let (ctx, lane, facts) = (self.ctx.clone(), lane.clone(), facts.clone());
            let (root, changes) = (root.clone(), changes.clone());
            let work = async move {
                let drain_max = ctx.settings.drain_nodes_max;
                let (bucket, nodes) = (&ctx.bucket, &ctx.map_nodes);
                checkpoint::write(bucket, nodes, lane, &root, &*changes, facts, drain_max).await
            };
            let work: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(self.paced(work));
            match heavy::run(self.ctx.background.as_ref(), &self.ctx.heavy, work).await? {
                Ok(made) => return Ok(made),
                Err(e) if e.is_unavailable() => self.wait_for_store(&mut waiting, &e).await?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Merges everything that is now in the bucket into the tree, and waits for it.
    pub async fn checkpoint(&self) -> Result<()> {
        self.destaging.checkpoint().await
    }
}
