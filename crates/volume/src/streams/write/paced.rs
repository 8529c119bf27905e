//! Checkpoints and collections beside active clients. They rest between the nodes that they write
//! and read, by the same decision as destage.

use crate::context::Context;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use skerry_core::pace::{self, Need};
use skerry_store::rests::resting;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

impl<P: Payload> Stream<P> {
    /// Runs work of the volume for which callers rarely wait.
    pub(crate) fn paced<T, F>(self: &Arc<Self>, work: F) -> impl Future<Output = T> + use<P, T, F>
    where
        F: Future<Output = T>,
    {
        let (volume, began) = (Arc::downgrade(self), self.ctx.clock().boot());
        let decide = move |step| rest_of(&volume, began, step);
        resting(self.ctx.clock().clone(), decide, work)
    }

    fn need(&self, began: Duration) -> Need {
        let ctx: &Context = &self.ctx;
        let has_waiting = self.destaging.is_open(self.destaging.newest_ticket())
            || self.snapshots.lock().has_pending();
        Need {
            // If all threads are taken, other volumes may wait for one.
            is_wanted: has_waiting
                // Its work is lost: it only takes a thread from others.
                || self.destaging.has_failed()
                || ctx.stopping.load(Ordering::Acquire)
                || ctx.heavy.available_permits() == 0,
            clients_active: ctx.clients_active.load(Ordering::Relaxed),
            filled_percent: ctx.log_percent().max(self.overlay_share.used_percent()),
            age: ctx.clock().boot().saturating_sub(began),
            age_max: ctx.settings.dirty_age,
        }
    }
}

fn rest_of<P: Payload>(volume: &Weak<Stream<P>>, began: Duration, step: Duration) -> Duration {
    volume.upgrade().map_or(Duration::ZERO, |volume| pace::rest(step, &volume.need(began)))
}
