//! The trait's rules as checks that any implementation can run.
//!
//! They write over the device. Without a runtime of their own, they run on the caller's.

use bytes::Bytes;

use crate::{Attempt, Content, Device, ErrorKind, Geometry, Result, SECTOR_BYTES_MIN};

/// Blocks that the checks use, from the beginning. In a smaller device, parts stand for blocks.
const BLOCKS_USED: u64 = 4;

/// The smallest device that the checks can tell apart, bytes.
const SIZE_BYTES_MIN: u64 = 256;

/// Checks a device that takes writes.
///
/// # Panics
/// Panics if the device breaks a rule, or is smaller than 256 bytes.
pub async fn writable(device: &dyn Device) {
    geometry(device);
    reads_what_was_written(device).await;
    parts_of_sectors_keep_their_neighbours(device).await;
    zeroed_ranges_read_as_zeros(device).await;
    status_is_whole_and_true(device).await;
    a_short_last_sector_is_served(device).await;
    nothing_lies_past_the_end(device).await;
    device.prefetch(0, block_of(device)).await;
    device.flush().await.expect("flushes");
    if let Attempt::Failed(error) = device.try_flush() {
        panic!("the fast path fails to flush where the other does not: {error}");
    }
}

/// Checks a read-only device, whatever it holds.
///
/// # Panics
/// Panics if the device breaks a rule, or is smaller than 256 bytes.
pub async fn read_only(device: &dyn Device) {
    geometry(device);
    assert!(device.geometry().read_only, "a read-only device says so");
    let before = read(device, 0, block_of(device)).await;
    let data = vec![0xa5; block_of(device) as usize];
    assert_no(device.try_write(0, &data), ErrorKind::ReadOnly);
    refused(device.write(0, Bytes::from(data)).await, ErrorKind::ReadOnly);
    refused(device.zero(0, block_of(device)).await, ErrorKind::ReadOnly);
    device.flush().await.expect("a flush of nothing");
    assert!(read(device, 0, block_of(device)).await == before, "a refused write has no effect");
    status_is_whole_and_true(device).await;
    reads_end_at_the_end(device).await;
}

/// The unit of the checks: a block, or a quarter of a small device.
fn block_of(device: &dyn Device) -> u64 {
    let geometry = device.geometry();
    u64::from(geometry.block_bytes).min(geometry.size_bytes / BLOCKS_USED)
}

/// A sector, or half of a small device's unit.
fn sector_of(device: &dyn Device) -> u64 {
    u64::from(device.geometry().sector_bytes).min(block_of(device) / 2)
}

fn geometry(device: &dyn Device) {
    let geometry = device.geometry();
    let (sector, block) = (geometry.sector_bytes, geometry.block_bytes);
    assert!(sector.is_power_of_two() && sector >= SECTOR_BYTES_MIN, "{geometry:?}");
    assert!(block.is_power_of_two() && block >= sector, "{geometry:?}");
    assert!(geometry.size_bytes >= SIZE_BYTES_MIN, "too small for the checks");
    assert_eq!(geometry, device.geometry(), "it stays the same");
}

/// Reads on both paths, which must agree.
async fn read(device: &dyn Device, offset: u64, len: u64) -> Vec<u8> {
    // Not zeros: a device that fills nothing must be noticed.
    let mut buf = vec![0x5a; len as usize];
    let content = device.read(offset, &mut buf).await.expect("reads");
    let bytes = filled(content, buf);
    let mut quick = vec![0x5a; len as usize];
    match device.try_read(offset, &mut quick) {
        Attempt::Done(content) => {
            assert!(filled(content, quick) == bytes, "both paths read the same at {offset}");
        }
        Attempt::WouldBlock => {}
        Attempt::Failed(error) => panic!("only the fast path fails at {offset}: {error}"),
    }
    bytes
}

fn filled(content: Content, mut buf: Vec<u8>) -> Vec<u8> {
    if content == Content::Zeroes {
        buf.fill(0);
    }
    buf
}

/// Bytes of which none is zero, different for each seed.
fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|at| ((at * 7 + seed * 13) % 251) as u8 + 1).collect()
}

async fn reads_what_was_written(device: &dyn Device) {
    let block = block_of(device);
    let (first, second) = (pattern(1, 2 * block), pattern(2, block));
    device.write(0, first.clone().into()).await.expect("writes");
    assert!(read(device, 0, 2 * block).await == first, "reads what was written");
    match device.try_write(block, &second) {
        Attempt::Done(()) => {}
        Attempt::WouldBlock => {
            assert!(read(device, block, block).await == first[block as usize..], "no effect");
            device.write(block, second.clone().into()).await.expect("writes");
        }
        Attempt::Failed(error) => panic!("the fast path fails to write: {error}"),
    }
    device.flush().await.expect("flushes");
    let expected = [&first[..block as usize], &second].concat();
    assert!(read(device, 0, 2 * block).await == expected, "the last write counts");
    let last = device.geometry().size_bytes - block;
    device.write(last, second.clone().into()).await.expect("writes at the end");
    assert!(read(device, last, block).await == second, "reads the end");
}

