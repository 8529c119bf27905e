//! The engine of one node: the open volumes, their opening and their closing.
//!
//! Operations *on* volumes are in `disk::volumes` and [`snapshots`].

pub(crate) mod activity;
pub(crate) mod comeback;
pub(crate) mod creation;
pub(crate) mod deletion;
pub(crate) mod idle;
pub(crate) mod naming;
pub(crate) mod open;
pub(crate) mod parked;
pub(crate) mod pressure;
pub(crate) mod recover;
pub(crate) mod release;
pub(crate) mod snapshots;
pub(crate) mod sweep;

use crate::context::{Context, EngineParts};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{NodeStatus, Space};
use crate::streams::engine::activity::watch_clients;
use crate::streams::engine::comeback::{Comebacks, bring_back_now_and_then};
use crate::streams::engine::pressure::relieve_log;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use crate::streams::supervise::keep_running;
use crate::streams::tails::tail::{self, Tails};
use crate::streams::turns::Turns;
use futures::FutureExt;
use parking_lot::Mutex;
use skerry_core::descriptor::VolumeState;
use skerry_core::id::VolumeId;
use skerry_core::name::Name;
use skerry_store::refs::claim;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// The engine of one node.
pub struct Engine<P: Payload> {
    pub(crate) ctx: Arc<Context>,
    /// All volumes that are open here.
    pub(crate) open_now: Mutex<HashMap<VolumeId, Arc<Stream<P>>>>,
    /// Held while a volume is opened or closed: a slow volume keeps no other waiting.
    pub(crate) opening: Turns<VolumeId>,
    pub(crate) tails: Mutex<Tails>,
    pub(crate) comebacks: Comebacks,
    /// Shared state of the payload.
    pub(crate) shared: P::Shared,
}

impl<P: Payload> Engine<P> {
    /// Opens the engine: reads the log, and brings every volume with a tail back into service.
    pub async fn open(parts: EngineParts) -> Result<Arc<Self>> {
        let (ctx, recovery) = Context::new(parts);
        let tails = tail::read(recovery)?;
        for group in &tails.superseded {
            ctx.log.trim(*group, skerry_log::LogPosition::MAX);
        }
        let engine = Arc::new(Self {
            ctx: Arc::new(ctx),
            open_now: Mutex::default(),
            opening: Turns::default(),
            tails: Mutex::new(tails),
            comebacks: Comebacks::default(),
            shared: P::Shared::default(),
        });
        engine.recover().await?;
        keep_running(&engine, "keeping up with the clock", keep_up);
        keep_running(&engine, "counting requests", watch_clients);
        keep_running(&engine, "making room in the log", relieve_log);
        keep_running(&engine, "sweeping", sweep_now_and_then);
        keep_running(&engine, "bringing volumes back", bring_back_now_and_then);
        Ok(engine)
    }

    /// Drops a volume's records in the log.
    pub(crate) fn drop_tail(&self, id: VolumeId) {
        let tail = self.tails.lock().by_volume.remove(&id).unwrap_or_default();
        for group in tail.groups() {
            self.ctx.log.trim(group, skerry_log::LogPosition::MAX);
        }
    }

    /// Gives a group that no record of the log has.
    pub(crate) fn fresh_group(&self) -> u32 {
        let mut tails = self.tails.lock();
        tails.next_group += 1;
        tails.next_group - 1
    }

    /// Parks the tail of a volume that another node owns now: records that are not in the bucket
    /// leave the log. If the owner is a node of another name with this very log, the tail stays for
    /// that node.
    pub(crate) async fn park(&self, id: VolumeId) -> Result<()> {
        let tail = self.tails.lock().by_volume.get(&id).cloned().unwrap_or_default();
        let desc = self.ctx.catalog.desc(id).await?;
        let found = claim::peek::<P::Changes>(&self.ctx.bucket, &desc).await?;
        if found.owner.is_some_and(|owner| owner.log == self.ctx.log_id()) {
            let line = format!(
                "volume {id} is held with this log by a node of another identity: its records stay in the log; \
                 start that node's data directory with it"
            );
            self.ctx.note(id, line);
            return Ok(());
        }
        let incarnations = claim::incarnations(&self.ctx.bucket, id).await?;
        let mut verdict = open::judge(&self.ctx, id, &incarnations, &found.view.at, &tail).await?;
        open::park(&self.ctx, id, &incarnations, &mut verdict).await;
        if verdict.parked.is_empty() && verdict.replay(&tail).next().is_none() {
            self.drop_tail(id);
        }
        Ok(())
    }

