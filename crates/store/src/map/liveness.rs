//! The liveness tree: checkpoints update it, and collectors and fsck walk it to learn what a root
//! holds.
//!
//! Nothing counts the references to its own nodes. Their segments are held because their parents
//! name them, so a walk must look at every inner node. It may skip leaves that can't list a segment
//! of interest.

use crate::error::{Error, Result};
use crate::map::node_writer::MapNodeWriter;
use crate::map::nodes::MapNodes;
use crate::rests;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use skerry_core::FormatError;
use skerry_core::liveness::{
    self, Child, FANOUT_MAX, LEAF_BYTES_WANTED, LeafWriter, LivenessDelta, MadeLeaf, SegmentLive,
};
use skerry_core::map_node::{MapNodeKind, MapNodePtr};
use skerry_core::names;
use skerry_core::position::SegmentKey;
use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::pin::Pin;

/// Number of leaves fetched at once, and in memory together.
const LEAVES_AT_ONCE: usize = 16;
/// The highest level that a reader accepts: more than all possible segments need.
const LEVEL_MAX: u8 = 8;

/// Result of an update.
#[derive(Debug, Default)]
pub struct Updated {
    /// The top of the new tree; none if nothing is referenced.
    pub top: Option<MapNodePtr>,
    /// Segments that the old tree listed, or stood in, and the new one perhaps does not.
    pub dropped: BTreeSet<SegmentKey>,
    /// Number of decoded entries; all others were copied as bytes, or not even read.
    pub decoded: usize,
    /// Number of written leaves.
    pub leaves: usize,
}

/// Writes the tree of `old` with `delta` on top.
pub async fn update(
    writer: &mut MapNodeWriter<'_>,
    old: Option<MapNodePtr>,
    delta: &LivenessDelta,
) -> Result<Updated> {
    let mut updater = Updater { writer, delta, done: Updated { top: old, ..Updated::default() } };
    if delta.is_empty() {
        return Ok(updater.done);
    }
    let first = SegmentKey::default();
    let mut level = old.map_or(0, |top| top.level);
    let mut nodes = match old {
        Some(top) if top.level > 0 => updater.inner(top, first, None).await?,
        top => updater.leaves(&[Leaf { ptr: top, first, to: None }]).await?,
    };
    while nodes.len() > 1 {
        level += 1;
        nodes = updater.inners(level, &nodes).await?;
    }
    let mut top = nodes.pop().map(|child| child.ptr);
    // A top of one child adds nothing to the child.
    while let Some(ptr) = top.filter(|ptr| ptr.level > 0) {
        let [only] = updater.children(&ptr).await?[..] else { break };
        top = Some(only.ptr);
    }
    updater.done.top = top;
    Ok(updater.done)
}

/// A leaf that changes, and the segments that it covers.
struct Leaf {
    ptr: Option<MapNodePtr>,
    first: SegmentKey,
    to: Option<SegmentKey>,
}

struct Updater<'a, 'w> {
    writer: &'a mut MapNodeWriter<'w>,
    delta: &'a LivenessDelta,
    done: Updated,
}

type NodesFuture<'f> = Pin<Box<dyn Future<Output = Result<Vec<Child>>> + Send + 'f>>;

impl Updater<'_, '_> {
    async fn children(&self, ptr: &MapNodePtr) -> Result<Vec<Child>> {
        check_level(ptr)?;
        let bytes = self.writer.get_raw(ptr, MapNodeKind::LivenessInner).await?;
        liveness::children(&bytes).map_err(|e| wrong(Some(*ptr), e))
    }

