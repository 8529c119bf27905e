//! The overlay reads as its base until it is written, keeps the base as it is, and trusts no other.

use std::sync::Arc;

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::overlay::{Identity, Overlay};
use skerry_device::{Attempt, Device, ErrorKind};
use skerry_testkit::seeds::Search;

use crate::model::{self, SIZE_BYTES};
use crate::stage::Stage;

const BLOCK_BYTES: u32 = 4096;

fn room() -> u64 {
    Overlay::copies_bytes(SIZE_BYTES, BLOCK_BYTES)
}

/// A base with bytes of which none is zero.
fn base() -> Arc<Stage> {
    let base = Stage::new(SIZE_BYTES);
    let bytes: Vec<u8> = (0..SIZE_BYTES).map(|at| (at % 250) as u8 + 1).collect();
    assert!(matches!(base.memory.try_write(0, &bytes), Attempt::Done(())));
    base
}

async fn create(base: Arc<dyn Device>, copies: Arc<dyn Device>) -> Overlay {
    Overlay::create(base, copies, BLOCK_BYTES, Some([7; 16])).await.expect("creates")
}

#[test]
fn keeps_the_rules_of_a_device() {
    model::check("overlay", |seed| {
        block_on(create(Stage::yielding(SIZE_BYTES, seed), Stage::yielding(room(), seed + 1)))
    });
    let memory = |size| Arc::new(MemoryDevice::new(size));
    model::check("overlay, memory", |_| block_on(create(memory(SIZE_BYTES), memory(room()))));
}

#[test]
fn what_is_not_written_is_the_bases() {
    let (base, copies) = (base(), Stage::new(room()));
    let overlay = block_on(create(base.clone(), copies));
    let before = base.bytes();
    let mut model = before.clone();
    block_on(async {
        assert!(model::read(&overlay, 0, SIZE_BYTES).await == before);
        for (offset, len) in [(100, 10), (4096, 8192), (20_000, 9000), (SIZE_BYTES - 3, 3)] {
            overlay.write(offset, vec![0; len].into()).await.expect("writes");
            model[offset as usize..][..len].fill(0);
            assert!(model::read(&overlay, 0, SIZE_BYTES).await == model, "{len} at {offset}");
        }
        overlay.zero(60_000, 10_000).await.expect("zeros");
        model[60_000..70_000].fill(0);
        assert!(model::read(&overlay, 0, SIZE_BYTES).await == model);
    });
    // The first block, two whole ones, four that a write touches, the last, and four zeroed.
    assert_eq!(overlay.copied_blocks(), 1 + 2 + 4 + 1 + 4);
    assert!(base.bytes() == before && base.written.lock().is_empty(), "the base stays");
}

#[test]
fn another_base_is_refused() {
    let (base, copies) = (base(), Stage::new(room()));
    block_on(async {
        let made = Overlay::create(base.clone(), copies.clone(), BLOCK_BYTES, None).await;
        assert!(matches!(made.expect("creates").base(), Identity::Hash(_)));
        Overlay::open(base.clone(), copies.clone(), None).await.expect("opens");
        let other = Stage::new(SIZE_BYTES);
        other.memory.write(0, base.bytes().into()).await.expect("writes");
        Overlay::open(other.clone(), copies.clone(), None).await.expect("the same bytes");
        other.memory.write(SIZE_BYTES - 1, vec![0].into()).await.expect("writes");
        let opened = Overlay::open(other, copies.clone(), None).await.map(|_| ());
        assert_eq!(opened.map_err(|error| error.kind), Err(ErrorKind::Invalid), "one byte");

        let copies = Stage::new(room());
        drop(create(base.clone(), copies.clone()).await);
        for (given, opens) in [(Some([7; 16]), true), (Some([8; 16]), false), (None, false)] {
            let opened = Overlay::open(base.clone(), copies.clone(), given).await;
            assert_eq!(opened.is_ok(), opens, "{given:?}");
        }
    });
}

