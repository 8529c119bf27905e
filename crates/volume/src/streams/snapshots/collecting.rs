//! Collection of a volume that this node writes: segments that its head and its deleted snapshots
//! have let go of.
//!
//! A pass takes the lock of the refs only to note the volume's state. It lists, decides and deletes
//! without it, so that neither a snapshot nor a checkpoint waits for a collection. A segment that
//! is dead at one head is dead at every later one.

use crate::error::Result;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use crate::streams::stream::refs::{OwnHead, RefKeeper};
use skerry_core::hold::{Span, neighbours};
use skerry_core::id::SnapshotId;
use skerry_core::position::{Number, SegmentKey};
use skerry_core::refs::Ref;
use skerry_core::root::Base;
use skerry_core::takeover::RefOrder;
use skerry_store::refs::catalog;
use skerry_store::refs::claim::Incarnation;
use skerry_store::space::collect::{Deleted, Near, Owned};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Number of candidates from which on a pass is worth its listing.
const CANDIDATES_MIN: usize = 64;

/// The volume's state when a pass began.
struct Standing {
    owned: Owned,
    incarnations: Vec<Incarnation>,
    head: OwnHead,
}

impl Standing {
    /// None before this incarnation has written a head: until then it stands on its predecessor's.
    fn of<P: Payload>(volume: &Stream<P>, keeper: &RefKeeper) -> Option<Self> {
        let head = keeper.own_head.clone()?;
        let owned = Owned {
            volume: volume.desc.id,
            writing: Some((volume.stream, Number::map_node(keeper.covered_node))),
            head: Some(RefOrder::of(&head.at)),
        };
        Some(Self { owned, incarnations: keeper.incarnations.clone(), head })
    }
}

impl<P: Payload> Stream<P> {
    /// Deletes all candidates that are free.
    pub(crate) async fn collect_all(self: &Arc<Self>) -> Result<()> {
        self.collect(true).await.map(drop)
    }

    /// After a checkpoint: deletes candidates that are free, if that is worth it or `always`, and
    /// no other pass is under way.
    pub(crate) async fn collect_now_and_then(self: &Arc<Self>, always: bool) {
        if self.collecting.try_lock().is_err() {
            return;
        }
        if let Err(error) = self.collect(always).await
            && self.collection_lines.is_due(self.ctx.clock().boot())
        {
            tracing::warn!(volume = %self.name(), %error, "collection stopped; the next checkpoint tries again");
        }
    }

    /// Deletes segments that the head has let go of, if there are enough or `always`. Gives their
    /// number.
    pub(crate) async fn collect(self: &Arc<Self>, always: bool) -> Result<usize> {
        let _one = self.collecting.lock().await;
        let (standing, candidates, own_root) = {
            let mut keeper = self.refs.lock().await;
            if keeper.candidates.len() < if always { 1 } else { CANDIDATES_MIN } {
                return Ok(0);
            }
            let Some(standing) = Standing::of(self, &keeper) else { return Ok(0) };
            (standing, std::mem::take(&mut keeper.candidates), keeper.own_root.clone())
        };
        let mut spans = self.snapshots.lock().spans();
        // The holdings of the last snapshot with a root of its own are known: the root was made so
        // that it holds no more.
        let known = |id: &SnapshotId| own_root.as_ref().is_some_and(|(own, _)| own == id);
        let read = spans.extract_if(.., |(id, _)| known(id)).count();
        let read = own_root.iter().take(read).map(|(_, base)| base.clone()).collect();
        let unread = spans.into_iter().map(|(_, span)| span).collect();
        let done = self.free_near(&standing, &candidates, unread, read).await;
        // Deleted ones never come back: each later pass would delete them again.
        let again = match &done {
            Ok(Some(deleted)) => deleted.left.iter().copied().collect(),
            Ok(None) | Err(_) => candidates,
        };
        self.refs.lock().await.candidates.extend(again);
        Ok(done?.unwrap_or_default().all()?)
    }

