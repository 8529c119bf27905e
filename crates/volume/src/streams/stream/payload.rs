//! The payload of a stream: a disk's blocks, and other kinds to come.
//!
//! The engine of streams numbers records, cuts batches, puts segments, claims, fences, makes
//! checkpoints, snapshots and collects. The payload decides a record's effect on reads, the stored
//! form of a batch, and how a read finds it. The engine asks for these here, and reads nothing of
//! them. A payload's state is locked with the stream's, so that vseq, log position and reads move
//! in one critical section.
//!
//! The engine is generic over the payload. So a call costs no more than without a trait, and a
//! payload adds methods of its own to [`Stream`].

use crate::error::Result;
use crate::settings::EngineSettings;
use crate::streams::stream::Stream;
use crate::streams::stream::state::Batch;
use futures::future::BoxFuture;
use skerry_core::ops::Op;
use skerry_core::record::Action;
use skerry_core::root::Root;
use skerry_core::segment::{BuiltSegment, SegmentId};
use skerry_store::map::changes::Changes;
use std::fmt::Debug;
use std::sync::Arc;

/// The plan of a batch's segment, and its needs.
pub struct Planned<P: Payload> {
    /// The payload's decision.
    pub plan: P::Plan,
    /// Bytes of memory for building the segment, and for the segment itself.
    pub room_bytes: usize,
    /// True if it merges with the state at the end of the batch before.
    pub needs_base: bool,
}

/// The payload of a stream. The value is its memory of records that are not in the bucket yet.
pub trait Payload: Sized + Debug + Send + 'static {
    /// Changes of segments since a root.
    type Changes: Changes;
    /// Its part of a batch.
    type Batch: Debug + Default + Send + 'static;
    /// The plan of a batch's segment.
    type Plan: Send + 'static;
    /// Effects of a built segment on the state besides those in [`BuiltSegment`].
    type Made: Send + 'static;
    /// State of the payload for a whole node.
    type Shared: Default + Send + Sync + 'static;

    /// Makes the payload of a root, with nothing in the log.
    fn of_root(root: &Root) -> Self;

    /// Applies a record of content at a log position. Gives its bytes of content. The state's lock
    /// is held.
    fn apply_record(&mut self, batch: &mut Self::Batch, action: &Action, at: u64) -> usize;

    /// True if a batch makes a segment, whatever its bytes of content.
    fn is_full(batch: &Self::Batch, settings: &EngineSettings) -> bool;

    /// Frees the memory that only an open batch needs.
    fn close(_batch: &mut Self::Batch) {}

    /// Memory, bytes, about: its own, and that of `records` records in batches.
    fn index_bytes(&self, records: usize) -> usize;

    /// True if it holds no record.
    fn is_settled(&self) -> bool;

    /// Upper bound of the bytes that a snapshot would hold beyond its content. The snapshot would
    /// name this root, and the segments that made the `changes` since, oldest first.
    fn garbage_bytes_max<'a>(root: &Root, changes: impl Iterator<Item = &'a Self::Changes>) -> u64;

    /// Plans the segment of a batch.
    fn plan(stream: &Stream<Self>, batch: &Batch<Self>) -> Planned<Self>;

    /// Reads the base of the batch: the state at the end of the batch before, which is applied by
    /// now.
    fn read_base<'a>(
        stream: &'a Arc<Stream<Self>>,
        plan: &'a mut Self::Plan,
    ) -> BoxFuture<'a, Result<()>>;

    /// Builds the segment; `ops` come after its own. Computes and reads the log; waits for nothing.
    fn build(
        stream: &Stream<Self>,
        id: &SegmentId,
        plan: Self::Plan,
        ops: Vec<Op>,
    ) -> Result<(BuiltSegment, Self::Made)>;

    /// Applies a durable segment to the changes. Clients wait for the state's lock: hold it for
    /// moments only.
    fn apply_segment(stream: &Stream<Self>, segment: &BuiltSegment, made: &Self::Made);

    /// Forgets log records before the position `before` that the changes have now.
    fn forget(stream: &Stream<Self>, segment: &BuiltSegment, made: &Self::Made, before: u64);
}
