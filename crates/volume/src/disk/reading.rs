//! A read-only state of a volume: a snapshot, or a volume that another node writes.

use crate::context::Context;
use crate::disk::parts::PartsReader;
use crate::disk::payload::{Disk, Part};
use crate::error::{Error, Result};
use crate::streams::budget::ReadShare;
use crate::streams::snapshots::pins::Pinned;
use crate::streams::stream::state::State;
use crate::streams::turns::Turns;
use parking_lot::Mutex;
use skerry_core::id::SnapshotId;
use skerry_store::refs::view::View;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use tokio::sync::OwnedMutexGuard;

/// A state that never changes.
pub(crate) struct Reading {
    ctx: Arc<Context>,
    pub(crate) state: State<Disk>,
    pinned: Option<Pinned>,
    _share: ReadShare,
}

/// One number of a snapshot.
pub(crate) type Number = (SnapshotId, u64);

/// Attached snapshots, each read once for all its clients.
#[derive(Default)]
pub struct Readings {
    all: Mutex<HashMap<Number, Weak<Reading>>>,
    opening: Turns<Number>,
}

impl Readings {
    /// Held while a snapshot is looked for here, and opened.
    pub(crate) async fn turn(&self, number: Number) -> OwnedMutexGuard<()> {
        self.opening.take(number).await
    }

    /// Gives the snapshot, if a client has it attached and its pin still holds.
    pub(crate) fn find(&self, number: Number) -> Option<Arc<Reading>> {
        let found = self.all.lock().get(&number)?.upgrade()?;
        found.check().is_ok().then_some(found)
    }

    /// Adds a snapshot for clients that come.
    pub(crate) fn add(&self, number: Number, reading: &Arc<Reading>) {
        let mut all = self.all.lock();
        all.retain(|_, reading| reading.strong_count() > 0);
        all.insert(number, Arc::downgrade(reading));
    }
}

impl Reading {
    /// Makes a reader of a view.
    pub(crate) fn new(ctx: Arc<Context>, view: View, pinned: Option<Pinned>) -> Self {
        let _share = ctx.overlays.read(view.changes.bytes());
        Self { ctx, state: State::of(view), pinned, _share }
    }

    /// True if it has a pin, which may have ended.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// Fails once its pin may have ended.
    fn check(&self) -> Result<()> {
        self.pinned.as_ref().map_or(Ok(()), |pinned| pinned.check(&self.state.name))
    }

    fn resolve(&self, offset: u64, len: usize) -> Result<Vec<Part>> {
        self.check()?;
        let end = offset.saturating_add(len as u64);
        if end > self.state.size_bytes {
            let size = self.state.size_bytes;
            let why = format!("ends at byte {size}, and this goes to {end}");
            return Err(Error::invalid(&self.state.name, why));
        }
        let mut parts = Vec::new();
        self.state.resolve(offset..end, &mut parts);
        Ok(parts)
    }

    /// Reads without waiting; false if that is not possible.
    pub(crate) fn try_read(&self, offset: u64, out: &mut [u8]) -> Result<bool> {
        let parts = self.resolve(offset, out.len())?;
        self.parts().try_read(&parts, out)
    }

    /// Fills `out`. Waits for a bucket that fails for a reason that can pass.
    pub(crate) async fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut waiting = self.ctx.guest_waits();
        while let Err(error) = self.read_now(offset, out).await {
            waiting.after(error).await?;
        }
        Ok(())
    }

    /// Fills `out`, in one attempt.
    pub(crate) async fn read_now(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let parts = self.resolve(offset, out.len())?;
        // No part is in the log, so nothing needs to be resolved again.
        self.parts().read(&parts, out).await.map(drop)
    }

    fn parts(&self) -> PartsReader<'_> {
        PartsReader { ctx: &self.ctx, block: self.state.payload.block, top: self.state.top() }
    }
}
