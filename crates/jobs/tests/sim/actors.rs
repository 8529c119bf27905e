//! Users of the shard: clients that hang up, and workers that are slow, silent, or repeat reports.
//! One actor makes calls that are long out of date, and one disturbs the store and the clock.

use crate::calls::{Caller, Gone};
use crate::sim::Sim;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_jobs::job::{AttemptNo, Ending, JobError};
use skerry_jobs::limit::{Limit, LimitKind};
use skerry_jobs::name::{Group, JobId, LimitKey, Tenant};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::Outcome;
use skerry_jobs::spec::JobSpec;
use skerry_store::objects::faulty::FaultPlan;
use std::time::Duration;

/// The task groups of the simulation.
pub const GROUPS: [&str; 2] = ["one", "two"];

/// A task group.
pub fn group(name: &str) -> Group {
    Group::new(name).expect("a name")
}

/// A user with dice of its own.
pub struct Actor<'a> {
    pub caller: Caller<'a>,
    pub rng: StdRng,
}

/// Is polled `count` times without being ready.
async fn yields(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

impl<'a> Actor<'a> {
    pub fn new(caller: Caller<'a>, seed: u64) -> Self {
        Self { caller, rng: StdRng::seed_from_u64(seed) }
    }

    pub fn sim(&self) -> &'a Sim {
        self.caller.sim
    }

    pub fn chance(&mut self, of_a_hundred: u32) -> bool {
        self.rng.random_range(0..100) < of_a_hundred
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    pub async fn pause(&mut self, max_ms: u64) {
        let ms = self.rng.random_range(0..=max_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Makes a call, and now and then hangs up before the answer.
    pub async fn cut<T>(
        &mut self,
        call: impl Future<Output = Result<T, Gone>>,
    ) -> Result<Option<T>, Gone> {
        match self.rng.random_range(0..100) {
            0..6 => {
                let count = self.rng.random_range(1..12);
                tokio::select! { biased; said = call => said.map(Some), () = yields(count) => Ok(None) }
            }
            6..12 => {
                let time = Duration::from_millis(self.rng.random_range(1..200));
                tokio::time::timeout(time, call).await.map_or(Ok(None), |said| said.map(Some))
            }
            _ => call.await.map(Some),
        }
    }

    pub fn limits(&mut self) -> Vec<Limit> {
        let kinds = [
            ("alone", LimitKind::Concurrency { max: 1 }),
            ("few", LimitKind::Concurrency { max: 2 }),
            ("rate", LimitKind::Rate { count: 1, per_ms: 4_000, burst: 3 }),
        ];
        let limit = |(key, kind)| Limit { key: LimitKey::new(key).expect("a name"), kind };
        kinds.into_iter().filter(|_| self.rng.random_ratio(1, 3)).map(limit).collect()
    }

    pub fn spec(&mut self) -> JobSpec {
        let number = self.sim().model.borrow().jobs.len();
        let now_ms = self.sim().world.time.peek_ms();
        let retries = self.rng.random_range(0..4);
        let initial_ms = self.pick(&[0, 50, 1_000]);
        JobSpec {
            id: self.chance(85).then(|| JobId::new(&format!("job{number}")).expect("a name")),
            tenant: Tenant::new(self.pick(&["red", "blue"])).expect("a name"),
            group: group(self.pick(&GROUPS)),
            priority: self.pick(&[0, 50, 50, 99]),
            start_at_ms: self.pick(&[0, 0, 0, now_ms + 500, now_ms + 20_000]),
            retry: RetryPolicy { retries, initial_ms, ..RetryPolicy::default() },
            metadata: vec![("number".to_owned(), number.to_string())],
            lease_ms: self.pick(&[100, 1_000, 10_000, 60_000]),
            limits: self.limits(),
            ..JobSpec::default()
        }
    }

    pub fn any_job(&mut self) -> Option<usize> {
        let count = self.sim().model.borrow().jobs.len();
        // Mostly a new one: old ones have ended.
        let from = if self.chance(70) { count.saturating_sub(8) } else { 0 };
        (count > 0).then(|| self.rng.random_range(from..count))
    }

    /// Asks for jobs, changes them, looks at them.
    pub async fn be_client(mut self, steps: u32) -> Result<(), Gone> {
        for _ in 0..steps {
            self.client_step().await?;
            if self.chance(60) {
                self.pause(400).await;
            }
        }
        Ok(())
    }

    async fn client_step(&mut self) -> Result<(), Gone> {
        let caller = self.caller.clone();
        let dice = self.rng.random_range(0..100);
        if dice < 40 {
            let spec = self.spec();
            let number = self.sim().model.borrow_mut().add(spec);
            return self.cut(caller.enqueue(number)).await.map(drop);
        }
        let Some(number) = self.any_job() else { return Ok(()) };
        let has_id = self.sim().model.borrow().jobs[number].spec.id.is_some();
        match dice {
            40..55 if has_id => self.cut(caller.enqueue(number)).await.map(drop),
            40..65 => self.cut(caller.cancel(number)).await.map(drop),
            65..75 => self.cut(caller.expedite(number)).await.map(drop),
            75..85 => {
                let priority = self.pick(&[0, 7, 50, 99]);
                self.cut(caller.set_priority(number, priority)).await.map(drop)
            }
            85..95 => self.cut(caller.show(number)).await.map(drop),
            _ => {
                let patience = Duration::from_millis(self.rng.random_range(0..20_000));
                let waited = tokio::time::timeout(patience, caller.await_end(number)).await;
                assert!(
                    waited.is_ok() || caller.is_breaking(),
                    "who waits for an end was not told"
                );
                waited.unwrap_or(Ok(()))
            }
        }
    }

    /// Takes work, and does it more or less.
    pub async fn be_worker(mut self, rounds: u32) -> Result<(), Gone> {
        let caller = self.caller.clone();
        for _ in 0..rounds {
            let (max, patience_ms) = (self.rng.random_range(1..4), self.pick(&[0, 100, 5_000]));
            let (of, patience) = (group(self.pick(&GROUPS)), Duration::from_millis(patience_ms));
            let got = self.cut(caller.lease(&of, max, patience)).await?.unwrap_or_default();
            for (number, leased) in got {
                let lease_ms = u64::from(leased.job.spec.lease_ms);
                self.work(number, leased.lease.attempt, lease_ms).await?;
            }
        }
        Ok(())
    }

    pub async fn work(
        &mut self,
        number: usize,
        attempt: AttemptNo,
        lease_ms: u64,
    ) -> Result<(), Gone> {
        let caller = self.caller.clone();
        match self.rng.random_range(0..100) {
            // The worker dies.
            0..12 => return Ok(()),
            12..50 => {
                for _ in 0..self.rng.random_range(0..4) {
                    self.pause(lease_ms).await;
                    if !caller.heartbeat(number, attempt)? && self.chance(70) {
                        self.cut(caller.report(number, attempt, Outcome::Cancelled)).await?;
                        return Ok(());
                    }
                }
            }
            50..65 => self.pause(lease_ms * 2).await,
            _ => self.pause(20).await,
        }
        let outcome = self.outcome();
        let said = self.cut(caller.report(number, attempt, outcome.clone())).await?;
        if said.is_none() || self.chance(10) {
            self.cut(caller.report(number, attempt, outcome)).await?;
        }
        Ok(())
    }

    pub fn outcome(&mut self) -> Outcome {
        let is_final = self.chance(20);
        let (code, message) = ("E".to_owned(), self.rng.random_range(0..9u32).to_string());
        match self.rng.random_range(0..100) {
            0..60 => Outcome::Succeeded(message.into()),
            60..95 => Outcome::Failed(JobError { code, message, is_final }),
            _ => Outcome::Cancelled,
        }
    }

    /// Repeats reports, and makes calls with ended leases.
    pub async fn be_late(mut self, steps: u32) -> Result<(), Gone> {
        let caller = self.caller.clone();
        for _ in 0..steps {
            self.pause(600).await;
            let Some((number, attempt)) = self.any_lease() else { continue };
            let tried = self.sim().model.borrow().jobs[number].leases[&attempt].tried.clone();
            if tried.is_empty() || self.chance(30) {
                caller.heartbeat(number, attempt)?;
                continue;
            }
            let again = self.pick(&tried);
            let other = self.outcome();
            let outcome = if self.chance(60) { outcome_of(&again) } else { other };
            self.cut(caller.report(number, attempt, outcome)).await?;
        }
        Ok(())
    }

    pub fn any_lease(&mut self) -> Option<(usize, AttemptNo)> {
        let leases: Vec<(usize, AttemptNo)> = {
            let model = self.sim().model.borrow();
            let all = model.jobs.iter().enumerate();
            all.flat_map(|(number, known)| known.leases.keys().map(move |no| (number, *no)))
                .collect()
        };
        (!leases.is_empty()).then(|| self.pick(&leases))
    }

    /// Makes the store fail and sets the wall clock.
    pub async fn be_chaos(mut self, steps: u32, may_jump: bool) -> Result<(), Gone> {
        for _ in 0..steps {
            self.pause(3_000).await;
            let sim = self.sim();
            match self.rng.random_range(0..100) {
                0..35 if may_jump => {
                    let by_ms = self.pick(&[-30_000, -1_500, -300, 300, 1_500, 30_000]);
                    sim.say(format!("the clock is set by {by_ms} ms"));
                    sim.jumped.set(true);
                    sim.model.borrow_mut().bounds.clock_was_set = true;
                    sim.world.time.jump(by_ms);
                }
                0..50 => {
                    sim.say("the store is away");
                    sim.disturbed.set(true);
                    sim.world.faults.kill();
                    self.pause(2_000).await;
                    sim.world.faults.revive();
                    sim.say("the store is back");
                }
                50..80 => {
                    sim.say("the store is rough");
                    sim.disturbed.set(true);
                    let stop_after = None;
                    sim.world.faults.set_plan(FaultPlan { stop_after, ..FaultPlan::rough() });
                }
                _ => {
                    sim.say("the store is calm");
                    sim.world.faults.set_plan(FaultPlan::default());
                }
            }
        }
        Ok(())
    }
}

/// The outcome of an earlier report, to be repeated.
fn outcome_of(ending: &Ending) -> Outcome {
    match ending {
        Ending::Succeeded(result) => Outcome::Succeeded(result.clone()),
        Ending::Failed(error) => Outcome::Failed(error.clone()),
        Ending::Expired | Ending::Cancelled | Ending::Returned | Ending::TooLong => {
            Outcome::Cancelled
        }
    }
}
