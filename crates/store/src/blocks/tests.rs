//! Tests that a block is right, cheap and verified, by every way of reading it.

use super::*;
use crate::cache::disk::DiskCache;
use crate::error::ErrorKind;
use crate::objects::bucket::Created;
use crate::objects::faulty::{FaultPlan, Faulty};
use crate::objects::local::{LocalDir, OPEN_FILES_MAX};
use crate::objects::meter::{CallKind, Counters, Meter};
use crate::objects::testing::{bucket_in, env};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::names;
use skerry_core::position::{Number, SegmentKey};
use skerry_core::segment::{BlockIn, SegmentId, SegmentKind, build};
use std::time::Duration;
use tempfile::TempDir;

const BLOCK: usize = 4096;

fn block_size() -> BlockSize {
    BlockSize::default()
}

/// Random blocks at `indices`; every other one is compressible.
fn segment(number: u64, indices: &[u64], seed: u64) -> (BuiltSegment, Vec<Vec<u8>>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let data: Vec<Vec<u8>> = indices
        .iter()
        .map(|index| {
            let mut block = vec![0; BLOCK];
            let noise = if index % 64 < 32 { BLOCK } else { 200 };
            rng.fill_bytes(&mut block[..noise]);
            block
        })
        .collect();
    let blocks: Vec<_> =
        indices.iter().zip(&data).map(|(&index, data)| BlockIn { index, data }).collect();
    let id = SegmentId {
        kind: SegmentKind::Foreground,
        block: block_size(),
        volume: VolumeId([1; 16]),
        key: SegmentKey { stream: StreamId([2; 16]), number: Number(number) },
        epoch: 1,
        predecessor: [0; 16],
        vseq_from: 0,
        vseq_to: 1,
        nonce: [seed as u8; 16],
    };
    (build(&id, &[], &blocks), data)
}

async fn put(bucket: &Bucket, built: &BuiltSegment) {
    let name = names::segment(built.key);
    let created = bucket.create(&name, built.chunks.clone()).await.expect("put");
    assert_eq!(created, Created::Ours);
}

/// A bucket in memory that counts calls.
async fn metered(seed: u64) -> (Bucket, Arc<Counters>) {
    // Every call takes a moment, so that readers meet.
    let slow = FaultPlan { slow: 1000, slow_ms: 1..20, ..FaultPlan::default() };
    let slow = Faulty::new(Arc::new(InMemory::new()), seed, slow);
    let meter = Meter::new(Arc::new(slow), env(seed).clock);
    let counters = meter.counters();
    (bucket_in(Arc::new(meter), seed).await, counters)
}

async fn local(seed: u64) -> (Bucket, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
    let bucket = bucket_in(Arc::new(store), seed).await;
    let root = crate::objects::local_root::RootDir::open(dir.path().to_owned()).expect("there");
    let files = LocalDir::new(root, OPEN_FILES_MAX);
    (bucket.with_local_dir(Arc::new(files)), dir)
}

fn in_ram(bucket: &Bucket, ram_bytes: u64) -> Blocks {
    Blocks::new(bucket.clone(), BlocksSettings { ram_bytes, disk: None })
}

fn on_disk(bucket: &Bucket, dir: &TempDir, ram_bytes: u64) -> Blocks {
    let disk = DiskCache::open(dir.path(), 16 << 20, bucket.id()).expect("a disk cache");
    disk.settle();
    Blocks::new(bucket.clone(), BlocksSettings { ram_bytes, disk: Some(disk) })
}

