//! Segments that were written lately, around the kernel's page cache.
//!
//! A guest often reads again what it has just written, and would find none of it in memory. So the
//! first read of such a segment brings all of it into the page cache. A segment that is only
//! written causes no read: a long copy costs the disk no more.

use skerry_core::position::SegmentKey;
use std::collections::VecDeque;

/// The newest segments, up to a bound in bytes; each counts until it is taken.
#[derive(Debug)]
pub(crate) struct Fresh {
    bytes_max: u64,
    bytes: u64,
    /// Oldest first, with their lengths in bytes.
    segments: VecDeque<(SegmentKey, u64)>,
}

impl Fresh {
    /// Makes an empty list that remembers at most `bytes_max` bytes of segments.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, segments: VecDeque::new() }
    }

    /// Notes that a segment of `len` bytes was written.
    pub(crate) fn note(&mut self, key: SegmentKey, len: u64) {
        self.segments.push_back((key, len));
        self.bytes += len;
        while self.bytes > self.bytes_max
            && let Some((_, len)) = self.segments.pop_front()
        {
            self.bytes -= len;
        }
    }

    /// True if the segment was written lately; only once.
    pub(crate) fn take(&mut self, key: SegmentKey) -> bool {
        let found = self.segments.iter().position(|(fresh, _)| *fresh == key);
        let Some((_, len)) = found.and_then(|at| self.segments.remove(at)) else { return false };
        self.bytes -= len;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_core::id::StreamId;
    use skerry_core::position::Number;

    fn key(number: u64) -> SegmentKey {
        SegmentKey { stream: StreamId([7; 16]), number: Number(number) }
    }

    #[test]
    fn the_newest_are_remembered_each_once() {
        let mut fresh = Fresh::new(10);
        for number in 1..=4 {
            fresh.note(key(number), 4);
        }
        assert!(!fresh.take(key(1)) && !fresh.take(key(2)), "only so many bytes");
        assert!(fresh.take(key(3)) && !fresh.take(key(3)));
        fresh.note(key(5), 6);
        assert!(fresh.take(key(4)) && fresh.take(key(5)), "what was taken makes room");
        assert_eq!(fresh.bytes, 0);
    }
}
