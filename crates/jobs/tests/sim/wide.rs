//! The second family of runs: everything that a shard does, its database opened as a node opens it,
//! in one of four surroundings. A clock that is set, a second shard that takes the first one's
//! database over while it lives, or neither. Or a database whose log is on a local disk that loses
//! unsynced writes (now and then with a clock that is set).

use crate::actors::{Actor, group};
use crate::calls::{Caller, Gone};
use crate::life::{
    Death, PATIENCE, all_are_done, die, end_by, in_runtime, note_opened, open, work_on,
};
use crate::listing::{FAR_MS, everything};
use crate::sim::Sim;
use crate::wide_actors::{TENANTS, anchor, tenant};
use crate::world::Kind;
use futures::future::{LocalBoxFuture, join, join_all};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_jobs::job::JobState;
use skerry_jobs::shard::Shard;
use skerry_store::objects::faulty::FaultPlan;
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest time until a job ends when all actors work, in the simulated time.
const END_PATIENCE: Duration = Duration::from_secs(1800);

/// The surroundings of a seed's run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Jumps,
    TakeOvers,
    Nothing,
    Disk,
}

impl Around {
    fn of(seed: u64) -> Self {
        [Self::Jumps, Self::TakeOvers, Self::Nothing, Self::Disk][(seed % 4) as usize]
    }
}

/// The kind of database of a seed's run.
pub fn kind_of(seed: u64) -> Kind {
    if Around::of(seed) == Around::Disk { Kind::Split } else { Kind::Node }
}

/// Makes a whole run.
pub fn run(sim: &Sim) {
    let mut rng = StdRng::seed_from_u64(sim.seed ^ 0x01de);
    for life in 0..rng.random_range(1..6) {
        let (seed, death) = (rng.random(), Death::draw(&mut rng));
        sim.say(format!("a life that ends {death:?}"));
        in_runtime(sim, live(sim, seed, life, death));
    }
    end(sim);
}

async fn live(sim: &Sim, seed: u64, life: u32, death: Death) {
    let is_rough = seed.is_multiple_of(3);
    let plan = if is_rough { FaultPlan::rough() } else { FaultPlan::default() };
    sim.world.faults.set_plan(plan);
    sim.world.faults.revive();
    sim.disturbed.set(is_rough || sim.world.faults.late() > 0);
    let lived = async {
        if let Some(shard) = open(sim).await {
            use_it(sim, shard, seed, life).await;
        }
    };
    tokio::select! {
        biased;
        () = lived => {}
        () = die_somehow(sim, seed, death) => sim.say("dies"),
        () = tokio::time::sleep(PATIENCE) => panic!("it hangs"),
    }
}

/// If the log is on a disk, it is mostly the disk that goes.
async fn die_somehow(sim: &Sim, seed: u64, death: Death) {
    match (&sim.world.disk, death) {
        (Some(disk), Death::Calls { count, polls }) if !seed.is_multiple_of(4) => {
            let last = disk.operations() + count;
            disk.stop_after(count);
            sim.disturbed.set(true);
            while disk.operations() <= last {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
        }
        _ => die(sim, death).await,
    }
}

async fn use_it(sim: &Sim, shard: Shard, seed: u64, life: u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let first = crowd(sim, shard, rng.random(), format!("fair{life}"));
    let takes_over = Around::of(sim.seed) == Around::TakeOvers && rng.random_bool(0.7);
    if !takes_over {
        return first.await;
    }
    let (after_ms, seed) = (rng.random_range(0..10_000), rng.random());
    join(first, take_over(sim, after_ms, seed, format!("fair{life}b"))).await;
}

/// Another process opens the database, and the first shard does not know.
async fn take_over(sim: &Sim, after_ms: u64, seed: u64, fair: String) {
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    sim.say("another opens the database");
    sim.disturbed.set(true);
    let at_ms = sim.world.time.peek_ms();
    match sim.world.open().await {
        Ok(shard) => {
            sim.say("it has it");
            sim.broken.set(None);
            {
                let mut model = sim.model.borrow_mut();
                model.died(sim.world.time.seen_ms());
                model.opened(at_ms);
            }
            note_opened(sim);
            crowd(sim, shard, seed, fair).await;
        }
        Err(error) => sim.say(format!("it does not get it: {error}")),
    }
}

/// Lets all actors use the shard until they are done, or it is out of service.
async fn crowd(sim: &Sim, shard: Shard, seed: u64, fair: String) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all: Vec<LocalBoxFuture<'_, Result<(), Gone>>> = Vec::new();
    let actor = |name: &str, rng: &mut StdRng| {
        Actor::new(Caller::new(sim, shard.clone(), name), rng.random())
    };
    actor("first look", &mut rng).caller.counts_fit();
    for number in 0..rng.random_range(1..4) {
        let client = actor(&format!("client {number}"), &mut rng);
        all.push(Box::pin(client.be_wide_client(rng.random_range(1..40))));
    }
    for number in 0..rng.random_range(1..5) {
        let worker = actor(&format!("worker {number}"), &mut rng);
        all.push(Box::pin(worker.be_wide_worker(rng.random_range(1..15))));
    }
    let refresher = actor("refresher", &mut rng);
    all.push(Box::pin(refresher.be_refresher(rng.random_range(0..8))));
    let judge = actor("fair", &mut rng);
    all.push(Box::pin(judge.be_fair(fair, rng.random_range(0..3))));
    let late = actor("late", &mut rng);
    all.push(Box::pin(late.be_late(rng.random_range(0..15))));
    let may_jump = Around::of(sim.seed) == Around::Jumps || sim.seed % 16 == 3;
    let chaos = actor("chaos", &mut rng);
    all.push(Box::pin(chaos.be_chaos(rng.random_range(0..5), may_jump)));
    let done = join_all(all).await;
    all_are_done(sim, shard, &done, &mut rng).await;
}

