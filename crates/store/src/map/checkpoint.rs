//! A checkpoint: merges changes into the tree, updates liveness, and makes a new root.
//!
//! Nothing here creates the ref. The volume's owner does that when everything below has been put.

use crate::error::Result;
use crate::map::changes::{Changes, Merging};
use crate::map::dead::Dead;
use crate::map::liveness;
use crate::map::node_writer::{MapNodeLane, MapNodeWriter};
use crate::map::nodes::MapNodes;
use crate::objects::bucket::Bucket;
use skerry_core::liveness::LivenessDelta;
use skerry_core::position::SegmentKey;
use skerry_core::root::Root;

/// Result of a checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// The new root.
    pub root: Root,
    /// Segments that the old root listed and the new one does not.
    pub dropped: Vec<SegmentKey>,
}

/// Fields of a root besides its tree.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its name.
    pub name: String,
}

/// Writes a checkpoint of `old` with `changes` on top. Releases at most `drain_nodes_max` nodes of
/// dropped subtrees; the rest waits for the next checkpoint. If the store is unavailable, it leaves
/// no object that can be deleted.
pub async fn write<C: Changes>(
    bucket: &Bucket,
    nodes: &MapNodes,
    lane: MapNodeLane,
    old: &Root,
    changes: &C,
    facts: Facts,
    drain_nodes_max: usize,
) -> Result<Checkpoint> {
    let mut writer = MapNodeWriter::new(bucket, nodes, lane, old.birth + 1);
    match write_nodes(&mut writer, old, changes, facts, drain_nodes_max).await {
        Ok(made) => Ok(made),
        Err(error) => {
            // Only while the lane is surely this writer's: another copy of it may have published
            // these nodes.
            if error.is_unavailable() {
                writer.discard().await;
            }
            Err(error)
        }
    }
}

async fn write_nodes<C: Changes>(
    writer: &mut MapNodeWriter<'_>,
    old: &Root,
    changes: &C,
    facts: Facts,
    drain_nodes_max: usize,
) -> Result<Checkpoint> {
    let mut delta = LivenessDelta::new();
    let mut dead = Dead::of(old.dead_pending.as_ref());
    let into = Merging { writer: &mut *writer, delta: &mut delta, dropped: &mut dead };
    let top = changes.merge(old, facts.size_bytes, into).await?;
    dead.drain(drain_nodes_max, writer, &mut delta).await?;
    let dead_pending = dead.finish(writer, &mut delta).await?;
    let updated = liveness::update(writer, old.liveness, &delta).await?;
    let root = Root {
        size_bytes: facts.size_bytes,
        block: old.block,
        top,
        birth: writer.birth(),
        liveness: updated.top,
        dead_pending,
        name: facts.name,
    };
    writer.finish().await?;
    Ok(Checkpoint { root, dropped: updated.dropped.into_iter().collect() })
}

#[cfg(test)]
#[path = "checkpoint/tests.rs"]
mod tests;
