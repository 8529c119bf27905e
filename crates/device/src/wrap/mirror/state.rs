//! Decides which sides a request goes to, and what is stale after its outcome. Does no IO.

use std::ops::Range;
use std::sync::Arc;

use super::super::block_set::BlockSet;
use crate::{Device, Error, ErrorKind, Result};

/// A side of a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that is read while both are there.
    First,
    /// The other.
    Second,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Tells whether both sides are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Both sides hold all that was acknowledged.
    Whole,
    /// One side does.
    Degraded {
        /// The side that does not.
        lost: Side,
        /// The event that lost it.
        because: Error,
        /// Number of its blocks that may lack a write.
        stale_blocks: u64,
        /// True if its stale blocks are being copied.
        healing: bool,
    },
}

/// The devices that a request goes to.
pub(super) enum Plan {
    One(Arc<dyn Device>),
    /// The first and the second side.
    Both(Arc<dyn Device>, Arc<dyn Device>),
}

/// The side that may lack writes.
struct Lost {
    side: Side,
    because: Error,
    healing: bool,
}

pub(super) struct State {
    sides: [Arc<dyn Device>; 2],
    lost: Option<Lost>,
    /// Of the lost side. Empty while none is lost.
    stale: BlockSet,
    /// Changes of both sides under way.
    under_way: Vec<Range<u64>>,
    /// Changed on both sides since the last flush began, or under way then.
    unflushed: BlockSet,
    /// Blocks that flushes under way make durable, by the number of the flush.
    flushing: Vec<(u64, BlockSet)>,
    flushes: u64,
    block_count: u64,
}

impl State {
    pub(super) fn new(sides: [Arc<dyn Device>; 2], block_count: u64) -> Self {
        let none = BlockSet::new(block_count);
        Self {
            sides,
            lost: None,
            stale: none.clone(),
            under_way: Vec::new(),
            unflushed: none,
            flushing: Vec::new(),
            flushes: 0,
            block_count,
        }
    }

    pub(super) fn health(&self) -> Health {
        match &self.lost {
            None => Health::Whole,
            Some(lost) => Health::Degraded {
                lost: lost.side,
                because: lost.because.clone(),
                stale_blocks: self.stale.len(),
                healing: lost.healing,
            },
        }
    }

    fn device(&self, side: Side) -> Arc<dyn Device> {
        let [first, second] = &self.sides;
        match side {
            Side::First => first.clone(),
            Side::Second => second.clone(),
        }
    }

    /// A side that has all bytes.
    pub(super) fn reader(&self) -> (Side, Arc<dyn Device>) {
        let side = self.lost.as_ref().map_or(Side::First, |lost| lost.side.other());
        (side, self.device(side))
    }

    /// Marks the whole of a side as stale.
    pub(super) fn mark_all(&mut self, side: Side) {
        let because = Error::new(ErrorKind::Failed, "it has not been filled yet");
        self.lose(side, 0..self.block_count, &because);
    }

    pub(super) fn plan_change(&mut self, touched: Range<u64>) -> Plan {
        match &self.lost {
            Some(Lost { side, healing: false, .. }) => {
                let survivor = self.device(side.other());
                self.stale.extend(touched);
                Plan::One(survivor)
            }
            _ => {
                self.unflushed.extend(touched.clone());
                self.under_way.push(touched);
                self.both()
            }
        }
    }

    fn both(&self) -> Plan {
        Plan::Both(self.device(Side::First), self.device(Side::Second))
    }

    /// Notes the outcome of a change of both sides. Gives the caller's.
    pub(super) fn changed(
        &mut self,
        touched: Range<u64>,
        whole: Range<u64>,
        results: [Result<()>; 2],
    ) -> Result<()> {
        self.ended(&touched);
        match results {
            [Ok(()), Ok(())] => {
                if self.lost.as_ref().is_some_and(|lost| lost.healing) {
                    for block in whole {
                        self.stale.remove(block);
                    }
                }
                Ok(())
            }
            [Err(error), Ok(())] => self.go_on_without(Side::First, touched, error),
            [Ok(()), Err(error)] => self.go_on_without(Side::Second, touched, error),
            [Err(error), Err(other)] => {
                self.differ(touched, &other);
                Err(error)
            }
        }
    }

    /// Notes that a change of both sides was dropped half-way.
    pub(super) fn dropped(&mut self, touched: Range<u64>) {
        self.ended(&touched);
        let error = Error::new(ErrorKind::Failed, "a write to both sides was dropped half-way");
        self.differ(touched, &error);
    }

    fn ended(&mut self, touched: &Range<u64>) {
        if let Some(index) = self.under_way.iter().position(|other| other == touched) {
            self.under_way.swap_remove(index);
        }
    }

    fn go_on_without(&mut self, side: Side, touched: Range<u64>, error: Error) -> Result<()> {
        if self.lose(side, touched, &error) { Ok(()) } else { Err(error) }
    }

