//! The write cache is bounded, reads what was written, and loses nothing when write-backs fail.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::poll;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::write_cache::{BYTES_MIN, WriteCache};
use skerry_device::{Attempt, Device, ErrorKind};
use skerry_testkit::seeds::Search;

use crate::model::{self, SIZE_BYTES};
use crate::stage::{At, Call, Stage};

fn over(below: Arc<dyn Device>, bytes_max: usize) -> WriteCache {
    WriteCache::new(below, bytes_max).expect("enough memory")
}

fn data(byte: u8, len: usize) -> Bytes {
    vec![byte; len].into()
}

#[test]
fn keeps_the_rules_of_a_device() {
    for bytes_max in [BYTES_MIN, 10_000, 1 << 20] {
        model::check("write cache", |seed| over(Stage::yielding(SIZE_BYTES, seed), bytes_max));
        model::check("write cache, memory", |_| {
            over(Arc::new(MemoryDevice::new(SIZE_BYTES)), bytes_max)
        });
    }
}

#[test]
fn writes_are_answered_from_memory_and_read_from_there() {
    let stage = Stage::new(SIZE_BYTES);
    let cache = over(stage.clone(), 1 << 20);
    stage.fail(&[Call::Write]);
    block_on(async {
        cache.write(1000, data(1, 5000)).await.expect("caches");
        assert!(matches!(cache.try_write(2000, &[2; 100]), Attempt::Done(())));
        cache.zero(3000, 10).await.expect("caches");
        let mut model = vec![0; 10_000];
        model[1000..6000].fill(1);
        model[2000..2100].fill(2);
        model[3000..3010].fill(0);
        assert!(model::read(&cache, 0, 10_000).await == model, "over what is below");
        assert!(model::read(&cache, 1500, 2000).await == model[1500..3500], "from memory alone");
        assert!(stage.written.lock().is_empty());
        stage.fail(&[]);
        cache.flush().await.expect("flushes");
        assert!(stage.bytes()[..10_000] == model);
        assert_eq!(cache.cached_bytes(), 0);
    });
}

#[test]
fn write_backs_that_touch_are_joined() {
    let stage = Stage::new(SIZE_BYTES);
    let cache = over(stage.clone(), 1 << 20);
    block_on(async {
        for (offset, len) in [(4096, 512), (4608, 1000), (0, 10), (9000, 1)] {
            cache.write(offset, data(1, len)).await.expect("caches");
        }
        cache.zero(10, 20).await.expect("caches");
        cache.flush().await.expect("flushes");
    });
    let written = stage.written.lock().clone();
    assert_eq!(written, [(0, 10), (10, 20), (4096, 1512), (9000, 1)]);
}

#[test]
fn memory_is_bounded() {
    let search = Search { name: "write cache: bound", percent: 0, least: 30 };
    search.run(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let stage = Stage::yielding(SIZE_BYTES, seed);
        let cache = over(stage.clone(), 20_000);
        let mut model = vec![0; SIZE_BYTES as usize];
        block_on(async {
            for _ in 0..200 {
                let offset = rng.random_range(0..SIZE_BYTES - 30_000) as usize;
                let len = *[1, 100, 4096, 30_000].get(rng.random_range(0..4)).expect("one");
                let byte = rng.random();
                cache.write(offset as u64, data(byte, len)).await.expect("writes");
                model[offset..offset + len].fill(byte);
                assert!(cache.cached_bytes() <= 20_000, "{} bytes", cache.cached_bytes());
            }
            cache.flush().await.expect("flushes");
        });
        assert!(stage.bytes() == model);
        assert_eq!(cache.cached_bytes(), 0);
    });
}

#[test]
fn a_write_back_that_fails_surfaces_at_the_flush_and_loses_nothing() {
    let stage = Stage::new(SIZE_BYTES);
    let cache = over(stage.clone(), 1 << 20);
    block_on(async {
        for block in 0..10 {
            cache.write(block * 8192, data(block as u8 + 1, 4096)).await.expect("caches");
        }
        stage.fail(&[Call::Write]);
        for _ in 0..2 {
            assert!(cache.flush().await.is_err(), "each flush says so");
        }
        assert_eq!(model::read(&cache, 8192, 4096).await, data(2, 4096), "it is there still");
        stage.fail(&[Call::Flush]);
        assert!(cache.flush().await.is_err());
        stage.fail(&[]);
        cache.flush().await.expect("flushes");
        for block in 0..10_usize {
            assert!(stage.bytes()[block * 8192..][..4096] == data(block as u8 + 1, 4096));
        }
    });
}

#[test]
fn a_full_cache_that_can_not_be_written_back_refuses_the_write_and_keeps_the_others() {
    let stage = Stage::new(SIZE_BYTES);
    let cache = over(stage.clone(), BYTES_MIN);
    block_on(async {
        cache.write(0, data(1, 2000)).await.expect("caches");
        stage.fail(&[Call::Write]);
        let refused = cache.write(8192, data(2, 2000)).await;
        assert_eq!(refused.map_err(|error| error.kind), Err(ErrorKind::Failed));
        stage.fail(&[]);
        cache.flush().await.expect("flushes");
        assert!(stage.bytes()[..2000] == data(1, 2000));
        assert!(stage.bytes()[8192..10_192] == data(0, 2000));
    });
}

/// A write to a block whose older bytes are being written back must reach the device, too.
#[test]
fn a_write_beside_the_write_back_of_its_block_is_not_lost() {
    for at in [At::Begin, At::End] {
        let stage = Stage::new(SIZE_BYTES);
        let cache = over(stage.clone(), 1 << 20);
        block_on(async {
            cache.write(0, data(1, 4096)).await.expect("caches");
            let go_on = stage.stop(at);
            let mut flush = pin!(cache.flush());
            assert!(poll!(&mut flush).is_pending());
            assert_eq!(model::read(&cache, 0, 4096).await, data(1, 4096), "while under way");
            cache.write(1000, data(2, 1000)).await.expect("caches");
            // Its write-back must not overtake the older one.
            let mut second = pin!(cache.flush());
            assert!(poll!(&mut second).is_pending());
            drop(go_on);
            flush.await.expect("flushes");
            second.await.expect("flushes");
            let expected = [data(1, 1000), data(2, 1000), data(1, 2096)].concat();
            assert!(stage.bytes()[..4096] == expected, "{at:?}");
            assert!(model::read(&cache, 0, 4096).await == expected);
        });
    }
}

/// The read has looked into memory; then the block is written back and leaves the memory.
#[test]
fn a_read_beside_a_write_back_sees_the_write() {
    let search = Search { name: "write cache: reads", percent: 0, least: 200 };
    search.run(|seed| {
        let cache = over(Stage::yielding(SIZE_BYTES, seed), 1 << 20);
        block_on(async {
            cache.write(0, data(1, 100)).await.expect("caches");
            let (read, flushed) = futures::join!(model::read(&cache, 0, 200), cache.flush());
            flushed.expect("flushes");
            assert!(read[..100] == data(1, 100));
        });
    });
}

#[test]
fn too_little_memory_is_refused() {
    assert!(WriteCache::new(Stage::new(SIZE_BYTES), BYTES_MIN - 1).is_err());
}
