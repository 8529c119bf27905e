//! Holds requests, and drains those under way. None fails: held requests go on when it opens.
//!
//! ```text
//! close() ──► new requests wait ──► the last one under way ends ──► Pause ──drop──► all go on
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::bell::Bell;
use crate::{Attempt, Content, Device, Geometry, Result, StatusRange};

/// A device whose requests can be held.
pub struct Gate {
    below: Arc<dyn Device>,
    door: Arc<Door>,
}

#[derive(Debug, Default)]
struct Door {
    state: Mutex<State>,
    opened: Bell,
    emptied: Bell,
}

#[derive(Debug, Default)]
struct State {
    /// Pauses that hold the gate closed.
    pauses: usize,
    /// Requests that entered and have not left.
    under_way: usize,
}

/// Holds the gate closed until it is dropped.
#[must_use = "the gate opens when the pause is dropped"]
#[derive(Debug)]
pub struct Pause {
    door: Arc<Door>,
}

/// A request that has entered. It leaves when it is dropped.
struct Inside<'a> {
    door: &'a Door,
}

impl Gate {
    /// Lets requests through to `below` until the gate is closed.
    pub fn new(below: Arc<dyn Device>) -> Self {
        Self { below, door: Arc::default() }
    }

    /// Closes the gate at once, and waits for the requests under way. The gate opens when every
    /// pause is dropped. Dropping this future half-way opens it, too.
    pub async fn close(&self) -> Pause {
        self.door.state.lock().pauses += 1;
        let pause = Pause { door: self.door.clone() };
        loop {
            let emptied = self.door.emptied.listen();
            if self.door.state.lock().under_way == 0 {
                return pause;
            }
            let _ = emptied.await;
        }
    }

    /// True while requests are held.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.door.state.lock().pauses > 0
    }
}

impl Door {
    fn try_enter(&self) -> Option<Inside<'_>> {
        let mut state = self.state.lock();
        if state.pauses > 0 {
            return None;
        }
        state.under_way += 1;
        Some(Inside { door: self })
    }

    async fn enter(&self) -> Inside<'_> {
        loop {
            if let Some(inside) = self.try_enter() {
                return inside;
            }
            let opened = self.opened.listen();
            if self.state.lock().pauses > 0 {
                let _ = opened.await;
            }
        }
    }

    fn attempt<T>(&self, call: impl FnOnce() -> Attempt<T>) -> Attempt<T> {
        match self.try_enter() {
            Some(_inside) => call(),
            None => Attempt::WouldBlock,
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.door.state.lock();
        state.under_way -= 1;
        let drained = state.under_way == 0 && state.pauses > 0;
        drop(state);
        if drained {
            self.door.emptied.ring();
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let mut state = self.door.state.lock();
        state.pauses -= 1;
        let opens = state.pauses == 0;
        drop(state);
        if opens {
            self.door.opened.ring();
        }
    }
}

#[async_trait]
impl Device for Gate {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        self.door.attempt(|| self.below.try_read(offset, buf))
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Attempt<()> {
        self.door.attempt(|| self.below.try_write(offset, data))
    }

    fn try_flush(&self) -> Attempt<()> {
        self.door.attempt(|| self.below.try_flush())
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        let _inside = self.door.enter().await;
        self.below.read(offset, buf).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        let _inside = self.door.enter().await;
        self.below.write(offset, data).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let _inside = self.door.enter().await;
        self.below.zero(offset, len).await
    }

    async fn flush(&self) -> Result<()> {
        let _inside = self.door.enter().await;
        self.below.flush().await
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        let _inside = self.door.enter().await;
        self.below.status(offset, len, ranges_max).await
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        // A hint, which changes nothing: no pause waits for it, and it waits for none.
        if !self.is_closed() {
            self.below.prefetch(offset, len).await;
        }
    }
}