    /// Gives a volume that this node writes; claims it if needed. With `held_only`, leaves a
    /// released one alone.
    pub(crate) async fn open_for_writing(
        &self,
        id: VolumeId,
        held_only: bool,
    ) -> Result<Arc<Stream<P>>> {
        let _turn = self.opening.take(id).await;
        if let Some(volume) = self.open_here(id)
            && !self.comes_back(&volume)
        {
            return Ok(volume);
        }
        // A volume that left is claimed again once its owner lets it go, and its destager parks its
        // undestaged records. A failed volume has parked them.
        self.open_now.lock().remove(&id);
        let desc = self.ctx.catalog.desc(id).await?;
        let waits = !self.ctx.waiting_tails(Some(id))?.is_empty();
        if waits {
            // A restart found these records in the log: they were trimmed before, or are a copy,
            // and must not take the room.
            self.park_closed(id).await?;
            // As long as the bucket's side can't be read, nothing comes back.
            claim::peek::<P::Changes>(&self.ctx.bucket, &desc).await?;
            self.bring_back(id).await?;
        }
        let tail = self.tails.lock().by_volume.get(&id).cloned().unwrap_or_default();
        let fresh = self.fresh_group();
        let volume = match open::open(self.ctx.clone(), desc, fresh, &tail, held_only).await {
            Ok(volume) => volume,
            Err(error) => {
                if let Err(stay) = self.leave_log(id, &error, waits).await {
                    tracing::error!(volume = %id, error = %stay, "its records stay in the log");
                }
                return Err(error);
            }
        };
        self.tails.lock().by_volume.remove(&id);
        self.open_now.lock().insert(id, volume.clone());
        Ok(volume)
    }

    /// Handles a failed opening: records that came back, or that would take room for long, leave
    /// the log.
    async fn leave_log(&self, id: VolumeId, error: &Error, came_back: bool) -> Result<()> {
        match error.kind() {
            ErrorKind::Fenced | ErrorKind::Unavailable if !came_back => Ok(()),
            ErrorKind::Fenced => {
                self.park(id).await?;
                self.park_closed(id).await
            }
            _ => self.park_closed(id).await,
        }
    }

    /// Closes a deleted volume; its destager ends.
    pub(crate) async fn close_deleted(&self, id: VolumeId) {
        let _turn = self.opening.take(id).await;
        let removed = self.open_now.lock().remove(&id);
        if let Some(volume) = removed {
            let object = format!("volume {}", volume.name());
            volume.retire(Error::gone(object, "was deleted"));
        }
    }

    /// Finds the volume of this name.
    pub(crate) async fn resolve(&self, name: &Name) -> Result<VolumeId> {
        let missing = || Error::no_volume(name);
        let id = self.ctx.catalog.resolve(name).await?.ok_or_else(missing)?;
        if self.ctx.catalog.state(id).await? != Some(VolumeState::Ready) {
            return Err(missing());
        }
        Ok(id)
    }

    /// Gives the volume, if it is open here and not known to be taken over.
    pub(crate) fn open_here(&self, id: VolumeId) -> Option<Arc<Stream<P>>> {
        self.open_now.lock().get(&id).filter(|volume| !volume.has_left()).cloned()
    }

    /// Gives the volume of this name, if it is open here. For this node's own volumes, the bucket
    /// need not be asked.
    pub(crate) fn open_by_name(&self, name: &Name) -> Option<Arc<Stream<P>>> {
        let open = self.open_now.lock();
        let called = |volume: &&Arc<Stream<P>>| {
            volume.named.load(Ordering::Acquire)
                && volume.name() == name.as_str()
                && volume.state.lock().failure.is_none()
        };
        open.values().find(called).cloned()
    }

    /// Gives the volume of this name, open for writing.
    pub(crate) async fn writable(&self, name: &Name) -> Result<Arc<Stream<P>>> {
        if let Some(volume) = self.open_by_name(name) {
            return Ok(volume);
        }
        let id = self.resolve(name).await?;
        self.writable_of(id, name).await
    }

    /// Fails for a volume of which only snapshots are left.
    pub(crate) async fn refuse_deleted(&self, id: VolumeId, name: &Name) -> Result<()> {
        if self.ctx.catalog.entry(id).await?.gone {
            let why = "is deleted; only its snapshots are left";
            return Err(Error::gone(format!("volume {name}"), why));
        }
        Ok(())
    }

    /// Gives the volume that a name was found to name, open for writing.
    pub(crate) async fn writable_of(&self, id: VolumeId, name: &Name) -> Result<Arc<Stream<P>>> {
        self.refuse_deleted(id, name).await?;
        let volume = self.open_for_writing(id, false).await?;
        let failure = volume.state.lock().failure.clone();
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.settle_name(&volume, name).await?;
        Ok(volume)
    }

    /// All open volumes, in the order of their ids.
    pub fn open_volumes(&self) -> Vec<Arc<Stream<P>>> {
        let mut open: Vec<_> = self.open_now.lock().values().cloned().collect();
        open.sort_unstable_by_key(|volume| volume.desc.id);
        open
    }

