//! A cache of a database's files in memory: blocks, indexes and filters, up to a number of bytes.
//! Without it, each look for an id would read the filters of all files.

use async_trait::async_trait;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use slatedb::db_cache::{CachedEntry, CachedKey, DbCache};

/// An entry's approximate cost besides its bytes.
const ENTRY_BYTES: u64 = 128;
/// Approximate size of a block.
const BLOCK_BYTES: u64 = 4096;

#[derive(Clone)]
struct Weigh;

impl Weighter<CachedKey, CachedEntry> for Weigh {
    fn weight(&self, _: &CachedKey, entry: &CachedEntry) -> u64 {
        entry.size() as u64 + ENTRY_BYTES
    }
}

/// A cache for one database or several.
pub(crate) struct BlockCache {
    cache: Cache<CachedKey, CachedEntry, Weigh>,
}

impl BlockCache {
    /// Makes an empty cache of at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let items = (bytes_max / BLOCK_BYTES).max(16) as usize;
        Self { cache: Cache::with_weighter(items, bytes_max, Weigh) }
    }
}

type Found = Result<Option<CachedEntry>, slatedb::Error>;

#[async_trait]
impl DbCache for BlockCache {
    async fn get_block(&self, key: &CachedKey) -> Found {
        Ok(self.cache.get(key))
    }

    async fn get_index(&self, key: &CachedKey) -> Found {
        Ok(self.cache.get(key))
    }

    async fn get_filter(&self, key: &CachedKey) -> Found {
        Ok(self.cache.get(key))
    }

    async fn get_stats(&self, key: &CachedKey) -> Found {
        Ok(self.cache.get(key))
    }

    async fn insert(&self, key: CachedKey, entry: CachedEntry) {
        self.cache.insert(key, entry);
    }

    async fn remove(&self, key: &CachedKey) {
        self.cache.remove(key);
    }

    fn entry_count(&self) -> u64 {
        self.cache.len() as u64
    }
}
