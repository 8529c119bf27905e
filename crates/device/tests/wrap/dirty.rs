//! The tracker misses nothing, and gives blocks by age and by how much of them changed.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use futures::poll;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::dirty::{Changed, Dirty, Sizes, Wanted};
use skerry_device::wrap::gate::Gate;
use skerry_device::{Attempt, Device};
use skerry_testkit::seeds::Search;

use crate::model::{self, SIZE_BYTES};
use crate::stage::{At, Call, Stage, TestClock};

const SIZES: Sizes = Sizes { block_bytes: 4096, sub_block_bytes: 512 };
const SECOND: Duration = Duration::from_secs(1);

fn over(below: Arc<dyn Device>) -> Dirty {
    Dirty::new(below, Arc::new(TestClock::default()), SIZES).expect("good sizes")
}

fn blocks(taken: &[Changed]) -> Vec<u64> {
    taken.iter().map(|changed| changed.block).collect()
}

#[test]
fn keeps_the_rules_of_a_device() {
    model::check("dirty", |seed| over(Stage::yielding(SIZE_BYTES, seed)));
    model::check("dirty, fast path", |_| over(Arc::new(MemoryDevice::new(SIZE_BYTES))));
}

/// A tracker that marks before the write passes the first take, and fails the second.
#[test]
fn a_write_is_marked_after_its_effect() {
    for at in [At::Begin, At::End] {
        let stage = Stage::new(SIZE_BYTES);
        let dirty = over(stage.clone());
        let go_on = stage.stop(at);
        block_on(async {
            let mut write = pin!(dirty.write(8192, Bytes::from_static(&[7; 512])));
            assert!(poll!(&mut write).is_pending());
            let _ = dirty.take(&Wanted::ALL);
            // The copier reads now. It may find the old bytes.
            drop(go_on);
            write.await.expect("writes");
        });
        assert_eq!(blocks(&dirty.take(&Wanted::ALL)), [2], "{at:?}");
        assert_eq!(dirty.count(), 0);
    }
}

#[test]
fn writes_that_fail_or_are_dropped_are_marked() {
    let stage = Stage::new(SIZE_BYTES);
    let dirty = over(stage.clone());
    let _go_on = stage.stop(At::End);
    block_on(async {
        let mut write = Box::pin(dirty.write(0, Bytes::from_static(&[7; 512])));
        assert!(poll!(&mut write).is_pending());
        assert_eq!(dirty.count(), 0, "it has not ended");
        drop(write);
        assert_eq!(blocks(&dirty.take(&Wanted::ALL)), [0], "dropped");
        stage.fail(&[Call::Write]);
        assert!(dirty.write(4096, Bytes::from_static(&[7; 512])).await.is_err());
        assert!(dirty.zero(8192, 512).await.is_err());
    });
    let mut failed = blocks(&dirty.take(&Wanted::ALL));
    failed.sort_unstable();
    assert_eq!(failed, [1, 2], "failed");
}

#[test]
fn zeros_and_the_fast_path_count_too() {
    let dirty = over(Arc::new(MemoryDevice::new(SIZE_BYTES)));
    assert!(matches!(dirty.try_write(4000, &[1; 200]), Attempt::Done(())));
    assert_eq!(dirty.count(), 2);
    block_on(dirty.zero(20_480, 4096)).expect("zeros");
    assert_eq!(dirty.count(), 3);
    let stage = Stage::new(SIZE_BYTES);
    let declined = over(stage);
    assert!(matches!(declined.try_write(0, &[1]), Attempt::WouldBlock));
    assert_eq!(declined.count(), 0, "nothing has happened");
}

