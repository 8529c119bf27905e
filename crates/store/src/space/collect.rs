//! Collection: deletes segments of a volume that nothing in the bucket holds.
//!
//! Only the volume's owner collects; for a deleted volume, any node may. A pass lists candidates
//! first, and refs and pins afterwards. A segment without a known place stays, and anything
//! unreadable stops the pass. One exception: a snapshot with a damaged ref holds all that its
//! label's span reaches. No pass looks beyond the volume's family. [`Collector::free`] is a sweep,
//! [`Collector::free_near`] a short pass; `skerry_core::hold` decides.

use crate::error::{Error, ErrorKind, Result};
use crate::map::liveness::{self, SeenMapNodes};
use crate::map::nodes::MapNodes;
use crate::objects::bucket::{Bucket, Created};
use crate::refs::catalog::{self, DELETES_FAILED_MAX, read_ref};
use crate::refs::claim::Incarnation;
use crate::space::family::{self, Listed};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use skerry_core::descriptor::{Pin, VolumeDesc, VolumeState};
use skerry_core::hold::{Candidate, Held, HeldRange, Span, may_collect};
use skerry_core::holder::Holder;
use skerry_core::id::{PinId, StreamId, VolumeId};
use skerry_core::names::{self, Object};
use skerry_core::pins::{PinClocks, has_expired};
use skerry_core::position::{Number, Position, SegmentKey};
use skerry_core::refs::PUBLISHED;
use skerry_core::root::{Base, Root};
use skerry_core::seal::{SEAL_BYTES_MAX, Seal};
use skerry_core::takeover::RefOrder;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use crate::space::family::Owned;

/// Number of listings of refs that change while they are read. Then the pass gives up until the
/// next.
const LISTINGS_MAX: usize = 5;

/// The most deleted volumes, seals and begun clones that a node remembers: about 32 bytes each.
/// Others are read again.
const REMEMBERED_MAX: usize = 1 << 18;
/// Age at which a clone without a descriptor has no maker, and a damaged pin no reader. Until then
/// the clone's holder holds all that its span reaches.
const ABANDONED_AGE: Duration = Duration::from_secs(12 * 3600);

/// Number of refs read at once.
const REFS_AT_ONCE: usize = 16;

/// Number of segments deleted at once: enough to hide the latency of a store, and few beside the
/// reads of clients.
const DELETES_IN_FLIGHT: usize = 16;

/// An owner's knowledge of its volume, beyond the listings of a short pass.
#[derive(Debug, Clone)]
pub struct Near {
    /// The root of the last head that it wrote, and that root's position.
    pub head: (Arc<Root>, Position),
    /// Spans of refs that need not be read; each may hold all that it reaches.
    pub unread: Vec<Span>,
    /// Snapshots that must be read: neighbours of a deleted one.
    pub read: Vec<Base>,
}

/// The outcome of [`Collector::delete`].
#[derive(Debug, Default)]
#[must_use]
pub struct Deleted {
    /// Number of deleted segments.
    pub count: usize,
    /// Segments that could not be deleted, or were not tried.
    pub left: Vec<SegmentKey>,
    /// The first failure.
    pub failed: Option<Error>,
}

impl Deleted {
    /// Gives the number of deleted segments if none is left.
    ///
    /// # Errors
    /// The first failure.
    pub fn all(self) -> Result<usize> {
        self.failed.map_or(Ok(self.count), Err)
    }
}

/// Deletes segments that nothing holds.
pub struct Collector {
    bucket: Bucket,
    nodes: MapNodes,
    /// The last listing of pins, for each volume with pins.
    pins: Mutex<HashMap<VolumeId, PinClocks>>,
    /// Clones with a holder and no descriptor, each with its first such sight on the boot-time
    /// clock.
    begun: Mutex<HashMap<VolumeId, Duration>>,
    /// Deleted volumes of which a sweep found nothing left.
    over: Mutex<HashSet<VolumeId>>,
    /// Seals that were read; they stay for ever.
    seals: Mutex<HashSet<SegmentKey>>,
}

