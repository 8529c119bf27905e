//! Volumes and snapshots keep the rules of devices, and read ahead for every front end.

use crate::rig::{Running, World, create, name, target};
use skerry_device::{Attempt, Device, conformance};
use skerry_volume::CreateVolume;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SIZE_BYTES: u64 = (1 << 20) + 512;

async fn attach(run: &Running, export: &str) -> Arc<dyn Device> {
    run.engine.open_device(&target(export)).await.expect("attaches")
}

#[tokio::test(start_paused = true)]
async fn a_volume_keeps_the_rules_of_devices() {
    for block_size_bytes in [4096, 64 << 10] {
        let world = World::new(block_size_bytes);
        let run = world.start("a").await.expect("starts");
        let new = CreateVolume { block_size_bytes, ..create("disk", SIZE_BYTES) };
        run.engine.create_volume(new).await.expect("creates");
        let device = attach(&run, "disk").await;
        assert_eq!(u64::from(device.geometry().block_bytes), block_size_bytes);
        conformance::writable(&*device).await;
        // Once more over what is in the bucket.
        run.engine.open_volumes()[0].drain().await.expect("drains");
        conformance::writable(&*device).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_keeps_the_rules_of_devices() {
    let world = World::new(1);
    let run = world.start("a").await.expect("starts");
    run.engine.create_volume(create("disk", SIZE_BYTES)).await.expect("creates");
    let disk = attach(&run, "disk").await;
    disk.write(0, vec![7; 100 << 10].into()).await.expect("writes");
    disk.zero(8192, 8192).await.expect("zeros");
    run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
    run.engine.open_volumes()[0].drain().await.expect("drains");
    conformance::read_only(&*attach(&run, "disk@s").await).await;
}

/// A front end that only reads, in order and without waiting, has the bucket asked.
#[tokio::test(start_paused = true)]
async fn reads_in_order_are_fetched_ahead() {
    let world = World::new(2);
    {
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", SIZE_BYTES)).await.expect("creates");
        let disk = attach(&run, "disk").await;
        let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(at) >> 7) as u8).collect();
        disk.write(0, data.into()).await.expect("writes");
        run.engine.shutdown().await.expect("stops");
    }
    let run = world.start("a").await.expect("starts again");
    let disk = attach(&run, "disk").await;
    let fetched = || run.engine.context().blocks.counters().fetched_bytes.load(Ordering::Relaxed);
    for (order, is_ahead) in [([512, 400, 8], false), ([0, 4, 8], true)] {
        for at in order {
            let tried = disk.try_read(at << 10, &mut [0; 4096]);
            assert!(matches!(tried, Attempt::WouldBlock), "{tried:?} at {at} KiB");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(fetched() > 0, is_ahead, "{order:?}");
    }
}
