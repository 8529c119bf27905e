//! The refs of a volume that this node writes: snapshots' refs, head refs, and the candidates for
//! collection after them.

use crate::error::Result;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use skerry_core::hold::Span;
use skerry_core::id::SnapshotId;
use skerry_core::label::{self, Label, Labelled};
use skerry_core::names;
use skerry_core::position::{Number, Position, SegmentKey};
use skerry_core::refs::{Ref, SnapshotInfo};
use skerry_core::root::{Base, Root};
use skerry_store::objects::bucket::Created;
use skerry_store::refs::claim::Incarnation;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The owner's knowledge of a volume's refs. One lock holds it, so that a root in use never loses
/// its last ref.
#[derive(Debug)]
pub(crate) struct RefKeeper {
    /// The names of existing head refs, newest last.
    pub(crate) heads: Vec<String>,
    /// The newest of them, its root and that root's position, if this incarnation wrote it.
    pub(crate) own_head: Option<OwnHead>,
    /// All incarnations of the volume.
    pub(crate) incarnations: Vec<Incarnation>,
    /// The last snapshot that got a root of its own from this incarnation, and its base.
    pub(crate) own_root: Option<(SnapshotId, Base)>,
    /// Segments that may be free.
    pub(crate) candidates: BTreeSet<SegmentKey>,
    /// The next number of the node lane.
    pub(crate) next_node: Arc<AtomicU64>,
    /// The first node number that the newest ref does not cover.
    pub(crate) covered_node: u64,
}

/// A head ref that this incarnation wrote.
#[derive(Debug, Clone)]
pub(crate) struct OwnHead {
    pub(crate) root: Arc<Root>,
    pub(crate) at: Position,
}

impl<P: Payload> Stream<P> {
    /// Creates the ref of a snapshot whose barrier was just passed: it names the root below and the
    /// segments since.
    pub(crate) async fn publish_snapshot(&self, info: SnapshotInfo) -> Result<()> {
        let keeper = self.refs.lock().await;
        // Under the lock: a checkpoint that ends now must not take away the root that this one
        // names.
        let base = self.state.lock().base();
        self.create_snapshot_ref(&keeper, info, base).await
    }

    /// Creates a snapshot's ref, again and again until the store takes it or the volume is out of
    /// service.
    pub(crate) async fn create_snapshot_ref(
        &self,
        keeper: &RefKeeper,
        info: SnapshotInfo,
        base: Base,
    ) -> Result<()> {
        let id = info.id;
        let name = names::snapshot(self.desc.id, id, info.number);
        if !self.snapshots.lock().has(id) {
            return Ok(());
        }
        if let Some(failure) = self.state.lock().failure.clone() {
            // Out of service, perhaps deleted: no further object of it may appear.
            return Err(failure);
        }
        let label_name = info.name.clone();
        let made = Ref {
            volume: self.desc.id,
            base,
            snapshot: Some(info),
            // 0 would mean unknown; one more than there are costs nothing.
            next_node: keeper.next_node.load(Ordering::Relaxed).max(1),
        };
        // A ref without a label would be held for ever.
        if let Some(label) = Label::of(&made) {
            let labelled = names::label(self.desc.id, &label_name, &Labelled::Snapshot(label));
            let bytes = label::encode(id, self.ctx.bucket.nonce());
            self.create_persistently(&labelled, bytes).await?;
        }
        self.create_persistently(&name, made.encode(self.ctx.bucket.nonce())).await?;
        self.snapshots.lock().published(id, Span::of_snapshot(&made));
        // Wakes the callers that wait for the snapshot.
        self.destaging.look_again();
        Ok(())
    }

    /// Deletes a snapshot that was cancelled when its barrier was on its way. Tries until its
    /// tombstone is known to be there. Only then may the record that cancels it leave the log:
    /// before that a new owner would create its ref.
    pub(crate) async fn bury_cancelled(&self, id: SnapshotId, name: &str) -> Result<()> {
        let mut waiting = self.ctx.work_waits();
        // In most cases, the command that cancelled it has buried it.
        while self.snapshots.lock().was_sent(id) {
            let buried = {
                // Under the keeper's lock, a ref that is being created is there before its
                // deletion.
                let _keeper = self.refs.lock().await;
                self.ctx.catalog.delete_or_bury(self.desc.id, name, id).await
            };
            match buried {
                Ok(()) => self.snapshots.lock().buried(id),
                Err(e) if e.is_unavailable() => self.wait_for_store(&mut waiting, &e).await?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Creates an object that only this node would create; "exists" means an earlier attempt.
    pub(crate) async fn create_persistently(&self, name: &str, bytes: bytes::Bytes) -> Result<()> {
        let mut waiting = self.ctx.work_waits();
        loop {
            match self.ctx.bucket.create(name, bytes.clone()).await {
                Ok(Created::Ours | Created::Theirs) => return Ok(()),
                // Full, denied or away: writers wait in the log, and this tries again until it
                // works.
                Err(e) if e.is_unavailable() => self.wait_for_store(&mut waiting, &e).await?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Creates a head ref, and notes the segments that may be free now.
    pub(crate) async fn publish_head(
        &self,
        keeper: &mut RefKeeper,
        base: Base,
        before: Position,
        dropped: Vec<SegmentKey>,
    ) -> Result<()> {
        let next_node = keeper.next_node.load(Ordering::Relaxed);
        let name = names::head(self.desc.id, &base.at);
        let at = base.at;
        let root = Arc::new(base.root.clone());
        let made = Ref { volume: self.desc.id, base, snapshot: None, next_node };
        self.create_persistently(&name, made.encode(self.ctx.bucket.nonce())).await?;
        keeper.covered_node = next_node;
        keeper.own_head = Some(OwnHead { root, at });
        keeper.candidates.extend(dropped);
        let first = if before.stream == at.stream { before.number.0 + 1 } else { 1 };
        keeper.candidates.extend(
            (first..=at.number.0).map(|n| SegmentKey { stream: at.stream, number: Number(n) }),
        );
        keeper.heads.retain(|old| *old != name);
        keeper.heads.push(name);
        Ok(())
    }

    /// Deletes head refs that a newer one replaced, up to the first that can't be deleted. So a key
    /// that may not delete is asked once after each checkpoint. From then on that head is tried
    /// last, so that it keeps no other. The lock is free meanwhile, so that no snapshot waits.
    pub(crate) async fn delete_old_heads(&self) {
        let heads = self.refs.lock().await.heads.clone();
        let Some((_, old)) = heads.split_last() else { return };
        for name in old.iter().rev() {
            let deleted = self.ctx.bucket.delete(name).await;
            let heads = &mut self.refs.lock().await.heads;
            heads.retain(|head| head != name);
            if let Err(error) = deleted {
                // It holds more than needed, and is tried again after the next checkpoint.
                heads.insert(0, name.clone());
                if self.head_lines.is_due(self.ctx.clock().boot()) {
                    tracing::warn!(object = %name, %error, "an old head ref can't be deleted now");
                }
                return;
            }
        }
    }
}