    /// Gives the nodes that replace `old`, which covers the segments from `from` up to `to`.
    fn inner(
        &mut self,
        old: MapNodePtr,
        from: SegmentKey,
        to: Option<SegmentKey>,
    ) -> NodesFuture<'_> {
        Box::pin(async move {
            let children = self.children(&old).await?;
            let mut out = Vec::with_capacity(children.len());
            let mut run: Vec<Leaf> = Vec::new();
            for (i, child) in children.iter().enumerate() {
                // The first child reaches down to where its parent begins.
                let first = if i == 0 { from } else { child.first };
                let next = children.get(i + 1).map_or(to, |next| Some(next.first));
                // A leaf that has become small joins the next.
                let joins = run.last().is_some_and(|leaf| is_small(leaf.ptr));
                if old.level == 1 && (joins || self.delta.touches(first, next)) {
                    run.push(Leaf { ptr: Some(child.ptr), first, to: next });
                    continue;
                }
                out.extend(self.leaves(&std::mem::take(&mut run)).await?);
                if old.level > 1 && self.delta.touches(first, next) {
                    out.extend(self.inner(child.ptr, first, next).await?);
                } else {
                    out.push(*child);
                }
            }
            out.extend(self.leaves(&run).await?);
            self.done.dropped.insert(old.segment);
            self.inners(old.level, &out).await
        })
    }

    /// Writes inner nodes of a level over `children`.
    async fn inners(&mut self, level: u8, children: &[Child]) -> Result<Vec<Child>> {
        let mut out = Vec::new();
        // Evenly, so that none keeps a single child for ever.
        let count = children.len().div_ceil(FANOUT_MAX).max(1);
        for part in children.chunks(children.len().div_ceil(count).max(1)) {
            let stored_bytes = part.iter().map(|child| child.ptr.live).sum();
            let bytes = liveness::inner(level, self.writer.birth(), part);
            let kind = MapNodeKind::LivenessInner;
            let ptr = self.writer.push(kind, level, stored_bytes, bytes).await?;
            out.extend(part.first().map(|child| Child { first: child.first, ptr }));
        }
        Ok(out)
    }

    /// Writes the leaves that replace a run of neighbours.
    async fn leaves(&mut self, run: &[Leaf]) -> Result<Vec<Child>> {
        let mut out = Vec::new();
        let mut made = LeafWriter::new(self.writer.birth());
        for some in run.chunks(LEAVES_AT_ONCE) {
            for (leaf, bytes) in some.iter().zip(self.fetch(some).await?) {
                made.merge(bytes.as_deref(), self.delta, leaf.first, leaf.to)
                    .map_err(|e| wrong(leaf.ptr, e))?;
                self.done.dropped.extend(leaf.ptr.map(|ptr| ptr.segment));
                self.push(made.take(), &mut out).await?;
            }
        }
        self.done.decoded += made.decoded();
        let (rest, dropped) = made.finish();
        self.done.dropped.extend(dropped);
        self.push(rest, &mut out).await?;
        Ok(out)
    }

    async fn push(&mut self, made: Vec<MadeLeaf>, out: &mut Vec<Child>) -> Result<()> {
        for leaf in made {
            let kind = MapNodeKind::LivenessLeaf;
            let ptr = self.writer.push(kind, 0, leaf.stored_bytes, leaf.bytes).await?;
            out.push(Child { first: leaf.first, ptr });
            self.done.leaves += 1;
        }
        Ok(())
    }

    async fn fetch(&self, leaves: &[Leaf]) -> Result<Vec<Option<Bytes>>> {
        let writer = &*self.writer;
        let wanted: Vec<Option<MapNodePtr>> = leaves.iter().map(|leaf| leaf.ptr).collect();
        futures::stream::iter(wanted)
            .map(|ptr| async move {
                match ptr {
                    Some(ptr) => writer.get_raw(&ptr, MapNodeKind::LivenessLeaf).await.map(Some),
                    None => Ok(None),
                }
            })
            .buffered(LEAVES_AT_ONCE)
            .try_collect()
            .await
    }
}

fn is_small(leaf: Option<MapNodePtr>) -> bool {
    leaf.is_some_and(|ptr| (ptr.len as usize) < LEAF_BYTES_WANTED / 4)
}

fn wrong(ptr: Option<MapNodePtr>, source: FormatError) -> Error {
    match ptr {
        Some(ptr) => Error::format_at(names::segment(ptr.segment), u64::from(ptr.offset), source),
        None => Error::format("liveness", source),
    }
}

fn check_level(ptr: &MapNodePtr) -> Result<()> {
    if ptr.level > LEVEL_MAX {
        return Err(wrong(Some(*ptr), FormatError::invalid("liveness", "it is too deep")));
    }
    Ok(())
}

async fn children(nodes: &MapNodes, ptr: &MapNodePtr) -> Result<Vec<Child>> {
    check_level(ptr)?;
    let bytes = nodes.get_raw(ptr, MapNodeKind::LivenessInner).await?;
    liveness::children(&bytes).map_err(|e| wrong(Some(*ptr), e))
}

/// A leaf's bytes.
async fn leaf(nodes: &MapNodes, ptr: &MapNodePtr) -> Result<Bytes> {
    nodes.get_raw(ptr, MapNodeKind::LivenessLeaf).await
}

/// Nodes that were looked at: roots share most of theirs.
pub type SeenMapNodes = HashSet<(SegmentKey, u32)>;

