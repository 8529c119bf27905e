//! The catalogue: names in use, the volumes that they name, and the descriptors of these.
//!
//! Names are numbered create-if-absent objects; the highest number counts. The catalogue knows
//! neither a log nor an owner's memory.

use crate::error::{Error, Result};
use crate::objects::bucket::{Bucket, Created, Listed};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use skerry_core::descriptor::{NameRecord, Tombstone, VolumeDesc, VolumeState};
use skerry_core::holder::Holder;
use skerry_core::id::{SnapshotId, VolumeId};
use skerry_core::label::{self, Label, Labelled};
use skerry_core::name::Name;
use skerry_core::names::{self, Object};
use skerry_core::refs::{Ref, SnapshotInfo};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Failed deletes after which a pass deletes no more: the store has failed, and not single
/// objects.
pub(crate) const DELETES_FAILED_MAX: usize = 4;

/// A volume's descriptor, and whether its head is deleted.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The descriptor.
    pub desc: Arc<VolumeDesc>,
    /// True if the head is deleted; snapshots may be left.
    pub gone: bool,
}

/// Reads and writes names and descriptors. Descriptors never change, and stay in memory.
#[derive(Debug)]
pub struct Catalog {
    bucket: Bucket,
    descs: Mutex<HashMap<VolumeId, Arc<VolumeDesc>>>,
    names: Mutex<HashMap<(String, u64), Option<VolumeId>>>,
    /// Settled states; they never change.
    states: Mutex<HashMap<VolumeId, VolumeState>>,
}

/// The most kept names, and the most kept descriptors. Beyond it they are read again.
const REMEMBERED_MAX: usize = 65_536;

/// Number of names read at once.
const NAMES_AT_ONCE: usize = 16;

/// Number of listings of a snapshot's refs while they change.
const LISTINGS_MAX: usize = 5;

