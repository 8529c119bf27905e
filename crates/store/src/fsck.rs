//! Fsck: reads everything in a bucket and reports faults, in sentences that name objects.
//!
//! It changes nothing, and trusts no cache: it reads from the store. Of every volume it reads
//! descriptor, refs and incarnations, rolls forward, and walks the trees. It recounts references
//! and compares them with liveness to the block, live and dead-pending together. It verifies the
//! content of every referenced block. It looks again at a volume that was written meanwhile.

use crate::blocks::{Blocks, BlocksSettings};
use crate::error::Result;
use crate::map::dead;
use crate::map::liveness::Walk;
use crate::map::nodes::MapNodes;
use crate::objects::bucket::Bucket;
use crate::objects::segment_io;
use crate::refs::catalog::{self, Catalog};
use crate::refs::claim::{self, Incarnation};
use crate::refs::view::{self, View};
use skerry_core::descriptor::{VolumeDesc, VolumeState};
use skerry_core::entry::BlockEntry;
use skerry_core::hold::{Candidate, Held, HeldRange};
use skerry_core::holder::Holder;
use skerry_core::id::VolumeId;
use skerry_core::map_node::MapNodePtr;
use skerry_core::names::{self, Object};
use skerry_core::position::{Position, SegmentKey};
use skerry_core::refs::Ref;
use skerry_core::root::{Base, Root};
use skerry_core::size::BlockSize;
use skerry_core::takeover::next_key;
use std::collections::{BTreeMap, BTreeSet};

/// Memory for nodes while checking, bytes: one path of every root.
const MAP_NODE_CACHE_BYTES: u64 = 16 << 20;
/// Memory for blocks while checking, bytes: neighbours of one frame.
const BLOCK_CACHE_BYTES: u64 = 4 << 20;
/// Number of looks at a volume that changes while it is read.
const TRIES_MAX: usize = 4;

/// Result of a check.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Number of volumes. One whose head is deleted counts as long as it has snapshots.
    pub volumes: u64,
    /// Refs and snapshots that were checked.
    pub refs: u64,
    /// Snapshots among them.
    pub snapshots: u64,
    /// Referenced segments.
    pub segments: u64,
    /// Blocks whose content was verified.
    pub blocks: u64,
    /// Segments that nothing holds.
    pub orphans: u64,
    /// The faults, a sentence each.
    pub problems: Vec<String>,
}

/// References by segment and slot.
type Counts = BTreeMap<(SegmentKey, u16), u32>;

/// Facts about one volume after a look at it.
#[derive(Default)]
struct Seen {
    /// True if the volume is neither a proposal, nor deleted with all its snapshots.
    is_there: bool,
    refs: u64,
    snapshots: u64,
    problems: Vec<String>,
    ranges: Vec<HeldRange>,
    incarnations: Vec<Incarnation>,
    /// Every referenced block. As large as the volume, so kept for one volume at a time.
    entries: BTreeMap<(SegmentKey, u16), (BlockEntry, BlockSize)>,
    /// Referenced segments: of nodes, and in the end of blocks, too.
    segments: BTreeSet<SegmentKey>,
    /// Lengths of data segments in liveness.
    lengths: BTreeSet<(SegmentKey, u64)>,
}

impl Seen {
    fn wrong(&mut self, what: impl std::fmt::Display, detail: impl std::fmt::Display) {
        self.problems.push(format!("{what}: {detail}"));
    }
}

/// Checks the whole bucket.
///
/// # Errors
/// If the bucket can't be listed. Anything else that can't be read is a fault of its own.
pub async fn run(bucket: &Bucket) -> Result<Findings> {
    let checker = Checker {
        bucket,
        catalog: Catalog::new(bucket.clone()),
        nodes: MapNodes::new(bucket.clone(), MAP_NODE_CACHE_BYTES),
        blocks: Blocks::new(
            bucket.clone(),
            BlocksSettings { ram_bytes: BLOCK_CACHE_BYTES, ..BlocksSettings::default() },
        ),
    };
    checker.run().await
}

