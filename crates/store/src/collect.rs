//! Collection: deletes segments of a volume that nothing in the bucket holds.
//!
//! Only the volume's owner collects. Candidates are listed first, refs and pins afterwards; what
//! can't be placed stays; anything unreadable stops the pass. The decision is `skerry_core::hold`'s.

use crate::bucket::{Bucket, Created};
use crate::catalog::read_ref;
use crate::claim::{Incarnation, SEAL_BYTES_MAX};
use crate::error::{Error, Result};
use crate::liveness::{self, SeenNodes};
use crate::nodes::Nodes;
use parking_lot::Mutex;
use skerry_core::descriptor::{Pin, VolumeDesc, VolumeState};
use skerry_core::hold::{Candidate, Held, HeldRange, may_collect};
use skerry_core::id::{PinId, SnapshotId, StreamId, VolumeId};
use skerry_core::names::{self, Object};
use skerry_core::position::{Number, Position, SegmentKey};
use skerry_core::root::{Base, Root};
use skerry_core::seal::Seal;
use skerry_core::takeover::RefOrder;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// How often refs are listed anew when they change while they are read; then the pass gives up until the next.
const LISTINGS_MAX: usize = 5;

/// What stands in the bucket about one volume.
#[derive(Debug, Default)]
struct Listed {
    desc: bool,
    state: bool,
    gone: bool,
    heads: Vec<String>,
    /// The numbers of snapshots' refs.
    snapshots: BTreeMap<SnapshotId, BTreeSet<u64>>,
    buried: BTreeSet<SnapshotId>,
    pins: BTreeMap<PinId, (u64, String)>,
}

impl Listed {
    fn head_orders(&self) -> impl Iterator<Item = RefOrder> + '_ {
        self.heads.iter().filter_map(|name| match names::parse(name) {
            Object::Head(_, epoch, stream, number) => Some(RefOrder { epoch, stream, number }),
            _ => None,
        })
    }

    fn newest_head(&self) -> Option<RefOrder> {
        self.head_orders().max()
    }
}

/// Who collects for a volume, and what of it is under way.
#[derive(Debug, Clone)]
pub struct Owned {
    /// The volume.
    pub volume: VolumeId,
    /// The stream being written, and the first number of its node lane that no ref covers; none for a deleted volume.
    pub writing: Option<(StreamId, Number)>,
    /// The last head ref that the owner wrote in its own stream.
    pub head: Option<RefOrder>,
}

impl Owned {
    /// True if a pass may go on after this listing of the volume: of a living volume its owner's head
    /// must be the newest; a deleted one has no owner, and its tombstone must be seen.
    fn may_collect(&self, listed: Option<&Listed>) -> bool {
        let Some(listed) = listed else { return false };
        if self.writing.is_none() {
            return listed.gone;
        }
        let orders: Vec<RefOrder> = listed.head_orders().collect();
        may_collect(self.head, &orders)
    }
}

/// Joins two listings, made one after the other: refs of either count, tombstones of the first only. A snapshot's
/// ref is replaced by a higher number that the *first* listing shows.
fn merge(
    first: BTreeMap<VolumeId, Listed>,
    second: BTreeMap<VolumeId, Listed>,
) -> BTreeMap<VolumeId, Listed> {
    let mut out = second;
    for listed in out.values_mut() {
        listed.gone = false;
        listed.buried.clear();
    }
    for (volume, before) in first {
        let listed = out.entry(volume).or_default();
        listed.desc |= before.desc;
        listed.gone = before.gone;
        listed.buried = before.buried;
        listed.heads.extend(before.heads);
        listed.heads.sort_unstable();
        listed.heads.dedup();
        for (id, numbers) in before.snapshots {
            let Some(counts) = numbers.last().copied() else { continue };
            let held = listed.snapshots.entry(id).or_default();
            held.insert(counts);
            held.retain(|number| *number >= counts);
        }
    }
    out
}

/// When the latest renewal of a pin was first seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    renewal: u64,
    at: Duration,
}

/// Deletes what nothing holds.
pub struct Collector {
    bucket: Bucket,
    nodes: Nodes,
    pins: Mutex<HashMap<PinId, Seen>>,
}

impl Collector {
    /// A collector of a bucket.
    pub fn new(bucket: Bucket, nodes: Nodes) -> Self {
        Self { bucket, nodes, pins: Mutex::default() }
    }

    /// Lists every segment of a volume's streams: the daily sweep, and the sweep at opening.
    pub async fn sweep_candidates(&self, lives: &[Incarnation]) -> Result<Vec<SegmentKey>> {
        let mut out = Vec::new();
        for life in lives {
            for object in self.bucket.list(&names::stream_prefix(life.stream)).await? {
                let Object::Segment(key) = names::parse(&object.name) else { continue };
                if object.size <= SEAL_BYTES_MAX && self.is_seal(&object.name).await? {
                    continue;
                }
                out.push(key);
            }
        }
        Ok(out)
    }

