//! Shaped requests take the time that was asked for, on a clock that a test moves.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use skerry_core::env::Clock as _;
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::shape::{Limits, Shape};
use skerry_device::{Attempt, Device};

use crate::model::{self, SIZE_BYTES};
use crate::stage::{Stage, TestClock};

const MS: Duration = Duration::from_millis(1);

fn shaped(below: Arc<dyn Device>, reads: Limits, writes: Limits) -> (Shape, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    (Shape::new(below, clock.clone(), clock.clone(), reads, writes), clock)
}

fn memory() -> Arc<MemoryDevice> {
    Arc::new(MemoryDevice::new(SIZE_BYTES))
}

fn rate(bytes_per_s: u64) -> Limits {
    Limits { latency: Duration::ZERO, bytes_per_s: NonZeroU64::new(bytes_per_s) }
}

fn latency(latency: Duration) -> Limits {
    Limits { latency, bytes_per_s: None }
}

#[test]
fn keeps_the_rules_of_a_device() {
    let open = Limits::default();
    model::check("shape", |seed| shaped(Stage::yielding(SIZE_BYTES, seed), open, open).0);
    model::check("shape, fast path", |_| shaped(memory(), open, open).0);
    let slow = Limits { latency: 3 * MS, ..rate(1 << 20) };
    let (device, clock) = shaped(memory(), slow, slow);
    block_on(clock.run(model::one_by_one(&device, 1, 100)));
}

#[test]
fn bytes_pass_one_after_another_and_latency_beside_each_other() {
    let both = Limits { latency: 5 * MS, ..rate(1_000_000) };
    let (device, clock) = shaped(memory(), both, latency(2 * MS));
    block_on(clock.run(async {
        // 1,000 bytes take 1 ms.
        join_all((0..8).map(|at| model::read(&device, at * 1000, 1000))).await;
        assert_eq!(clock.boot(), 13 * MS);
        // The line has been free since 8 ms.
        model::read(&device, 0, 2000).await;
        assert_eq!(clock.boot(), 20 * MS);
        // Writes have a line of their own.
        join_all((0..8).map(|at| device.write(at * 1000, vec![1; 1000].into()))).await;
        device.zero(0, 100_000).await.expect("zeros");
        device.flush().await.expect("flushes");
        assert_eq!(clock.boot(), 26 * MS);
    }));
}

#[test]
fn only_what_is_not_shaped_takes_the_fast_path() {
    let (device, _) = shaped(memory(), Limits::default(), rate(1));
    assert!(matches!(device.try_read(0, &mut [0]), Attempt::Done(_)));
    assert!(matches!(device.try_write(0, &[0]), Attempt::WouldBlock));
    assert!(matches!(device.try_flush(), Attempt::WouldBlock));
    let (device, _) = shaped(memory(), latency(MS), Limits::default());
    assert!(matches!(device.try_read(0, &mut [0]), Attempt::WouldBlock));
    assert!(matches!(device.try_write(0, &[0]), Attempt::Done(())));
}

#[test]
fn a_rate_without_bounds_does_not_overflow() {
    let (device, clock) = shaped(memory(), rate(1), rate(u64::MAX));
    block_on(clock.run(async {
        device.write(0, vec![1; 1000].into()).await.expect("writes");
        assert_eq!(clock.boot(), Duration::ZERO);
        model::read(&device, 0, 1000).await;
        assert_eq!(clock.boot(), Duration::from_secs(1000));
    }));
}
