//! The chain of dead-pending subtrees: a stack. A checkpoint has the newest in memory and spills
//! the rest.
//!
//! Must hold: memory is bounded, for any number of subtrees that a trim drops or a root had before.

use crate::error::{Error, Result};
use crate::map::node_writer::MapNodeWriter;
use crate::map::nodes::MapNodes;
use futures::{StreamExt, TryStreamExt};
use skerry_core::dead::{DEAD_PTRS_MAX, DeadNode, DeadPending};
use skerry_core::liveness::LivenessDelta;
use skerry_core::map_node::{MapNode, MapNodeKind, MapNodePtr};
use skerry_core::names;
use std::sync::Arc;

/// Number of nodes of dropped subtrees fetched at once.
const FETCH_AT_ONCE: usize = 16;

/// Dropped subtrees, newest last.
#[derive(Debug, Default)]
pub struct Dead {
    /// At most twice the number in a node, so that pushing and popping in turns does not write a
    /// node each time.
    top: Vec<MapNodePtr>,
    below: Option<MapNodePtr>,
    subtrees: u64,
    blocks: u64,
}

impl Dead {
    /// Takes a root's chain; reads nothing of it yet.
    pub fn of(pending: Option<&DeadPending>) -> Self {
        match pending {
            Some(pending) => Self {
                top: Vec::new(),
                below: Some(pending.first),
                subtrees: pending.subtrees,
                blocks: pending.blocks,
            },
            None => Self::default(),
        }
    }

    /// True if no subtree is left.
    pub fn is_empty(&self) -> bool {
        self.top.is_empty() && self.below.is_none()
    }

    /// Adds a subtree.
    pub async fn push(
        &mut self,
        subtree: MapNodePtr,
        writer: &mut MapNodeWriter<'_>,
        delta: &mut LivenessDelta,
    ) -> Result<()> {
        if self.top.len() >= 2 * DEAD_PTRS_MAX {
            let oldest = self.top.drain(..DEAD_PTRS_MAX).collect();
            self.write(oldest, writer, delta).await?;
        }
        self.subtrees += 1;
        self.blocks += subtree.live;
        self.top.push(subtree);
        Ok(())
    }

    async fn write(
        &mut self,
        subtrees: Vec<MapNodePtr>,
        writer: &mut MapNodeWriter<'_>,
        delta: &mut LivenessDelta,
    ) -> Result<()> {
        let blocks = subtrees.iter().map(|ptr| ptr.live).sum();
        let bytes = DeadNode { next: self.below, subtrees }.encode(writer.birth());
        let ptr = writer.push(MapNodeKind::Dead, 0, blocks, bytes).await?;
        delta.add_node(&ptr, 1);
        self.below = Some(ptr);
        Ok(())
    }

    /// Takes up to `max` of the newest subtrees.
    async fn pop(
        &mut self,
        max: usize,
        writer: &MapNodeWriter<'_>,
        delta: &mut LivenessDelta,
    ) -> Result<Vec<MapNodePtr>> {
        if self.top.is_empty()
            && let Some(ptr) = self.below
        {
            let node = decode(&ptr, &writer.get_raw(&ptr, MapNodeKind::Dead).await?)?;
            (self.top, self.below) = (node.subtrees, node.next);
            delta.add_node(&ptr, -1);
        }
        let taken = self.top.split_off(self.top.len().saturating_sub(max));
        for ptr in &taken {
            self.subtrees = self.subtrees.saturating_sub(1);
            self.blocks = self.blocks.saturating_sub(ptr.live);
        }
        Ok(taken)
    }

    /// Releases the references of dropped subtrees, of at most `nodes_max` nodes. Goes depth first,
    /// so that memory stays small.
    pub async fn drain(
        &mut self,
        nodes_max: usize,
        writer: &mut MapNodeWriter<'_>,
        delta: &mut LivenessDelta,
    ) -> Result<()> {
        let mut left = nodes_max;
        while left > 0 && !self.is_empty() {
            let taken = self.pop(FETCH_AT_ONCE.min(left), writer, delta).await?;
            left -= taken.len();
            let reader: &MapNodeWriter<'_> = writer;
            let fetched: Vec<Arc<MapNode>> = futures::stream::iter(taken.clone())
                .map(|ptr| async move { reader.get(&ptr).await })
                .buffered(FETCH_AT_ONCE)
                .try_collect()
                .await?;
            for (ptr, node) in taken.iter().zip(fetched) {
                for (_, entry) in node.leaf_entries() {
                    delta.add_block(&entry, -1);
                }
                for (_, child) in node.children() {
                    self.push(child, writer, delta).await?;
                }
                delta.add_node(ptr, -1);
            }
        }
        Ok(())
    }

    /// Writes the subtrees in memory. Gives the chain for the new root.
    pub async fn finish(
        mut self,
        writer: &mut MapNodeWriter<'_>,
        delta: &mut LivenessDelta,
    ) -> Result<Option<DeadPending>> {
        for part in std::mem::take(&mut self.top).chunks(DEAD_PTRS_MAX) {
            self.write(part.to_vec(), writer, delta).await?;
        }
        let (subtrees, blocks) = (self.subtrees, self.blocks);
        Ok(self.below.map(|first| DeadPending { first, subtrees, blocks }))
    }
}

/// Reads a node of the chain.
pub async fn read(nodes: &MapNodes, ptr: &MapNodePtr) -> Result<DeadNode> {
    decode(ptr, &nodes.get_raw(ptr, MapNodeKind::Dead).await?)
}

fn decode(ptr: &MapNodePtr, bytes: &[u8]) -> Result<DeadNode> {
    DeadNode::decode(bytes)
        .map_err(|e| Error::format_at(names::segment(ptr.segment), u64::from(ptr.offset), e))
}