    async fn is_seal(&self, name: &str) -> Result<bool> {
        let bytes = self.bucket.get(name).await?;
        Ok(bytes.is_none_or(|bytes| Seal::is(&bytes)))
    }

    /// Those of `candidates` that nothing holds; none if the pass had to be given up. They must have been
    /// listed before this call, and an owner must look for a seal in its stream between this and
    /// [`Self::delete`].
    pub async fn free(
        &self,
        owned: &Owned,
        lives: &[Incarnation],
        candidates: &BTreeSet<SegmentKey>,
    ) -> Result<Option<Vec<SegmentKey>>> {
        if candidates.is_empty() {
            return Ok(Some(Vec::new()));
        }
        // A newer Skerry may hold what this one would not know how to see.
        self.bucket.check_features().await?;
        let Some(held) = self.held(owned, candidates).await? else { return Ok(None) };
        let epochs: HashMap<StreamId, u64> = lives.iter().map(|l| (l.stream, l.epoch)).collect();
        let placed: Vec<Candidate> = candidates
            .iter()
            .map(|key| Candidate {
                key: *key,
                stream: epochs.get(&key.stream).map(|epoch| (owned.volume, *epoch)),
            })
            .collect();
        Ok(Some(held.free(&placed)))
    }

    /// Deletes segments that [`Self::free`] found.
    pub async fn delete(&self, free: &[SegmentKey]) -> Result<()> {
        for key in free {
            self.bucket.delete(&names::segment(*key)).await?;
        }
        Ok(())
    }

    /// Everything in the bucket that holds one of the candidates; none if refs kept changing, or if
    /// the owner's own head is not the newest.
    async fn held(&self, owned: &Owned, candidates: &BTreeSet<SegmentKey>) -> Result<Option<Held>> {
        for _ in 0..LISTINGS_MAX {
            let mut gathering = Gathering {
                collector: self,
                candidates,
                seen: SeenNodes::new(),
                held: Held::default(),
            };
            gathering.held.open_nodes.extend(owned.writing);
            let first = self.list_refs().await?;
            if !owned.may_collect(first.get(&owned.volume)) {
                return Ok(None);
            }
            let second = self.list_refs().await?;
            if gathering.all(&merge(first, second)).await? {
                return Ok(Some(gathering.held));
            }
        }
        Ok(None)
    }

    async fn list_refs(&self) -> Result<BTreeMap<VolumeId, Listed>> {
        let mut volumes: BTreeMap<VolumeId, Listed> = BTreeMap::new();
        for object in self.bucket.list(names::VOLUMES).await? {
            let name = object.name;
            match names::parse(&name) {
                Object::VolumeDesc(v) => volumes.entry(v).or_default().desc = true,
                Object::VolumeState(v) => volumes.entry(v).or_default().state = true,
                Object::VolumeGone(v) => volumes.entry(v).or_default().gone = true,
                Object::Head(v, ..) => volumes.entry(v).or_default().heads.push(name),
                Object::Snapshot(v, id, number) => {
                    let snapshots = &mut volumes.entry(v).or_default().snapshots;
                    snapshots.entry(id).or_default().insert(number);
                }
                Object::SnapshotGone(v, id) => {
                    volumes.entry(v).or_default().buried.insert(id);
                }
                Object::Pin(v, id, renewal) => {
                    let newest = volumes.entry(v).or_default().pins.entry(id).or_default();
                    if renewal >= newest.0 {
                        *newest = (renewal, name);
                    }
                }
                _ => {}
            }
        }
        Ok(volumes)
    }

    /// Pins are timed on this node's own boot-time clock, from first seeing their latest renewal.
    fn has_expired(&self, id: PinId, renewal: u64, ttl: Duration) -> bool {
        let now = self.bucket.clock().boot();
        let mut pins = self.pins.lock();
        let seen = pins.entry(id).or_insert(Seen { renewal, at: now });
        if seen.renewal != renewal {
            *seen = Seen { renewal, at: now };
        }
        now.saturating_sub(seen.at) > ttl
    }

    async fn is_ready(&self, volume: VolumeId) -> Result<bool> {
        let name = names::volume_state(volume);
        let Some(bytes) = self.bucket.get(&name).await? else { return Ok(true) };
        let state = VolumeState::decode(&bytes).map_err(|e| Error::format(&name, e))?;
        Ok(state == VolumeState::Ready)
    }

