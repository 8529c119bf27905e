//! Nodes of maps, of liveness and of dead-pending chains: fetched, verified against their
//! pointers, and kept in memory.
//!
//! Must hold: every node given out matches the checksum in its pointer, and the cache never exceeds
//! its budget. Nodes never change, so nothing here is ever invalidated.

use crate::cache::flight::Flights;
use crate::error::{Error, Result};
use crate::objects::bucket::Bucket;
use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use skerry_core::FormatError;
use skerry_core::map_node::bounds::node_bytes_max;
use skerry_core::map_node::{MapNode, MapNodeHead, MapNodeKind, MapNodePtr};
use skerry_core::names;
use skerry_core::position::SegmentKey;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Default memory for nodes, bytes: the leaves of 10 GiB of scattered 4 KiB blocks.
pub const MAP_NODE_CACHE_BYTES: u64 = 64 << 20;
/// Bytes of one read for a caller that asks for nodes one after another.
const AHEAD_BYTES: u64 = 64 << 10;
/// Bytes before an inner node that are read with it: inner nodes stand behind their children.
const BEFORE_BYTES: u64 = 16 << 10;
/// Number of stretches kept from reading ahead until their nodes are wanted, at most 64 KiB each. A
/// walk meets the segments of a few checkpoints at a time.
const STRETCHES_MAX: usize = 16;
/// Memory of an entry besides its bytes, about.
const ENTRY_BYTES: u64 = 160;

type Key = (SegmentKey, u32);

/// A verified node.
#[derive(Clone)]
enum Cached {
    Map(Arc<MapNode>),
    Other(MapNodeKind, Bytes),
}

/// The kind of node that a pointer must lead to.
#[derive(Clone, Copy)]
enum Want {
    Map,
    Other(MapNodeKind),
}

