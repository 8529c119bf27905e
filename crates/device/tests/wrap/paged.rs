//! A large device on a small one: pages take room when they are written, and give it up.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::poll;
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::paged::Paged;
use skerry_device::{Attempt, Device, ErrorKind, conformance};

use crate::model::{self, SIZE_BYTES};
use crate::stage::{At, Call, Stage};

const PAGE_BYTES: u64 = 8192;

fn over(below: Arc<dyn Device>) -> Paged {
    Paged::new(below, SIZE_BYTES, PAGE_BYTES, []).expect("good sizes")
}

fn data(byte: u8) -> Bytes {
    vec![byte; 1000].into()
}

#[test]
fn keeps_the_rules_of_a_device() {
    let room = SIZE_BYTES.next_multiple_of(PAGE_BYTES);
    model::check("paged", |seed| over(Stage::yielding(room, seed)));
    model::check("paged, fast path", |_| over(Arc::new(MemoryDevice::new(room))));
}

#[test]
fn the_last_sector_may_be_short() {
    for size_bytes in [900, (1 << 20) + 78] {
        let room = Arc::new(MemoryDevice::new(2 << 20));
        let paged = Paged::new(room, size_bytes, PAGE_BYTES, []).expect("good sizes");
        block_on(conformance::writable(&paged));
    }
}

#[test]
fn pages_take_slots_in_order_of_first_use() {
    let stage = Stage::new(3 * PAGE_BYTES);
    let paged = over(stage.clone());
    block_on(async {
        for page in [9, 2, 9] {
            paged.write(page * PAGE_BYTES + 10, data(page as u8)).await.expect("writes");
        }
        paged.zero(4 * PAGE_BYTES, 5000).await.expect("zeros of nothing take no room");
        assert_eq!(paged.pages(), [(2, 1), (9, 0)]);
        assert_eq!(stage.bytes()[10], 9);
        paged.write(PAGE_BYTES, data(1)).await.expect("the last slot");
        let full = paged.write(0, data(1)).await;
        assert_eq!(full.map_err(|error| error.kind), Err(ErrorKind::NoSpace));
        paged.zero(2 * PAGE_BYTES, PAGE_BYTES).await.expect("zeros");
        paged.write(3 * PAGE_BYTES + 5000, data(3)).await.expect("the slot of page 2");
        assert_eq!(paged.pages(), [(1, 2), (3, 1), (9, 0)]);
        let page = model::read(&paged, 3 * PAGE_BYTES, PAGE_BYTES).await;
        assert!(page[..5000].iter().all(|byte| *byte == 0), "nothing of page 2");
        assert_eq!(model::read(&paged, 9 * PAGE_BYTES + 10, 1000).await, data(9));
    });
}

/// The small device may hold anything where no page has been.
#[test]
fn what_a_slot_held_before_is_not_read() {
    let stage = Stage::new(3 * PAGE_BYTES);
    let paged = over(stage.clone());
    block_on(async {
        stage.memory.write(0, vec![0xee; 3 * PAGE_BYTES as usize].into()).await.expect("writes");
        paged.write(100, data(1)).await.expect("writes");
        let expected = [vec![0; 100], vec![1; 1000], vec![0; PAGE_BYTES as usize - 1100]].concat();
        assert!(model::read(&paged, 0, PAGE_BYTES).await == expected);
    });
}

/// A read knows its slot; then its page is zeroed, and another page takes the slot.
#[test]
fn a_read_gets_nothing_of_another_page() {
    let stage = Stage::new(PAGE_BYTES);
    let paged = over(stage.clone());
    block_on(async {
        paged.write(0, data(1)).await.expect("writes");
        let go_on = stage.stop_call(Call::Read, At::Begin);
        let mut read = pin!(model::read(&paged, 0, 1000));
        assert!(poll!(&mut read).is_pending());
        let mut other = pin!(async {
            paged.zero(0, PAGE_BYTES).await.expect("zeros");
            paged.write(PAGE_BYTES, data(2)).await.expect("writes");
        });
        let _ = poll!(&mut other);
        drop(go_on);
        let (bytes, ()) = futures::join!(read, other);
        assert!(bytes.iter().all(|byte| *byte != 2), "the other page's bytes");
    });
}

#[test]
fn a_map_that_was_kept_goes_on() {
    let stage = Stage::new(4 * PAGE_BYTES);
    let paged = over(stage.clone());
    block_on(paged.write(5 * PAGE_BYTES, data(5))).expect("writes");
    block_on(paged.write(7 * PAGE_BYTES, data(7))).expect("writes");
    block_on(paged.zero(5 * PAGE_BYTES, PAGE_BYTES)).expect("zeros");
    let pages = paged.pages();
    drop(paged);
    let paged = Paged::new(stage.clone(), SIZE_BYTES, PAGE_BYTES, pages).expect("fits");
    block_on(async {
        assert_eq!(model::read(&paged, 7 * PAGE_BYTES, 1000).await, data(7));
        paged.write(0, data(1)).await.expect("writes");
        paged.write(PAGE_BYTES, data(2)).await.expect("writes");
        assert_eq!(paged.pages(), [(0, 0), (1, 2), (7, 1)], "the free slot first");
    });
    for pages in [vec![(0, 1), (1, 1)], vec![(0, 4)]] {
        assert!(Paged::new(stage.clone(), SIZE_BYTES, PAGE_BYTES, pages).is_err());
    }
    assert!(Paged::new(stage, SIZE_BYTES, 2048, []).is_err());
}

#[test]
fn a_first_write_that_fails_takes_no_slot() {
    let stage = Stage::new(PAGE_BYTES);
    let paged = over(stage.clone());
    block_on(async {
        stage.fail(&[Call::Write]);
        assert!(paged.write(0, data(1)).await.is_err());
        stage.fail(&[]);
        paged.write(PAGE_BYTES, data(2)).await.expect("the slot is free still");
        assert_eq!(paged.pages(), [(1, 0)]);
    });
}

#[test]
fn the_fast_path_serves_pages_that_have_a_slot() {
    let paged = over(Arc::new(MemoryDevice::new(4 * PAGE_BYTES)));
    assert!(matches!(paged.try_write(0, &[1]), Attempt::WouldBlock));
    block_on(paged.write(0, data(1))).expect("writes");
    assert!(matches!(paged.try_write(0, &[2]), Attempt::Done(())));
    assert!(matches!(paged.try_write(PAGE_BYTES - 1, &[2; 2]), Attempt::WouldBlock));
    assert!(matches!(paged.try_write(SIZE_BYTES, &[2]), Attempt::Failed(_)));
}
