//! A sparse file: cut at each byte, damaged, compacted, and a sample that stays readable.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use skerry_device::store::sparse::SparseDevice;
use skerry_device::{Device, ErrorKind, Result, conformance};

const BLOCK: u64 = 4096;
const SIZE_BYTES: u64 = 5 * BLOCK + 78;
/// Offset of the first record, and length of a record with a block.
const RECORDS_AT: u64 = 1536;
const RECORD_BYTES: u64 = BLOCK + 32;

async fn open(path: &Path) -> SparseDevice {
    SparseDevice::open(path, false).await.expect("opened")
}

async fn content(device: &SparseDevice) -> Result<Vec<u8>> {
    let mut bytes = vec![0; device.geometry().size_bytes as usize];
    device.read(0, &mut bytes).await.map(|_| bytes)
}

fn data(byte: u8, len: u64) -> Bytes {
    vec![byte; len as usize].into()
}

/// A file with two durable records, then three that no flush covers. Gives the content after each.
async fn written(path: &Path) -> Vec<Vec<u8>> {
    let device = SparseDevice::create(path, SIZE_BYTES).await.expect("created");
    device.write(0, data(1, BLOCK)).await.expect("writes");
    device.write(BLOCK, data(2, BLOCK)).await.expect("writes");
    device.flush().await.expect("flushes");
    let mut states = vec![content(&device).await.expect("reads")];
    device.write(100, data(3, 50)).await.expect("writes");
    states.push(content(&device).await.expect("reads"));
    device.zero(BLOCK, BLOCK).await.expect("zeros");
    states.push(content(&device).await.expect("reads"));
    device.write(5 * BLOCK, data(4, 78)).await.expect("writes");
    states.push(content(&device).await.expect("reads"));
    states
}

#[tokio::test]
async fn it_keeps_the_rules_at_any_size() {
    let dir = tempfile::tempdir().expect("a directory");
    for size_bytes in [900, (1 << 20) + 78, 1_234_567] {
        let path = dir.path().join(size_bytes.to_string());
        let device = SparseDevice::create(&path, size_bytes).await.expect("created");
        conformance::writable(&device).await;
        let before = content(&device).await.expect("reads");
        drop(device);
        let device = SparseDevice::open(&path, true).await.expect("opened");
        conformance::read_only(&device).await;
        assert!(content(&device).await.expect("reads") == before, "a restart changes nothing");
    }
}

#[tokio::test]
async fn it_recovers_from_a_cut_at_each_byte() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, cut) = (dir.path().join("disk"), dir.path().join("cut"));
    let states = written(&path).await;
    let bytes = fs::read(&path).expect("the file");
    let durable = RECORDS_AT + 2 * RECORD_BYTES;
    let ends = [durable, durable + RECORD_BYTES, durable + RECORD_BYTES + 32, bytes.len() as u64];
    for len in 0..=bytes.len() as u64 {
        fs::write(&cut, &bytes[..len as usize]).expect("cut");
        match SparseDevice::open(&cut, true).await {
            Err(error) if len < durable => assert!(
                matches!(error.kind, ErrorKind::Invalid | ErrorKind::Failed),
                "{len}: {error}"
            ),
            Err(error) => panic!("cut at {len}, where nothing durable is lost: {error}"),
            Ok(_) if len < durable => panic!("durable bytes from {len} on are lost unseen"),
            Ok(device) => {
                let whole = ends.iter().filter(|end| **end <= len).count();
                assert!(content(&device).await.expect("reads") == states[whole - 1], "at {len}");
            }
        }
    }
    for len in (durable..=bytes.len() as u64).step_by(509) {
        fs::write(&cut, &bytes[..len as usize]).expect("cut");
        let device = open(&cut).await;
        device.write(2 * BLOCK, data(9, 10)).await.expect("writes on");
        device.flush().await.expect("flushes");
        let expected = content(&device).await.expect("reads");
        drop(device);
        assert!(content(&open(&cut).await).await.expect("reads") == expected, "cut at {len}");
    }
}

