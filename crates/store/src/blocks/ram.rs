//! Decoded blocks in memory, verified once, by their slot of a segment.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use skerry_core::entry::{BlockEntry, BlockPlace};
use std::ops::Range;

/// Memory of a block besides its bytes, about: key, entry of the table, reference count.
const ENTRY_BYTES: u64 = 128;

#[derive(Clone)]
struct Weigh;

impl Weighter<BlockPlace, Bytes> for Weigh {
    fn weight(&self, _: &BlockPlace, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + ENTRY_BYTES
    }
}

/// The cache. A block that a long scan reads once does not evict one that is read often.
pub(super) struct Ram {
    cache: Cache<BlockPlace, Bytes, Weigh>,
}

impl Ram {
    pub(super) fn new(budget_bytes: u64) -> Self {
        let items = (budget_bytes / 4096).max(16) as usize;
        Self { cache: Cache::with_weighter(items, budget_bytes, Weigh) }
    }

    /// Copies part of a block out, if the cache has it.
    pub(super) fn copy(&self, entry: &BlockEntry, within: Range<usize>, out: &mut [u8]) -> bool {
        let Some(plain) = self.cache.get(&entry.place()) else { return false };
        let Some(part) = plain.get(within) else { return false };
        out.copy_from_slice(part);
        true
    }

    /// Keeps a block. Its bytes must be its own and not a piece of something larger.
    pub(super) fn insert(&self, place: BlockPlace, plain: Bytes) {
        self.cache.insert(place, plain);
    }

    pub(super) fn contains(&self, place: &BlockPlace) -> bool {
        self.cache.contains_key(place)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}
