//! The engine's limits, named. Plain data; the binary fills it in.

use skerry_core::descriptor::FlushLevel;
use std::time::Duration;

/// Limits and levels of a node's engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// The flush level of volumes that are created without one.
    pub default_flush: FlushLevel,
    /// Bytes of blocks, or of records, at which a batch is cut: one segment. Large enough that a
    /// PUT's fixed cost is small beside it. Small enough that several are built and put within the
    /// memory budget.
    pub segment_bytes: usize,
    /// Number of records at which a batch is cut, so that its slots fit 16 bits.
    pub segment_records_max: usize,
    /// Number of segments of one volume on their way at once; at most `takeover::ON_THEIR_WAY_MAX`.
    pub puts_in_flight_max: usize,
    /// Wanted limit on the age of an idle volume's undestaged data; never a reason to delay a
    /// write.
    pub dirty_age: Duration,
    /// Bytes of the live indexes of the whole node. Above it, writers of volumes with a fair part
    /// of them wait for destage. So the indexes take twice this at most.
    pub index_bytes_max: usize,
    /// Bytes of overlays in the whole node. When half of it is used, volumes with the mean or more
    /// make a checkpoint.
    pub overlay_bytes_max: usize,
    /// Number of segments after which a volume makes a checkpoint. Opening it reads no more than as
    /// many.
    pub checkpoint_segments_max: u64,
    /// Number of nodes of dropped subtrees that one checkpoint releases. It bounds the checkpoint's
    /// length.
    pub drain_nodes_max: usize,
    /// Bytes beyond its content from which on a snapshot gets a root of its own, and so a
    /// checkpoint. Smaller than a checkpoint is worth, so that many snapshots waste little.
    pub snapshot_garbage_bytes_max: u64,
    /// Number of nodes of dropped subtrees that the checkpoint of such a snapshot releases. It
    /// bounds the snapshot's wait for its ref. At 128 blocks each, this is 8 GiB of blocks of 4
    /// KiB.
    pub snapshot_drain_nodes_max: usize,
    /// Time without writes after which a volume tidies up: a checkpoint, and the rest of trimmed
    /// subtrees.
    pub idle_age: Duration,
    /// The longest record of a write; longer writes are cut.
    pub record_bytes_max: usize,
    /// Gap of the boot-time clock after which the node looks whether it still owns its volumes.
    /// Shorter than any take-over by hand. If the store does not answer, the node goes on.
    pub glimpse_gap: Duration,
    /// Gap after which nothing is served before the store has answered.
    pub suspend_gap: Duration,
    /// Interval at which the owner of a volume in use looks for a seal on its stream, while the
    /// store answers. It bounds vain acknowledgements where a take-over shows no gap in the owner's
    /// clock. A look is one GET for each volume.
    pub fence_interval: Duration,
    /// Time from the start to the first sweep: not while clients come back.
    pub sweep_first: Duration,
    /// Interval of further sweeps. A sweep lists all streams of the open volumes.
    pub sweep_interval: Duration,
    /// Age at which half-written files of a crash in a local bucket are deleted. No write is under
    /// way so long.
    pub litter_age: Duration,
    /// Time for which a pin of a read state holds without a renewal. A reader must have answered in
    /// that time.
    pub pin_ttl: Duration,
    /// Share of the log's cap, percent, from which on volumes whose records keep its oldest files
    /// destage, whatever the age of those records. Below the share at which writers are delayed.
    pub pressure_percent: u64,
    /// Bytes of the buffers of all volumes of the node: batches that are built or on their way, and
    /// reads ahead. Room for several batches, and little of a host's memory.
    pub buffer_bytes_max: usize,
    /// Share of the log's cap from which on writers are delayed in proportion, percent.
    pub delay_from_percent: u64,
    /// The longest such delay.
    pub delay_max: Duration,
    /// Time for which a guest's request waits for a bucket that fails for a reason that can pass.
    /// Without end if unset, as for a slow disk.
    pub guest_wait_max: Option<Duration>,
    /// Time from a volume's failure to its comeback; doubled after each further failure.
    pub comeback_first: Duration,
    /// The longest such time.
    pub comeback_max: Duration,
    /// Time for which a clean stop waits for all volumes together to get into the bucket; the rest
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
