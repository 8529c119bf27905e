//! Work that computes for long and waits for the store in between: writing a checkpoint's tree.
//!
//! A low-priority thread polls it, while its timers and connections stay with the caller's runtime.
//! A client's read may share a connection with it, and must not wait behind its computing.

use crate::error::{Error, Result};
use std::future::Future;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Number of such works with a thread at once. The background has four. The others are for destage,
/// also while these wait for a slow store.
pub(crate) const AT_ONCE_MAX: usize = 2;

/// Runs `work` on a thread of the background, or here if there is no background.
pub(crate) async fn run<T: Send + 'static>(
    background: Option<&Handle>,
    at_once: &Arc<Semaphore>,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let Some(background) = background else { return Ok(work.await) };
    let internal = |error: String| Error::lost_task("a computing task", error);
    let one = at_once.clone().acquire_owned().await.map_err(|e| internal(e.to_string()))?;
    let here = Handle::current();
    let done = background.spawn_blocking(move || {
        // With the thread: it goes on if the caller goes away.
        let _one = one;
        here.block_on(work)
    });
    done.await.map_err(|e| internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn it_computes_in_the_background_and_waits_with_its_own_runtime() {
        let built = Builder::new_multi_thread().worker_threads(1).thread_name("back").build();
        let back = built.expect("a runtime");
        let own = Handle::current().id();
        let work = async move {
            // A runtime without timers could not do this.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            let thread = std::thread::current().name().map(str::to_owned);
            (thread, Handle::current().id() == own)
        };
        let at_once = Arc::new(Semaphore::new(AT_ONCE_MAX));
        let (thread, is_own) = run(Some(back.handle()), &at_once, work).await.expect("runs");
        assert_eq!((thread.as_deref(), is_own), (Some("back"), true));
        let here = run(None, &at_once, async { 7 }).await.expect("runs");
        assert_eq!((here, at_once.available_permits()), (7, AT_ONCE_MAX));
        back.shutdown_background();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_without_a_caller_keeps_its_permit_with_its_thread() {
        let back = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let at_once = Arc::new(Semaphore::new(1));
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let (end, ends) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _ = began.send(());
            let _ = ends.await;
        };
        let (handle, permits) = (back.handle().clone(), at_once.clone());
        let caller = tokio::spawn(async move { run(Some(&handle), &permits, work).await });
        has_begun.await.expect("begins");
        caller.abort();
        assert!(caller.await.is_err());
        assert_eq!(at_once.available_permits(), 0);
        end.send(()).expect("it goes on");
        drop(at_once.acquire().await.expect("free again"));
        back.shutdown_background();
    }
}
