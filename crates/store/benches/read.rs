//! Measures reading blocks on one thread: from memory, from a local directory and from a disk
//! cache, at random and in sequence. `cargo bench -p skerry-store --bench read -- [MiB of data]`.
//!
//! The data is incompressible and in the kernel's page cache, so this measures the CPU, not the
//! disk.
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]
#![allow(clippy::unwrap_used, reason = "a bench may stop")]

use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_core::entry::BlockEntry;
use skerry_core::env::{Clock, Entropy};
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::names;
use skerry_core::position::{Number, SegmentKey};
use skerry_core::segment::{BlockIn, BuiltSegment, SegmentId, SegmentKind, build};
use skerry_core::size::BlockSize;
use skerry_store::blocks::{Blocks, BlocksSettings, Wanted};
use skerry_store::cache::disk::DiskCache;
use skerry_store::objects::bucket::{Bucket, Created, Env};
use skerry_store::objects::local::{LocalDir, OPEN_FILES_MAX};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const SEGMENT_BLOCKS: u64 = 4096;
const ROUND: Duration = Duration::from_secs(2);

struct Outside(Mutex<StdRng>, Instant);

impl Clock for Outside {
    fn boot(&self) -> Duration {
        self.1.elapsed()
    }
    fn wall_ms(&self) -> u64 {
        0
    }
}

impl Entropy for Outside {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap().fill_bytes(out);
    }
}

/// CPU time of the whole process, without that of other processes.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Segments of 16 MiB; `stride` 1 gives frames of 64 KiB, more gives frames of one block.
fn segments(count: u64, stride: u64) -> impl Iterator<Item = BuiltSegment> {
    let mut data = vec![0; SEGMENT_BLOCKS as usize * BLOCK];
    StdRng::seed_from_u64(1).fill_bytes(&mut data);
    (0..count).map(move |n| {
        let blocks: Vec<_> = data
            .chunks(BLOCK)
            .enumerate()
            .map(|(i, data)| BlockIn { index: (n * SEGMENT_BLOCKS + i as u64) * stride, data })
            .collect();
        let id = SegmentId {
            kind: SegmentKind::Foreground,
            block: BlockSize::default(),
            volume: VolumeId([1; 16]),
            key: SegmentKey { stream: StreamId([stride as u8; 16]), number: Number(n + 1) },
            epoch: 1,
            predecessor: [0; 16],
            vseq_from: n,
            vseq_to: n + 1,
            nonce: [n as u8; 16],
        };
        build(&id, &[], &blocks)
    })
}

async fn bucket(store: Arc<dyn ObjectStore>) -> Bucket {
    let outside = Arc::new(Outside(Mutex::new(StdRng::seed_from_u64(2)), Instant::now()));
    let env = Env { clock: outside.clone(), entropy: outside };
    Bucket::open(store, env, true).await.unwrap()
}

/// Puts `mib` of data and gives the entries in order.
async fn fill(bucket: &Bucket, mib: u64, stride: u64, admit: Option<&Blocks>) -> Vec<BlockEntry> {
    let mut entries = Vec::new();
    for built in segments(mib / 16, stride) {
        let created = bucket.create(&names::segment(built.key), built.chunks.clone()).await;
        assert_eq!(created.unwrap(), Created::Ours);
        if let Some(blocks) = admit {
            blocks.admit(&built);
            blocks.disk().unwrap().settle();
        }
        entries.extend(built.entries.iter().map(|(_, entry)| *entry));
    }
    entries
}

async fn random(what: &str, blocks: &Blocks, entries: &[BlockEntry]) {
    let mut rng = StdRng::seed_from_u64(3);
    let mut out = [0; BLOCK];
    let (mut ops, mut waited) = (0u64, 0u64);
    let (begun, cpu_before) = (Instant::now(), cpu());
    while begun.elapsed() < ROUND {
        for _ in 0..1000 {
            let entry = &entries[rng.random_range(0..entries.len())];
            let wanted = [Wanted { entry: *entry, within: 0..BLOCK, at: 0 }];
            if !blocks.try_read(&wanted, BlockSize::default(), &mut out) {
                blocks.read(entry, BlockSize::default()).await.unwrap();
                waited += 1;
            }
            ops += 1;
        }
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / ops as f64;
    let cpu_each = (cpu() - cpu_before).as_secs_f64() * 1e6 / ops as f64;
    println!("{what}: {cpu_each:.2} µs CPU each, {each:.2} µs, {waited} of {ops} waited");
}

async fn sequential(what: &str, blocks: &Blocks, entries: &[BlockEntry]) {
    const READ: usize = 256;
    let mut out = vec![0; READ * BLOCK];
    let (mut bytes, mut at) = (0u64, 0);
    let (begun, cpu_before) = (Instant::now(), cpu());
    while begun.elapsed() < ROUND {
        let wanted: Vec<_> = entries[at..at + READ]
            .iter()
            .enumerate()
            .map(|(i, entry)| Wanted { entry: *entry, within: 0..BLOCK, at: i * BLOCK })
            .collect();
        blocks.read_many(&wanted, BlockSize::default(), &mut out).await.unwrap();
        bytes += out.len() as u64;
        at = (at + READ) % (entries.len() - READ);
    }
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
    let (wall, cpu) = (rate(begun.elapsed()), rate(cpu() - cpu_before));
    println!("{what}: {cpu:.2} GB per s of CPU, {wall:.2} GB/s");
}

async fn local(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let root = skerry_store::objects::local_root::RootDir::open(dir.path().to_owned()).unwrap();
    let files = Arc::new(LocalDir::new(root, OPEN_FILES_MAX));
    let bucket = bucket(Arc::new(store)).await.with_local_dir(files);
    for (frames, stride) in [("64 KiB frames", 1), ("4 KiB frames", 100)] {
        let entries = fill(&bucket, mib, stride, None).await;
        let small = || Blocks::new(bucket.clone(), BlocksSettings::default());
        let none = || Blocks::new(bucket.clone(), BlocksSettings { ram_bytes: 0, disk: None });
        let hot = &entries[..(64 << 20) / BLOCK];
        random(&format!("local, {frames}, random, warming"), &none(), &entries).await;
        let blocks = small();
        for entry in hot {
            blocks.read(entry, BlockSize::default()).await.unwrap();
        }
        random(&format!("memory, {frames}, random in 64 MiB"), &blocks, hot).await;
        random(&format!("local, {frames}, random in {mib} MiB, no memory"), &none(), &entries)
            .await;
        random(
            &format!("local, {frames}, random in {mib} MiB, 256 MiB memory"),
            &small(),
            &entries,
        )
        .await;
        sequential(&format!("local, {frames}, 1 MiB in sequence"), &small(), &entries).await;
    }
}

async fn disk(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let bucket = bucket(Arc::new(InMemory::new())).await;
    for (frames, stride) in [("64 KiB frames", 1), ("4 KiB frames", 100)] {
        let cache = DiskCache::open(&dir.path().join(stride.to_string()), 4 << 30, bucket.id());
        let settings = BlocksSettings { ram_bytes: 32 << 20, disk: Some(cache.unwrap()) };
        let blocks = Blocks::new(bucket.clone(), settings);
        let entries = fill(&bucket, mib, stride, Some(&blocks)).await;
        random(&format!("disk cache, {frames}, random in {mib} MiB"), &blocks, &entries).await;
        sequential(&format!("disk cache, {frames}, 1 MiB in sequence"), &blocks, &entries).await;
    }
}

fn main() {
    let mib = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(2048);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        local(mib).await;
        disk(mib / 2).await;
    });
}
