//! Lets time pass, as the caller's runtime does.

use std::time::Duration;

use async_trait::async_trait;

/// Waits for a time. The binary passes its runtime's timer; a test passes a clock of its own.
#[async_trait]
pub trait Sleep: Send + Sync {
    /// Returns after so long a time, or a little later. Dropping the future is safe.
    async fn sleep(&self, time: Duration);
}
