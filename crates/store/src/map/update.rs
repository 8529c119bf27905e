//! Writing the map: a new tree from an old one and an overlay, copying only the paths that change.

use crate::error::Result;
use crate::map::dead::Dead;
use crate::map::node_writer::MapNodeWriter;
use crate::map::tree::{child_span, span};
use futures::{StreamExt, TryStreamExt};
use skerry_core::entry::BlockEntry;
use skerry_core::liveness::LivenessDelta;
use skerry_core::map_node::{MapNodeBuilder, MapNodeKind, MapNodePtr, level_for};
use skerry_core::overlay::Overlay;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

/// Number of old leaves fetched at once ahead of the update.
const PREFETCH_LEAVES: usize = 16;

/// Merges an overlay into a tree.
pub struct Updater<'a, 'w> {
    writer: &'a mut MapNodeWriter<'w>,
    overlay: &'a Overlay,
    /// Counts references that the new tree takes and releases.
    pub delta: &'a mut LivenessDelta,
    /// Subtrees that were dropped whole.
    pub dropped: &'a mut Dead,
}

type NodeFuture<'f> = Pin<Box<dyn Future<Output = Result<Option<MapNodePtr>>> + Send + 'f>>;

impl<'a, 'w> Updater<'a, 'w> {
    /// Makes an updater that writes through `writer`.
    pub fn new(
        writer: &'a mut MapNodeWriter<'w>,
        overlay: &'a Overlay,
        delta: &'a mut LivenessDelta,
        dropped: &'a mut Dead,
    ) -> Self {
        Self { writer, overlay, delta, dropped }
    }

    /// Writes the new tree of a volume of `blocks` blocks. Gives its top.
    pub async fn run(
        &mut self,
        top: Option<MapNodePtr>,
        blocks: u64,
    ) -> Result<Option<MapNodePtr>> {
        let level = level_for(blocks.max(1)).max(top.map_or(0, |top| top.level));
        let start = match top {
            Some(top) if top.level < level => self.grow(top, level).await?,
            other => other,
        };
        self.node(start, level, 0).await
    }

    /// Puts levels on top of a tree whose volume has grown.
    async fn grow(&mut self, top: MapNodePtr, level: u8) -> Result<Option<MapNodePtr>> {
        let mut ptr = top;
        while ptr.level < level {
            let next = ptr.level + 1;
            let bytes = MapNodeBuilder::new(self.writer.birth()).inner(next, 0, &[(0, ptr)]);
            ptr = self.push(next, ptr.live, bytes).await?;
        }
        Ok(Some(ptr))
    }

    async fn push(&mut self, level: u8, live: u64, bytes: bytes::Bytes) -> Result<MapNodePtr> {
        let kind = if level == 0 { MapNodeKind::Leaf } else { MapNodeKind::Inner };
        let ptr = self.writer.push(kind, level, live, bytes).await?;
        self.delta.add_node(&ptr, 1);
        Ok(ptr)
    }

