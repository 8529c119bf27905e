//! Frames on their way from producers to the writer.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Result;
use crate::{
    codec::{DeviceNumber, Head, Lane, Message},
    lanes::{Entry, Lanes},
};

/// Frames that wait, and the two sides that wait for them.
#[derive(Debug)]
pub(super) struct Outgoing {
    state: Mutex<State>,
    /// Wakes the writer.
    frames: Notify,
    /// Wakes producers.
    room: Notify,
}

#[derive(Debug)]
struct State {
    lanes: Lanes<Message>,
    closing: bool,
}

/// Next step of the writer.
pub(super) enum Next {
    Frame(Entry<Message>),
    Wait,
    Close,
}

impl Outgoing {
    pub(super) fn new(window_bytes: u32) -> Self {
        let state = Mutex::new(State { lanes: Lanes::new(window_bytes), closing: false });
        Self { state, frames: Notify::new(), room: Notify::new() }
    }

    pub(super) async fn push(
        &self,
        lane: Lane,
        device: DeviceNumber,
        message: Message,
    ) -> Result<()> {
        let (kind, payload_bytes) = (message.kind(), message.payload_bytes());
        message.check_frame(&Head { payload_bytes, kind, lane, device, sequence: 0 })?;
        let (bytes, counts) = (payload_bytes, kind.counts());
        let mut entry = Entry { lane, device, bytes, counts, item: message };
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // From here on no notice is missed.
            room.as_mut().enable();
            let pushed = self.state.lock().lanes.push(entry);
            match pushed {
                Ok(()) => break,
                Err((back, _)) => entry = back,
            }
            room.await;
        }
        self.frames.notify_one();
        Ok(())
    }

    pub(super) fn pop(&self) -> Next {
        let mut state = self.state.lock();
        match state.lanes.pop() {
            Some(entry) => Next::Frame(entry),
            None if state.closing => Next::Close,
            None => Next::Wait,
        }
    }

    /// Tells producers that frames have left.
    pub(super) fn has_room(&self) {
        self.room.notify_waiters();
    }

    /// Waits until there may be something to pop.
    pub(super) async fn wait(&self) {
        self.frames.notified().await;
    }

    pub(super) fn grant(&self, device: DeviceNumber, urgent: bool, bytes: u64) {
        self.state.lock().lanes.grant(device, urgent, bytes);
        self.has_room();
    }

    pub(super) fn prioritise(&self, device: DeviceNumber, priority: u8) {
        self.state.lock().lanes.prioritise(device, priority);
    }

    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.frames.notify_one();
    }
}
