//! Actors that do what the first family of runs does not. They restart, delete, list and pause,
//! bring jobs from elsewhere, give work back, refresh limits, and check whose turn it is.

use crate::actors::{Actor, GROUPS, group};
use crate::bounds::FLOATING_INITIAL;
use crate::calls::{Caller, Gone};
use crate::changes::{FLOATING, REFRESHERS};
use crate::known::Known;
use crate::listing::{FAR_MS, everything};
use rand::RngExt;
use skerry_jobs::job::{Attempt, AttemptNo, Ending, Epoch, JobError, JobState};
use skerry_jobs::limit::{Limit, LimitKind};
use skerry_jobs::name::{JobId, LimitKey, Tenant, Worker};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{Imported, Leased, Outcome, Query};
use skerry_jobs::spec::JobSpec;
use std::collections::BTreeMap;
use std::time::Duration;

/// The tenants of the jobs.
pub const TENANTS: [&str; 2] = ["red", "blue"];

pub fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a name")
}

pub fn floating() -> Limit {
    let group = group(REFRESHERS);
    let kind = LimitKind::Floating { initial: FLOATING_INITIAL, refresh_ms: 1_500, group };
    Limit { key: LimitKey::new(FLOATING).expect("a name"), kind }
}

/// The number of the job that keeps a tenant's floating limit known: it waits for ever, and no
/// actor touches it.
pub fn anchor(caller: &Caller<'_>, tenant: &Tenant) -> usize {
    let mut model = caller.sim.model.borrow_mut();
    let is_it = |known: &Known| known.spec.start_at_ms >= FAR_MS && known.spec.tenant == *tenant;
    let there = model.jobs.iter().position(is_it);
    there.unwrap_or_else(|| {
        let id = Some(JobId::new("anchor").expect("a name"));
        let (tenant, group, limits) = (tenant.clone(), group("one"), vec![floating()]);
        model.add(JobSpec { id, tenant, group, limits, start_at_ms: FAR_MS, ..JobSpec::default() })
    })
}

/// Attempts elsewhere of a job in this state.
pub fn history(state: JobState, count: u32) -> Vec<Attempt> {
    let attempt = |at: u32, ending: Option<Ending>| Attempt {
        number: AttemptNo(99),
        epoch: Epoch(0),
        worker: Worker::new("elsewhere").expect("a name"),
        started_ms: 1_600_000_000_000 + u64::from(at) * 1_000,
        ended: ending.map(|ending| (1_600_000_000_500 + u64::from(at) * 1_000, ending)),
    };
    let failed = |is_final| {
        Some(Ending::Failed(JobError { code: "E".into(), message: "there".into(), is_final }))
    };
    let before = (0..count).map(|at| match at % 3 {
        0 => attempt(at, Some(Ending::Expired)),
        1 => attempt(at, failed(false)),
        _ => attempt(at, Some(Ending::Returned)),
    });
    let last = match state {
        JobState::Scheduled => return before.collect(),
        JobState::Running => attempt(count, None),
        JobState::Succeeded => attempt(count, Some(Ending::Succeeded("there".into()))),
        JobState::Failed => attempt(count, failed(true)),
        JobState::Cancelled => attempt(count, Some(Ending::Cancelled)),
    };
    before.chain([last]).collect()
}

