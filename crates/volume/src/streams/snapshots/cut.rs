//! Snapshots of a stream that this node writes: take, delete, roll back.

use crate::error::{Cause, Error, Result};
use crate::info::{SnapshotState, SnapshotView};
use crate::streams::stream::payload::Payload;
use crate::streams::stream::state::State;
use crate::streams::stream::{Behalf, Stream};
use skerry_core::hold::Span;
use skerry_core::holder::Holder;
use skerry_core::id::{GroupId, SnapshotId};
use skerry_core::name::Name;
use skerry_core::ops::{Barrier, Op};
use skerry_core::position::Position;
use skerry_core::record::Action;
use skerry_core::refs::Ref;
use skerry_core::root::Base;
use skerry_core::segment::build;
use skerry_store::map::changes::Changes;
use skerry_store::refs::view::{self, View};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::OwnedMutexGuard;

/// Number of new reads of a snapshot whose ref is replaced by a higher number meanwhile.
pub(crate) const REPLACED_MAX: usize = 5;

/// Makes `YYYYMMDDThhmmssZ`.
pub(crate) fn timestamp_name(wall_ms: u64) -> String {
    jiff::Timestamp::from_millisecond(wall_ms as i64)
        .map(|t| t.strftime("%Y%m%dT%H%M%SZ").to_string())
        .unwrap_or_else(|_| format!("at-{wall_ms}"))
}

impl<P: Payload> Stream<P> {
    /// Takes a snapshot of everything acknowledged so far; durable as the volume's flush level
    /// promises. "Exists" promises the same durability: an earlier call may have been given up
    /// before that.
    pub(crate) async fn snapshot(
        &self,
        name: Option<&Name>,
        behalf: Behalf,
    ) -> Result<SnapshotView> {
        self.check_fence().await?;
        let created_ms = self.ctx.clock().wall_ms();
        let exists = |name: &str| self.snapshots.lock().get(name).is_some();
        if let Some(name) = name.filter(|name| exists(name.as_str())) {
            self.flush().await?;
            let object = format!("snapshot {}@{name}", self.name());
            return Err(Cause::Exists { object }.into());
        }
        let barrier = {
            let name = match name {
                Some(name) => name.to_string(),
                None => free_name(&timestamp_name(created_ms), exists),
            };
            let id = SnapshotId::random(self.ctx.bucket.entropy().as_ref());
            Barrier { id, group: GroupId::NONE, group_size: 0, created_ms, name }
        };
        if self.state.lock().unsettled {
            self.checkpoint().await?;
        }
        let generation = self.state.lock().generation;
        let action = Action::Barrier(barrier.clone());
        self.note(generation, behalf, &action).await?;
        self.destaging.wake();
        self.flush().await?;
        let volume = self.name();
        let views = self.snapshots.lock().views(&volume);
        views.into_iter().find(|v| v.id == barrier.id).ok_or_else(|| {
            Error::gone(format!("snapshot {volume}@{}", barrier.name), "was deleted at once")
        })
    }

    /// Waits until a snapshot is in the bucket.
    pub(crate) async fn wait_snapshot(&self, name: &Name) -> Result<()> {
        let known = self.snapshots.lock().get(name.as_str()).cloned();
        match known {
            Some(known) if known.state == SnapshotState::Pending => {
                self.wait_published(known.vseq).await
            }
            _ => Ok(()),
        }
    }

    /// Deletes a snapshot: a pending one by a record that cancels it, a published one by its
    /// tombstone. Runs to its end even if the caller goes away. A pending snapshot that is
    /// cancelled and has no tombstone would be forgotten here, and be listed again after a restart.
    pub(crate) async fn delete_snapshot(self: &Arc<Self>, name: &Name) -> Result<()> {
        let (volume, name) = (self.clone(), name.clone());
        let done = tokio::spawn(async move { volume.delete_snapshot_to_the_end(&name).await });
        done.await.map_err(|error| Error::lost_task("a deletion", error))?
    }

    async fn delete_snapshot_to_the_end(self: &Arc<Self>, name: &Name) -> Result<()> {
        // No caller has to wait for the collection.
        let cleared = match self.bury_snapshot(name).await? {
            Ok(Some(found)) => self.collect_after(&found).await,
            Ok(None) => Ok(()),
            Err(unread) => Err(unread),
        };
        if let Err(error) = cleared {
            tracing::warn!(volume = %self.name(), %error, "a deleted snapshot's segments stay until the next sweep");
        }
        Ok(())
    }

    /// Deletes a snapshot without collecting its segments. Gives its ref, if there was one, or the
    /// reason why that can't be read.
    async fn bury_snapshot(&self, name: &Name) -> Result<Result<Option<Ref>>> {
        let _admin = self.admin.lock().await;
        let known = self.snapshots.lock().get(name.as_str()).cloned();
        let known = known.ok_or_else(|| Error::no_snapshot(self.name(), name))?;
        if known.state == SnapshotState::Pending {
            let generation = self.state.lock().generation;
            let action = Action::Cancel(known.id);
            self.note(generation, Behalf::Operator, &action).await?;
            // The record removed it from the pending ones: callers that wait for its ref look
            // again.
            self.destaging.look_again();
            self.flush().await?;
        }
        if known.state == SnapshotState::Pending && !self.snapshots.lock().was_sent(known.id) {
            return Ok(Ok(None));
        }
        // A barrier on its way is in the stream, or will be: the tombstone decides. The lock is
        // only for a pending snapshot, whose ref may be under way. A published one's is there, and
        // no other caller needs to wait.
        let _keeper = match known.state {
            SnapshotState::Pending => Some(self.refs.lock().await),
            _ => None,
        };
        let found = self.ctx.catalog.snapshot(self.desc.id, known.id).await;
        match self.ctx.catalog.delete_snapshot(self.desc.id, name.as_str(), known.id).await {
            Ok(()) => self.snapshots.lock().buried(known.id),
            // The record that cancels it decides, and stays in the log until the tombstone is
            // there.
            Err(error) if known.state == SnapshotState::Pending && error.is_unavailable() => {
                tracing::info!(snapshot = %name, %error, "a snapshot's deletion goes on by itself");
                return Ok(Ok(None));
            }
            Err(error) => return Err(error.into()),
        }
        // Wakes the callers that wait for its ref.
        self.destaging.look_again();
        Ok(found.map_err(Error::from))
    }

