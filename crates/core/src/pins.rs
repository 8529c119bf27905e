//! The time of pins, on both sides: pure functions, to which callers pass their clock's readings.
//!
//! A reader and a collector share no clock. A reader notes its own boot-time clock *before* it
//! writes a renewal. It reads no longer than the pin's time after that. A collector begins to count
//! when it first *sees* a renewal, which is later, and honours the pin for its whole time from
//! there. A renewal counts only if its answer comes while the one before still counts. Otherwise
//! the collector may have let go in between. So the collector honours every reader that still
//! reads.

use crate::id::PinId;
use std::collections::BTreeMap;
use std::time::Duration;

/// The latest renewal of a pin, and when a collector first saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Seen {
    renewal: u64,
    at: Duration,
}

/// The pins of one volume that a collector knows: those of the last listing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PinClocks(BTreeMap<PinId, Seen>);

impl PinClocks {
    /// Takes in a listing that was `asked` for and `answered` at these times, and forgets pins that
    /// it does not show. Gives the age that each pin's renewal surely had when the store made the
    /// listing. A later renewal could not be in the listing.
    pub fn see(
        &mut self,
        listed: &[(PinId, u64)],
        asked: Duration,
        answered: Duration,
    ) -> BTreeMap<PinId, Duration> {
        let before = std::mem::take(&mut self.0);
        for &(id, renewal) in listed {
            let known = before.get(&id).filter(|known| known.renewal == renewal);
            self.0.insert(id, known.copied().unwrap_or(Seen { renewal, at: answered }));
        }
        self.0.iter().map(|(id, seen)| (*id, asked.saturating_sub(seen.at))).collect()
    }

    /// True if no pin is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// True if a collector may stop honouring a pin whose latest renewal it first saw this long ago.
pub fn has_expired(since_seen: Duration, ttl: Duration) -> bool {
    since_seen > ttl
}

/// True while a reader may read. `renewed` is its clock's reading before it wrote the latest
/// renewal that is known to be in the bucket.
pub fn may_read(renewed: Duration, now: Duration, ttl: Duration) -> bool {
    now < renewed + ttl
}

/// Decides the time from which a reader counts after a renewal was answered. Gives none if the
/// answer came too late: then the reader must stop. `before` is the time from which it counted so
/// far. `began` is its clock's reading before it wrote the renewal.
pub fn renewed(
    before: Duration,
    began: Duration,
    now: Duration,
    ttl: Duration,
) -> Option<Duration> {
    may_read(before, now, ttl).then_some(began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_with_their_pins() {
        let (a, b) = (PinId([1; 16]), PinId([2; 16]));
        let seconds = Duration::from_secs;
        let mut clocks = PinClocks::default();
        clocks.see(&[(a, 0), (b, 0)], seconds(0), seconds(1));
        let ages = clocks.see(&[(a, 0), (b, 1)], seconds(5), seconds(9));
        assert_eq!((ages[&a], ages[&b]), (seconds(4), seconds(0)), "a renewal begins anew");
        clocks.see(&[], seconds(9), seconds(9));
        assert!(clocks.is_empty());
    }
}