/// Adds to `listed` the `candidates` that a tree lists or stands in. Skips nodes that `seen` has,
/// and leaves that can't list a candidate.
pub async fn hold(
    nodes: &MapNodes,
    top: Option<MapNodePtr>,
    candidates: &BTreeSet<SegmentKey>,
    seen: &mut SeenMapNodes,
    listed: &mut BTreeSet<SegmentKey>,
) -> Result<()> {
    let mut todo: Vec<(MapNodePtr, SegmentKey, Option<SegmentKey>)> =
        top.map(|top| (top, SegmentKey::default(), None)).into_iter().collect();
    while let Some((ptr, from, to)) = todo.pop() {
        if candidates.contains(&ptr.segment) {
            listed.insert(ptr.segment);
        }
        let within =
            candidates.range(from..).next().is_some_and(|key| to.is_none_or(|to| *key < to));
        if (ptr.level == 0 && !within) || !seen.insert((ptr.segment, ptr.offset)) {
            continue;
        }
        rests::point().await;
        if ptr.level == 0 {
            let bytes = leaf(nodes, &ptr).await?;
            let entries = liveness::entries(&bytes).map_err(|e| wrong(Some(ptr), e))?;
            listed.extend(entries.iter().map(|e| e.key).filter(|key| candidates.contains(key)));
            continue;
        }
        let children = children(nodes, &ptr).await?;
        for (i, child) in children.iter().enumerate() {
            let first = if i == 0 { from } else { child.first };
            todo.push((child.ptr, first, children.get(i + 1).map_or(to, |next| Some(next.first))));
        }
    }
    Ok(())
}

/// Gives all segments that a tree lists or stands in, except for parts that one of `others` shares.
pub async fn all_but(
    nodes: &MapNodes,
    top: Option<MapNodePtr>,
    others: &[Option<MapNodePtr>],
) -> Result<BTreeSet<SegmentKey>> {
    let mut shared = SeenMapNodes::new();
    let mut todo: Vec<MapNodePtr> = others.iter().copied().flatten().collect();
    while let Some(ptr) = todo.pop() {
        if shared.insert((ptr.segment, ptr.offset)) && ptr.level > 0 {
            todo.extend(children(nodes, &ptr).await?.iter().map(|child| child.ptr));
        }
    }
    let mut all = BTreeSet::new();
    let mut todo: Vec<MapNodePtr> = top.into_iter().collect();
    while let Some(ptr) = todo.pop() {
        if shared.contains(&(ptr.segment, ptr.offset)) {
            continue;
        }
        all.insert(ptr.segment);
        if ptr.level > 0 {
            todo.extend(children(nodes, &ptr).await?.iter().map(|child| child.ptr));
            continue;
        }
        let bytes = leaf(nodes, &ptr).await?;
        let entries = liveness::entries(&bytes).map_err(|e| wrong(Some(ptr), e))?;
        all.extend(entries.iter().map(|entry| entry.key));
    }
    Ok(all)
}

/// Walks a tree in order.
pub struct Walk<'a> {
    nodes: &'a MapNodes,
    /// The next one is last.
    todo: Vec<MapNodePtr>,
    /// Segments of the tree's own nodes, as far as it was walked.
    pub own: BTreeSet<SegmentKey>,
}

impl<'a> Walk<'a> {
    /// Makes a walk from the beginning.
    pub fn new(nodes: &'a MapNodes, top: Option<MapNodePtr>) -> Self {
        Self { nodes, todo: top.into_iter().collect(), own: BTreeSet::new() }
    }

    /// Gives the segments of the next leaf; none at the end.
    pub async fn next_leaf(&mut self) -> Result<Option<Vec<(SegmentKey, SegmentLive)>>> {
        while let Some(ptr) = self.todo.pop() {
            self.own.insert(ptr.segment);
            if ptr.level > 0 {
                let children = children(self.nodes, &ptr).await?;
                self.todo.extend(children.iter().rev().map(|child| child.ptr));
                continue;
            }
            let bytes = leaf(self.nodes, &ptr).await?;
            let entries = liveness::entries(&bytes).map_err(|e| wrong(Some(ptr), e))?;
            let entries = entries.iter().map(|entry| Ok((entry.key, entry.decode()?)));
            return entries
                .collect::<Result<_, FormatError>>()
                .map(Some)
                .map_err(|e| wrong(Some(ptr), e));
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "liveness/tests.rs"]
mod tests;
