//! Scratch memory for frames, kept by a thread from one frame to the next.
//!
//! New zeroed memory of a frame's size is dear. The allocator gives the pages back and takes new
//! ones, which interrupts every other thread of the process, and each page is a fault. That costs
//! more than reading the frame from the kernel's memory.

use std::cell::Cell;

/// The most that a thread keeps, bytes: a stored frame and its unpacked form, with room to spare.
const KEPT_BYTES_MAX: usize = 256 << 10;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends `len` bytes of any content.
pub(super) fn with<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut memory = KEPT.take();
    if memory.len() < len {
        memory.resize(len, 0);
    }
    let done = work(&mut memory[..len]);
    if memory.len() <= KEPT_BYTES_MAX {
        KEPT.set(memory);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_within_its_bound_and_lent_once_at_a_time() {
        let first = with(1000, |memory| memory.as_ptr());
        assert_eq!(with(900, |memory| memory.as_ptr()), first, "the same again");
        with(10, |outer| with(10, |inner| assert_ne!(outer.as_ptr(), inner.as_ptr())));
        with(KEPT_BYTES_MAX + 1, |memory| assert_eq!(memory.len(), KEPT_BYTES_MAX + 1));
        assert!(KEPT.take().len() <= KEPT_BYTES_MAX);
    }
}
