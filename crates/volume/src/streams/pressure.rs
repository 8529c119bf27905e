//! Room in the log: a file of it is used again only when no volume needs a record in it. So when room gets scarce, the
//! volumes that keep the oldest files are destaged, however small and young the part is that each of them has there.
//!
//! Without this a volume that writes little would keep the whole log from the others until its dirty age is reached.

use crate::streams::node::Node;
use crate::streams::payload::Payload;
use crate::streams::stream::Stream;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the log is looked at without being asked to.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after the log's room. Ends with the node.
pub(crate) async fn relieve_log<P: Payload>(node: Weak<Node<P>>) {
    loop {
        let Some(ctx) = node.upgrade().map(|node| node.ctx.clone()) else { return };
        let _ = tokio::time::timeout(LOOK, ctx.pressure.notified()).await;
        drop(ctx);
        let Some(node) = node.upgrade() else { return };
        node.relieve();
    }
}

impl<P: Payload> Node<P> {
    /// Has the oldest records destaged, if the log has little room.
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
    /// Destages what was written so far, unless older records are on their way: those hold the log's oldest files, and
    /// a batch is the better the later it is cut.
    fn destage_rest(&self) {
        let destaged = self.progress.borrow().vseq;
        let (first, end) = {
            let state = self.state.lock();
            (state.open.vseq_from, state.vseq)
        };
        if first <= destaged && end > first {
            self.wanted_vseq.fetch_max(end, Ordering::AcqRel);
            self.work.notify_one();
        }
    }
}
