//! Orders of callers to a stream's destager, and its answers.
//!
//! No order and no answer is missed. An order is noted before the destager is woken, and a caller
//! waits on a channel that keeps the last answer.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use crate::error::{Error, Result};

/// Progress of destage.
#[derive(Debug, Clone)]
struct Progress {
    /// All records below this vseq are in the bucket, contiguous, and applied.
    vseq: u64,
    /// The reason why it goes no further, if it does not.
    failure: Option<Error>,
}

/// Number of a requested checkpoint: the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Orders to a destager, and its answers.
#[derive(Debug)]
pub(crate) struct Destaging {
    /// Wakes the destager.
    work: Notify,
    progress: watch::Sender<Progress>,
    /// The vseq up to which callers wait for the bucket.
    wanted_vseq: AtomicU64,
    /// Number of requested checkpoints.
    checkpoints_wanted: AtomicU64,
    /// Number of requests that are done.
    checkpoints_done: watch::Sender<u64>,
    /// True once the destager has ended, and all records have reached their end.
    has_ended: watch::Sender<bool>,
}

impl Destaging {
    /// The records below `vseq` are in the bucket, and nothing is ordered.
    pub(crate) fn new(vseq: u64) -> Self {
        Self {
            work: Notify::new(),
            progress: watch::Sender::new(Progress { vseq, failure: None }),
            wanted_vseq: AtomicU64::new(0),
            checkpoints_wanted: AtomicU64::new(0),
            checkpoints_done: watch::Sender::new(0),
            has_ended: watch::Sender::new(false),
        }
    }

    /// Wakes the destager: it looks for work.
    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    /// Waits until the destager is woken.
    pub(crate) async fn woken(&self) {
        self.work.notified().await;
    }

    /// All records below this vseq are in the bucket.
    pub(crate) fn vseq(&self) -> u64 {
        self.progress.borrow().vseq
    }

    /// True if destage goes no further.
    pub(crate) fn has_failed(&self) -> bool {
        self.progress.borrow().failure.is_some()
    }

    /// Notes that all records below `vseq` are in the bucket.
    pub(crate) fn reached(&self, vseq: u64) {
        self.progress.send_modify(|progress| progress.vseq = vseq);
    }

    /// Notes why destage goes no further; the first reason stays.
    pub(crate) fn failed(&self, error: Error) {
        self.progress.send_modify(|progress| {
            progress.failure.get_or_insert(error);
        });
    }

    /// Makes the callers that wait look again.
    pub(crate) fn look_again(&self) {
        self.progress.send_modify(|_| {});
    }

    /// Orders that all records below `vseq` get into the bucket soon.
    pub(crate) fn order(&self, vseq: u64) {
        self.wanted_vseq.fetch_max(vseq, Ordering::AcqRel);
        self.wake();
    }

    /// True if a caller waits for a record at `vseq` or after it.
    pub(crate) fn is_wanted(&self, vseq: u64) -> bool {
        self.wanted_vseq.load(Ordering::Acquire) > vseq
    }

    /// Waits until all records below `vseq` are in the bucket.
    ///
    /// # Errors
    /// The reason why destage goes no further.
    pub(crate) async fn wait(&self, vseq: u64) -> Result<()> {
        self.wait_for(|progress| progress.vseq >= vseq).await
    }

    /// Waits until `is_done`. It is asked again at each step, and after each [`Self::look_again`].
    ///
    /// # Errors
    /// The reason why destage goes no further.
    pub(crate) async fn wait_until(&self, is_done: impl Fn() -> bool) -> Result<()> {
        self.wait_for(|_| is_done()).await
    }

    async fn wait_for(&self, is_done: impl Fn(&Progress) -> bool) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|now| is_done(now) || now.failure.is_some()).await;
        let reached = reached.map_err(|_| Error::shutting_down())?;
        match &reached.failure {
            Some(failure) if !is_done(&reached) => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    /// The newest order of a checkpoint.
    pub(crate) fn newest_ticket(&self) -> Ticket {
        Ticket(self.checkpoints_wanted.load(Ordering::Acquire))
    }

    /// True if a caller waits for the checkpoint of this order.
    pub(crate) fn is_open(&self, ticket: Ticket) -> bool {
        ticket.0 > *self.checkpoints_done.borrow()
    }

    /// Notes that the checkpoints of all orders up to this one are done.
    pub(crate) fn done(&self, ticket: Ticket) {
        self.checkpoints_done.send_modify(|done| *done = (*done).max(ticket.0));
    }

    /// Orders a checkpoint, and waits for it.
    ///
    /// # Errors
    /// The reason why destage goes no further.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        let ticket = self.checkpoints_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        let mut done = self.checkpoints_done.subscribe();
        tokio::select! {
            reached = done.wait_for(|done| *done >= ticket) => {
                reached.map(drop).map_err(|_| Error::shutting_down())
            }
            failed = self.wait_until(|| false) => failed,
        }
    }

    /// Notes that the destager has ended.
    pub(crate) fn end(&self) {
        self.has_ended.send_replace(true);
    }

    /// Waits until the destager has ended.
    pub(crate) async fn ended(&self) {
        // The sender is this one.
        let _ = self.has_ended.subscribe().wait_for(|has_ended| *has_ended).await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_caller_hears_of_what_it_waits_for() {
        let destaging = Destaging::new(5);
        destaging.order(7);
        assert!(destaging.is_wanted(6) && !destaging.is_wanted(7));
        let mut waiting = pin!(destaging.wait(7));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        destaging.reached(7);
        assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    }

    #[test]
    fn a_failure_ends_the_waiting_for_what_is_not_done() {
        let destaging = Destaging::new(5);
        destaging.failed(Error::shutting_down());
        destaging.failed(Error::internal("another", "reason"));
        assert!(matches!(poll(destaging.wait(5)), Poll::Ready(Ok(()))));
        let Poll::Ready(Err(error)) = poll(destaging.wait(6)) else { panic!("it waits") };
        assert_eq!(error.to_string(), Error::shutting_down().to_string());
        assert!(matches!(poll(destaging.checkpoint()), Poll::Ready(Err(_))));
        assert!(matches!(poll(destaging.wait_until(|| true)), Poll::Ready(Ok(()))));
    }

    #[test]
    fn one_checkpoint_serves_all_orders_before_it() {
        let destaging = Destaging::new(0);
        let mut context = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (pin!(destaging.checkpoint()), pin!(destaging.checkpoint()));
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        let ticket = destaging.newest_ticket();
        assert!(destaging.is_open(ticket));
        destaging.done(ticket);
        assert!(!destaging.is_open(ticket));
        assert!(matches!(first.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
        assert!(matches!(second.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    }
}
