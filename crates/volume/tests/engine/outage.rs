//! A bucket that fails for a while, for every reason that can pass. Guests wait, nothing goes out
//! of service, and a stop ends.

use crate::rig::{Running, World, create, name, target};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use skerry_core::names::{self, Object};
use skerry_store::objects::faulty::{FaultPlan, Faults, Faulty, Refusal};
use skerry_volume::{Device, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

const BLOCK: usize = 4096;
/// An outage that no number of tries survives by chance.
const OUTAGE: Duration = Duration::from_secs(200);

struct Case {
    world: World,
    faults: Faults,
}

impl Case {
    /// A volume with one block in the bucket, and a snapshot of it.
    async fn new(seed: u64) -> Self {
        let faulty = Faulty::new(Arc::new(InMemory::new()), seed, FaultPlan::default());
        let faults = faulty.faults();
        let mut world = World::over(seed, Arc::new(faulty));
        // A reader of a snapshot stops when its pin may have ended, however long it would wait for
        // the bucket.
        world.settings.pin_ttl = 10 * OUTAGE;
        let run = world.start("a").await.expect("starts");
        run.engine.create_volume(create("disk", 1 << 20)).await.expect("creates");
        let device = attach(&run, "disk").await;
        device.write(0, vec![1; BLOCK].into()).await.expect("writes");
        run.engine.create_snapshot(&name("disk"), Some(&name("s"))).await.expect("snapshots");
        run.engine.open_volumes()[0].drain().await.expect("drains");
        Self { world, faults }
    }

    /// Starts a node with nothing in memory.
    async fn start(&self) -> Running {
        self.world.start("a").await.expect("starts again")
    }

    fn refuse(&self, refusal: Option<Refusal>) {
        self.faults.set_plan(FaultPlan { refusal, ..FaultPlan::default() });
    }

    /// Lets the store refuse all calls for a while.
    async fn outage(&self, refusal: Refusal) {
        self.refuse(Some(refusal));
        tokio::time::sleep(OUTAGE).await;
        self.refuse(None);
    }
}

async fn attach(run: &Running, export: &str) -> Arc<Device> {
    run.engine.open_device(&target(export)).await.expect("attaches")
}

#[tokio::test(start_paused = true)]
async fn a_guest_waits_for_a_bucket_that_fails() {
    for refusal in Refusal::ALL {
        for export in ["disk", "disk@s"] {
            let case = Case::new(1).await;
            let run = case.start().await;
            let device = attach(&run, export).await;
            case.refuse(Some(refusal));
            let before = case.faults.calls();
            let read = async {
                let began = tokio::time::Instant::now();
                let read = device.read(0, BLOCK).await.expect("waits, and reads");
                assert_eq!(read, vec![1; BLOCK], "{refusal:?}");
                assert!(began.elapsed() >= OUTAGE, "{refusal:?}: it did not wait");
            };
            tokio::join!(biased; read, case.outage(refusal));
            let calls = case.faults.calls() - before;
            assert!(calls < 8 * OUTAGE.as_secs(), "{refusal:?}: {calls} calls are a storm");
        }
    }
}

/// A part of a block waits for the rest, which the store claims not to have: the volume stays in
/// service.
#[tokio::test(start_paused = true)]
async fn an_outage_takes_no_volume_out_of_service() {
    for refusal in Refusal::ALL {
        let case = Case::new(2).await;
        let run = case.start().await;
        let device = attach(&run, "disk").await;
        device.write(512, vec![2; 512].into()).await.expect("writes");
        device.flush().await.expect("flushes");
        case.outage(refusal).await;
        let told = run.engine.status();
        assert!(told.bucket_failure.is_some(), "{refusal:?}: the last that is known is a failure");
        assert_eq!(told.parked, Vec::<String>::new(), "{refusal:?}");
        device.write(1024, vec![3; 512].into()).await.expect("the same attachment goes on");
        run.engine.open_volumes()[0].drain().await.expect("drains");
        assert_eq!(run.engine.status().bucket_failure, None, "{refusal:?}");
        drop((device, run));
        let read = attach(&case.start().await, "disk").await.read(0, 2048).await.expect("reads");
        assert_eq!(read, [[1; 512], [2; 512], [3; 512], [1; 512]].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_waits_no_longer_than_the_settings_say() {
    let mut case = Case::new(3).await;
    case.world.settings.guest_wait_max = Some(Duration::from_secs(60));
    let run = case.start().await;
    let device = attach(&run, "disk").await;
    case.refuse(Some(Refusal::Busy));
    let began = tokio::time::Instant::now();
    let error = device.read(0, BLOCK).await.expect_err("it ends");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let seconds = began.elapsed().as_secs();
    assert!((50..70).contains(&seconds), "after {seconds} s");
}

/// A command's caller waits for an answer, so it fails soon.
#[tokio::test(start_paused = true)]
async fn a_command_does_not_wait_for_long() {
    for refusal in Refusal::ALL {
        let case = Case::new(4).await;
        let run = case.start().await;
        case.refuse(Some(refusal));
        let began = tokio::time::Instant::now();
        let error = run.engine.create_volume(create("more", 1 << 20)).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{refusal:?}: {error}");
        let error = run.engine.open_device(&target("disk")).await.err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{refusal:?}: {error}");
        assert!(began.elapsed() < Duration::from_secs(30), "{refusal:?}");
    }
}

/// A node's stop does not wait for the bucket: records that the bucket does not take stay in the
/// log.
#[tokio::test(start_paused = true)]
async fn a_stop_ends_while_the_bucket_is_away() {
    let case = Case::new(5).await;
    let run = case.start().await;
    let device = attach(&run, "disk").await;
    device.write(512, vec![2; 512].into()).await.expect("writes");
    device.flush().await.expect("flushes");
    case.refuse(Some(Refusal::Away));
    let read = async { device.read(0, BLOCK).await.expect_err("the node stops") };
    let stop = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let stopped = run.engine.shutdown();
        tokio::time::timeout(Duration::from_secs(120), stopped).await.expect("it ends")
    };
    let (_, stopped) = tokio::join!(read, stop);
    stopped.expect("stops");
    drop((device, run));
    case.refuse(None);
    let read = attach(&case.start().await, "disk").await.read(512, 512).await.expect("reads");
    assert_eq!(read, vec![2; 512]);
}

/// Once, every checkpoint tried to delete all heads that had ever been replaced, and snapshots
/// waited meanwhile.
#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_delete_makes_no_checkpoint_dearer() {
    let case = Case::new(77).await;
    let run = case.start().await;
    let device = attach(&run, "disk").await;
    let volume = &run.engine.open_volumes()[0];
    case.faults.set_plan(FaultPlan { deny_deletes: true, ..FaultPlan::default() });
    let mut calls = Vec::new();
    for round in 0..100u8 {
        device.write(0, vec![round; BLOCK].into()).await.expect("writes");
        volume.drain().await.expect("drains");
        let before = case.faults.calls();
        volume.checkpoint().await.expect("makes a checkpoint");
        calls.push(case.faults.calls() - before);
    }
    // One delete of a head, and some of a collection, each tried twice.
    let most = calls.iter().max().copied();
    assert!(most.is_some_and(|most| most <= 40), "{calls:?}");
    case.refuse(None);
    device.write(0, vec![1; BLOCK].into()).await.expect("writes");
    volume.drain().await.expect("drains");
    volume.checkpoint().await.expect("makes a checkpoint");
    let listed: Vec<_> = case.world.store.list(None).try_collect().await.expect("listed");
    let is_head = |name: &str| matches!(names::parse(name), Object::Head(..));
    let heads = listed.iter().filter(|object| is_head(object.location.as_ref())).count();
    assert_eq!(heads, 1, "the old ones are gone as soon as they may be");
}

/// Once, a volume could not be opened while the ref of a deleted snapshot could not be deleted.
#[tokio::test(start_paused = true)]
async fn a_snapshot_ref_that_can_not_be_deleted_keeps_no_volume_closed() {
    let case = Case::new(79).await;
    let run = case.start().await;
    case.faults.set_plan(FaultPlan { deny_deletes: true, ..FaultPlan::default() });
    let (disk, s) = (name("disk"), name("s"));
    let error = run.engine.delete_snapshot(&disk, &s).await.expect_err("it is denied");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    drop(run);
    let run = case.start().await;
    let device = attach(&run, "disk").await;
    assert_eq!(device.read(0, BLOCK).await.expect("reads"), vec![1; BLOCK]);
    let listed = run.engine.list_snapshots(&disk).await.expect("lists");
    assert!(listed.is_empty(), "{listed:?}");
    drop((device, run));
    case.refuse(None);
    drop(attach(&case.start().await, "disk").await);
    let listed: Vec<_> = case.world.store.list(None).try_collect().await.expect("listed");
    let is_ref =
        |name: &str| matches!(names::parse(name), Object::Snapshot(..) | Object::Label(..));
    let left = listed.iter().filter(|object| is_ref(object.location.as_ref())).count();
    assert_eq!(left, 0, "the next owner deletes it as soon as it may");
}

/// Once, an old head that could not be deleted ended each sweep of its volume.
#[tokio::test(start_paused = true)]
async fn a_head_that_can_not_be_deleted_ends_no_sweep() {
    let case = Case::new(78).await;
    let run = case.start().await;
    let device = attach(&run, "disk").await;
    let volume = &run.engine.open_volumes()[0];
    run.gate.lock("/head/");
    for round in 0..3u8 {
        device.write(0, vec![round; BLOCK].into()).await.expect("writes");
        volume.drain().await.expect("drains");
        volume.checkpoint().await.expect("makes a checkpoint");
    }
    let listed: Vec<_> = case.world.store.list(None).try_collect().await.expect("listed");
    let is_head = |name: &str| matches!(names::parse(name), Object::Head(..));
    let heads = listed.iter().filter(|object| is_head(object.location.as_ref())).count();
    assert!(heads > 1, "the old ones are gone");
    run.engine.sweep().await.expect("sweeps");
}
