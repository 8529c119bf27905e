//! Limits lines about events that a client can cause as often as it likes. One line a minute for
//! each kind, so that they fill no disk.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// Lines of one kind.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told_at: Option<Instant>,
    /// Number of events since then.
    untold: u64,
}

impl Quiet {
    /// Counts an event. If it is time for a line, gives the number of events since the last one.
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
