//! Requests of any offset and length. Partial sectors are merged, and no client loses a byte by it.

use crate::rig::{World, create, name, target};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_store::objects::faulty::{FaultPlan, Faulty};
use skerry_volume::ErrorKind;
use std::sync::Arc;

const SIZE: usize = 256 << 10;

/// Random bytes are written, zeroed and read on two connections, with destage and restarts between.
#[tokio::test(start_paused = true)]
async fn any_bytes_can_be_written_and_read() {
    for seed in 0..4 {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = World::new(seed);
        let mut model = vec![0u8; SIZE];
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", SIZE as u64)).await.expect("creates");
        drop(run);
        for _ in 0..3 {
            let run = world.start("a").await.expect("starts again");
            let one = run.engine.open_device(&target("disk")).await.expect("attaches");
            let other = run.engine.open_device(&target("disk")).await.expect("attaches");
            for step in 0..150 {
                let device = if rng.random() { &one } else { &other };
                let longest = if rng.random_ratio(1, 8) { 20_000 } else { 1500 };
                let len = rng.random_range(0..longest);
                let at = rng.random_range(0..=SIZE - len);
                let range = at..at + len;
                match rng.random_range(0..4) {
                    0 => {
                        let read = device.read(at as u64, len).await.expect("reads");
                        assert!(read == model[range.clone()], "seed {seed}: {range:?}");
                        let mut near = vec![0; len];
                        if let Some(done) = device.try_read(at as u64, &mut near) {
                            done.expect("reads");
                            assert!(near == model[range.clone()], "seed {seed}: {range:?}");
                        }
                    }
                    1 => {
                        model[range].fill(0);
                        device.zero(at as u64, len as u64).await.expect("zeroes");
                    }
                    _ => {
                        rng.fill_bytes(&mut model[range.clone()]);
                        let data = model[range].to_vec();
                        match device.try_write(at as u64, &data) {
                            Some(done) => done.expect("writes"),
                            None => device.write(at as u64, data.into()).await.expect("writes"),
                        }
                    }
                }
                if step % 40 == 39 {
                    run.engine.open_volumes()[0].drain().await.expect("drains");
                }
            }
            one.flush().await.expect("flushes");
        }
        let run = world.start("a").await.expect("starts again");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        assert!(device.read(0, SIZE).await.expect("reads") == model, "seed {seed}");
        let status = device.status(777, 5000, 100).await.expect("a status");
        assert_eq!(status[0].offset, 777);
        assert!(status.iter().map(|range| range.length).sum::<u64>() >= 5000);
    }
}

/// While one connection waits for the sector that it writes a part of, another writes the rest.
#[tokio::test(start_paused = true)]
async fn a_write_that_comes_between_is_not_lost() {
    let faulty = Faulty::new(Arc::new(InMemory::new()), 1, FaultPlan::default());
    let faults = faulty.faults();
    let world = World::over(1, Arc::new(faulty));
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", SIZE as u64)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    device.write(0, vec![1; 4096].into()).await.expect("writes");
    run.engine.open_volumes()[0].drain().await.expect("drains");
    device.flush().await.expect("flushes");
    drop((device, run));

    let run = world.start("a").await.expect("starts again, with nothing in memory");
    let one = run.engine.open_device(&target("disk")).await.expect("attaches");
    let other = run.engine.open_device(&target("disk")).await.expect("attaches");
    let slow = FaultPlan { slow: 1000, slow_ms: 1000..1001, ..FaultPlan::default() };
    faults.set_plan(slow);
    let before = faults.calls();
    let patch = async { one.write(100, vec![2; 10].into()).await.expect("writes") };
    let between = async {
        while faults.calls() == before {
            tokio::task::yield_now().await;
        }
        other.write(0, vec![3; 512].into()).await.expect("writes");
    };
    tokio::join!(patch, between);
    let mut wanted = [3; 512];
    wanted[100..110].fill(2);
    assert_eq!(one.read(0, 512).await.expect("reads"), wanted.as_slice());
}

/// A request past the end, from a client that attached before a shrink, changes nothing: not even
/// in the part before the end.
#[tokio::test(start_paused = true)]
async fn past_the_end_nothing_is_changed() {
    const END: u64 = 128 << 10;
    let world = World::new(9);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", SIZE as u64)).await.expect("creates");
    let device = run.engine.open_device(&target("disk")).await.expect("attaches");
    let written = vec![1; 2048];
    device.write(END - 2048, written.clone().into()).await.expect("writes");
    run.engine.resize_volume(&name("disk"), END, true).await.expect("shrinks");
    for (offset, len) in [(END - 1000, 2000), (END - 1024, 1500), (END - 1, 2), (END - 1500, 1501)]
    {
        let refused = device.write(offset, vec![2; len as usize].into()).await;
        assert_eq!(refused.expect_err("too far").kind(), ErrorKind::Invalid, "{offset}, {len}");
        let refused = device.zero(offset, len).await;
        assert_eq!(refused.expect_err("too far").kind(), ErrorKind::Invalid, "{offset}, {len}");
        let read = device.read(END - 2048, 2048).await.expect("reads");
        assert!(read == written, "{offset}, {len}");
    }
    device.write(END - 1000, vec![2; 1000].into()).await.expect("writes up to the end");
    device.zero(END - 1, 1).await.expect("zeroes up to the end");
}
