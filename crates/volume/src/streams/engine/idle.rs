//! Tidying of an idle volume. It merges everything into its tree, releases subtrees that trims
//! dropped, and deletes segments that nothing holds then.
//!
//! Under load checkpoints do that bit by bit. A volume that was trimmed and left alone would keep
//! its garbage.

use crate::error::Result;
use crate::streams::stream::payload::Payload;
use crate::streams::stream::{Behalf, Stream};
use skerry_core::record::Action;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Tidies a volume whenever no client has written to it for a while, as long as it is in service.
pub(crate) async fn tidy_when_idle<P: Payload>(volume: Weak<Stream<P>>) {
    let mut last_vseq = None;
    let Some(jitter) = volume.upgrade().map(|open| open.idle_jitter()) else { return };
    loop {
        let Some(age) = volume.upgrade().map(|open| open.ctx.settings.idle_age) else { return };
        tokio::time::sleep(age + jitter).await;
        let Some(open) = volume.upgrade() else { return };
        let vseq = {
            let state = open.state.lock();
            if state.failure.is_some() {
                return;
            }
            state.vseq
        };
        if last_vseq.replace(vseq) != Some(vseq) {
            continue;
        }
        match open.tidy(vseq).await {
            Ok(vseq) => last_vseq = Some(vseq),
            Err(error) => tracing::debug!(volume = %open.name(), %error, "not tidied up now"),
        }
    }
}

impl<P: Payload> Stream<P> {
    /// Spreads the volumes of a node over time.
    fn idle_jitter(&self) -> Duration {
        let mut random = [0; 2];
        self.ctx.bucket.entropy().fill(&mut random);
        self.ctx.settings.idle_age * u32::from(u16::from_le_bytes(random))
            / (2 * u32::from(u16::MAX))
    }

    /// Tidies until nothing is left to do, or a client writes. `vseq` is the next record's vseq,
    /// before and after.
    async fn tidy(self: &Arc<Self>, mut vseq: u64) -> Result<u64> {
        if self.state.lock().is_tidy() {
            return Ok(vseq);
        }
        self.drain().await?;
        self.checkpoint().await?;
        let first = vseq;
        loop {
            let (generation, is_drained) = {
                let state = self.state.lock();
                if state.vseq != vseq || self.ctx.stopping.load(Ordering::Acquire) {
                    return Ok(vseq);
                }
                (state.generation, state.root.dead_pending.is_none())
            };
            if is_drained {
                break;
            }
            // The place of a head names it: the next one needs another.
            self.note(generation, Behalf::Operator, &Action::Step).await?;
            vseq += 1;
            self.drain().await?;
            self.checkpoint().await?;
        }
        self.collect(vseq != first).await?;
        Ok(vseq)
    }
}