#[test]
fn runs_name_the_sub_blocks_that_changed() {
    let dirty = over(Arc::new(MemoryDevice::new(SIZE_BYTES)));
    for (offset, len) in [(4096 + 500, 20), (4096 + 2048, 1), (SIZE_BYTES - 512, 512)] {
        block_on(dirty.write(offset, vec![1; len].into())).expect("writes");
    }
    let mut taken = dirty.take(&Wanted::ALL);
    taken.sort_unstable_by_key(|changed| changed.block);
    let runs: Vec<_> = taken.iter().flat_map(|changed| SIZES.runs(changed, SIZE_BYTES)).collect();
    let last = SIZE_BYTES - 512..SIZE_BYTES;
    assert_eq!(runs, [4096..4096 + 1024, 4096 + 2048..4096 + 2560, last], "the last is short");
    assert_eq!(taken[1].block, SIZE_BYTES / 4096);
}

/// Even a block that is written all the time is sent in time.
#[test]
fn age_counts_from_the_first_change_since_the_last_take() {
    let clock = Arc::new(TestClock::default());
    let below = Arc::new(MemoryDevice::new(SIZE_BYTES));
    let dirty = Dirty::new(below, clock.clone(), SIZES).expect("good sizes");
    let aged = Wanted { age_max: 3 * SECOND, changed_min: u32::MAX, blocks_max: 10 };
    for second in 0..3 {
        block_on(dirty.write(0, Bytes::from_static(&[1; 16]))).expect("writes");
        assert!(dirty.take(&aged).is_empty(), "after {second} s");
        clock.forward(SECOND);
    }
    let taken = dirty.take(&aged);
    assert_eq!((blocks(&taken), taken[0].since), (vec![0], Duration::ZERO));
    block_on(dirty.write(0, Bytes::from_static(&[1; 16]))).expect("writes");
    assert!(dirty.take(&aged).is_empty(), "its age begins anew");
    dirty.put_back(&taken[0]);
    assert_eq!(blocks(&dirty.take(&aged)), [0], "what is put back keeps its age");
}

#[test]
fn the_oldest_come_first_then_the_most_changed_up_to_the_limit() {
    let clock = Arc::new(TestClock::default());
    let below = Arc::new(MemoryDevice::new(SIZE_BYTES));
    let dirty = Dirty::new(below, clock.clone(), SIZES).expect("good sizes");
    for (block, sub_blocks) in [(9, 1), (3, 1), (5, 4), (6, 2), (7, 1)] {
        block_on(dirty.write(block * 4096, vec![1; sub_blocks * 512].into())).expect("writes");
        clock.forward(SECOND);
    }
    let wanted = Wanted { age_max: 4 * SECOND, changed_min: 2, blocks_max: 3 };
    assert_eq!(blocks(&dirty.take(&wanted)), [9, 3, 5]);
    assert_eq!(blocks(&dirty.take(&wanted)), [6], "too little of block 7 changed");
    assert_eq!(blocks(&dirty.take(&Wanted::ALL)), [7]);
}

#[test]
fn sizes_that_fit_no_mark_are_refused() {
    for (block_bytes, sub_block_bytes) in [(4096, 0), (4096, 32), (3000, 1000), (512, 1024)] {
        let below = Arc::new(MemoryDevice::new(SIZE_BYTES));
        let sizes = Sizes { block_bytes, sub_block_bytes };
        assert!(Dirty::new(below, Arc::new(TestClock::default()), sizes).is_err(), "{sizes:?}");
    }
}

/// A copier that takes and copies beside writers ends with the same bytes.
#[test]
fn a_copy_by_takes_is_complete() {
    let search = Search { name: "dirty copies", percent: 1, least: 30 };
    search.run(|seed| block_on(copy_beside_writers(seed)));
}

