//! Writes to two devices, goes on with one when the other fails, and heals the other.
//!
//! ```text
//!            a side fails                    heal(new attachment)
//! Whole ───────────────────► Degraded ───────────────────────────► Degraded, healing ──► Whole
//!   ▲                           ▲            the side fails again │        nothing is stale │
//!   │                           └─────────────────────────────────┘                         │
//!   └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A block of the lost side is *stale* if the lost side may lack a write to it. Must hold:
//!
//! - a write that goes to one side alone marks its blocks as stale in the step that decides so;
//! - while healing, writes go to both sides, so stale blocks only become fewer;
//! - writes and copies of one block run one after another, so both sides get them in one order;
//! - a side that fails may lack all that was written since the last flush. All that is stale then.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::join;
use parking_lot::Mutex;

pub use self::state::{Health, Side};
use self::state::{Plan, State};
use super::range_lock::RangeLock;
use crate::{Attempt, Content, Device, Error, ErrorKind, Geometry, Result, StatusRange};

mod state;

/// Two devices as one. Its writes take no fast path: both sides must be written.
pub struct Mirror {
    geometry: Geometry,
    block_bytes: u64,
    state: Mutex<State>,
    changes: RangeLock,
}

/// Contents of the sides when a mirror is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Both hold the same.
    Equal,
    /// The first holds all; the second must be healed before it counts.
    FirstOnly,
}

/// The blocks that healing copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Blocks that the side may lack: it has kept what it acknowledged as durable.
    Stale,
    /// All: the side is another device, or may have another state.
    All,
}

/// A change of a range.
#[derive(Debug, Clone)]
enum Change {
    Write(Bytes),
    Zero,
}

impl Change {
    async fn apply(&self, to: &dyn Device, range: &Range<u64>) -> Result<()> {
        match self {
            Self::Write(data) => to.write(range.start, data.clone()).await,
            Self::Zero => to.zero(range.start, range.end - range.start).await,
        }
    }
}

impl Mirror {
    /// Makes a mirror that notes stale bytes in blocks of `block_bytes`, a power of two.
    ///
    /// # Errors
    /// `Invalid` if the sizes differ, or `block_bytes` is no power of two.
    pub fn new(
        first: Arc<dyn Device>,
        second: Arc<dyn Device>,
        block_bytes: u64,
        start: Start,
    ) -> Result<Self> {
        let (one, other) = (first.geometry(), second.geometry());
        if one.size_bytes != other.size_bytes {
            return Err(Error::new(ErrorKind::Invalid, "the sides of a mirror differ in size"));
        }
        if !block_bytes.is_power_of_two() {
            return Err(Error::new(ErrorKind::Invalid, "a mirror's block is no power of two"));
        }
        let geometry = Geometry {
            size_bytes: one.size_bytes,
            sector_bytes: one.sector_bytes.max(other.sector_bytes),
            block_bytes: one.block_bytes.max(other.block_bytes),
            read_only: one.read_only || other.read_only,
        };
        let mut state = State::new([first, second], one.size_bytes.div_ceil(block_bytes));
        if start == Start::FirstOnly {
            state.mark_all(Side::Second);
        }
        Ok(Self { geometry, block_bytes, state: Mutex::new(state), changes: RangeLock::default() })
    }

    /// Tells whether both sides are there.
    #[must_use]
    pub fn health(&self) -> Health {
        self.state.lock().health()
    }

