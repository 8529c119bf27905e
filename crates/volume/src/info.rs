//! What the engine tells people about volumes, snapshots and the node.

use skerry_core::descriptor::FlushLevel;
use skerry_core::id::{BucketId, NodeId, SnapshotId, VolumeId};
use skerry_core::name::Name;

/// What a volume is made with.
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

/// A volume, for people.
#[derive(Debug, Clone)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: VolumeId,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Its block size, bytes.
    pub block_size_bytes: u64,
    /// What a flush promises.
    pub flush: FlushLevel,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// How many clients are attached, on this node.
    pub clients: u64,
    /// Bytes in this node's log that are not in the bucket yet.
    pub undestaged_bytes: u64,
    /// How long the oldest of them has waited, milliseconds.
    pub undestaged_age_ms: u64,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// The host that writes it, if any.
    pub owner: Option<String>,
    /// True if this node writes it.
    pub owned_here: bool,
    /// True if the volume is deleted and only its snapshots remain.
    pub deleted: bool,
    /// Why it serves nothing, if it does not (a disk error, a fence, damage).
    pub failure: Option<String>,
}

/// What a snapshot has become.
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
    /// When it was taken, milliseconds since 1970.
    pub created_ms: u64,
    /// The volume's size then, bytes.
    pub size_bytes: u64,
    /// What it has become.
    pub state: SnapshotState,
}

/// A range in which two snapshots differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffRange {
    /// Where, bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// True if it reads as zeros in the second.
    pub zero: bool,
}

/// A range of a volume and whether anything is stored for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// Where, bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// True if nothing is stored: it reads as zeros.
    pub hole: bool,
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
    /// Why the log serves nothing, if it does not.
    pub log_failure: Option<String>,
    /// Volumes that are open here.
    pub volumes_open: u64,
    /// What somebody should look at: volumes out of service, tails outside the log.
    pub parked: Vec<String>,
    /// The last error of the bucket, while it goes on.
    pub bucket_failure: Option<String>,
}

/// What releasing a volume cost.
#[derive(Debug, Clone)]
pub struct Released {
    /// The host that held it, if any.
    pub held_by: Option<String>,
    /// True if that host may have data that is now lost.
    pub may_lose: bool,
}

/// What fsck found.
#[derive(Debug, Clone, Default)]
pub struct FsckReport {
    /// Volumes that there are; one whose head is deleted counts as long as it has snapshots.
    pub volumes: u64,
    /// Refs and snapshots looked at.
    pub refs: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Blocks whose content was checked.
    pub blocks: u64,
    /// Segments that nothing holds.
    pub orphans: u64,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}
