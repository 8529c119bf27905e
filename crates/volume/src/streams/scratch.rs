//! Large buffers that are used again: fresh memory for each batch would cost a page fault for each
//! of its pages.

use parking_lot::Mutex;

/// Number of kept buffers: as many batches as two cores build at once.
const KEPT_MAX: usize = 2;

/// Unused buffers.
#[derive(Debug)]
pub(crate) struct Scratch {
    kept: Mutex<Vec<Vec<u8>>>,
    /// The most bytes of a kept buffer.
    bytes_max: usize,
}

impl Scratch {
    /// Keeps buffers of at most `bytes_max` bytes: those of ordinary batches.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { kept: Mutex::default(), bytes_max }
    }

    /// Gives a buffer of `len` bytes of any content.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.kept.lock().pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }

    /// Keeps a buffer for the next batch, if there are not enough.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.kept.lock();
        if kept.len() < KEPT_MAX && buffer.capacity() <= self.bytes_max {
            kept.push(buffer);
        }
    }
}