    /// Loses a side, if the other has all bytes. True if it has. The blocks are stale either way.
    pub(super) fn lose(&mut self, side: Side, touched: Range<u64>, error: &Error) -> bool {
        self.stale.extend(touched);
        match &mut self.lost {
            None => {
                self.stale_as_unflushed();
                self.lost = Some(Lost { side, because: error.clone(), healing: false });
                true
            }
            Some(lost) if lost.side == side => {
                (lost.healing, lost.because) = (false, error.clone());
                self.stale_as_unflushed();
                true
            }
            // The survivor failed. The caller hears of it, and the survivor's bytes count.
            Some(_) => false,
        }
    }

    /// A side that failed may have lost all that no flush has made durable.
    fn stale_as_unflushed(&mut self) {
        self.stale.unite(&self.unflushed);
        for (_, blocks) in &self.flushing {
            self.stale.unite(blocks);
        }
    }

    /// Notes that the sides may differ in blocks: the side that is read counts.
    fn differ(&mut self, touched: Range<u64>, error: &Error) {
        let side = self.lost.as_ref().map_or(Side::Second, |lost| lost.side);
        self.lose(side, touched, error);
    }

    /// Plans a flush, and gives its number.
    pub(super) fn plan_flush(&mut self) -> (Plan, u64) {
        self.flushes += 1;
        let plan = match &self.lost {
            Some(Lost { side, healing: false, .. }) => Plan::One(self.device(side.other())),
            _ => {
                // A flush need not cover what is under way.
                let mut later = BlockSet::new(self.block_count);
                self.under_way.iter().for_each(|touched| later.extend(touched.clone()));
                let blocks = std::mem::replace(&mut self.unflushed, later);
                self.flushing.push((self.flushes, blocks));
                self.both()
            }
        };
        (plan, self.flushes)
    }

    /// Notes the outcome of a flush of both sides. Gives the caller's.
    pub(super) fn flushed(&mut self, number: u64, results: [Result<()>; 2]) -> Result<()> {
        let durable = results.iter().all(Result::is_ok);
        self.flush_ended(number, durable);
        match results {
            [Ok(()), Ok(())] => Ok(()),
            [Err(error), Ok(())] => self.go_on_without(Side::First, 0..0, error),
            [Ok(()), Err(error)] => self.go_on_without(Side::Second, 0..0, error),
            [Err(error), Err(other)] => {
                self.differ(0..0, &other);
                Err(error)
            }
        }
    }

    /// Ends a flush. Its blocks are unflushed again unless they are durable on both sides.
    pub(super) fn flush_ended(&mut self, number: u64, durable: bool) {
        if let Some(index) = self.flushing.iter().position(|(other, _)| *other == number) {
            let (_, blocks) = self.flushing.swap_remove(index);
            if !durable {
                self.unflushed.unite(&blocks);
            }
        }
    }

    pub(super) fn begin_healing(&mut self, with: Arc<dyn Device>, all: bool) -> Result<()> {
        let Some(lost) = self.lost.as_mut().filter(|lost| !lost.healing) else {
            return Err(Error::new(ErrorKind::Invalid, "no side waits to be healed"));
        };
        lost.healing = true;
        let [first, second] = &mut self.sides;
        *(if lost.side == Side::First { first } else { second }) = with;
        if all {
            self.stale.extend(0..self.block_count);
        }
        Ok(())
    }

    pub(super) fn end_healing(&mut self) {
        if let Some(lost) = &mut self.lost {
            lost.healing = false;
        }
    }

    /// Gives a block to copy. If none is stale, the mirror is whole.
    ///
    /// # Errors
    /// The error by which the side was lost again.
    pub(super) fn next_stale(&mut self) -> Result<Option<u64>> {
        match &self.lost {
            Some(lost) if !lost.healing => Err(lost.because.clone()),
            _ => {
                let next = self.stale.first();
                if next.is_none() {
                    self.lost = None;
                }
                Ok(next)
            }
        }
    }

    /// Gives the survivor and the lost side, if a block is to be copied still.
    pub(super) fn sides_to_copy(&self, block: u64) -> Option<(Arc<dyn Device>, Arc<dyn Device>)> {
        let lost = self.lost.as_ref().filter(|lost| lost.healing)?;
        let sides = (self.device(lost.side.other()), self.device(lost.side));
        self.stale.contains(block).then_some(sides)
    }

    /// Notes the outcome of a copy to the lost side.
    pub(super) fn copied(&mut self, block: u64, result: Result<()>) -> Result<()> {
        match (&self.lost, &result) {
            (Some(lost), Err(error)) => {
                let side = lost.side;
                self.lose(side, block..block + 1, error);
            }
            (Some(lost), Ok(())) if lost.healing => {
                self.stale.remove(block);
                self.unflushed.insert(block);
            }
            _ => {}
        }
        result
    }
}
