//! The tries of one call: counts and waits, as [`skerry_core::retry`] decides.

use skerry_core::env::Entropy;
use skerry_core::retry::{Patience, Trouble, Verdict, decide};
use std::time::Duration;
use tokio::time::Instant;

/// The tries of one call that a caller waits for.
#[derive(Debug)]
pub struct Tries {
    patience: Patience,
    failed: u32,
    began: Instant,
}

impl Tries {
    /// Begins a call.
    pub fn new(patience: Patience) -> Self {
        Self { patience, failed: 0, began: Instant::now() }
    }

    /// Takes in a failed try. Waits until the next one may begin, or says that there is none.
    pub async fn wait(&mut self, trouble: Trouble, entropy: &dyn Entropy) -> Verdict {
        self.failed = self.failed.saturating_add(1);
        let mut random = [0; 2];
        entropy.fill(&mut random);
        let elapsed: Duration = self.began.elapsed();
        let jitter = u16::from_le_bytes(random);
        let verdict = decide(&self.patience, trouble, self.failed, elapsed, jitter);
        if let Verdict::After(wait) = verdict {
            tokio::time::sleep(wait).await;
        }
        verdict
    }
}
