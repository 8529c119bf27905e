//! Scheduled snapshots: Skerry's own work, done by a worker like any other.
//!
//! Participants: a *command* ([`Schedules`]), which starts, changes and ends schedules; the
//! *broker*, which keeps them as jobs; the node's *worker* ([`SnapshotWorker`]), which does due
//! jobs. Command and worker know each other only through the jobs API. Goal: while a schedule is
//! on, a snapshot for each of its times at which the node ran. Non-goals: times at which the node
//! did not run, and volumes that another node writes.
//!
//! A schedule is a chain of jobs. Each waits for its time ([`Schedule`] is its content) and is
//! followed by the next. Must hold:
//!
//! * A job is followed before anything else is done for it: no failure ends a schedule. The id of a
//!   job is made of the volume, the schedule and the time, so that doing it twice enqueues nothing
//!   twice.
//! * A cancelled job is not followed. The worker looks at its own job after it has enqueued the
//!   next one, and cancels that one if its own was cancelled. The command cancels pending jobs,
//!   waits until running ones have ended, and looks again until none is left. Either the worker
//!   sees the cancelling, or it came after the next job was enqueued, which the command then finds.
//!   (A node may be suspended for a whole lease and killed just between the two steps. It leaves a
//!   job behind; the next look finds it.)
//! * Nothing is left if two looks in a row saw one newest job, ended: a successor is enqueued
//!   before its job ends, and is newer.
//! * A changed schedule is a new chain. The newest chain cancels the older ones, and a late one
//!   cancels itself. So two people who change it at once leave one of their schedules.
//! * A clock that is ahead, and set right again, ends no schedule. A start hastens jobs that wait
//!   for longer than an interval. A job that such a clock has ended before its time is done again.
//! * The worker deletes only snapshots whose whole name is one that a schedule gives.

mod auto_name;
mod document;
mod handler;
mod interval;
mod plan;
mod schedules;
mod worker;

pub(crate) use document::{Keep, Schedule};
pub(crate) use interval::Interval;
pub(crate) use schedules::Schedules;
pub(crate) use worker::SnapshotWorker;

/// The tenant of these jobs, which is no user's.
pub(crate) const TENANT: &str = "system";
/// The task group of their workers.
const GROUP: &str = "skerry/snapshots";
/// The entry of a job's metadata that holds the volume's id.
const VOLUME_KEY: &str = "volume";
/// The entry of a job's metadata that names its schedule of the volume.
const SINCE_KEY: &str = "since";