impl Catalog {
    /// The catalogue of a bucket.
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket, descs: Mutex::default(), names: Mutex::default(), states: Mutex::default() }
    }

    async fn read_name(&self, name: &str, number: u64) -> Result<Option<VolumeId>> {
        let key = (name.to_owned(), number);
        if let Some(known) = self.names.lock().get(&key) {
            return Ok(*known);
        }
        let object = format!("{}/{name}/{number:016x}", names::NAMES);
        let bytes = self.bucket.get(&object).await?.ok_or_else(|| Error::not_found(&object))?;
        let record = NameRecord::decode(&bytes).map_err(|e| Error::format(&object, e))?;
        let mut names = self.names.lock();
        if names.len() >= REMEMBERED_MAX {
            names.clear();
        }
        names.insert(key, record.volume);
        Ok(record.volume)
    }

    /// The newest number of a name, and the volume that it names.
    async fn newest(&self, name: &Name) -> Result<Option<(u64, Option<VolumeId>)>> {
        let listed = self.bucket.list(&names::name_prefix(name)).await?;
        let number = listed.iter().filter_map(|o| match names::parse(&o.name) {
            Object::Name(_, number) => Some(number),
            _ => None,
        });
        match number.max() {
            Some(number) => Ok(Some((number, self.read_name(name.as_str(), number).await?))),
            None => Ok(None),
        }
    }

    /// Gives the volume of this name.
    pub async fn resolve(&self, name: &Name) -> Result<Option<VolumeId>> {
        Ok(self.newest(name).await?.and_then(|(_, volume)| volume))
    }

    /// Gives all names in use, and their volumes. A name with an unreadable object hides no other:
    /// it has the error.
    ///
    /// # Errors
    /// If the names can't be listed, or the bucket does not answer.
    pub async fn all(&self) -> Result<BTreeMap<String, Result<VolumeId>>> {
        let mut newest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for object in self.bucket.list(names::NAMES).await? {
            if let Object::Name(name, number) = names::parse(&object.name) {
                let highest = newest.entry(name).or_default();
                *highest = (*highest).max((number, object.size));
            }
        }
        // The size tells a record without a volume, so freed names cost no read.
        let free_bytes = NameRecord { volume: None }.encode([0; 16]).len() as u64;
        newest.retain(|_, (_, size)| *size != free_bytes);
        let read = |(name, (number, _)): (String, (u64, u64))| {
            async move { (self.read_name(&name, number).await, name) }.boxed()
        };
        let mut reads = futures::stream::iter(newest).map(read).buffered(NAMES_AT_ONCE);
        let mut out = BTreeMap::new();
        while let Some((read, name)) = reads.next().await {
            match read {
                Ok(None) => {}
                Ok(Some(volume)) => drop(out.insert(name, Ok(volume))),
                Err(e) if e.is_unavailable() => return Err(e),
                Err(e) => drop(out.insert(name, Err(e))),
            }
        }
        Ok(out)
    }

    /// Claims a free name for a volume.
    pub async fn claim(&self, name: &Name, volume: VolumeId) -> Result<()> {
        let next = match self.newest(name).await? {
            Some((_, Some(holder))) if holder == volume => return Ok(()),
            Some((_, Some(_))) => return Err(Error::exists(format!("volume {name}"))),
            Some((number, None)) => number + 1,
            None => 1,
        };
        let record = NameRecord { volume: Some(volume) }.encode(self.bucket.nonce());
        match self.bucket.create(&names::name(name, next), vec![record]).await? {
            Created::Ours => Ok(()),
            Created::Theirs => Err(Error::exists(format!("volume {name}"))),
        }
    }

    /// Frees a name if it still names this volume.
    pub async fn free(&self, name: &Name, volume: VolumeId) -> Result<()> {
        if let Some((number, Some(holder))) = self.newest(name).await?
            && holder == volume
        {
            let record = NameRecord { volume: None }.encode(self.bucket.nonce());
            // A lost race means that another node freed it.
            let _ = self.bucket.create(&names::name(name, number + 1), vec![record]).await?;
        }
        Ok(())
    }

    /// Writes a volume's descriptor. While pending, it holds its base and is no volume yet.
    pub async fn propose(&self, desc: &VolumeDesc) -> Result<()> {
        let bytes = desc.encode(self.bucket.nonce());
        match self.bucket.create(&names::volume_desc(desc.id), vec![bytes]).await? {
            Created::Ours => Ok(()),
            Created::Theirs => Err(Error::exists(format!("volume id {}", desc.id))),
        }
    }

    /// Settles a pending descriptor. Gives the decision, which may be the other state.
    pub async fn settle(&self, volume: VolumeId, state: VolumeState) -> Result<VolumeState> {
        let name = names::volume_state(volume);
        match self.bucket.create(&name, vec![state.encode(self.bucket.nonce())]).await? {
            Created::Ours => Ok(state),
            Created::Theirs => self.state(volume).await?.ok_or_else(|| Error::not_found(&name)),
        }
    }

    /// Gives the state of a descriptor; none while it is pending.
    pub async fn state(&self, volume: VolumeId) -> Result<Option<VolumeState>> {
        if let Some(known) = self.states.lock().get(&volume) {
            return Ok(Some(*known));
        }
        let name = names::volume_state(volume);
        let Some(bytes) = self.bucket.get(&name).await? else { return Ok(None) };
        let state = VolumeState::decode(&bytes).map_err(|e| Error::format(&name, e))?;
        let mut states = self.states.lock();
        if states.len() >= REMEMBERED_MAX {
            states.clear();
        }
        states.insert(volume, state);
        Ok(Some(state))
    }

    /// A volume's descriptor.
    pub async fn desc(&self, volume: VolumeId) -> Result<Arc<VolumeDesc>> {
        if let Some(desc) = self.descs.lock().get(&volume) {
            return Ok(desc.clone());
        }
        let name = names::volume_desc(volume);
        let bytes = self.bucket.get(&name).await?.ok_or_else(|| Error::not_found(&name))?;
        let desc = Arc::new(VolumeDesc::decode(&bytes).map_err(|e| Error::format(&name, e))?);
        let mut descs = self.descs.lock();
        if descs.len() >= REMEMBERED_MAX {
            descs.clear();
        }
        descs.insert(volume, desc.clone());
        Ok(desc)
    }

    /// A volume's descriptor, and whether its head is deleted.
    pub async fn entry(&self, volume: VolumeId) -> Result<Entry> {
        Ok(Entry { desc: self.desc(volume).await?, gone: self.is_gone(volume).await? })
    }

    /// True if a volume's head is deleted. Asks only for the tombstone, even if the descriptor is
    /// unreadable.
    pub async fn is_gone(&self, volume: VolumeId) -> Result<bool> {
        self.bucket.exists(&names::volume_gone(volume)).await
    }

    /// Writes a tombstone, if none is there.
    pub async fn bury(&self, object: &str) -> Result<()> {
        let tomb = Tombstone { at_ms: self.bucket.clock().wall_ms() };
        self.bucket.create(object, vec![tomb.encode(self.bucket.nonce())]).await.map(drop)
    }

    /// Reads the refs of a volume's snapshots that are not deleted, oldest first.
    pub async fn snapshots(&self, volume: VolumeId) -> Result<Vec<Ref>> {
        let listed = self.bucket.list(&names::snapshot_prefix(volume)).await?;
        let mut out = Vec::new();
        for (id, found) in snapshots_of(&listed) {
            if found.is_buried {
                continue;
            }
            out.extend(match found.newest() {
                Some(number) => {
                    match read_ref(&self.bucket, &names::snapshot(volume, id, number)).await? {
                        // Replaced by a higher number since the listing.
                        None => self.snapshot(volume, id).await?,
                        found => found,
                    }
                }
                None => None,
            });
        }
        out.sort_by_key(|r| r.snapshot.as_ref().map_or(0, |s| s.created_ms));
        Ok(out)
    }

    /// Lists the labels of a volume's snapshots, by name: one listing. Leaves out snapshots whose
    /// deletion has begun.
    pub async fn labels(&self, volume: VolumeId) -> Result<Vec<(String, Label)>> {
        Ok(self.all_labels(volume).await?.0)
    }

    /// Lists the labels of a volume's snapshots, and apart from them the snapshots whose deletion
    /// has begun.
    pub async fn all_labels(
        &self,
        volume: VolumeId,
    ) -> Result<(Vec<(String, Label)>, Vec<(String, SnapshotId)>)> {
        let (mut there, mut ending) = (Vec::new(), Vec::new());
        for object in self.bucket.list(&names::label_prefix(volume)).await? {
            match names::parse(&object.name) {
                Object::Label(_, name, Labelled::Snapshot(label)) => there.push((name, label)),
                Object::Label(_, name, Labelled::Ending(id)) => ending.push((name, id)),
                _ => {}
            }
        }
        there.retain(|(_, label)| !ending.iter().any(|(_, id)| *id == label.id));
        // Two owners may have labelled one snapshot, one after the other, and the ref of either may
        // be there.
        there.dedup_by(|(_, label), (_, kept)| {
            let is_same = label.id == kept.id;
            if is_same {
                kept.span = kept.span.union(&label.span);
            }
            is_same
        });
        Ok((there, ending))
    }

    /// Gives the newest ref of the snapshot of this name, unless it is deleted. The number of calls
    /// does not depend on the number of snapshots.
    pub async fn find_snapshot(&self, volume: VolumeId, name: &Name) -> Result<Option<Ref>> {
        let (mut found, mut ending) = (Vec::new(), Vec::new());
        for object in self.bucket.list(&names::label_prefix_of(volume, name.as_str())).await? {
            match names::parse(&object.name) {
                Object::Label(_, _, Labelled::Snapshot(label)) => found.push(label),
                Object::Label(_, _, Labelled::Ending(id)) => ending.push(id),
                _ => {}
            }
        }
        for label in found.into_iter().filter(|label| !ending.contains(&label.id)) {
            let numbers = self.snapshot_numbers(volume, label.id).await?;
            if let Some(number) = numbers.newest().filter(|_| !numbers.is_buried) {
                let object = names::snapshot(volume, label.id, number);
                return match read_ref(&self.bucket, &object).await? {
                    // Replaced by a higher number since the listing.
                    None => self.snapshot(volume, label.id).await,
                    found => Ok(found),
                };
            }
        }
        Ok(None)
    }

    /// Creates the label of a snapshot; its ref comes afterwards.
    pub async fn label(&self, volume: VolumeId, name: &str, label: Label) -> Result<()> {
        let bytes = label::encode(label.id, self.bucket.nonce());
        let object = names::label(volume, name, &Labelled::Snapshot(label));
        // An existing object is the label of the same snapshot.
        self.bucket.create(&object, vec![bytes]).await.map(drop)
    }

    /// Deletes a snapshot. Its tombstone decides. Any node can finish a deletion that was begun:
    /// the listing of labels shows it.
    pub async fn delete_snapshot(
        &self,
        volume: VolumeId,
        name: &str,
        id: SnapshotId,
    ) -> Result<()> {
        let ending = names::label(volume, name, &Labelled::Ending(id));
        let bytes = label::encode(id, self.bucket.nonce());
        let _ = self.bucket.create(&ending, vec![bytes]).await?;
        self.bury(&names::snapshot_gone(volume, id)).await?;
        self.delete_snapshot_refs(volume, id).await?;
        for object in self.bucket.list(&names::label_prefix_of(volume, name)).await? {
            if let Object::Label(_, _, Labelled::Snapshot(label)) = names::parse(&object.name)
                && label.id == id
            {
                self.bucket.delete(&object.name).await?;
            }
        }
        self.bucket.delete(&ending).await
    }

    /// Deletes a snapshot as [`Self::delete_snapshot`] does. Once the tombstone is there, it leaves
    /// objects that can't be deleted to the next owner.
    pub async fn delete_or_bury(&self, volume: VolumeId, name: &str, id: SnapshotId) -> Result<()> {
        let deleted = self.delete_snapshot(volume, name, id).await;
        let Err(error) = deleted else { return Ok(()) };
        if !self.bucket.exists(&names::snapshot_gone(volume, id)).await? {
            return Err(error);
        }
        tracing::warn!(%volume, name, %error, "objects of a deleted snapshot stay for now");
        Ok(())
    }

    /// Finishes the begun deletions, then gives the labels of a volume's snapshots. An object that
    /// can't be deleted keeps no volume from being opened or swept: the tombstone counts.
    pub async fn settled_labels(&self, volume: VolumeId) -> Result<Vec<(String, Label)>> {
        let (labels, ending) = self.all_labels(volume).await?;
        for (name, id) in ending {
            self.delete_or_bury(volume, &name, id).await?;
        }
        Ok(labels)
    }

    /// Deletes labels that a fenced owner's late PUTs created after their snapshots were deleted.
    pub async fn clear_stray_labels(&self, volume: VolumeId) -> Result<()> {
        let listed = self.bucket.list(&names::snapshot_prefix(volume)).await?;
        let gone: BTreeSet<SnapshotId> = listed
            .iter()
            .filter_map(|object| match names::parse(&object.name) {
                Object::SnapshotGone(_, id) => Some(id),
                _ => None,
            })
            .collect();
        for (name, label) in self.labels(volume).await? {
            if gone.contains(&label.id) {
                self.delete_or_bury(volume, &name, label.id).await?;
            }
        }
        Ok(())
    }

    /// Creates a holder on a volume's history, before the clone or fork that it stands for.
    pub async fn hold(&self, volume: VolumeId, holder: &Holder) -> Result<()> {
        let bytes = holder.encode(self.bucket.nonce());
        self.bucket.create(&names::holder(volume, holder), vec![bytes]).await.map(drop)
    }

    /// Lists the objects of one snapshot.
    pub async fn snapshot_numbers(&self, volume: VolumeId, id: SnapshotId) -> Result<Numbers> {
        let listed = self.bucket.list(&names::snapshot_objects(volume, id)).await?;
        Ok(snapshots_of(&listed).remove(&id).unwrap_or_default())
    }

    /// A snapshot's newest ref, if it has one.
    pub async fn snapshot(&self, volume: VolumeId, id: SnapshotId) -> Result<Option<Ref>> {
        for _ in 0..LISTINGS_MAX {
            let Some(number) = self.snapshot_numbers(volume, id).await?.newest() else {
                return Ok(None);
            };
            if let Some(found) =
                read_ref(&self.bucket, &names::snapshot(volume, id, number)).await?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// True while `found` counts for its snapshot: no higher number, no tombstone.
    pub async fn is_newest(&self, volume: VolumeId, found: &SnapshotInfo) -> Result<bool> {
        let now = self.snapshot_numbers(volume, found.id).await?;
        Ok(!now.is_buried && now.newest() == Some(found.number))
    }

    /// Deletes every number of a snapshot's ref. Its tombstone must be there.
    pub async fn delete_snapshot_refs(&self, volume: VolumeId, id: SnapshotId) -> Result<()> {
        for number in self.snapshot_numbers(volume, id).await?.refs {
            self.bucket.delete(&names::snapshot(volume, id, number)).await?;
        }
        Ok(())
    }
}

/// The objects of one snapshot in a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The numbers of its ref.
    pub refs: BTreeSet<u64>,
    /// True if its tombstone is there.
    pub is_buried: bool,
}