async fn parts_of_sectors_keep_their_neighbours(device: &dyn Device) {
    let (block, sector) = (block_of(device), sector_of(device));
    let mut model = pattern(3, 2 * block);
    device.write(0, model.clone().into()).await.expect("writes");
    let ranges = [(1, 1), (sector - 1, 2), (sector + 3, 2 * sector), (block - 7, 13), (5, block)];
    for (seed, (offset, len)) in (4..).zip(ranges) {
        let data = pattern(seed, len);
        if !matches!(device.try_write(offset, &data), Attempt::Done(())) {
            device.write(offset, data.clone().into()).await.expect("writes any bytes");
        }
        model[offset as usize..][..len as usize].copy_from_slice(&data);
        assert!(read(device, 0, 2 * block).await == model, "{len} bytes at {offset}");
        let around = &model[offset as usize - 1..(offset + len + 1) as usize];
        assert!(read(device, offset - 1, len + 2).await == around, "{len} bytes around {offset}");
    }
    for (offset, len) in [(1, 1), (sector - 1, 2), (sector + 3, 2 * sector), (5, block)] {
        device.zero(offset, len).await.expect("zeros any bytes");
        model[offset as usize..][..len as usize].fill(0);
        assert!(read(device, 0, 2 * block).await == model, "{len} zeros at {offset}");
    }
}

async fn zeroed_ranges_read_as_zeros(device: &dyn Device) {
    let block = block_of(device);
    device.write(0, pattern(9, 4 * block).into()).await.expect("writes");
    device.zero(block, 2 * block).await.expect("zeros");
    let zeros = vec![0; 2 * block as usize];
    assert!(read(device, block, 2 * block).await == zeros, "reads zeros");
    let all = pattern(9, 4 * block);
    assert!(read(device, 0, block).await == all[..block as usize], "keeps what is before");
    let behind = &all[3 * block as usize..];
    assert!(read(device, 3 * block, block).await == behind, "keeps what is behind");
    device.write(block, pattern(10, block).into()).await.expect("writes again");
    assert!(read(device, block, block).await == pattern(10, block), "zeros are written over");
}

/// Walks over the whole device, and reads the beginning of each hole.
async fn status_is_whole_and_true(device: &dyn Device) {
    let Geometry { size_bytes, sector_bytes, .. } = device.geometry();
    for ranges_max in [1, 3, 1000] {
        let mut at = 0;
        while at < size_bytes {
            let found = device.status(at, size_bytes - at, ranges_max).await.expect("a status");
            assert!((1..=ranges_max).contains(&found.len()), "{} ranges", found.len());
            for range in found {
                assert_eq!(range.offset, at, "no gap");
                assert!(range.length > 0, "an empty range at {at}");
                if range.hole && at < size_bytes {
                    let len = range.length.min(u64::from(sector_bytes)).min(size_bytes - at);
                    let bytes = read(device, at, len).await;
                    assert!(bytes.iter().all(|byte| *byte == 0), "a hole with data at {at}");
                }
                at += range.length;
            }
        }
    }
    let inside = device.status(1, 1, 1).await.expect("a status of one byte");
    assert_eq!((inside.len(), inside[0].offset), (1, 1), "it begins where it was asked to");
}

/// Writes and zeros the last sector alone, which may be short, and reads what is before it, too.
async fn a_short_last_sector_is_served(device: &dyn Device) {
    let Geometry { size_bytes: size, sector_bytes, .. } = device.geometry();
    let start = (size - 1) / u64::from(sector_bytes) * u64::from(sector_bytes);
    let (len, before) = (size - start, start.min(1));
    device.write(start - before, pattern(13, before + len).into()).await.expect("writes the end");
    device.write(start, pattern(14, len).into()).await.expect("writes a short sector");
    let kept = &pattern(13, before)[..];
    let expected = [kept, &pattern(14, len)].concat();
    assert!(read(device, start - before, before + len).await == expected, "reads a short sector");
    device.zero(start, len).await.expect("zeros a short sector");
    let expected = [kept, &vec![0; len as usize]].concat();
    assert!(read(device, start - before, before + len).await == expected, "zeros a short sector");
}

async fn nothing_lies_past_the_end(device: &dyn Device) {
    reads_end_at_the_end(device).await;
    let (size, sector) = (device.geometry().size_bytes, sector_of(device));
    let len = 2 * sector;
    let last = pattern(11, sector);
    let start = size - sector;
    device.write(start, last.clone().into()).await.expect("writes the last sector");
    let data = Bytes::from(pattern(12, len));
    for offset in [start, size - 1, size, u64::MAX - 1, u64::MAX - 511] {
        assert_no(device.try_write(offset, &data), ErrorKind::Invalid);
        refused(device.write(offset, data.clone()).await, ErrorKind::Invalid);
        refused(device.zero(offset, len).await, ErrorKind::Invalid);
    }
    assert!(read(device, start, sector).await == last, "nothing was written in part");
}

async fn reads_end_at_the_end(device: &dyn Device) {
    let (size, sector) = (device.geometry().size_bytes, sector_of(device));
    let mut buf = vec![0; 2 * sector as usize];
    for offset in [size - sector, size - 1, size, u64::MAX - 1, u64::MAX - 511] {
        assert_no(device.try_read(offset, &mut buf), ErrorKind::Invalid);
        refused(device.read(offset, &mut buf).await, ErrorKind::Invalid);
        let status = device.status(offset, buf.len() as u64, 10).await;
        refused(status, ErrorKind::Invalid);
    }
}

fn refused<T>(result: Result<T>, kind: ErrorKind) {
    match result {
        Err(error) => assert_eq!(error.kind, kind, "{error}"),
        Ok(_) => panic!("it was not refused as {kind:?}"),
    }
}

/// Checks that the fast path did nothing: it declines, or fails like the other.
fn assert_no<T>(attempt: Attempt<T>, kind: ErrorKind) {
    match attempt {
        Attempt::WouldBlock => {}
        Attempt::Failed(error) => assert_eq!(error.kind, kind, "{error}"),
        Attempt::Done(_) => panic!("the fast path did not refuse it as {kind:?}"),
    }
}
