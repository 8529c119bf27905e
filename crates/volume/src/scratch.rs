//! Large buffers that are used again: fresh memory for each batch would cost a page fault for each of its pages.

use parking_lot::Mutex;

/// How many buffers are kept: as many batches as two cores put together at once.
const KEPT_MAX: usize = 2;

/// Buffers that nobody uses now.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Mutex<Vec<Vec<u8>>>);

impl Scratch {
    /// A buffer of `len` bytes. They are whatever was in them before.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Keeps a buffer for the next batch, if there are not enough.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock();
        if kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }
}
