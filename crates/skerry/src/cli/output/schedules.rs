//! The output of commands about schedules.

use serde::Serialize;

use super::{lines, table};
use crate::schedule::Schedule;
use crate::values::time;

/// A schedule, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct ScheduleDocument {
    /// The volume's name; none if it is deleted meanwhile.
    pub(crate) volume: Option<String>,
    volume_id: String,
    every_s: u64,
    keep: u32,
    since: String,
    next_at: String,
    #[serde(skip)]
    every: String,
}

impl ScheduleDocument {
    /// A schedule of a volume of this name.
    pub(crate) fn new(volume: Option<String>, schedule: &Schedule) -> Self {
        Self {
            volume,
            volume_id: schedule.volume.to_string(),
            every_s: schedule.every.seconds(),
            keep: schedule.keep.count(),
            since: time(schedule.since_ms),
            next_at: time(schedule.due_ms),
            every: schedule.every.to_string(),
        }
    }

    /// The name, or a text in its place.
    fn shown(&self) -> String {
        let gone = || format!("{} (deleted)", self.volume_id);
        self.volume.clone().unwrap_or_else(gone)
    }
}

/// One schedule, for people.
pub(crate) fn schedule_lines(schedule: &ScheduleDocument) -> String {
    lines(&[
        ("volume", schedule.shown()),
        ("every", schedule.every.clone()),
        ("keep", schedule.keep.to_string()),
        ("since", schedule.since.clone()),
        ("next", schedule.next_at.clone()),
    ])
}

/// Schedules, for people.
pub(crate) fn schedule_table(schedules: &[ScheduleDocument]) -> String {
    if schedules.is_empty() {
        return "There are no schedules: make one with \
                `skerry snapshot schedule VOLUME --every 1h --keep 24`.\n"
            .to_owned();
    }
    let rows: Vec<_> = schedules
        .iter()
        .map(|one| [one.shown(), one.every.clone(), one.keep.to_string(), one.next_at.clone()])
        .collect();
    table(["VOLUME", "EVERY", "KEEP", "NEXT"], &rows)
}
