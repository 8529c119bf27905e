//! Memory for records, at an address that direct IO accepts.

use std::ops::Deref;

/// Direct IO needs memory at multiples of a disk's block; no disk's block is larger.
const ALIGN_BYTES: usize = 4096;

/// Bytes at an aligned address that only grow, up to a capacity that is set once.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    /// Offset of the aligned part in `memory`.
    start: usize,
}

impl Buffer {
    /// Empties the buffer, and makes it hold `capacity` bytes without moving.
    pub(crate) fn reset(&mut self, capacity: usize) {
        self.memory.clear();
        self.memory.reserve_exact(capacity + ALIGN_BYTES);
        self.start = self.memory.as_ptr().align_offset(ALIGN_BYTES);
        self.memory.resize(self.start, 0);
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Adds zeros up to the next multiple of `bytes`.
    pub(crate) fn pad_to_multiple(&mut self, bytes: usize) {
        self.memory.resize(self.start + self.len().next_multiple_of(bytes), 0);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_does_not_move_while_it_fills() {
        let mut buffer = Buffer::default();
        for _ in 0..3 {
            buffer.reset(10_000);
            let place = buffer.as_ptr();
            assert_eq!(place.addr() % ALIGN_BYTES, 0);
            buffer.extend(&[7; 9_000]);
            buffer.pad_to_multiple(512);
            assert_eq!(buffer.len(), 9_216);
            assert_eq!((buffer[8_999], buffer[9_000], buffer[9_215]), (7, 0, 0));
            assert_eq!(buffer.as_ptr(), place);
        }
    }
}
