//! The mirror loses no acknowledged write: degraded, while it heals, and afterwards.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use futures::poll;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::mirror::{Health, Mirror, Scope, Side, Start};
use skerry_device::{Device, ErrorKind};
use skerry_testkit::seeds::Search;

use crate::model::{self, SIZE_BYTES};
use crate::stage::{At, Call, Stage};

const BLOCK_BYTES: u64 = 4096;
const BLOCKS: u64 = SIZE_BYTES.div_ceil(BLOCK_BYTES);

fn of(first: &Arc<Stage>, second: &Arc<Stage>) -> Mirror {
    Mirror::new(first.clone(), second.clone(), BLOCK_BYTES, Start::Equal).expect("they fit")
}

fn pair() -> (Arc<Stage>, Arc<Stage>, Mirror) {
    let (first, second) = (Stage::new(SIZE_BYTES), Stage::new(SIZE_BYTES));
    let mirror = of(&first, &second);
    (first, second, mirror)
}

fn data(byte: u8, len: usize) -> Bytes {
    vec![byte; len].into()
}

/// The side that is lost, and the number of its stale blocks.
fn lost(mirror: &Mirror) -> Option<(Side, u64)> {
    match mirror.health() {
        Health::Whole => None,
        Health::Degraded { lost, stale_blocks, .. } => Some((lost, stale_blocks)),
    }
}

#[test]
fn keeps_the_rules_of_a_device() {
    let stage = |seed| Stage::yielding(SIZE_BYTES, seed);
    model::check("mirror", |seed| of(&stage(seed), &stage(seed + 1)));
    for failed in 0..2 {
        model::check("mirror, degraded", |seed| {
            let sides = [stage(seed), stage(seed + 1)];
            sides[failed].fail(&[Call::Read, Call::Write, Call::Flush]);
            of(&sides[0], &sides[1])
        });
    }
    model::check("mirror, memory", |_| {
        let memory = || Arc::new(MemoryDevice::new(SIZE_BYTES));
        Mirror::new(memory(), memory(), BLOCK_BYTES, Start::FirstOnly).expect("they fit")
    });
}

#[test]
fn both_sides_hold_every_write() {
    let search = Search { name: "mirror: equal", percent: 0, least: 50 };
    search.run(|seed| {
        let (first, second) =
            (Stage::yielding(SIZE_BYTES, seed), Stage::yielding(SIZE_BYTES, seed + 1));
        let mirror = of(&first, &second);
        // Writers overlap: the order must be one on both sides.
        block_on(join_all((0..6).map(|own| {
            let mirror = &mirror;
            async move {
                let mut rng = StdRng::seed_from_u64(seed * 10 + own);
                for _ in 0..20 {
                    let offset = rng.random_range(0..20_000);
                    let data = data(rng.random(), rng.random_range(1..9000));
                    mirror.write(offset, data).await.expect("writes");
                }
            }
        })));
        assert!(first.bytes() == second.bytes());
        assert_eq!(mirror.health(), Health::Whole);
    });
}

#[test]
fn it_goes_on_without_a_side_says_so_and_heals_by_what_was_written() {
    for (side, name) in [(0, Side::First), (1, Side::Second)] {
        let (first, second, mirror) = pair();
        let failing = [&first, &second][side];
        block_on(async {
            mirror.write(0, data(1, 50_000)).await.expect("writes");
            mirror.flush().await.expect("flushes");
            failing.fail(&[Call::Write]);
            mirror.write(5000, data(2, 5000)).await.expect("goes on");
            assert_eq!(lost(&mirror), Some((name, 2)));
            mirror.write(20_480, data(3, 1)).await.expect("goes on");
            mirror.zero(SIZE_BYTES - 1, 1).await.expect("goes on");
            assert_eq!(lost(&mirror), Some((name, 4)));
            assert_eq!(model::read(&mirror, 5000, 5000).await, data(2, 5000), "the newest bytes");
            assert!(mirror.heal(failing.clone(), Scope::Stale).await.is_err(), "it fails still");
            assert_eq!(lost(&mirror), Some((name, 4)));
            failing.fail(&[]);
            failing.written.lock().clear();
            mirror.heal(failing.clone(), Scope::Stale).await.expect("heals");
        });
        assert_eq!(mirror.health(), Health::Whole);
        assert!(failing.written.lock().iter().map(|(_, len)| len).sum::<u64>() <= 4 * 4096);
        assert!(first.bytes() == second.bytes());
    }
}

