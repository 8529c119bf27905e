//! Counters of the log for metrics: plain numbers that only grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Number of latency buckets. Bucket `i` counts syncs below `2^i` microseconds and not below the
/// bucket before. The last one takes all longer ones (over half a minute).
pub const LATENCY_BUCKETS: usize = 26;

/// Counters of a log, updated while it works.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) filled_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_ns: AtomicU64,
    /// Time of the last sync.
    pub(crate) last_sync_ns: AtomicU64,
    pub(crate) switches: AtomicU64,
    pub(crate) latency: [AtomicU64; LATENCY_BUCKETS],
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Records appended by the caller.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Writes of records and headers to files.
    pub writes: u64,
    /// Bytes of those writes, headers and padding included.
    pub written_bytes: u64,
    /// Bytes of zeros written to make files ready.
    pub filled_bytes: u64,
    /// Syncs of files that made records durable.
    pub syncs: u64,
    /// Nanoseconds spent in those syncs.
    pub sync_ns: u64,
    /// Changes of file.
    pub switches: u64,
    /// Syncs by latency; see [`LATENCY_BUCKETS`].
    pub latency: [u64; LATENCY_BUCKETS],
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Relaxed);
    }

    pub(crate) fn synced(&self, took_ns: u64) {
        Self::count(&self.syncs, 1);
        Self::count(&self.sync_ns, took_ns);
        self.last_sync_ns.store(took_ns, Relaxed);
        Self::count(&self.latency[bucket_of(took_ns)], 1);
    }

    /// Reads all numbers, each on its own: not of one instant, but never going back.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            records: self.records.load(Relaxed),
            payload_bytes: self.payload_bytes.load(Relaxed),
            writes: self.writes.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
            filled_bytes: self.filled_bytes.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            sync_ns: self.sync_ns.load(Relaxed),
            switches: self.switches.load(Relaxed),
            latency: std::array::from_fn(|bucket| self.latency[bucket].load(Relaxed)),
        }
    }
}

fn bucket_of(took_ns: u64) -> usize {
    let micros = took_ns / 1000;
    ((u64::BITS - micros.leading_zeros()) as usize).min(LATENCY_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_microseconds() {
        for (ns, bucket) in [(0, 0), (999, 0), (1000, 1), (1999, 1), (2000, 2), (100_000, 7)] {
            assert_eq!(bucket_of(ns), bucket, "{ns} ns");
        }
        assert_eq!(bucket_of(u64::MAX), LATENCY_BUCKETS - 1);
    }
}
