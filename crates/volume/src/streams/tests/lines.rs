//! The least possible payload: a list of lines that only grows.
//!
//! It has no index of sectors, no overlay, no partial writes and no zeros. A line is one slot of a
//! segment; its tree is one leaf.

use crate::error::{Error, Result};
use crate::settings::EngineSettings;
use crate::streams::stream::payload::{Payload, Planned};
use crate::streams::stream::state::{Batch, State};
use crate::streams::stream::{Attempt, Behalf, Stream};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use skerry_core::entry::BlockEntry;
use skerry_core::map_node::{MapNodeBuilder, MapNodeKind, MapNodePtr};
use skerry_core::ops::Op;
use skerry_core::position::SegmentKey;
use skerry_core::record::{Action, RECORD_HEAD};
use skerry_core::root::Root;
use skerry_core::segment::{BlockIn, BuiltSegment, SegmentHead, SegmentId, build};
use skerry_log::LogPosition;
use skerry_store::map::changes::{Changes, Merging};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most lines of a list: those of a leaf.
const LINES_MAX: u64 = 128;

/// Lines that are not in the bucket yet, by number: their log positions.
#[derive(Debug)]
pub(super) struct Lines(BTreeMap<u64, u64>);

/// Lines that segments added.
#[derive(Debug, Clone, Default)]
pub(super) struct Added {
    lines: BTreeMap<u64, BlockEntry>,
    lengths: BTreeMap<SegmentKey, u64>,
}

impl Added {
    fn add(&mut self, segment: SegmentKey, length: u64, lines: &[(u64, BlockEntry)]) {
        if !lines.is_empty() {
            self.lengths.insert(segment, length);
        }
        self.lines.extend(lines.iter().copied());
    }
}

impl Changes for Added {
    fn apply(&mut self, head: &SegmentHead) {
        self.add(head.id.key, head.object_len, &head.entries());
    }

    fn bytes(&self) -> usize {
        self.lines.len() * 64
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn merge<'a>(
        &'a self,
        old: &'a Root,
        _: u64,
        into: Merging<'a, '_>,
    ) -> BoxFuture<'a, skerry_store::Result<Option<MapNodePtr>>> {
        Box::pin(async move {
            let Merging { writer, delta, .. } = into;
            let mut all: BTreeMap<u8, BlockEntry> = BTreeMap::new();
            if let Some(top) = &old.top {
                all.extend(writer.get(top).await?.leaf_entries());
                delta.add_node(top, -1);
            }
            self.lengths.iter().for_each(|(segment, bytes)| delta.length(*segment, *bytes));
            for (number, entry) in &self.lines {
                delta.add_block(entry, 1);
                all.insert(*number as u8, *entry);
            }
            if all.is_empty() {
                return Ok(None);
            }
            let (live, entries) = (all.len() as u64, Vec::from_iter(all));
            let leaf = MapNodeBuilder::new(writer.birth()).leaf(0, &entries);
            let top = writer.push(MapNodeKind::Leaf, 0, live, leaf).await?;
            let thread = std::thread::current().name().map(str::to_owned);
            MERGED_ON.lock().push((top, thread));
            delta.add_node(&top, 1);
            Ok(Some(top))
        })
    }
}

/// Every written leaf, and the name of the writing thread.
static MERGED_ON: Mutex<Vec<(MapNodePtr, Option<String>)>> = Mutex::new(Vec::new());

/// The thread that wrote a leaf.
pub(super) fn merged_on(leaf: &MapNodePtr) -> Option<String> {
    let all = MERGED_ON.lock();
    all.iter().find(|(written, _)| written == leaf).and_then(|(_, thread)| thread.clone())
}

/// A line that no segment can be built with.
pub(super) const PANIC: &str = "panic";

impl Payload for Lines {
    type Changes = Added;
    /// Numbers and log positions.
    type Batch = Vec<(u64, u64)>;
    type Plan = Vec<(u64, u64)>;
    type Made = ();
    type Shared = ();

    fn of_root(_: &Root) -> Self {
        Self(BTreeMap::new())
    }

    fn apply_record(&mut self, batch: &mut Self::Batch, action: &Action, at: u64) -> usize {
        let Action::Write { offset: number, len } = action else { return 0 };
        self.0.insert(*number, at);
        batch.push((*number, at));
        *len as usize
    }

    fn is_full(batch: &Self::Batch, _: &EngineSettings) -> bool {
        batch.len() >= 4
    }

    fn index_bytes(&self, records: usize) -> usize {
        (self.0.len() + records) * 16
    }