impl Want {
    fn takes(self, kind: MapNodeKind) -> bool {
        match self {
            Self::Map => kind.is_map(),
            Self::Other(wanted) => kind == wanted,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Map => MapNodeKind::Leaf.what(),
            Self::Other(kind) => kind.what(),
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Map => node_bytes_max(MapNodeKind::Leaf).max(node_bytes_max(MapNodeKind::Inner)),
            Self::Other(kind) => node_bytes_max(kind),
        }
    }
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Cached> for Weigh {
    fn weight(&self, _: &Key, cached: &Cached) -> u64 {
        let len = match cached {
            Cached::Map(node) => node.len_bytes(),
            Cached::Other(_, bytes) => bytes.len(),
        };
        len as u64 + ENTRY_BYTES
    }
}

/// Bytes of a segment that were read, and whose nodes may be wanted later; not verified.
struct Stretch {
    segment: SegmentKey,
    start: u64,
    bytes: Bytes,
}

impl Stretch {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// Counters of nodes by their source.
#[derive(Debug, Default)]
pub struct NodeCounters {
    /// Found in memory.
    pub hits: AtomicU64,
    /// Not found in memory.
    pub misses: AtomicU64,
    /// Reads of the bucket.
    pub fetches: AtomicU64,
    /// Bytes of those reads.
    pub fetched_bytes: AtomicU64,
}

struct Inner {
    bucket: Bucket,
    cache: Cache<Key, Cached, Weigh>,
    flights: Flights<Key, Result<Cached>>,
    stretches: Mutex<VecDeque<Stretch>>,
    counters: NodeCounters,
}

/// Fetches and keeps nodes. Clones share everything.
#[derive(Clone)]
pub struct MapNodes {
    inner: Arc<Inner>,
}

impl MapNodes {
    /// Makes a reader of the nodes of `bucket`, with at most `cache_bytes` of them in memory.
    pub fn new(bucket: Bucket, cache_bytes: u64) -> Self {
        let items = (cache_bytes / 2048).max(16) as usize;
        let inner = Inner {
            bucket,
            cache: Cache::with_weighter(items, cache_bytes, Weigh),
            flights: Flights::new(),
            stretches: Mutex::new(VecDeque::new()),
            counters: NodeCounters::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Gives a map node, if it is in memory.
    pub fn try_get(&self, ptr: &MapNodePtr) -> Option<Arc<MapNode>> {
        match self.inner.cache.get(&(ptr.segment, ptr.offset)) {
            Some(Cached::Map(node)) => {
                self.inner.counters.hits.fetch_add(1, Ordering::Relaxed);
                Some(node)
            }
            _ => None,
        }
    }

    /// Gives a map node.
    ///
    /// # Errors
    /// [`Error::Format`] with the segment's name and the node's offset if it is not the pointer's
    /// node.
    pub async fn get(&self, ptr: &MapNodePtr) -> Result<Arc<MapNode>> {
        if let Some(node) = self.try_get(ptr) {
            return Ok(node);
        }
        match self.inner.fetch(ptr, Want::Map).await? {
            Cached::Map(node) => Ok(node),
            Cached::Other(..) => {
                Err(corrupt(ptr, FormatError::BadMagic { what: Want::Map.what() }))
            }
        }
    }

    /// Gives the bytes of a node of another kind, verified.
    pub async fn get_raw(&self, ptr: &MapNodePtr, kind: MapNodeKind) -> Result<Bytes> {
        if let Some(Cached::Other(found, bytes)) = self.inner.cache.get(&(ptr.segment, ptr.offset))
            && found == kind
        {
            self.inner.counters.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(bytes);
        }
        match self.inner.fetch(ptr, Want::Other(kind)).await? {
            Cached::Other(found, bytes) if found == kind => Ok(bytes),
            _ => Err(corrupt(ptr, FormatError::BadMagic { what: kind.what() })),
        }
    }

    /// Keeps a new node of this kind. `ptr` must have been made from `bytes`.
    pub fn insert(&self, ptr: &MapNodePtr, kind: MapNodeKind, bytes: Bytes) {
        let cached = if kind.is_map() {
            let Ok(node) = MapNode::parse(bytes) else { return };
            Cached::Map(Arc::new(node))
        } else {
            Cached::Other(kind, bytes)
        };
        self.inner.cache.insert((ptr.segment, ptr.offset), cached);
    }

    /// Memory, bytes, about.
    pub fn cached_bytes(&self) -> u64 {
        self.inner.cache.weight()
    }

    /// The counters.
    pub fn counters(&self) -> &NodeCounters {
        &self.inner.counters
    }
}

fn corrupt(ptr: &MapNodePtr, source: FormatError) -> Error {
    Error::format_at(names::segment(ptr.segment), u64::from(ptr.offset), source)
}

/// Cuts a node's own bytes out of a read, and verifies them.
fn own_bytes(ptr: &MapNodePtr, read: &Bytes, at: u64) -> Result<Bytes, FormatError> {
    let (start, end) = (at as usize, at as usize + ptr.len as usize);
    if read.len() < end {
        return Err(FormatError::Truncated { what: "segment" });
    }
    let own = read.slice(start..end);
    ptr.verify(&own)?;
    Ok(own)
}

impl Inner {
    async fn fetch(&self, ptr: &MapNodePtr, want: Want) -> Result<Cached> {
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let key = (ptr.segment, ptr.offset);
        let fetched = self.flights.run(key, async {
            let cached = self.fetch_alone(ptr, want).await?;
            self.cache.insert(key, cached.clone());
            Ok(cached)
        });
        fetched.await
    }

    async fn fetch_alone(&self, ptr: &MapNodePtr, want: Want) -> Result<Cached> {
        if ptr.len as usize > want.bytes_max() {
            return Err(corrupt(ptr, FormatError::invalid(want.what(), "it is too long")));
        }
        let bytes = match self.take_ahead(ptr) {
            Some(bytes) => bytes,
            None => self.read_bucket(ptr).await?,
        };
        let head = MapNodeHead::read(&bytes).map_err(|error| corrupt(ptr, error))?;
        if !want.takes(head.kind()) {
            return Err(corrupt(ptr, FormatError::BadMagic { what: want.what() }));
        }
        if head.level() != ptr.level {
            return Err(corrupt(ptr, FormatError::invalid(want.what(), "it has another level")));
        }
        if !head.kind().is_map() {
            return Ok(Cached::Other(head.kind(), bytes));
        }
        let node = MapNode::parse(bytes).map_err(|error| corrupt(ptr, error))?;
        Ok(Cached::Map(Arc::new(node)))
    }

    async fn read_bucket(&self, ptr: &MapNodePtr) -> Result<Bytes> {
        let start = u64::from(ptr.offset);
        let exact = start..start + u64::from(ptr.len);
        let wide = self.widen(ptr, exact.clone());
        let from = wide.start;
        let bytes = self.read(ptr.segment, wide).await?;
        let own = match own_bytes(ptr, &bytes, start - from) {
            Ok(own) => own,
            Err(first) => {
                // The bytes may have been damaged on their way, or stand in a file that was
                // replaced.
                tracing::warn!(segment = %names::segment(ptr.segment), offset = ptr.offset, %first, "a node is read again");
                self.bucket.forget_file(ptr.segment);
                let bytes = self.read(ptr.segment, exact).await?;
                return own_bytes(ptr, &bytes, 0).map_err(|error| corrupt(ptr, error));
            }
        };
        // Even an exact read is remembered: so the next read is known to follow it.
        self.remember(Stretch { segment: ptr.segment, start: from, bytes });
        // A copy, so that a small node in the cache does not keep the whole stretch in memory.
        Ok(Bytes::copy_from_slice(&own))
    }

    async fn read(&self, segment: SegmentKey, range: Range<u64>) -> Result<Bytes> {
        let bytes = self.bucket.segment_range(segment, range).await?;
        self.counters.fetches.fetch_add(1, Ordering::Relaxed);
        self.counters.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// The range to read for a node: more after it for a walk, more before it for a descent.
    fn widen(&self, ptr: &MapNodePtr, exact: Range<u64>) -> Range<u64> {
        let reads_on = self.stretches.lock().iter().any(|s| {
            s.segment == ptr.segment && (s.start..=s.end() + AHEAD_BYTES / 4).contains(&exact.start)
        });
        if reads_on {
            return exact.start..exact.end.max(exact.start + AHEAD_BYTES);
        }
        if ptr.level > 0 {
            return exact.start.saturating_sub(BEFORE_BYTES)..exact.end;
        }
        exact
    }

    fn take_ahead(&self, ptr: &MapNodePtr) -> Option<Bytes> {
        let (start, end) = (u64::from(ptr.offset), u64::from(ptr.offset) + u64::from(ptr.len));
        let stretches = self.stretches.lock();
        let holds = |s: &&Stretch| s.segment == ptr.segment && s.start <= start && end <= s.end();
        let own = stretches.iter().find(holds).map(|s| {
            Bytes::copy_from_slice(&s.bytes[(start - s.start) as usize..(end - s.start) as usize])
        })?;
        drop(stretches);
        // Damage in bytes that were read ahead is no error: the node is read again, alone.
        ptr.verify(&own).ok().map(|()| own)
    }

    fn remember(&self, stretch: Stretch) {
        // A long liveness leaf is wanted once and as a whole; keeping it here would be waste.
        let keep = stretch.bytes.len() as u64 <= 2 * AHEAD_BYTES;
        let stretch = if keep {
            stretch
        } else {
            Stretch { start: stretch.end(), bytes: Bytes::new(), ..stretch }
        };
        let mut stretches = self.stretches.lock();
        stretches.retain(|s| {
            s.segment != stretch.segment || s.end() < stretch.start || s.start > stretch.end()
        });
        if stretches.len() >= STRETCHES_MAX {
            stretches.pop_front();
        }
        stretches.push_back(stretch);
    }
}

#[cfg(test)]
#[path = "nodes/tests.rs"]
mod tests;
