//! A raw file: any size, direct or buffered, as other tools see it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use skerry_device::store::file::{FileDevice, Mode, Options};
use skerry_device::{Device, ErrorKind, conformance};

const SIZES_BYTES: [u64; 4] = [900, (1 << 20) + 78, 1_234_567, 1 << 20];

fn read_only() -> Options {
    Options { read_only: true, ..Options::default() }
}

fn buffered() -> Options {
    Options { buffered: true, ..Options::default() }
}

/// The kind of error of an attempt to open or create.
async fn kind_of(opened: impl Future<Output = skerry_device::Result<FileDevice>>) -> ErrorKind {
    opened.await.err().expect("it is refused").kind
}

#[tokio::test]
async fn it_keeps_the_rules_at_any_size() {
    let dir = tempfile::tempdir().expect("a directory");
    for size_bytes in SIZES_BYTES {
        let path = dir.path().join(size_bytes.to_string());
        conformance::writable(&FileDevice::create(&path, size_bytes).await.expect("created")).await;
        let device = FileDevice::open(&path, buffered()).await.expect("opened");
        assert!(device.modes().eq([Mode::Buffered("asked for")]));
        conformance::writable(&device).await;
        drop(device);
        let device = FileDevice::open(&path, read_only()).await.expect("opened");
        conformance::read_only(&device).await;
        assert_eq!(std::fs::metadata(&path).expect("metadata").len(), size_bytes);
    }
}

#[tokio::test]
async fn it_says_why_it_is_buffered() {
    let dir = tempfile::tempdir().expect("a directory");
    let odd = FileDevice::create(dir.path().join("odd"), 900).await.expect("created");
    assert!(odd.modes().eq([Mode::Buffered("the size is no multiple of a page")]));
}

/// Writes by one device what another one reads, in requests of no alignment.
async fn crosses(path: &Path, writer: Options, reader: Options) {
    let device = FileDevice::open(path, writer).await.expect("opened");
    let data: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8 + 1).collect();
    device.write(777, Bytes::from(data.clone())).await.expect("writes across pieces");
    device.flush().await.expect("flushes");
    drop(device);
    let device = FileDevice::open(path, reader).await.expect("opened");
    let mut found = vec![0; data.len()];
    device.read(777, &mut found).await.expect("reads across pieces");
    assert!(found == data);
}

#[tokio::test]
async fn direct_and_buffered_devices_read_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    drop(FileDevice::create(&path, 4 << 20).await.expect("created"));
    crosses(&path, Options::default(), buffered()).await;
    crosses(&path, buffered(), Options::default()).await;
    crosses(&path, Options::default(), Options::default()).await;
}

#[tokio::test]
async fn parts_of_one_page_are_written_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let device = FileDevice::create(dir.path().join("disk"), 1 << 20).await.expect("created");
    for round in 1..20_u8 {
        let writes = (0..16).map(|part: u64| {
            let data = Bytes::from(vec![round.wrapping_mul(part as u8 + 1); 256]);
            device.write(part * 256, data)
        });
        futures::future::try_join_all(writes).await.expect("writes");
        let mut page = vec![0; 4096];
        device.read(0, &mut page).await.expect("reads");
        for (part, bytes) in page.chunks(256).enumerate() {
            let expected = round.wrapping_mul(part as u8 + 1);
            assert!(bytes.iter().all(|byte| *byte == expected), "part {part} in round {round}");
        }
    }
}

#[tokio::test]
async fn holes_take_no_space_and_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let device = FileDevice::create(&path, 8 << 20).await.expect("created");
    let stored = || std::fs::metadata(&path).expect("metadata").blocks() * 512;
    let all = device.status(0, 8 << 20, 10).await.expect("a status");
    assert!(all.len() == 1 && all[0].hole, "a new file is a hole: {all:?}");
    device.write(2 << 20, vec![1; 4 << 20].into()).await.expect("writes");
    device.flush().await.expect("flushes");
    let ranges = device.status(0, 8 << 20, 10).await.expect("a status");
    assert_eq!(ranges.iter().map(|range| range.hole).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!((ranges[1].offset, ranges[1].length), (2 << 20, 4 << 20));
    let before = stored();
    device.zero(2 << 20, 4 << 20).await.expect("zeros");
    assert!(stored() + (4 << 20) <= before, "{} of {before} bytes stay", stored());
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disk");
    let device = FileDevice::create(&path, 8192).await.expect("created");
    assert_eq!(kind_of(FileDevice::create(&path, 8192)).await, ErrorKind::Invalid);
    let twice = FileDevice::open(&path, Options::default());
    assert_eq!(kind_of(twice).await, ErrorKind::Invalid, "a second writer");
    drop(device);
    let other = Options { size_bytes: Some(4096), ..Options::default() };
    let error = FileDevice::open(&path, other).await.err().expect("another size");
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.ends_with("has 8192 bytes, and not 4096"), "{error}");
    assert_eq!(kind_of(FileDevice::create(dir.path().join("none"), 0)).await, ErrorKind::Invalid);
    let directory = FileDevice::open(dir.path(), read_only());
    assert_eq!(kind_of(directory).await, ErrorKind::Invalid);
    let missing = FileDevice::open(dir.path().join("missing"), read_only());
    assert_eq!(kind_of(missing).await, ErrorKind::Failed);
    std::fs::write(dir.path().join("empty"), "").expect("an empty file");
    let empty = FileDevice::open(dir.path().join("empty"), read_only());
    assert_eq!(kind_of(empty).await, ErrorKind::Invalid);
}
