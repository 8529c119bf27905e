//! A fixed workload, stopped after every n-th call to the store and every n-th operation of the
//! disk, for every n; then recovered and judged.

use crate::model::reference::{Rec, Seen, Vol, differ};
use crate::rig::{Gate, Running, World, create, name, target};
use futures::StreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use skerry_core::descriptor::FlushLevel;
use skerry_core::label::Labelled;
use skerry_core::names::{self, Object};
use skerry_core::seal::Seal;
use skerry_store::objects::faulty::{FaultPlan, Faulty};
use skerry_volume::{Device, Engine, Error};
use std::sync::Arc;
use std::time::Duration;

/// Neither a whole number of blocks, nor of frames.
const SIZE: usize = 50 * 4096 + 1536;

/// The longest record of a write, bytes, as the rig sets it: longer writes are cut.
const RECORD: usize = 64 << 10;

/// State of the work, and of the volumes that must result.
#[derive(Default)]
struct Done {
    disk: Option<Vol>,
    copy: Option<Vol>,
    /// True once the clone's deletion was begun.
    copy_goes: bool,
}

struct Work<'a> {
    engine: &'a Arc<Engine>,
    done: &'a mut Done,
    stamp: u8,
}

impl Work<'_> {
    fn disk(&mut self) -> &mut Vol {
        self.done.disk.as_mut().expect("the disk was made")
    }

    async fn write(
        &mut self,
        device: &Device,
        copy: bool,
        at: usize,
        len: usize,
    ) -> Result<(), Error> {
        self.stamp += 1;
        let data = Arc::new(vec![self.stamp; len]);
        let vol = if copy { self.done.copy.as_mut() } else { self.done.disk.as_mut() };
        let vol = vol.expect("it was made");
        for (i, piece) in data.chunks(RECORD).enumerate() {
            let data = Arc::new(piece.to_vec());
            vol.push(Rec::Write { offset: at + i * RECORD, data });
        }
        device.write(at as u64, data.to_vec().into()).await
    }

    async fn zero(&mut self, device: &Device, at: usize, len: usize) -> Result<(), Error> {
        self.disk().push(Rec::Zero { offset: at, len });
        device.zero(at as u64, len as u64).await
    }

    async fn flush(&mut self, device: &Device) -> Result<(), Error> {
        device.flush().await?;
        self.disk().note_flushed();
        Ok(())
    }

    async fn snapshot(&mut self, of: &str, label: &str) -> Result<(), Error> {
        self.disk().push_snapshot(Some(label));
        self.engine.create_snapshot(&name(of), Some(&name(label))).await?;
        self.disk().note_flushed();
        Ok(())
    }

    async fn unsnapshot(&mut self, of: &str, label: &str) -> Result<(), Error> {
        let mine = |s: &&mut crate::model::reference::Snap| s.name.as_deref() == Some(label);
        self.disk().snaps.iter_mut().find(mine).expect("it was taken").doubtful = true;
        self.engine.delete_snapshot(&name(of), &name(label)).await?;
        self.disk().snaps.retain(|s| s.name.as_deref() != Some(label));
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<(), Error> {
        let id = self.disk().id;
        let open = self.engine.open_volumes().into_iter().find(|v| v.desc.id == id);
        let open = open.expect("it is open");
        open.drain().await?;
        let end = self.disk().end();
        self.disk().note_bucketed(end);
        open.checkpoint().await
    }

    async fn attach(&self, of: &str) -> Result<Arc<Device>, Error> {
        self.engine.open_device(&target(of)).await
    }

    async fn run(&mut self, level: FlushLevel) -> Result<(), Error> {
        let mut new = create("disk", SIZE as u64);
        new.flush = Some(level);
        let info = self.engine.create_volume(new).await?;
        self.done.disk = Some(Vol::new(info.id, "disk", level, vec![0; SIZE]));
        let device = self.attach("disk").await?;
        self.write(&device, false, 0, 30 * 4096).await?;
        self.write(&device, false, 512, 1024).await?;
        self.flush(&device).await?;
        self.snapshot("disk", "one").await?;
        self.write(&device, false, 20 * 4096 + 512, 25 * 4096).await?;
        self.checkpoint().await?;
        // Overwritten blocks are collected, so that the way from the snapshot to here has gaps.
        for _ in 0..3 {
            self.write(&device, false, 0, 8192).await?;
            self.checkpoint().await?;
        }
        self.engine.sweep().await?;
        self.zero(&device, 3 * 4096 + 512, 12 * 4096).await?;
        self.write(&device, false, SIZE - 2048, 2048).await?;
        self.clone_and_write().await?;
        self.roll_back().await?;
        let device = self.attach("disk").await?;
        self.write(&device, false, 4096, 8192).await?;
        self.resize(20 * 4096 + 512).await?;
        self.resize(SIZE).await?;
        let device = self.attach("disk").await?;
        self.write(&device, false, 40 * 4096, 4096).await?;
        self.snapshot("disk", "two").await?;
        self.unsnapshot("disk", "two").await?;
        self.snapshot("disk", "three").await?;
        self.write(&device, false, 8192, 512).await?;
        self.unsnapshot("disk", "one").await?;
        self.rename().await?;
        self.flush(&device).await?;
        self.checkpoint().await?;
        self.write(&device, false, 0, 4096).await?;
        self.done.copy_goes = true;
        self.engine.delete_volume(&name("copy"), true, true).await?;
        self.done.copy = None;
        self.flush(&device).await
    }

    async fn clone_and_write(&mut self) -> Result<(), Error> {
        let snap = self.disk().snap("one").expect("it was taken").clone();
        let mut image = (*snap.image).clone();
        image.resize(SIZE + 8192, 0);
        let size = Some(image.len() as u64);
        let (of, label, new) = (name("disk"), name("one"), name("copy"));
        let info = self.engine.clone_volume(&of, &label, &new, size).await?;
        self.disk().note_bucketed(snap.at);
        let level = self.disk().level;
        self.done.copy = Some(Vol::new(info.id, "copy", level, image));
        let device = self.attach("copy").await?;
        self.write(&device, true, SIZE, 4096).await?;
        self.write(&device, true, 4096, 512).await?;
        device.flush().await?;
        self.done.copy.as_mut().expect("it was made").note_flushed();
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<(), Error> {
        let image = self.disk().snap("one").expect("it was taken").image.clone();
        self.disk().push_snapshot(None);
        self.disk().push(Rec::Rollback(image));
        let kept = self.engine.rollback_volume(&name("disk"), &name("one"), true).await?;
        let end = self.disk().end();
        self.disk().note_bucketed(end);
        let nameless = self.disk().snaps.iter_mut().find(|s| s.name.is_none());
        nameless.expect("it was kept").name = Some(kept.name);
        Ok(())
    }

    async fn resize(&mut self, size: usize) -> Result<(), Error> {
        let now = self.disk().image.len();
        if size < now {
            self.disk().push(Rec::Zero { offset: size, len: now - size });
        }
        self.disk().push(Rec::Resize(size));
        self.engine.resize_volume(&name("disk"), size as u64, true).await?;
        self.disk().note_flushed();
        Ok(())
    }

    async fn rename(&mut self) -> Result<(), Error> {
        self.disk().push(Rec::Rename);
        self.disk().names.push("disc".into());
        self.engine.rename_volume(&name("disk"), &name("disc")).await?;
        self.disk().names.remove(0);
        self.disk().note_flushed();
        Ok(())
    }
}

/// The point at which a run is stopped.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Never,
    Call(u64),
    Disk(u64),
}

