//! A small engine in memory, for tests of everything that serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use skerry_core::id::{BucketId, NodeId, SnapshotId, VolumeId};
use skerry_core::name::{Name, Target};
use skerry_volume::{
    CreateVolume, DiffRange, Error, ErrorKind, FsckReport, NodeStatus, Released, Result,
    SnapshotState, SnapshotView, StatusRange, VolumeInfo,
};

use crate::engine::{Engine, EngineDevice};
use crate::metric::{Metric, Sample, Value};

/// Time of all events: 2023-11-14T22:13:20Z.
const NOW_MS: u64 = 1_700_000_000_000;
const BLOCK: u64 = 4096;

type Blocks = BTreeMap<u64, Vec<u8>>;

#[derive(Clone)]
struct Volume {
    info: VolumeInfo,
    blocks: Blocks,
    snapshots: Vec<(SnapshotView, Blocks)>,
}

#[derive(Default)]
struct State {
    volumes: BTreeMap<String, Volume>,
    made: u32,
    problems: Vec<String>,
    opened: u64,
    flushes: u64,
    /// Number of volumes at the shutdown.
    left: Option<usize>,
    hangs: bool,
    keeps_snapshots: bool,
    unreadable_from: Option<u64>,
}

/// The engine.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// Pretends that this number of clients use a volume.
    pub(crate) fn set_clients(&self, name: &str, clients: u64) {
        let mut state = self.0.lock();
        state.volumes.get_mut(name).expect("a volume").info.clients = clients;
    }

    /// Makes requests for a snapshot wait for ever.
    pub(crate) fn hang(&self) {
        self.0.lock().hangs = true;
    }

    /// Refuses deletions of snapshots.
    pub(crate) fn keep_snapshots(&self) {
        self.0.lock().keeps_snapshots = true;
    }

    /// Makes reads fail from an offset on.
    pub(crate) fn fail_reads_from(&self, offset: u64) {
        self.0.lock().unreadable_from = Some(offset);
    }

    /// Pretends that a check finds these problems.
    pub(crate) fn set_problems(&self, problems: Vec<String>) {
        self.0.lock().problems = problems;
    }

    /// The number of flushes, and whether it was shut down.
    pub(crate) fn flushes_and_end(&self) -> (u64, bool) {
        let state = self.0.lock();
        (state.flushes, state.left.is_some())
    }

    /// Number of volumes at the shutdown.
    pub(crate) fn left_at_the_end(&self) -> Option<usize> {
        self.0.lock().left
    }

    /// Number of opened devices.
    pub(crate) fn opened(&self) -> u64 {
        self.0.lock().opened
    }

    fn with<T>(&self, name: &Name, f: impl FnOnce(&mut Volume) -> Result<T>) -> Result<T> {
        let mut state = self.0.lock();
        f(state.volumes.get_mut(name.as_str()).ok_or_else(|| not_found(name))?)
    }

    fn add(&self, new: CreateVolume, blocks: Blocks) -> Result<VolumeInfo> {
        let mut state = self.0.lock();
        if state.volumes.contains_key(new.name.as_str()) {
            let message = format!("volume {} exists: choose another name", new.name);
            return Err(Error::new(ErrorKind::Exists, message));
        }
        state.made += 1;
        let info = VolumeInfo {
            name: new.name.to_string(),
            id: VolumeId([state.made as u8; 16]),
            size_bytes: new.size_bytes,
            block_size_bytes: new.block_size_bytes,
            flush: new.flush.unwrap_or_default(),
            created_ms: NOW_MS,
            clients: 0,
            undestaged_bytes: 0,
            undestaged_age_ms: 0,
            snapshots: 0,
            owner: None,
            owned_here: false,
            deleted: false,
            failure: None,
        };
        let volume = Volume { info: info.clone(), blocks, snapshots: Vec::new() };
        state.volumes.insert(info.name.clone(), volume);
        Ok(info)
    }
}

fn not_found(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no {what}: list what there is"))
}

impl Volume {
    fn snapshot(&self, name: &Name) -> Result<&(SnapshotView, Blocks)> {
        let found = self.snapshots.iter().find(|(view, _)| view.name == name.as_str());
        found.ok_or_else(|| not_found(format!("{}@{name}", self.info.name)))
    }

    fn take(&mut self, name: Option<&Name>) -> Result<SnapshotView> {
        let name = name.map_or("20231114T221320Z".to_owned(), Name::to_string);
        if self.snapshots.iter().any(|(view, _)| view.name == name) {
            return Err(Error::new(ErrorKind::Exists, format!("{name} exists")));
        }
        let view = SnapshotView {
            name,
            id: SnapshotId([self.snapshots.len() as u8 + 1; 16]),
            volume: self.info.name.clone(),
            created_ms: NOW_MS,
            size_bytes: self.info.size_bytes,
            state: SnapshotState::Pending,
        };
        self.snapshots.push((view.clone(), self.blocks.clone()));
        Ok(view)
    }

    fn info(&self) -> VolumeInfo {
        VolumeInfo { snapshots: self.snapshots.len() as u64, ..self.info.clone() }
    }
}