impl Collector {
    /// Makes a collector of a bucket.
    pub fn new(bucket: Bucket, nodes: MapNodes) -> Self {
        let (pins, begun) = (Mutex::default(), Mutex::default());
        Self { bucket, nodes, pins, begun, over: Mutex::default(), seals: Mutex::default() }
    }

    /// True if a sweep of this deleted volume found nothing left.
    pub fn is_over(&self, volume: VolumeId) -> bool {
        self.over.lock().contains(&volume)
    }

    /// Notes that a sweep of a deleted volume found nothing left.
    pub fn note_over(&self, volume: VolumeId) {
        let mut over = self.over.lock();
        if over.len() < REMEMBERED_MAX {
            over.insert(volume);
        }
    }

    /// Lists every segment of a volume's streams, for a sweep.
    pub async fn sweep_candidates(&self, incarnations: &[Incarnation]) -> Result<Vec<SegmentKey>> {
        let mut out = Vec::new();
        for incarnation in incarnations {
            for object in self.bucket.list(&names::stream_prefix(incarnation.stream)).await? {
                let Object::Segment(key) = names::parse(&object.name) else { continue };
                if object.size <= SEAL_BYTES_MAX as u64 && self.is_seal(key, &object.name).await? {
                    continue;
                }
                out.push(key);
            }
        }
        Ok(out)
    }

    async fn is_seal(&self, key: SegmentKey, name: &str) -> Result<bool> {
        if self.seals.lock().contains(&key) {
            return Ok(true);
        }
        let Some(bytes) = self.bucket.get(name).await? else { return Ok(true) };
        let is_seal = Seal::is(&bytes);
        let mut seals = self.seals.lock();
        if is_seal && seals.len() < REMEMBERED_MAX {
            seals.insert(key);
        }
        Ok(is_seal)
    }

    /// Sweeps: gives the `candidates` that nothing holds, or none if it gave up. The caller must
    /// have listed them before this call. An owner must look for a seal in its stream between this
    /// and [`Self::delete`].
    pub async fn free(
        &self,
        owned: &Owned,
        incarnations: &[Incarnation],
        candidates: &BTreeSet<SegmentKey>,
    ) -> Result<Option<Vec<SegmentKey>>> {
        if owned.writing.is_none() {
            if !self.bucket.exists(&names::volume_gone(owned.volume)).await? {
                return Ok(None);
            }
            // Without heads, no reader can find one to pin.
            catalog::delete_heads(&self.bucket, owned.volume, |_| true).await?;
        }
        // A newer Skerry may hold segments in a way that this one does not see.
        self.bucket.check_features().await?;
        let Some(held) = self.held(owned, candidates).await? else { return Ok(None) };
        Ok(Some(held.free(&placed(owned.volume, incarnations, candidates))))
    }

    /// Makes a short pass. Gives the `candidates` that an owner's head or a deleted snapshot has
    /// just let go of and that nothing holds. Gives none if it gave up. An owner must look for a
    /// seal between this and [`Self::delete`].
    pub async fn free_near(
        &self,
        owned: &Owned,
        incarnations: &[Incarnation],
        candidates: &BTreeSet<SegmentKey>,
        near: &Near,
    ) -> Result<Option<Vec<SegmentKey>>> {
        let mut held = Held { unread: near.unread.clone(), ..Held::default() };
        held.open_nodes.extend(owned.writing);
        held.ranges.push(HeldRange::head(owned.volume, &near.head.1));
        let rest = self.rest(&held, owned.volume, incarnations, candidates);
        let (tree, mut seen) = (near.head.0.liveness, SeenMapNodes::new());
        liveness::hold(&self.nodes, tree, &rest, &mut seen, &mut held.listed).await?;
        let rest = self.rest(&held, owned.volume, incarnations, &rest);
        if rest.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let heads = catalog::list_heads(&self.bucket, owned.volume).await?;
        let orders: Vec<RefOrder> = heads.iter().map(|(_, order)| *order).collect();
        if !may_collect(owned.head, &orders) {
            return Ok(None);
        }
        let mut listed = Listed { asked: self.bucket.clock().boot(), ..Listed::default() };
        for prefix in [names::holder_prefix(owned.volume), names::pin_prefix(owned.volume)] {
            let objects = self.bucket.list(&prefix).await?;
            objects.into_iter().for_each(|object| listed.add(object.name));
        }
        held.unread.extend(listed.holders.iter().map(|(_, holder)| *holder.span()));
        let mut gathering = Gathering::new(self, owned.volume, &rest, held);
        for base in &near.read {
            gathering.base(owned.volume, base).await?;
        }
        if !gathering.pins(owned.volume, &listed).await? {
            return Ok(None);
        }
        Ok(Some(gathering.held.free(&placed(owned.volume, incarnations, &rest))))
    }

