//! Futures for waiting callers: for durability, for room. They need no runtime.
//!
//! A waiter registers under the mutex under which the committer publishes, so no wake-up is lost. A
//! dropped waiter takes itself off the list.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{Error, LogPosition, Result, inner::Inner, tail::State};

/// Resolves when the record at a position is durable. See [`crate::Log::wait_durable`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitDurable {
    inner: Arc<Inner>,
    position: LogPosition,
    id: Option<u64>,
}

impl WaitDurable {
    pub(crate) fn new(inner: Arc<Inner>, position: LogPosition) -> Self {
        Self { inner, position, id: None }
    }
}

impl Future for WaitDurable {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.inner.durable() > self.position {
            return Poll::Ready(Ok(()));
        }
        let inner = Arc::clone(&self.inner);
        let mut tail = inner.tail.lock();
        if tail.durable > self.position {
            return Poll::Ready(Ok(()));
        }
        if let State::Failed(cause) = &tail.state {
            return Poll::Ready(Err(Error::Failed { cause: Arc::clone(cause) }));
        }
        if self.position >= tail.next {
            return Poll::Ready(Err(Error::NoSuchPosition { position: self.position }));
        }
        let id = *self.id.get_or_insert_with(|| tail.waiter_id());
        tail.durable_waiters.insert((self.position, id), cx.waker().clone());
        tail.want_sync(self.position);
        inner.wake_committer(tail);
        Poll::Pending
    }
}

impl Drop for WaitDurable {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        // Published: the list has dropped this waiter already.
        if self.inner.durable() <= self.position {
            self.inner.tail.lock().durable_waiters.remove(&(self.position, id));
        }
    }
}

/// Resolves when a record of a certain length would find room. See [`crate::Log::wait_room`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitRoom {
    inner: Arc<Inner>,
    record_bytes: u32,
    id: Option<u64>,
}

impl WaitRoom {
    pub(crate) fn new(inner: Arc<Inner>, record_bytes: u32) -> Self {
        Self { inner, record_bytes, id: None }
    }
}

impl Future for WaitRoom {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = Arc::clone(&self.inner);
        let mut tail = inner.tail.lock();
        if let Err(error) = tail.check_open() {
            return Poll::Ready(Err(error));
        }
        if tail.check_room(self.record_bytes).is_ok() {
            return Poll::Ready(Ok(()));
        }
        let id = *self.id.get_or_insert_with(|| tail.waiter_id());
        tail.change_waiters.insert(id, cx.waker().clone());
        tail.kick = true;
        inner.wake_committer(tail);
        Poll::Pending
    }
}

impl Drop for WaitRoom {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.tail.lock().change_waiters.remove(&id);
        }
    }
}

/// Resolves when the log is closed.
pub(crate) struct WaitClosed {
    inner: Arc<Inner>,
    id: Option<u64>,
}

impl WaitClosed {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, id: None }
    }
}

impl Future for WaitClosed {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = Arc::clone(&self.inner);
        let mut tail = inner.tail.lock();
        match &tail.state {
            State::Closed => return Poll::Ready(Ok(())),
            State::Failed(cause) => {
                return Poll::Ready(Err(Error::Failed { cause: Arc::clone(cause) }));
            }
            State::Recovering | State::Open | State::Closing => {}
        }
        let id = *self.id.get_or_insert_with(|| tail.waiter_id());
        tail.change_waiters.insert(id, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for WaitClosed {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.tail.lock().change_waiters.remove(&id);
        }
    }
}
