//! The gate holds, drains and opens; no request fails.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::poll;
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::gate::Gate;
use skerry_device::wrap::read_only::ReadOnly;
use skerry_device::{Attempt, Device, conformance};

use crate::model::{self, SIZE_BYTES};
use crate::stage::{At, Stage};

fn data() -> Bytes {
    Bytes::from_static(&[7; 512])
}

#[test]
fn keeps_the_rules_of_a_device() {
    model::check("gate", |seed| Gate::new(Stage::yielding(SIZE_BYTES, seed)));
    model::check("gate, fast path", |_| Gate::new(Arc::new(MemoryDevice::new(SIZE_BYTES))));
}

#[test]
fn read_only_keeps_the_rules_of_a_device() {
    let memory = Arc::new(MemoryDevice::new(SIZE_BYTES));
    assert!(matches!(memory.try_write(0, &[3; 9000]), Attempt::Done(())));
    block_on(conformance::read_only(&ReadOnly::new(memory)));
}

#[test]
fn closing_waits_for_what_is_under_way_and_holds_what_comes() {
    let stage = Stage::new(SIZE_BYTES);
    let gate = Gate::new(stage.clone());
    block_on(async {
        let go_on = stage.stop(At::End);
        let mut write = pin!(gate.write(0, data()));
        assert!(poll!(&mut write).is_pending());
        let mut closing = pin!(gate.close());
        assert!(poll!(&mut closing).is_pending(), "a write is under way");
        let mut held = pin!(gate.write(4096, data()));
        let mut read = pin!(model::read(&gate, 0, 512));
        assert!(poll!(&mut held).is_pending() && poll!(&mut read).is_pending());
        drop(go_on);
        write.await.expect("it was under way");
        let pause = closing.await;
        assert!(poll!(&mut held).is_pending() && gate.is_closed());
        assert_eq!(*stage.written.lock(), [(0, 512)], "nothing passes in the pause");
        drop(pause);
        held.await.expect("it was held");
        assert_eq!(read.await, data());
        assert!(!gate.is_closed());
    });
}

#[test]
fn the_fast_path_declines_while_it_is_closed() {
    let gate = Gate::new(Arc::new(MemoryDevice::new(SIZE_BYTES)));
    let pause = block_on(gate.close());
    assert!(matches!(gate.try_write(0, &[1]), Attempt::WouldBlock));
    assert!(matches!(gate.try_read(0, &mut [1]), Attempt::WouldBlock));
    assert!(matches!(gate.try_flush(), Attempt::WouldBlock));
    block_on(gate.prefetch(0, 4096));
    drop(pause);
    assert!(matches!(gate.try_write(0, &[1]), Attempt::Done(())));
}

#[test]
fn a_held_or_running_request_that_is_dropped_leaves_nothing_behind() {
    let stage = Stage::new(SIZE_BYTES);
    let gate = Gate::new(stage.clone());
    block_on(async {
        let _go_on = stage.stop(At::Begin);
        let mut running = Box::pin(gate.write(0, data()));
        assert!(poll!(&mut running).is_pending());
        let mut closing = pin!(gate.close());
        assert!(poll!(&mut closing).is_pending());
        drop(running);
        let pause = closing.await;
        let mut held = Box::pin(gate.write(0, data()));
        assert!(poll!(&mut held).is_pending());
        drop(held);
        drop(pause);
        let _pause = gate.close().await;
        assert!(stage.written.lock().is_empty());
    });
}

#[test]
fn it_opens_when_the_last_pause_ends() {
    let gate = Gate::new(Arc::new(MemoryDevice::new(SIZE_BYTES)));
    block_on(async {
        let (first, second) = (gate.close().await, gate.close().await);
        let mut held = pin!(gate.write(0, data()));
        drop(first);
        assert!(poll!(&mut held).is_pending(), "the second still holds it");
        drop(second);
        held.await.expect("writes");
    });
}

#[test]
fn closing_that_is_given_up_opens_it() {
    let stage = Stage::new(SIZE_BYTES);
    let gate = Gate::new(stage.clone());
    block_on(async {
        let go_on = stage.stop(At::End);
        let mut write = pin!(gate.write(0, data()));
        assert!(poll!(&mut write).is_pending());
        let mut closing = Box::pin(gate.close());
        assert!(poll!(&mut closing).is_pending());
        drop(closing);
        model::read(&gate, 0, 512).await;
        drop(go_on);
        write.await.expect("writes");
    });
}