/// Fate of the disk then.
#[derive(Debug, Clone, Copy, PartialEq)]
enum After {
    Kill,
    Power,
    Lost,
}

struct Case {
    level: FlushLevel,
    stop: Stop,
    after: After,
}

impl Case {
    /// Runs the case, and gives the numbers of calls and of disk operations.
    async fn run(&self) -> (u64, u64) {
        let bare = Arc::new(InMemory::new());
        // Slow, so that there is always a call under way; equal in every run.
        let slow = FaultPlan { slow: 1000, slow_ms: 1..20, ..FaultPlan::default() };
        let faulty = Faulty::new(bare.clone(), 7, slow);
        let mut world = World::over(7, Arc::new(faulty));
        let gate = Gate::new(world.store.clone());
        let run = world.start_behind("a", gate.clone()).await.expect("starts");
        let (calls, operations) = (gate.calls(), world.disk.operations());
        match self.stop {
            Stop::Never => {}
            Stop::Call(n) => gate.shut_after(n),
            Stop::Disk(n) => world.disk.stop_after(n),
        }
        let mut done = Done::default();
        let engine = run.engine.clone();
        let mut work = Work { engine: &engine, done: &mut done, stamp: 0 };
        tokio::select! {
            biased;
            ended = work.run(self.level) => match self.stop {
                Stop::Never | Stop::Call(_) => ended.expect("nothing is wrong"),
                Stop::Disk(_) => drop(ended),
            },
            () = gate.died() => {}
            () = tokio::time::sleep(Duration::from_secs(3600)) => panic!("it hangs"),
        }
        let counts = (gate.calls() - calls, world.disk.operations() - operations);
        if matches!(self.stop, Stop::Never) {
            assert!(has_own_root(&bare).await, "no snapshot got a root of its own");
        }
        drop((run, engine));
        match self.after {
            After::Kill => world.disk.kill(),
            After::Power => world.disk.crash(counts.0 ^ counts.1),
            After::Lost => world.lose_disk(),
        }
        world.disk.repair();
        let run = world.start("a").await.expect("starts again");
        self.judge(&run, &mut done).await;
        drop(run);
        let run = world.start("a").await.expect("starts a third time");
        if let Some(disk) = &mut done.disk {
            disk.push_snapshot(Some("after"));
            disk.note_flushed();
            self.judge_one(&run.engine, disk).await;
        }
        // The dead node's calls have arrived by then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        clean_up(&run, &bare).await;
        counts
    }

