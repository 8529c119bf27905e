//! Splitting, joining and counting of requests.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use futures::poll;
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::combine::{Combine, Limits};
use skerry_device::wrap::count::{Count, Tally};
use skerry_device::wrap::split::Split;
use skerry_device::{Attempt, Device, ErrorKind};

use crate::model::{self, SIZE_BYTES};
use crate::stage::{At, Call, Stage, TestClock};

const LIMITS: Limits = Limits { under_way_max: 1, joined_bytes_max: 3000 };

#[test]
fn split_keeps_the_rules_of_a_device() {
    for boundary_bytes in [512, 3000, 1 << 40] {
        let split = |below| Split::new(below, boundary_bytes, 3).expect("good settings");
        model::check("split", |seed| split(Stage::yielding(SIZE_BYTES, seed)));
        model::check("split, fast path", |_| split(Arc::new(MemoryDevice::new(SIZE_BYTES))));
    }
}

#[test]
fn no_request_below_crosses_a_boundary() {
    let stage = Stage::new(SIZE_BYTES);
    let split = Split::new(stage.clone(), 4096, 2).expect("good settings");
    let data: Vec<u8> = (0..10_000).map(|at| (at % 251) as u8).collect();
    block_on(async {
        split.write(4000, data.clone().into()).await.expect("writes");
        assert!(model::read(&split, 4000, 10_000).await == data);
        split.zero(8192, 4097).await.expect("zeros");
    });
    let parts = [(4000, 96), (4096, 4096), (8192, 4096), (12_288, 1712)];
    assert_eq!(stage.written.lock()[..4], parts);
    assert_eq!(stage.written.lock()[4..], [(8192, 4096), (12_288, 1)]);
}

#[test]
fn a_part_that_fails_fails_the_request() {
    let stage = Stage::new(SIZE_BYTES);
    let split = Split::new(stage.clone(), 512, 2).expect("good settings");
    stage.fail(&[Call::Write, Call::Read]);
    block_on(async {
        assert!(split.write(0, vec![1; 2000].into()).await.is_err());
        assert!(split.read(0, &mut [0; 2000]).await.is_err());
    });
    assert!(Split::new(stage, 0, 2).is_err());
}

#[test]
fn combine_keeps_the_rules_of_a_device() {
    for under_way_max in [1, 3] {
        for joined_bytes_max in [0, 3000, 1 << 20] {
            let limits = Limits { under_way_max, joined_bytes_max };
            let combine = |below| Combine::new(below, limits).expect("good limits");
            model::check("combine", |seed| combine(Stage::yielding(SIZE_BYTES, seed)));
            model::check("combine, memory", |_| combine(Arc::new(MemoryDevice::new(SIZE_BYTES))));
        }
    }
}

#[test]
fn writes_that_touch_are_joined_while_others_are_under_way() {
    let stage = Stage::new(SIZE_BYTES);
    let combine = Combine::new(stage.clone(), LIMITS).expect("good limits");
    block_on(async {
        let go_on = stage.stop(At::End);
        let mut first = pin!(combine.write(50_000, vec![9; 10].into()));
        assert!(poll!(&mut first).is_pending());
        // The third joins the first two; the fourth is too far, the last would be too long.
        let places = [(0, 1000), (2000, 500), (1000, 1000), (9000, 500), (2500, 600)];
        let writes = places.map(|(offset, len)| combine.write(offset, vec![7; len].into()));
        let mut writes = pin!(join_all(writes));
        assert!(poll!(&mut writes).is_pending());
        assert_eq!(stage.written.lock().len(), 1);
        drop(go_on);
        first.await.expect("writes");
        for result in writes.await {
            result.expect("writes");
        }
    });
    let written = stage.written.lock().clone();
    assert_eq!(written, [(50_000, 10), (0, 2500), (9000, 500), (2500, 600)]);
    assert!(stage.bytes()[..3100].iter().all(|byte| *byte == 7));
}