    fn node<'f>(&'f mut self, old: Option<MapNodePtr>, level: u8, first: u64) -> NodeFuture<'f> {
        Box::pin(async move {
            if level == 0 {
                self.leaf(old, first).await
            } else {
                self.inner(old, level, first).await
            }
        })
    }

    /// Finds the first block at or after `from` within `range` that the overlay changes.
    fn next_change(&self, from: u64, range: &Range<u64>) -> Option<u64> {
        let entry = self.overlay.entries_within(from..range.end).next().map(|change| change.index);
        let zero = self.overlay.zeroed_within(from..range.end).next().map(|zero| zero.start);
        match (entry, zero) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn zeroes_whole(&self, range: &Range<u64>) -> bool {
        self.overlay.zeroed_within(range.clone()).next().is_some_and(|zero| zero == *range)
    }

    fn has_entries(&self, range: &Range<u64>) -> bool {
        self.overlay.entries_within(range.clone()).next().is_some()
    }

    async fn inner(
        &mut self,
        old: Option<MapNodePtr>,
        level: u8,
        first: u64,
    ) -> Result<Option<MapNodePtr>> {
        let mut children: BTreeMap<u8, MapNodePtr> = match &old {
            Some(ptr) => self.writer.get(ptr).await?.children().collect(),
            None => BTreeMap::new(),
        };
        let whole = span(level, first);
        if level == 1 {
            self.prefetch(&children, first).await?;
        }
        let mut changed = false;
        let mut cursor = first;
        while let Some(at) = self.next_change(cursor, &whole) {
            let place = skerry_core::map_node::place_of(level, at);
            let range = child_span(level, first, place);
            let mut child = children.get(&place).copied();
            if self.zeroes_whole(&range)
                && let Some(gone) = child.take()
            {
                self.dropped.push(gone, self.writer, self.delta).await?;
                children.remove(&place);
                changed = true;
            }
            if self.has_entries(&range) || child.is_some() {
                let new = self.node(child, level - 1, range.start).await?;
                changed |= new != child;
                match new {
                    Some(new) => children.insert(place, new),
                    None => children.remove(&place),
                };
            }
            if range.end >= whole.end {
                break;
            }
            cursor = range.end;
        }
        if !changed {
            return Ok(old);
        }
        self.release(old);
        if children.is_empty() {
            return Ok(None);
        }
        let children: Vec<_> = children.into_iter().collect();
        let live = children.iter().map(|(_, child)| child.live).sum();
        let bytes = MapNodeBuilder::new(self.writer.birth()).inner(level, first, &children);
        Ok(Some(self.push(level, live, bytes).await?))
    }

    /// Fetches the leaves that will change, several at once: a checkpoint must not pay a round trip
    /// for each.
    async fn prefetch(&self, children: &BTreeMap<u8, MapNodePtr>, first: u64) -> Result<()> {
        let writer = &*self.writer;
        let wanted: Vec<MapNodePtr> = children
            .iter()
            .filter(|(place, ptr)| {
                let range = child_span(1, first, **place);
                writer.is_far(ptr) && self.next_change(range.start, &range).is_some()
            })
            .map(|(_, ptr)| *ptr)
            .collect();
        futures::stream::iter(wanted)
            .map(|ptr| async move { writer.get(&ptr).await.map(drop) })
            .buffer_unordered(PREFETCH_LEAVES)
            .try_collect()
            .await
    }

    fn release(&mut self, old: Option<MapNodePtr>) {
        if let Some(old) = old {
            self.delta.add_node(&old, -1);
        }
    }

    async fn leaf(&mut self, old: Option<MapNodePtr>, first: u64) -> Result<Option<MapNodePtr>> {
        let mut entries: BTreeMap<u8, BlockEntry> = match &old {
            Some(ptr) => self.writer.get(ptr).await?.leaf_entries().collect(),
            None => BTreeMap::new(),
        };
        let range = span(0, first);
        let mut changed = false;
        for zero in self.overlay.zeroed_within(range.clone()) {
            let places = (zero.start - first) as u8..=(zero.end - 1 - first) as u8;
            let gone: Vec<u8> = entries.range(places).map(|(place, _)| *place).collect();
            for place in gone {
                if let Some(entry) = entries.remove(&place) {
                    self.delta.add_block(&entry, -1);
                    changed = true;
                }
            }
        }
        for change in self.overlay.entries_within(range) {
            let before = entries.insert((change.index - first) as u8, change.entry);
            if before == Some(change.entry) {
                continue;
            }
            changed = true;
            self.delta.add_block(&change.entry, 1);
            if let Some(before) = before {
                self.delta.add_block(&before, -1);
            }
        }
        if !changed {
            return Ok(old);
        }
        self.release(old);
        if entries.is_empty() {
            return Ok(None);
        }
        let entries: Vec<_> = entries.into_iter().collect();
        let bytes = MapNodeBuilder::new(self.writer.birth()).leaf(first, &entries);
        Ok(Some(self.push(0, entries.len() as u64, bytes).await?))
    }
}