    /// Copies to the lost side what it lacks, while requests go on. `with` is a new attachment to
    /// it, or another device in its place. Dropping this future leaves the mirror degraded. A write
    /// to the old attachment that fails meanwhile ends healing, too: call again.
    ///
    /// # Errors
    /// `Invalid` if no side is lost, if it is being healed already, or if `with` doesn't fit. The
    /// error of a side if that fails; the mirror stays degraded then.
    pub async fn heal(&self, with: Arc<dyn Device>, scope: Scope) -> Result<()> {
        let theirs = with.geometry();
        if theirs.size_bytes != self.geometry.size_bytes || theirs.read_only {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the device can't be a side of this mirror",
            ));
        }
        self.state.lock().begin_healing(with, scope == Scope::All)?;
        let _ending = Healing { mirror: self };
        loop {
            let Some(block) = self.state.lock().next_stale()? else { return Ok(()) };
            self.copy(block).await?;
        }
    }

    /// Copies a block to the lost side, unless a write has made it good meanwhile.
    async fn copy(&self, block: u64) -> Result<()> {
        let start = block * self.block_bytes;
        let range = start..(start + self.block_bytes).min(self.geometry.size_bytes);
        let _turn = self.changes.alone(range.clone()).await;
        let Some((from, to)) = self.state.lock().sides_to_copy(block) else { return Ok(()) };
        let mut buf = vec![0; (range.end - range.start) as usize];
        let change = match from.read(start, &mut buf).await? {
            Content::Data => Change::Write(buf.into()),
            Content::Zeroes => Change::Zero,
        };
        let copied = change.apply(&*to, &range).await;
        self.state.lock().copied(block, copied)
    }

    async fn change(&self, offset: u64, len: u64, change: Change) -> Result<()> {
        self.geometry.check(offset, len)?;
        if self.geometry.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the device is read-only"));
        }
        let range = offset..offset + len;
        let touched = offset / self.block_bytes..range.end.div_ceil(self.block_bytes);
        let bytes = touched.start * self.block_bytes..touched.end * self.block_bytes;
        let _turn = self.changes.alone(bytes).await;
        let plan = self.state.lock().plan_change(touched.clone());
        match plan {
            Plan::One(device) => change.apply(&*device, &range).await,
            Plan::Both(first, second) => {
                let mut doubt = Doubt { mirror: self, touched: touched.clone(), ended: false };
                let results = join!(change.apply(&*first, &range), change.apply(&*second, &range));
                doubt.ended = true;
                self.state.lock().changed(touched, self.whole(&range), results.into())
            }
        }
    }

    /// The blocks that a range covers whole. The last block may be short.
    fn whole(&self, range: &Range<u64>) -> Range<u64> {
        let at_end = range.end == self.geometry.size_bytes;
        let end = if at_end {
            range.end.div_ceil(self.block_bytes)
        } else {
            range.end / self.block_bytes
        };
        range.start.div_ceil(self.block_bytes)..end
    }

    /// Loses a side that failed to read. Gives the other if that has all bytes, else the error.
    fn instead_of(&self, side: Side, error: Error) -> Result<Arc<dyn Device>> {
        let mut state = self.state.lock();
        if state.lose(side, 0..0, &error) { Ok(state.reader().1) } else { Err(error) }
    }
}

/// Ends healing, whether it is complete, failed or dropped.
struct Healing<'a> {
    mirror: &'a Mirror,
}

impl Drop for Healing<'_> {
    fn drop(&mut self) {
        self.mirror.state.lock().end_healing();
    }
}

/// A change of both sides. If it is dropped half-way, the sides may differ.
struct Doubt<'a> {
    mirror: &'a Mirror,
    touched: Range<u64>,
    ended: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.mirror.state.lock().dropped(self.touched.clone());
        }
    }
}

/// A flush. If it is dropped, nothing is durable by it.
struct Flushing<'a> {
    mirror: &'a Mirror,
    number: u64,
}

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        self.mirror.state.lock().flush_ended(self.number, false);
    }
}

#[async_trait]
impl Device for Mirror {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn try_read(&self, offset: u64, buf: &mut [u8]) -> Attempt<Content> {
        let (_, device) = self.state.lock().reader();
        match device.try_read(offset, buf) {
            // The other side may have the bytes.
            Attempt::Failed(_) => Attempt::WouldBlock,
            done => done,
        }
    }

    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content> {
        self.geometry.check(offset, buf.len() as u64)?;
        let (side, device) = self.state.lock().reader();
        match device.read(offset, buf).await {
            Ok(content) => Ok(content),
            Err(error) => self.instead_of(side, error)?.read(offset, buf).await,
        }
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.change(offset, data.len() as u64, Change::Write(data)).await
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.change(offset, len, Change::Zero).await
    }

    async fn flush(&self) -> Result<()> {
        let (plan, number) = self.state.lock().plan_flush();
        let flushing = Flushing { mirror: self, number };
        match plan {
            Plan::One(device) => device.flush().await,
            Plan::Both(first, second) => {
                let results = join!(first.flush(), second.flush());
                self.state.lock().flushed(flushing.number, results.into())
            }
        }
    }

    async fn status(&self, offset: u64, len: u64, ranges_max: usize) -> Result<Vec<StatusRange>> {
        self.geometry.check(offset, len)?;
        let (side, device) = self.state.lock().reader();
        match device.status(offset, len, ranges_max).await {
            Ok(ranges) => Ok(ranges),
            Err(error) => self.instead_of(side, error)?.status(offset, len, ranges_max).await,
        }
    }

    async fn prefetch(&self, offset: u64, len: u64) {
        let (_, device) = self.state.lock().reader();
        device.prefetch(offset, len).await;
    }
}
