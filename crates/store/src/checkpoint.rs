//! A checkpoint: the overlay merged into the tree, liveness brought up to date, a new root.
//!
//! Nothing here creates the ref; who owns the volume does that when everything below has been put.

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::node_writer::{NodeLane, NodeWriter};
use crate::nodes::Nodes;
use crate::update::Updater;
use skerry_core::liveness::{LivenessDelta, LivenessPage};
use skerry_core::node::NodePtr;
use skerry_core::overlay::Overlay;
use skerry_core::position::SegmentKey;
use skerry_core::root::{PageRef, Root};

/// What a checkpoint made.
#[derive(Debug)]
pub struct Checkpoint {
    /// The new root.
    pub root: Root,
    /// Segments that the old root listed and the new one doesn't.
    pub dropped: Vec<SegmentKey>,
}

/// The volume's state besides its blocks, for the new root.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its name.
    pub name: String,
}

/// Writes a checkpoint of `old` with `overlay` on top, and releases at most `drain_nodes_max` nodes of dropped
/// subtrees; the rest waits for the next.
pub async fn write(
    bucket: &Bucket,
    nodes: &Nodes,
    lane: NodeLane,
    old: &Root,
    overlay: &Overlay,
    facts: Facts,
    drain_nodes_max: usize,
) -> Result<Checkpoint> {
    let mut writer = NodeWriter::new(bucket, nodes, lane.clone());
    let mut delta = LivenessDelta::new();
    let mut pending = old.dead_pending.clone();
    let blocks = lane.block.blocks(facts.size_bytes.max(old.size_bytes));
    let top =
        Updater::new(&mut writer, overlay, &mut delta, &mut pending).run(old.top, blocks).await?;
    drain(nodes, &mut pending, &mut delta, drain_nodes_max).await?;
    let (liveness, dropped) = update_liveness(&mut writer, &old.liveness, &delta).await?;
    let root = Root {
        size_bytes: facts.size_bytes,
        block: lane.block,
        top,
        birth: lane.epoch,
        liveness,
        dead_pending: pending,
        name: facts.name,
    };
    writer.finish().await?;
    Ok(Checkpoint { root, dropped })
}

/// Releases what dropped subtrees reference, a bounded number of nodes at a time.
async fn drain(
    nodes: &Nodes,
    pending: &mut Vec<NodePtr>,
    delta: &mut LivenessDelta,
    nodes_max: usize,
) -> Result<()> {
    for _ in 0..nodes_max {
        let Some(ptr) = pending.pop() else { return Ok(()) };
        let node = nodes.get(&ptr).await?;
        for (_, entry) in node.leaf_entries() {
            delta.add(entry.segment, entry.slot, -1);
        }
        pending.extend(node.children().map(|(_, child)| child));
        delta.add(ptr.segment, ptr.slot, -1);
    }
    Ok(())
}

/// Rewrites the liveness pages that the delta touches.
async fn update_liveness(
    writer: &mut NodeWriter<'_>,
    pages: &[PageRef],
    delta: &LivenessDelta,
) -> Result<(Vec<PageRef>, Vec<SegmentKey>)> {
    let mut out = Vec::with_capacity(pages.len());
    let mut dropped = Vec::new();
    let none = [None];
    let olds: Vec<Option<&PageRef>> =
        if pages.is_empty() { none.to_vec() } else { pages.iter().map(Some).collect() };
    for (i, old) in olds.iter().enumerate() {
        // The first page reaches down to the first key there is.
        let from = if i == 0 {
            SegmentKey::default()
        } else {
            old.map_or_else(SegmentKey::default, |p| p.first)
        };
        let to = olds.get(i + 1).copied().flatten().map(|page| page.first);
        let touched = delta.segments().any(|key| key >= from && to.is_none_or(|to| key < to));
        if !touched {
            out.extend(old.copied());
            continue;
        }
        let mut page = match old {
            Some(old) => load_page(writer.nodes(), old).await?,
            None => LivenessPage::new(),
        };
        // Nothing counts the references to pages: the segment of the old one may be free now.
        dropped.extend(old.map(|old| old.ptr.segment));
        let applied = page.apply(delta, from, to);
        dropped.extend(applied.map_err(|e| Error::format("liveness", e))?);
        for page in page.split() {
            let first = page.first().unwrap_or_default();
            let ptr = writer.push(0, 0, page.encode(writer.epoch())).await?;
            out.push(PageRef { first, ptr });
        }
    }
    Ok((out, dropped))
}

/// Reads a liveness page.
pub async fn load_page(nodes: &Nodes, page: &PageRef) -> Result<LivenessPage> {
    let bytes = nodes.get_page(&page.ptr).await?;
    let name = skerry_core::names::segment(page.ptr.segment);
    LivenessPage::decode(&bytes).map_err(|e| Error::format(&name, e))
}
