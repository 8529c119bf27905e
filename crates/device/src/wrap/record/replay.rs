//! Replays a log of operations on a device.

use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use skerry_core::env::Clock;

use super::super::range_lock::{RangeLock, Turn};
use super::super::sleep::Sleep;
use super::format::{Action, Log, LogError, Operation};
use crate::{Device, Result};

/// The pace of a replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded: 1 is the recorded pace. More than 0.
    Times(f64),
    /// Each operation as soon as others have ended.
    Unbounded,
}

impl Speed {
    /// Time from the beginning of a replay to that of an operation.
    fn due(self, at: Duration) -> Duration {
        match self {
            Self::Times(times) if times > 0.0 => {
                Duration::try_from_secs_f64(at.as_secs_f64() / times).unwrap_or(Duration::MAX)
            }
            _ => Duration::ZERO,
        }
    }
}

/// The outcome of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Operations that were carried out.
    pub operations: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Bytes read and written by the operations that succeeded.
    pub bytes: u64,
    /// Time between the due time of an operation and its beginning, at most.
    pub late_max: Duration,
}

/// One operation's outcome: its bytes, or none if it failed, and how late it began.
type Outcome = (Option<u64>, Duration);

/// Carries out the operations of a log, `under_way_max` of them at once. Operations that overlap
/// run in the order of the log; so the device ends with the same bytes, whatever the speed.
///
/// [`Log::end`] tells afterwards whether the log was whole.
///
/// # Errors
/// Those of the log, after the operations under way have ended. Errors of the device are counted.
pub async fn replay<R: Read + Send>(
    log: &mut Log<R>,
    device: &dyn Device,
    speed: Speed,
    under_way_max: usize,
    (clock, sleep): (&dyn Clock, &dyn Sleep),
) -> std::result::Result<Replayed, LogError> {
    let begun = clock.boot();
    let lock = RangeLock::default();
    let mut failed = None;
    let operations = std::iter::from_fn(|| match log.next_operation() {
        Ok(operation) => operation,
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let run = |operation: Operation| {
        // Asked for here, in the order of the log.
        let turn = turn(&lock, &operation.action);
        async move {
            let due = speed.due(operation.at);
            let early = due.saturating_sub(clock.boot().saturating_sub(begun));
            if !early.is_zero() {
                sleep.sleep(early).await;
            }
            let _turn = turn.come().await;
            let late = clock.boot().saturating_sub(begun).saturating_sub(due);
            let late = if speed == Speed::Unbounded { Duration::ZERO } else { late };
            (carry_out(device, operation.action).await.ok(), late)
        }
    };
    let mut replayed = Replayed::default();
    let mut outcomes = stream::iter(operations.map(run)).buffer_unordered(under_way_max.max(1));
    while let Some(outcome) = outcomes.next().await {
        replayed.add(outcome);
    }
    drop(outcomes);
    failed.map_or(Ok(replayed), Err)
}

impl Replayed {
    fn add(&mut self, (bytes, late): Outcome) {
        self.operations += 1;
        self.errors += u64::from(bytes.is_none());
        self.bytes += bytes.unwrap_or(0);
        self.late_max = self.late_max.max(late);
    }
}

fn turn(lock: &RangeLock, action: &Action) -> Turn {
    let (range, changes) = match action {
        Action::Read { offset, len } => (place(*offset, *len), false),
        Action::Write { offset, data } => (place(*offset, data.len() as u64), true),
        Action::WriteAt { offset, len } | Action::Zero { offset, len } => {
            (place(*offset, *len), true)
        }
        // Whatever is under way need not be covered by it.
        Action::Flush => (0..0, false),
    };
    lock.ask(range, changes)
}

fn place(offset: u64, len: u64) -> Range<u64> {
    offset..offset.saturating_add(len)
}

async fn carry_out(device: &dyn Device, action: Action) -> Result<u64> {
    match action {
        Action::Read { offset, len } => {
            device.geometry().check(offset, len)?;
            device.read(offset, &mut vec![0; len as usize]).await?;
            Ok(len)
        }
        Action::Write { offset, data } => {
            let len = data.len() as u64;
            device.write(offset, data).await.map(|()| len)
        }
        Action::WriteAt { offset, len } => {
            device.geometry().check(offset, len)?;
            device.write(offset, filling(offset, len).into()).await.map(|()| len)
        }
        Action::Zero { offset, len } => device.zero(offset, len).await.map(|()| 0),
        Action::Flush => device.flush().await.map(|()| 0),
    }
}

/// Bytes for a write whose own were not kept: no two sectors of a device alike.
fn filling(offset: u64, len: u64) -> Vec<u8> {
    let byte = |at: u64| {
        let word = (at / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word >> (at % 8 * 8)) as u8
    };
    (offset..offset + len).map(byte).collect()
}
