//! Building a disk's segment: the blocks of a batch come from the log and from the base state.
//!
//! A batch is built only from the log and from the state at the end of the batch before.

use crate::disk::Volume;
use crate::disk::io::RESOLVE_TRIES_MAX;
use crate::disk::payload::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::streams::stream::payload::Planned;
use crate::streams::stream::state::{Batch, State};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::MutexGuard;
use skerry_core::batch::{self, BatchPlan};
use skerry_core::extents::ExtentMap;
use skerry_core::ops::Op;
use skerry_core::overlay::Overlay;
use skerry_core::record::RECORD_HEAD;
use skerry_core::segment::{BlockIn, BuiltSegment, SegmentId, build};
use skerry_core::size::SECTOR_BYTES;
use skerry_log::LogPosition;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Number of base blocks of partial writes read at once: a batch must not pay a round trip for
/// each.
const BASES_AT_ONCE: usize = 16;
/// Number of blocks applied under one hold of the state's lock. It bounds the wait of a client.
const APPLY_BLOCKS: usize = 256;

/// The plan of a batch's blocks, and the base blocks of partial writes.
pub struct Plan {
    batch: BatchPlan,
    base: HashMap<u64, Bytes>,
}

/// Plans a batch. The plan counts memory for its blocks, for their base, and for the segment.
pub(super) fn plan(volume: &Volume, batch: &Batch<Disk>) -> Planned<Disk> {
    let block = volume.desc.block;
    let size = batch.size_before.max(batch.size_after);
    let plan = batch::plan(&batch.content.spans, block, size);
    let bases = plan.blocks.iter().filter(|b| b.needs_base).count();
    Planned {
        room_bytes: (2 * plan.blocks.len() + bases) * block.bytes(),
        needs_base: bases > 0,
        plan: Plan { batch: plan, base: HashMap::new() },
    }
}

impl Volume {
    /// Reads the base blocks of a batch's partial writes, several at once.
    pub(super) async fn read_base(self: &Arc<Self>, plan: &mut Plan) -> Result<()> {
        let blocks = plan.batch.blocks.iter();
        let partial: Vec<u64> = blocks.filter(|b| b.needs_base).map(|b| b.index).collect();
        let read = futures::stream::iter(partial).map(|index| {
            let volume = self.clone();
            async move { volume.base_block(index).await.map(|block| (index, block)) }
        });
        plan.base = read.buffer_unordered(BASES_AT_ONCE).try_collect().await?;
        Ok(())
    }

    /// Reads a block at the end of the batches in the bucket; zeros for a hole.
    async fn base_block(&self, index: u64) -> Result<Bytes> {
        let mut waiting = self.ctx.work_waits();
        let mut overtaken = 0;
        loop {
            match self.read_base_block(index).await {
                Ok(Some(block)) => return Ok(block),
                Ok(None) => return Ok(Bytes::from(vec![0; self.desc.block.bytes()])),
                // A node or a segment was collected while this read was under way: look again.
                Err(e) if e.kind() == ErrorKind::NotFound && overtaken < RESOLVE_TRIES_MAX => {
                    overtaken += 1;
                    self.check_in_service()?;
                }
                Err(e) => {
                    waiting.after(e).await?;
                    self.check_in_service()?;
                }
            }
        }
    }

    /// Puts a batch's blocks together from the log and builds its segment. Computes and reads the
    /// log; waits for nothing.
    pub(super) fn assemble(
        &self,
        id: &SegmentId,
        plan: &Plan,
        more: Vec<Op>,
    ) -> Result<(BuiltSegment, Vec<Range<u64>>)> {
        let Plan { batch: plan, base } = plan;
        let bytes = self.desc.block.bytes();
        let mut raw = self.ctx.scratch.take(plan.blocks.len() * bytes);
        for (block, out) in plan.blocks.iter().zip(raw.chunks_exact_mut(bytes)) {
            match base.get(&block.index) {
                Some(base) => out.copy_from_slice(base),
                None if plan.covers(block, bytes) => {}
                None => out.fill(0),
            }
        }
        self.copy_pieces(plan, &mut raw)?;
        let mut zeros: Vec<Range<u64>> = plan.zeros.clone();
        let mut blocks = Vec::with_capacity(plan.blocks.len());
        for (block, data) in plan.blocks.iter().zip(raw.chunks_exact(bytes)) {
            if is_zero(data) {
                zeros.push(block.index..block.index + 1);
            } else {
                blocks.push(BlockIn { index: block.index, data });
            }
        }
        let zeros = join_ranges(zeros);
        let mut ops: Vec<Op> =
            zeros.iter().map(|r| Op::Zero { first: r.start, blocks: r.end - r.start }).collect();
        ops.extend(more);
        let segment = build(id, &ops, &blocks);
        self.ctx.scratch.give_back(raw);
        Ok((segment, zeros))
    }

    /// Copies every piece from its record, and verifies each record.
    fn copy_pieces(&self, plan: &BatchPlan, raw: &mut [u8]) -> Result<()> {
        let bytes = self.desc.block.bytes();
        let mut todo: Vec<(u64, usize, usize)> = Vec::with_capacity(plan.pieces.len());
        for (b, block) in plan.blocks.iter().enumerate() {
            for p in block.pieces.start as usize..block.pieces.end as usize {
                todo.push((plan.pieces[p].source.at, p, b * bytes));
            }
        }
        todo.sort_unstable();
        let mut window = self.ctx.log.window();
        for (at, p, offset) in todo {
            let piece = &plan.pieces[p];
            let start = offset + piece.at as usize;
            let out = &mut raw[start..start + piece.len as usize];
            if piece.source.is_zero() {
                out.fill(0);
                continue;
            }
            let payload = window.read(LogPosition::from_u64(at))?.ok_or_else(|| {
                Error::internal(format!("log record {at}"), "was let go before it was destaged")
            })?;
            let from = RECORD_HEAD + piece.source.skip as usize * SECTOR_BYTES as usize;
            let data = payload.get(from..from + out.len()).ok_or_else(|| {
                Error::corrupt(format!("log record {at}"), "is shorter than was written")
            })?;
            out.copy_from_slice(data);
        }
        Ok(())
    }

