//! Writes map nodes: collects them into segments of a stream's node lane and puts those.
//!
//! A checkpoint reads some of the nodes that it writes. The bucket has them only once their segment
//! is put, and the node cache may drop them at any time. So the writer answers for the segment that
//! it collects.

use crate::error::{Error, Result};
use crate::map::nodes::MapNodes;
use crate::objects::bucket::{Bucket, Created};
use crate::rests;
use bytes::Bytes;
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::map_node::bounds::node_bytes_max;
use skerry_core::map_node::{MapNode, MapNodeKind, MapNodePtr};
use skerry_core::names;
use skerry_core::position::{Number, SegmentKey};
use skerry_core::segment::{MapNodesBuilder, SegmentId, SegmentKind};
use skerry_core::size::BlockSize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Length at which a segment of nodes is put, bytes. Large enough that a checkpoint takes few PUTs,
/// small enough to be in memory twice.
pub const MAP_NODES_SEGMENT_BYTES: usize = 8 << 20;

/// The writer of nodes, and the numbers for its segments.
#[derive(Debug, Clone)]
pub struct MapNodeLane {
    /// The volume.
    pub volume: VolumeId,
    /// The stream.
    pub stream: StreamId,
    /// The stream's epoch.
    pub epoch: u64,
    /// The block size, for the head.
    pub block: BlockSize,
    /// The next number of the lane, counted from zero. An attempt to put uses a number up: the fate
    /// of a failed PUT is unknown.
    pub next: Arc<AtomicU64>,
}

/// Collects nodes and puts them.
pub struct MapNodeWriter<'a> {
    bucket: &'a Bucket,
    nodes: &'a MapNodes,
    lane: MapNodeLane,
    birth: u64,
    builder: Option<MapNodesBuilder>,
    /// The segments put so far.
    put: Vec<String>,
}

impl<'a> MapNodeWriter<'a> {
    /// Makes a writer of nodes of this birth that goes on with a lane's next number.
    pub fn new(bucket: &'a Bucket, nodes: &'a MapNodes, lane: MapNodeLane, birth: u64) -> Self {
        Self { bucket, nodes, lane, birth, builder: None, put: Vec::new() }
    }

    /// The nodes' birth.
    pub fn birth(&self) -> u64 {
        self.birth
    }

    /// Gives a map node, whether it was put or not.
    pub async fn get(&self, ptr: &MapNodePtr) -> Result<Arc<MapNode>> {
        match self.unput(ptr) {
            Some(bytes) => MapNode::parse(bytes).map(Arc::new).map_err(|error| {
                Error::format_at(names::segment(ptr.segment), u64::from(ptr.offset), error)
            }),
            None => self.nodes.get(ptr).await,
        }
    }

    /// Gives the bytes of a node of another kind, whether it was put or not.
    pub async fn get_raw(&self, ptr: &MapNodePtr, kind: MapNodeKind) -> Result<Bytes> {
        match self.unput(ptr) {
            Some(bytes) => Ok(bytes),
            None => self.nodes.get_raw(ptr, kind).await,
        }
    }

    /// True if reading a map node asks the bucket.
    pub fn is_far(&self, ptr: &MapNodePtr) -> bool {
        self.unput(ptr).is_none() && self.nodes.try_get(ptr).is_none()
    }

    fn unput(&self, ptr: &MapNodePtr) -> Option<Bytes> {
        self.builder.as_ref()?.node(ptr).map(Bytes::copy_from_slice)
    }

    fn begin(&mut self) -> MapNodesBuilder {
        let number = Number::map_node(self.lane.next.fetch_add(1, Ordering::Relaxed));
        let key = SegmentKey { stream: self.lane.stream, number };
        MapNodesBuilder::new(SegmentId {
            kind: SegmentKind::MapNodes,
            block: self.lane.block,
            volume: self.lane.volume,
            key,
            epoch: self.lane.epoch,
            predecessor: [0; 16],
            vseq_from: 0,
            vseq_to: 0,
            nonce: self.bucket.nonce(),
        })
    }

    /// Adds a node. [`Self::finish`] puts its segment at the latest.
    pub async fn push(
        &mut self,
        kind: MapNodeKind,
        level: u8,
        live: u64,
        node: Bytes,
    ) -> Result<MapNodePtr> {
        debug_assert!(node.len() <= node_bytes_max(kind), "{kind:?} of {} bytes", node.len());
        rests::point().await;
        if self
            .builder
            .as_ref()
            .is_some_and(|b| b.is_full() || b.len_bytes() >= MAP_NODES_SEGMENT_BYTES)
        {
            self.put_builder().await?;
        }
        let mut builder = self.builder.take().unwrap_or_else(|| self.begin());
        let ptr = builder.push(level, live, &node);
        self.builder = Some(builder);
        self.nodes.insert(&ptr, kind, node);
        Ok(ptr)
    }

    async fn put_builder(&mut self) -> Result<()> {
        let Some(builder) = self.builder.take() else { return Ok(()) };
        let built = builder.finish();
        let name = names::segment(built.key);
        match self.bucket.create(&name, built.chunks).await? {
            Created::Ours => {
                self.put.push(name);
                Ok(())
            }
            Created::Theirs => {
                Err(Error::fenced(&name, "another process writes this volume's map nodes"))
            }
        }
    }

    /// Puts the remaining nodes.
    pub async fn finish(&mut self) -> Result<()> {
        self.put_builder().await
    }

    /// Deletes the segments that were put: no root will name them, and the next attempt needs the
    /// room. A sweep deletes the ones that can't be deleted now, or that land late.
    pub async fn discard(self) {
        for name in &self.put {
            if let Err(error) = self.bucket.delete(name).await {
                tracing::debug!(object = name, %error, "nodes of a failed checkpoint stay until a sweep");
                return;
            }
        }
    }
}
