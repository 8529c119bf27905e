//! Rests of background work, between one node and the next: meanwhile other tasks have the
//! processor.
//!
//! Work in [`resting`] rests where this crate calls `point`, and nowhere else. Within a fetch, or
//! while it holds a lock that others wait for, it must go on. This module measures its computing
//! time, without its waits for the store. The caller decides the length of a rest.

use skerry_core::env::Clock;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

tokio::task_local! {
    static CURRENT: Arc<Rests>;
}

/// A shorter rest is put off: timers are no finer.
const REST_MIN: Duration = Duration::from_millis(5);

/// The rests of one piece of work.
struct Rests {
    clock: Arc<dyn Clock>,
    decide: Box<dyn Fn(Duration) -> Duration + Send + Sync>,
    computed: Mutex<Computed>,
}

/// Computing time since the last rest, on the boot-time clock.
#[derive(Debug, Default)]
struct Computed {
    before: Duration,
    /// Time at which the work began to compute, if it computes now.
    since: Option<Duration>,
}

impl Rests {
    fn look<T>(&self, with: impl FnOnce(&mut Computed, Duration) -> T) -> T {
        let now = self.clock.boot();
        with(&mut self.computed.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    fn begin(&self) {
        self.look(|computed, now| computed.since = Some(now));
    }

    fn end(&self) {
        self.look(Computed::count);
    }

    /// Gives the length of a rest that is due now. The computing time before it no longer counts.
    fn due(&self) -> Option<Duration> {
        let computed = self.look(|computed, now| {
            computed.count(now);
            computed.since = Some(now);
            computed.before
        });
        let rest = (self.decide)(computed);
        if rest < REST_MIN {
            return None;
        }
        self.look(|computed, now| *computed = Computed { since: Some(now), ..Default::default() });
        Some(rest)
    }
}

impl Computed {
    fn count(&mut self, now: Duration) {
        self.before += self.since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
    }
}

/// Runs `work`, which rests after it has computed. `decide` gives the rest after a computing time.
pub async fn resting<T>(
    clock: Arc<dyn Clock>,
    decide: impl Fn(Duration) -> Duration + Send + Sync + 'static,
    work: impl Future<Output = T>,
) -> T {
    let computed = Mutex::default();
    let rests = Arc::new(Rests { clock, decide: Box::new(decide), computed });
    let mut work = pin!(CURRENT.scope(rests.clone(), work));
    poll_fn(|cx| {
        rests.begin();
        let polled = work.as_mut().poll(cx);
        rests.end();
        polled
    })
    .await
}

/// A place where work in [`resting`] rests, if a rest is due.
pub(crate) async fn point() {
    let Ok(rests) = CURRENT.try_with(Arc::clone) else { return };
    if let Some(rest) = rests.due() {
        tokio::time::sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::time::Instant;

    /// Moves only when the test computes.
    #[derive(Default)]
    struct Ticks(AtomicU64);

    impl Clock for Ticks {
        fn boot(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn wall_ms(&self) -> u64 {
            0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_rests_for_what_it_computed_and_not_for_its_waits() {
        let clock = Arc::new(Ticks::default());
        let compute = |ms: u64| clock.0.fetch_add(ms, Ordering::Relaxed);
        const WAIT: Duration = Duration::from_secs(60);
        let began = Instant::now();
        let work = async {
            for _ in 0..100 {
                compute(1);
                point().await;
            }
            tokio::time::sleep(WAIT).await;
            point().await;
            7
        };
        // The clock goes on while the work waits.
        let others = async {
            tokio::time::sleep(WAIT / 2).await;
            compute(60_000);
        };
        let work = resting(clock.clone(), |step| 2 * step, work);
        assert_eq!(tokio::join!(work, others).0, 7);
        // After three pieces of one millisecond each, a rest of six is due, which is above the
        // least.
        let rested = began.elapsed() - WAIT;
        assert!(rested.as_millis().abs_diff(200) <= 10, "{rested:?}");
        let alone = Instant::now();
        point().await;
        assert_eq!(alone.elapsed(), Duration::ZERO, "it is nobody's work");
    }
}
