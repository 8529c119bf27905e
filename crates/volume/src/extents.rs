//! Which ranges hold data and which are holes, and in which ranges two states differ.

use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::info::{DiffRange, StatusRange};
use crate::state::State;
use crate::volume::{RESOLVE_TRIES_MAX, Volume};
use skerry_core::extents::{ExtentMap, Source};
use skerry_core::node::NodePtr;
use skerry_core::overlay::{Overlaid, Overlay};
use skerry_core::size::SECTOR_BYTES;
use skerry_store::tree::{self, Scan};
use skerry_store::view::View;
use std::collections::BTreeSet;
use std::ops::Range;

const DATA: Source = Source { at: 0, skip: 0 };
const HOLE: Source = Source { at: 0, skip: Source::ZERO };

/// What a state says of a range, without the tree: to be laid over what the tree says.
pub(crate) struct Layers {
    range: Range<u64>,
    top: Option<NodePtr>,
    over: ExtentMap,
    per_block: u64,
}

impl Layers {
    /// Copies what the state says of `range` (sectors).
    pub(crate) fn of(state: &State, range: Range<u64>) -> Self {
        let per_block = state.block.bytes() as u64 / SECTOR_BYTES;
        let mut over = ExtentMap::new();
        if let Some(frozen) = &state.frozen {
            lay(&mut over, frozen, per_block, &range);
        }
        lay(&mut over, &state.overlay, per_block, &range);
        for (extent, source) in state.live.within(range.clone()) {
            over.insert(extent, if source.is_zero() { HOLE } else { DATA });
        }
        Self { range, top: state.top(), over, per_block }
    }

    /// The first `max` ranges, bytes, in order, without gaps; neighbours of one kind are joined. One leaf is
    /// looked at after the other, so that no more is in memory than is given.
    pub(crate) async fn ranges(self, ctx: &Context, max: usize) -> Result<Vec<StatusRange>> {
        let blocks = self.range.start / self.per_block..self.range.end.div_ceil(self.per_block);
        let mut scan = Scan::new(&ctx.nodes, self.top, blocks);
        let mut out: Vec<StatusRange> = Vec::new();
        let mut cursor = self.range.start;
        // The last one may yet grow.
        while out.len() <= max && cursor < self.range.end {
            let mut here = ExtentMap::new();
            let known = match scan.next_leaf().await? {
                Some(leaf) => {
                    for (index, _) in &leaf {
                        here.insert(index * self.per_block..(index + 1) * self.per_block, DATA);
                    }
                    let end = leaf.last().map_or(cursor, |(index, _)| (index + 1) * self.per_block);
                    end.min(self.range.end)
                }
                None => self.range.end,
            };
            for (extent, source) in self.over.within(cursor..known) {
                here.insert(extent, source);
            }
            for (extent, source) in here.within(cursor..known) {
                push(&mut out, cursor..extent.start, true);
                push(&mut out, extent.clone(), source.is_zero());
                cursor = extent.end;
            }
            push(&mut out, cursor..known, true);
            cursor = known;
        }
        out.truncate(max);
        Ok(out)
    }
}

impl Volume {
    /// Which parts of a range (bytes) hold data, as [`Layers::ranges`] tells it; a hole is as good as a read of zeros,
    /// so it is told only by who may serve reads.
    pub(crate) async fn block_status(
        &self,
        range: Range<u64>,
        max: usize,
        generation: u64,
    ) -> Result<Vec<StatusRange>> {
        self.check_fence().await?;
        let sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
        let mut tries = 0;
        loop {
            let layers = Layers::of(&*self.admit(&range, generation)?, sectors.clone());
            match layers.ranges(&self.ctx, max).await {
                // A node that was collected while this looked: look again.
                Err(e) if e.kind() == ErrorKind::NotFound && tries < RESOLVE_TRIES_MAX => {
                    tries += 1
                }
                Err(e) => return Err(self.if_missing(e).await),
                done => return done,
            }
        }
    }
}

fn lay(over: &mut ExtentMap, overlay: &Overlay, per_block: u64, range: &Range<u64>) {
    let blocks = range.start / per_block..range.end.div_ceil(per_block);
    for zero in overlay.zeroed_within(blocks.clone()) {
        over.insert(zero.start * per_block..zero.end * per_block, HOLE);
    }
    for change in overlay.entries_within(blocks) {
        over.insert(change.index * per_block..(change.index + 1) * per_block, DATA);
    }
}

fn push(out: &mut Vec<StatusRange>, sectors: Range<u64>, hole: bool) {
    if sectors.is_empty() {
        return;
    }
    let (offset, length) =
        (sectors.start * SECTOR_BYTES, (sectors.end - sectors.start) * SECTOR_BYTES);
    match out.last_mut() {
        Some(last) if last.hole == hole => last.length += length,
        _ => out.push(StatusRange { offset, length, hole }),
    }
}

/// In which ranges two views differ, as seen from the second.
pub(crate) async fn diff(ctx: &Context, a: &View, b: &View) -> Result<Vec<DiffRange>> {
    let block = a.root.block;
    let mut suspects = BTreeSet::new();
    let mut found = Vec::new();
    tree::diff(&ctx.nodes, a.root.top, b.root.top, &mut found).await?;
    suspects.extend(found);
    for overlay in [&a.overlay, &b.overlay] {
        suspects.extend(overlay.entries().map(|change| change.index));
        for zero in overlay.zeroed().iter() {
            for top in [a.root.top, b.root.top] {
                let mut scan = Scan::new(&ctx.nodes, top, zero.clone());
                while let Some(entries) = scan.next_leaf().await? {
                    suspects.extend(entries.into_iter().map(|(index, _)| index));
                }
            }
        }
    }
    let end = a.size_bytes.max(b.size_bytes);
    let mut out: Vec<DiffRange> = Vec::new();
    for index in suspects {
        let (was, is) = (entry(ctx, a, index).await?, entry(ctx, b, index).await?);
        let offset = block.offset(index);
        if was == is || offset >= end {
            continue;
        }
        let length = (block.bytes() as u64).min(end - offset);
        let zero = is.is_none();
        match out.last_mut() {
            Some(last) if last.offset + last.length == offset && last.zero == zero => {
                last.length += length;
            }
            _ => out.push(DiffRange { offset, length, zero }),
        }
    }
    Ok(out)
}

async fn entry(
    ctx: &Context,
    view: &View,
    index: u64,
) -> Result<Option<skerry_core::entry::BlockEntry>> {
    Ok(match view.overlay.get(index) {
        Overlaid::Data(entry) => Some(entry),
        Overlaid::Zero => None,
        Overlaid::Below => tree::lookup(&ctx.nodes, view.root.top, index).await?,
    })
}
