//! Scheduled snapshots: work of Skerry's own, done by a worker like anybody's.
//!
//! Participants: a *command* ([`Schedules`]), which starts, changes and ends schedules; the *broker*, which keeps them,
//! as jobs; the node's *worker* ([`SnapshotWorker`]), which does the jobs that come due. Command and worker know of each
//! other only by what the jobs API tells. Goal: while a schedule is on, a snapshot for each of its times at which the
//! node ran. No goal: times that nobody was there for, and volumes that another node writes.
//!
//! A schedule is a chain of jobs, each of which waits for its time ([`Schedule`] is what it holds) and is followed by
//! the next. What must hold:
//!
//! * A job is followed before anything else is done for it: no failure ends a schedule. The id of a job is made of the
//!   volume, the schedule and the time, so that doing it twice enqueues nothing twice.
//! * A job that was called off is not followed. The worker looks at its own job after it has enqueued the next one, and
//!   calls that one off if its own was. The command calls off what is pending, waits until what runs has ended, and
//!   looks again until nothing is left. Either the worker sees the call, or it came after the next job was enqueued,
//!   which the command then finds. (A node that was suspended for a whole lease and is killed just between the two
//!   steps leaves a job behind; the next look finds it.)
//! * There is nothing left if two looks in a row saw the same newest job, ended: a job is older than the one that
//!   follows it, which is there before it ends.
//! * A schedule that is changed is a new chain; the newest chain calls the older ones off, and one that was there late
//!   calls itself off, so that two people who change it at once leave one of theirs.
//! * A clock that is ahead, and set right again, ends no schedule: a start hastens what waits for longer than an interval,
//!   and a job that such a clock has brought to its end before its time is done again.
//! * Only snapshots whose whole name is one that a schedule gives are ever deleted.

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

/// Whose jobs they are: no tenant's own.
const TENANT: &str = "system";
/// Which workers do them.
const GROUP: &str = "skerry/snapshots";
/// The entry of a job's metadata that holds the volume's id.
const VOLUME_KEY: &str = "volume";
/// The entry of a job's metadata that says which schedule of the volume it belongs to.
const SINCE_KEY: &str = "since";