struct Checker<'a> {
    bucket: &'a Bucket,
    catalog: Catalog,
    nodes: MapNodes,
    blocks: Blocks,
}

impl Checker<'_> {
    async fn run(&self) -> Result<Findings> {
        let mut found = Findings::default();
        let segments = self.segments().await?;
        let mut volumes = BTreeSet::new();
        for object in self.bucket.list(names::VOLUMES).await? {
            if let Object::VolumeDesc(id) = names::parse(&object.name) {
                volumes.insert(id);
            }
        }
        self.check_names(&volumes, &mut found).await?;
        let mut all = Vec::new();
        for id in volumes {
            let seen = self.volume_settled(id, &mut found).await?;
            found.volumes += u64::from(seen.is_there);
            all.push((id, seen));
        }
        self.count_orphans(&segments, &all, &mut found).await?;
        Ok(found)
    }

    async fn segments(&self) -> Result<BTreeSet<SegmentKey>> {
        let listed = self.bucket.list(names::STREAMS).await?;
        Ok(listed
            .iter()
            .filter_map(|object| match names::parse(&object.name) {
                Object::Segment(key) => Some(key),
                _ => None,
            })
            .collect())
    }

    async fn check_names(&self, volumes: &BTreeSet<VolumeId>, out: &mut Findings) -> Result<()> {
        match self.catalog.all().await {
            Ok(all) => {
                for (name, id) in all {
                    match id {
                        Ok(id) if volumes.contains(&id) => {}
                        Ok(id) => out
                            .problems
                            .push(format!("name {name} names volume {id}, which is not there")),
                        Err(e) => out.problems.push(format!("name {name} can't be read: {e}")),
                    }
                }
                Ok(())
            }
            Err(e) if e.is_transient() => Err(e),
            Err(e) => {
                out.problems.push(format!("the names can't be read: {e}"));
                Ok(())
            }
        }
    }

    /// Looks at a volume, again if it changed meanwhile and something seemed wrong. The result
    /// names segments and no blocks: it is kept until all volumes are checked.
    async fn volume_settled(&self, id: VolumeId, out: &mut Findings) -> Result<Seen> {
        let mut tries = 0;
        let mut seen = loop {
            let before = self.bucket.list(&names::volume_prefix(id)).await?;
            let seen = self.volume(id).await;
            tries += 1;
            if seen.problems.is_empty()
                || tries >= TRIES_MAX
                || before == self.bucket.list(&names::volume_prefix(id)).await?
            {
                break seen;
            }
        };
        out.refs += seen.refs;
        out.snapshots += seen.snapshots;
        out.blocks += seen.entries.len() as u64;
        seen.segments.extend(std::mem::take(&mut seen.entries).into_keys().map(|(key, _)| key));
        out.segments += seen.segments.len() as u64;
        out.problems.extend(seen.problems.drain(..).map(|p| format!("volume {id}: {p}")));
        seen.lengths.clear();
        Ok(seen)
    }

    async fn volume(&self, id: VolumeId) -> Seen {
        let mut seen = Seen::default();
        match claim::incarnations(self.bucket, id).await {
            Ok(incarnations) => seen.incarnations = incarnations,
            Err(e) => seen.wrong("its incarnations", e),
        }
        let desc = match self.catalog.desc(id).await {
            Ok(desc) => desc,
            Err(e) => {
                seen.is_there = true;
                seen.wrong(names::volume_desc(id), e);
                return seen;
            }
        };
        self.head(&desc, &mut seen).await;
        self.snapshots(&desc, &mut seen).await;
        self.holder(&desc, &mut seen).await;
        self.content(&mut seen).await;
        seen
    }

    /// Checks that the parent has the clone's holder. Without it, the parent's collector deletes
    /// what the clone needs.
    async fn holder(&self, desc: &VolumeDesc, seen: &mut Seen) {
        let Some((parent, _)) = desc.parent.filter(|_| seen.is_there) else { return };
        let is_ours = |name: &str| match names::parse(name) {
            Object::Holder(_, Holder::Clone { clone, .. }) => clone == desc.id,
            _ => false,
        };
        match self.bucket.list(&names::holder_prefix(parent)).await {
            Ok(listed) if listed.iter().any(|object| is_ours(&object.name)) => {}
            Ok(_) => seen.wrong(names::holder_prefix(parent), "it does not name its clone"),
            Err(e) => seen.wrong(names::holder_prefix(parent), e),
        }
    }

    async fn head(&self, desc: &VolumeDesc, seen: &mut Seen) {
        let id = desc.id;
        match self.catalog.state(id).await {
            Ok(Some(VolumeState::Ready)) => {}
            Ok(_) => return,
            Err(e) => {
                seen.is_there = true;
                return seen.wrong(names::volume_state(id), e);
            }
        }
        match self.catalog.is_gone(id).await {
            Ok(true) => return,
            Ok(false) => seen.is_there = true,
            Err(e) => return seen.wrong(names::volume_gone(id), e),
        }
        self.head_refs(desc, seen).await;
        match claim::peek(self.bucket, desc).await {
            Ok(peek) => {
                let next = next_key(&peek.view.at);
                match claim::is_lost(self.bucket, next).await {
                    Ok(false) => {}
                    Ok(true) => seen.wrong("its stream", claim::lost(&peek.view.name, next)),
                    Err(e) => seen.wrong("its stream", e),
                }
                self.view("its head", &peek.view, seen).await;
                self.ends(&peek.view, seen).await;
            }
            Err(e) => seen.wrong("its head can't be read", e),
        }
    }

    /// Checks the newest head, which counts. An older one is about to be deleted, or was put late
    /// by a fenced writer. Nothing follows from it, and segments that it names may be gone.
    async fn head_refs(&self, desc: &VolumeDesc, seen: &mut Seen) {
        let heads = match catalog::list_heads(self.bucket, desc.id).await {
            Ok(heads) => heads,
            Err(e) => return seen.wrong("its head refs", e),
        };
        if heads.is_empty() {
            seen.ranges.push(HeldRange::head(desc.id, &Position::start(0, desc.genesis, 0)));
            self.hold(desc.base_volume(), &desc.base, seen);
        }
        if let Some((name, _)) = heads.last() {
            match catalog::read_ref(self.bucket, name).await {
                Ok(Some(head)) => {
                    seen.refs += 1;
                    seen.ranges.push(HeldRange::head(desc.id, &head.base.at));
                    self.root(name, &head.base.root, seen).await;
                }
                Ok(None) => seen.wrong(name, "it was listed and is not there"),
                Err(e) => seen.wrong(name, e),
            }
        }
    }

    fn hold(&self, volume: VolumeId, base: &Base, seen: &mut Seen) {
        seen.ranges.push(HeldRange::upto(volume, &base.at, &base.end));
    }

    async fn snapshots(&self, desc: &VolumeDesc, seen: &mut Seen) {
        let refs: Vec<Ref> = match self.catalog.snapshots(desc.id).await {
            Ok(refs) => refs,
            Err(e) => return seen.wrong("its snapshots", e),
        };
        let labelled = match self.catalog.all_labels(desc.id).await {
            Ok((labels, ending)) => labels
                .into_iter()
                .map(|(_, l)| l.id)
                .chain(ending.into_iter().map(|(_, id)| id))
                .collect(),
            Err(e) => {
                seen.wrong("its labels", e);
                BTreeSet::new()
            }
        };
        let mut labels = BTreeSet::new();
        for found in refs {
            seen.is_there = true;
            seen.refs += 1;
            seen.snapshots += 1;
            self.hold(desc.id, &found.base, seen);
            let Some(info) = &found.snapshot else {
                seen.wrong("a snapshot's ref", "it does not say which snapshot it is");
                continue;
            };
            let what = names::snapshot(desc.id, info.id, info.number);
            if !labelled.contains(&info.id) {
                seen.wrong(&what, format!("no label leads to it from its name, {}", info.name));
            }
            if !labels.insert(info.name.clone()) {
                seen.wrong(&what, format!("there are two snapshots called {}", info.name));
            }
            self.root(&what, &found.base.root, seen).await;
            match view::open(self.bucket, desc.id, &found.base).await {
                Ok(view) => {
                    if view.size_bytes != info.size_bytes {
                        let (says, is) = (info.size_bytes, view.size_bytes);
                        seen.wrong(&what, format!("it says {says} bytes, and has {is}"));
                    }
                    self.view(&what, &view, seen).await;
                }
                Err(e) => seen.wrong(&what, e),
            }
        }
    }

    /// Checks a root and the changes over it.
    async fn view(&self, what: &str, view: &View, seen: &mut Seen) {
        self.root(what, &view.root, seen).await;
        let block = view.root.block;
        for change in view.changes.entries() {
            let entry = change.entry;
            seen.entries.insert((entry.segment, entry.slot), (entry, block));
        }
    }

    /// Checks that nothing is mapped beyond the end of the volume.
    async fn ends(&self, view: &View, seen: &mut Seen) {
        let blocks = view.root.block.blocks(view.size_bytes);
        let mut scan = crate::map::tree::Scan::new(&self.nodes, view.root.top, blocks..u64::MAX);
        let mut beyond: Vec<u64> =
            view.changes.entries_within(blocks..u64::MAX).map(|c| c.index).collect();
        loop {
            match scan.next_leaf().await {
                Ok(Some(leaf)) => beyond.extend(
                    leaf.iter()
                        .map(|(index, _)| *index)
                        .filter(|i| view.changes.get(*i) == skerry_core::overlay::Overlaid::Below),
                ),
                Ok(None) => break,
                Err(e) => return seen.wrong("its tree", e),
            }
        }
        if let Some(index) = beyond.first() {
            let count = beyond.len();
            seen.wrong("its head", format!("{count} blocks from {index} on lie beyond its end"));
        }
    }

    /// Recounts the references of a root and compares them with its liveness.
    async fn root(&self, what: &str, root: &Root, seen: &mut Seen) {
        let mut counts = Counts::new();
        if let Some(top) = root.top
            && let Err(e) = self.walk(top, root.block, true, &mut counts, seen).await
        {
            return seen.wrong(what, e);
        }
        if let Err(e) = self.dead(what, root, &mut counts, seen).await {
            return seen.wrong(what, e);
        }
        match self.listed(root, seen).await {
            Ok(listed) => compare(what, &counts, &listed, seen),
            Err(e) => seen.wrong(what, e),
        }
    }

    /// Counts the dead-pending subtrees, and the chain itself.
    async fn dead(
        &self,
        what: &str,
        root: &Root,
        counts: &mut Counts,
        seen: &mut Seen,
    ) -> Result<()> {
        let (mut next, mut subtrees, mut blocks) = (root.dead_pending.map(|d| d.first), 0, 0);
        while let Some(ptr) = next {
            *counts.entry((ptr.segment, ptr.slot)).or_default() += 1;
            seen.segments.insert(ptr.segment);
            let node = dead::read(&self.nodes, &ptr).await?;
            for top in node.subtrees {
                subtrees += 1;
                blocks += top.live;
                self.walk(top, root.block, false, counts, seen).await?;
            }
            next = node.next;
        }
        let says = root.dead_pending.map_or((0, 0), |dead| (dead.subtrees, dead.blocks));
        if says != (subtrees, blocks) {
            let detail = format!(
                "{subtrees} subtrees with {blocks} blocks are dead-pending, and it says {} with {}",
                says.0, says.1
            );
            seen.wrong(what, detail);
        }
        Ok(())
    }

    /// Gives the references that a root's liveness lists.
    async fn listed(&self, root: &Root, seen: &mut Seen) -> Result<Counts> {
        let mut listed = Counts::new();
        let mut walk = Walk::new(&self.nodes, root.liveness);
        let mut stored = 0;
        while let Some(leaf) = walk.next_leaf().await? {
            for (key, live) in leaf {
                stored += live.stored_bytes;
                if !key.number.is_map_node() {
                    seen.lengths.insert((key, live.stored_bytes));
                }
                listed.extend(live.slots().map(|(slot, count)| ((key, slot), count)));
            }
        }
        seen.segments.extend(walk.own);
        if stored != root.stored_bytes() {
            let says = root.stored_bytes();
            seen.wrong("its root", format!("it stores {stored} bytes, and it says {says}"));
        }
        Ok(listed)
    }

    /// Counts the references of a subtree.
    async fn walk(
        &self,
        top: MapNodePtr,
        block: BlockSize,
        live: bool,
        counts: &mut Counts,
        seen: &mut Seen,
    ) -> Result<()> {
        let mut todo = vec![top];
        while let Some(ptr) = todo.pop() {
            *counts.entry((ptr.segment, ptr.slot)).or_default() += 1;
            seen.segments.insert(ptr.segment);
            let node = self.nodes.get(&ptr).await?;
            let mut below = 0;
            for (_, entry) in node.leaf_entries() {
                below += 1;
                *counts.entry((entry.segment, entry.slot)).or_default() += 1;
                if live {
                    seen.entries.insert((entry.segment, entry.slot), (entry, block));
                }
            }
            for (_, child) in node.children() {
                below += child.live;
                todo.push(child);
            }
            if below != ptr.live {
                let name = names::segment(ptr.segment);
                let offset = ptr.offset;
                seen.wrong(
                    name,
                    format!(
                        "the node at {offset} maps {below} blocks, and its parent says {}",
                        ptr.live
                    ),
                );
            }
        }
        Ok(())
    }

    /// Verifies every referenced block, and the head of its segment.
    async fn content(&self, seen: &mut Seen) {
        let segments: BTreeSet<SegmentKey> =
            seen.entries.keys().map(|(key, _)| *key).chain(seen.segments.iter().copied()).collect();
        for key in segments {
            match segment_io::read(self.bucket, key).await {
                Ok(skerry_core::takeover::Found::Segment(head)) => {
                    let lengths = (key, 0)..=(key, u64::MAX);
                    let wrong =
                        seen.lengths.range(lengths).find(|(_, says)| *says != head.object_len);
                    if let Some(says) = wrong.map(|(_, says)| *says) {
                        let is = head.object_len;
                        let detail = format!("it has {is} bytes, and liveness says {says}");
                        seen.wrong(names::segment(key), detail);
                    }
                }
                Ok(skerry_core::takeover::Found::Seal(_)) => {
                    seen.wrong(names::segment(key), "a seal stands where blocks should be");
                }
                Ok(skerry_core::takeover::Found::Missing) => {
                    seen.wrong(names::segment(key), "it is missing, and a map references it");
                }
                Err(e) => seen.wrong(names::segment(key), e),
            }
        }
        let entries = std::mem::take(&mut seen.entries);
        for (entry, block) in entries.values() {
            if let Err(e) = self.blocks.read(entry, *block).await {
                seen.wrong(names::segment(entry.segment), format!("slot {}: {e}", entry.slot));
            }
        }
        seen.entries = entries;
    }

    /// Counts segments that existed at the beginning and that nothing holds.
    async fn count_orphans(
        &self,
        segments: &BTreeSet<SegmentKey>,
        all: &[(VolumeId, Seen)],
        out: &mut Findings,
    ) -> Result<()> {
        let mut held = Held::default();
        let mut streams = BTreeMap::new();
        for (id, seen) in all {
            held.listed.extend(seen.segments.iter().copied());
            held.ranges.extend(seen.ranges.iter().copied());
            streams.extend(
                seen.incarnations
                    .iter()
                    .map(|incarnation| (incarnation.stream, (*id, incarnation.epoch))),
            );
        }
        for key in segments {
            let stream = streams.get(&key.stream).copied();
            let is_free = !held.holds(&Candidate { key: *key, stream });
            if is_free
                && matches!(
                    segment_io::read(self.bucket, *key).await,
                    Ok(skerry_core::takeover::Found::Segment(_))
                )
            {
                out.orphans += 1;
            }
        }
        Ok(())
    }
}

