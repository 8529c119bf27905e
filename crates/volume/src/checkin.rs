//! Checkpoints of a volume that is being written: freeze the overlay, write the tree, publish the head.

use crate::error::{Error, ErrorKind, Result};
use crate::heavy;
use crate::volume::Volume;
use skerry_core::overlay::Overlay;
use skerry_core::position::Position;
use skerry_core::root::{Base, Root};
use skerry_store::checkpoint::{self, Checkpoint, Facts};
use skerry_store::node_writer::NodeLane;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a checkpoint is made of, cut between two segments.
pub(crate) struct Frozen {
    root: Arc<Root>,
    before: Position,
    at: Position,
    overlay: Arc<Overlay>,
    facts: Facts,
    ticket: u64,
}

impl Volume {
    /// Freezes the overlay if a checkpoint is due.
    pub(crate) fn freeze(&self) -> Option<Frozen> {
        let ticket = self.checkpoints_wanted.load(Ordering::Acquire);
        let mut state = self.state.lock();
        let due = self.overlay_share.is_due()
            || state.applied >= self.ctx.settings.checkpoint_segments_max
            || ticket > *self.checkpoints_done.borrow();
        if !due || state.frozen.is_some() {
            return None;
        }
        // A head is named by its place: a second one at the same place, with another root, could not be.
        if state.head_at.is_some_and(|head| head.order() == state.at.order()) {
            drop(state);
            self.checkpoints_done.send_modify(|done| *done = (*done).max(ticket));
            return None;
        }
        let overlay = Arc::new(std::mem::take(&mut state.overlay));
        self.overlay_share.set(0);
        state.frozen = Some(overlay.clone());
        state.applied = 0;
        Some(Frozen {
            root: state.root.clone(),
            before: state.root_at,
            at: state.at,
            overlay,
            facts: Facts { size_bytes: state.size_at, name: state.name_at.clone() },
            ticket,
        })
    }

    /// Writes what was frozen, and publishes the new head.
    pub(crate) async fn check_in(&self, job: Frozen) -> Result<()> {
        let made = self.write_tree(&job).await?;
        let mut keeper = self.refs.lock().await;
        let base = Base::exact(made.root.clone(), job.at);
        self.publish_head(&mut keeper, base, job.before, made.dropped).await?;
        {
            let mut state = self.state.lock();
            state.root = Arc::new(made.root);
            state.root_at = job.at;
            state.unsettled = false;
            state.head_at = Some(job.at);
            state.frozen = None;
        }
        drop(keeper);
        self.checkpoints_done.send_modify(|done| *done = (*done).max(job.ticket));
        self.work.notify_one();
        Ok(())
    }

    async fn write_tree(&self, job: &Frozen) -> Result<Checkpoint> {
        let lane = NodeLane {
            volume: self.desc.id,
            stream: self.stream,
            epoch: self.epoch,
            block: self.desc.block,
            next: self.refs.lock().await.next_node.clone(),
        };
        let mut waiting = self.ctx.work_waits();
        loop {
            let (ctx, lane, facts) = (self.ctx.clone(), lane.clone(), job.facts.clone());
            let (root, overlay) = (job.root.clone(), job.overlay.clone());
            let work = async move {
                let drain_max = ctx.settings.drain_nodes_max;
                let (bucket, nodes) = (&ctx.bucket, &ctx.nodes);
                checkpoint::write(bucket, nodes, lane, &root, &overlay, facts, drain_max).await
            };
            let work: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(work);
            match heavy::run(self.ctx.background.as_ref(), &self.ctx.heavy, work).await? {
                Ok(made) => return Ok(made),
                Err(e) if e.is_unavailable() => self.wait_for_store(&mut waiting, &e).await?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Makes everything that is in the bucket now part of the tree, and waits for it.
    pub async fn checkpoint(&self) -> Result<()> {
        let ticket = self.checkpoints_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.work.notify_one();
        let mut done = self.checkpoints_done.subscribe();
        let mut progress = self.progress.subscribe();
        tokio::select! {
            reached = done.wait_for(|done| *done >= ticket) => match reached {
                Ok(_) => Ok(()),
                Err(_) => Err(Error::new(ErrorKind::Unavailable, "the node is shutting down")),
            },
            failed = progress.wait_for(|p| p.failure.is_some()) => match failed {
                Ok(p) => Err(p.failure.clone().unwrap_or_else(|| {
                    Error::new(ErrorKind::Internal, "a volume failed without a reason")
                })),
                Err(_) => Err(Error::new(ErrorKind::Unavailable, "the node is shutting down")),
            },
        }
    }
}
