//! What a stream carries: a disk's blocks, and whatever else there will be.
//!
//! The engine of streams numbers records, cuts batches, puts segments, claims, fences, checks in, snapshots and
//! collects. What a record does to what is served, what of a batch is stored and how a read finds it is the payload's
//! business; the engine asks for it here, and reads nothing of it. A payload's state is locked with the stream's, so
//! that sequence number, log position and what is served move in one critical section.
//!
//! The engine is generic over the payload: a call costs what it costs without a trait, and a payload adds methods of
//! its own to [`Stream`].

use crate::error::Result;
use crate::settings::EngineSettings;
use crate::streams::state::Batch;
use crate::streams::stream::Stream;
use futures::future::BoxFuture;
use skerry_core::ops::Op;
use skerry_core::record::Action;
use skerry_core::root::Root;
use skerry_core::segment::{BuiltSegment, SegmentId};
use skerry_store::changes::Changes;
use std::fmt::Debug;
use std::sync::Arc;

/// How a batch becomes a segment, and what that takes.
pub struct Planned<P: Payload> {
    /// What the payload decided.
    pub plan: P::Plan,
    /// Bytes of memory that the segment is put together in, and the segment itself.
    pub room_bytes: usize,
    /// True if it is merged with the state at the end of the batch before.
    pub needs_base: bool,
}

/// What a stream carries; the value is what it keeps in memory of records that are not in the bucket yet.
pub trait Payload: Sized + Debug + Send + 'static {
    /// What segments changed since a root.
    type Changes: Changes;
    /// What it keeps of the records of a batch.
    type Batch: Debug + Default + Send + 'static;
    /// How a batch becomes a segment.
    type Plan: Send + 'static;
    /// What a built segment does to the state besides what stands in [`BuiltSegment`].
    type Made: Send + 'static;
    /// What it keeps once for a whole node.
    type Shared: Default + Send + Sync + 'static;

    /// What it keeps over a root, with nothing in the log.
    fn of_root(root: &Root) -> Self;

    /// Takes a record of content at a log position; gives its bytes of content. The state's lock is held.
    fn take(&mut self, batch: &mut Self::Batch, action: &Action, at: u64) -> usize;

    /// True if a batch makes a segment, whatever its bytes of content.
    fn is_full(batch: &Self::Batch, settings: &EngineSettings) -> bool;

    /// Lets go of what only a batch that is being filled needs.
    fn close(_batch: &mut Self::Batch) {}

    /// Bytes in memory, about, of what it keeps and of what it keeps of `records` records in batches.
    fn index_bytes(&self, records: usize) -> usize;

    /// True if it keeps nothing.
    fn is_settled(&self) -> bool;

    /// The most bytes that a snapshot would hold beyond its content, if it named this root and the segments that made
    /// the `changes` since, oldest first.
    fn garbage_bytes_max<'a>(root: &Root, changes: impl Iterator<Item = &'a Self::Changes>) -> u64;

    /// Decides how a batch becomes a segment.
    fn plan(stream: &Stream<Self>, batch: &Batch<Self>) -> Planned<Self>;

    /// Reads what the batch is merged with: the state at the end of the batch before, which is applied by now.
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

    /// Takes a durable segment into the changes. Clients wait for the state's lock: hold it for moments only.
    fn apply(stream: &Stream<Self>, segment: &BuiltSegment, made: &Self::Made);

    /// Forgets of the log what the changes say now: records before the position `before`.
    fn forget(stream: &Stream<Self>, segment: &BuiltSegment, made: &Self::Made, before: u64);
}