    /// Applies a durable segment to the overlay.
    pub(super) fn apply_blocks(&self, segment: &BuiltSegment, zeros: &[Range<u64>]) {
        for zeros in zeros {
            self.in_pieces(zeros.clone(), |state, rest| {
                let end = end_of_changes(&state.changes, rest.clone());
                state.changes.zero(rest.start..end);
                end
            });
        }
        if !segment.entries.is_empty() {
            let length = segment.len_bytes() as u64;
            self.state.lock().changes.note_length(segment.key, length);
        }
        for chunk in segment.entries.chunks(APPLY_BLOCKS) {
            let mut state = self.state.lock();
            chunk.iter().for_each(|(index, entry)| state.changes.set(*index, entry));
        }
    }

    /// Removes from the live index the ranges that the overlay has now.
    pub(super) fn forget_live(&self, built: &BuiltSegment, zeros: &[Range<u64>], before: u64) {
        let per_block = self.desc.block.bytes() as u64 / SECTOR_BYTES;
        let sectors = |blocks: &Range<u64>| blocks.start * per_block..blocks.end * per_block;
        for zeros in zeros {
            self.in_pieces(sectors(zeros), |state, rest| {
                let live = &mut state.payload.live;
                let end = end_of_extents(live, rest.clone(), APPLY_BLOCKS);
                live.clear_older(rest.start..end, before);
                end
            });
        }
        for chunk in built.entries.chunks(APPLY_BLOCKS) {
            let mut state = self.state.lock();
            for (index, _) in chunk {
                state.payload.live.clear_older(sectors(&(*index..index + 1)), before);
            }
        }
    }

    /// Works on all of `range`, piece by piece. `work` does the next piece and gives its end.
    /// Between two pieces, clients that wait for the state's lock get it.
    fn in_pieces(
        &self,
        range: Range<u64>,
        mut work: impl FnMut(&mut State<Disk>, Range<u64>) -> u64,
    ) {
        let mut at = range.start;
        while at < range.end {
            let mut state = self.state.lock();
            at = work(&mut state, at..range.end);
            MutexGuard::unlock_fair(state);
        }
    }
}

/// The end of a piece of `rest` with few enough changes to apply under one hold of the lock: set
/// blocks, and ranges of zeros.
fn end_of_changes(changes: &Overlay, rest: Range<u64>) -> u64 {
    let set = changes.entries_within(rest.clone()).nth(APPLY_BLOCKS).map(|next| next.index);
    let zeroed = changes.zeroed_within(rest.clone()).nth(APPLY_BLOCKS).map(|next| next.start);
    set.into_iter().chain(zeroed).min().unwrap_or(rest.end)
}

/// The end of a piece of `rest` with `max` extents at most.
pub(super) fn end_of_extents(live: &ExtentMap, rest: Range<u64>, max: usize) -> u64 {
    live.within(rest.clone()).nth(max).map_or(rest.end, |(next, _)| next.start)
}

fn is_zero(data: &[u8]) -> bool {
    // A block's first byte almost always tells. Comparing it with itself shifted tells for sure, at
    // memcmp's speed.
    data.first() == Some(&0) && data[..data.len() - 1] == data[1..]
}

fn join_ranges(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_core::extents::Source;

    /// A trim over many extents runs in pieces of a few, and all of it is done.
    #[test]
    fn a_piece_of_a_trim_holds_few_extents() {
        const EXTENTS: u64 = 10_000;
        let mut live = ExtentMap::new();
        for n in 0..EXTENTS {
            live.insert(n * 16..n * 16 + 1, Source { at: n + 1, skip: 0 });
        }
        let (mut at, end, mut pieces) = (0, EXTENTS * 16, 0);
        while at < end {
            let before = live.len();
            let next = end_of_extents(&live, at..end, APPLY_BLOCKS);
            live.clear_older(at..next, EXTENTS + 1);
            assert!(next > at && before - live.len() <= APPLY_BLOCKS, "{at}..{next}");
            (at, pieces) = (next, pieces + 1);
        }
        assert!(live.is_empty() && pieces > 30, "{pieces} pieces, {} left", live.len());
    }

    /// A trim over ranges that were trimmed before is done in pieces of a few ranges, too.
    #[test]
    fn a_piece_of_a_trim_holds_few_ranges_of_zeros() {
        const RANGES: u64 = 10_000;
        let mut changes = Overlay::new();
        (0..RANGES).for_each(|n| changes.zero(n * 16..n * 16 + 1));
        let (mut at, end, mut pieces) = (0, RANGES * 16, 0);
        while at < end {
            let before = changes.zeroed().len();
            let next = end_of_changes(&changes, at..end);
            changes.zero(at..next);
            let joined = before - changes.zeroed().len();
            assert!(next > at && joined <= APPLY_BLOCKS, "{joined} ranges within {at}..{next}");
            (at, pieces) = (next, pieces + 1);
        }
        assert_eq!((changes.zeroed().len(), changes.zeroed().total()), (1, end));
        assert!(pieces > 30, "{pieces} pieces");
    }
}