/// Reports the first of the differences between counted and listed references.
fn compare(what: &str, counts: &Counts, listed: &Counts, seen: &mut Seen) {
    let mut wrong = Vec::new();
    for at in counts.keys().chain(listed.keys()).collect::<BTreeSet<_>>() {
        let (is, says) =
            (counts.get(at).copied().unwrap_or(0), listed.get(at).copied().unwrap_or(0));
        if is != says {
            wrong.push((at, is, says));
        }
    }
    if let Some(((key, slot), is, says)) = wrong.first() {
        let name = names::segment(*key);
        let count = wrong.len();
        seen.wrong(
            what,
            format!(
                "liveness is wrong in {count} places: slot {slot} of {name} is referenced {is} times, and it says {says}"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::checkpoint::{self, Facts};
    use crate::map::node_writer::MapNodeLane;
    use crate::objects::testing::memory_bucket;
    use skerry_core::descriptor::{FlushLevel, VolumeKind};
    use skerry_core::id::StreamId;
    use skerry_core::overlay::Overlay;
    use skerry_core::position::Number;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    /// Blocks of all volumes were once kept until the end: 90 GB for a bucket of 4 TiB.
    #[tokio::test]
    async fn what_is_kept_of_a_volume_names_no_blocks() {
        let bucket = memory_bucket(1).await;
        let nodes = MapNodes::new(bucket.clone(), MAP_NODE_CACHE_BYTES);
        let (volume, stream, block) = (VolumeId([1; 16]), StreamId([2; 16]), BlockSize::default());
        let segment = SegmentKey { stream: StreamId([3; 16]), number: Number(1) };
        let mut overlay = Overlay::new();
        for index in 0..1000u16 {
            let entry = BlockEntry { segment, offset: 7, len: 4184, slot: index, source: 0 };
            overlay.set(index.into(), &entry);
        }
        let lane =
            MapNodeLane { volume, stream, epoch: 1, block, next: Arc::new(AtomicU64::new(0)) };
        let facts = Facts { size_bytes: 1 << 30, name: "disk".to_owned() };
        let empty = Root::empty(1 << 30, block, "disk");
        let made = checkpoint::write(&bucket, &nodes, lane, &empty, &overlay, facts, 1).await;
        let desc = VolumeDesc {
            id: volume,
            kind: VolumeKind::Disk,
            home: bucket.id(),
            block,
            flush: FlushLevel::Local,
            created_ms: 1,
            name: "disk".to_owned(),
            size_bytes: 1 << 30,
            genesis: StreamId([4; 16]),
            base: Base::exact(made.expect("written").root, Position::start(0, stream, 0)),
            parent: None,
        };
        let catalog = Catalog::new(bucket.clone());
        catalog.propose(&desc).await.expect("proposed");
        catalog.settle(volume, VolumeState::Ready).await.expect("settled");
        let checker = Checker {
            bucket: &bucket,
            catalog,
            nodes,
            blocks: Blocks::new(bucket.clone(), BlocksSettings::default()),
        };
        let mut found = Findings::default();
        let seen = checker.volume_settled(volume, &mut found).await.expect("looked at");
        assert_eq!((found.blocks, seen.entries.len()), (1000, 0), "{:?}", found.problems);
        assert!(seen.segments.contains(&segment), "{:?}", seen.segments);
    }
}
