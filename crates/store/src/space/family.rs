//! Objects in the bucket about a volume and its family: its clones, and their clones.
//!
//! The listing of a volume shows its clones' holders, their listings show those of their clones,
//! and so on. A pass looks at nothing else in the bucket. So damage elsewhere stops no pass, and a
//! pass costs nothing for volumes that share nothing.

use crate::error::Result;
use crate::objects::bucket::Bucket;
use skerry_core::hold::{Span, may_collect};
use skerry_core::holder::Holder;
use skerry_core::id::{PinId, SnapshotId, StreamId, VolumeId};
use skerry_core::label::Labelled;
use skerry_core::names::{self, Object};
use skerry_core::position::Number;
use skerry_core::takeover::RefOrder;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A collector's volume, and its unpublished state.
#[derive(Debug, Clone)]
pub struct Owned {
    /// The volume.
    pub volume: VolumeId,
    /// The stream being written, and the first number of its node lane that no ref covers; none for
    /// a deleted volume.
    pub writing: Option<(StreamId, Number)>,
    /// The last head ref that the owner wrote in its own stream.
    pub head: Option<RefOrder>,
}

impl Owned {
    /// True if a pass may go on after this listing of the volume. For a living volume, its owner's
    /// head must be the newest. A deleted one has no owner, and the listing must show its
    /// tombstone.
    pub(crate) fn may_collect(&self, listed: &Listed) -> bool {
        if self.writing.is_none() {
            return listed.gone;
        }
        let orders: Vec<RefOrder> = listed.head_orders().collect();
        may_collect(self.head, &orders)
    }
}

/// Objects in the bucket about one volume.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// This node's boot-time clock before the listing.
    pub(crate) asked: Duration,
    pub(crate) desc: bool,
    pub(crate) state: bool,
    pub(crate) gone: bool,
    pub(crate) heads: Vec<String>,
    /// The numbers of snapshots' refs.
    pub(crate) snapshots: BTreeMap<SnapshotId, BTreeSet<u64>>,
    pub(crate) buried: BTreeSet<SnapshotId>,
    /// Spans in the labels of snapshots.
    pub(crate) labels: BTreeMap<SnapshotId, Span>,
    pub(crate) pins: BTreeMap<PinId, (u64, String)>,
    pub(crate) holders: Vec<(String, Holder)>,
}

impl Listed {
    /// Lists everything of a volume but its segments.
    pub(crate) async fn of(bucket: &Bucket, volume: VolumeId) -> Result<Self> {
        let mut all = Self { asked: bucket.clock().boot(), ..Self::default() };
        for object in bucket.list(&names::volume_prefix(volume)).await? {
            all.add(object.name);
        }
        Ok(all)
    }

    pub(crate) fn add(&mut self, name: String) {
        match names::parse(&name) {
            Object::VolumeDesc(_) => self.desc = true,
            Object::VolumeState(_) => self.state = true,
            Object::VolumeGone(_) => self.gone = true,
            Object::Head(..) => self.heads.push(name),
            Object::Snapshot(_, id, number) => {
                self.snapshots.entry(id).or_default().insert(number);
            }
            Object::SnapshotGone(_, id) => drop(self.buried.insert(id)),
            Object::Label(_, _, Labelled::Snapshot(label)) => self.label(label.id, &label.span),
            Object::Holder(_, holder) => self.holders.push((name, holder)),
            Object::Pin(_, id, renewal) => {
                let newest = self.pins.entry(id).or_default();
                if renewal >= newest.0 {
                    *newest = (renewal, name);
                }
            }
            _ => {}
        }
    }

    /// Two owners may have labelled one snapshot, one after the other.
    fn label(&mut self, id: SnapshotId, span: &Span) {
        let all = self.labels.entry(id).or_insert(*span);
        *all = all.union(span);
    }

