//! Durability of a batch: an answer waits for its own batch, and for no other.

use tokio::sync::watch;

/// A batch that is to become durable. Dropped, it never will.
#[derive(Debug, Default)]
pub(super) struct Pending(watch::Sender<bool>);

/// Waits for a batch.
#[derive(Debug, Clone)]
pub(super) struct Mark(watch::Receiver<bool>);

impl Pending {
    /// Makes a mark that waits for this batch.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.subscribe())
    }

    /// Counts the callers that wait for the batch.
    pub(super) fn waiting(&self) -> usize {
        self.0.receiver_count()
    }

    /// Marks the batch as durable.
    pub(super) fn done(&self) {
        self.0.send_replace(true);
    }
}

impl Mark {
    /// A mark of a batch that is durable already.
    pub(super) fn past() -> Self {
        Self(watch::channel(true).1)
    }

    /// True if the batch is durable.
    pub(super) fn is_past(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the batch is durable; false if it never will be.
    pub(super) async fn wait(mut self) -> bool {
        self.0.wait_for(|is_durable| *is_durable).await.is_ok()
    }
}
