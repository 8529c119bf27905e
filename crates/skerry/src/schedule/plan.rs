//! The plan of a schedule's job, once its time has come.

use skerry_api::Result;
use skerry_core::name::Name;

use super::auto_name;
use super::document::Schedule;
use crate::values;

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The next job, which is enqueued first of all.
    pub(super) next: Schedule,
    /// The snapshot to take, if it does not exist yet.
    pub(super) snapshot: Name,
}

/// Decides the plan of a job now. The newest time that has passed names the snapshot. If the node
/// slept through several times, it takes one snapshot, whose name does not claim to be older than
/// it is. A job that is done again takes a snapshot again only if another is due by then.
///
/// # Errors
/// The time has no name.
pub(super) fn plan(schedule: &Schedule, now_ms: u64) -> Result<Plan> {
    let passed_ms = schedule.every.last_before_ms(now_ms);
    let due_ms = match schedule.is_beyond(now_ms) {
        // The clock was ahead when this job was made: the schedule goes on by the right one.
        true => passed_ms,
        // A clock that was put back a little does not bring a time back.
        false => passed_ms.max(schedule.due_ms),
    };
    let next = Schedule { due_ms: schedule.every.next_after_ms(due_ms), ..schedule.clone() };
    Ok(Plan { next, snapshot: values::name(&auto_name::text(due_ms))? })
}

#[cfg(test)]
mod tests {
    use super::super::{Interval, Keep};
    use super::*;
    use skerry_core::id::VolumeId;

    /// 2023-11-14T22:00:00Z.
    const DUE_MS: u64 = 1_699_999_200_000;
    const HOUR_MS: u64 = 3_600_000;

    fn hourly() -> Schedule {
        Schedule {
            volume: VolumeId([1; 16]),
            since_ms: DUE_MS - 5,
            due_ms: DUE_MS,
            every: Interval::parse("1h").expect("an hour"),
            keep: Keep::new(3).expect("a number"),
        }
    }

    #[track_caller]
    fn at(now_ms: u64, snapshot: &str, next_ms: u64) {
        let plan = plan(&hourly(), now_ms).expect("a plan");
        assert_eq!(plan.snapshot.as_str(), snapshot);
        assert_eq!(plan.next, Schedule { due_ms: next_ms, ..hourly() });
    }

    #[test]
    fn in_time_or_late_it_is_the_snapshot_that_was_due() {
        at(DUE_MS, "auto-20231114T220000Z", DUE_MS + HOUR_MS);
        at(DUE_MS + HOUR_MS - 1, "auto-20231114T220000Z", DUE_MS + HOUR_MS);
    }

    #[test]
    fn times_that_were_slept_through_are_one_snapshot() {
        at(DUE_MS + HOUR_MS, "auto-20231114T230000Z", DUE_MS + 2 * HOUR_MS);
        at(DUE_MS + 10 * HOUR_MS + 1, "auto-20231115T080000Z", DUE_MS + 11 * HOUR_MS);
    }

    #[test]
    fn a_clock_that_was_put_back_repeats_nothing() {
        at(DUE_MS - 1, "auto-20231114T220000Z", DUE_MS + HOUR_MS);
        at(DUE_MS - HOUR_MS, "auto-20231114T220000Z", DUE_MS + HOUR_MS);
    }

    #[test]
    fn a_clock_that_was_far_ahead_does_not_stop_a_schedule() {
        at(DUE_MS - HOUR_MS - 1, "auto-20231114T200000Z", DUE_MS - HOUR_MS);
        at(DUE_MS - 24 * HOUR_MS, "auto-20231113T220000Z", DUE_MS - 23 * HOUR_MS);
    }

    #[test]
    fn doing_it_again_enqueues_the_same_job() {
        let first = plan(&hourly(), DUE_MS).expect("a plan").next;
        let again = plan(&hourly(), DUE_MS + 1000).expect("a plan").next;
        assert_eq!(first.job_id(), again.job_id());
        let late = plan(&hourly(), DUE_MS + HOUR_MS).expect("a plan").next;
        assert_eq!(late, plan(&first, DUE_MS + HOUR_MS).expect("a plan").next, "chains meet again");
    }
}