    pub(crate) fn head_orders(&self) -> impl Iterator<Item = RefOrder> + '_ {
        self.heads.iter().filter_map(|name| match names::parse(name) {
            Object::Head(_, epoch, stream, number) => Some(RefOrder { epoch, stream, number }),
            _ => None,
        })
    }

    pub(crate) fn newest_head(&self) -> Option<RefOrder> {
        self.head_orders().max()
    }

    /// The clones that hang on it, each with the name of its holder.
    pub(crate) fn clones(&self) -> impl Iterator<Item = (&str, &Holder, VolumeId)> {
        self.holders.iter().filter_map(|(name, holder)| match holder {
            Holder::Clone { clone, .. } => Some((name.as_str(), holder, *clone)),
            Holder::Fork { .. } => None,
        })
    }

    /// True if the volume is deleted and nothing is left through which it could be read.
    pub(crate) fn is_over(&self) -> bool {
        let mut snapshots = self.snapshots.keys();
        self.gone
            && snapshots.all(|id| self.buried.contains(id))
            && self.pins.is_empty()
            && self.clones().next().is_none()
    }

    /// Joins two listings of the volume, made one after the other. Refs of either count, tombstones
    /// of the first only. A higher number that the *first* listing shows replaces a snapshot's ref.
    fn then(self, mut second: Self) -> Self {
        second.gone = self.gone;
        second.buried = self.buried;
        second.desc |= self.desc;
        second.heads.extend(self.heads);
        second.heads.sort_unstable();
        second.heads.dedup();
        for (id, numbers) in self.snapshots {
            let Some(counts) = numbers.last().copied() else { continue };
            let held = second.snapshots.entry(id).or_default();
            held.insert(counts);
            held.retain(|number| *number >= counts);
        }
        self.labels.iter().for_each(|(id, span)| second.label(*id, span));
        for (name, holder) in self.holders {
            if !second.holders.iter().any(|(other, _)| *other == name) {
                second.holders.push((name, holder));
            }
        }
        second
    }
}

/// Lists a volume and its family, each volume twice. Gives none if `owned` may not collect.
pub(crate) async fn list(
    bucket: &Bucket,
    owned: &Owned,
) -> Result<Option<BTreeMap<VolumeId, Listed>>> {
    let mut family = BTreeMap::new();
    let mut todo = vec![owned.volume];
    while let Some(volume) = todo.pop() {
        if family.contains_key(&volume) {
            continue;
        }
        let first = Listed::of(bucket, volume).await?;
        if volume == owned.volume && !owned.may_collect(&first) {
            return Ok(None);
        }
        let listed = first.then(Listed::of(bucket, volume).await?);
        todo.extend(listed.clones().map(|(_, _, clone)| clone));
        family.insert(volume, listed);
    }
    Ok(Some(family))
}

/// True if the volume is deleted and nothing is left through which it could be read. That never
/// changes.
pub async fn is_over(bucket: &Bucket, volume: VolumeId) -> Result<bool> {
    // First list the objects that decide, then the ones that may still hold.
    let first = Listed::of(bucket, volume).await?;
    Ok(first.gone && first.then(Listed::of(bucket, volume).await?).is_over())
}

/// Deletes the holders of a volume that is over, and of its ancestors that are over then.
pub async fn release(
    bucket: &Bucket,
    catalog: &crate::refs::catalog::Catalog,
    mut volume: VolumeId,
) -> Result<()> {
    // Ids are never used twice, so the chain of ancestors ends.
    loop {
        let parent = match catalog.desc(volume).await {
            Ok(desc) => desc.parent,
            Err(e) if e.is_unavailable() => return Err(e),
            Err(error) => {
                tracing::warn!(%volume, %error, "this clone's parent is unknown; its sweep finds the clone");
                None
            }
        };
        let Some((parent, _)) = parent else { return Ok(()) };
        if !is_over(bucket, volume).await? {
            return Ok(());
        }
        delete_holders(bucket, parent, volume).await?;
        volume = parent;
    }
}

/// Deletes the holders of a clone on its parent: the clone never came to be, or nothing of it is
/// left.
pub async fn delete_holders(bucket: &Bucket, parent: VolumeId, clone: VolumeId) -> Result<()> {
    for object in bucket.list(&names::holder_prefix(parent)).await? {
        if let Object::Holder(_, Holder::Clone { clone: of, .. }) = names::parse(&object.name)
            && of == clone
        {
            bucket.delete(&object.name).await?;
        }
    }
    Ok(())
}
