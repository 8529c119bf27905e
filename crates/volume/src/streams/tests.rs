//! Tests that the engine carries more than disks: a second payload goes through everything that a
//! stream goes through.

#[path = "../../tests/engine/rig/mod.rs"]
mod rig;

mod lines;

use crate::streams::engine::Engine;
use crate::streams::stream::Stream;
use crate::{EngineParts, ErrorKind};
use lines::Lines;
use rig::{Committer, Gate, World, name};
use skerry_core::descriptor::{FlushLevel, VolumeDesc, VolumeKind};
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::position::Position;
use skerry_core::root::{Base, Root};
use skerry_core::size::BlockSize;
use std::sync::Arc;
use std::time::Duration;

/// A node that carries lists of lines.
struct Running {
    engine: Arc<Engine<Lines>>,
    gate: Arc<Gate>,
    _committer: Committer,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gate.kill();
    }
}

impl Running {
    async fn start(world: &World, host: &str) -> Self {
        let gate = Gate::new(world.store.clone());
        let (parts, committer) = world.parts(host, gate.clone()).await.expect("parts");
        let engine = Engine::open(parts).await.expect("starts");
        Self { engine, gate, _committer: committer }
    }

    /// Makes an empty list.
    async fn create(&self, called: &str) {
        let ctx = &self.engine.ctx;
        let entropy = ctx.bucket.entropy();
        let (genesis, block) = (StreamId::random(entropy.as_ref()), BlockSize::default());
        let root = Root::empty(0, block, called);
        let desc = VolumeDesc {
            id: VolumeId::random(entropy.as_ref()),
            kind: VolumeKind::Disk,
            home: ctx.bucket.id(),
            block,
            flush: FlushLevel::Local,
            created_ms: ctx.clock().wall_ms(),
            name: called.to_owned(),
            size_bytes: 0,
            genesis,
            base: Base::exact(root, Position::start(0, genesis, 0)),
            parent: None,
        };
        self.engine.introduce(desc, &name(called), None).await.expect("creates");
    }

