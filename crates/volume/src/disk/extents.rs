//! Ranges with data and holes, and ranges in which two states differ.

use crate::context::Context;
use crate::disk::Engine;
use crate::disk::Volume;
use crate::disk::io::RESOLVE_TRIES_MAX;
use crate::disk::payload::Disk;
use crate::error::{ErrorKind, Result};
use crate::info::DiffRange;
use crate::streams::stream::state::State;
use skerry_core::entry::BlockEntry;
use skerry_core::extents::{ExtentMap, Source};
use skerry_core::map_node::MapNodePtr;
use skerry_core::name::Name;
use skerry_core::overlay::{Overlaid, Overlay};
use skerry_core::size::SECTOR_BYTES;
use skerry_device::StatusRange;
use skerry_store::map::nodes::MapNodes;
use skerry_store::map::tree::{self, Diff, Scan};
use skerry_store::refs::view::{self, View};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const DATA: Source = Source { at: 0, skip: 0 };
const HOLE: Source = Source { at: 0, skip: Source::ZERO };

/// Number of entries of a layer copied under the lock. It bounds the wait of writers.
const WINDOW_ENTRIES: usize = 256;
/// Number of blocks that a comparison of two snapshots looks at together, of the trees and of each
/// layer: about 100 bytes each.
const SUSPECTS_MAX: usize = 16 << 10;
/// Leaves and windows that one answer looks at. A client that wants more asks on from the end of
/// the answer.
const LOOKS_MAX: usize = 256;

/// The beginning of a range in a state, without the tree: to be laid over the tree.
pub(crate) struct Window {
    /// Its sectors.
    range: Range<u64>,
    top: Option<MapNodePtr>,
    /// The overlays that checkpoints write or wait for, below `over`.
    frozen: Vec<Arc<Overlay>>,
    over: ExtentMap,
    per_block: u64,
}

impl Window {
    /// Copies the beginning of `range` (sectors) from a state, as far as it is small.
    pub(crate) fn of(state: &State<Disk>, range: Range<u64>) -> Self {
        let per_block = state.payload.block.bytes() as u64 / SECTOR_BYTES;
        let mut window = Self {
            range,
            top: state.top(),
            frozen: state.frozen.iter().cloned().collect(),
            over: ExtentMap::new(),
            per_block,
        };
        let live: Vec<_> =
            window.head(state.payload.live.within(window.range.clone()), |(at, _)| at.clone());
        window.lay(&state.changes);
        for (extent, source) in live {
            let end = extent.end.min(window.range.end);
            window.over.insert(extent.start..end, if source.is_zero() { HOLE } else { DATA });
        }
        window
    }

    /// The first entries of a layer. The window ends before the entries that don't fit.
    fn head<T>(
        &mut self,
        entries: impl Iterator<Item = T>,
        sectors: impl Fn(&T) -> Range<u64>,
    ) -> Vec<T> {
        let mut head: Vec<T> = entries.take(WINDOW_ENTRIES + 1).collect();
        if head.len() > WINDOW_ENTRIES
            && let Some(next) = head.pop()
        {
            self.range.end = self.range.end.min(sectors(&next).start.max(self.range.start + 1));
        }
        head
    }

    /// Lays the beginning of an overlay over the window.
    fn lay(&mut self, overlay: &Overlay) {
        let per_block = self.per_block;
        let sectors = move |blocks: &Range<u64>| blocks.start * per_block..blocks.end * per_block;
        let blocks = self.range.start / per_block..self.range.end.div_ceil(per_block);
        let zeroed = self.head(overlay.zeroed_within(blocks.clone()), sectors);
        let entries = self.head(overlay.entries_within(blocks), move |change| {
            sectors(&(change.index..change.index + 1))
        });
        for zero in zeroed {
            self.insert(sectors(&zero), HOLE);
        }
        for change in entries {
            self.insert(sectors(&(change.index..change.index + 1)), DATA);
        }
    }

    fn insert(&mut self, sectors: Range<u64>, source: Source) {
        self.over.insert(sectors.start..sectors.end.min(self.range.end).max(sectors.start), source);
    }

