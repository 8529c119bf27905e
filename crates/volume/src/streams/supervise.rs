//! Tasks that a node needs for as long as it lives. If one panics or ends early, this module logs
//! it and starts the task again.

use futures::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Time between a task's end and its next start: one that ends at once must not fill the log.
const PAUSE: Duration = Duration::from_secs(10);

/// Runs `work` in a task for as long as `owner` lives. `what` names it for people.
pub(crate) fn keep_running<T, F>(
    owner: &Arc<T>,
    what: &'static str,
    work: impl Fn(Weak<T>) -> F + Send + 'static,
) where
    T: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let owner = Arc::downgrade(owner);
    tokio::spawn(async move {
        loop {
            let one: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work(owner.clone()));
            let ended = AssertUnwindSafe(one).catch_unwind().await;
            if owner.strong_count() == 0 {
                return;
            }
            let how = if ended.is_err() { "panicked" } else { "ended" };
            tracing::error!(task = what, "a task of the node {how}; it is begun anew; report it");
            tokio::time::sleep(PAUSE).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts the task's starts. It panics the first time, ends the second, and lasts then.
    async fn work(begun: Weak<AtomicUsize>) {
        let before = begun.upgrade().map(|begun| begun.fetch_add(1, Ordering::Relaxed));
        match before {
            Some(0) => panic!("on purpose"),
            Some(1) => {}
            _ => {
                while begun.strong_count() > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_too_early_is_begun_anew() {
        let begun = Arc::new(AtomicUsize::new(0));
        keep_running(&begun, "a test", work);
        tokio::time::sleep(100 * PAUSE).await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        let last = Arc::downgrade(&begun);
        drop(begun);
        tokio::time::sleep(100 * PAUSE).await;
        assert!(last.upgrade().is_none());
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }
}
