//! The lives of a shard: each is opened over what the previous one left, is used, and ends in its
//! own way. After the last, all actors behave, and every job must end.

use crate::actors::{Actor, GROUPS, group};
use crate::calls::{Caller, Gone};
use crate::judge;
use crate::sim::Sim;
use futures::future::{LocalBoxFuture, join_all};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_jobs::ErrorKind;
use skerry_jobs::shard::{Outcome, Shard};
use skerry_store::objects::faulty::FaultPlan;
use std::time::Duration;

/// The longest time of anything, in the simulated time.
pub const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// The end of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// By a close, when all actors are done.
    Closed,
    /// At any time, in the middle of anything: after `ms` milliseconds and `polls` polls.
    At { ms: u64, polls: u32 },
    /// After `count` calls of the store; it lives on for a while without one.
    Calls { count: u64, polls: u32 },
}

impl Death {
    pub fn draw(rng: &mut StdRng) -> Self {
        let polls = rng.random_range(0..60);
        match rng.random_range(0..10) {
            0 => Self::Closed,
            1..6 => Self::At { ms: rng.random_range(0..20_000), polls },
            _ => Self::Calls { count: rng.random_range(0..150), polls },
        }
    }
}

/// Runs one life, or the rest of one, in a runtime of its own: all its tasks end with it.
pub fn in_runtime<T>(sim: &Sim, life: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    if let Some(disk) = &sim.world.disk {
        let disk = disk.clone();
        builder.on_thread_park(move || disk.on_idle());
    }
    let runtime = builder.build().expect("a runtime");
    let done = runtime.block_on(async {
        sim.world.time.begin_life();
        let done = life.await;
        sim.world.time.end_life();
        done
    });
    if let Some(disk) = &sim.world.disk {
        disk.stop_after(0);
    }
    drop(runtime);
    if let Some(disk) = &sim.world.disk {
        disk.crash();
    }
    sim.model.borrow_mut().died(sim.world.time.seen_ms());
    done
}

/// Opens the shard; nothing if the store fails meanwhile.
pub async fn open(sim: &Sim) -> Option<Shard> {
    sim.say("open");
    sim.broken.set(None);
    sim.world.time.forget_seen();
    let at_ms = sim.world.time.peek_ms();
    match sim.world.open().await {
        Ok(shard) => {
            sim.say("opened");
            sim.model.borrow_mut().opened(at_ms);
            note_opened(sim);
            Some(shard)
        }
        Err(error) => {
            sim.say(format!("not opened: {error}"));
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(sim.disturbed.get(), "the store works, and opening failed: {error}");
            None
        }
    }
}

/// Notes that the shard was opened.
pub fn note_opened(sim: &Sim) {
    sim.opened.set(sim.opened.get() + 1);
    sim.opened_ms.set(sim.world.time.peek_ms());
}

/// Makes a whole run.
pub fn run(sim: &Sim) {
    let mut rng = StdRng::seed_from_u64(sim.seed);
    let may_jump = rng.random_bool(0.5);
    for _ in 0..rng.random_range(1..7) {
        let (seed, death) = (rng.random(), Death::draw(&mut rng));
        sim.say(format!("a life that ends {death:?}"));
        in_runtime(sim, live(sim, seed, death, may_jump));
    }
    end(sim);
}

async fn live(sim: &Sim, seed: u64, death: Death, may_jump: bool) {
    let is_rough = seed.is_multiple_of(3);
    let plan = if is_rough { FaultPlan::rough() } else { FaultPlan::default() };
    sim.world.faults.set_plan(plan);
    sim.world.faults.revive();
    // A write that lands now may be in the way of another.
    sim.disturbed.set(is_rough || sim.world.faults.late() > 0);
    let lived = async {
        let Some(shard) = open(sim).await else { return };
        use_it(sim, shard, seed, may_jump).await;
    };
    tokio::select! {
        biased;
        () = lived => {}
        () = die(sim, death) => sim.say("dies"),
        () = tokio::time::sleep(PATIENCE) => panic!("it hangs"),
    }
}

pub async fn die(sim: &Sim, death: Death) {
    let polls = match death {
        Death::Closed => std::future::pending().await,
        Death::At { ms, polls } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            polls
        }
        Death::Calls { count, polls } => {
            cut_off_after(sim, count, FaultPlan::rough()).await;
            polls
        }
    };
    for _ in 0..polls {
        tokio::task::yield_now().await;
    }
}

