//! Parks the tails of volumes that can't be opened, and brings them back into the log.

use crate::error::Result;
use crate::streams::engine::Engine;
use crate::streams::stream::payload::Payload;
use crate::streams::tails::parked::Copy;
use crate::streams::tails::parking::Fate;
use crate::streams::tails::tail::TailRecord;
use skerry_core::id::VolumeId;
use skerry_log::LogPosition;
use std::sync::Arc;

impl<P: Payload> Engine<P> {
    /// Puts the volume's waiting records back into the log. The caller has the volume's turn, or
    /// the node is not open yet.
    ///
    /// # Errors
    /// `Unavailable` if the disk or the log refuses them; then they wait on.
    pub(crate) async fn bring_back(&self, id: VolumeId) -> Result<()> {
        let names = self.ctx.waiting_tails(Some(id))?;
        if names.is_empty() {
            return Ok(());
        }
        let (ctx, to_open) = (self.ctx.clone(), names.clone());
        let waiting = self.ctx.compute(move || ctx.open_waiting(&to_open)).await??;
        let copy = Copy { log: &self.ctx.log, group: self.fresh_group(), is_kept: false };
        let back = self.ctx.copy_back(copy.group, waiting).await?;
        copy.keep();
        tracing::info!(volume = %id, records = back.records.len(), "parked records are in the log again");
        self.tails.lock().by_volume.insert(id, Arc::new(back));
        self.ctx.forget_parked(&names)
    }

    /// Parks a closed volume's records in the log.
    pub(crate) async fn park_closed(&self, id: VolumeId) -> Result<()> {
        let tail = self.tails.lock().by_volume.get(&id).cloned().unwrap_or_default();
        let mut window = self.ctx.log.window();
        let look = move || -> Result<Vec<TailRecord>> {
            let mut held = Vec::with_capacity(tail.records.len());
            for record in &tail.records {
                // Records that were let go meanwhile are in the bucket, or wait already.
                if window.read(LogPosition::from_u64(record.at))?.is_some() {
                    held.push(record.clone());
                }
            }
            Ok(held)
        };
        let mut held = self.ctx.compute(look).await??;
        // A crash may have left copies in the log out of order. The first and last record name a
        // parked tail.
        held.sort_by_key(|record| record.vseq);
        self.ctx.park(Fate::Waiting, id, held).await?;
        self.drop_tail(id);
        Ok(())
    }

    /// Drops the waiting records of a volume that will never need them.
    pub(crate) fn drop_parked(&self, id: VolumeId) -> Result<()> {
        let names = self.ctx.waiting_tails(Some(id))?;
        self.ctx.forget_parked(&names)
    }
}