    /// Adds the window to `answer`, one leaf of the tree after the other, until that is enough.
    async fn tell(mut self, ctx: &Context, answer: &mut Answer) -> Result<()> {
        while let Some(frozen) = self.frozen.pop() {
            let over = std::mem::take(&mut self.over);
            self.lay(&frozen);
            for (extent, source) in over.within(self.range.clone()) {
                self.over.insert(extent, source);
            }
        }
        let blocks = self.range.start / self.per_block..self.range.end.div_ceil(self.per_block);
        let mut scan = Scan::new(&ctx.map_nodes, self.top, blocks);
        while !answer.is_enough() && answer.cursor < self.range.end {
            answer.looks += 1;
            let mut here = ExtentMap::new();
            let known = match scan.next_leaf().await? {
                Some(leaf) => {
                    for (index, _) in &leaf {
                        here.insert(index * self.per_block..(index + 1) * self.per_block, DATA);
                    }
                    let end = leaf
                        .last()
                        .map_or(answer.cursor, |(index, _)| (index + 1) * self.per_block);
                    end.min(self.range.end)
                }
                None => self.range.end,
            };
            for (extent, source) in self.over.within(answer.cursor..known) {
                here.insert(extent, source);
            }
            answer.add(&here, known);
        }
        Ok(())
    }
}

/// Ranges in order, without gaps; neighbours of one kind are joined.
struct Answer {
    ranges: Vec<StatusRange>,
    max: usize,
    /// The sector up to which they reach.
    cursor: u64,
    /// Number of leaves looked at.
    looks: usize,
}

impl Answer {
    /// True if the answer is complete. The last range may still grow, so this takes one more than
    /// wanted.
    fn is_enough(&self) -> bool {
        self.ranges.len() > self.max || (self.looks >= LOOKS_MAX && !self.ranges.is_empty())
    }

    fn add(&mut self, here: &ExtentMap, known: u64) {
        for (extent, source) in here.within(self.cursor..known) {
            push(&mut self.ranges, self.cursor..extent.start, true);
            push(&mut self.ranges, extent.clone(), source.is_zero());
            self.cursor = extent.end;
        }
        push(&mut self.ranges, self.cursor..known, true);
        self.cursor = known.max(self.cursor);
    }
}

/// Tells which parts of `range` (bytes) hold data: at most `max` ranges from its beginning on, in
/// order, without gaps. The work is in proportion to the answer. `window` gives the beginning of a
/// range in a state, at one moment.
pub(crate) async fn status(
    ctx: &Context,
    range: &Range<u64>,
    max: usize,
    window: impl Fn(Range<u64>) -> Result<Window>,
) -> Result<Vec<StatusRange>> {
    let (start, end) = (range.start / SECTOR_BYTES, range.end.div_ceil(SECTOR_BYTES));
    let mut answer = Answer { ranges: Vec::new(), max, cursor: start, looks: 0 };
    let mut tries = 0;
    while answer.cursor < end && !answer.is_enough() {
        match window(answer.cursor..end)?.tell(ctx, &mut answer).await {
            // A node was collected while this looked: look again.
            Err(e) if e.kind() == ErrorKind::NotFound && tries < RESOLVE_TRIES_MAX => tries += 1,
            told => told?,
        }
    }
    answer.ranges.truncate(max);
    Ok(answer.ranges)
}