    /// The shared part of all volumes.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// The node's state, for people.
    pub fn status(&self) -> NodeStatus {
        let parked = self.attention();
        let now = self.ctx.clock().boot();
        let open = self.open_volumes();
        let (mut space, mut undestaged_bytes, mut age) = (Space::default(), 0, Duration::default());
        for volume in &open {
            let of_volume = Space::of(&volume.state.lock().root);
            space.used_bytes += of_volume.used_bytes;
            space.stored_bytes += of_volume.stored_bytes;
            let (bytes, waits) = volume.undestaged(now);
            undestaged_bytes += bytes;
            age = age.max(waits);
        }
        NodeStatus {
            node: self.ctx.node,
            bucket: self.ctx.bucket.id(),
            bucket_url: self.ctx.bucket_url.clone(),
            has_log: self.ctx.has_log,
            log_used_bytes: self.ctx.log.used_bytes(),
            log_cap_bytes: self.ctx.log.cap_bytes(),
            log_failure: self.ctx.log.failure().or_else(|| self.ctx.log.stall()),
            volumes_open: open.len() as u64,
            space,
            undestaged_bytes,
            undestaged_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            parked,
            bucket_failure: self.ctx.bucket.failing(),
        }
    }

    /// True if all records, in the log or parked, are in the bucket.
    pub fn is_drained(&self) -> bool {
        let tails = self.tails.lock().by_volume.is_empty();
        let volumes = self.open_volumes().iter().all(|volume| volume.undestaged_records() == 0);
        let all_parked = self.ctx.leaving.load(Ordering::Acquire) == 0;
        let none_waits = self.ctx.waiting_tails(None).is_ok_and(|names| names.is_empty());
        tails && volumes && all_parked && none_waits && self.ctx.attention.lock().is_empty()
    }

    /// Messages for people: parked tails, and volumes out of service.
    fn attention(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.ctx.attention.lock().values().cloned().collect();
        lines.extend(self.ctx.parked());
        for volume in self.open_volumes() {
            if let Some(failure) = &volume.state.lock().failure {
                lines.push(format!("volume {} is out of service: {failure}", volume.desc.id));
            }
        }
        lines
    }

    /// Puts everything into the bucket and stops. Records that the bucket does not take in time
    /// stay in the log.
    pub async fn shutdown(&self) -> Result<()> {
        self.ctx.stopping.store(true, Ordering::Release);
        // One deadline for all waits: callers that stop a node count on it.
        let deadline = Instant::now() + self.ctx.settings.shutdown_drain;
        let stopping = self.open_volumes().into_iter().map(|volume| async move {
            let drained = tokio::time::timeout_at(deadline, async {
                volume.drain().await?;
                volume.checkpoint().await?;
                volume.collect_all().await
            });
            match drained.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(volume = %volume.name(), %error, "left in the log at shutdown");
                }
                Err(_) => {
                    tracing::warn!(volume = %volume.name(), "left in the log at shutdown: the bucket is too slow")
                }
            }
        });
        futures::future::join_all(stopping.map(FutureExt::boxed)).await;
        self.wait_parked(deadline).await;
        self.ctx.log.close().await?;
        Ok(())
    }

    /// Waits until volumes out of service have parked their undestaged records, or until
    /// `deadline`.
    async fn wait_parked(&self, deadline: Instant) {
        let ending = self.open_volumes().into_iter().filter(|v| v.check_in_service().is_err());
        let ended = futures::future::join_all(ending.map(|volume| async move {
            volume.destaging.ended().await;
        }));
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            tracing::warn!(
                "the undestaged tail of a volume that is out of service stays in the log"
            );
        }
    }
}

/// Sweeps some time after the start, and then once a day: nothing else finds the left-overs of
/// crashes, or of deletions on other nodes. Ends with the engine.
async fn sweep_now_and_then<P: Payload>(engine: Weak<Engine<P>>) {
    let Some(mut wait) = engine.upgrade().map(|n| n.ctx.settings.sweep_first) else { return };
    loop {
        tokio::time::sleep(wait).await;
        let Some(engine) = engine.upgrade() else { return };
        let swept: Pin<Box<dyn Future<Output = Result<usize>> + Send + '_>> =
            Box::pin(engine.sweep());
        match swept.await {
            Ok(0) => {}
            Ok(segments) => tracing::info!(segments, "swept"),
            Err(error) => tracing::warn!(%error, "a sweep stopped; the next one goes on"),
        }
        wait = engine.ctx.settings.sweep_interval;
    }
}

/// Time without writes after which the log notes that it is quiet.
const QUIET: std::time::Duration = std::time::Duration::from_secs(1);

/// Notices gaps of the clock while no client asks, so that an idle volume is not suspected of
/// having been suspended. Also lets the log note quiet moments. Ends with the engine.
async fn keep_up<P: Payload>(engine: Weak<Engine<P>>) {
    let mut end = skerry_log::LogPosition::ZERO;
    let mut looked = std::time::Duration::ZERO;
    loop {
        let Some(interval) = engine.upgrade().map(|n| n.ctx.settings.glimpse_gap / 4) else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(engine) = engine.upgrade() else { return };
        for volume in engine.open_volumes() {
            volume.fence.note_time(engine.ctx.clock());
        }
        let now = engine.ctx.clock().boot();
        if now.saturating_sub(looked) < QUIET {
            continue;
        }
        looked = now;
        let before = std::mem::replace(&mut end, engine.ctx.log.end_position());
        if before == end {
            engine.ctx.log.note_quiet();
        }
    }
}