    async fn desc(&self, volume: VolumeId) -> Result<VolumeDesc> {
        let name = names::volume_desc(volume);
        let bytes = self.bucket.get(&name).await?.ok_or_else(|| Error::not_found(&name))?;
        VolumeDesc::decode(&bytes).map_err(|e| Error::format(&name, e))
    }
}

/// What is held, being gathered from one listing.
struct Gathering<'a> {
    collector: &'a Collector,
    candidates: &'a BTreeSet<SegmentKey>,
    seen: SeenNodes,
    held: Held,
}

impl Gathering<'_> {
    /// Goes through a listing. False if a ref of it is gone by now: what followed it is not in the
    /// listing, and may hold what it held, so that the listing must be made again.
    async fn all(&mut self, volumes: &BTreeMap<VolumeId, Listed>) -> Result<bool> {
        for (volume, listed) in volumes {
            if listed.desc && !listed.state && self.is_abandoned(*volume, volumes).await? {
                continue;
            }
            if !self.volume(*volume, listed).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True of a pending clone whose parent is deleted: it is withdrawn here and now, unless it turns out
    /// to be settled. Its maker may have died; one that is only slow finds the tombstone, or this.
    async fn is_abandoned(
        &self,
        volume: VolumeId,
        volumes: &BTreeMap<VolumeId, Listed>,
    ) -> Result<bool> {
        let desc = self.collector.desc(volume).await?;
        let Some((parent, snapshot)) = desc.parent else { return Ok(false) };
        let buried = |p: &Listed| p.buried.contains(&snapshot);
        if !volumes.get(&parent).is_some_and(buried) {
            return Ok(false);
        }
        let name = names::volume_state(volume);
        let bytes = VolumeState::Withdrawn.encode(self.collector.bucket.nonce());
        match self.collector.bucket.create(&name, vec![bytes]).await? {
            Created::Ours => Ok(true),
            Created::Theirs => Ok(!self.collector.is_ready(volume).await?),
        }
    }

    async fn volume(&mut self, volume: VolumeId, listed: &Listed) -> Result<bool> {
        // Only a volume is ever deleted: of one that is, the state need not be readable.
        if listed.state && !listed.gone && !self.collector.is_ready(volume).await? {
            return Ok(true);
        }
        if !listed.gone {
            // A pending descriptor holds as much as one that is settled.
            if listed.desc && listed.heads.is_empty() {
                self.descriptor(&self.collector.desc(volume).await?).await?;
            }
            let newest = listed.newest_head();
            for name in &listed.heads {
                let Some(head) = read_ref(&self.collector.bucket, name).await? else {
                    return Ok(false);
                };
                self.held.ranges.push(HeldRange::head(volume, &head.base.at));
                match self.root(&head.base.root).await {
                    // Put late, by a writer that had been fenced: what it names was nobody's any more.
                    Err(Error::NotFound { .. })
                        if newest.is_some_and(|newest| RefOrder::of(&head.base.at) < newest) => {}
                    done => done?,
                }
            }
        }
        for (id, numbers) in listed.snapshots.iter().filter(|(id, _)| !listed.buried.contains(*id))
        {
            for number in numbers {
                let name = names::snapshot(volume, *id, *number);
                let Some(found) = read_ref(&self.collector.bucket, &name).await? else {
                    return Ok(false);
                };
                self.base(volume, &found.base).await?;
            }
        }
        for (id, (renewal, name)) in &listed.pins {
            let Some(bytes) = self.collector.bucket.get(name).await? else { return Ok(false) };
            let pin = Pin::decode(&bytes).map_err(|e| Error::format(name, e))?;
            if self.collector.has_expired(*id, *renewal, Duration::from_millis(pin.ttl_ms)) {
                // Its reader has stopped by its own clock, or died.
                self.collector.bucket.delete(name).await?;
            } else {
                self.base(volume, &pin.base).await?;
            }
        }
        Ok(true)
    }

    async fn descriptor(&mut self, desc: &VolumeDesc) -> Result<()> {
        self.held.ranges.push(HeldRange::head(desc.id, &Position::start(0, desc.genesis, 0)));
        self.base(desc.base_volume(), &desc.base).await
    }

    async fn base(&mut self, volume: VolumeId, base: &Base) -> Result<()> {
        self.held.ranges.push(HeldRange::upto(volume, &base.at, &base.end));
        self.root(&base.root).await
    }

    /// Holds the candidates that a root lists.
    async fn root(&mut self, root: &Root) -> Result<()> {
        let nodes = &self.collector.nodes;
        let (candidates, listed) = (self.candidates, &mut self.held.listed);
        liveness::hold(nodes, root.liveness, candidates, &mut self.seen, listed).await
    }
}
