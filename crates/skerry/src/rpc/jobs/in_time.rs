//! Ends answers that are not read in time. A caller that reads none must not keep resources, such
//! as the places of jobs that it waits for.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;

/// Hands answers on, one ahead of the reader. Ends, and drops the rest, if one is not taken for
/// `time_max`.
pub(super) fn read<T: Send + 'static>(
    mut answers: BoxStream<'static, T>,
    time_max: Duration,
) -> impl Stream<Item = T> {
    let (to, mut taken) = mpsc::channel(1);
    tokio::spawn(async move {
        let hand_on = async {
            while let Some(answer) = answers.next().await {
                if !matches!(tokio::time::timeout(time_max, to.send(answer)).await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = to.closed() => {}
            () = hand_on => {}
        }
    });
    stream::poll_fn(move |cx| taken.poll_recv(cx))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn answers(held: Arc<()>) -> BoxStream<'static, usize> {
        stream::iter(0..10).inspect(move |_| assert!(Arc::strong_count(&held) > 0)).boxed()
    }

    /// Once, a hundred such calls kept every other call from waiting.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_is_let_go() {
        let held = Arc::new(());
        let unread = read(answers(held.clone()), Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(Arc::strong_count(&held), 2, "it may be read yet");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(unread.collect::<Vec<_>>().await, [0], "what was on its way");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_is_handed_on_whole() {
        let held = Arc::new(());
        let all: Vec<_> = read(answers(held.clone()), Duration::from_secs(60)).collect().await;
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        let gone = read(stream::pending::<()>().boxed(), Duration::from_secs(60));
        drop(gone);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
