//! Lines about what a client can do as often as it likes: one a minute of each kind, so that they fill no disk.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// Lines of one kind.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told_at: Option<Instant>,
    /// How often it happened since.
    untold: u64,
}

impl Quiet {
    /// Whether what happened now is to be told: with how often it has happened since the last time that it was.
    pub(crate) fn happened(&self) -> Option<u64> {
        let mut state = self.0.lock();
        state.untold += 1;
        let now = Instant::now();
        if state.told_at.is_some_and(|told_at| now < told_at + INTERVAL) {
            return None;
        }
        state.told_at = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_told_once_a_minute_with_its_count() {
        let quiet = Quiet::default();
        assert_eq!(quiet.happened(), Some(1));
        for _ in 0..99 {
            assert_eq!(quiet.happened(), None);
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!(quiet.happened(), Some(100));
        assert_eq!(quiet.happened(), None);
    }
}
