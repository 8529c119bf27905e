//! What this crate's own tests share: a seeded source of randomness, a clock that stands still, an open bucket.

use crate::bucket::{Bucket, Env};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use std::sync::Arc;
use std::time::Duration;

/// Random bytes by seed.
pub(crate) struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill_bytes(out);
    }
}

/// It is always the same moment.
pub(crate) struct Stopped;

impl Clock for Stopped {
    fn boot(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn wall_ms(&self) -> u64 {
        1_000_000
    }
}

/// Clock and randomness for a test.
pub(crate) fn env(seed: u64) -> Env {
    Env {
        clock: Arc::new(Stopped),
        entropy: Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(seed)))),
    }
}

/// A new bucket in `store`.
pub(crate) async fn bucket_in(store: Arc<dyn ObjectStore>, seed: u64) -> Bucket {
    Bucket::open(store, env(seed), true).await.expect("a new bucket")
}

/// A new bucket in memory.
pub(crate) async fn memory_bucket(seed: u64) -> Bucket {
    bucket_in(Arc::new(InMemory::new()), seed).await
}
