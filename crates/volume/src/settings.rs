//! The engine's limits, named. Plain data; the binary fills it in.

use skerry_core::descriptor::FlushLevel;
use std::time::Duration;

/// Limits and levels of a node's engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// The flush level of volumes that are created without one.
    pub default_flush: FlushLevel,
    /// A batch is cut when its blocks, or its records, hold this many bytes: one segment. Large enough that a PUT's fixed
    /// cost is small beside it, small enough that several are built and put within the memory budget.
    pub segment_bytes: usize,
    /// A batch is cut when it has this many records, so that its slots fit 16 bits.
    pub segment_records_max: usize,
    /// How many segments of one volume may be on their way at once; at most `takeover::ON_THEIR_WAY_MAX`.
    pub puts_in_flight_max: usize,
    /// How old undestaged data of an idle volume may grow; a goal, never a reason to delay a write.
    pub dirty_age: Duration,
    /// Bytes of the live indexes of the whole node, beyond which the writers of volumes with a fair part of them wait for
    /// destage: so they take twice of this at most.
    pub index_bytes_max: usize,
    /// Bytes of overlays in the whole node: when half of it is used, those that have the mean or more check in.
    pub overlay_bytes_max: usize,
    /// A volume checks in after this many segments, so that opening it reads no more than as many.
    pub checkpoint_segments_max: u64,
    /// How many nodes of dropped subtrees one checkpoint releases: bounds its length.
    pub drain_nodes_max: usize,
    /// A snapshot that may hold more than this beyond its content, bytes, gets a root of its own, and a checkpoint with it:
    /// smaller than what a checkpoint is worth, so that many snapshots waste little.
    pub snapshot_garbage_bytes_max: u64,
    /// How many nodes of dropped subtrees the checkpoint of such a snapshot releases: bounds how long the snapshot waits
    /// for its ref. Of 128 blocks each, so 8 GiB of blocks of 4 KiB.
    pub snapshot_drain_nodes_max: usize,
    /// How long nobody must have written to a volume before it tidies up: a checkpoint, and the rest of what
    /// was trimmed.
    pub idle_age: Duration,
    /// The longest record of a write; longer writes are cut.
    pub record_bytes_max: usize,
    /// A gap in the boot-time clock longer than this makes the node look whether it still owns its
    /// volumes: shorter than any take-over by hand. If the store does not answer, the node goes on.
    pub glimpse_gap: Duration,
    /// After a gap longer than this nothing is served before the store has answered.
    pub suspend_gap: Duration,
    /// How often the owner of a volume in use looks whether its stream was sealed, while the store answers: bounds what it
    /// acknowledges in vain where a take-over shows no gap in its clock. A look is one GET for each volume.
    pub fence_interval: Duration,
    /// How long after the start everything is swept: not while clients come back.
    pub sweep_first: Duration,
    /// How often after that. A sweep lists all streams of the volumes that are open.
    pub sweep_interval: Duration,
    /// What a crash left half-written in a local bucket is deleted when it is so old; nothing is on its way so long.
    pub litter_age: Duration,
    /// How long a pin of what is read here holds without being renewed: a reader must have answered in that time.
    pub pin_ttl: Duration,
    /// From this share of the log's cap on, percent, the volumes whose records keep its oldest files are destaged,
    /// whatever the age of those records: below where writers are delayed.
    pub pressure_percent: u64,
    /// Bytes of the buffers of all volumes of the node: batches that are put together or on their way, and reads ahead.
    /// Room for several batches, small beside what a host has.
    pub buffer_bytes_max: usize,
    /// From this share of the log's cap on, writers are delayed in proportion, percent.
    pub delay_from_percent: u64,
    /// The longest such delay.
    pub delay_max: Duration,
    /// How long a guest's request waits for a bucket that fails for a reason that can pass; without end if nothing
    /// is set, as for a slow disk.
    pub guest_wait_max: Option<Duration>,
    /// How long after it failed a volume is opened again; each time it fails again it is twice as long.
    pub comeback_first: Duration,
    /// The longest such time.
    pub comeback_max: Duration,
    /// How long a clean stop waits for the volumes to get into the bucket, all together; the rest
    /// stays in the log.
    pub shutdown_drain: Duration,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            default_flush: FlushLevel::Local,
            segment_bytes: 16 << 20,
            segment_records_max: 32_768,
            puts_in_flight_max: 2,
            dirty_age: Duration::from_secs(30),
            index_bytes_max: 128 << 20,
            overlay_bytes_max: 32 << 20,
            checkpoint_segments_max: 64,
            drain_nodes_max: 4096,
            snapshot_garbage_bytes_max: 4 << 20,
            snapshot_drain_nodes_max: 16_384,
            idle_age: Duration::from_secs(300),
            record_bytes_max: 1 << 20,
            glimpse_gap: Duration::from_millis(25),
            suspend_gap: Duration::from_secs(3),
            fence_interval: Duration::from_secs(10),
            sweep_first: Duration::from_secs(600),
            sweep_interval: Duration::from_secs(86_400),
            pin_ttl: Duration::from_secs(1800),
            litter_age: Duration::from_secs(3600),
            pressure_percent: 50,
            buffer_bytes_max: 256 << 20,
            delay_from_percent: 75,
            delay_max: Duration::from_millis(20),
            guest_wait_max: None,
            comeback_first: Duration::from_secs(1),
            comeback_max: Duration::from_secs(600),
            shutdown_drain: Duration::from_secs(30),
        }
    }
}