    /// Deletes segments that only a just deleted snapshot held. Its ref is gone by now; `found` is
    /// a copy.
    pub(crate) async fn collect_after(self: &Arc<Self>, found: &Ref) -> Result<()> {
        let _one = self.collecting.lock().await;
        if self.refs.lock().await.own_head.is_none() {
            // A pass needs a head of this incarnation.
            self.checkpoint().await?;
        }
        let standing = Standing::of(self, &*self.refs.lock().await);
        let Some(standing) = standing else { return Ok(()) };
        let near = neighbours(&Span::of_snapshot(found), &self.snapshots.lock().spans());
        let Some(read) = self.read_bases(near).await? else { return Ok(()) };
        let mut others = read.clone();
        others.push(Base::exact((*standing.head.root).clone(), standing.head.at));
        let candidates = self.ctx.collector.of_base(&found.base, &others).await?;
        let deleted = self.free_near(&standing, &candidates, Vec::new(), read).await?;
        deleted.unwrap_or_default().all()?;
        Ok(())
    }

    /// Reads the bases of snapshots. Gives none if one is missing: then nothing can be decided.
    async fn read_bases(&self, ids: Vec<SnapshotId>) -> Result<Option<Vec<Base>>> {
        let mut bases = Vec::new();
        for id in ids {
            match self.ctx.catalog.snapshot(self.desc.id, id).await? {
                Some(found) => bases.push(found.base),
                None => return Ok(None),
            }
        }
        Ok(Some(bases))
    }

    async fn free_near(
        self: &Arc<Self>,
        standing: &Standing,
        candidates: &BTreeSet<SegmentKey>,
        unread: Vec<Span>,
        read: Vec<Base>,
    ) -> Result<Option<Deleted>> {
        let near = Near { head: (standing.head.root.clone(), standing.head.at), unread, read };
        let (owned, incarnations) = (&standing.owned, &standing.incarnations);
        let free = self.ctx.collector.free_near(owned, incarnations, candidates, &near);
        let free = self.paced(free).await?;
        let Some(free) = free else { return Ok(None) };
        self.delete_free(&free).await.map(Some)
    }

    async fn delete_free(&self, free: &[SegmentKey]) -> Result<Deleted> {
        if free.is_empty() {
            return Ok(Deleted::default());
        }
        // Between deciding and deleting: a node that took the stream over may rely on these
        // segments.
        self.look_for_seal().await?;
        Ok(self.ctx.collector.delete(free).await)
    }

    /// Looks at every object of the volume's streams and deletes segments that nothing in its
    /// family holds.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize> {
        let _one = self.collecting.lock().await;
        self.ctx.catalog.clear_stray_labels(self.desc.id).await?;
        let standing = Standing::of(self, &*self.refs.lock().await);
        let Some(standing) = standing else { return Ok(0) };
        self.delete_late_heads(&standing.head).await;
        let collector = &self.ctx.collector;
        let listed = collector.sweep_candidates(&standing.incarnations).await?;
        let candidates: BTreeSet<SegmentKey> = listed.into_iter().collect();
        let free = collector.free(&standing.owned, &standing.incarnations, &candidates);
        let free = self.paced(free).await?;
        Ok(self.delete_free(&free.unwrap_or_default()).await?.all()?)
    }

    /// Deletes heads that late PUTs of an earlier incarnation created after this one's. Their
    /// segments may be gone, and a sweep stops at anything unreadable. One that can't be deleted
    /// ends no sweep: most hold more than needed, and no more.
    async fn delete_late_heads(&self, own: &OwnHead) {
        let own = RefOrder::of(&own.at);
        let deleted = catalog::delete_heads(&self.ctx.bucket, self.desc.id, |at| *at < own).await;
        if let Err(error) = deleted
            && self.head_lines.is_due(self.ctx.clock().boot())
        {
            tracing::warn!(volume = %self.name(), %error, "old head refs can't be deleted now");
        }
    }
}
