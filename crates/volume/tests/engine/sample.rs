//! The released sample of a bucket of format 2: it must stay readable and writable.
//!
//! A change of format keeps the old sample and adds one of its own: `SKERRY_WRITE_SAMPLE=1` writes
//! it.

use crate::rig::{World, create, name, target};
use futures::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
use skerry_core::wire::hash16;
use skerry_volume::Engine;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/bucket/v2")
}

/// Bytes that compress, if `text`, or don't.
fn bytes(seed: u64, len: usize, text: bool) -> Vec<u8> {
    let word = |at: usize| seed.wrapping_add(1).wrapping_mul(at as u64 / 8 + 0x9e37_79b9_7f4a_7c15);
    let noise = |at: usize| hash16(&word(at).to_le_bytes())[at % 8];
    (0..len).map(|at| if text { b"skerry "[at % 7] } else { noise(at) }).collect()
}

/// Volumes with everything that the format knows. Frames of both kinds, equal blocks, zeros,
/// partial blocks, several checkpoints and streams. Snapshots with and without a way to roll
/// forward, a clone, a rollback, another size and name. Deleted volumes and snapshots, and an end
/// that no checkpoint holds.
async fn history(world: &World) {
    let run = world.start("sample").await.expect("starts");
    let engine = &run.engine;
    engine.create_volume(create("disk", (1 << 20) + 512)).await.expect("creates");
    let disk = engine.open_device(&target("disk")).await.expect("attaches");
    disk.write(0, bytes(1, 40 << 10, false).into()).await.expect("writes");
    disk.write(64 << 10, bytes(2, 40 << 10, true).into()).await.expect("writes");
    disk.write(512, bytes(3, 1024, false).into()).await.expect("writes");
    engine.create_snapshot(&name("disk"), Some(&name("one"))).await.expect("snapshots");
    disk.zero(4096, 16 << 10).await.expect("zeroes");
    disk.write(1 << 20, bytes(4, 512, false).into()).await.expect("writes");
    let open = engine.open_volumes().into_iter().next().expect("open");
    open.drain().await.expect("drains");
    open.checkpoint().await.expect("makes a checkpoint");
    disk.write(300 << 10, bytes(1, 8 << 10, false).into()).await.expect("writes");
    engine.create_snapshot(&name("disk"), Some(&name("two"))).await.expect("snapshots");
    engine.create_snapshot(&name("disk"), Some(&name("gone"))).await.expect("snapshots");
    open.drain().await.expect("drains");
    engine.delete_snapshot(&name("disk"), &name("gone")).await.expect("deletes");
    engine.resize_volume(&name("disk"), 2 << 20, false).await.expect("grows");
    let (from, to) = (name("disk"), name("copy"));
    engine.clone_volume(&from, &name("two"), &to, Some(3 << 20)).await.expect("clones");
    let copy = engine.open_device(&target("copy")).await.expect("attaches");
    copy.write(2 << 20, bytes(5, 4096, false).into()).await.expect("writes");
    engine.create_volume(create("other", 256 << 10)).await.expect("creates");
    let other = engine.open_device(&target("other")).await.expect("attaches");
    other.write(0, bytes(6, 20 << 10, false).into()).await.expect("writes");
    engine.create_snapshot(&name("other"), Some(&name("old"))).await.expect("snapshots");
    other.write(0, bytes(7, 4096, false).into()).await.expect("writes");
    engine.rollback_volume(&name("other"), &name("old"), true).await.expect("rolls back");
    engine.rename_volume(&name("other"), &name("renamed")).await.expect("renames");
    engine.create_volume(create("deleted", 64 << 10)).await.expect("creates");
    engine.delete_volume(&name("deleted"), true, true).await.expect("deletes");
    disk.write(500 << 10, bytes(8, 12 << 10, false).into()).await.expect("writes");
    engine.shutdown().await.expect("stops");
}