impl Numbers {
    /// The number that counts.
    pub fn newest(&self) -> Option<u64> {
        self.refs.last().copied()
    }
}

/// Groups a volume's listing by snapshot.
fn snapshots_of(listed: &[Listed]) -> BTreeMap<SnapshotId, Numbers> {
    let mut all: BTreeMap<SnapshotId, Numbers> = BTreeMap::new();
    for object in listed {
        match names::parse(&object.name) {
            Object::Snapshot(_, id, number) => {
                all.entry(id).or_default().refs.insert(number);
            }
            Object::SnapshotGone(_, id) => all.entry(id).or_default().is_buried = true,
            _ => {}
        }
    }
    all
}

/// Reads a ref.
pub async fn read_ref(bucket: &Bucket, name: &str) -> Result<Option<Ref>> {
    match bucket.get(name).await? {
        Some(bytes) => Ref::decode(&bytes).map(Some).map_err(|e| Error::format(name, e)),
        None => Ok(None),
    }
}

/// Deletes a volume's head refs that `which` chooses. Goes on after one that can't be deleted;
/// after several, it ends.
///
/// # Errors
/// The first failure to delete one.
pub async fn delete_heads(
    bucket: &Bucket,
    volume: VolumeId,
    which: impl Fn(&skerry_core::takeover::RefOrder) -> bool,
) -> Result<()> {
    let mut failed = Vec::new();
    for (name, _) in list_heads(bucket, volume).await?.iter().filter(|(_, order)| which(order)) {
        failed.extend(bucket.delete(name).await.err());
        if failed.len() >= DELETES_FAILED_MAX {
            break;
        }
    }
    failed.into_iter().next().map_or(Ok(()), Err)
}