impl Actor<'_> {
    fn wide_spec(&mut self) -> JobSpec {
        let mut spec = self.spec();
        spec.metadata.push(("kind".to_owned(), self.pick(&["a", "ab", "b"]).to_owned()));
        if self.chance(25) {
            spec.limits.push(floating());
        }
        if self.chance(30)
            && let Some((tenant, id)) = self.free_id()
        {
            (spec.tenant, spec.id) = (tenant, Some(id));
        }
        spec
    }

    /// An id whose job was deleted.
    fn free_id(&mut self) -> Option<(Tenant, JobId)> {
        let free: Vec<(Tenant, JobId)> = {
            let model = self.sim().model.borrow();
            let called = |known: &Known| Some((known.spec.tenant.clone(), known.spec.id.clone()?));
            let gone = model.jobs.iter().filter(|known| known.facts.gone_ms.is_some());
            let is_used = |name: &(Tenant, JobId)| {
                let mut others = model.jobs.iter().filter(|known| known.facts.gone_ms.is_none());
                others.any(|known| called(known).as_ref() == Some(name))
            };
            gone.filter_map(called).filter(|name| !is_used(name)).collect()
        };
        (!free.is_empty()).then(|| self.pick(&free))
    }

    fn imported(&mut self) -> Imported {
        let state = self.pick(&[
            JobState::Scheduled,
            JobState::Running,
            JobState::Succeeded,
            JobState::Failed,
            JobState::Cancelled,
        ]);
        let count = self.rng.random_range(0..4);
        let retry = RetryPolicy { retries: 5, ..RetryPolicy::default() };
        let spec = JobSpec { retry, limits: Vec::new(), ..self.wide_spec() };
        let attempts = history(state, count);
        let (created_ms, ended_ms) = (1_600_000_000_000, 1_600_000_090_000);
        let ended_ms = state.is_final().then_some(ended_ms);
        Imported { spec, state, created_ms, ended_ms, attempts }
    }

    fn query(&mut self) -> Query {
        let limit = self.pick(&[1, 3, 100]);
        let mut query = everything(limit);
        query.tenant = self.chance(60).then(|| tenant(self.pick(&TENANTS)));
        query.group = self.chance(30).then(|| group(self.pick(&GROUPS)));
        let states =
            [JobState::Scheduled, JobState::Running, JobState::Succeeded, JobState::Failed];
        query.state = self.chance(50).then(|| self.pick(&states));
        if query.tenant.is_some() && self.chance(50) {
            query.metadata = Some(("kind".to_owned(), self.pick(&["", "a", "ab", "c"]).to_owned()));
            query.is_prefix = self.chance(50);
        }
        query
    }

    /// Does what clients do, and everything else.
    pub async fn be_wide_client(mut self, steps: u32) -> Result<(), Gone> {
        let caller = self.caller.clone();
        for name in TENANTS {
            let number = anchor(&caller, &tenant(name));
            if self.cut(caller.enqueue(number)).await?.is_some() {
                caller.sim.model.borrow_mut().bounds.floating(&tenant(name)).is_anchored = true;
            }
        }
        for _ in 0..steps {
            self.wide_step().await?;
            self.caller.counts_fit();
            if self.chance(60) {
                self.pause(400).await;
            }
        }
        Ok(())
    }

    async fn wide_step(&mut self) -> Result<(), Gone> {
        let caller = self.caller.clone();
        let dice = self.rng.random_range(0..100);
        match dice {
            0..26 => {
                let spec = self.wide_spec();
                let number = self.sim().model.borrow_mut().add(spec);
                return self.cut(caller.enqueue(number)).await.map(drop);
            }
            26..34 => {
                let imported = self.imported();
                let number = {
                    let mut model = self.sim().model.borrow_mut();
                    let number = model.add(imported.spec.clone());
                    model.jobs[number].cancel_tried = imported.state == JobState::Cancelled;
                    model.jobs[number].imported = Some(imported);
                    number
                };
                return self.cut(caller.enqueue(number)).await.map(drop);
            }
            34..42 => {
                let query = self.query();
                return self.cut(caller.list(&query)).await.map(drop);
            }
            42..50 => {
                let (of, paused) = (group(self.pick(&GROUPS)), self.chance(40));
                return self.cut(caller.set_paused(&of, paused)).await.map(drop);
            }
            _ => {}
        }
        let number = if dice < 66 { self.ended_job() } else { None };
        match number.or_else(|| self.any_job()) {
            Some(number) => self.change_or_look(dice, number).await,
            None => Ok(()),
        }
    }

    /// Mostly one that has certainly ended.
    fn ended_job(&mut self) -> Option<usize> {
        let ended: Vec<usize> = {
            let model = self.sim().model.borrow();
            let all = model.jobs.iter().enumerate();
            all.filter(|(_, known)| known.facts.finished.is_some()).map(|(no, _)| no).collect()
        };
        (!ended.is_empty() && self.chance(70)).then(|| self.pick(&ended))
    }

    async fn change_or_look(&mut self, dice: u32, number: usize) -> Result<(), Gone> {
        let caller = self.caller.clone();
        let (is_ours, may_ask) = {
            let known = &self.sim().model.borrow().jobs[number];
            let is_ours = GROUPS.contains(&known.spec.group.as_str());
            let may_ask = known.spec.id.is_some() && !known.delete_tried;
            (is_ours && known.spec.start_at_ms < FAR_MS, may_ask)
        };
        match dice {
            _ if !is_ours => self.cut(caller.show(number)).await.map(drop),
            50..55 if may_ask => self.cut(caller.enqueue(number)).await.map(drop),
            50..66 => self.cut(caller.restart(number)).await.map(drop),
            66..75 => self.cut(caller.delete(number)).await.map(drop),
            75..83 => self.cut(caller.cancel(number)).await.map(drop),
            83..86 => self.cut(caller.expedite(number)).await.map(drop),
            86..89 => {
                let priority = self.pick(&[0, 7, 50, 99]);
                self.cut(caller.set_priority(number, priority)).await.map(drop)
            }
            89..96 => self.cut(caller.show(number)).await.map(drop),
            _ => {
                let patience = Duration::from_millis(self.rng.random_range(0..20_000));
                let waited = tokio::time::timeout(patience, caller.await_end(number)).await;
                assert!(waited.is_ok() || caller.is_breaking(), "who waits was not told");
                waited.unwrap_or(Ok(()))
            }
        }
    }

    /// Takes work, and now and then gives it back.
    pub async fn be_wide_worker(mut self, rounds: u32) -> Result<(), Gone> {
        let caller = self.caller.clone();
        for _ in 0..rounds {
            let (max, patience_ms) = (self.rng.random_range(1..5), self.pick(&[0, 100, 5_000]));
            let (of, patience) = (group(self.pick(&GROUPS)), Duration::from_millis(patience_ms));
            let got = self.cut(caller.lease(&of, max, patience)).await?.unwrap_or_default();
            for (number, leased) in got {
                let attempt = leased.lease.attempt;
                match self.rng.random_range(0..100) {
                    0..6 => caller.give_back(number, attempt),
                    6..14 => {
                        self.cut(caller.report(number, attempt, Outcome::Returned)).await?;
                    }
                    _ => {
                        let lease_ms = u64::from(leased.job.spec.lease_ms);
                        self.work(number, attempt, lease_ms).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Reports how many jobs may run under floating limits, unless it dies.
    pub async fn be_refresher(mut self, rounds: u32) -> Result<(), Gone> {
        let caller = self.caller.clone();
        for _ in 0..rounds {
            let got = self.cut(caller.lease_refresher(Duration::from_secs(5))).await?.flatten();
            let Some(leased) = got else { continue };
            self.refresh(&leased).await?;
        }
        Ok(())
    }

    async fn refresh(&mut self, leased: &Leased) -> Result<(), Gone> {
        let caller = self.caller.clone();
        let max = self.pick(&[0, 1, 1, 2, 4]);
        match self.rng.random_range(0..100) {
            0..15 => return Ok(()),
            15..25 => caller.refresh_with_nonsense(leased).await?,
            25..40 => self.pause(70_000).await,
            _ => self.pause(300).await,
        }
        self.cut(caller.refresh(leased, max)).await.map(drop)
    }

    /// Has a task group for itself, and checks the order of its jobs.
    pub async fn be_fair(mut self, of: String, rounds: u32) -> Result<(), Gone> {
        let (caller, of) = (self.caller.clone(), group(&of));
        for _ in 0..rounds {
            self.pause(3_000).await;
            caller.set_paused(&of, true).await?;
            let count = self.rng.random_range(2..9);
            for _ in 0..count {
                let spec = JobSpec {
                    id: None,
                    tenant: tenant(self.pick(&["red", "red", "blue", "green"])),
                    group: of.clone(),
                    priority: self.pick(&[0, 50, 99]),
                    ..JobSpec::default()
                };
                let number = caller.sim.model.borrow_mut().add(spec);
                caller.enqueue(number).await?;
            }
            let waits = caller.lease(&of, count, Duration::from_secs(60));
            let got = if self.chance(50) {
                caller.set_paused(&of, false).await?;
                waits.await?
            } else {
                let resumes = async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    caller.set_paused(&of, false).await
                };
                let (got, resumed) = futures::join!(waits, resumes);
                resumed?;
                got?
            };
            let may_fail = caller.is_old() || caller.sim.disturbed.get();
            assert!(!got.is_empty() || may_fail, "{of} was resumed, and who waits got nothing");
            turns_are_taken(&got);
            for (number, leased) in got {
                let outcome = Outcome::Succeeded("fair".into());
                caller.report(number, leased.lease.attempt, outcome).await?;
            }
        }
        Ok(())
    }
}

/// Checks that tenants took turns, a job each, as long as they had any; within a tenant priority
/// decided, then age.
fn turns_are_taken(got: &[(usize, Leased)]) {
    let all = got.iter().filter(|(_, leased)| leased.lease.attempt.0 == 1);
    let all: Vec<_> = all.map(|(_, leased)| &leased.job).collect();
    let mut had: BTreeMap<&Tenant, usize> = BTreeMap::new();
    for (at, job) in all.iter().enumerate() {
        let count = *had.entry(&job.spec.tenant).and_modify(|had| *had += 1).or_insert(1);
        for later in &all[at + 1..] {
            let other = &later.spec.tenant;
            let other_had = had.get(other).copied().unwrap_or(0);
            assert!(other_had + 1 >= count, "{other} waits for {}", job.spec.tenant);
            let order = |job: &skerry_jobs::job::Job| (job.spec.priority, job.seq);
            let is_next = *other != job.spec.tenant || order(job) < order(later);
            assert!(is_next, "{later:?} was to come before {job:?}");
        }
    }
}