/// Ends a run: the store works again, and so do all actors. Every job ends, and stays so.
pub fn end(sim: &Sim) {
    end_by(sim, END_PATIENCE, async |are_all_known| finish(sim, are_all_known).await);
}

/// Finishes everything. `are_all_known`: each job is known.
async fn finish(sim: &Sim, are_all_known: bool) {
    sim.world.faults.land_all().await;
    let shard = open(sim).await.expect("the store works");
    let caller = |name: &str| Caller::new(sim, shard.clone(), name);
    caller("end").counts_fit();
    let groups: BTreeSet<String> = {
        let model = sim.model.borrow();
        let used = model.jobs.iter().map(|known| known.spec.group.to_string());
        used.chain(model.bounds.groups.keys().map(ToString::to_string)).collect()
    };
    for of in &groups {
        caller("end").set_paused(&group(of), false).await.expect("the store works");
    }
    let working = join_all(groups.iter().map(|of| work_on(caller(of), of)));
    tokio::select! {
        biased;
        () = all_end(caller("end")) => {}
        _ = join(working, refresh(caller("refresher"))) => {}
    }
    let counts = shard.counts();
    let is_idle = counts.active == 0 || !are_all_known;
    assert!(is_idle, "all have ended: {counts:?} {:?}", shard.groups());
    shard.close().await.expect("the store works");
}

async fn refresh(caller: Caller<'_>) {
    loop {
        let got = caller.lease_refresher(Duration::from_secs(60)).await.expect("the store works");
        if let Some(leased) = got {
            caller.refresh(&leased, 3).await.expect("the store works");
        }
    }
}

async fn all_end(caller: Caller<'_>) {
    let works = "the store works";
    let count = caller.sim.model.borrow().jobs.len();
    for number in 0..count {
        if caller.sim.model.borrow().jobs[number].spec.start_at_ms < FAR_MS {
            caller.show(number).await.expect(works);
            caller.await_end(number).await.expect(works);
        }
    }
    for limit in [2, 1000] {
        caller.list(&everything(limit)).await.expect(works);
        for state in
            [JobState::Succeeded, JobState::Failed, JobState::Cancelled, JobState::Scheduled]
        {
            let query = skerry_jobs::shard::Query { state: Some(state), ..everything(limit) };
            caller.list(&query).await.expect(works);
        }
        for name in TENANTS {
            let mut query = everything(limit);
            query.tenant = Some(tenant(name));
            query.metadata = Some(("kind".to_owned(), "a".to_owned()));
            caller.list(&query).await.expect(works);
            query.is_prefix = true;
            caller.list(&query).await.expect(works);
        }
    }
    for name in TENANTS {
        let number = anchor(&caller, &tenant(name));
        caller.sim.model.borrow_mut().bounds.floating(&tenant(name)).is_anchored = false;
        caller.cancel(number).await.expect(works);
        caller.await_refresher(&tenant(name)).await.expect(works);
    }
}