/// Lists a volume's head refs in their order, newest last.
pub async fn list_heads(
    bucket: &Bucket,
    volume: VolumeId,
) -> Result<Vec<(String, skerry_core::takeover::RefOrder)>> {
    let mut heads: Vec<_> = bucket
        .list(&names::head_prefix(volume))
        .await?
        .into_iter()
        .filter_map(|object| match names::parse(&object.name) {
            Object::Head(_, epoch, stream, number) => {
                Some((object.name, skerry_core::takeover::RefOrder { epoch, stream, number }))
            }
            _ => None,
        })
        .collect();
    heads.sort_by_key(|(_, order)| *order);
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::meter::{CallKind, Meter};
    use crate::objects::testing::{bucket_in, env};
    use object_store::memory::InMemory;

    /// Once, every name that had ever been used was read.
    #[tokio::test]
    async fn names_that_were_freed_cost_no_read() {
        let meter = Meter::new(Arc::new(InMemory::new()), env(1).clock);
        let counters = meter.counters();
        let bucket = bucket_in(Arc::new(meter), 1).await;
        let catalog = Catalog::new(bucket.clone());
        for n in 0..100u8 {
            let (name, volume) = (format!("n{n}").parse().expect("a name"), VolumeId([n; 16]));
            catalog.claim(&name, volume).await.expect("claimed");
            if n >= 3 {
                catalog.free(&name, volume).await.expect("freed");
            }
        }
        let before = counters.tally();
        let all = Catalog::new(bucket).all().await.expect("listed");
        assert_eq!(all.len(), 3);
        let cost = counters.tally().since(&before);
        assert_eq!((cost.calls(CallKind::Get), cost.calls_in_all()), (3, 4));
    }
}
