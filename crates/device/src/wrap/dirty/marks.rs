//! The marks of blocks, by number, by age and by how much of them changed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::{Changed, Wanted};

/// The blocks that changed. A write to a sub-block that is marked already costs one look-up.
#[derive(Debug, Default)]
pub(super) struct Marks {
    by_block: HashMap<u64, Mark>,
    by_age: BTreeSet<(Duration, u64)>,
    by_count: BTreeSet<(u32, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    since: Duration,
    sub_blocks: u64,
}

impl Marks {
    /// Marks sub-blocks of a block. The block keeps the earliest time of its changes.
    pub(super) fn add(&mut self, block: u64, sub_blocks: u64, since: Duration) {
        let held = self.by_block.get(&block).copied();
        let mark = match held {
            Some(held)
                if held.sub_blocks | sub_blocks == held.sub_blocks && held.since <= since =>
            {
                return;
            }
            Some(held) => {
                Mark { since: held.since.min(since), sub_blocks: held.sub_blocks | sub_blocks }
            }
            None => Mark { since, sub_blocks },
        };
        if let Some(held) = held {
            self.unlist(block, held);
        }
        self.by_block.insert(block, mark);
        self.by_age.insert((mark.since, block));
        self.by_count.insert((mark.sub_blocks.count_ones(), block));
    }

    /// Removes the blocks that are wanted, and gives them in the order of [`Wanted`].
    pub(super) fn take(&mut self, now: Duration, wanted: &Wanted) -> Vec<Changed> {
        let mut taken = Vec::new();
        while taken.len() < wanted.blocks_max {
            let Some(block) = self.next(now, wanted) else { break };
            if let Some(mark) = self.by_block.remove(&block) {
                self.unlist(block, mark);
                taken.push(Changed { block, since: mark.since, sub_blocks: mark.sub_blocks });
            }
        }
        taken
    }

    /// Number of blocks that are marked.
    pub(super) fn len(&self) -> usize {
        self.by_block.len()
    }

    fn next(&self, now: Duration, wanted: &Wanted) -> Option<u64> {
        if let Some((since, block)) = self.by_age.first()
            && now.saturating_sub(*since) >= wanted.age_max
        {
            return Some(*block);
        }
        let (count, block) = self.by_count.last()?;
        (*count >= wanted.changed_min).then_some(*block)
    }

    fn unlist(&mut self, block: u64, mark: Mark) {
        self.by_age.remove(&(mark.since, block));
        self.by_count.remove(&(mark.sub_blocks.count_ones(), block));
    }
}
