//! Places for new jobs. Must hold: no place is given twice for one hash, whatever a crash forgot.
//!
//! A place has the number of the shard's opening above, and a counter of the hash below. Each hash
//! has its own counter, so a tenant's jobs are neighbours in the database whatever other tenants
//! enqueue. Reading ahead depends on it.

use crate::hash::TenantHash;
use crate::job::{Epoch, Seq};
use std::collections::HashMap;

/// Bits of a place that count jobs; the bits above are the opening's number.
const COUNTER_BITS: u32 = 40;
/// Hashes whose counters are kept. Beyond it, all hashes go on above the highest counter.
const HASHES_MAX: usize = 1 << 16;

/// The next places of an open shard.
pub(super) struct Places {
    next: HashMap<TenantHash, u64>,
    /// The first place of a hash without a counter.
    floor: u64,
    /// Above all places that were given.
    top: u64,
    hashes_max: usize,
}

impl Places {
    /// Places of this opening.
    pub(super) fn new(epoch: Epoch) -> Self {
        let floor = u64::from(epoch.0) << COUNTER_BITS;
        Self { next: HashMap::new(), floor, top: floor, hashes_max: HASHES_MAX }
    }

    /// Gives a place that no job of this hash had.
    pub(super) fn take(&mut self, hash: TenantHash) -> Seq {
        if self.next.len() >= self.hashes_max && !self.next.contains_key(&hash) {
            self.next.clear();
            self.floor = self.top;
        }
        let next = self.next.entry(hash).or_insert(self.floor);
        let place = *next;
        *next += 1;
        self.top = self.top.max(*next);
        Seq(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_place_is_given_twice_and_neighbours_stay_so() {
        let mut places = Places { hashes_max: 3, ..Places::new(Epoch(2)) };
        let begin = 2 << COUNTER_BITS;
        let taken = [5, 6, 5, 5, 6].map(|hash| places.take(TenantHash(hash)).0 - begin);
        assert_eq!(taken, [0, 0, 1, 2, 1]);
        let mut seen = HashSet::from([(5, 0), (5, 1), (5, 2), (6, 0), (6, 1)]);
        for round in 0..200 {
            let hash = round * 7 % 11;
            let place = places.take(TenantHash(hash)).0 - begin;
            assert!(seen.insert((hash, place)), "{hash} has {place} twice");
        }
        assert!(places.next.len() <= 3);
    }
}