#[async_trait]
impl Engine for Fake {
    async fn create_volume(&self, new: CreateVolume) -> Result<VolumeInfo> {
        self.add(new, Blocks::new())
    }

    async fn list_volumes(&self) -> Result<Vec<VolumeInfo>> {
        Ok(self.0.lock().volumes.values().map(Volume::info).collect())
    }

    async fn show_volume(&self, name: &Name) -> Result<VolumeInfo> {
        self.with(name, |volume| Ok(volume.info()))
    }

    async fn name_of(&self, id: VolumeId) -> Result<Option<Name>> {
        let state = self.0.lock();
        let found = state.volumes.values().find(|volume| volume.info.id == id);
        Ok(found.map(|volume| volume.info.name.parse().expect("a name")))
    }

    async fn resize_volume(&self, name: &Name, size: u64, shrink: bool) -> Result<VolumeInfo> {
        self.with(name, |volume| {
            if size < volume.info.size_bytes && !shrink {
                return Err(Error::new(ErrorKind::Invalid, "it would shrink: use --shrink"));
            }
            volume.info.size_bytes = size;
            Ok(volume.info())
        })
    }

    async fn rename_volume(&self, name: &Name, new: &Name) -> Result<VolumeInfo> {
        let mut state = self.0.lock();
        let mut volume = state.volumes.remove(name.as_str()).ok_or_else(|| not_found(name))?;
        volume.info.name = new.to_string();
        let info = volume.info();
        state.volumes.insert(new.to_string(), volume);
        Ok(info)
    }

    async fn delete_volume(&self, name: &Name, snapshots: bool, force: bool) -> Result<()> {
        self.with(name, |volume| match volume.info.clients {
            clients if clients > 0 && !force => {
                Err(Error::new(ErrorKind::Busy, "it has clients: disconnect them"))
            }
            _ => {
                volume.info.deleted = true;
                Ok(())
            }
        })?;
        let keeps = |volume: &Volume| !snapshots && !volume.snapshots.is_empty();
        self.0.lock().volumes.retain(|_, volume| !volume.info.deleted || keeps(volume));
        Ok(())
    }

    async fn release_volume(&self, name: &Name, force: bool) -> Result<Released> {
        self.with(name, |_| Ok(Released { held_by: Some("host-2".into()), may_lose: force }))
    }

    async fn clone_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        new: &Name,
        size_bytes: Option<u64>,
    ) -> Result<VolumeInfo> {
        let (view, blocks) = self.with(volume, |volume| volume.snapshot(snapshot).cloned())?;
        let new = CreateVolume {
            name: new.clone(),
            size_bytes: size_bytes.unwrap_or(view.size_bytes),
            block_size_bytes: BLOCK,
            flush: None,
        };
        self.add(new, blocks)
    }

    async fn rollback_volume(
        &self,
        volume: &Name,
        snapshot: &Name,
        _force: bool,
    ) -> Result<SnapshotView> {
        self.with(volume, |volume| {
            let blocks = volume.snapshot(snapshot)?.1.clone();
            let kept = volume.take(None)?;
            volume.blocks = blocks;
            Ok(kept)
        })
    }

    async fn create_snapshot(&self, name: &Name, snapshot: Option<&Name>) -> Result<SnapshotView> {
        let hangs = self.0.lock().hangs;
        if hangs {
            std::future::pending::<()>().await;
        }
        self.with(name, |volume| volume.take(snapshot))
    }

    async fn list_snapshots(&self, name: &Name) -> Result<Vec<SnapshotView>> {
        self.with(name, |volume| {
            Ok(volume.snapshots.iter().map(|(view, _)| view.clone()).collect())
        })
    }

    async fn delete_snapshot(&self, name: &Name, snapshot: &Name) -> Result<()> {
        let keeps = self.0.lock().keeps_snapshots;
        if keeps {
            return Err(Error::new(ErrorKind::Unavailable, "the bucket denies it"));
        }
        self.with(name, |volume| {
            volume.snapshot(snapshot)?;
            volume.snapshots.retain(|(view, _)| view.name != snapshot.as_str());
            Ok(())
        })
    }

    async fn diff_snapshots(&self, name: &Name, from: &Name, to: &Name) -> Result<Vec<DiffRange>> {
        self.with(name, |volume| {
            let (old, new) = (&volume.snapshot(from)?.1, &volume.snapshot(to)?.1);
            let mut all: Vec<u64> = old.keys().chain(new.keys()).copied().collect();
            all.sort_unstable();
            all.dedup();
            all.retain(|block| old.get(block) != new.get(block));
            let range = |block: u64| DiffRange {
                offset: block * BLOCK,
                length: BLOCK,
                zero: !new.contains_key(&block),
            };
            Ok(all.into_iter().map(range).collect())
        })
    }

    async fn open_device(&self, target: &Target) -> Result<Arc<dyn EngineDevice>> {
        self.with(&target.volume, |volume| {
            target.snapshot.as_ref().map_or(Ok(()), |name| volume.snapshot(name).map(drop))
        })?;
        self.0.lock().opened += 1;
        Ok(Arc::new(FakeDevice { engine: self.clone(), target: target.clone() }))
    }

    fn status(&self) -> NodeStatus {
        NodeStatus {
            node: NodeId([1; 16]),
            bucket: BucketId([2; 16]),
            bucket_url: "memory://".to_owned(),
            has_log: true,
            log_used_bytes: 0,
            log_cap_bytes: 1 << 30,
            log_failure: None,
            volumes_open: self.0.lock().volumes.len() as u64,
            parked: vec!["a tail".to_owned()],
            bucket_failure: Some("it is slow".to_owned()),
        }
    }

    async fn fsck(&self) -> Result<FsckReport> {
        let state = self.0.lock();
        let volumes = state.volumes.len() as u64;
        Ok(FsckReport { volumes, problems: state.problems.clone(), ..FsckReport::default() })
    }

    async fn shutdown(&self) -> Result<()> {
        let mut state = self.0.lock();
        state.left = Some(state.volumes.len());
        Ok(())
    }

    fn metrics(&self) -> Vec<Metric> {
        let state = self.0.lock();
        let per_volume =
            state.volumes.keys().map(|name| Sample::of("volume", name, Value::Gauge(512.0)));
        let buckets = vec![(0.001, 3), (f64::INFINITY, 1)];
        vec![
            Metric::new("undestaged_bytes", "Bytes in the log alone", per_volume.collect()),
            Metric::new("flushes", "Flushes", vec![Sample::plain(Value::Counter(state.flushes))]),
            Metric::new(
                "log_sync_seconds",
                "How long the log takes to sync",
                vec![Sample::plain(Value::Histogram { sum: 0.5, buckets })],
            ),
        ]
    }
}

