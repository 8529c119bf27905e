//! The engine's descriptions of volumes, snapshots and the node, for people.

use skerry_core::descriptor::FlushLevel;
use skerry_core::id::{BucketId, NodeId, SnapshotId, VolumeId};
use skerry_core::name::Name;
use skerry_core::root::Root;

/// Properties of a new volume.
#[derive(Debug, Clone)]
pub struct CreateVolume {
    /// Its name.
    pub name: Name,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its block size, bytes.
    pub block_size_bytes: u64,
    /// Its flush level; the node's default if none.
    pub flush: Option<FlushLevel>,
}

/// The part of a volume's description that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unreadable {
    /// Nothing: all fields are known.
    #[default]
    Nothing,
    /// Its present state: size, snapshots, owner and undestaged bytes are unknown.
    State,
    /// Its descriptor, too: block size, flush level, and time of creation are unknown.
    Descriptor,
}

/// A volume, for people.
#[derive(Debug, Clone)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its id; none if the name's object can't be read.
    pub id: VolumeId,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its block size, bytes.
    pub block_size_bytes: u64,
    /// Its flush level.
    pub flush: FlushLevel,
    /// Time of its creation, milliseconds since 1970.
    pub created_ms: u64,
    /// Number of clients attached on this node.
    pub clients: u64,
    /// Bytes in this node's log that are not in the bucket yet.
    pub undestaged_bytes: u64,
    /// Time for which the oldest of them has waited, milliseconds.
    pub undestaged_age_ms: u64,
    /// Number of its snapshots.
    pub snapshots: u64,
    /// The host that writes it, if any.
    pub owner: Option<String>,
    /// True if this node writes it.
    pub owned_here: bool,
    /// True if the volume is deleted and only its snapshots remain.
    pub deleted: bool,
    /// The reason why it is out of service, if it is (a disk error, a fence, damage).
    pub failure: Option<String>,
    /// The fields that hold defaults in place of values.
    pub unreadable: Unreadable,
    /// Bytes of the blocks and of the objects of its newest root, if that is known.
    pub space: Option<Space>,
}

/// Space that a root's volume takes. Writes since the root are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes of the blocks that have content.
    pub used_bytes: u64,
    /// Bytes of the bucket's objects that the root references; clones may reference them, too.
    pub stored_bytes: u64,
}

impl Space {
    /// Space that this root takes.
    pub(crate) fn of(root: &Root) -> Self {
        let used_bytes = root.live_blocks().saturating_mul(root.block.bytes() as u64);
        Self { used_bytes, stored_bytes: root.stored_bytes() }
    }
}

/// State of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotState {
    /// Durable in the log only.
    Pending,
    /// In the bucket.
    Published,
    /// In the bucket, with a root of its own.
    Materialised,
}

/// A snapshot, for people.
#[derive(Debug, Clone)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: SnapshotId,
    /// Its volume's name.
    pub volume: String,
    /// Time of the snapshot, milliseconds since 1970.
    pub created_ms: u64,
    /// The volume's size then, bytes.
    pub size_bytes: u64,
    /// Its state.
    pub state: SnapshotState,
}

/// A range in which two snapshots differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffRange {
    /// Offset, bytes.
    pub offset: u64,
    /// Length, bytes.
    pub length: u64,
    /// True if it reads as zeros in the second.
    pub zero: bool,
}

/// The node, for people.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// The bucket.
    pub bucket: BucketId,
    /// The bucket's URL, without secrets.
    pub bucket_url: String,
    /// True if there is a log on a local disk.
    pub has_log: bool,
    /// Bytes of log in use.
    pub log_used_bytes: u64,
    /// The most bytes of log.
    pub log_cap_bytes: u64,
    /// The reason why the log is out of service, if it is.
    pub log_failure: Option<String>,
    /// Volumes that are open here.
    pub volumes_open: u64,
    /// Space of the open volumes.
    pub space: Space,
    /// Bytes of the open volumes that are not in the bucket yet.
    pub undestaged_bytes: u64,
    /// Time for which the oldest of these bytes has waited, milliseconds.
    pub undestaged_age_ms: u64,
    /// Messages for people: volumes out of service, parked tails.
    pub parked: Vec<String>,
    /// The last error of the bucket, while it lasts.
    pub bucket_failure: Option<String>,
}

/// Price of releasing a volume.
#[derive(Debug, Clone)]
pub struct Released {
    /// The host that owned it, if any.
    pub held_by: Option<String>,
    /// True if that host may have data that is now lost.
    pub may_lose: bool,
}

/// Result of a check.
#[derive(Debug, Clone, Default)]
pub struct FsckReport {
    /// Number of volumes. One whose head is deleted counts as long as it has snapshots.
    pub volumes: u64,
    /// Refs and snapshots that were checked.
    pub refs: u64,
    /// Snapshots among them.
    pub snapshots: u64,
    /// Segments that were checked.
    pub segments: u64,
    /// Blocks whose content was verified.
    pub blocks: u64,
    /// Segments that nothing holds.
    pub orphans: u64,
    /// The faults, a sentence each.
    pub problems: Vec<String>,
}
