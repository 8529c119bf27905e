//! The bytes to fetch before a client that reads in order asks for them. Decides; fetches nothing.
//!
//! The distance doubles as long as the client goes on. A client that stops soon has cost little.

use parking_lot::Mutex;
use std::ops::Range;

/// The first distance.
const FIRST_BYTES: u64 = 256 << 10;
/// The longest distance: at 20 ms for each answer of a bucket, 200 MB/s need it.
const MAX_BYTES: u64 = 4 << 20;
/// Number of reads in order before anything is fetched.
const STREAK: u32 = 2;
/// Number of reads by which requests may arrive out of order: a client may have several under way.
const SLACK_READS: u64 = 8;

/// The recent reads of one client.
#[derive(Debug, Default)]
pub(crate) struct Readahead(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// End of the reads in order.
    next: u64,
    /// End of the requested fetches.
    ahead: u64,
    streak: u32,
    distance: u64,
}

impl Readahead {
    /// Notes a read of a device of `size` bytes, once. Gives the range to fetch now.
    pub(crate) fn after(&self, read: Range<u64>, size: u64) -> Option<Range<u64>> {
        let mut seen = self.0.lock();
        let slack = SLACK_READS * (read.end - read.start);
        if read.start.abs_diff(seen.next) > slack {
            *seen = Seen { next: read.end, ahead: read.end, ..Seen::default() };
            return None;
        }
        seen.streak += 1;
        seen.next = seen.next.max(read.end);
        seen.ahead = seen.ahead.max(seen.next);
        if seen.streak < STREAK || seen.ahead - seen.next > seen.distance / 2 {
            return None;
        }
        seen.distance = (seen.distance * 2).clamp(FIRST_BYTES, MAX_BYTES);
        let fetch = seen.ahead..seen.next.saturating_add(seen.distance).min(size);
        seen.ahead = seen.ahead.max(fetch.end);
        (!fetch.is_empty()).then_some(fetch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const SIZE: u64 = 64 << 20;

    /// Checks that everything but the first reads is fetched once, before it is read, and never far
    /// ahead.
    #[test]
    fn reads_in_order_are_fetched_before_they_come() {
        for len in [4096u64, 65536, 1 << 20] {
            let ahead = Readahead::default();
            let mut fetched = 0..0;
            for at in (0..SIZE).step_by(len as usize) {
                if at >= len * 4 {
                    assert!(fetched.end >= (at + len).min(SIZE), "{len} at {at}: {fetched:?}");
                }
                let Some(range) = ahead.after(at..at + len, SIZE) else { continue };
                assert!(range.start >= fetched.end, "{range:?} again after {fetched:?}");
                assert!(range.end <= at + len + MAX_BYTES && range.end <= SIZE);
                fetched = range;
            }
            assert_eq!(fetched.end, SIZE);
        }
    }

    #[test]
    fn a_little_disorder_changes_nothing() {
        let ahead = Readahead::default();
        let mut fetched = 0;
        for pair in 0..100u64 {
            for at in [pair * 2 + 1, pair * 2] {
                let range = ahead.after(at * 4096..(at + 1) * 4096, SIZE);
                fetched += range.map_or(0, |r| r.end - r.start);
            }
        }
        assert!(fetched >= 200 * 4096, "{fetched}");
    }

    #[test]
    fn random_reads_fetch_nothing() {
        let (ahead, mut rng) = (Readahead::default(), StdRng::seed_from_u64(1));
        let mut fetched = 0;
        for _ in 0..10_000 {
            let at = rng.random_range(0..1 << 30) * 4096;
            fetched += u32::from(ahead.after(at..at + 4096, 1 << 42).is_some());
        }
        assert_eq!(fetched, 0);
    }
}