    /// Puts the volume back to a snapshot, and keeps the state before as another snapshot. Keeps
    /// writers out before anything else, so that the kept snapshot has everything acknowledged.
    /// Earlier clients get errors once the state is another, and clients that attach meanwhile wait
    /// for the end. Runs to its end even if the caller goes away: it must not stop half-way.
    pub(crate) async fn roll_back(
        self: &Arc<Self>,
        to: (SnapshotId, Base),
        kept: Name,
        force: bool,
        admin: OwnedMutexGuard<()>,
    ) -> Result<SnapshotView> {
        let volume = self.clone();
        let done = tokio::spawn(async move {
            let _admin = admin;
            let _paused = volume.pause();
            volume.refuse_clients(force, true)?;
            let view = volume.snapshot(Some(&kept), Behalf::WhoPaused).await?;
            volume.roll_back_paused(to.0, &to.1).await?;
            Ok(view)
        });
        done.await.map_err(|error| Error::lost_task("a rollback", error))?
    }

    /// Refuses while clients are attached, unless forced. Pause first: then no client attaches.
    pub(crate) fn refuse_clients(&self, force: bool, may_force: bool) -> Result<()> {
        let clients = self.clients.load(Ordering::Relaxed);
        if clients == 0 || force {
            return Ok(());
        }
        let why = format!(
            "has {clients} client(s) attached; detach them first{}",
            if may_force { ", or say --force: they get errors then" } else { "" }
        );
        Err(Error::busy(self.name(), why))
    }

    /// Keeps writers, and clients that attach, waiting until the result is dropped.
    pub(crate) fn pause(&self) -> Paused<'_, P> {
        self.state.lock().paused = true;
        Paused(self)
    }

    async fn roll_back_paused(&self, to: SnapshotId, base: &Base) -> Result<()> {
        self.drain().await?;
        let mut target: View<P::Changes> = view::open(&self.ctx.bucket, self.desc.id, base).await?;
        self.checkpoint().await?;
        self.note_fork(to).await?;
        let at = self.publish_rollback(base).await?;
        {
            let mut state = self.state.lock();
            let (generation, last_record) = (state.generation, state.last_record);
            let name = state.name.clone();
            let root_at = state.root_at;
            target.root.birth = target.root.birth.max(state.root.birth);
            let mut next: State<P> = State::of(View { at, name, ..target });
            // A client that saw the state before must not go on with this one.
            next.generation = generation + 1;
            next.last_record = last_record;
            next.root_at = root_at;
            next.paused = true;
            // A failure meanwhile stays.
            next.failure = state.failure.take();
            self.overlay_share.set(next.changes.bytes());
            *state = next;
        }
        self.destaging.reached(at.vseq);
        // The root below is an old one: nothing may begin at this place before it has one of its
        // own.
        self.checkpoint().await
    }

    /// Creates the fork of a rollback, before the rollback.
    async fn note_fork(&self, snapshot: SnapshotId) -> Result<()> {
        let next_node = self.refs.lock().await.next_node.load(Ordering::Relaxed);
        let number = self.last_built.lock().0.next();
        let at = Position { number, ..Position::start(self.epoch, self.stream, 0) };
        let fork = Holder::Fork { snapshot, span: Span::upto(&at, next_node) };
        Ok(self.ctx.catalog.hold(self.desc.id, &fork).await?)
    }

    /// Puts a segment that holds only the rollback.
    async fn publish_rollback(&self, base: &Base) -> Result<Position> {
        let vseq = self.state.lock().at.vseq;
        let id = self.next_segment(vseq, vseq + 1);
        let built = build(&id, &[Op::Rollback(Box::new(base.clone()))], &[]);
        self.note_built(&built);
        if let Err(e) = self.put_segment(&built).await {
            // Its number is used up, and nothing may follow a gap.
            self.fail(e.clone());
            return Err(e);
        }
        let (epoch, stream, number) = (self.epoch, self.stream, built.key.number);
        Ok(Position { epoch, stream, number, vseq: vseq + 1, hash: built.hash })
    }
}

/// Lives while writers wait.
pub(crate) struct Paused<'a, P: Payload>(&'a Stream<P>);

impl<P: Payload> Drop for Paused<'_, P> {
    fn drop(&mut self) {
        self.0.state.lock().paused = false;
        self.0.room.notify_waiters();
    }
}

/// Gives the first free name of `name`, `name-2`, `name-3`, …
pub(crate) fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    (2u32..).map(|n| format!("{name}-{n}")).find(|n| !taken(n)).unwrap_or_else(|| name.to_owned())
}
