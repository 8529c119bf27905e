//! Comeback: a volume that went out of service for a reason that can pass comes back by itself.
//!
//! The cause of a failure may be mended without a word to the node. An object is put back, a disk
//! has room again, or the bucket answers with sense. So the node opens a failed volume again, after
//! a wait that doubles with each failure: opening claims a stream, and claims leave objects behind.
//! Its tail is parked outside the log meanwhile ([`crate::streams::tails::parked`]) and comes back
//! first. Clients of the failed volume are cut off, and find it again by connecting anew. A volume
//! that another node owns stays there. A failed log takes a restart.

use crate::error::Result;
use crate::streams::engine::Engine;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use parking_lot::Mutex;
use skerry_core::id::VolumeId;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Interval of tries while the bucket does not answer, in first waits.
const AWAY_FACTOR: u32 = 5;

/// One volume's failures.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// Time from which it may be opened again, on the boot-time clock.
    due: Duration,
}

/// The times from which failed volumes may be opened again.
#[derive(Debug, Default)]
pub(crate) struct Comebacks(Mutex<HashMap<VolumeId, Failures>>);

impl Comebacks {
    /// True if the volume may be opened again now. After the first question about it, it soon may.
    fn is_due(&self, id: VolumeId, now: Duration, first: Duration) -> bool {
        let due = now + first;
        now >= self.0.lock().entry(id).or_insert(Failures { count: 0, due }).due
    }

    /// Notes that a try ended before it began.
    fn postponed(&self, id: VolumeId, now: Duration, first: Duration) {
        self.0.lock().insert(id, Failures { count: 0, due: now + AWAY_FACTOR * first });
    }

    /// Notes that the volume is being opened again: after another failure, the next time is later.
    /// A volume that held out for longer than the longest wait begins anew.
    fn begun(&self, id: VolumeId, now: Duration, first: Duration, max: Duration) {
        let mut all = self.0.lock();
        let before = all.get(&id).copied().unwrap_or(Failures { count: 0, due: now });
        let held_out = now.saturating_sub(before.due) > max;
        let count = if held_out { 1 } else { before.count.saturating_add(1) };
        let wait = first.saturating_mul(1 << count.min(16)).min(max);
        all.insert(id, Failures { count, due: now + wait });
    }
}

impl<P: Payload> Engine<P> {
    /// True if a failed volume may be opened again now. Then the next time is later.
    pub(crate) fn comes_back(&self, volume: &Stream<P>) -> bool {
        let has_failed = volume.state.lock().failure.is_some();
        has_failed && volume.is_parked.load(Ordering::Acquire) && self.take_turn(volume.desc.id)
    }

    /// Notes that the bucket did not answer. Nothing was claimed, so the wait need not grow.
    pub(crate) fn comes_back_soon(&self, id: VolumeId) {
        let now = self.ctx.clock().boot();
        self.comebacks.postponed(id, now, self.ctx.settings.comeback_first);
    }

    fn is_due(&self, id: VolumeId) -> bool {
        let first = self.ctx.settings.comeback_first;
        self.ctx.log.failure().is_none()
            && self.comebacks.is_due(id, self.ctx.clock().boot(), first)
    }

    fn take_turn(&self, id: VolumeId) -> bool {
        let (first, max) = (self.ctx.settings.comeback_first, self.ctx.settings.comeback_max);
        let is_due = self.is_due(id);
        if is_due {
            self.comebacks.begun(id, self.ctx.clock().boot(), first, max);
        }
        is_due
    }

    /// Finds volumes that failed, and closed volumes with a tail.
    fn out_of_service(&self) -> Result<BTreeSet<VolumeId>> {
        let mut all: BTreeSet<VolumeId> =
            self.ctx.waiting_tails(None)?.iter().map(|name| name.volume).collect();
        all.extend(self.tails.lock().by_volume.keys());
        let open = self.open_now.lock();
        all.retain(|id| !open.contains_key(id));
        let failed = open
            .values()
            .filter(|volume| volume.is_parked.load(Ordering::Acquire) && !volume.has_left());
        all.extend(failed.map(|volume| volume.desc.id));
        Ok(all)
    }

    async fn try_comebacks(&self) -> Result<()> {
        for id in self.out_of_service()? {
            if self.ctx.stopping.load(Ordering::Acquire) {
                return Ok(());
            }
            let has_failed = self.open_now.lock().contains_key(&id);
            // A failed volume takes its turn when it is opened.
            let is_turn = match has_failed {
                true => self.is_due(id),
                false => self.take_turn(id),
            };
            if is_turn {
                self.recover_again(id).await;
            }
        }
        Ok(())
    }
}

/// Opens failed volumes again, as long as the node lives.
pub(crate) async fn bring_back_now_and_then<P: Payload>(engine: Weak<Engine<P>>) {
    loop {
        let Some(interval) = engine.upgrade().map(|n| n.ctx.settings.comeback_first) else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(engine): Option<Arc<Engine<P>>> = engine.upgrade() else { return };
        let tried: std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> =
            Box::pin(engine.try_comebacks());
        if let Err(error) = tried.await {
            tracing::warn!(%error, "parked tails can't be read now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn a_volume_that_fails_again_and_again_is_opened_less_and_less_often() {
        let (comebacks, id) = (Comebacks::default(), VolumeId([7; 16]));
        let mut opened = Vec::new();
        for seconds in 0..300 {
            let now = Duration::from_secs(seconds);
            if comebacks.is_due(id, now, FIRST) {
                comebacks.begun(id, now, FIRST, MAX);
                opened.push(seconds);
            }
        }
        assert_eq!(opened, [1, 3, 7, 15, 31, 63, 123, 183, 243]);
        // It held out for long: the next failure is one of its own.
        let now = Duration::from_secs(10_000);
        assert!(comebacks.is_due(id, now, FIRST));
        comebacks.begun(id, now, FIRST, MAX);
        assert!(comebacks.is_due(id, now + 2 * FIRST, FIRST));
    }
}
