//! Writes that change nothing are not written, and no other write is lost.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::poll;
use skerry_device::Device;
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::redundant::Redundant;

use crate::model::{self, SIZE_BYTES};
use crate::stage::{At, Stage};

#[test]
fn keeps_the_rules_of_a_device() {
    model::check("redundant", |seed| Redundant::new(Stage::yielding(SIZE_BYTES, seed)));
    model::check("redundant, memory", |_| Redundant::new(Arc::new(MemoryDevice::new(SIZE_BYTES))));
}

#[test]
fn only_blocks_that_differ_are_written() {
    let stage = Stage::new(SIZE_BYTES);
    let device = Redundant::new(stage.clone());
    block_on(async {
        let mut data = vec![1; 40_000];
        device.write(100, data.clone().into()).await.expect("writes");
        stage.written.lock().clear();
        device.write(100, data.clone().into()).await.expect("writes");
        device.zero(65_536, 65_536).await.expect("zeros a hole");
        device.write(65_536, vec![0; 9000].into()).await.expect("writes zeros");
        assert!(stage.written.lock().is_empty(), "nothing changed");
        assert_eq!(device.dropped_bytes(), 40_000 + 65_536 + 9000);
        for at in [0, 8192 - 100, 12_287 - 100, 39_999] {
            data[at] = 2;
        }
        device.write(100, data.clone().into()).await.expect("writes");
        // The first part of a block, two blocks that touch, and the last part of one.
        let blocks = [(100, 3996), (8192, 4096), (36_864, 40_100 - 36_864)];
        assert_eq!(*stage.written.lock(), blocks);
        assert!(model::read(&device, 100, 40_000).await == data);
    });
}

#[test]
fn zeros_that_are_stored_are_given_up() {
    let stage = Stage::new(SIZE_BYTES);
    let device = Redundant::new(stage.clone());
    block_on(async {
        device.write(0, vec![1; 65_536].into()).await.expect("writes");
        device.write(0, vec![0; 65_536].into()).await.expect("writes zeros");
        device.zero(0, 65_536).await.expect("zeros");
        let status = device.status(0, 65_536, 1).await.expect("a status");
        assert!(status[0].hole, "its space is free");
    });
}

/// The second write is the device's present bytes, and the first is about to change them.
#[test]
fn a_write_beside_another_of_its_block_is_not_lost() {
    let stage = Stage::new(SIZE_BYTES);
    let device = Redundant::new(stage.clone());
    block_on(async {
        let go_on = stage.stop(At::Begin);
        let mut first = pin!(device.write(0, Bytes::from_static(&[1; 512])));
        assert!(poll!(&mut first).is_pending(), "it has compared");
        let mut second = pin!(device.write(0, Bytes::from_static(&[0; 512])));
        let answered = poll!(&mut second).is_ready();
        drop(go_on);
        first.await.expect("writes");
        if !answered {
            second.await.expect("writes");
        }
        // Both were under way at once. A write that came after the first one must count.
        assert!(!answered, "it compared with bytes that were about to change");
        assert!(stage.bytes()[..512].iter().all(|byte| *byte == 0));
    });
}
