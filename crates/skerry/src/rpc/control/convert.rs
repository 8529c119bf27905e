//! From the engine's types to the API's.

use skerry_api::{Error, v1};
use skerry_core::descriptor::FlushLevel;
use skerry_volume::{
    DiffRange, FsckReport, NodeStatus, SnapshotState, SnapshotView, Unreadable, VolumeInfo,
};

use crate::values::invalid;

/// The most problems of one report: more than a person reads, and they fit one message.
const PROBLEMS_MAX: usize = 10_000;
/// The most bytes of all of them, for the same reason.
const PROBLEM_BYTES_MAX: usize = 2 << 20;

pub(super) fn flush_level(level: v1::FlushLevel) -> Option<FlushLevel> {
    match level {
        v1::FlushLevel::Unspecified => None,
        v1::FlushLevel::Local => Some(FlushLevel::Local),
        v1::FlushLevel::Bucket => Some(FlushLevel::Bucket),
    }
}

pub(super) fn volume(info: VolumeInfo) -> v1::Volume {
    let flush = match info.flush {
        FlushLevel::Local => v1::FlushLevel::Local,
        FlushLevel::Bucket => v1::FlushLevel::Bucket,
    };
    let unreadable = match info.unreadable {
        Unreadable::Nothing => v1::Unreadable::Nothing,
        Unreadable::State => v1::Unreadable::State,
        Unreadable::Descriptor => v1::Unreadable::Descriptor,
    };
    v1::Volume {
        name: info.name,
        id: if info.id.is_none() { String::new() } else { info.id.to_string() },
        size_bytes: info.size_bytes,
        block_size_bytes: info.block_size_bytes,
        flush: flush.into(),
        created_ms: info.created_ms,
        clients: info.clients,
        undestaged_bytes: info.undestaged_bytes,
        undestaged_age_ms: info.undestaged_age_ms,
        snapshots: info.snapshots,
        owner: info.owner,
        owned_here: info.owned_here,
        deleted: info.deleted,
        failure: info.failure,
        unreadable: unreadable.into(),
        used_bytes: info.space.map(|space| space.used_bytes),
        stored_bytes: info.space.map(|space| space.stored_bytes),
    }
}

pub(super) fn snapshot(view: SnapshotView) -> v1::Snapshot {
    let state = match view.state {
        SnapshotState::Pending => v1::SnapshotState::Pending,
        SnapshotState::Published => v1::SnapshotState::Published,
        SnapshotState::Materialised => v1::SnapshotState::Materialised,
    };
    v1::Snapshot {
        name: view.name,
        id: view.id.to_string(),
        volume: view.volume,
        created_ms: view.created_ms,
        size_bytes: view.size_bytes,
        state: state.into(),
    }
}

pub(super) fn diff_range(range: DiffRange) -> v1::DiffRange {
    v1::DiffRange { offset: range.offset, length: range.length, zero: range.zero }
}

pub(super) fn status(status: NodeStatus) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        node: status.node.to_string(),
        bucket: status.bucket.to_string(),
        bucket_url: status.bucket_url,
        has_log: status.has_log,
        log_used_bytes: status.log_used_bytes,
        log_cap_bytes: status.log_cap_bytes,
        log_failure: status.log_failure,
        volumes_open: status.volumes_open,
        parked: status.parked,
        bucket_failure: status.bucket_failure,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        used_bytes: status.space.used_bytes,
        stored_bytes: status.space.stored_bytes,
        undestaged_bytes: status.undestaged_bytes,
        undestaged_age_ms: status.undestaged_age_ms,
    }
}

pub(super) fn fsck_report(report: FsckReport) -> v1::FsckResponse {
    let problems_total = report.problems.len() as u64;
    let mut bytes = 0;
    let fits = |problem: &String| {
        bytes += problem.len();
        bytes <= PROBLEM_BYTES_MAX
    };
    let problems = report.problems.into_iter().take(PROBLEMS_MAX).take_while(fits).collect();
    v1::FsckResponse {
        volumes: report.volumes,
        refs: report.refs,
        snapshots: report.snapshots,
        segments: report.segments,
        blocks: report.blocks,
        orphans: report.orphans,
        problems,
        problems_total,
    }
}

/// The error for a message of an import at the wrong place.
pub(super) fn out_of_order(what: &str) -> Error {
    invalid(format!("the import's messages are out of order: {what}"))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// The most bytes of a message that a client takes.
    const MESSAGE_BYTES_MAX: usize = 4 << 20;

    fn converted(problems: usize, length: usize) -> v1::FsckResponse {
        let problems = (0..problems).map(|number| format!("{number:0length$}")).collect();
        fsck_report(FsckReport { problems, ..FsckReport::default() })
    }

    #[test]
    fn a_report_has_problems_up_to_a_limit_and_counts_all() {
        for (count, kept) in [
            (0, 0),
            (PROBLEMS_MAX, PROBLEMS_MAX),
            (PROBLEMS_MAX + 1, PROBLEMS_MAX),
            (3 * PROBLEMS_MAX, PROBLEMS_MAX),
        ] {
            let report = converted(count, 6);
            assert_eq!((report.problems.len(), report.problems_total), (kept, count as u64));
            let last = kept.checked_sub(1).map(|last| format!("{last:06}"));
            assert_eq!(report.problems.last(), last.as_ref(), "the first ones are kept");
        }
    }

    #[test]
    fn a_report_of_long_problems_fits_a_message() {
        let report = converted(5_000, 1_000);
        assert_eq!(report.problems.len(), PROBLEM_BYTES_MAX / 1_000);
        assert_eq!(report.problems_total, 5_000);
        assert!(report.encoded_len() < MESSAGE_BYTES_MAX);
        // Many short ones have the most overhead.
        assert!(converted(PROBLEMS_MAX, 200).encoded_len() < MESSAGE_BYTES_MAX);
    }
}
