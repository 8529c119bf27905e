//! A set of block numbers, one bit each.

/// Blocks from 0 up to a count that is fixed.
#[derive(Debug, Clone)]
pub(crate) struct BlockSet {
    words: Vec<u64>,
    len: u64,
}

impl BlockSet {
    /// Makes an empty set of blocks below `count`.
    pub(crate) fn new(count: u64) -> Self {
        Self { words: vec![0; count.div_ceil(64) as usize], len: 0 }
    }

    /// Adds a block. True if it was not there. A block past the count is never there.
    pub(crate) fn insert(&mut self, block: u64) -> bool {
        let Some(word) = self.words.get_mut((block / 64) as usize) else { return false };
        let bit = 1 << (block % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        self.len += u64::from(fresh);
        fresh
    }

    /// Removes a block. True if it was there.
    pub(crate) fn remove(&mut self, block: u64) -> bool {
        let held = self.contains(block);
        if held && let Some(word) = self.words.get_mut((block / 64) as usize) {
            *word &= !(1 << (block % 64));
            self.len -= 1;
        }
        held
    }

    /// True if a block is there.
    pub(crate) fn contains(&self, block: u64) -> bool {
        self.words.get((block / 64) as usize).is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// Adds a range of blocks.
    pub(crate) fn extend(&mut self, blocks: std::ops::Range<u64>) {
        for block in blocks {
            self.insert(block);
        }
    }

    /// Adds the blocks of another set of equal size.
    pub(crate) fn unite(&mut self, other: &Self) {
        for (word, theirs) in self.words.iter_mut().zip(&other.words) {
            self.len += u64::from((theirs & !*word).count_ones());
            *word |= theirs;
        }
    }

    /// The lowest block in it.
    pub(crate) fn first(&self) -> Option<u64> {
        let index = self.words.iter().position(|word| *word != 0)?;
        Some(index as u64 * 64 + u64::from(self.words.get(index)?.trailing_zeros()))
    }

    /// Number of blocks in it.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_inserted_and_not_removed() {
        let mut set = BlockSet::new(70);
        assert!(set.insert(0) && set.insert(63) && set.insert(69) && !set.insert(63));
        assert_eq!((set.len(), set.contains(63), set.contains(64)), (3, true, false));
        assert!(set.remove(63) && !set.remove(63) && !set.remove(1));
        assert_eq!((set.len(), set.contains(63), set.contains(69)), (2, false, true));
        assert!(!set.insert(1000) && !set.contains(1000));
    }

    #[test]
    fn unites_and_finds_the_first() {
        let (mut set, mut other) = (BlockSet::new(200), BlockSet::new(200));
        assert_eq!(set.first(), None);
        set.extend(130..133);
        other.extend(131..140);
        set.unite(&other);
        assert_eq!((set.len(), set.first()), (10, Some(130)));
    }
}