    async fn judge(&self, run: &Running, done: &mut Done) {
        let listed = run.engine.list_volumes().await.expect("lists");
        if let Some(disk) = &mut done.disk {
            let mut named = listed.iter().filter(|info| info.id == disk.id);
            let info = named.next().expect("the disk is there");
            assert!(named.next().is_none(), "{:?} has two names", disk.names);
            assert!(disk.names.contains(&info.name), "{:?} is called {}", disk.names, info.name);
            disk.names.sort_by_key(|n| *n != info.name);
            self.judge_one(&run.engine, disk).await;
        }
        if let Some(copy) = &mut done.copy {
            let info = listed.iter().find(|info| info.id == copy.id);
            assert!(done.copy_goes || info.is_some(), "the clone is there");
            if info.is_some_and(|info| !info.deleted) {
                self.judge_one(&run.engine, copy).await;
            }
        }
        if let Some(disk) = &done.disk {
            life_goes_on(&run.engine, disk).await;
        }
        let report = run.engine.fsck().await.expect("fsck runs");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }

    async fn judge_one(&self, engine: &Arc<Engine>, vol: &mut Vol) {
        let device = engine.open_device(&target(vol.name())).await.expect("attaches");
        let image = device.read(0, device.size_bytes() as usize).await.expect("reads");
        // A half-done rename is finished by now.
        let listed = engine.list_volumes().await.expect("lists");
        let named: Vec<_> = listed.iter().filter(|i| i.id == vol.id).map(|i| &i.name).collect();
        assert!(named.len() == 1, "{:?} is called {named:?}", vol.names);
        vol.names = vec![named[0].clone()];
        let snaps = engine.list_snapshots(&name(vol.name())).await.expect("lists");
        let seen =
            Seen { image: image.to_vec(), snaps: snaps.into_iter().map(|s| s.name).collect() };
        let floor = if self.after == After::Lost { vol.bucketed } else { vol.flushed };
        vol.settle(&seen, floor).unwrap_or_else(|e| panic!("{e}"));
        // An unanswered deletion may have happened or not. This is settled now: no disk is lost any
        // more.
        vol.snaps.retain(|snap| snap.name.as_ref().is_some_and(|name| seen.snaps.contains(name)));
        vol.snaps.iter_mut().for_each(|snap| snap.doubtful = false);
        for snap in &vol.snaps {
            let label = snap.name.as_deref().expect("it was seen");
            let full = format!("{}@{label}", vol.name());
            let device = engine.open_device(&target(&full)).await.expect("attaches");
            let image = device.read(0, device.size_bytes() as usize).await.expect("reads");
            assert_eq!(differ(&snap.image, &image), None, "{full}");
        }
    }
}

