//! Maps and sets of ranges: the live index of the log in sectors, and sets of zeroed blocks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

/// Bytes of memory for one extent of an [`ExtentMap`], about: key, value, and the slack of B-tree
/// nodes.
pub const EXTENT_BYTES: usize = 56;

/// Content of a range: a place in the log, or zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Position of the log record with this content; later records have higher positions.
    pub at: u64,
    /// Offset of the range in the record's data, sectors; [`Source::ZERO`] for zeros.
    pub skip: u32,
}

impl Source {
    /// The `skip` that stands for zeros.
    pub const ZERO: u32 = u32::MAX;

    /// True if the range reads as zeros.
    pub fn is_zero(&self) -> bool {
        self.skip == Self::ZERO
    }

    fn advance(self, by: u64) -> Self {
        if self.is_zero() {
            return self;
        }
        Self { at: self.at, skip: self.skip + by as u32 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    end: u64,
    source: Source,
}

/// The newest record for each sector that any record covers.
#[derive(Debug, Clone, Default)]
pub struct ExtentMap {
    map: BTreeMap<u64, Extent>,
}

impl ExtentMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of extents.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True if no sector is covered.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Cuts an extent that spans `at` in two.
    fn split(&mut self, at: u64) {
        if let Some((&start, extent)) = self.map.range_mut(..at).next_back()
            && extent.end > at
        {
            let right = Extent { end: extent.end, source: extent.source.advance(at - start) };
            extent.end = at;
            self.map.insert(at, right);
        }
    }

    /// Sets the content of `range` to `source`, over any earlier content.
    pub fn insert(&mut self, range: Range<u64>, source: Source) {
        if range.is_empty() {
            return;
        }
        // Overwriting exactly one extent is the common case, and needs no cutting.
        if let Some(extent) = self.map.get_mut(&range.start)
            && extent.end == range.end
        {
            extent.source = source;
            return;
        }
        self.clear(range.clone());
        self.map.insert(range.start, Extent { end: range.end, source });
    }

    /// Removes the content of `range`.
    pub fn clear(&mut self, range: Range<u64>) {
        self.split(range.start);
        self.split(range.end);
        while let Some((&start, _)) = self.map.range(range.clone()).next() {
            self.map.remove(&start);
        }
    }

    /// Removes, within `range`, the content from records before `before`.
    pub fn clear_older(&mut self, range: Range<u64>, before: u64) {
        // One extent that is exactly the range is the common case, as in `insert`.
        if let Entry::Occupied(extent) = self.map.entry(range.start)
            && extent.get().end == range.end
        {
            if extent.get().source.at < before {
                extent.remove();
            }
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let old: Vec<u64> = self
            .map
            .range(range)
            .filter(|(_, extent)| extent.source.at < before)
            .map(|(&start, _)| start)
            .collect();
        for start in old {
            self.map.remove(&start);
        }
    }

    /// The extents that meet `range`, cut to it, in order.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Source)> + '_ {
        let before = self.map.range(..range.start).next_back().filter(|(_, e)| e.end > range.start);
        let inside = self.map.range(range.start..range.end.max(range.start));
        before.into_iter().chain(inside).map(move |(&start, extent)| {
            let from = start.max(range.start);
            (from..extent.end.min(range.end), extent.source.advance(from - start))
        })
    }

    /// All extents, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, Source)> + '_ {
        self.map.iter().map(|(&start, extent)| (start..extent.end, extent.source))
    }
}

/// A set of block numbers, kept as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    map: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range and joins neighbours.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&s, &e)) = self.map.range(..=end).next_back()
            && e >= start
        {
            start = start.min(s);
            end = end.max(e);
            self.total -= e - s;
            self.map.remove(&s);
        }
        self.total += end - start;
        self.map.insert(start, end);
    }

    /// True if `at` is in the set.
    pub fn contains(&self, at: u64) -> bool {
        self.map.range(..=at).next_back().is_some_and(|(_, &end)| end > at)
    }

    /// The parts of the set within `range`, in order.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.map.range(..range.start).next_back().filter(|(_, e)| **e > range.start);
        let inside = self.map.range(range.start..range.end.max(range.start));
        before.into_iter().chain(inside).map(move |(&s, &e)| s.max(range.start)..e.min(range.end))
    }

    /// All ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.map.iter().map(|(&s, &e)| s..e)
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Number of blocks in the set.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// True if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

    const SECTORS: u64 = 64;

    fn range(rng: &mut impl Rng) -> Range<u64> {
        let start = rng.random_range(0..SECTORS);
        start..rng.random_range(start..=SECTORS)
    }

    #[test]
    fn the_map_agrees_with_an_array() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut map = ExtentMap::new();
            let mut model: Vec<Option<Source>> = vec![None; SECTORS as usize];
            for at in 0..60 {
                let r = range(&mut rng);
                let cells = r.start as usize..r.end as usize;
                match rng.random_range(0..4) {
                    0 => {
                        map.clear(r);
                        model[cells].fill(None);
                    }
                    1 => {
                        let before = rng.random_range(0..=at);
                        map.clear_older(r, before);
                        model[cells].iter_mut().for_each(|c| {
                            *c = c.filter(|s| s.at >= before);
                        });
                    }
                    n => {
                        let skip = if n == 2 { Source::ZERO } else { 0 };
                        map.insert(r, Source { at, skip });
                        for (i, cell) in model[cells].iter_mut().enumerate() {
                            let skip = if n == 2 { Source::ZERO } else { i as u32 };
                            *cell = Some(Source { at, skip });
                        }
                    }
                }
                let window = range(&mut rng);
                let mut seen: Vec<Option<Source>> = vec![None; SECTORS as usize];
                for (r, source) in map.within(window.clone()) {
                    for (i, s) in r.enumerate() {
                        seen[s as usize] = Some(source.advance(i as u64));
                    }
                }
                for s in window {
                    assert_eq!(seen[s as usize], model[s as usize], "seed {seed}, sector {s}");
                }
            }
        }
    }

    #[test]
    fn the_set_agrees_with_an_array() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut set = RangeSet::new();
            let mut model = [false; SECTORS as usize];
            for _ in 0..10 {
                let r = range(&mut rng);
                set.insert(r.clone());
                model[r.start as usize..r.end as usize].fill(true);
                for (s, in_model) in model.iter().enumerate() {
                    assert_eq!(set.contains(s as u64), *in_model, "seed {seed}, {s}");
                }
                assert_eq!(set.total(), model.iter().filter(|in_model| **in_model).count() as u64);
                let window = range(&mut rng);
                let counted: u64 = set.within(window.clone()).map(|r| r.end - r.start).sum();
                let wanted = window.filter(|s| model[*s as usize]).count() as u64;
                assert_eq!(counted, wanted, "seed {seed}");
            }
        }
    }
}