    fn rest(
        &self,
        held: &Held,
        volume: VolumeId,
        incarnations: &[Incarnation],
        candidates: &BTreeSet<SegmentKey>,
    ) -> BTreeSet<SegmentKey> {
        held.free(&placed(volume, incarnations, candidates)).into_iter().collect()
    }

    /// Gives the segments that a deleted snapshot may have held alone. These are all that its base
    /// names, except for parts of its liveness that one of `others` shares.
    pub async fn of_base(&self, base: &Base, others: &[Base]) -> Result<BTreeSet<SegmentKey>> {
        let others: Vec<_> = others.iter().map(|other| other.root.liveness).collect();
        let mut all = liveness::all_but(&self.nodes, base.root.liveness, &others).await?;
        // Data segments between its root and its end, if they are of one stream; others wait for
        // the sweep.
        let first = if base.at.stream == base.end.stream { base.at.number.0 + 1 } else { 1 };
        let stream = base.end.stream;
        all.extend((first..=base.end.number.0).map(|n| SegmentKey { stream, number: Number(n) }));
        Ok(all)
    }

    /// Deletes segments that [`Self::free`] or [`Self::free_near`] found, several at once. Goes on
    /// after a failed delete; after several, the pass ends.
    pub async fn delete(&self, free: &[SegmentKey]) -> Deleted {
        let bucket = self.bucket.clone();
        let delete = move |key: SegmentKey| {
            let bucket = bucket.clone();
            async move { (key, bucket.delete(&names::segment(key)).await) }.boxed()
        };
        let mut deletes =
            futures::stream::iter(free.to_vec()).map(delete).buffer_unordered(DELETES_IN_FLIGHT);
        let mut left: BTreeSet<SegmentKey> = free.iter().copied().collect();
        let mut failed = Vec::new();
        while let Some((key, done)) = deletes.next().await {
            match done {
                Ok(()) => drop(left.remove(&key)),
                Err(error) => failed.push(error),
            }
            if failed.len() >= DELETES_FAILED_MAX {
                break;
            }
        }
        let (count, left) = (free.len() - left.len(), left.into_iter().collect());
        Deleted { count, left, failed: failed.into_iter().next() }
    }

    /// Finds everything in the family that holds one of the candidates. Gives none if refs kept
    /// changing, or if the owner's own head is not the newest.
    async fn held(&self, owned: &Owned, candidates: &BTreeSet<SegmentKey>) -> Result<Option<Held>> {
        // Segments that an earlier listing held stay held: the next reads only new refs.
        let mut gathering = Gathering::new(self, owned.volume, candidates, Held::default());
        gathering.held.open_nodes.extend(owned.writing);
        for _ in 0..LISTINGS_MAX {
            let Some(family) = family::list(&self.bucket, owned).await? else { return Ok(None) };
            if gathering.all(&family).await? {
                self.release_clones(&family).await?;
                return Ok(Some(gathering.held));
            }
        }
        tracing::warn!(volume = %owned.volume, "a sweep is given up until the next: refs kept changing while it read");
        Ok(None)
    }

    /// Deletes the holders of clones that are over.
    async fn release_clones(&self, family: &BTreeMap<VolumeId, Listed>) -> Result<()> {
        for listed in family.values() {
            for (name, _, clone) in listed.clones() {
                if family.get(&clone).is_some_and(Listed::is_over) {
                    self.bucket.delete(name).await?;
                }
            }
        }
        Ok(())
    }

