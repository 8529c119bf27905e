//! Random operations on a wrapper beside plain bytes, one after another and many at once.

use std::cell::RefCell;

use futures::executor::block_on;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_device::{Attempt, Content, Device, conformance};
use skerry_testkit::seeds::Search;

/// Size of the devices below: some blocks, and a last one that is short.
pub(crate) const SIZE_BYTES: u64 = (128 << 10) + 512;

/// Length of the longest operation, bytes.
const LEN_MAX: u64 = 20_000;

/// Checks a wrapper that starts out as zeros: the suite, then random operations.
pub(crate) fn check<D: Device>(name: &'static str, make: impl Fn(u64) -> D) {
    block_on(conformance::writable(&make(0)));
    let search = Search { name, percent: 0, least: 30 };
    search.run(|seed| {
        block_on(one_by_one(&make(seed), seed, 150));
        block_on(many_at_once(&make(seed), seed, 8, 30));
    });
}

/// Applies random operations, and reads after each.
pub(crate) async fn one_by_one(device: &dyn Device, seed: u64, operations: usize) {
    let size = device.geometry().size_bytes;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = vec![0; size as usize];
    for _ in 0..operations {
        let (offset, len) = range(&mut rng, 0..size);
        let part = &mut model[offset as usize..][..len as usize];
        change(device, &mut rng, offset, part).await;
        let (offset, len) = range(&mut rng, 0..size);
        let bytes = read(device, offset, len).await;
        assert!(bytes == model[offset as usize..][..len as usize], "{len} bytes at {offset}");
    }
    assert!(read(device, 0, size).await == model, "all bytes at the end");
}

/// Lets writers change parts of their own at once. Parts touch, and begin within sectors.
pub(crate) async fn many_at_once(device: &dyn Device, seed: u64, writers: u64, operations: usize) {
    let size = device.geometry().size_bytes;
    let model = RefCell::new(vec![0; size as usize]);
    // Short stripes: neighbours share blocks, and often sectors.
    let stripe = 1500 + seed % 700;
    let writer = |own: u64| {
        let model = &model;
        async move {
            let mut rng = StdRng::seed_from_u64(seed * 1000 + own);
            for _ in 0..operations {
                let stripes = size / stripe / writers;
                let index = rng.random_range(0..stripes) * writers + own;
                let (offset, len) = range(&mut rng, index * stripe..(index + 1) * stripe);
                let place = offset as usize..(offset + len) as usize;
                let mut part = model.borrow()[place.clone()].to_vec();
                change(device, &mut rng, offset, &mut part).await;
                assert!(read(device, offset, len).await == part, "own {len} bytes at {offset}");
                model.borrow_mut()[place].copy_from_slice(&part);
            }
        }
    };
    join_all((0..writers).map(writer)).await;
    assert!(read(device, 0, size).await == model.into_inner(), "all bytes at the end");
}

/// Reads a range on the asynchronous path.
pub(crate) async fn read(device: &dyn Device, offset: u64, len: u64) -> Vec<u8> {
    let mut buf = vec![0x5a; len as usize];
    if device.read(offset, &mut buf).await.expect("reads") == Content::Zeroes {
        buf.fill(0);
    }
    buf
}

fn range(rng: &mut StdRng, within: std::ops::Range<u64>) -> (u64, u64) {
    let room = within.end - within.start;
    let len = if rng.random_range(0..4) == 0 { room.min(4096) } else { room.min(LEN_MAX) };
    let len = rng.random_range(1..=len);
    let mut offset = within.start + rng.random_range(0..=room - len);
    if rng.random_range(0..2) == 0 && offset / 4096 * 4096 >= within.start {
        offset = offset / 4096 * 4096;
    }
    (offset, len)
}

/// Changes a range by a random operation, or leaves it as it is. `part` follows.
async fn change(device: &dyn Device, rng: &mut StdRng, offset: u64, part: &mut [u8]) {
    match rng.random_range(0..10) {
        0 => device.flush().await.expect("flushes"),
        1 | 2 => {
            device.zero(offset, part.len() as u64).await.expect("zeros");
            part.fill(0);
        }
        // The same bytes again.
        3 => write(device, offset, part).await,
        _ => {
            let first = rng.random_range(1..=250);
            for (at, byte) in part.iter_mut().enumerate() {
                *byte = (first + at % 5) as u8;
            }
            write(device, offset, part).await;
        }
    }
}

async fn write(device: &dyn Device, offset: u64, data: &[u8]) {
    match device.try_write(offset, data) {
        Attempt::Done(()) => {}
        Attempt::WouldBlock => {
            device.write(offset, data.to_vec().into()).await.expect("writes");
        }
        Attempt::Failed(error) => panic!("{error}"),
    }
}