/// Waits until the shard has called the store `count` times; later calls do not happen.
pub async fn cut_off_after(sim: &Sim, count: u64, plan: FaultPlan) {
    let last = sim.world.faults.calls() + count;
    sim.world.faults.set_plan(FaultPlan { stop_after: Some(last), ..plan });
    sim.disturbed.set(true);
    while sim.world.faults.calls() <= last {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Lets all actors use the shard until they are done, or it is out of service.
async fn use_it(sim: &Sim, shard: Shard, seed: u64, may_jump: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all: Vec<LocalBoxFuture<'_, Result<(), Gone>>> = Vec::new();
    let actor = |name: &str, rng: &mut StdRng| {
        Actor::new(Caller::new(sim, shard.clone(), name), rng.random())
    };
    for number in 0..rng.random_range(1..4) {
        let client = actor(&format!("client {number}"), &mut rng);
        all.push(Box::pin(client.be_client(rng.random_range(1..25))));
    }
    for number in 0..rng.random_range(1..5) {
        let worker = actor(&format!("worker {number}"), &mut rng);
        all.push(Box::pin(worker.be_worker(rng.random_range(1..12))));
    }
    let late = actor("late", &mut rng);
    all.push(Box::pin(late.be_late(rng.random_range(0..15))));
    let chaos = actor("chaos", &mut rng);
    all.push(Box::pin(chaos.be_chaos(rng.random_range(0..6), may_jump)));
    let done = join_all(all).await;
    all_are_done(sim, shard, &done, &mut rng).await;
}

/// Ends a life whose actors are done: closes the shard, or just drops it.
pub async fn all_are_done(sim: &Sim, shard: Shard, done: &[Result<(), Gone>], rng: &mut StdRng) {
    let is_gone = done.iter().any(Result::is_err);
    sim.say(format!("all are done; out of service: {is_gone}"));
    if !is_gone && rng.random_bool(0.5) {
        let closed = shard.close().await;
        sim.say(format!("closed: {closed:?}"));
        assert!(closed.is_ok() || sim.disturbed.get(), "the store works: {closed:?}");
    }
}

/// Ends a run: the store works again, and so do the workers. Every job ends, and stays so.
pub fn end(sim: &Sim) {
    end_by(sim, PATIENCE, async |_| finish(sim).await);
}

/// Ends a run by a function that finishes everything. The function gets true if each job is known.
pub fn end_by(sim: &Sim, patience: Duration, finish: impl AsyncFn(bool)) {
    sim.world.faults.set_plan(FaultPlan::default());
    sim.world.faults.revive();
    sim.disturbed.set(false);
    sim.say("the end begins");
    for are_all_known in [false, true] {
        in_runtime(sim, async {
            tokio::select! {
                biased;
                () = finish(are_all_known) => {}
                () = tokio::time::sleep(patience) => panic!("some jobs do not end"),
            }
        });
        in_runtime(sim, judge::learn_names(sim));
    }
    in_runtime(sim, judge::at_rest(sim));
}

async fn finish(sim: &Sim) {
    // Writes on their way to the store have arrived.
    sim.world.faults.land_all().await;
    let shard = open(sim).await.expect("the store works");
    let caller = |name: &str| Caller::new(sim, shard.clone(), name);
    let working = GROUPS.iter().map(|of| work_on(caller(of), of));
    tokio::select! {
        biased;
        () = all_end(caller("end")) => {}
        _ = join_all(working) => {}
    }
    shard.close().await.expect("the store works");
}

/// Does all work of a task group.
pub async fn work_on(caller: Caller<'_>, of: &str) {
    loop {
        let got = caller.lease(&group(of), 3, Duration::from_secs(60)).await;
        for (number, leased) in got.expect("the store works") {
            let outcome = Outcome::Succeeded("at last".into());
            let said = caller.report(number, leased.lease.attempt, outcome).await;
            said.expect("the store works");
        }
    }
}

async fn all_end(caller: Caller<'_>) {
    let count = caller.sim.model.borrow().jobs.len();
    for number in 0..count {
        caller.show(number).await.expect("the store works");
        caller.await_end(number).await.expect("the store works");
    }
}