    fn is_settled(&self) -> bool {
        self.0.is_empty()
    }

    fn garbage_bytes_max<'a>(_: &Root, _: impl Iterator<Item = &'a Added>) -> u64 {
        // Nothing is ever removed.
        0
    }

    fn plan(stream: &Stream<Self>, batch: &Batch<Self>) -> Planned<Self> {
        let plan = batch.content.clone();
        let room_bytes = 2 * plan.len() * stream.desc.block.bytes();
        Planned { plan, room_bytes, needs_base: false }
    }

    fn read_base<'a>(_: &'a Arc<Stream<Self>>, _: &'a mut Self::Plan) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn build(
        stream: &Stream<Self>,
        id: &SegmentId,
        plan: Self::Plan,
        ops: Vec<Op>,
    ) -> Result<(BuiltSegment, ())> {
        let mut slots = Vec::new();
        for (number, at) in plan {
            let mut slot = stream.logged(at)?.expect("the log keeps what is not in the bucket");
            assert!(slot != PANIC.as_bytes(), "as the line says");
            slot.resize(stream.desc.block.bytes(), 0);
            slots.push((number, slot));
        }
        let blocks: Vec<_> =
            slots.iter().map(|(index, data)| BlockIn { index: *index, data }).collect();
        Ok((build(id, &ops, &blocks), ()))
    }

    fn apply_segment(stream: &Stream<Self>, segment: &BuiltSegment, (): &()) {
        let mut state = stream.state.lock();
        state.changes.add(segment.key, segment.len_bytes() as u64, &segment.entries);
    }

    fn forget(stream: &Stream<Self>, _: &BuiltSegment, (): &(), before: u64) {
        stream.state.lock().payload.0.retain(|_, at| *at >= before);
    }
}

impl State<Lines> {
    /// Number of lines.
    fn count(&self) -> u64 {
        let end = |last: Option<&u64>| last.map_or(0, |number| number + 1);
        let added = self.layers().map(|added| end(added.lines.keys().next_back())).max();
        let root = self.root.live_blocks();
        end(self.payload.0.keys().next_back()).max(added.unwrap_or(0)).max(root)
    }

    fn added(&self, number: u64) -> Option<BlockEntry> {
        self.layers().find_map(|added| added.lines.get(&number)).copied()
    }
}

impl Stream<Lines> {
    /// Adds a line.
    pub(super) async fn add(&self, line: &str) -> Result<()> {
        self.check_fence_patiently().await?;
        let generation = self.state.lock().generation;
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let now = self.ctx.clock().boot();
            {
                let state = self.admit(generation)?;
                let number = state.count();
                assert!(number < LINES_MAX, "a list is no longer than a leaf");
                let action = Action::Write { offset: number, len: line.len() as u64 };
                if !state.paused
                    && let Attempt::Done = self.append(state, &action, line.as_bytes(), now)?
                {
                    return Ok(());
                }
            }
            self.wait_room(room, line.len(), Behalf::Client).await?;
        }
    }

    /// All lines.
    pub(super) async fn lines(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let count = self.state.lock().count();
        for number in 0..count {
            lines.push(self.line(number).await?);
        }
        Ok(lines)
    }

    async fn line(&self, number: u64) -> Result<String> {
        let (logged, added, top) = {
            let state = self.state.lock();
            (state.payload.0.get(&number).copied(), state.added(number), state.root.top)
        };
        let slot = match (logged, added, top) {
            (Some(at), _, _) => self.logged(at)?.expect("nothing is destaged meanwhile"),
            (None, Some(entry), _) => self.stored(&entry).await?,
            (None, None, top) => {
                let leaf = self.ctx.map_nodes.get(&top.expect("a root with lines")).await?;
                let entry = leaf.leaf_entry(number as u8).expect("a line of the root");
                self.stored(&entry).await?
            }
        };
        let text = String::from_utf8(slot).expect("text");
        Ok(text.trim_end_matches('\0').to_owned())
    }

    async fn stored(&self, entry: &BlockEntry) -> Result<Vec<u8>> {
        Ok(self.ctx.blocks.read(entry, self.desc.block).await?.to_vec())
    }

    fn logged(&self, at: u64) -> Result<Option<Vec<u8>>> {
        let mut window = self.ctx.log.window();
        let payload = window.read(LogPosition::from_u64(at))?;
        let text = payload.map(|payload| payload.get(RECORD_HEAD..).map(<[u8]>::to_vec));
        let cut = || Error::corrupt("a record", "is cut short");
        text.map(|text| text.ok_or_else(cut)).transpose()
    }
}