/// Takes and collects snapshots after a recovery, and checks that the volume is still what it was.
async fn life_goes_on(engine: &Arc<Engine>, vol: &Vol) {
    let of = name(vol.name());
    engine.create_snapshot(&of, Some(&name("after"))).await.expect("snapshots");
    for checkpoint in [false, true] {
        if checkpoint {
            let open = engine.open_volumes().into_iter().find(|v| v.desc.id == vol.id);
            open.expect("it is open").checkpoint().await.expect("makes a checkpoint");
        }
        engine.sweep().await.expect("sweeps");
        let full = format!("{of}@after");
        let device = engine.open_device(&target(&full)).await.expect("attaches");
        let image = device.read(0, device.size_bytes() as usize).await.expect("reads");
        assert_eq!(differ(&vol.image, &image), None, "{full}");
    }
}

/// True if a checkpoint was cut at the barrier of a snapshot.
async fn has_own_root(bare: &InMemory) -> bool {
    let all: Vec<_> = bare.list(None).collect().await;
    all.into_iter().any(|meta| match names::parse(meta.expect("lists").location.as_ref()) {
        Object::Label(_, _, Labelled::Snapshot(label)) => label.span.from == label.span.to,
        _ => false,
    })
}

/// Deletes everything; no segment is left.
async fn clean_up(run: &Running, bare: &Arc<InMemory>) {
    for info in run.engine.list_volumes().await.expect("lists") {
        run.engine.delete_volume(&name(&info.name), true, true).await.expect("deletes");
    }
    run.engine.sweep().await.expect("sweeps");
    let all: Vec<_> = bare.list(None).collect().await;
    for meta in all {
        let at = meta.expect("lists").location;
        if matches!(names::parse(at.as_ref()), Object::Segment(_)) {
            let bytes = bare.get(&at).await.expect("reads").bytes().await.expect("reads");
            assert!(Seal::is(&bytes), "{at} is left, and nothing holds it");
        }
    }
}

fn run(case: &Case) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    eprintln!("{:?}, {:?}, then {:?}", case.level, case.stop, case.after);
    runtime.block_on(case.run())
}

fn every(level: FlushLevel, stop: fn(u64) -> Stop, counts: fn((u64, u64)) -> u64, after: &[After]) {
    let whole = run(&Case { level, stop: Stop::Never, after: After::Kill });
    let count = counts(whole);
    assert!(count > 15, "the workload does too little: {count}");
    for n in 0..=count {
        for &after in after {
            run(&Case { level, stop: stop(n), after });
        }
    }
}

#[test]
fn stopped_at_every_call_at_level_local() {
    every(FlushLevel::Local, Stop::Call, |c| c.0, &[After::Kill, After::Power, After::Lost]);
}

#[test]
fn stopped_at_every_call_at_level_bucket() {
    every(FlushLevel::Bucket, Stop::Call, |c| c.0, &[After::Power, After::Lost]);
}

#[test]
fn stopped_at_every_operation_of_the_disk() {
    every(FlushLevel::Local, Stop::Disk, |c| c.1, &[After::Power]);
    every(FlushLevel::Bucket, Stop::Disk, |c| c.1, &[After::Power, After::Lost]);
}