    /// Time since this node first saw the latest renewal of each pin, by its own boot-time clock.
    fn first_seen(&self, volume: VolumeId, listed: &Listed) -> BTreeMap<PinId, Duration> {
        let now = self.bucket.clock().boot();
        let pins: Vec<(PinId, u64)> =
            listed.pins.iter().map(|(id, (renewal, _))| (*id, *renewal)).collect();
        let mut all = self.pins.lock();
        let mut clocks = all.remove(&volume).unwrap_or_default();
        let ages = clocks.see(&pins, listed.asked, now);
        if !clocks.is_empty() {
            all.insert(volume, clocks);
        }
        ages
    }

    /// True if this node has long seen the clone's holder without its descriptor.
    fn is_abandoned(&self, id: VolumeId, clone: &Listed) -> bool {
        let mut begun = self.begun.lock();
        if clone.desc {
            begun.remove(&id);
            return false;
        }
        if begun.len() >= REMEMBERED_MAX {
            begun.clear();
        }
        let now = self.bucket.clock().boot();
        let seen = *begun.entry(id).or_insert(now);
        now.saturating_sub(seen) >= ABANDONED_AGE
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

/// Gives the candidates with their streams' epochs, where known.
fn placed(
    volume: VolumeId,
    incarnations: &[Incarnation],
    candidates: &BTreeSet<SegmentKey>,
) -> Vec<Candidate> {
    let epochs: HashMap<StreamId, u64> = incarnations.iter().map(|l| (l.stream, l.epoch)).collect();
    let place = |key: &SegmentKey| epochs.get(&key.stream).map(|epoch| (volume, *epoch));
    candidates.iter().map(|key| Candidate { key: *key, stream: place(key) }).collect()
}

/// Gathers the holds of one listing.
struct Gathering<'a> {
    collector: &'a Collector,
    /// The owner of the candidates.
    owner: VolumeId,
    candidates: &'a BTreeSet<SegmentKey>,
    /// Nodes of liveness that were read: roots share most of theirs.
    seen: SeenMapNodes,
    /// Refs of snapshots that were read; the segments that they name are held.
    read: HashSet<String>,
    held: Held,
}

impl<'a> Gathering<'a> {
    fn new(
        collector: &'a Collector,
        owner: VolumeId,
        candidates: &'a BTreeSet<SegmentKey>,
        held: Held,
    ) -> Self {
        let (seen, read) = (SeenMapNodes::new(), HashSet::new());
        Self { collector, owner, candidates, seen, read, held }
    }

