//! Room in the log: the log uses a file again only when no volume needs a record in it. So when
//! room gets scarce, the volumes that keep the oldest files destage, however small and young their
//! records there are.
//!
//! Without this, a volume that writes little would keep the whole log from the others until its
//! dirty age is reached.

use crate::streams::engine::Engine;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use std::sync::Weak;
use std::time::Duration;

/// Interval of looks at the log without a request.
const LOOK: Duration = Duration::from_secs(1);

/// Watches the log's room. Ends with the engine.
pub(crate) async fn relieve_log<P: Payload>(engine: Weak<Engine<P>>) {
    loop {
        let Some(ctx) = engine.upgrade().map(|engine| engine.ctx.clone()) else { return };
        let _ = tokio::time::timeout(LOOK, ctx.pressure.notified()).await;
        drop(ctx);
        let Some(engine) = engine.upgrade() else { return };
        engine.relieve();
    }
}

impl<P: Payload> Engine<P> {
    /// Lets the oldest records be destaged, if the log has little room.
    fn relieve(&self) {
        if self.ctx.log_percent() < self.ctx.settings.pressure_percent {
            return;
        }
        let holders = self.ctx.log.holders_of_oldest();
        for volume in self.open_volumes().iter().filter(|v| holders.contains(&v.group)) {
            volume.destage_rest();
        }
    }
}

impl<P: Payload> Stream<P> {
    /// Destages everything written so far, unless older records are on their way. Those hold the
    /// log's oldest files, and a later cut makes a better batch.
    fn destage_rest(&self) {
        let destaged = self.destaging.vseq();
        let (first, end) = {
            let state = self.state.lock();
            (state.open.vseq_from, state.vseq)
        };
        if first <= destaged && end > first {
            self.destaging.order(end);
        }
    }
}
