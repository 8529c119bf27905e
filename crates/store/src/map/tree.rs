//! Reading the map: lookups, runs of data, whole walks.
//!
//! Trees are immutable. Everything here works on a root's top pointer and fetches nodes through
//! [`MapNodes`].

use crate::error::Result;
use crate::map::nodes::MapNodes;
use skerry_core::entry::BlockEntry;
use skerry_core::map_node::{MapNode, MapNodePtr, span_shift};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// The blocks that a node covers.
pub fn span(level: u8, first: u64) -> Range<u64> {
    let end = 1u64.checked_shl(span_shift(level)).and_then(|len| first.checked_add(len));
    first..end.unwrap_or(u64::MAX)
}

/// The blocks that a child covers.
pub fn child_span(level: u8, first: u64, place: u8) -> Range<u64> {
    span(level - 1, first + (u64::from(place) << span_shift(level - 1)))
}

/// Result of a lookup that must not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The block's entry, or none for a hole.
    Found(Option<BlockEntry>),
    /// A node on the way is not in memory.
    Wait,
}

/// Looks a block up in memory only.
pub fn try_lookup(nodes: &MapNodes, top: Option<MapNodePtr>, index: u64) -> Lookup {
    let Some(mut ptr) = top.filter(|top| span(top.level, 0).contains(&index)) else {
        return Lookup::Found(None);
    };
    loop {
        let Some(node) = nodes.try_get(&ptr) else { return Lookup::Wait };
        let place = node.place_of(index);
        if node.is_leaf() {
            return Lookup::Found(node.leaf_entry(place));
        }
        match node.child(place) {
            Some(child) => ptr = child,
            None => return Lookup::Found(None),
        }
    }
}

/// Looks a block up. Fetches nodes that are not in memory.
pub async fn lookup(
    nodes: &MapNodes,
    top: Option<MapNodePtr>,
    index: u64,
) -> Result<Option<BlockEntry>> {
    let Some(mut ptr) = top.filter(|top| span(top.level, 0).contains(&index)) else {
        return Ok(None);
    };
    loop {
        let node = nodes.get(&ptr).await?;
        let place = node.place_of(index);
        if node.is_leaf() {
            return Ok(node.leaf_entry(place));
        }
        match node.child(place) {
            Some(child) => ptr = child,
            None => return Ok(None),
        }
    }
}

/// State of a scan: the nodes from the top down to a leaf.
///
/// Holes cost nothing: a scan of an empty petabyte looks at one pointer.
pub struct Scan<'a> {
    nodes: &'a MapNodes,
    /// Nodes still to be looked at, the next one last.
    todo: Vec<(u64, MapNodePtr)>,
    range: Range<u64>,
}

impl<'a> Scan<'a> {
    /// Scans the mapped blocks of `range` in order.
    pub fn new(nodes: &'a MapNodes, top: Option<MapNodePtr>, range: Range<u64>) -> Self {
        Self { nodes, todo: top.map(|top| (0, top)).into_iter().collect(), range }
    }

    fn wants(&self, span: &Range<u64>) -> bool {
        span.start < self.range.end && span.end > self.range.start
    }

    /// Gives the mapped blocks of the next leaf that has any, by index; none at the end.
    pub async fn next_leaf(&mut self) -> Result<Option<Vec<(u64, BlockEntry)>>> {
        while let Some((first, ptr)) = self.todo.pop() {
            if !self.wants(&span(ptr.level, first)) {
                continue;
            }
            let node = self.nodes.get(&ptr).await?;
            if node.is_leaf() {
                let entries: Vec<_> = node
                    .leaf_entries()
                    .map(|(place, entry)| (first + u64::from(place), entry))
                    .filter(|(index, _)| self.range.contains(index))
                    .collect();
                if !entries.is_empty() {
                    return Ok(Some(entries));
                }
                continue;
            }
            self.push_children(&node, first);
        }
        Ok(None)
    }

    fn push_children(&mut self, node: &Arc<MapNode>, first: u64) {
        let at = self.todo.len();
        for (place, child) in node.children() {
            let span = child_span(node.level(), first, place);
            if self.wants(&span) {
                self.todo.push((span.start, child));
            }
        }
        self.todo[at..].reverse();
    }
}

/// A block whose entries differ between two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differing {
    /// The block.
    pub index: u64,
    /// Its entry in the first tree; none for a hole.
    pub was: Option<BlockEntry>,
    /// Its entry in the second.
    pub is: Option<BlockEntry>,
}

/// A part of two trees that is still to be compared.
struct Pair {
    level: u8,
    first: u64,
    a: Option<MapNodePtr>,
    b: Option<MapNodePtr>,
}

/// State of a comparison of two trees. It skips parts that both share. Memory is at most a leaf,
/// for any difference.
pub struct Diff<'a> {
    nodes: &'a MapNodes,
    /// The next one is last.
    todo: Vec<Pair>,
    from: u64,
}

impl<'a> Diff<'a> {
    /// Compares two trees, in order, from this block on.
    pub fn new(
        nodes: &'a MapNodes,
        a: Option<MapNodePtr>,
        b: Option<MapNodePtr>,
        from: u64,
    ) -> Self {
        let level = a.map_or(0, |p| p.level).max(b.map_or(0, |p| p.level));
        let mut diff = Self { nodes, todo: Vec::new(), from };
        diff.push(Pair { level, first: 0, a, b });
        diff
    }

    fn push(&mut self, pair: Pair) {
        if pair.a != pair.b && span(pair.level, pair.first).end > self.from {
            self.todo.push(pair);
        }
    }

