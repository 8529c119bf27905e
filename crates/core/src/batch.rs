//! Destage, decided: turns a batch's records into the blocks and zero ranges of its segment.
//!
//! The planner cuts a batch by log position before it sorts. So the bucket always has a state that
//! the volume really had. A partial block merges with the state at the end of the batch before,
//! never with the live index.

use crate::extents::{ExtentMap, Source};
use crate::size::{BlockSize, SECTOR_BYTES};
use std::ops::Range;

/// A record's range of sectors and where its content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// First sector.
    pub start: u64,
    /// First sector after it.
    pub end: u64,
    /// Place of its content.
    pub source: Source,
}

/// A part of a block and the source of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the block, bytes.
    pub at: u32,
    /// Length, bytes.
    pub len: u32,
    /// The record, or zeros.
    pub source: Source,
}

/// A block of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPlan {
    /// Number of the block in the volume.
    pub index: u64,
    /// Its pieces, as a range of [`BatchPlan::pieces`].
    pub pieces: Range<u32>,
    /// True if part of it comes from the state before the batch.
    pub needs_base: bool,
}

/// Content of the batch's segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchPlan {
    /// Blocks that are zeros as a whole, in order.
    pub zeros: Vec<Range<u64>>,
    /// Blocks to put together, in order.
    pub blocks: Vec<BlockPlan>,
    /// The pieces of all blocks.
    pub pieces: Vec<Piece>,
}

impl BatchPlan {
    /// True if the pieces of a block give every one of its `bytes` bytes.
    pub fn covers(&self, block: &BlockPlan, bytes: usize) -> bool {
        let pieces = &self.pieces[block.pieces.start as usize..block.pieces.end as usize];
        pieces.iter().map(|piece| piece.len as usize).sum::<usize>() == bytes
    }
}

/// Plans a batch of spans in log order. `size_bytes` is the larger of the volume's sizes before and
/// after it. Bytes of the last block past the volume's end count as zeros.
pub fn plan(spans: &[Span], block: BlockSize, size_bytes: u64) -> BatchPlan {
    let mut merged = ExtentMap::new();
    for span in spans {
        merged.insert(span.start..span.end, span.source);
    }
    let per_block = block.bytes() as u64 / SECTOR_BYTES;
    let sectors = size_bytes / SECTOR_BYTES;
    let mut planner = Planner { per_block, sectors, plan: BatchPlan::default() };
    for (range, source) in merged.iter() {
        planner.add(range, source);
    }
    planner.finish()
}

struct Planner {
    per_block: u64,
    sectors: u64,
    plan: BatchPlan,
}

impl Planner {
    fn add(&mut self, range: Range<u64>, source: Source) {
        if !source.is_zero() {
            return self.add_pieces(range, source);
        }
        // The middle of a zero range is whole blocks; only its ends can be partial.
        let first_whole = range.start.div_ceil(self.per_block);
        let to_end = range.end >= self.sectors;
        let after_whole =
            if to_end { range.end.div_ceil(self.per_block) } else { range.end / self.per_block };
        if first_whole >= after_whole {
            return self.add_pieces(range, source);
        }
        self.add_pieces(range.start..first_whole * self.per_block, source);
        self.add_zeros(first_whole..after_whole);
        self.add_pieces((after_whole * self.per_block).min(range.end)..range.end, source);
    }

    fn add_zeros(&mut self, blocks: Range<u64>) {
        match self.plan.zeros.last_mut() {
            Some(last) if last.end == blocks.start => last.end = blocks.end,
            _ => self.plan.zeros.push(blocks),
        }
    }

    fn add_pieces(&mut self, range: Range<u64>, source: Source) {
        let mut sector = range.start;
        while sector < range.end {
            let index = sector / self.per_block;
            let end = range.end.min((index + 1) * self.per_block);
            let skip = if source.is_zero() {
                Source::ZERO
            } else {
                source.skip + (sector - range.start) as u32
            };
            let at = ((sector - index * self.per_block) * SECTOR_BYTES) as u32;
            let len = ((end - sector) * SECTOR_BYTES) as u32;
            let place = self.plan.pieces.len() as u32;
            match self.plan.blocks.last_mut() {
                Some(block) if block.index == index => block.pieces.end = place + 1,
                _ => self.plan.blocks.push(BlockPlan {
                    index,
                    pieces: place..place + 1,
                    needs_base: false,
                }),
            }
            self.plan.pieces.push(Piece { at, len, source: Source { at: source.at, skip } });
            sector = end;
        }
    }

    fn finish(mut self) -> BatchPlan {
        for block in &mut self.plan.blocks {
            let pieces = &self.plan.pieces[block.pieces.start as usize..block.pieces.end as usize];
            let covered: u64 = pieces.iter().map(|p| u64::from(p.len)).sum();
            let start = block.index * self.per_block;
            let wanted = (start + self.per_block).min(self.sectors.max(start + 1)) - start;
            block.needs_base = covered < wanted * SECTOR_BYTES;
        }
        self.plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// Checks that the plan, replayed, gives the same bytes as the records.
    #[test]
    fn the_plan_says_what_the_records_said() {
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let size = rng.random_range(1..200u64);
            let mut model: Vec<Option<Source>> = vec![None; size as usize + 8];
            let mut spans = Vec::new();
            for at in 0..rng.random_range(1..20) {
                let start = rng.random_range(0..size);
                let end = rng.random_range(start + 1..=size);
                let zero = rng.random_bool(0.4);
                let skip = if zero { Source::ZERO } else { 0 };
                spans.push(Span { start, end, source: Source { at, skip } });
                for s in start..end {
                    let skip = if zero { Source::ZERO } else { (s - start) as u32 };
                    model[s as usize] = Some(Source { at, skip });
                }
            }
            let plan = plan(&spans, BlockSize::default(), size * 512);
            let mut seen: Vec<Option<Source>> = vec![None; model.len()];
            let mut whole_zero = vec![false; model.len()];
            for zeros in &plan.zeros {
                for s in zeros.start * 8..(zeros.end * 8).min(model.len() as u64) {
                    whole_zero[s as usize] = true;
                }
            }
            for block in &plan.blocks {
                let mut covered = 0;
                for p in &plan.pieces[block.pieces.start as usize..block.pieces.end as usize] {
                    for i in 0..p.len / 512 {
                        let s = block.index * 8 + u64::from(p.at / 512 + i);
                        let skip =
                            if p.source.is_zero() { Source::ZERO } else { p.source.skip + i };
                        assert!(seen[s as usize].is_none() && !whole_zero[s as usize]);
                        seen[s as usize] = Some(Source { at: p.source.at, skip });
                        covered += 1;
                    }
                }
                let wanted = 8.min(size.saturating_sub(block.index * 8)).max(1);
                assert_eq!(block.needs_base, covered < wanted, "seed {seed}");
            }
            for s in 0..size as usize {
                match model[s] {
                    Some(source) if whole_zero[s] => assert!(source.is_zero(), "seed {seed} {s}"),
                    other => assert_eq!(seen[s], other, "seed {seed}, sector {s}"),
                }
            }
            assert!(plan.blocks.windows(2).all(|w| w[0].index < w[1].index));
        }
    }
}
