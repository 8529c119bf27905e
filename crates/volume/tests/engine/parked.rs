//! Tails of volumes that fail or can't be opened. They take no room in the log, and are there again
//! when the volume can be opened, whatever crashes in between.

use crate::rig::{Running, World, create, name, target};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use skerry_core::env::Entropy;
use skerry_volume::Device;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const BLOCK: usize = 4096;
const BLOCKS: usize = 10;

/// A world with a volume whose third segment can be damaged, and a second volume.
struct Case {
    world: World,
    /// The bytes that the first volume must read as.
    wanted: Vec<u8>,
    segment: Path,
    good: Bytes,
}

impl Case {
    async fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let never = Duration::from_secs(100_000);
        (world.settings.dirty_age, world.settings.idle_age) = (never, never);
        world.settings.comeback_first = never;
        world.settings.segment_bytes = 4 << 20;
        world.settings.checkpoint_segments_max = 1000;
        let wanted = noise(&world, BLOCKS * BLOCK);
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", 4 << 20)).await.expect("creates");
        let device = attach(&run, "disk").await;
        for (block, data) in wanted.chunks(BLOCK).enumerate() {
            let at = (block * BLOCK) as u64;
            device.write(at, data.to_vec().into()).await.expect("writes");
            run.engine.open_volumes()[0].drain().await.expect("drains");
        }
        run.engine.create_volume(create("more", 4 << 20)).await.expect("creates");
        let objects: Vec<_> = world.store.list(None).try_collect().await.expect("lists");
        let third = objects.iter().find(|o| o.location.as_ref().ends_with("/0000000000000003"));
        let segment = third.expect("there is one").location.clone();
        let good = world.store.get(&segment).await.expect("there").bytes().await.expect("read");
        Self { world, wanted, segment, good }
    }

    /// A node with empty caches that has written parts of blocks, which are merged with the
    /// bucket's.
    async fn write_tail(&mut self) -> (Running, Arc<Device>) {
        let run = self.world.start("a").await.expect("starts again");
        let device = run.engine.open_device(&target("disk")).await.expect("attaches");
        for sector in 0..60usize {
            let at = sector % BLOCKS * BLOCK + sector / BLOCKS * 512;
            self.wanted[at..at + 512].fill(sector as u8);
            device.write(at as u64, vec![sector as u8; 512].into()).await.expect("writes");
            device.flush().await.expect("flushes");
        }
        (run, device)
    }

    /// A tail is parked, and nothing keeps it from coming back any more.
    async fn parked_and_mended(seed: u64) -> Self {
        let mut case = Self::new(seed).await;
        drop(case.write_tail().await);
        case.damage().await;
        drop(case.world.start("a").await.expect("starts though one can't be opened"));
        assert!(case.waiting() > 0);
        case.mend().await;
        case
    }

    async fn damage(&self) {
        let mut bad = self.good.to_vec();
        bad.iter_mut().skip(64).for_each(|byte| *byte ^= 0x55);
        self.world.store.put(&self.segment, bad.into()).await.expect("overwritten by hand");
    }

    async fn mend(&self) {
        self.world.store.put(&self.segment, self.good.clone().into()).await.expect("put back");
    }

    /// All heads of volumes.
    async fn heads(&self) -> Vec<(Path, Bytes)> {
        let objects: Vec<_> = self.world.store.list(None).try_collect().await.expect("lists");
        let mut heads = Vec::new();
        for at in objects.into_iter().map(|object| object.location) {
            if at.parts().any(|part| part.as_ref() == "head") {
                let read = self.world.store.get(&at).await.expect("there").bytes().await;
                heads.push((at, read.expect("read")));
            }
        }
        heads
    }

    fn waiting(&self) -> usize {
        self.world.parked.disks().len()
    }

    async fn check(&self, run: &Running) {
        let device = attach(run, "disk").await;
        let read = device.read(0, self.wanted.len()).await.expect("reads");
        assert!(read == self.wanted, "what was flushed is not there");
    }
}

fn noise(world: &World, len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    world.entropy.fill(&mut noise);
    noise
}

async fn attach(run: &Running, volume: &str) -> Arc<Device> {
    run.engine.open_device(&target(volume)).await.expect("attaches")
}

/// Writes three times what the log holds.
async fn fill_the_log(case: &Case, run: &Running) {
    let more = attach(run, "more").await;
    for _ in 0..3 * case.world.log.cap_bytes / (512 << 10) {
        let written = more.write(0, noise(&case.world, 512 << 10).into());
        let written = tokio::time::timeout(Duration::from_secs(60), written).await;
        written.expect("it waits for room").expect("writes");
    }
}