fn settle(blocks: &Blocks) {
    blocks.disk().expect("a disk cache").settle();
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn try_block(blocks: &Blocks, entry: &BlockEntry, out: &mut [u8]) -> bool {
    blocks.try_read(&whole_blocks(&[(0, *entry)]), block_size(), out)
}

/// Whole blocks, one after another in the output.
fn whole_blocks(entries: &[(u64, BlockEntry)]) -> Vec<Wanted> {
    let wanted = |(i, (_, entry)): (usize, &(u64, BlockEntry))| Wanted {
        entry: *entry,
        within: 0..BLOCK,
        at: i * BLOCK,
    };
    entries.iter().enumerate().map(wanted).collect()
}

/// Checks reads of every shape, by every way.
async fn reads_are_right(blocks: &Blocks, built: &[(BuiltSegment, Vec<Vec<u8>>)], seed: u64) {
    let all: Vec<(BlockEntry, &[u8])> = built
        .iter()
        .flat_map(|(b, data)| b.entries.iter().zip(data).map(|((_, e), d)| (*e, d.as_slice())))
        .collect();
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..300 {
        let (from, len) = (rng.random_range(0..all.len()), rng.random_range(1..80));
        let mut picked: Vec<usize> = (from..(from + len).min(all.len())).collect();
        if round % 3 == 0 {
            picked.iter_mut().for_each(|i| *i = rng.random_range(0..all.len()));
        }
        let mut wanted = Vec::new();
        let mut expected = Vec::new();
        for &i in &picked {
            let mut within = 0..BLOCK;
            if rng.random_range(0..10) == 0 {
                within = 512..rng.random_range(512..BLOCK);
            }
            let at = expected.len();
            expected.extend_from_slice(&all[i].1[within.clone()]);
            wanted.push(Wanted { entry: all[i].0, within, at });
        }
        let mut out = vec![0xee; expected.len()];
        let read = blocks.read_many(&wanted, block_size(), &mut out).await;
        read.unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        assert!(out == expected, "seed {seed}, round {round}: wrong data");
        let (entry, data) = &all[picked[0]];
        let read = blocks.read(entry, block_size()).await.expect("a block");
        assert_eq!(read, *data);
        let mut part = [0; 1000];
        let many = wanted;
        let wanted = [Wanted { entry: *entry, within: 96..1096, at: 0 }];
        if blocks.try_read(&wanted, block_size(), &mut part) {
            assert_eq!(part, data[96..1096], "seed {seed}, round {round}");
        }
        let mut out = vec![0xee; expected.len()];
        if blocks.try_read(&many, block_size(), &mut out) {
            assert!(out == expected, "seed {seed}, round {round}: wrong data without waiting");
        }
    }
}

/// True if a file's last block comes into memory by itself within this time. Before, all of the
/// file was dropped, and its first block read.
async fn comes_near(
    blocks: &Blocks,
    built: &BuiltSegment,
    dir: &TempDir,
    within: Duration,
) -> bool {
    let path = dir.path().join(skerry_core::names::segment(built.key));
    let file = std::fs::File::open(path).expect("it is there");
    file.sync_all().expect("synced");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("dropped");
    let (first, last) = (built.entries[0].1, built.entries[built.entries.len() - 1].1);
    blocks.read(&first, block_size()).await.expect("a block");
    let mut out = vec![0; BLOCK];
    let near = async {
        while !try_block(blocks, &last, &mut out) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(within, near).await.is_ok()
}

/// A read of a fresh segment brings all of it into memory soon; a read of an old one only the
/// wanted blocks.
#[tokio::test]
async fn the_first_read_of_a_fresh_segment_brings_all_of_it_near() {
    let (bucket, dir) = local(1).await;
    let dense: Vec<u64> = (0..4000).collect();
    let (old, fresh) = (segment(1, &dense, 1).0, segment(2, &dense, 2).0);
    for built in [&old, &fresh] {
        put(&bucket, built).await;
    }
    let blocks = in_ram(&bucket, 0);
    if comes_near(&blocks, &old, &dir, Duration::from_millis(100)).await {
        println!(
            "SKIPPED: the_first_read_of_a_fresh_segment: this file system keeps all in memory"
        );
        return;
    }
    blocks.admit(&fresh);
    // Much longer than it takes; only a hang gets there.
    assert!(comes_near(&blocks, &fresh, &dir, Duration::from_secs(60)).await);
}

fn some_segments() -> Vec<(BuiltSegment, Vec<Vec<u8>>)> {
    let scattered: Vec<u64> = (0..200).map(|i| i * 37).collect();
    let dense: Vec<u64> = (1000..1600).collect();
    vec![segment(1, &scattered, 1), segment(2, &dense, 2), segment(3, &[9, 10, 11], 3)]
}

#[tokio::test(start_paused = true)]
async fn reads_from_memory_and_bucket_are_right() {
    for ram in [0, 300 << 10, RAM_BYTES] {
        let (bucket, _) = metered(1).await;
        let built = some_segments();
        for (segment, _) in &built {
            put(&bucket, segment).await;
        }
        reads_are_right(&in_ram(&bucket, ram), &built, ram).await;
    }
}

#[tokio::test]
async fn reads_from_a_local_directory_are_right() {
    let (bucket, _dir) = local(1).await;
    let built = some_segments();
    for (segment, _) in &built {
        put(&bucket, segment).await;
    }
    for ram in [0, 300 << 10, RAM_BYTES] {
        let blocks = in_ram(&bucket, ram);
        reads_are_right(&blocks, &built, ram).await;
        assert_eq!(count(&blocks.counters().fetches), 0, "everything comes from the files");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_through_a_disk_cache_are_right() {
    let (bucket, _) = metered(1).await;
    let built = some_segments();
    for (segment, _) in &built {
        put(&bucket, segment).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for ram in [0, 300 << 10] {
        let blocks = on_disk(&bucket, &dir, ram);
        reads_are_right(&blocks, &built, ram).await;
        settle(&blocks);
        reads_are_right(&blocks, &built, ram).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cold_block_costs_one_small_get_and_a_warm_one_none() {
    let (bucket, calls) = metered(2).await;
    let scattered: Vec<u64> = (0..31).map(|i| i * 64).collect();
    let (built, data) = segment(1, &scattered, 5);
    put(&bucket, &built).await;
    let blocks = in_ram(&bucket, RAM_BYTES);
    let before = calls.tally();
    let read = blocks.read(&built.entries[17].1, block_size()).await.expect("a block");
    assert_eq!(read, data[17]);
    let spent = calls.tally().since(&before);
    assert_eq!((spent.calls_in_all(), spent.calls(CallKind::GetRange)), (1, 1));
    assert!(spent.bytes(CallKind::GetRange) < 8192);
    let mut out = [0; BLOCK];
    assert!(try_block(&blocks, &built.entries[17].1, &mut out));
    assert_eq!(out.as_slice(), data[17]);
    assert_eq!(calls.tally().since(&before).calls_in_all(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mebibyte_in_a_row_is_one_get() {
    let (bucket, calls) = metered(3).await;
    let dense: Vec<u64> = (0..512).collect();
    let (built, data) = segment(1, &dense, 5);
    put(&bucket, &built).await;
    let blocks = in_ram(&bucket, RAM_BYTES);
    let before = calls.tally();
    let wanted: Vec<_> = built.entries[..256]
        .iter()
        .enumerate()
        .map(|(i, (_, entry))| Wanted { entry: *entry, within: 0..BLOCK, at: i * BLOCK })
        .collect();
    let mut out = vec![0; 1 << 20];
    blocks.read_many(&wanted, block_size(), &mut out).await.expect("read");
    assert!(out == data[..256].concat());
    assert_eq!(calls.tally().since(&before).calls_in_all(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_readers_of_one_frame_cost_one_get() {
    let (bucket, calls) = metered(4).await;
    let (built, _) = segment(1, &(0..16).collect::<Vec<_>>(), 5);
    put(&bucket, &built).await;
    let blocks = in_ram(&bucket, 0);
    let before = calls.tally();
    let reads = (0..16).map(|i| blocks.read(&built.entries[i].1, block_size()));
    assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
    assert_eq!(calls.tally().since(&before).calls_in_all(), 1);
}

#[tokio::test(start_paused = true)]
async fn overlapping_reads_neither_hang_nor_fetch_twice() {
    let (bucket, calls) = metered(5).await;
    let (built, _) = segment(1, &(0..512).collect::<Vec<_>>(), 5);
    put(&bucket, &built).await;
    let blocks = in_ram(&bucket, RAM_BYTES);
    let before = calls.tally();
    let read = |from: usize, to: usize| {
        let wanted: Vec<_> = built.entries[from..to]
            .iter()
            .enumerate()
            .map(|(i, (_, entry))| Wanted { entry: *entry, within: 0..BLOCK, at: i * BLOCK })
            .collect();
        let blocks = blocks.clone();
        async move {
            let mut out = vec![0; wanted.len() * BLOCK];
            blocks.read_many(&wanted, block_size(), &mut out).await
        }
    };
    let (a, b, c) = tokio::join!(read(0, 256), read(128, 384), read(64, 512));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let spent = calls.tally().since(&before);
    let stored: usize = built.chunks[1..].iter().map(Bytes::len).sum();
    assert_eq!(spent.bytes(CallKind::GetRange), stored as u64, "no byte twice");
}

#[tokio::test(start_paused = true)]
async fn memory_stays_within_its_budget() {
    let (bucket, _) = metered(6).await;
    let (built, _) = segment(1, &(0..2000).collect::<Vec<_>>(), 5);
    put(&bucket, &built).await;
    let budget = 1 << 20;
    let blocks = in_ram(&bucket, budget);
    for (_, entry) in &built.entries {
        blocks.read(entry, block_size()).await.expect("a block");
        assert!(blocks.cached_bytes() <= budget);
    }
    assert!(blocks.cached_bytes() > budget / 2, "and uses it");
}

#[tokio::test(start_paused = true)]
async fn a_disk_cache_is_warm_after_a_restart() {
    let (bucket, calls) = metered(7).await;
    let built = some_segments();
    for (segment, _) in &built {
        put(&bucket, segment).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let read_all = async |blocks: &Blocks| {
        for (segment, data) in &built {
            for ((_, entry), data) in segment.entries.iter().zip(data) {
                let read = blocks.read(entry, block_size()).await.expect("a block");
                assert_eq!(read, *data);
            }
            settle(blocks);
        }
    };
    read_all(&on_disk(&bucket, &dir, 0)).await;
    let before = calls.tally();
    for _ in 0..2 {
        read_all(&on_disk(&bucket, &dir, 0)).await;
        assert_eq!(calls.tally().since(&before).calls_in_all(), 0);
    }
    let other = bucket_in(Arc::new(InMemory::new()), 99).await;
    let cache = DiskCache::open(dir.path(), 16 << 20, other.id()).expect("a disk cache");
    cache.settle();
    assert_eq!(count(&cache.counters().frames), 0, "another bucket's frames are not used");
}

/// Compressed data was once read at the speed of unpacking each frame sixteen times.
#[tokio::test]
async fn a_compressed_frame_is_unpacked_once_for_each_read() {
    let (bucket, _dir) = local(21).await;
    let compressible: Vec<u64> = (0..10_000).filter(|index| index % 64 >= 32).take(256).collect();
    let (built, data) = segment(1, &compressible, 21);
    put(&bucket, &built).await;
    let frames = built.frame_bytes().count() as u64;
    assert_eq!(frames, 16, "frames of sixteen blocks");
    let wanted = whole_blocks(&built.entries);
    for with_waiting in [true, false] {
        let blocks = in_ram(&bucket, 0);
        let mut out = vec![0; 256 * BLOCK];
        if with_waiting {
            blocks.read_many(&wanted, block_size(), &mut out).await.expect("read");
        } else if !blocks.try_read(&wanted, block_size(), &mut out) {
            // This file system can't say what it has in memory (RWF_NOWAIT).
            continue;
        }
        assert!(out == data.concat());
        assert_eq!(count(&blocks.counters().unpacked_frames), frames);
    }
    // A part of a frame, out of order.
    let blocks = in_ram(&bucket, 0);
    let mut wanted = whole_blocks(&built.entries[..8]);
    wanted.reverse();
    let mut out = vec![0; 8 * BLOCK];
    blocks.read_many(&wanted, block_size(), &mut out).await.expect("read");
    assert!(out == data[..8].concat());
    assert_eq!(count(&blocks.counters().unpacked_frames), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_created_can_be_admitted() {
    let (bucket, calls) = metered(8).await;
    let built = some_segments();
    let dir = tempfile::tempdir().expect("a directory");
    let blocks = on_disk(&bucket, &dir, 0);
    for (segment, _) in &built {
        put(&bucket, segment).await;
        blocks.admit(segment);
    }
    settle(&blocks);
    let before = calls.tally();
    reads_are_right(&blocks, &built, 8).await;
    assert_eq!(calls.tally().since(&before).calls_in_all(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_whole_segment_of_the_largest_size_is_admitted() {
    let (bucket, _) = metered(8).await;
    let dir = tempfile::tempdir().expect("a directory");
    let disk = DiskCache::open(dir.path(), 1 << 30, bucket.id()).expect("a disk cache");
    let blocks = Blocks::new(bucket, BlocksSettings { ram_bytes: 0, disk: Some(disk) });
    let (built, _) = segment(1, &(0..32 << 8).map(|i| i * 64).collect::<Vec<_>>(), 1);
    assert!(built.len_bytes() > 32 << 20);
    blocks.admit(&built);
    settle(&blocks);
    let counters = blocks.disk().expect("a disk cache").counters();
    // Two frames may share an entry of the index: one in a million or so.
    assert!(count(&counters.frames) > 8190);
    assert_eq!(count(&counters.dropped), 0);
}

#[tokio::test(start_paused = true)]
async fn flipped_bits_in_the_disk_cache_are_misses() {
    let (bucket, calls) = metered(9).await;
    let built = some_segments();
    for (segment, _) in &built {
        put(&bucket, segment).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let blocks = on_disk(&bucket, &dir, 0);
    reads_are_right(&blocks, &built, 9).await;
    settle(&blocks);
    let mut rng = StdRng::seed_from_u64(9);
    for entry in std::fs::read_dir(dir.path()).expect("a listing") {
        let path = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&path).expect("a file");
        for at in (64..bytes.len()).step_by(1000) {
            let at = (at + rng.random_range(0..1000)).min(bytes.len() - 1);
            bytes[at] ^= 1 << rng.random_range(0..8);
        }
        std::fs::write(&path, bytes).expect("written");
    }
    let before = calls.tally();
    reads_are_right(&blocks, &built, 10).await;
    assert!(calls.tally().since(&before).calls_in_all() > 0, "some had to be fetched again");
    let disk = blocks.disk().expect("a disk cache");
    assert!(count(&disk.counters().damaged) > 0);
    drop(blocks);
    reads_are_right(&on_disk(&bucket, &dir, 0), &built, 11).await;
}

/// Checks that a read of a stored frame with any wrong bit is right, or an error that names the
/// frame.
async fn damage_is_named(bucket: &Bucket, blocks: impl Fn() -> Blocks, corrupt: impl Fn(&[u8])) {
    let (built, data) = segment(1, &[0, 1, 2, 3, 40, 41, 42, 43], 5);
    put(bucket, &built).await;
    let good = built.chunks.concat();
    let name = names::segment(built.key);
    let mut rng = StdRng::seed_from_u64(4);
    for frame in [built.entries[0].1, built.entries[4].1] {
        for round in 0..60 {
            let within = if round < 30 { 160 } else { frame.len };
            let at = (frame.offset + rng.random_range(0..within)) as usize;
            let mut bad = good.clone();
            bad[at] ^= 1 << rng.random_range(0..8);
            corrupt(&bad);
            let blocks = blocks();
            for ((_, entry), data) in built.entries.iter().zip(&data) {
                match blocks.read(entry, block_size()).await {
                    Ok(read) => assert_eq!(read, *data),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
                        let place = format!("{name} at byte {}: ", frame.offset);
                        assert!(error.to_string().starts_with(&place), "byte {at}: {error}");
                        assert_eq!(entry.offset, frame.offset);
                    }
                }
            }
            assert!(count(&blocks.counters().reread) > 0, "byte {at} was not noticed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn flipped_bits_in_an_object_are_named() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let bucket = bucket_in(store.clone(), 10).await;
    let path = object_store::path::Path::from(
        names::segment(SegmentKey { stream: StreamId([2; 16]), number: Number(1) }).as_str(),
    );
    let corrupt = |bytes: &[u8]| {
        let put = object_store::ObjectStoreExt::put(&*store, &path, bytes.to_vec().into());
        futures::FutureExt::now_or_never(put).expect("no waiting").expect("put");
    };
    damage_is_named(&bucket, || in_ram(&bucket, 0), corrupt).await;
}

#[tokio::test]
async fn flipped_bits_in_a_local_file_are_named() {
    let (bucket, dir) = local(11).await;
    let key = SegmentKey { stream: StreamId([2; 16]), number: Number(1) };
    let path = dir.path().join(names::segment(key));
    let corrupt = |bytes: &[u8]| std::fs::write(&path, bytes).expect("written");
    damage_is_named(&bucket, || in_ram(&bucket, 0), corrupt).await;
}

/// A damaged file once stayed open: putting a good one back helped only after a restart.
#[tokio::test]
async fn a_file_that_is_put_back_is_read() {
    let (bucket, dir) = local(12).await;
    let (built, data) = segment(1, &[0], 5);
    put(&bucket, &built).await;
    let path = dir.path().join(names::segment(built.key));
    let good = built.chunks.concat();
    let (blocks, entry) = (in_ram(&bucket, 0), &built.entries[0].1);
    assert_eq!(blocks.read(entry, block_size()).await.expect("read"), data[0]);
    let bad = vec![0; good.len()];
    std::fs::write(&path, &bad).expect("damaged in place");
    assert!(blocks.read(entry, block_size()).await.is_err());
    std::fs::write(dir.path().join("copy"), &good).expect("copied");
    std::fs::rename(dir.path().join("copy"), &path).expect("put back");
    assert_eq!(blocks.read(entry, block_size()).await.expect("read"), data[0]);
}

#[tokio::test]
async fn what_is_gone_is_not_found_by_name() {
    let (built, _) = segment(7, &[1, 2], 5);
    let name = names::segment(built.key);
    let (remote, _) = metered(12).await;
    let (dir, _guard) = local(12).await;
    for bucket in [remote, dir] {
        let blocks = in_ram(&bucket, 0);
        let error = blocks.read(&built.entries[0].1, block_size()).await.expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&name), "{error}");
        put(&bucket, &built).await;
        blocks.read(&built.entries[0].1, block_size()).await.expect("there");
        bucket.delete(&name).await.expect("deleted");
        let error = blocks.read(&built.entries[0].1, block_size()).await.expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::NotFound, "an open file does not outlive its segment");
    }
}

#[tokio::test(start_paused = true)]
async fn prefetched_blocks_are_there_without_waiting() {
    let (bucket, calls) = metered(13).await;
    let (built, data) = segment(1, &(0..64).collect::<Vec<_>>(), 5);
    put(&bucket, &built).await;
    let blocks = in_ram(&bucket, RAM_BYTES);
    let before = calls.tally();
    let entries: Vec<_> = built.entries.iter().map(|(_, entry)| *entry).collect();
    blocks.prefetch(&entries, block_size()).await;
    assert_eq!(calls.tally().since(&before).calls_in_all(), 1);
    for (entry, data) in entries.iter().zip(&data) {
        let mut out = [0; BLOCK];
        assert!(try_block(&blocks, entry, &mut out));
        assert_eq!(out.as_slice(), data);
    }
}

#[tokio::test(start_paused = true)]
async fn the_disk_cache_stays_within_its_budget() {
    let (bucket, _) = metered(14).await;
    let dir = tempfile::tempdir().expect("a directory");
    let budget = 2 << 20;
    let disk = DiskCache::open(dir.path(), budget, bucket.id()).expect("a disk cache");
    let blocks = Blocks::new(bucket.clone(), BlocksSettings { ram_bytes: 0, disk: Some(disk) });
    for number in 0..20 {
        let (built, data) = segment(number, &(0..100).map(|i| i * 50).collect::<Vec<_>>(), number);
        put(&bucket, &built).await;
        blocks.admit(&built);
        settle(&blocks);
        let sizes = std::fs::read_dir(dir.path()).expect("a listing");
        let used: u64 = sizes.map(|e| e.expect("entry").metadata().expect("meta").len()).sum();
        assert!(used <= budget, "{used} bytes");
        assert_eq!(blocks.read(&built.entries[3].1, block_size()).await.expect("read"), data[3]);
    }
    assert!(count(&blocks.disk().expect("a disk cache").counters().frames) > 200);
}