#[test]
fn a_side_that_fails_to_flush_lacks_what_was_not_durable() {
    let (first, second, mirror) = pair();
    block_on(async {
        mirror.write(0, data(1, 4096)).await.expect("writes");
        mirror.flush().await.expect("flushes");
        mirror.write(8192, data(2, 4096)).await.expect("writes");
        second.fail(&[Call::Flush]);
        mirror.flush().await.expect("the first is durable");
        assert_eq!(lost(&mirror), Some((Side::Second, 1)));
        // The side comes back as it was at the last flush.
        let back = Stage::new(SIZE_BYTES);
        back.memory.write(0, data(1, 4096)).await.expect("writes");
        mirror.heal(back.clone(), Scope::Stale).await.expect("heals");
        assert!(first.bytes() == back.bytes());
        first.fail(&[Call::Flush]);
        back.fail(&[Call::Flush]);
        assert!(mirror.flush().await.is_err(), "nothing is durable");
    });
}

#[test]
fn a_side_that_fails_a_write_lacks_what_was_not_durable() {
    let (first, second, mirror) = pair();
    block_on(async {
        mirror.write(8192, data(2, 4096)).await.expect("writes");
        second.fail(&[Call::Write]);
        mirror.write(0, data(1, 100)).await.expect("goes on");
        let back = Stage::new(SIZE_BYTES);
        mirror.heal(back.clone(), Scope::Stale).await.expect("heals");
        assert!(first.bytes() == back.bytes());
    });
}

/// The flush that would make a write durable on both sides is still under way when one is lost.
#[test]
fn a_flush_under_way_makes_nothing_durable_yet() {
    let (first, second, mirror) = pair();
    block_on(async {
        mirror.write(0, data(1, 4096)).await.expect("writes");
        let _go_on = second.stop_call(Call::Flush, At::Begin);
        let mut flush = pin!(mirror.flush());
        assert!(poll!(&mut flush).is_pending());
        second.fail(&[Call::Write]);
        mirror.write(8192, data(2, 100)).await.expect("goes on");
        let back = second.crash(1);
        mirror.heal(back.clone(), Scope::Stale).await.expect("heals");
        assert!(first.bytes() == back.bytes());
    });
}

#[test]
fn a_read_that_fails_is_answered_by_the_other_side() {
    let (first, _second, mirror) = pair();
    block_on(async {
        mirror.write(0, data(1, 4096)).await.expect("writes");
        first.fail(&[Call::Read]);
        assert_eq!(model::read(&mirror, 0, 4096).await, data(1, 4096));
        assert!(matches!(lost(&mirror), Some((Side::First, _))));
    });
}

#[test]
fn when_both_fail_the_caller_hears_of_it() {
    let (first, second, mirror) = pair();
    block_on(async {
        second.fail(&[Call::Write]);
        mirror.write(0, data(1, 512)).await.expect("goes on");
        first.fail(&[Call::Write, Call::Read, Call::Flush]);
        assert!(mirror.write(0, data(2, 512)).await.is_err());
        assert!(mirror.read(0, &mut [0; 512]).await.is_err());
        assert!(mirror.flush().await.is_err());
        assert!(matches!(lost(&mirror), Some((Side::Second, _))), "the first has all");
        first.fail(&[]);
        assert_eq!(model::read(&mirror, 0, 512).await, data(1, 512));
    });
    let (first, second, mirror) = pair();
    first.fail(&[Call::Write]);
    second.fail(&[Call::Write]);
    assert!(block_on(mirror.write(0, data(2, 512))).is_err());
    assert_eq!(lost(&mirror), Some((Side::Second, 1)), "they may differ");
}

/// Healing has read a block, and has not written it: a write to the block must come after.
#[test]
fn a_write_beside_the_copy_of_its_block_is_not_lost() {
    for at in [At::Begin, At::End] {
        let (first, second, mirror) = pair();
        block_on(async {
            second.fail(&[Call::Write]);
            mirror.write(0, data(1, 4096)).await.expect("goes on");
            second.fail(&[]);
            let go_on = second.stop(at);
            let mut healing = pin!(mirror.heal(second.clone(), Scope::Stale));
            assert!(poll!(&mut healing).is_pending());
            let mut write = pin!(mirror.write(100, data(2, 1000)));
            let _ = poll!(&mut write);
            drop(go_on);
            let (healed, written) = futures::join!(healing, write);
            healed.expect("heals");
            written.expect("writes");
        });
        assert!(first.bytes() == second.bytes(), "{at:?}");
        assert_eq!(mirror.health(), Health::Whole);
    }
}