async fn drain_all(run: &Running) {
    for volume in run.engine.open_volumes() {
        volume.drain().await.expect("drains");
    }
    assert!(run.engine.is_drained(), "{:?}", run.engine.status().parked);
}

/// A volume that fails while it is in use.
#[tokio::test(start_paused = true)]
async fn the_tail_of_a_volume_that_fails_waits_outside_the_log() {
    let mut case = Case::new(15).await;
    let (run, device) = case.write_tail().await;
    case.damage().await;
    let volumes = run.engine.open_volumes();
    let volume = volumes.iter().find(|volume| volume.name() == "disk").expect("open");
    assert!(volume.drain().await.is_err(), "it merged with what is not there");
    assert!(device.read(0, 512).await.is_err() && device.flush().await.is_err());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let told = run.engine.status().parked;
    assert!(told.iter().any(|line| line.contains("can be opened again")), "{told:?}");
    assert!(!run.engine.is_drained() && case.waiting() > 0);
    fill_the_log(&case, &run).await;
    drop((device, run));
    case.mend().await;
    let run = case.world.start("a").await.expect("starts again");
    assert_eq!(case.waiting(), 0);
    case.check(&run).await;
    drain_all(&run).await;
    drop(run);
    case.check(&case.world.start("a").await.expect("starts again")).await;
}

/// A collection takes an object between a batch's lookup and its read: the batch looks up its
/// blocks anew, and the volume stays in service.
#[tokio::test(start_paused = true)]
async fn what_a_batch_is_merged_with_may_be_collected_meanwhile() {
    let mut case = Case::new(25).await;
    let (run, device) = case.write_tail().await;
    run.gate.miss_once(case.segment.as_ref());
    let volumes = run.engine.open_volumes();
    let volume = volumes.iter().find(|volume| volume.name() == "disk").expect("open");
    volume.drain().await.expect("drains");
    assert!(run.gate.has_missed(), "nothing was merged with that segment");
    drop(device);
    case.check(&run).await;
}

/// Without a log on a disk, the undestaged records of a failed volume are gone. No client is told
/// that it would find its state on another connection.
#[tokio::test(start_paused = true)]
async fn without_a_log_a_volume_that_fails_with_a_tail_ends_no_attachment() {
    let mut case = Case::new(26).await;
    case.world.lose_disk();
    case.world.has_log = false;
    let run = case.world.start("a").await.expect("starts without a log");
    let device = attach(&run, "disk").await;
    for block in 0..BLOCKS {
        device.write((block * BLOCK) as u64, vec![7; 512].into()).await.expect("writes");
    }
    case.damage().await;
    let volumes = run.engine.open_volumes();
    let volume = volumes.iter().find(|volume| volume.name() == "disk").expect("open");
    assert!(volume.drain().await.is_err(), "it merged with what is not there");
    let error = device.read(0, 512).await.expect_err("out of service");
    assert!(!error.ends_attachment(), "what was acknowledged is lost: {error}");
}

/// A node that stops waits for the records of a volume that was taken over: they would be forgotten
/// with the log.
#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_being_parked() {
    let mut case = Case::new(27).await;
    let (run, device) = case.write_tail().await;
    let other = case.world.neighbour(28).start("b").await.expect("starts");
    other.engine.release_volume(&name("disk"), true).await.expect("releases");
    // The disk takes nothing at first.
    case.world.parked.is_full.store(true, Ordering::Relaxed);
    let parked = case.world.parked.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        parked.is_full.store(false, Ordering::Relaxed);
    });
    run.engine.shutdown().await.expect("stops");
    assert_eq!(case.waiting(), 1, "the records stayed in the log");
    // A disk that takes nothing at all keeps no node from stopping.
    drop((device, run));
}

/// A stop waits once for everything that makes no progress: a bucket that hangs, and a full disk.
#[tokio::test(start_paused = true)]
async fn a_stop_waits_once_for_all_that_hangs() {
    let mut case = Case::new(29).await;
    let (run, _device) = case.write_tail().await;
    let more = attach(&run, "more").await;
    more.write(0, vec![1; 512].into()).await.expect("writes");
    let other = case.world.neighbour(30).start("b").await.expect("starts");
    other.engine.release_volume(&name("disk"), true).await.expect("releases");
    case.world.parked.is_full.store(true, Ordering::Relaxed);
    run.gate.hold_puts("streams/");
    let began = tokio::time::Instant::now();
    run.engine.shutdown().await.expect("stops");
    let (took, drain) = (began.elapsed(), case.world.settings.shutdown_drain);
    assert!(took >= drain && took < drain * 5 / 4, "{took:?}");
}