/// One line for each volume and snapshot: its name, its size and a hash of its bytes.
async fn listing(engine: &Engine) -> String {
    let mut text = String::from("# target bytes blake3\n");
    let mut volumes = engine.list_volumes().await.expect("lists");
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    for volume in volumes {
        let snapshots = engine.list_snapshots(&name(&volume.name)).await.expect("lists");
        let mut targets: Vec<_> =
            snapshots.iter().map(|s| format!("{}@{}", volume.name, s.name)).collect();
        targets.sort();
        targets.insert(0, volume.name.clone());
        for one in targets {
            let device = engine.open_device(&target(&one)).await.expect("attaches");
            let size = device.size_bytes();
            let read = device.read(0, size as usize).await.expect("reads");
            let hash: String = hash16(&read).iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{one} {size} {hash}").expect("a line");
        }
    }
    text
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

/// The sample as a store.
async fn sample() -> Arc<InMemory> {
    let (store, root) = (Arc::new(InMemory::new()), directory().join("objects"));
    let mut found = Vec::new();
    files(&root, &mut found);
    for path in found {
        let name = path.strip_prefix(&root).expect("below").to_str().expect("text").to_owned();
        let bytes = fs::read(&path).expect("readable");
        store.put(&ObjectPath::from(name), bytes.into()).await.expect("stored");
    }
    store
}

async fn write_sample() {
    let store = Arc::new(InMemory::new());
    history(&World::over(7, store.clone())).await;
    let root = directory();
    let _ = fs::remove_dir_all(&root);
    for meta in store.list(None).collect::<Vec<_>>().await {
        let meta = meta.expect("listed");
        let bytes = store.get(&meta.location).await.expect("there").bytes().await.expect("read");
        let path = root.join("objects").join(meta.location.as_ref());
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    let seen = World::over(8, store).start("reader").await.expect("starts");
    fs::write(root.join("contents.txt"), listing(&seen.engine).await).expect("written");
    panic!("a sample was written to {}: run again without it", root.display());
}

#[tokio::test(start_paused = true)]
async fn the_sample_of_version_2_still_reads_and_takes_writes() {
    if std::env::var_os("SKERRY_WRITE_SAMPLE").is_some() {
        write_sample().await;
    }
    let expected = fs::read_to_string(directory().join("contents.txt")).expect("a listing");
    let world = World::over(9, sample().await);
    let run = world.start("reader").await.expect("starts");
    assert_eq!(listing(&run.engine).await, expected);
    assert!(expected.lines().count() >= 8, "{expected}");
    let report = run.engine.fsck().await.expect("checks");
    assert!(report.problems.is_empty(), "{:?}", report.problems);

    run.engine.release_volume(&name("disk"), true).await.expect("takes it");
    let disk = run.engine.open_device(&target("disk")).await.expect("attaches");
    let before = disk.read(0, disk.size_bytes() as usize).await.expect("reads").to_vec();
    disk.write(8192, bytes(9, 4096, false).into()).await.expect("writes");
    run.engine.create_snapshot(&name("disk"), Some(&name("new"))).await.expect("snapshots");
    run.engine.shutdown().await.expect("stops");
    drop(run);
    let run = world.start("reader").await.expect("starts again");
    let disk = run.engine.open_device(&target("disk@new")).await.expect("attaches");
    let after = disk.read(0, disk.size_bytes() as usize).await.expect("reads");
    assert_eq!(after[8192..12288], bytes(9, 4096, false));
    assert!(after[..8192] == before[..8192] && after[12288..] == before[12288..]);
}

/// Today's code writes the sample's contents, though not byte by byte: batches may be cut
/// otherwise.
#[tokio::test(start_paused = true)]
async fn the_history_of_the_sample_still_leads_to_its_contents() {
    let store = Arc::new(InMemory::new());
    history(&World::over(7, store.clone())).await;
    let run = World::over(8, store).start("reader").await.expect("starts");
    let expected = fs::read_to_string(directory().join("contents.txt")).expect("a listing");
    assert_eq!(listing(&run.engine).await, expected);
}
