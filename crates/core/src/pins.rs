//! The time of pins, on both sides: pure functions, with the clock's readings handed in.
//!
//! A reader and a collector share no clock. A reader notes its own boot-time clock *before* it writes a renewal, and
//! reads no longer than the pin's time after that. A collector begins to count when it first *sees* a renewal, which
//! is later, and honours the pin for its whole time from there. A renewal counts only if its answer comes while the one
//! before still counts: else the collector may have let go in between. So whoever still reads is still honoured.

use crate::id::PinId;
use std::collections::BTreeMap;
use std::time::Duration;

/// When a collector first saw the latest renewal of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Seen {
    renewal: u64,
    at: Duration,
}

/// What a collector knows of the pins of one volume: no more than the last listing showed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PinClocks(BTreeMap<PinId, Seen>);

impl PinClocks {
    /// Takes in a listing that was `asked` for and `answered` then, and forgets pins that it does not show. Gives how
    /// old the renewal of each had got for certain when the listing was made: what came after it was not listed.
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

    /// True if it knows no pin.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// True if a collector need not honour a pin any more, whose latest renewal was first seen so long ago.
pub fn has_expired(since_seen: Duration, ttl: Duration) -> bool {
    since_seen > ttl
}

/// True while a reader may read: `renewed` is what its clock said before it wrote the renewal that is known to be there.
pub fn may_read(renewed: Duration, now: Duration, ttl: Duration) -> bool {
    now < renewed + ttl
}

/// From when a reader counts after a renewal was answered; none if it came too late, and the reader is at its end.
/// `before` is from when it counted so far, `began` what its clock said before it wrote the renewal.
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