/// The cause of a volume's failure is mended, and no operator tells the node.
#[tokio::test(start_paused = true)]
async fn a_volume_that_failed_comes_back_by_itself() {
    let mut case = Case::new(24).await;
    case.world.settings.comeback_first = Duration::from_secs(1);
    case.world.settings.comeback_max = Duration::from_secs(20);
    let (run, device) = case.write_tail().await;
    case.damage().await;
    let volumes = run.engine.open_volumes();
    let volume = volumes.iter().find(|volume| volume.name() == "disk").expect("open");
    assert!(volume.drain().await.is_err(), "it merged with what is not there");
    let error = device.read(0, 512).await.expect_err("out of service");
    assert!(error.ends_attachment(), "another attachment may succeed: {error}");
    // Opened again and again, and each time it fails.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!run.engine.status().parked.is_empty());
    case.mend().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(run.engine.status().parked, Vec::<String>::new());
    assert_eq!(case.waiting(), 0);
    assert!(device.read(0, 512).await.expect_err("it is over").ends_attachment());
    case.check(&run).await;
    drain_all(&run).await;
    drop((device, run));
    case.check(&case.world.start("a").await.expect("starts again")).await;
}

/// A volume that can't be opened: its tail comes back at a start, or for a client that attaches.
#[tokio::test(start_paused = true)]
async fn the_tail_of_a_volume_that_can_not_be_opened_waits_outside_the_log() {
    for comes_back_at_start in [true, false] {
        let mut case = Case::new(16).await;
        drop(case.write_tail().await);
        case.damage().await;
        let mut run = case.world.start("a").await.expect("starts though one can't be opened");
        assert!(run.engine.open_device(&target("disk")).await.is_err(), "it opened");
        let waiting = case.waiting();
        assert!(waiting > 0 && !run.engine.is_drained());
        fill_the_log(&case, &run).await;
        // Still so at the next start.
        drop(run);
        run = case.world.start("a").await.expect("starts again");
        assert_eq!(case.waiting(), waiting);
        case.mend().await;
        if comes_back_at_start {
            drop(run);
            run = case.world.start("a").await.expect("starts again");
        }
        case.check(&run).await;
        assert_eq!(case.waiting(), 0);
        let device = attach(&run, "disk").await;
        device.write(2 << 20, vec![1; BLOCK].into()).await.expect("writes");
        drain_all(&run).await;
        drop((device, run));
        case.check(&case.world.start("a").await.expect("starts again")).await;
    }
}

/// The machine dies after every disk operation of a start that brings a tail back; with every other
/// start, the volume fails again.
#[tokio::test(start_paused = true)]
async fn a_tail_that_comes_back_survives_a_crash_at_every_step() {
    let mut survived = 0;
    for operations in 0..200 {
        let case = Case::parked_and_mended(17).await;
        case.world.disk.stop_after(operations);
        let started = tokio::time::timeout(Duration::from_secs(300), case.world.start("a")).await;
        let got_through = case.waiting() == 0 && matches!(started, Ok(Ok(_)));
        drop(started);
        case.world.disk.crash(operations);
        if operations % 2 == 1 {
            case.damage().await;
            drop(case.world.start("a").await.expect("starts though one can't be opened"));
            case.mend().await;
        }
        let run = case.world.start("a").await.expect("starts again");
        case.check(&run).await;
        drain_all(&run).await;
        survived += 1;
        if got_through {
            break;
        }
    }
    assert!((5..200).contains(&survived), "{survived} crashes");
}

/// A parked tail belongs to the volume: when the volume is deleted elsewhere, it goes.
#[tokio::test(start_paused = true)]
async fn the_tail_of_a_volume_that_was_deleted_goes() {
    let case = Case::parked_and_mended(18).await;
    let other = case.world.neighbour(19).start("b").await.expect("starts");
    other.engine.release_volume(&name("disk"), true).await.expect("releases");
    other.engine.delete_volume(&name("disk"), true, false).await.expect("deletes");
    let run = case.world.start("a").await.expect("starts again");
    assert_eq!(case.waiting(), 0);
    assert_eq!(run.engine.list_volumes().await.expect("lists").len(), 1);
}