#[tokio::test]
async fn no_damage_goes_unseen() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, other) = (dir.path().join("disk"), dir.path().join("other"));
    let device = SparseDevice::create(&path, SIZE_BYTES).await.expect("created");
    device.write(0, data(1, 2 * BLOCK)).await.expect("writes");
    device.flush().await.expect("flushes");
    let expected = content(&device).await.expect("reads");
    let bytes = fs::read(&path).expect("the file");
    // Every byte of heads, and some of the blocks.
    let heads = RECORDS_AT as usize + 40;
    for at in (0..heads).chain((heads..bytes.len()).step_by(7)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&other, &damaged).expect("written");
        if let Ok(device) = SparseDevice::open(&other, true).await {
            assert!(at < RECORDS_AT as usize, "damage at {at} is not seen");
            assert!(content(&device).await.expect("reads") == expected, "damage at {at}");
        }
    }
    // Damage behind an open device's back.
    let mut damaged = bytes;
    damaged[RECORDS_AT as usize + 100] ^= 1;
    fs::write(&path, &damaged).expect("written");
    let mut block = vec![0; BLOCK as usize];
    assert_eq!(device.read(0, &mut block).await.expect_err("damaged").kind, ErrorKind::Failed);
    device.read(BLOCK, &mut block).await.expect("the other block is good");
    assert!(device.compact().await.is_err(), "no compaction copies damage");
    assert!(fs::read(&path).expect("the file") == damaged, "the old file stays");
}

#[tokio::test]
async fn clients_bytes_never_pass_for_a_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let states = written(&path).await;
    // A torn block whose bytes are a good record, as if a zeroing had the place of its head.
    let bytes = fs::read(&path).expect("the file");
    let second = (RECORDS_AT + RECORD_BYTES) as usize;
    let forged = [&bytes[..], &[0; 32], &bytes[second..][..RECORD_BYTES as usize]].concat();
    fs::write(&path, forged).expect("written");
    assert!(content(&open(&path).await).await.expect("reads") == states[3]);
    assert_eq!(fs::metadata(&path).expect("metadata").len(), bytes.len() as u64, "cut off");
}

#[tokio::test]
async fn compaction_gives_back_and_survives_a_crash_at_each_step() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, copy) = (dir.path().join("disk"), dir.path().join("copy"));
    let expected = written(&path).await.pop().expect("a state");
    let old = fs::read(&path).expect("the file");
    let device = open(&path).await;
    assert_eq!(device.dead_bytes(), 2 * RECORD_BYTES + 32);
    device.compact().await.expect("compacts");
    assert_eq!(device.dead_bytes(), 0);
    assert!(content(&device).await.expect("reads") == expected);
    device.write(0, data(7, BLOCK)).await.expect("writes on");
    device.flush().await.expect("flushes");
    drop(device);
    let device = open(&path).await;
    let mut block = vec![0; BLOCK as usize];
    device.read(0, &mut block).await.expect("reads");
    assert!(block == vec![7; BLOCK as usize]);
    drop(device);
    let new = fs::read(&path).expect("the file");
    assert!(new.len() < old.len());
    // Before the rename, the old file counts, whatever there is of the new one.
    for len in (0..new.len()).step_by(997) {
        fs::write(&copy, &old).expect("written");
        fs::write(dir.path().join("copy.new"), &new[..len]).expect("written");
        let device = open(&copy).await;
        assert!(content(&device).await.expect("reads") == expected, "{len} bytes of the new");
        device.compact().await.expect("compacts over it");
        assert!(content(&device).await.expect("reads") == expected, "{len} bytes of the new");
        assert!(!dir.path().join("copy.new").exists());
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let device = SparseDevice::create(&path, SIZE_BYTES).await.expect("created");
    let kind = |opened: Result<SparseDevice>| opened.err().expect("it is refused").kind;
    assert_eq!(kind(SparseDevice::open(&path, false).await), ErrorKind::Invalid, "twice");
    assert_eq!(kind(SparseDevice::create(&path, SIZE_BYTES).await), ErrorKind::Invalid);
    device.compact().await.expect("compacts");
    assert_eq!(kind(SparseDevice::open(&path, false).await), ErrorKind::Invalid, "still locked");
    assert_eq!(kind(SparseDevice::create(dir.path().join("0"), 0).await), ErrorKind::Invalid);
    let missing = SparseDevice::open(dir.path().join("missing"), false).await;
    assert_eq!(kind(missing), ErrorKind::Failed);
}

/// The device that the sample holds: blocks, zeros over one, a short last block.
#[tokio::test]
async fn the_sample_stays_readable() {
    let sample =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/device/sparse-v1/disk");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let expected = written(&path).await.pop().expect("a state");
    let bytes = fs::read(&path).expect("the file");
    if std::env::var_os("SKERRY_WRITE_SAMPLE").is_some() {
        fs::create_dir_all(sample.parent().expect("a directory")).expect("made");
        fs::write(&sample, &bytes).expect("written");
        panic!("wrote the sample; run the test again without SKERRY_WRITE_SAMPLE");
    }
    let device = SparseDevice::open(&sample, true).await.expect("opened");
    assert!(content(&device).await.expect("reads") == expected);
    assert!(bytes == fs::read(&sample).expect("the sample"), "the format's bytes changed");
}
