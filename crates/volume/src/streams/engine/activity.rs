//! Activity of clients: the recent requests to the node's volumes.

use crate::streams::engine::Engine;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use skerry_core::pace;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Interval of counting. Destage notices within this time that clients begin or end.
const LOOK: Duration = Duration::from_millis(100);

/// Counts requests. Ends with the engine.
pub(crate) async fn watch_clients<P: Payload>(engine: Weak<Engine<P>>) {
    let (mut count, mut counted) = (0, Duration::ZERO);
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(engine) = engine.upgrade() else { return };
        let now = engine.ctx.clock().boot();
        let before = std::mem::replace(&mut count, engine.requests());
        let within = now.saturating_sub(std::mem::replace(&mut counted, now));
        // A closed volume takes its count of requests with it.
        let active = pace::are_active(count.saturating_sub(before), within);
        engine.ctx.clients_active.store(active, Ordering::Relaxed);
    }
}

impl<P: Payload> Engine<P> {
    /// Number of reads and writes of the open volumes.
    fn requests(&self) -> u64 {
        self.open_volumes().iter().map(|volume| volume.requests()).sum()
    }
}

impl<P: Payload> Stream<P> {
    fn requests(&self) -> u64 {
        let io = &self.io;
        [&io.reads, &io.writes, &io.zeroes].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}
