//! A directory of shards: requests across files, and directories that are refused.

use std::fs::{self, OpenOptions};
use std::path::Path;

use bytes::Bytes;
use skerry_device::store::file::Options;
use skerry_device::store::shards;
use skerry_device::{Device, Error, ErrorKind, conformance};

const SHARD_BYTES: u64 = 16 << 10;
const SIZE_BYTES: u64 = 5 * SHARD_BYTES + 78;

async fn refused(directory: &Path) -> Error {
    let error = shards::open(directory, Options::default()).await.err().expect("it is refused");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    error
}

#[tokio::test]
async fn it_keeps_the_rules_at_any_size() {
    let dir = tempfile::tempdir().expect("a directory");
    for size_bytes in [900, SIZE_BYTES, (1 << 20) + 78, 1_234_567] {
        let path = dir.path().join(size_bytes.to_string());
        let device = shards::create(&path, size_bytes, SHARD_BYTES).await.expect("created");
        assert_eq!(device.geometry().size_bytes, size_bytes);
        conformance::writable(&device).await;
        drop(device);
        let options = Options { read_only: true, ..Options::default() };
        conformance::read_only(&shards::open(&path, options).await.expect("opened")).await;
    }
}

#[tokio::test]
async fn a_request_crosses_shards_and_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data: Vec<u8> = (0..3 * SHARD_BYTES).map(|at| (at % 251) as u8 + 1).collect();
    let device = shards::create(dir.path(), SIZE_BYTES, SHARD_BYTES).await.expect("created");
    device.write(SHARD_BYTES - 7, Bytes::from(data.clone())).await.expect("writes");
    device.zero(2 * SHARD_BYTES, SHARD_BYTES).await.expect("zeros a shard");
    device.flush().await.expect("flushes");
    drop(device);
    let second = fs::read(dir.path().join("shard-0001")).expect("a shard");
    assert!(second == data[7..][..SHARD_BYTES as usize], "a shard is a raw file");
    let device = shards::open(dir.path(), Options::default()).await.expect("opened");
    let mut found = vec![0; data.len()];
    device.read(SHARD_BYTES - 7, &mut found).await.expect("reads");
    let mut expected = data;
    expected[SHARD_BYTES as usize + 7..][..SHARD_BYTES as usize].fill(0);
    assert!(found == expected);
}

#[tokio::test]
async fn holes_are_told_across_shards() {
    let dir = tempfile::tempdir().expect("a directory");
    let device = shards::create(dir.path(), 6 * SHARD_BYTES, SHARD_BYTES).await.expect("created");
    let data = Bytes::from(vec![1; 2 * SHARD_BYTES as usize]);
    device.write(2 * SHARD_BYTES, data).await.expect("writes");
    device.flush().await.expect("flushes");
    let ranges = device.status(100, 6 * SHARD_BYTES - 100, 10).await.expect("a status");
    let ranges: Vec<_> = ranges.iter().map(|range| (range.offset, range.hole)).collect();
    assert_eq!(ranges, [(100, true), (2 * SHARD_BYTES, false), (4 * SHARD_BYTES, true)]);
}

#[tokio::test]
async fn a_torn_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    drop(shards::create(path, SIZE_BYTES, SHARD_BYTES).await.expect("created"));
    let manifest = fs::read(path.join("manifest")).expect("a manifest");
    for len in 0..manifest.len() {
        fs::write(path.join("manifest"), &manifest[..len]).expect("cut");
        refused(path).await;
    }
    fs::remove_file(path.join("manifest")).expect("removed");
    assert!(refused(path).await.message.ends_with("was not made whole"));
    fs::write(path.join("manifest"), &manifest).expect("mended");
    let last = OpenOptions::new().write(true).open(path.join("shard-0005")).expect("a shard");
    last.set_len(77).expect("cut");
    assert!(refused(path).await.message.ends_with("has 77 bytes, and not 78"));
    last.set_len(78).expect("mended");
    fs::rename(path.join("shard-0003"), path.join("shard-0006")).expect("renamed");
    assert!(refused(path).await.message.ends_with("has lost its file shard-0003"));
    fs::rename(path.join("shard-0006"), path.join("shard-0003")).expect("mended");
    shards::open(path, Options::default()).await.expect("whole again");
}

#[tokio::test]
async fn a_foreign_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    refused(dir.path()).await;
    fs::write(dir.path().join("letter"), "dear").expect("a file of others");
    refused(dir.path()).await;
    let error = shards::create(dir.path(), SIZE_BYTES, SHARD_BYTES).await.err().expect("not empty");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing was made");
    let path = dir.path().join("disk");
    let device = shards::create(&path, SIZE_BYTES, SHARD_BYTES).await.expect("created");
    assert!(refused(&path).await.message.ends_with("is in use by another device"));
    drop(device);
    fs::write(path.join("letter"), "dear").expect("a file of others");
    assert!(refused(&path).await.message.ends_with("has a file of others: letter"));
    fs::remove_file(path.join("letter")).expect("removed");
    let other = Options { size_bytes: Some(SIZE_BYTES + 1), ..Options::default() };
    assert_eq!(shards::open(&path, other).await.err().expect("size").kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn no_more_shards_than_can_be_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let many = shards::create(&path, shards::SHARDS_MAX * 4096 + 1, 4096).await;
    assert_eq!(many.err().expect("too many").kind, ErrorKind::Invalid);
    assert!(!path.exists(), "nothing was made");
}
