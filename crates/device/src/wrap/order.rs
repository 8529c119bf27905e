//! Gives blocks in an order. Orders compose: `(by_priority, least_volatile)` asks the second where
//! the first says equal. Blocks that every order says are equal come in ascending order.

use std::cmp::Reverse;
use std::ops::Range;

use super::block_set::BlockSet;

/// Ranks blocks: the lowest rank goes first.
pub trait Order {
    /// The value that is compared.
    type Rank: Ord;

    /// Gives a block's rank.
    fn rank(&self, block: u64) -> Self::Rank;
}

/// Any order will do: the ascending one reads best.
#[derive(Debug, Clone, Copy)]
pub struct Any;

impl Order for Any {
    type Rank = ();

    fn rank(&self, _block: u64) {}
}

/// Ranges of blocks that have a priority; the highest goes first. Other blocks have priority 0.
#[derive(Debug, Clone, Default)]
pub struct Priorities {
    ranges: Vec<(Range<u64>, i32)>,
}

impl Priorities {
    /// Gives a range of blocks a priority. A later range counts where it overlaps an earlier one.
    #[must_use]
    pub fn with(mut self, blocks: Range<u64>, priority: i32) -> Self {
        self.ranges.push((blocks, priority));
        self
    }
}

impl Order for Priorities {
    type Rank = Reverse<i32>;

    fn rank(&self, block: u64) -> Reverse<i32> {
        let found = self.ranges.iter().rev().find(|(blocks, _)| blocks.contains(&block));
        Reverse(found.map_or(0, |(_, priority)| *priority))
    }
}

impl<A: Order, B: Order> Order for (A, B) {
    type Rank = (A::Rank, B::Rank);

    fn rank(&self, block: u64) -> Self::Rank {
        (self.0.rank(block), self.1.rank(block))
    }
}

/// Blocks that wait for their turn, in the order of the moment in which the queue was made.
#[derive(Debug)]
pub struct Queue {
    blocks: std::vec::IntoIter<u64>,
    waiting: BlockSet,
}

impl Queue {
    /// Puts the blocks from 0 to `count` in order.
    #[must_use]
    pub fn new(order: &impl Order, count: u64) -> Self {
        let mut ranked: Vec<_> = (0..count).map(|block| (order.rank(block), block)).collect();
        ranked.sort_unstable();
        let blocks: Vec<u64> = ranked.into_iter().map(|(_, block)| block).collect();
        let mut waiting = BlockSet::new(count);
        for block in &blocks {
            waiting.insert(*block);
        }
        Self { blocks: blocks.into_iter(), waiting }
    }

    /// Takes a block out of its turn: its bytes are there already, or are wanted at once. True if
    /// it was waiting.
    pub fn remove(&mut self, block: u64) -> bool {
        self.waiting.remove(block)
    }

    /// Number of blocks that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.len()
    }
}

impl Iterator for Queue {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.blocks.by_ref().find(|block| self.waiting.remove(*block))
    }
}
