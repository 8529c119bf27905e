//! Counters grow with writes and halve with time; orders compose.

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::order::{Any, Priorities, Queue};
use skerry_device::wrap::volatility::{Volatility, WRITE_HEAT};
use skerry_device::{Attempt, Device};

use crate::model::{self, SIZE_BYTES};
use crate::stage::{Stage, TestClock};

const BLOCK_BYTES: u64 = 4096;
const HALF_LIFE: Duration = Duration::from_secs(10);

fn over(below: Arc<dyn Device>) -> (Volatility, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    let volatility = Volatility::new(below, clock.clone(), BLOCK_BYTES, HALF_LIFE);
    (volatility.expect("good settings"), clock)
}

fn in_memory() -> (Volatility, Arc<TestClock>) {
    over(Arc::new(MemoryDevice::new(SIZE_BYTES)))
}

#[test]
fn keeps_the_rules_of_a_device() {
    model::check("volatility", |seed| over(Stage::yielding(SIZE_BYTES, seed)).0);
    model::check("volatility, fast path", |_| in_memory().0);
}

#[test]
fn heat_grows_with_each_write_and_halves_with_time() {
    let (device, clock) = in_memory();
    assert!(matches!(device.try_write(0, &[1; 5000]), Attempt::Done(())));
    block_on(device.zero(BLOCK_BYTES, 2 * BLOCK_BYTES)).expect("zeros");
    block_on(device.write(SIZE_BYTES - 1, vec![1].into())).expect("writes");
    assert!(matches!(device.try_write(SIZE_BYTES, &[1]), Attempt::Failed(_)));
    let last = SIZE_BYTES / BLOCK_BYTES;
    let heat = |block| device.heat(block) / WRITE_HEAT;
    assert_eq!([0, 1, 2, 3, last].map(heat), [1, 2, 1, 0, 1]);
    clock.forward(HALF_LIFE);
    assert_eq!(device.heat(1), WRITE_HEAT, "halved");
    assert!(matches!(device.try_write(BLOCK_BYTES, &[1]), Attempt::Done(())));
    assert_eq!(device.heat(1), 2 * WRITE_HEAT, "halved first, then counted");
    clock.forward(5 * HALF_LIFE);
    assert_eq!(device.heat(1), WRITE_HEAT / 16);
    clock.forward(100 * HALF_LIFE);
    assert_eq!(device.heat(1), 0, "cold at last");
}

#[test]
fn heat_ends_at_a_maximum() {
    let (device, _) = in_memory();
    for _ in 0..5_000_000 {
        assert!(matches!(device.try_write(0, &[1]), Attempt::Done(())));
    }
    assert_eq!(device.heat(0), u32::MAX);
}

/// The lazy counters agree with counters that are all halved at each half-life.
#[test]
fn agrees_with_counters_that_are_halved_at_once() {
    let (device, clock) = in_memory();
    let mut rng = StdRng::seed_from_u64(1);
    let mut plain = vec![0_u32; (SIZE_BYTES / BLOCK_BYTES) as usize];
    for _ in 0..2000 {
        if rng.random_range(0..20) == 0 {
            clock.forward(HALF_LIFE);
            plain.iter_mut().for_each(|heat| *heat /= 2);
        }
        let block = rng.random_range(0..plain.len());
        assert!(matches!(device.try_write(block as u64 * BLOCK_BYTES, &[1]), Attempt::Done(())));
        plain[block] += WRITE_HEAT;
        let heats: Vec<u32> = (0..plain.len() as u64).map(|block| device.heat(block)).collect();
        assert_eq!(heats, plain);
    }
}

#[test]
fn orders_compose() {
    let (device, _) = in_memory();
    for (block, writes) in [(0, 9), (1, 2), (2, 5), (4, 2)] {
        for _ in 0..writes {
            assert!(matches!(device.try_write(block * BLOCK_BYTES, &[1]), Attempt::Done(())));
        }
    }
    let in_order = |queue: Queue| queue.collect::<Vec<u64>>();
    assert_eq!(in_order(Queue::new(&Any, 6)), [0, 1, 2, 3, 4, 5]);
    assert_eq!(in_order(Queue::new(&device.least_first(), 6)), [3, 5, 1, 4, 2, 0]);
    let priorities = Priorities::default().with(0..3, 7).with(2..3, 9).with(4..5, -1);
    assert_eq!(in_order(Queue::new(&priorities, 6)), [2, 0, 1, 3, 5, 4]);
    let both = (priorities, device.least_first());
    assert_eq!(in_order(Queue::new(&both, 6)), [2, 1, 0, 3, 5, 4]);
}

#[test]
fn a_queue_gives_each_block_once_and_not_those_removed() {
    let mut queue = Queue::new(&Any, 100);
    assert_eq!((queue.next(), queue.waiting()), (Some(0), 99));
    assert!(queue.remove(50) && !queue.remove(50) && !queue.remove(0) && !queue.remove(100));
    let rest: Vec<u64> = queue.by_ref().collect();
    assert_eq!(rest, (1..100).filter(|block| *block != 50).collect::<Vec<_>>());
    assert_eq!((queue.next(), queue.waiting()), (None, 0));
}

#[test]
fn settings_without_meaning_are_refused() {
    for (block_bytes, half_life) in [(0, HALF_LIFE), (3000, HALF_LIFE), (4096, Duration::ZERO)] {
        let (below, clock) = (MemoryDevice::new(SIZE_BYTES), TestClock::default());
        let made = Volatility::new(Arc::new(below), Arc::new(clock), block_bytes, half_life);
        assert!(made.is_err(), "{block_bytes} {half_life:?}");
    }
}