    /// Gives the blocks that differ in the next leaf with any; none at the end.
    pub async fn next_leaf(&mut self) -> Result<Option<Vec<Differing>>> {
        while let Some(pair) = self.todo.pop() {
            let Pair { level, first, a, b } = pair;
            if level == 0 {
                let mut differing = diff_leaves(self.nodes, first, a, b).await?;
                differing.retain(|block| block.index >= self.from);
                if !differing.is_empty() {
                    return Ok(Some(differing));
                }
                continue;
            }
            let left = children(self.nodes, a, level).await?;
            let right = children(self.nodes, b, level).await?;
            for place in (0..64).rev() {
                let (a, b) = (left[usize::from(place)], right[usize::from(place)]);
                let first = child_span(level, first, place).start;
                self.push(Pair { level: level - 1, first, a, b });
            }
        }
        Ok(None)
    }
}

/// The children of a node at `level`. A node of a lower level is its own first child, as in a tree
/// that grew.
async fn children(
    nodes: &MapNodes,
    ptr: Option<MapNodePtr>,
    level: u8,
) -> Result<[Option<MapNodePtr>; 64]> {
    let mut out = [None; 64];
    match ptr {
        Some(ptr) if ptr.level < level => out[0] = Some(ptr),
        Some(ptr) => {
            for (place, child) in nodes.get(&ptr).await?.children() {
                out[usize::from(place) % 64] = Some(child);
            }
        }
        None => {}
    }
    Ok(out)
}

async fn diff_leaves(
    nodes: &MapNodes,
    first: u64,
    a: Option<MapNodePtr>,
    b: Option<MapNodePtr>,
) -> Result<Vec<Differing>> {
    let mut sides = [const { BTreeMap::new() }; 2];
    for (side, ptr) in sides.iter_mut().zip([a, b]) {
        if let Some(ptr) = ptr {
            *side = nodes.get(&ptr).await?.leaf_entries().collect();
        }
    }
    let [left, right]: [BTreeMap<u8, BlockEntry>; 2] = sides;
    let places: BTreeSet<u8> = left.keys().chain(right.keys()).copied().collect();
    let blocks = places.into_iter().map(|place| Differing {
        index: first + u64::from(place),
        was: left.get(&place).copied(),
        is: right.get(&place).copied(),
    });
    Ok(blocks.filter(|block| block.was != block.is).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::checkpoint::{self, Facts};
    use crate::map::node_writer::MapNodeLane;
    use crate::objects::testing::memory_bucket;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use skerry_core::id::{StreamId, VolumeId};
    use skerry_core::overlay::Overlay;
    use skerry_core::position::{Number, SegmentKey};
    use skerry_core::root::Root;
    use skerry_core::size::BlockSize;
    use std::sync::atomic::AtomicU64;

    const BLOCKS: u64 = 100_000;

    type Map = BTreeMap<u64, BlockEntry>;

    fn change(rng: &mut StdRng, overlay: &mut Overlay, map: &mut Map) {
        let (segment, first) = (rng.random_range(1..50), rng.random_range(0..BLOCKS));
        let segment = SegmentKey { stream: StreamId([3; 16]), number: Number(segment) };
        let range = first..(first + rng.random_range(1..300)).min(BLOCKS);
        if rng.random_bool(0.2) {
            overlay.zero(range.clone());
            map.retain(|index, _| !range.contains(index));
            return;
        }
        for index in range {
            let slot = rng.random_range(0..9);
            let entry = BlockEntry { segment, offset: 7, len: 4184, slot, source: 0 };
            overlay.set(index, &entry);
            map.insert(index, entry);
        }
    }

    /// A comparison of trees agrees with one of maps, leaf by leaf, from any beginning.
    #[tokio::test]
    async fn a_comparison_is_right_and_never_holds_more_than_a_leaf() {
        let bucket = memory_bucket(1).await;
        let nodes = MapNodes::new(bucket.clone(), 1 << 20);
        let (volume, stream, block) = (VolumeId([1; 16]), StreamId([2; 16]), BlockSize::default());
        let lane =
            MapNodeLane { volume, stream, epoch: 1, block, next: Arc::new(AtomicU64::new(0)) };
        let mut rng = StdRng::seed_from_u64(1);
        let (mut root, mut map) = (Root::empty(block.offset(BLOCKS), block, "disk"), Map::new());
        for _ in 0..20 {
            let (before, old) = (root.top, map.clone());
            let mut overlay = Overlay::new();
            for _ in 0..rng.random_range(1..30) {
                change(&mut rng, &mut overlay, &mut map);
            }
            let facts = Facts { size_bytes: root.size_bytes, name: "disk".to_owned() };
            let lane = lane.clone();
            let made = checkpoint::write(&bucket, &nodes, lane, &root, &overlay, facts, 100).await;
            root = made.expect("written").root;
            let from = rng.random_range(0..BLOCKS / 2);
            let mut told = Vec::new();
            let mut diff = Diff::new(&nodes, before, root.top, from);
            while let Some(leaf) = diff.next_leaf().await.expect("read") {
                assert!(leaf.len() <= 128);
                told.extend(leaf);
            }
            let all = old.keys().chain(map.keys()).copied().collect::<BTreeSet<u64>>();
            let (old, map) = (&old, &map);
            let wanted = all.into_iter().filter(|index| *index >= from).map(|index| Differing {
                index,
                was: old.get(&index).copied(),
                is: map.get(&index).copied(),
            });
            let wanted: Vec<_> = wanted.filter(|block| block.was != block.is).collect();
            assert!(told == wanted, "{} told, {} differ", told.len(), wanted.len());
        }
    }
}