impl Volume {
    /// Tells which parts of a range (bytes) hold data, as [`status`] does. A hole promises zeros,
    /// so only a node that may serve reads tells it.
    pub(crate) async fn block_status(
        &self,
        range: Range<u64>,
        max: usize,
        generation: u64,
    ) -> Result<Vec<StatusRange>> {
        self.check_fence_patiently().await?;
        let mut waiting = self.ctx.guest_waits();
        loop {
            let window = |rest| Ok(Window::of(&*self.admit_range(&range, generation)?, rest));
            match status(&self.ctx, &range, max, window).await {
                Err(e) => waiting.after(self.if_missing(e).await).await?,
                told => return told,
            }
        }
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

impl Engine {
    /// Finds the ranges in which two snapshots of a volume differ.
    pub async fn diff_snapshots(
        &self,
        volume: &Name,
        from: &Name,
        to: &Name,
    ) -> Result<Vec<DiffRange>> {
        let id = self.resolve(volume).await?;
        let a = self.published(id, volume, from).await?;
        let b = self.published(id, volume, to).await?;
        let a = view::open(&self.ctx.bucket, id, &a.base).await?;
        let b = view::open(&self.ctx.bucket, id, &b.base).await?;
        self::diff(&self.ctx, &a, &b).await
    }
}

/// Finds the ranges in which two views differ, seen from the second.
pub(crate) async fn diff(ctx: &Context, a: &View, b: &View) -> Result<Vec<DiffRange>> {
    let block = a.root.block;
    let end = a.size_bytes.max(b.size_bytes);
    let mut out: Vec<DiffRange> = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let suspects = Suspects::from(&ctx.map_nodes, [a, b], from, SUSPECTS_MAX).await?;
        for (index, known) in suspects.blocks {
            let (was, is) = match known {
                Some(known) => known,
                None => (entry(ctx, a, index).await?, entry(ctx, b, index).await?),
            };
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
        next = suspects.next;
    }
    Ok(out)
}

/// The entries of a block before and after, where the trees alone tell.
type Known = Option<(Option<BlockEntry>, Option<BlockEntry>)>;

/// The blocks of a stretch in which two views may differ.
struct Suspects {
    blocks: BTreeMap<u64, Known>,
    /// Beginning of the next stretch; none at the end.
    next: Option<u64>,
}

impl Suspects {
    /// Finds the suspects of the stretch that begins with a block. It ends where the trees, or one
    /// layer over them, have `max`.
    async fn from(nodes: &MapNodes, views: [&View; 2], from: u64, max: usize) -> Result<Self> {
        let mut found = Self { blocks: BTreeMap::new(), next: None };
        let tops = views.map(|view| view.root.top);
        let mut trees = Diff::new(nodes, tops[0], tops[1], from);
        let mut differing = 0;
        while let Some(leaf) = trees.next_leaf().await? {
            differing += leaf.len();
            let last = leaf.last().map(|block| block.index);
            for block in leaf {
                let is_below =
                    |view: &&View| matches!(view.changes.get(block.index), Overlaid::Below);
                let known = views.iter().all(is_below).then_some((block.was, block.is));
                found.blocks.insert(block.index, known);
            }
            if differing >= max {
                found.next = last.map(|last| last + 1);
                break;
            }
        }
        for view in views {
            let written = view.changes.entries_within(from..found.end()).map(|change| change.index);
            let written: Vec<u64> = written.take(max).collect();
            found.add(&written, max);
            for top in tops {
                let zeroed = mapped(nodes, top, &view.changes, from..found.end(), max).await?;
                found.add(&zeroed, max);
            }
        }
        let end = found.end();
        found.blocks.split_off(&end);
        Ok(found)
    }

    fn end(&self) -> u64 {
        self.next.unwrap_or(u64::MAX)
    }

    /// Adds blocks of a layer, in order. If they are too many, the stretch ends behind them.
    fn add(&mut self, blocks: &[u64], max: usize) {
        for index in blocks {
            self.blocks.entry(*index).or_insert(None);
        }
        if let Some(last) = blocks.last().filter(|_| blocks.len() >= max) {
            self.next = Some(self.end().min(last + 1));
        }
    }
}

/// The first blocks of a range that an overlay zeroes and a tree maps; a few more than `max` at
/// most.
async fn mapped(
    nodes: &MapNodes,
    top: Option<MapNodePtr>,
    overlay: &Overlay,
    range: Range<u64>,
    max: usize,
) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for zero in overlay.zeroed_within(range) {
        let mut scan = Scan::new(nodes, top, zero);
        while let Some(leaf) = scan.next_leaf().await? {
            found.extend(leaf.into_iter().map(|(index, _)| index));
            if found.len() >= max {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

async fn entry(ctx: &Context, view: &View, index: u64) -> Result<Option<BlockEntry>> {
    Ok(match view.changes.get(index) {
        Overlaid::Data(entry) => Some(entry),
        Overlaid::Zero => None,
        Overlaid::Below => tree::lookup(&ctx.map_nodes, view.root.top, index).await?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use skerry_core::env::{Clock, Entropy};
    use skerry_core::id::VolumeId;
    use skerry_core::position::{Number, Position, SegmentKey};
    use skerry_core::record::Action;
    use skerry_core::root::Root;
    use skerry_core::size::BlockSize;
    use skerry_store::map::checkpoint::{self, Facts};
    use skerry_store::map::node_writer::MapNodeLane;
    use skerry_store::objects::bucket::{Bucket, Env};
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// A window of a state of any size copies little, and the windows together tell everything.
    #[test]
    fn a_window_copies_little_and_windows_tell_all() {
        let block = BlockSize::from_bytes(4096).expect("a block size");
        let size = 1 << 30;
        let view =
            View::of_root(VolumeId([1; 16]), Root::empty(size, block, "disk"), Position::default());
        let mut state: State<Disk> = State::of(view);
        let segment = SegmentKey { stream: skerry_core::id::StreamId([1; 16]), number: Number(1) };
        for n in 0..20_000u64 {
            let (offset, len) = (n * 8192, 512);
            let action = match n % 3 {
                0 => Action::Zero { offset, len },
                _ => Action::Write { offset, len },
            };
            state.content(&action, n + 1, std::time::Duration::ZERO);
            state
                .changes
                .set(n * 2 + 1, &BlockEntry { segment, offset: 0, len: 1, slot: 0, source: 0 });
            state.changes.zero(100_000 + n * 2..100_000 + n * 2 + 1);
        }
        let sectors = size / SECTOR_BYTES;
        let (mut at, mut told, mut windows) = (0, 0, 0);
        while at < sectors {
            let window = Window::of(&state, at..sectors);
            assert!(window.over.len() <= 3 * WINDOW_ENTRIES, "{} entries", window.over.len());
            assert!(window.range.start == at && window.range.end > at);
            let data = window.over.within(window.range.clone()).filter(|(_, s)| !s.is_zero());
            told += data.map(|(extent, _)| extent.end - extent.start).sum::<u64>();
            at = window.range.end;
            windows += 1;
        }
        let written = (0..20_000u64).filter(|n| n % 3 != 0).count() as u64;
        assert_eq!(told, written + 20_000 * 8);
        assert!(windows > 100);
    }

    struct Still;

    impl Clock for Still {
        fn boot(&self) -> Duration {
            Duration::ZERO
        }
        fn wall_ms(&self) -> u64 {
            0
        }
    }

    impl Entropy for Still {
        fn fill(&self, out: &mut [u8]) {
            out.fill(7);
        }
    }

    const BLOCKS: u64 = 20_000;
    const MAX: usize = 50;

    type Map = BTreeMap<u64, BlockEntry>;

    /// Changes an overlay, and a map with it.
    fn change(rng: &mut StdRng, overlay: &mut Overlay, map: &mut Map) {
        for n in 0..40 {
            let first = rng.random_range(0..BLOCKS);
            let range = first..(first + rng.random_range(1..300)).min(BLOCKS);
            if n % 4 == 0 {
                overlay.zero(range.clone());
                map.retain(|index, _| !range.contains(index));
                continue;
            }
            for index in range {
                let stream = skerry_core::id::StreamId([3; 16]);
                let segment = SegmentKey { stream, number: Number(rng.random_range(1..4)) };
                let entry = BlockEntry { segment, offset: 0, len: 1, slot: 0, source: 0 };
                overlay.set(index, &entry);
                map.insert(index, entry);
            }
        }
    }

    /// A stretch of any comparison holds few blocks, and the stretches together all.
    #[tokio::test]
    async fn snapshots_are_compared_in_stretches() {
        let env = Env { clock: Arc::new(Still), entropy: Arc::new(Still) };
        let bucket = Bucket::open(Arc::new(InMemory::new()), env, true).await.expect("a bucket");
        let nodes = MapNodes::new(bucket.clone(), 1 << 20);
        let (id, block) = (VolumeId([1; 16]), BlockSize::default());
        let stream = skerry_core::id::StreamId([2; 16]);
        let lane = MapNodeLane { volume: id, stream, epoch: 1, block, next: Arc::default() };
        let (mut rng, mut map) = (StdRng::seed_from_u64(1), Map::new());
        let mut root = Root::empty(block.offset(BLOCKS), block, "disk");
        let mut sides = Vec::new();
        for _ in 0..2 {
            let mut overlay = Overlay::new();
            change(&mut rng, &mut overlay, &mut map);
            let facts = Facts { size_bytes: root.size_bytes, name: "disk".to_owned() };
            let lane = lane.clone();
            let made = checkpoint::write(&bucket, &nodes, lane, &root, &overlay, facts, 100).await;
            root = made.expect("written").root;
            let mut view: View = View::of_root(id, root.clone(), Position::default());
            let mut over = map.clone();
            change(&mut rng, &mut view.changes, &mut over);
            sides.push((view, over));
        }
        let [(a, was), (b, is)] = &sides[..] else { panic!("two") };
        let differs = |index: &u64| was.get(index) != is.get(index);
        let wanted: BTreeSet<u64> = was.keys().chain(is.keys()).copied().filter(differs).collect();
        let (mut told, mut next, mut stretches) = (BTreeSet::new(), Some(0), 0);
        while let Some(from) = next {
            let suspects = Suspects::from(&nodes, [a, b], from, MAX).await.expect("read");
            assert!(suspects.blocks.len() <= 7 * (MAX + 128), "{}", suspects.blocks.len());
            assert!(suspects.blocks.keys().all(|index| (from..suspects.end()).contains(index)));
            for (index, known) in &suspects.blocks {
                let are = (was.get(index).copied(), is.get(index).copied());
                assert!(known.is_none_or(|known| known == are), "{index}: {known:?}");
            }
            told.extend(suspects.blocks.into_keys().filter(differs));
            next = suspects.next;
            stretches += 1;
        }
        assert!(told == wanted, "{} of {}", told.len(), wanted.len());
        assert!(stretches > 50, "{stretches} stretches for {} blocks", wanted.len());
    }
}