/// A tail that takes most of the log, and a restart before anything else was logged. Others still
/// have all of the room, and it comes back.
#[tokio::test(start_paused = true)]
async fn a_large_tail_that_waits_takes_no_room_after_a_restart() {
    for is_filled in [false, true] {
        let mut case = Case::new(20).await;
        let (run, device) = case.write_tail().await;
        let large = noise(&case.world, 30 << 16);
        for (piece, data) in large.chunks(1 << 16).enumerate() {
            let at = (1 << 20) + (piece << 16) as u64;
            device.write(at, data.to_vec().into()).await.expect("writes");
            // The log has time to get its next file ready: a writer that waits for room makes the
            // volume destage.
            device.flush().await.expect("flushes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            run.engine.open_volumes()[0].undestaged(Duration::ZERO).0,
            (60 << 9) + (30 << 16)
        );
        drop((device, run));
        case.damage().await;
        for _ in 0..3 {
            drop(case.world.start("a").await.expect("starts though one can't be opened"));
            assert!(case.waiting() > 0);
        }
        let mut run = case.world.start("a").await.expect("starts though one can't be opened");
        if is_filled {
            fill_the_log(&case, &run).await;
        }
        case.mend().await;
        let other = case.world.neighbour(21).start("b").await.expect("starts");
        assert!(other.engine.release_volume(&name("disk"), false).await.is_err(), "it is held");
        let released = run.engine.release_volume(&name("disk"), false).await;
        assert!(released.is_err(), "what waits would never be merged");
        if !is_filled {
            drop(run);
            run = case.world.start("a").await.expect("starts again");
        }
        case.check(&run).await;
        let read = attach(&run, "disk").await.read(1 << 20, large.len()).await.expect("reads");
        assert!(read == large, "what was flushed is not there");
        drain_all(&run).await;
        run.engine.release_volume(&name("disk"), false).await.expect("releases");
    }
}

/// Records that are never merged and records that are came back together, and there is no room to
/// part them. The volume opens when there is, and neither is lost meanwhile.
#[tokio::test(start_paused = true)]
async fn what_is_never_merged_is_not_let_go_with_what_is() {
    let mut case = Case::new(22).await;
    let before = case.wanted.clone();
    drop(case.write_tail().await);
    case.wanted = before;
    // Taken over while there is no room to park the tail: it stays in the log, and the volume goes
    // on.
    let other = case.world.neighbour(23).start("b").await.expect("starts");
    other.engine.release_volume(&name("disk"), true).await.expect("releases");
    let device = attach(&other, "disk").await;
    device.write(3 << 20, vec![1; BLOCK].into()).await.expect("writes");
    device.flush().await.expect("flushes");
    drop(device);
    other.engine.release_volume(&name("disk"), false).await.expect("releases");
    case.world.parked.is_full.store(true, Ordering::Relaxed);
    let run = case.world.start("a").await.expect("starts");
    let device = attach(&run, "disk").await;
    for block in 0..2 {
        case.wanted[block * BLOCK..][..512].fill(7);
        device.write((block * BLOCK) as u64, vec![7; 512].into()).await.expect("writes");
    }
    device.flush().await.expect("flushes");
    drop((device, run));
    // Both are parked, and come back when there is no room again.
    case.world.parked.is_full.store(false, Ordering::Relaxed);
    let heads = case.heads().await;
    for (head, _) in &heads {
        case.world.store.put(head, "no head".into()).await.expect("overwritten by hand");
    }
    drop(case.world.start("a").await.expect("starts though one can't be opened"));
    assert!(case.waiting() >= 2, "one for each stream");
    for (head, good) in heads {
        case.world.store.put(&head, good.into()).await.expect("put back");
    }
    case.world.parked.is_full.store(true, Ordering::Relaxed);
    let run = case.world.start("a").await.expect("starts though one can't be opened");
    let told = run.engine.status().parked;
    assert!(told.iter().any(|line| line.contains("see to that, and attach it again")), "{told:?}");
    // Nor does it keep the node from starting when nothing is parked any more.
    drop(run);
    let run = case.world.start("a").await.expect("starts though one can't be opened");
    case.world.parked.is_full.store(false, Ordering::Relaxed);
    case.check(&run).await;
    assert_eq!(case.waiting(), 1, "what is never merged is kept");
    drain_all(&run).await;
}