#[test]
fn what_is_dropped_half_way_leaves_no_difference_unseen() {
    let (first, second, mirror) = pair();
    block_on(async {
        let _go_on = second.stop(At::Begin);
        let mut write = Box::pin(mirror.write(0, data(1, 512)));
        assert!(poll!(&mut write).is_pending());
        drop(write);
        assert_eq!(lost(&mirror), Some((Side::Second, 1)), "the sides differ");
        let _go_on = second.stop(At::Begin);
        let mut healing = Box::pin(mirror.heal(second.clone(), Scope::All));
        assert!(poll!(&mut healing).is_pending());
        let again = mirror.heal(second.clone(), Scope::All).await;
        assert_eq!(again.map_err(|error| error.kind), Err(ErrorKind::Invalid));
        drop(healing);
        assert_eq!(lost(&mirror), Some((Side::Second, BLOCKS)));
        mirror.heal(second.clone(), Scope::Stale).await.expect("heals");
    });
    assert!(first.bytes() == second.bytes());
}

#[test]
fn sides_that_do_not_fit_are_refused() {
    let device = |size| Arc::new(MemoryDevice::new(size));
    let differ = Mirror::new(device(SIZE_BYTES), device(4096), BLOCK_BYTES, Start::Equal);
    assert!(differ.is_err());
    assert!(Mirror::new(device(4096), device(4096), 3000, Start::Equal).is_err());
    let (_, _, mirror) = pair();
    assert!(block_on(mirror.heal(device(SIZE_BYTES), Scope::All)).is_err(), "it is whole");
}

/// Sides crash and heal beside writers, in many orders. A side that comes back has lost all that
/// no flush has made durable.
#[test]
fn no_write_is_lost_whatever_fails_and_heals() {
    let search = Search { name: "mirror: heals", percent: 1, least: 100 };
    search.run(|seed| block_on(fail_and_heal(seed)));
}

async fn fail_and_heal(seed: u64) {
    let sides = [Stage::yielding(SIZE_BYTES, seed), Stage::yielding(SIZE_BYTES, seed + 1)];
    let mirror = of(&sides[0], &sides[1]);
    let sides = RefCell::new(sides);
    let running = Cell::new(4);
    let model = RefCell::new(vec![0_u8; SIZE_BYTES as usize]);
    let writers = (0..4).map(|own| {
        let (mirror, model, running) = (&mirror, &model, &running);
        async move {
            let mut rng = StdRng::seed_from_u64(seed * 10 + own);
            for _ in 0..60 {
                // Own stripes of 1,000 bytes: neighbours share blocks.
                let offset = (rng.random_range(0..30) * 4 + own) * 1000;
                let len = rng.random_range(1..=1000);
                let bytes = data(rng.random(), len);
                let place = offset as usize..offset as usize + len;
                // A write fails if both sides fail within its time. Then its caller writes again.
                while mirror.write(offset, bytes.clone()).await.is_err() {}
                assert_eq!(model::read(mirror, offset, len as u64).await, bytes);
                model.borrow_mut()[place].copy_from_slice(&bytes);
                if rng.random_range(0..10) == 0 {
                    let _ = mirror.flush().await;
                }
            }
            running.set(running.get() - 1);
        }
    });
    let breaker = async {
        let mut rng = StdRng::seed_from_u64(seed + 7);
        while running.get() > 0 {
            // Reads through the mirror give the others time.
            for _ in 0..rng.random_range(0..10) {
                model::read(&mirror, 0, 1).await;
            }
            let victim = match mirror.health() {
                Health::Whole => rng.random_range(0..2),
                Health::Degraded { lost, .. } => usize::from(lost == Side::Second),
            };
            let failing = sides.borrow()[victim].clone();
            failing.fail(&[Call::Write, Call::Flush]);
            for _ in 0..rng.random_range(0..10) {
                model::read(&mirror, 0, 1).await;
            }
            failing.fail(&[]);
            // A write that fails late ends healing, so it takes more than one attempt at times.
            for attempt in 0.. {
                let Health::Degraded { lost, .. } = mirror.health() else { break };
                assert!(attempt < 10, "it does not heal");
                let side = usize::from(lost == Side::Second);
                let back = sides.borrow()[side].crash(rng.random());
                sides.borrow_mut()[side] = back.clone();
                let _ = mirror.heal(back, Scope::Stale).await;
            }
        }
    };
    futures::join!(join_all(writers), breaker);
    let [first, second] = sides.into_inner();
    assert!(first.bytes() == model.into_inner(), "the first differs from what was written");
    assert!(first.bytes() == second.bytes(), "the sides differ");
}