struct FakeDevice {
    engine: Fake,
    target: Target,
}

impl FakeDevice {
    fn with<T>(&self, f: impl FnOnce(&mut Blocks, u64) -> T) -> Result<T> {
        self.engine.with(&self.target.volume, |volume| match &self.target.snapshot {
            None => Ok(f(&mut volume.blocks, volume.info.size_bytes)),
            Some(name) => {
                let (view, mut blocks) = volume.snapshot(name)?.clone();
                Ok(f(&mut blocks, view.size_bytes))
            }
        })
    }
}

#[async_trait]
impl EngineDevice for FakeDevice {
    fn name(&self) -> String {
        self.target.to_string()
    }

    fn size_bytes(&self) -> u64 {
        self.with(|_, size| size).unwrap_or(0)
    }

    fn block_size_bytes(&self) -> u64 {
        BLOCK
    }

    fn is_read_only(&self) -> bool {
        self.target.snapshot.is_some()
    }

    fn try_read(&self, _offset: u64, _buf: &mut [u8]) -> Option<Result<()>> {
        None
    }

    fn try_write(&self, _offset: u64, _data: &[u8]) -> Option<Result<()>> {
        None
    }

    fn try_flush(&self) -> Option<Result<()>> {
        None
    }

    async fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset + out.len() as u64;
        if self.engine.0.lock().unreadable_from.is_some_and(|from| end > from) {
            return Err(Error::new(ErrorKind::Unavailable, "the bucket does not answer"));
        }
        self.with(|blocks, _| {
            let byte = |at: u64| blocks.get(&(at / BLOCK)).map_or(0, |b| b[(at % BLOCK) as usize]);
            out.iter_mut().zip(offset..).for_each(|(out, at)| *out = byte(at));
        })
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<()> {
        self.with(|blocks, size| {
            assert!(offset + data.len() as u64 <= size, "past the end");
            for (at, byte) in (offset..).zip(data) {
                let block = blocks.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
                block[(at % BLOCK) as usize] = byte;
            }
        })
    }

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        self.with(|blocks, _| {
            for (block, bytes) in blocks.iter_mut() {
                for (at, byte) in (block * BLOCK..).zip(bytes) {
                    if (offset..offset + len).contains(&at) {
                        *byte = 0;
                    }
                }
            }
            blocks.retain(|_, bytes| bytes.iter().any(|byte| *byte != 0));
        })
    }

    async fn flush(&self) -> Result<()> {
        self.engine.0.lock().flushes += 1;
        Ok(())
    }

    /// Answers block by block, so that a caller must join ranges and ask again.
    async fn status(&self, offset: u64, len: u64, max: usize) -> Result<Vec<StatusRange>> {
        self.with(|blocks, _| {
            let mut ranges = Vec::new();
            let mut at = offset;
            while at < offset + len && ranges.len() < max.min(3) {
                let here = at / BLOCK;
                let next = match blocks.contains_key(&here) {
                    true => here + 1,
                    false => blocks.range(here..).next().map_or(u64::MAX / BLOCK, |(b, _)| *b),
                };
                let end = (next * BLOCK).min(offset + len);
                let hole = !blocks.contains_key(&here);
                ranges.push(StatusRange { offset: at, length: end - at, hole });
                at = end;
            }
            ranges
        })
    }

    async fn prefetch(&self, _offset: u64, _len: u64) {}
}
