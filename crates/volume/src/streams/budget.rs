//! Memory that all volumes of a node share: for overlays, and for buffers.
//!
//! When half of the overlays' memory is used, volumes with the mean or more make a checkpoint. When
//! all of it is used, so does every volume that goes on. So a busy volume among many idle ones may
//! use nearly all of it, and all together no more than there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The memory for the overlays of all volumes.
#[derive(Debug)]
pub(crate) struct OverlayBudget {
    max_bytes: usize,
    used_bytes: AtomicUsize,
    /// Bytes of states that are only read, and that no checkpoint makes smaller.
    read_bytes: AtomicUsize,
    shares: AtomicUsize,
}

impl OverlayBudget {
    /// Makes a budget of this many bytes.
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            used_bytes: AtomicUsize::default(),
            read_bytes: AtomicUsize::default(),
            shares: AtomicUsize::default(),
        })
    }

    /// Bytes that count. States that are only read take at most half of everything from writers,
    /// which can't free them.
    fn used_bytes(&self) -> usize {
        let read = self.read_bytes.load(Ordering::Relaxed).min(self.max_bytes / 2);
        self.used_bytes.load(Ordering::Relaxed) + read
    }

    /// Bytes in use.
    pub(crate) fn all_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed) + self.read_bytes.load(Ordering::Relaxed)
    }

    /// Takes the part of a state that is only read.
    pub(crate) fn read(self: &Arc<Self>, bytes: usize) -> ReadShare {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        ReadShare { budget: self.clone(), bytes }
    }

    /// Takes a volume's part, empty at first.
    pub(crate) fn share(self: &Arc<Self>) -> OverlayShare {
        self.shares.fetch_add(1, Ordering::Relaxed);
        OverlayShare { budget: self.clone(), bytes: AtomicUsize::default() }
    }
}

/// The part of a read-only state's overlay; dropping it frees the part.
#[derive(Debug)]
pub(crate) struct ReadShare {
    budget: Arc<OverlayBudget>,
    bytes: usize,
}