    async fn list(&self) -> Arc<Stream<Lines>> {
        self.engine.writable(&name("list")).await.expect("opens")
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

async fn add(list: &Stream<Lines>, range: std::ops::Range<usize>) {
    for line in numbered(range) {
        list.add(&line).await.expect("adds");
    }
}

async fn says(list: &Stream<Lines>, count: usize) {
    assert_eq!(list.lines().await.expect("reads"), numbered(0..count));
}

/// Lines are read from the log, from segments, and from a checkpoint's tree, before and after
/// crashes.
#[tokio::test(start_paused = true)]
async fn what_was_flushed_is_read_after_a_crash_wherever_it_is() {
    let world = World::new(1);
    let run = Running::start(&world, "a").await;
    run.create("list").await;
    let list = run.list().await;
    add(&list, 0..3).await;
    list.flush().await.expect("flushes");
    says(&list, 3).await;
    drop((list, run));

    let run = Running::start(&world, "a").await;
    assert!(!run.engine.is_drained(), "the tail was replayed");
    let list = run.list().await;
    says(&list, 3).await;
    list.drain().await.expect("drains");
    assert!(run.engine.is_drained());
    says(&list, 3).await;
    add(&list, 3..30).await;
    list.drain().await.expect("drains");
    list.checkpoint().await.expect("makes a checkpoint");
    assert!(list.state.lock().root.top.is_some());
    says(&list, 30).await;
    add(&list, 30..34).await;
    list.drain().await.expect("drains");
    add(&list, 34..36).await;
    list.flush().await.expect("flushes");
    says(&list, 36).await;
    drop((list, run));

    // The log is lost with its disk: drained lines are in the bucket.
    let mut lost = world.clone();
    lost.lose_disk();
    let run = Running::start(&lost, "a").await;
    says(&*run.list().await, 34).await;
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_taken_deleted_and_rolled_back_to() {
    let world = World::new(2);
    let run = Running::start(&world, "a").await;
    run.create("list").await;
    let list = run.list().await;
    let (called, early, late) = (name("list"), name("early"), name("late"));
    add(&list, 0..5).await;
    run.engine.create_snapshot(&called, Some(&early)).await.expect("snapshots");
    add(&list, 5..9).await;
    run.engine.create_snapshot(&called, Some(&late)).await.expect("snapshots");
    list.drain().await.expect("drains");
    drop((list, run));

    let run = Running::start(&world, "a").await;
    let list = run.list().await;
    let named = run.engine.list_snapshots(&called).await.expect("lists");
    assert_eq!(named.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["early", "late"]);
    says(&list, 9).await;
    run.engine.rollback_volume(&called, &early, false).await.expect("rolls back");
    says(&list, 5).await;
    add(&list, 5..6).await;
    says(&list, 6).await;
    list.drain().await.expect("drains");
    list.checkpoint().await.expect("makes a checkpoint");
    for snapshot in run.engine.list_snapshots(&called).await.expect("lists") {
        let snapshot = snapshot.name.parse().expect("a name");
        run.engine.delete_snapshot(&called, &snapshot).await.expect("deletes");
    }
    run.engine.sweep().await.expect("sweeps");
    says(&list, 6).await;
    drop((list, run));
    says(&*Running::start(&world, "a").await.list().await, 6).await;
}

#[tokio::test(start_paused = true)]
async fn another_host_takes_a_list_over_and_the_first_is_fenced() {
    let world = World::new(3);
    let first = Running::start(&world, "a").await;
    first.create("list").await;
    let list = first.list().await;
    add(&list, 0..7).await;
    list.drain().await.expect("drains");
    add(&list, 7..8).await;
    list.flush().await.expect("flushes");

    let other = world.neighbour(4);
    let second = Running::start(&other, "b").await;
    let called = name("list");
    let refused =
        second.engine.writable(&called).await.map(drop).expect_err("it is the first host's");
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    second.engine.release_volume(&called, true).await.expect("takes it away");
    let theirs = second.list().await;
    // A prefix of the written lines: the rest was in the first host's log only.
    says(&theirs, 7).await;
    add(&theirs, 7..9).await;
    theirs.flush().await.expect("flushes");

    tokio::time::advance(Duration::from_secs(60)).await;
    let fenced = list.add("nobody's").await.expect_err("the stream was sealed");
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
    says(&theirs, 9).await;
}

/// A bug in the destager ends its volume, and no writer waits for room for ever.
#[tokio::test(start_paused = true)]
async fn a_destager_that_panics_takes_its_volume_out_of_service() {
    let world = World::new(5);
    let run = Running::start(&world, "a").await;
    run.create("list").await;
    let list = run.list().await;
    list.add(lines::PANIC).await.expect("adds");
    let drained = tokio::time::timeout(Duration::from_secs(60), list.drain()).await;
    let error = drained.expect("it waits for ever").expect_err("it was not destaged");
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
}

/// Segments that are built and not yet durable take memory. All lists together have no more than
/// there is.
#[tokio::test(start_paused = true)]
async fn no_more_segments_are_built_than_there_is_memory_for() {
    const LISTS: usize = 4;
    let mut world = World::new(6);
    // Room to build one segment, and no more.
    world.settings.buffer_bytes_max = 32 << 10;
    let run = Running::start(&world, "a").await;
    let mut lists = Vec::new();
    for n in 0..LISTS {
        let called = format!("list-{n}");
        run.create(&called).await;
        lists.push(run.engine.writable(&name(&called)).await.expect("opens"));
    }
    run.gate.hold_puts("streams/");
    for list in &lists {
        add(list, 0..16).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let built = |list: &Arc<Stream<Lines>>| list.last_built.lock().0.0;
    let all: u64 = lists.iter().map(built).sum();
    assert_eq!(all, 1, "built without memory");
    run.gate.hold(None);
    for list in &lists {
        list.drain().await.expect("drains");
        assert_eq!(built(list), 4);
    }
}

/// A checkpoint computes on the threads that give way to clients.
#[tokio::test]
async fn a_checkpoint_computes_in_the_background() {
    const THREADS: &str = "lines-in-the-background";
    let built = tokio::runtime::Builder::new_multi_thread().thread_name(THREADS).build();
    let background = built.expect("a runtime");
    let world = World::new(7);
    let gate = Gate::new(world.store.clone());
    let (parts, _committer) = world.parts("a", gate.clone()).await.expect("parts");
    let parts = EngineParts { background: Some(background.handle().clone()), ..parts };
    let engine = Engine::open(parts).await.expect("starts");
    let run = Running { engine, gate, _committer };
    run.create("list").await;
    let list = run.list().await;
    add(&list, 0..3).await;
    list.drain().await.expect("drains");
    list.checkpoint().await.expect("makes a checkpoint");
    let root = list.state.lock().root.top.expect("a root with lines");
    assert_eq!(lines::merged_on(&root).as_deref(), Some(THREADS));
    background.shutdown_background();
}

/// A diff since a birth skips older nodes, so no birth of a history comes twice: a rollback goes on
/// from the higher birth.
#[tokio::test(start_paused = true)]
async fn births_go_on_after_a_rollback() {
    let world = World::new(8);
    let run = Running::start(&world, "a").await;
    run.create("list").await;
    let list = run.list().await;
    let settle = async || {
        list.drain().await.expect("drains");
        list.checkpoint().await.expect("makes a checkpoint");
        list.state.lock().root.birth
    };
    add(&list, 0..1).await;
    let early = settle().await;
    let called = name("list");
    run.engine.create_snapshot(&called, Some(&name("early"))).await.expect("snapshots");
    for n in 1..6 {
        add(&list, n..n + 1).await;
        settle().await;
    }
    let before = list.state.lock().root.birth;
    assert!(before > early + 1);
    let kept = run.engine.rollback_volume(&called, &name("early"), false).await;
    let kept = kept.expect("rolls back").name.parse().expect("a name");
    says(&list, 1).await;
    // One checkpoint before the rollback, and one after it.
    assert_eq!(list.state.lock().root.birth, before + 2);
    run.engine.rollback_volume(&called, &kept, false).await.expect("rolls forward");
    says(&list, 6).await;
    assert_eq!(list.state.lock().root.birth, before + 4);
}