#[test]
fn devices_that_are_no_overlay_are_refused() {
    let base = base();
    block_on(async {
        let make = |copies: Arc<Stage>, block_bytes| {
            Overlay::create(base.clone(), copies, block_bytes, Some([7; 16]))
        };
        assert!(make(Stage::new(room() - 512), BLOCK_BYTES).await.is_err(), "too small");
        assert!(make(Stage::new(room()), 3000).await.is_err(), "no power of two");
        let copies = Stage::new(room());
        assert!(Overlay::open(base.clone(), copies.clone(), None).await.is_err(), "empty");
        drop(make(copies.clone(), BLOCK_BYTES).await.expect("creates"));
        assert!(make(copies.clone(), BLOCK_BYTES).await.is_err(), "it is one already");
        for (at, kind) in
            [(0, ErrorKind::Invalid), (20, ErrorKind::Failed), (512, ErrorKind::Failed)]
        {
            let before = model::read(&*copies, at, 1).await;
            copies.memory.write(at, vec![before[0] ^ 1].into()).await.expect("writes");
            let opened = Overlay::open(base.clone(), copies.clone(), Some([7; 16])).await;
            assert_eq!(opened.map(|_| ()).map_err(|error| error.kind), Err(kind), "at {at}");
            copies.memory.write(at, before.into()).await.expect("writes");
        }
        Overlay::open(base.clone(), copies, Some([7; 16])).await.expect("it is well again");
    });
}

/// After a crash, the overlay has all that a flush has made durable, and no block half-way.
#[test]
fn a_crash_loses_only_what_was_not_flushed() {
    let search = Search { name: "overlay: crashes", percent: 0, least: 60 };
    search.run(|seed| block_on(crash(seed)));
}

async fn crash(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let base = base();
    let mut copies = Stage::yielding(room(), seed);
    let mut overlay = create(base.clone(), copies.clone()).await;
    let mut durable = base.bytes();
    for _ in 0..5 {
        let mut model = durable.clone();
        for _ in 0..rng.random_range(0..8) {
            let offset = rng.random_range(0..SIZE_BYTES - 9000);
            let len = rng.random_range(1..9000);
            overlay.write(offset, vec![0xee; len].into()).await.expect("writes");
            model[offset as usize..][..len].fill(0xee);
            if rng.random_range(0..3) == 0 {
                overlay.flush().await.expect("flushes");
                durable.clone_from(&model);
            }
        }
        copies = copies.crash(rng.random());
        let opened = Overlay::open(base.clone(), copies.clone(), Some([7; 16])).await;
        overlay = opened.expect("opens");
        assert!(model::read(&overlay, 0, SIZE_BYTES).await == durable);
    }
}

#[test]
fn a_block_is_copied_once() {
    let (base, copies) = (base(), Stage::new(room()));
    let overlay = block_on(create(base, copies.clone()));
    let data = Overlay::copies_bytes(0, BLOCK_BYTES).max(4096);
    copies.written.lock().clear();
    block_on(async {
        overlay.write(100, vec![1; 10].into()).await.expect("writes");
        overlay.write(200, vec![1; 10].into()).await.expect("writes");
        overlay.write(4096, vec![1; 4096].into()).await.expect("writes");
    });
    let written = [(data, 4096), (data + 100, 10), (data + 200, 10), (data + 4096, 4096)];
    assert_eq!(*copies.written.lock(), written);
}

/// The map must not be durable before the bytes that it speaks of.
#[test]
fn the_map_follows_the_bytes() {
    let (base, copies) = (base(), Stage::new(room()));
    let overlay = block_on(create(base, copies.clone()));
    block_on(async {
        overlay.write(0, vec![1; 100].into()).await.expect("writes");
        copies.written.lock().clear();
        copies.fail(&[crate::stage::Call::Flush]);
        assert!(overlay.flush().await.is_err());
        assert!(copies.written.lock().is_empty(), "the bytes are not durable yet");
        copies.fail(&[]);
        overlay.flush().await.expect("flushes");
        assert_eq!(*copies.written.lock(), [(512, 512)], "the page that was held back");
        overlay.flush().await.expect("flushes");
        assert_eq!(copies.written.lock().len(), 1, "nothing more to write");
    });
}