    /// Goes through a listing. False if a ref of it is gone by now. Its successor is not in the
    /// listing and may hold what it held, so the listing must be made again.
    async fn all(&mut self, family: &BTreeMap<VolumeId, Listed>) -> Result<bool> {
        let mut withdrawn = HashSet::new();
        for listed in family.values() {
            for (name, holder, clone) in listed.clones() {
                if self.is_withdrawn(listed, holder, &family[&clone], clone).await? {
                    self.collector.bucket.delete(name).await?;
                    self.collector.begun.lock().remove(&clone);
                    withdrawn.insert(clone);
                } else if !family[&clone].desc {
                    // Its maker is about to write the descriptor, or died: the base of the clone
                    // stays.
                    self.held.unread.push(*holder.span());
                }
            }
        }
        for (volume, listed) in family.iter().filter(|(volume, _)| !withdrawn.contains(*volume)) {
            if !self.volume(*volume, listed).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True if the clone never came to be. Withdraws a pending clone here and now if its snapshot
    /// is deleted, or if it is abandoned, unless it is already settled. Its maker may have died. A
    /// maker that is only slow finds the tombstone, or this decision.
    async fn is_withdrawn(
        &self,
        listed: &Listed,
        holder: &Holder,
        clone: &Listed,
        id: VolumeId,
    ) -> Result<bool> {
        let Holder::Clone { snapshot, .. } = holder else { return Ok(false) };
        if clone.gone {
            return Ok(false);
        }
        if clone.state {
            return Ok(!self.collector.is_ready(id).await?);
        }
        if !listed.buried.contains(snapshot) && !self.collector.is_abandoned(id, clone) {
            return Ok(false);
        }
        let name = names::volume_state(id);
        let bytes = VolumeState::Withdrawn.encode(self.collector.bucket.nonce());
        match self.collector.bucket.create(&name, vec![bytes]).await? {
            Created::Ours => Ok(true),
            Created::Theirs => Ok(!self.collector.is_ready(id).await?),
        }
    }

    async fn volume(&mut self, volume: VolumeId, listed: &Listed) -> Result<bool> {
        if !listed.gone && !self.heads(volume, listed).await? {
            return Ok(false);
        }
        Ok(self.snapshots(volume, listed).await? && self.pins(volume, listed).await?)
    }

    async fn snapshots(&mut self, volume: VolumeId, listed: &Listed) -> Result<bool> {
        let live = listed.snapshots.iter().filter(|(id, _)| !listed.buried.contains(*id));
        let all = live.flat_map(|(id, numbers)| {
            numbers.iter().map(move |number| names::snapshot(volume, *id, *number))
        });
        let names: Vec<String> = all.filter(|name| !self.read.contains(name)).collect();
        for some in names.chunks(REFS_AT_ONCE) {
            let bucket = &self.collector.bucket;
            let reads = some.iter().map(|name| read_ref(bucket, name).boxed());
            for (name, found) in some.iter().zip(futures::future::join_all(reads).await) {
                match found {
                    Ok(Some(found)) => self.base(volume, &found.base).await?,
                    Ok(None) => return Ok(false),
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        self.damaged(volume, listed, name, &error);
                    }
                    Err(error) => return Err(error),
                }
                self.read.insert(name.clone());
            }
        }
        Ok(true)
    }

    /// Holds all that a snapshot with an unreadable ref may hold.
    fn damaged(&mut self, volume: VolumeId, listed: &Listed, name: &str, error: &Error) {
        let span = match names::parse(name) {
            // A clone's history is another one.
            Object::Snapshot(_, id, PUBLISHED) if volume == self.owner => listed.labels.get(&id),
            _ => None,
        };
        tracing::warn!(%error, "what this snapshot may hold stays until it is deleted");
        self.held.unread.push(span.copied().unwrap_or(Span::ALL));
    }

    async fn heads(&mut self, volume: VolumeId, listed: &Listed) -> Result<bool> {
        // A pending descriptor holds as much as a settled one.
        if listed.desc && listed.heads.is_empty() {
            self.descriptor(&self.collector.desc(volume).await?).await?;
        }
        let newest = listed.newest_head();
        // The newest first: unreadable nodes of an older one must not count as read.
        for name in listed.heads.iter().rev() {
            let Some(head) = read_ref(&self.collector.bucket, name).await? else {
                return Ok(false);
            };
            self.held.ranges.push(HeldRange::head(volume, &head.base.at));
            let is_old = newest.is_some_and(|newest| RefOrder::of(&head.base.at) < newest);
            let seen = is_old.then(|| self.seen.clone());
            match (self.root(&head.base.root).await, seen) {
                // Put late by a fenced writer: no reader needs the segments that it names.
                (Err(Error::NotFound { .. }), Some(seen)) => self.seen = seen,
                (done, _) => done?,
            }
        }
        Ok(true)
    }

    /// Holds the segments that pins name. Deletes expired pins.
    async fn pins(&mut self, volume: VolumeId, listed: &Listed) -> Result<bool> {
        let ages = self.collector.first_seen(volume, listed);
        for (id, (_, name)) in &listed.pins {
            let Some(bytes) = self.collector.bucket.get(name).await? else { return Ok(false) };
            match Pin::decode(&bytes).map_err(|e| Error::format(name, e)) {
                // Its reader has stopped by its own clock, or died.
                Ok(pin) if has_expired(ages[id], Duration::from_millis(pin.ttl_ms)) => {
                    self.collector.bucket.delete(name).await?;
                }
                Ok(pin) => self.base(volume, &pin.base).await?,
                // The pin is damaged, and its age is beyond any renewal's.
                Err(e) if e.kind() == ErrorKind::Corrupt && ages[id] >= ABANDONED_AGE => {
                    tracing::warn!(error = %e, "a damaged pin that is not renewed is deleted");
                    self.collector.bucket.delete(name).await?;
                }
                Err(e) => return Err(e),
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

#[cfg(test)]
#[path = "collect/tests.rs"]
mod tests;