async fn copy_beside_writers(seed: u64) {
    let stage = Stage::yielding(SIZE_BYTES, seed);
    let dirty = over(stage.clone());
    let copy = std::cell::RefCell::new(vec![0; SIZE_BYTES as usize]);
    let writers = (0..4).map(|own| {
        let dirty = &dirty;
        async move {
            let mut rng = StdRng::seed_from_u64(seed * 10 + own);
            for _ in 0..40 {
                let offset = rng.random_range(0..SIZE_BYTES - 5000);
                let len = rng.random_range(1..5000);
                let data = vec![rng.random_range(1..=255); len];
                dirty.write(offset, data.into()).await.expect("writes");
            }
        }
    });
    let round = async || {
        let wanted = Wanted { blocks_max: 5, ..Wanted::ALL };
        for changed in dirty.take(&wanted) {
            for run in SIZES.runs(&changed, SIZE_BYTES) {
                let bytes = model::read(&dirty, run.start, run.end - run.start).await;
                copy.borrow_mut()[run.start as usize..run.end as usize].copy_from_slice(&bytes);
            }
        }
    };
    let copier = async {
        for _ in 0..60 {
            round().await;
            model::read(&dirty, 0, 1).await;
        }
    };
    futures::join!(join_all(writers), copier);
    while dirty.count() > 0 {
        round().await;
    }
    assert!(copy.into_inner() == stage.bytes(), "the copy differs");
}

/// In a pause, one take has all that the copy lacks: no write is between its bytes and its mark.
#[test]
fn the_final_set_is_complete_when_a_gate_has_drained() {
    let search = Search { name: "dirty: final set", percent: 0, least: 100 };
    search.run(|seed| block_on(copy_in_a_pause(seed)));
}

async fn copy_in_a_pause(seed: u64) {
    let stage = Stage::yielding(SIZE_BYTES, seed);
    let dirty = Arc::new(over(stage.clone()));
    let gate = Gate::new(dirty.clone());
    let writers = (0..4).map(|own| {
        let gate = &gate;
        async move {
            let mut rng = StdRng::seed_from_u64(seed * 10 + own);
            for _ in 0..30 {
                let offset = rng.random_range(0..SIZE_BYTES - 5000);
                let data = vec![rng.random_range(1..=255); rng.random_range(1..5000)];
                gate.write(offset, data.into()).await.expect("held at most");
            }
        }
    });
    let mover = async {
        let mut copy = vec![0; SIZE_BYTES as usize];
        for turn in 0..2 {
            let _pause = if turn == 1 { Some(gate.close().await) } else { None };
            for changed in dirty.take(&Wanted::ALL) {
                for run in SIZES.runs(&changed, SIZE_BYTES) {
                    let bytes = model::read(&*dirty, run.start, run.end - run.start).await;
                    copy[run.start as usize..run.end as usize].copy_from_slice(&bytes);
                }
            }
            assert!(turn == 0 || copy == stage.bytes(), "the final set lacks a block");
            for _ in 0..5 {
                model::read(&*dirty, 0, 1).await;
            }
        }
    };
    futures::join!(join_all(writers), mover);
}

/// The marks agree with a list of all changes.
#[test]
fn marks_agree_with_a_plain_list() {
    let search = Search { name: "dirty marks", percent: 1, least: 30 };
    search.run(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = Arc::new(TestClock::default());
        let below = Arc::new(MemoryDevice::new(SIZE_BYTES));
        let dirty = Dirty::new(below, clock.clone(), SIZES).expect("good sizes");
        let mut plain: BTreeMap<u64, (Duration, u64)> = BTreeMap::new();
        for second in 0..200 {
            let offset = rng.random_range(0..SIZE_BYTES - 9000);
            let len = rng.random_range(1..9000);
            block_on(dirty.zero(offset, len)).expect("zeros");
            for sector in offset / 512..=(offset + len - 1) / 512 {
                let mark = plain.entry(sector / 8).or_insert((second * SECOND, 0));
                mark.1 |= 1 << (sector % 8);
            }
            clock.forward(SECOND);
            let age_max = rng.random_range(0..60) * SECOND;
            let wanted = Wanted { age_max, changed_min: 9, blocks_max: 3 };
            for taken in dirty.take(&wanted) {
                let oldest = plain.values().map(|mark| mark.0).min().expect("a mark");
                assert_eq!(taken.since, oldest);
                assert_eq!(plain.remove(&taken.block), Some((taken.since, taken.sub_blocks)));
            }
            assert_eq!(dirty.count(), plain.len());
        }
    });
}
