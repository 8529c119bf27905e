//! Reading the map: lookups, runs of data, whole walks.
//!
//! Trees are immutable; everything here works on a root's top pointer and fetches nodes through [`Nodes`].

use crate::error::Result;
use crate::nodes::Nodes;
use skerry_core::entry::BlockEntry;
use skerry_core::node::{MapNode, NodePtr, span_shift};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
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

/// What a lookup that must not wait found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The block's entry, or none for a hole.
    Found(Option<BlockEntry>),
    /// A node on the way is not in memory.
    Wait,
}

/// Looks a block up in memory only.
pub fn try_lookup(nodes: &Nodes, top: Option<NodePtr>, index: u64) -> Lookup {
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

/// Looks a block up, fetching what is not in memory.
pub async fn lookup(nodes: &Nodes, top: Option<NodePtr>, index: u64) -> Result<Option<BlockEntry>> {
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

/// Where a scan stands: the nodes from the top down to a leaf.
///
/// Holes cost nothing: a scan of an empty petabyte looks at one pointer.
pub struct Scan<'a> {
    nodes: &'a Nodes,
    /// Nodes still to be looked at, the next one last.
    todo: Vec<(u64, NodePtr)>,
    range: Range<u64>,
}

impl<'a> Scan<'a> {
    /// Scans the mapped blocks of `range` in order.
    pub fn new(nodes: &'a Nodes, top: Option<NodePtr>, range: Range<u64>) -> Self {
        Self { nodes, todo: top.map(|top| (0, top)).into_iter().collect(), range }
    }

    fn wants(&self, span: &Range<u64>) -> bool {
        span.start < self.range.end && span.end > self.range.start
    }

    /// The mapped blocks of the next leaf that has any, by index; none at the end.
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

/// Blocks whose entries differ between two trees, as ranges that may be a little too wide (leaves
/// that differ are compared entry by entry; subtrees that only one side has count as a whole leaf).
pub fn diff<'a>(
    nodes: &'a Nodes,
    a: Option<NodePtr>,
    b: Option<NodePtr>,
    out: &'a mut Vec<u64>,
) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
    Box::pin(async move {
        let level = a.map_or(0, |p| p.level).max(b.map_or(0, |p| p.level));
        diff_at(nodes, level, 0, a, b, out).await
    })
}

fn diff_at<'a>(
    nodes: &'a Nodes,
    level: u8,
    first: u64,
    a: Option<NodePtr>,
    b: Option<NodePtr>,
    out: &'a mut Vec<u64>,
) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
    Box::pin(async move {
        if a == b {
            return Ok(());
        }
        if level == 0 {
            return diff_leaves(nodes, first, a, b, out).await;
        }
        let (left, right) = (children(nodes, a, level).await?, children(nodes, b, level).await?);
        for place in 0..64 {
            let (a, b) = (left[usize::from(place)], right[usize::from(place)]);
            if a != b {
                let first = child_span(level, first, place).start;
                diff_at(nodes, level - 1, first, a, b, out).await?;
            }
        }
        Ok(())
    })
}

/// The children of a node at `level`; a node of a lower level is its own first child, as in a tree that grew.
async fn children(nodes: &Nodes, ptr: Option<NodePtr>, level: u8) -> Result<[Option<NodePtr>; 64]> {
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
    nodes: &Nodes,
    first: u64,
    a: Option<NodePtr>,
    b: Option<NodePtr>,
    out: &mut Vec<u64>,
) -> Result<()> {
    let mut sides = [const { Vec::new() }; 2];
    for (side, ptr) in sides.iter_mut().zip([a, b]) {
        if let Some(ptr) = ptr {
            *side = nodes.get(&ptr).await?.leaf_entries().collect();
        }
    }
    let [left, right] = sides;
    let mut places: Vec<u8> = left.iter().chain(&right).map(|(place, _)| *place).collect();
    places.sort_unstable();
    places.dedup();
    let find = |side: &[(u8, BlockEntry)], place: u8| {
        side.binary_search_by_key(&place, |(p, _)| *p).ok().map(|i| side[i].1)
    };
    for place in places {
        if find(&left, place) != find(&right, place) {
            out.push(first + u64::from(place));
        }
    }
    Ok(())
}