#[test]
fn all_that_were_joined_hear_of_a_failure() {
    let stage = Stage::new(SIZE_BYTES);
    let combine = Combine::new(stage.clone(), LIMITS).expect("good limits");
    block_on(async {
        let go_on = stage.stop(At::End);
        let mut first = pin!(combine.write(50_000, vec![9; 10].into()));
        assert!(poll!(&mut first).is_pending());
        let writes = [0, 500].map(|offset| combine.write(offset, vec![7; 500].into()));
        let mut writes = pin!(join_all(writes));
        assert!(poll!(&mut writes).is_pending());
        let past = combine.write(SIZE_BYTES - 1, vec![1; 2].into()).await;
        assert_eq!(past.map_err(|error| error.kind), Err(ErrorKind::Invalid));
        stage.fail(&[Call::Write]);
        drop(go_on);
        first.await.expect("its effect was there");
        assert!(writes.await.iter().all(Result::is_err));
    });
}

/// The caller that carries a joined write out goes away. The other one's write must not be lost.
#[test]
fn a_joined_write_outlives_the_caller_that_carries_it_out() {
    let stage = Stage::new(SIZE_BYTES);
    let combine = Combine::new(stage.clone(), LIMITS).expect("good limits");
    block_on(async {
        let go_on = stage.stop(At::End);
        let mut first = Box::pin(combine.write(50_000, vec![9; 10].into()));
        assert!(poll!(&mut first).is_pending());
        let mut carrier = Box::pin(combine.write(0, vec![7; 500].into()));
        let mut other = pin!(combine.write(500, vec![7; 500].into()));
        assert!(poll!(&mut carrier).is_pending() && poll!(&mut other).is_pending());
        drop(go_on);
        first.await.expect("writes");
        let _stuck = stage.stop(At::Begin);
        assert!(poll!(&mut carrier).is_pending());
        drop(carrier);
        other.await.expect("writes");
    });
    assert!(stage.bytes()[500..1000].iter().all(|byte| *byte == 7));
}

#[test]
fn count_keeps_the_rules_of_a_device() {
    let count = |below| Count::new(below, Arc::new(TestClock::default()));
    model::check("count", |seed| count(Stage::yielding(SIZE_BYTES, seed)));
    model::check("count, fast path", |_| count(Arc::new(MemoryDevice::new(SIZE_BYTES))));
}

#[test]
fn operations_bytes_errors_and_time_are_counted() {
    let (stage, clock) = (Stage::new(SIZE_BYTES), Arc::new(TestClock::default()));
    let count = Count::new(stage.clone(), clock.clone());
    assert!(matches!(count.try_write(0, &[1]), Attempt::WouldBlock));
    block_on(async {
        let go_on = stage.stop(At::Begin);
        let mut write = pin!(count.write(0, vec![1; 100].into()));
        assert!(poll!(&mut write).is_pending());
        clock.forward(Duration::from_millis(5));
        drop(go_on);
        write.await.expect("writes");
        count.zero(0, 30).await.expect("zeros");
        count.flush().await.expect("flushes");
        model::read(&count, 0, 10).await;
        stage.fail(&[Call::Read]);
        assert!(count.read(0, &mut [0; 10]).await.is_err());
        let _go_on = stage.stop(At::Begin);
        assert!(poll!(&mut pin!(count.zero(0, 30))).is_pending());
    });
    let counts = count.counts();
    let time = Duration::from_millis(5);
    let ok = Tally { operations: 1, ended: 1, ..Tally::default() };
    assert_eq!(counts.writes, Tally { bytes: 100, time, ..ok });
    assert_eq!(counts.zeros, Tally { bytes: 30, operations: 2, ..ok }, "one was dropped");
    assert_eq!(counts.flushes, ok);
    assert_eq!(counts.reads, Tally { operations: 2, ended: 2, errors: 1, bytes: 10, ..ok });
    let quick = Count::new(Arc::new(MemoryDevice::new(SIZE_BYTES)), clock);
    assert!(matches!(quick.try_write(0, &[1; 7]), Attempt::Done(())));
    assert!(matches!(quick.try_write(SIZE_BYTES, &[1; 7]), Attempt::Failed(_)));
    let counted = Tally { operations: 2, ended: 2, errors: 1, bytes: 7, ..ok };
    assert_eq!(quick.counts().writes, counted);
}