impl Drop for ReadShare {
    fn drop(&mut self) {
        self.budget.read_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The part of one volume's overlay; dropping it frees the part.
#[derive(Debug)]
pub(crate) struct OverlayShare {
    budget: Arc<OverlayBudget>,
    bytes: AtomicUsize,
}

impl OverlayShare {
    /// Sets the bytes of the overlay.
    pub(crate) fn set(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        // In one step, so that no reader sees a sum without either.
        self.budget.used_bytes.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }

    /// True if the volume should make a checkpoint.
    pub(crate) fn is_due(&self) -> bool {
        self.is_full() || (self.is_mean_or_more() && self.used_bytes() >= self.budget.max_bytes / 2)
    }

    /// True if the volume must not go on before a checkpoint is done: all memory is used, by any
    /// volume.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0 && self.used_bytes() > self.budget.max_bytes
    }

    /// True if all memory is used, and this volume has its fair part or more. So all volumes
    /// together take at most twice of everything.
    pub(crate) fn is_over(&self) -> bool {
        let own = self.bytes.load(Ordering::Relaxed);
        let shares = self.budget.shares.load(Ordering::Relaxed);
        self.used_bytes() > self.budget.max_bytes
            && own.saturating_mul(shares) > self.budget.max_bytes
    }

    /// Used share, percent.
    pub(crate) fn used_percent(&self) -> u64 {
        (self.used_bytes() * 100 / self.budget.max_bytes.max(1)) as u64
    }

    fn used_bytes(&self) -> usize {
        self.budget.used_bytes()
    }

    fn is_mean_or_more(&self) -> bool {
        let own = self.bytes.load(Ordering::Relaxed);
        let shares = self.budget.shares.load(Ordering::Relaxed);
        own > 0 && own.saturating_mul(shares) >= self.budget.used_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for OverlayShare {
    fn drop(&mut self) {
        self.set(0);
        self.budget.shares.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Unit in which buffers are counted, bytes.
const UNIT_BYTES: usize = 4096;

/// Memory for buffers. Callers that can wait wait for room; reads ahead go without.
#[derive(Debug)]
pub(crate) struct Buffers {
    room: Arc<Semaphore>,
    units: u32,
}

impl Buffers {
    /// Makes buffers of this many bytes.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let units = units(max_bytes).max(1);
        Self { room: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits for room for `bytes`, in the order of asking. A request larger than everything waits
    /// for everything.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Held> {
        let room = self.room.clone();
        room.acquire_many_owned(units(bytes).min(self.units)).await.ok().map(Held)
    }

    /// Takes room for `bytes`, if that leaves half of everything for callers that wait.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Held> {
        let left = self.room.available_permits().checked_sub(units(bytes) as usize)?;
        if left < self.units as usize / 2 {
            return None;
        }
        self.room.clone().try_acquire_many_owned(units(bytes)).ok().map(Held)
    }
}

/// Room for buffers; dropping it frees the room.
#[derive(Debug)]
pub(crate) struct Held(OwnedSemaphorePermit);

impl Held {
    /// Gives back all but the room for `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(units(bytes) as usize);
        drop(self.0.split(surplus));
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_busy_volume_among_idle_ones_has_nearly_all_of_it() {
        let budget = OverlayBudget::new(1000);
        let idle: Vec<OverlayShare> = (0..99).map(|_| budget.share()).collect();
        let busy = budget.share();
        busy.set(499);
        assert!(!busy.is_due());
        idle.iter().take(5).for_each(|share| share.set(1));
        assert!(busy.is_due() && !idle[0].is_due() && !busy.is_full());
        busy.set(996);
        assert!(busy.is_full() && idle[0].is_full() && !idle[9].is_due());
        busy.set(0);
        assert!(!busy.is_due() && !idle[0].is_due());
    }

    #[test]
    fn volumes_that_are_equally_busy_make_checkpoints_at_their_part() {
        let budget = OverlayBudget::new(1000);
        let shares: Vec<OverlayShare> = (0..10).map(|_| budget.share()).collect();
        shares.iter().for_each(|share| share.set(49));
        assert!(shares.iter().all(|share| !share.is_due()));
        shares.iter().for_each(|share| share.set(50));
        assert!(shares.iter().all(OverlayShare::is_due));
        drop(shares);
        assert_eq!(budget.used_bytes.load(Ordering::Relaxed), 0);
        let alone = budget.share();
        alone.set(500);
        assert!(alone.is_due());
    }

    #[test]
    fn what_is_only_read_does_not_change_who_checks_in() {
        let budget = OverlayBudget::new(1000);
        let _read = budget.read(400);
        let (large, small) = (budget.share(), budget.share());
        large.set(500);
        small.set(1);
        assert!(large.is_due() && !small.is_due());
    }

    #[test]
    fn who_has_no_fair_part_may_go_on_when_there_is_no_more() {
        let budget = OverlayBudget::new(1000);
        let (large, small) = (budget.share(), budget.share());
        large.set(1000);
        assert!(!large.is_over());
        small.set(500);
        assert!(large.is_over() && !small.is_over() && small.used_percent() == 150);
        small.set(501);
        assert!(small.is_over());
    }

    #[tokio::test]
    async fn buffers_have_no_more_than_there_is() {
        use futures::FutureExt;
        let buffers = Buffers::new(10 * UNIT_BYTES);
        let mut one = buffers.take(6 * UNIT_BYTES).await.expect("room");
        assert!(buffers.try_take(5 * UNIT_BYTES).is_none());
        let large = buffers.take(1 << 40);
        tokio::pin!(large);
        assert!(large.as_mut().now_or_never().is_none(), "it must wait for all of it");
        one.shrink_to(UNIT_BYTES);
        assert!(large.as_mut().now_or_never().is_none());
        drop(one);
        drop(large.await.expect("all of it"));
        assert!(buffers.try_take(6 * UNIT_BYTES).is_none(), "reading ahead takes more than half");
        assert!(buffers.try_take(5 * UNIT_BYTES).is_some());
    }
}
