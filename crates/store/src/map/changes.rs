//! Changes of segments since a root, held in memory until a checkpoint merges them into the root's
//! tree.
//!
//! A stream's payload has changes of its own: those of a disk are map entries ([`Overlay`]). All
//! code that rolls forward, claims or makes checkpoints is written once, over this trait. It never
//! looks into the changes.

use crate::error::Result;
use crate::map::dead::Dead;
use crate::map::node_writer::MapNodeWriter;
use crate::map::update::Updater;
use futures::future::BoxFuture;
use skerry_core::liveness::LivenessDelta;
use skerry_core::map_node::MapNodePtr;
use skerry_core::ops::Op;
use skerry_core::overlay::Overlay;
use skerry_core::root::Root;
use skerry_core::segment::SegmentHead;
use std::fmt::Debug;

/// The targets of a merge.
pub struct Merging<'a, 'w> {
    /// Writes the new nodes.
    pub writer: &'a mut MapNodeWriter<'w>,
    /// Counts every reference that the new tree takes and releases, and lengths of objects.
    pub delta: &'a mut LivenessDelta,
    /// Takes subtrees that were dropped whole.
    pub dropped: &'a mut Dead,
}

/// Changes to the content of a root.
pub trait Changes: Clone + Debug + Default + Send + Sync + 'static {
    /// Applies a segment, except for the operations that all streams have.
    fn apply(&mut self, head: &SegmentHead);

    /// Memory, bytes, about.
    fn bytes(&self) -> usize;

    /// True if there is nothing to merge.
    fn is_empty(&self) -> bool;

    /// Merges the changes into the tree of `old`, for a root of `size_bytes`. Gives the new top.
    fn merge<'a>(
        &'a self,
        old: &'a Root,
        size_bytes: u64,
        into: Merging<'a, '_>,
    ) -> BoxFuture<'a, Result<Option<MapNodePtr>>>;
}

impl Changes for Overlay {
    fn apply(&mut self, head: &SegmentHead) {
        for op in &head.ops {
            if let Op::Zero { first, blocks } = op {
                self.zero(*first..first.saturating_add(*blocks));
            }
        }
        if !head.extents.is_empty() {
            self.note_length(head.id.key, head.object_len);
        }
        for (index, entry) in head.entries() {
            self.set(index, &entry);
        }
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }

    fn merge<'a>(
        &'a self,
        old: &'a Root,
        size_bytes: u64,
        into: Merging<'a, '_>,
    ) -> BoxFuture<'a, Result<Option<MapNodePtr>>> {
        self.lengths().for_each(|(segment, bytes)| into.delta.length(segment, bytes));
        let blocks = old.block.blocks(size_bytes.max(old.size_bytes));
        let Merging { writer, delta, dropped } = into;
        Box::pin(
            async move { Updater::new(writer, self, delta, dropped).run(old.top, blocks).await },
        )
    }
}
