//! The state machine against a naïve one that looks at every job each time. Checks that a job that
//! is given out may run, and that no better one could have been given out. Also checks that tenants
//! take turns, and that no job waits that could run.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_jobs::ErrorKind;
use skerry_jobs::job::{AttemptNo, Job, JobRef, JobState, Lease, Seq};
use skerry_jobs::limit::{Drained, Limit, LimitKind};
use skerry_jobs::machine::{
    Cancelled, Expired, GroupCounts, Hold, Machine, Next, Over, Pace, Report, Why,
};
use skerry_jobs::name::{Group, JobId, LimitKey, Tenant};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::spec::JobSpec;
use skerry_testkit::Search;
use std::collections::{BTreeMap, BTreeSet};

const STEPS: usize = 400;

/// A job as the naïve machine has it.
#[derive(Debug, Clone)]
struct Known {
    job: Job,
    /// Time when its worker's lease ends.
    expires_ms: Option<u64>,
    /// Time when its attempt has taken as long as it may.
    run_end_ms: Option<u64>,
}

impl Known {
    /// Gives the job to a worker; gives the end of the lease without a heartbeat.
    fn lease_until(&mut self, now_ms: u64) -> u64 {
        let lease_ms = now_ms + u64::from(self.job.spec.lease_ms);
        let until_ms = self.run_end_ms.map_or(lease_ms, |end_ms| end_ms.min(lease_ms));
        self.expires_ms = Some(until_ms.max(now_ms + 1));
        until_ms.max(now_ms + 1)
    }

    fn begin_run(&mut self, begun_ms: u64) {
        let max_ms = u64::from(self.job.spec.max_run_ms);
        self.run_end_ms = (max_ms > 0).then_some(begun_ms + max_ms);
    }
}

/// Bucket of a rate: time when it is full again, microseconds.
#[derive(Debug, Clone, Copy)]
struct Tokens {
    full_at_us: u64,
}

#[derive(Debug, Default)]
struct Naive {
    now_ms: u64,
    jobs: BTreeMap<Seq, Known>,
    kinds: BTreeMap<(Tenant, LimitKey), LimitKind>,
    floating: BTreeMap<(Tenant, LimitKey), u32>,
    tokens: BTreeMap<(Tenant, LimitKey), Tokens>,
    paused: BTreeSet<Group>,
    /// For each tenant of a group that could run: how often other tenants had their turn since.
    passed_over: BTreeMap<(Group, Tenant), BTreeMap<Tenant, u32>>,
}

impl Naive {
    fn users(&self, tenant: &Tenant, key: &LimitKey) -> impl Iterator<Item = &Known> {
        let under = move |known: &&Known| {
            known.job.spec.tenant == *tenant
                && known.job.spec.limits.iter().any(|limit| limit.key == *key)
        };
        self.jobs.values().filter(under)
    }

    fn has_room(&self, tenant: &Tenant, limit: &Limit) -> bool {
        let key = (tenant.clone(), limit.key.clone());
        let held =
            self.users(tenant, &limit.key).filter(|known| known.expires_ms.is_some()).count();
        match self.kinds.get(&key).unwrap_or(&limit.kind) {
            LimitKind::Concurrency { max } => held < *max as usize,
            LimitKind::Floating { initial, .. } => {
                held < *self.floating.get(&key).unwrap_or(initial) as usize
            }
            LimitKind::Rate { count, per_ms, burst } => {
                let period = (u64::from(*per_ms) * 1000).div_ceil(u64::from(*count));
                let full_at_us = self.tokens.get(&key).map_or(0, |tokens| tokens.full_at_us);
                full_at_us + period <= self.now_ms * 1000 + period * u64::from(*burst)
            }
        }
    }

    fn may_run(&self, known: &Known) -> bool {
        let spec = &known.job.spec;
        known.expires_ms.is_none()
            && spec.start_at_ms <= self.now_ms
            && !self.paused.contains(&spec.group)
            && spec.limits.iter().all(|limit| self.has_room(&spec.tenant, limit))
    }

    fn take_tokens(&mut self, seq: Seq) {
        let spec = self.jobs[&seq].job.spec.clone();
        for limit in &spec.limits {
            let key = (spec.tenant.clone(), limit.key.clone());
            if let Some(LimitKind::Rate { count, per_ms, .. }) = self.kinds.get(&key) {
                let period = (u64::from(*per_ms) * 1000).div_ceil(u64::from(*count));
                let tokens = self.tokens.entry(key).or_insert(Tokens { full_at_us: 0 });
                tokens.full_at_us = tokens.full_at_us.max(self.now_ms * 1000) + period;
            }
        }
    }

    /// Puts a job under its limits.
    fn define_limits(&mut self, spec: &JobSpec) {
        self.forget_limits();
        for limit in &spec.limits {
            let key = (spec.tenant.clone(), limit.key.clone());
            self.kinds.insert(key, limit.kind.clone());
        }
    }

    /// Forgets limits without jobs, and rates without jobs whose bucket is full.
    fn forget_limits(&mut self) {
        let used: BTreeSet<_> = self
            .jobs
            .values()
            .flat_map(|known| {
                let spec = &known.job.spec;
                spec.limits.iter().map(|limit| (spec.tenant.clone(), limit.key.clone()))
            })
            .collect();
        self.kinds.retain(|key, _| used.contains(key));
        self.floating.retain(|key, _| used.contains(key));
        let now_us = self.now_ms * 1000;
        self.tokens.retain(|key, tokens| used.contains(key) || tokens.full_at_us > now_us);
    }

    /// Tenants that could not run lose their claim to be next.
    fn note_turns(&mut self) {
        let able: BTreeSet<(Group, Tenant)> = self
            .jobs
            .values()
            .filter(|known| self.may_run(known))
            .map(|known| (known.job.spec.group.clone(), known.job.spec.tenant.clone()))
            .collect();
        self.passed_over.retain(|key, _| able.contains(key));
        for key in able {
            self.passed_over.entry(key).or_default();
        }
    }

    fn took_turn(&mut self, group: &Group, tenant: &Tenant) {
        self.passed_over.remove(&(group.clone(), tenant.clone()));
        for ((of, waiting), others) in &mut self.passed_over {
            if of == group {
                let turns = others.entry(tenant.clone()).or_default();
                *turns += 1;
                assert!(*turns <= 1, "{tenant} had two turns while {waiting} could run");
            }
        }
    }
}

/// Both machines, and the dice.
struct Run {
    rng: StdRng,
    machine: Machine,
    naive: Naive,
    next_seq: u64,
    leases: Vec<Lease>,
    /// Leases whose workers promised a heartbeat before they begin, and have sent none.
    unbegun: BTreeSet<Lease>,
    /// Milliseconds by which the clock was set forward since the machine was made.
    stepped_ms: u64,
    ended: Vec<Job>,
    /// Rows of rates, which outlive the machine.
    rates: BTreeMap<(Tenant, LimitKey), Drained>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let naive = Naive { now_ms: 1_000_000, ..Naive::default() };
        let rng = StdRng::seed_from_u64(seed);
        let mut run = Self {
            rng,
            machine: Machine::default(),
            naive,
            next_seq: 1,
            leases: Vec::new(),
            unbegun: BTreeSet::new(),
            stepped_ms: 0,
            ended: Vec::new(),
            rates: BTreeMap::new(),
        };
        run.machine = run.new_machine();
        run.tick();
        run
    }

    /// Makes a machine. Every second one does so little at once that much is left to later calls.
    fn new_machine(&mut self) -> Machine {
        let machine = Machine::new(self.rng.next_u64());
        self.stepped_ms = 0;
        if self.rng.random() {
            return machine;
        }
        let [wakes, looks, timers] = [(); 3].map(|()| self.rng.random_range(1..4));
        machine.paced(Pace { wakes, looks, timers })
    }

    /// Runs everything that is due.
    fn tick(&mut self) -> Vec<Expired> {
        let now_ms = self.naive.now_ms;
        let unbegun = &self.unbegun;
        let hold = |lease| if unbegun.contains(&lease) { Hold::Unbegun } else { Hold::Begun };
        let mut all = self.machine.tick(now_ms, hold);
        while self.machine.next_ms().is_some_and(|at_ms| at_ms <= now_ms) {
            all.extend(self.machine.tick(now_ms, hold));
        }
        all
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())].clone()
    }

    /// The time that the clock shows: now and then, it went back.
    fn told_ms(&mut self) -> u64 {
        self.naive.now_ms - if self.rng.random_ratio(1, 10) { 500 } else { 0 }
    }

    fn tenant(&mut self) -> Tenant {
        Tenant::new(self.pick(&["red", "green", "blue"])).expect("a name")
    }

    fn group(&mut self) -> Group {
        Group::new(self.pick(&["one", "two"])).expect("a name")
    }

    fn limit(&mut self, number: u32) -> Limit {
        let key = LimitKey::new(&format!("limit{number}")).expect("a name");
        let kind = match number % 4 {
            0 => LimitKind::Concurrency { max: 1 },
            1 => LimitKind::Concurrency { max: self.rng.random_range(1..4) },
            2 => LimitKind::Rate { count: 3, per_ms: 1000, burst: self.rng.random_range(1..3) },
            _ => LimitKind::Floating { initial: 2, refresh_ms: 1000, group: Group::default() },
        };
        Limit { key, kind }
    }

    fn spec(&mut self) -> JobSpec {
        let mut limits = BTreeMap::new();
        for _ in 0..self.rng.random_range(0..4u32) {
            let limit = self.rng.random_range(0..6);
            limits.insert(limit, self.limit(limit));
        }
        let id = self.rng.random_range(0..60u32);
        JobSpec {
            id: (id < 40).then(|| JobId::new(&format!("job{id}")).expect("a name")),
            tenant: self.tenant(),
            group: self.group(),
            priority: self.pick(&[0, 10, 50, 50, 50, 99]),
            start_at_ms: self.pick(&[0, 0, 0, self.naive.now_ms + 300]),
            lease_ms: self.pick(&[200, 1000, 5000]),
            max_run_ms: self.pick(&[0, 0, 700, 3000]),
            retry: RetryPolicy { retries: 2, initial_ms: 50, ..RetryPolicy::default() },
            limits: limits.into_values().collect(),
            ..JobSpec::default()
        }
    }

    fn enqueue(&mut self) {
        let spec = self.spec();
        let job = Job::new(Seq(self.next_seq), spec.clone(), self.naive.now_ms);
        self.next_seq += 1;
        self.take(job);
    }

    fn take(&mut self, job: Job) {
        let is_there = self.naive.jobs.values().any(|known| {
            known.job.spec.tenant == job.spec.tenant && known.job.name() == job.name()
        });
        let told_ms = self.told_ms();
        let taken = self.machine.enqueue(&job, told_ms);
        if is_there {
            assert_eq!(taken.expect_err("it is there").kind(), ErrorKind::Exists);
            return;
        }
        taken.expect("takes it");
        self.naive.define_limits(&job.spec);
        self.naive.jobs.insert(job.seq, Known { job, expires_ms: None, run_end_ms: None });
    }

    fn lease(&mut self) {
        let (group, told_ms) = (self.group(), self.told_ms());
        assert!(self.tick().is_empty(), "time stands still");
        let mut granted = self.machine.lease(&group, told_ms);
        while granted.is_none() && self.machine.next_ms() == Some(self.naive.now_ms) {
            assert!(self.tick().is_empty(), "time stands still");
            granted = self.machine.lease(&group, told_ms);
        }
        let able: Vec<&Known> = self
            .naive
            .jobs
            .values()
            .filter(|known| known.job.spec.group == group && self.naive.may_run(known))
            .collect();
        let Some(granted) = granted else {
            assert!(able.is_empty(), "{able:?} could run, and was not given out");
            return;
        };
        let seq = granted.lease.seq;
        let given = able.iter().find(|known| known.job.seq == seq);
        let spec = given.expect("what is given out may run").job.spec.clone();
        let of_tenant = able.iter().filter(|known| known.job.spec.tenant == spec.tenant);
        let best = of_tenant.map(|known| (known.job.spec.priority, known.job.seq)).min();
        assert_eq!(best, Some((spec.priority, seq)), "something better could run");
        self.naive.take_tokens(seq);
        self.naive.took_turn(&group, &spec.tenant);
        let now_ms = self.naive.now_ms;
        let known = self.naive.jobs.get_mut(&seq).expect("known");
        let worker = skerry_jobs::name::Worker::new("w").expect("a name");
        assert_eq!(granted.lease.attempt, AttemptNo(known.job.begun().0 + 1));
        known.job.lease(granted.lease.attempt, granted.lease.epoch, worker, now_ms);
        known.begin_run(now_ms);
        assert_eq!(granted.expires_ms, known.lease_until(now_ms));
        self.leases.push(granted.lease);
        if self.rng.random_ratio(1, 4) {
            self.unbegun.insert(granted.lease);
        }
    }

    fn is_held(&self, lease: Lease) -> bool {
        self.naive
            .jobs
            .get(&lease.seq)
            .is_some_and(|known| known.expires_ms.is_some() && known.job.begun() == lease.attempt)
    }

    fn heartbeat(&mut self) {
        let Some(lease) = self.any_lease() else { return };
        let told_ms = self.told_ms();
        match self.machine.heartbeat(lease, told_ms) {
            Ok(beat) => {
                assert!(self.is_held(lease));
                let known = self.naive.jobs.get_mut(&lease.seq).expect("known");
                assert_eq!(beat.cancel_asked, known.job.cancel_asked);
                assert_eq!(beat.expires_ms, known.lease_until(self.naive.now_ms));
                self.unbegun.remove(&lease);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LeaseLost);
                assert!(!self.is_held(lease));
            }
        }
    }

    fn any_lease(&mut self) -> Option<Lease> {
        // Old leases too: a worker that has lost one may not know.
        (!self.leases.is_empty()).then(|| self.pick(&self.leases.clone()))
    }

    fn report(&mut self) {
        let Some(lease) = self.any_lease() else { return };
        let failed = Report::Failed { is_final: self.rng.random_ratio(1, 5) };
        let again = Report::Again { at_ms: self.naive.now_ms + 200 };
        let all = [Report::Succeeded, failed, failed, Report::Cancelled, Report::Returned, again];
        let report = self.pick(&all);
        let told_ms = self.told_ms();
        match self.machine.report(lease, report, told_ms) {
            Ok(next) => {
                assert!(self.is_held(lease));
                self.ended(lease, next, report);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::LeaseLost);
                assert!(!self.is_held(lease));
            }
        }
    }

    /// Checks the step after the end of an attempt.
    fn ended(&mut self, lease: Lease, next: Next, report: Report) {
        let known = self.naive.jobs.get_mut(&lease.seq).expect("known");
        known.expires_ms = None;
        let tried = known.job.begun().0 - known.job.uncounted;
        let can_retry = !known.job.cancel_asked
            && match report {
                Report::Failed { is_final } => {
                    !is_final && tried <= u32::from(known.job.spec.retry.retries)
                }
                Report::Returned | Report::Again { .. } => true,
                Report::Succeeded | Report::Cancelled => false,
            };
        match next {
            Next::Retry { at_ms } => {
                assert!(can_retry);
                match report {
                    Report::Again { at_ms: asked_ms } => assert_eq!(at_ms, asked_ms),
                    Report::Returned => assert_eq!(at_ms, self.naive.now_ms),
                    _ => assert!(at_ms > self.naive.now_ms),
                }
                known.job.wait(at_ms);
                match report {
                    Report::Again { .. } => known.job.uncounted = known.job.begun().0,
                    Report::Returned => known.job.uncounted += 1,
                    _ => {}
                }
            }
            Next::End(state) => {
                assert!(!can_retry);
                let wanted = match report {
                    Report::Succeeded => JobState::Succeeded,
                    Report::Cancelled => JobState::Cancelled,
                    _ if known.job.cancel_asked => JobState::Cancelled,
                    Report::Failed { .. } => JobState::Failed,
                    Report::Returned | Report::Again { .. } => panic!("{report:?} is no end"),
                };
                assert_eq!(state, wanted);
                self.end(lease.seq, state);
            }
        }
    }

    fn end(&mut self, seq: Seq, state: JobState) {
        let mut job = self.naive.jobs.remove(&seq).expect("known").job;
        job.finish(state, self.naive.now_ms);
        self.ended.push(job);
        self.naive.forget_limits();
    }

    fn restart(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.ended.len());
        let mut job = self.ended.swap_remove(at);
        job.restart();
        self.take(job);
    }

    fn any_job(&mut self) -> Option<(Seq, Tenant, JobRef)> {
        let jobs: Vec<_> = self.naive.jobs.values().collect();
        if jobs.is_empty() {
            return None;
        }
        let job = &jobs[self.rng.random_range(0..jobs.len())].job;
        Some((job.seq, job.spec.tenant.clone(), job.name()))
    }

    fn change(&mut self) {
        let Some((seq, tenant, name)) = self.any_job() else { return };
        let now_ms = self.told_ms();
        let is_running = self.naive.jobs[&seq].expires_ms.is_some();
        match self.rng.random_range(0..4) {
            3 => {
                let removed = self.machine.remove(&tenant, &name, now_ms);
                assert_eq!(removed.is_err(), is_running);
                if !is_running {
                    self.naive.jobs.remove(&seq);
                    self.naive.forget_limits();
                }
            }
            0 => match self.machine.cancel(&tenant, &name, now_ms).expect("it is there") {
                Cancelled::Asked => {
                    assert!(is_running);
                    self.naive.jobs.get_mut(&seq).expect("known").job.cancel_asked = true;
                }
                Cancelled::Now => {
                    assert!(!is_running);
                    self.end(seq, JobState::Cancelled);
                }
            },
            1 => {
                let priority = self.pick(&[0, 7, 50, 99]);
                let set = self.machine.set_priority(&tenant, &name, priority, now_ms);
                assert_eq!(set.is_err(), is_running);
                if !is_running {
                    self.naive.jobs.get_mut(&seq).expect("known").job.spec.priority = priority;
                }
            }
            _ => {
                let done = self.machine.expedite(&tenant, &name, now_ms);
                assert_eq!(done.is_err(), is_running);
                if !is_running {
                    self.naive.jobs.get_mut(&seq).expect("known").job.spec.start_at_ms = 0;
                }
            }
        }
    }

    /// Checks the reasons why jobs wait.
    fn why(&mut self) {
        let Some((seq, tenant, name)) = self.any_job() else { return };
        self.tick();
        let known = &self.naive.jobs[&seq];
        let spec = &known.job.spec;
        let has_room = |limit: &LimitKey| {
            let limit = spec.limits.iter().find(|of| of.key == *limit).expect("one of its own");
            self.naive.has_room(&tenant, limit)
        };
        match self.machine.why(&tenant, &name) {
            None => assert!(known.expires_ms.is_some()),
            Some(Why::Time(at_ms)) => {
                assert_eq!(at_ms, spec.start_at_ms);
                assert!(at_ms > self.naive.now_ms);
            }
            Some(Why::Paused) => assert!(self.naive.paused.contains(&spec.group)),
            Some(Why::Limit { key, running, max }) => {
                assert!(running >= max && !has_room(&key), "{key}: {running} of {max}");
            }
            Some(Why::Rate { key, at_ms }) => {
                assert!(at_ms > self.naive.now_ms && !has_room(&key), "{key}: {at_ms}");
            }
            Some(Why::Turn) => assert!(self.naive.may_run(known)),
        }
    }

    fn pause_or_resume(&mut self) {
        let group = self.group();
        if self.naive.paused.remove(&group) {
            assert!(self.machine.resume(&group));
        } else {
            self.machine.pause(&group);
            self.naive.paused.insert(group);
        }
    }

    fn set_floating(&mut self) {
        let (tenant, max) = (self.tenant(), self.rng.random_range(0..4));
        let key = LimitKey::new("limit3").expect("a name");
        self.machine.set_limit(&tenant, &key, max, self.naive.now_ms).expect("it floats");
        if self.naive.kinds.contains_key(&(tenant.clone(), key.clone())) {
            self.naive.floating.insert((tenant, key), max);
        }
    }

    /// Sets the clock forward: jobs start by the new time, and every lease goes on as long as
    /// before.
    fn step_clock(&mut self) {
        let by_ms = self.pick(&[1_500u64, 86_400_000]);
        self.stepped_ms += by_ms;
        self.machine.note_stepped(self.stepped_ms);
        self.naive.now_ms += by_ms;
        for known in self.naive.jobs.values_mut() {
            known.expires_ms = known.expires_ms.map(|at_ms| at_ms + by_ms);
            known.run_end_ms = known.run_end_ms.map(|at_ms| at_ms + by_ms);
        }
    }

    fn pass_time(&mut self) {
        self.naive.now_ms += self.pick(&[0u64, 1, 10, 100, 333, 2_000]);
        if self.rng.random_ratio(1, 50) {
            self.step_clock();
        }
        let mut wanted: BTreeSet<Lease> = BTreeSet::new();
        for known in self.naive.jobs.values() {
            if known.expires_ms.is_some_and(|at| at <= self.naive.now_ms) {
                wanted.extend(known.job.ticket().map(|ticket| ticket.lease));
            }
        }
        for expired in self.tick() {
            assert!(wanted.remove(&expired.lease), "{expired:?} is not over");
            let known = &self.naive.jobs[&expired.lease.seq];
            let wanted = match known.run_end_ms {
                _ if self.unbegun.contains(&expired.lease) => Over::Unbegun,
                Some(end_ms) if known.expires_ms >= Some(end_ms) => Over::TooLong,
                _ => Over::Silent,
            };
            assert_eq!(expired.how, wanted);
            let failed = Report::Failed { is_final: false };
            let report = if wanted == Over::Unbegun { Report::Returned } else { failed };
            self.ended(expired.lease, expired.next, report);
        }
        assert!(wanted.is_empty(), "{wanted:?} are over");
        assert!(self.machine.next_ms().is_none_or(|at| at > self.naive.now_ms));
        self.keep_rates();
        self.naive.forget_limits();
        for key in self.rates.keys() {
            assert!(self.naive.tokens.contains_key(key), "{key:?} is full, and is kept");
        }
    }

    /// Keeps the rows that outlive the machine, and checks them.
    fn keep_rates(&mut self) {
        for (tenant, key, rate) in self.machine.take_rates() {
            let key = (tenant, key);
            match rate {
                Some(rate) => self.rates.insert(key, rate),
                None => self.rates.remove(&key),
            };
        }
        let now_us = self.naive.now_ms * 1000;
        for (key, tokens) in &self.naive.tokens {
            let kept_ms = self.rates.get(key).map(|rate| rate.full_at_ms);
            if tokens.full_at_us > now_us {
                assert_eq!(kept_ms, Some(tokens.full_at_us.div_ceil(1000)), "{key:?}");
            }
        }
    }

    /// Stops the broker, and reads everything back.
    fn reopen(&mut self) {
        self.machine = self.new_machine();
        let now_ms = self.naive.now_ms;
        // The clock may have gone back since: the machine no longer knows the later time.
        assert!(self.tick().is_empty());
        self.naive.floating.clear();
        for (key, Drained { count, per_ms, burst, .. }) in &self.rates {
            let period = (u64::from(*per_ms) * 1000).div_ceil(u64::from(*count));
            let empty_us = now_ms * 1000 + period * u64::from(*burst);
            let tokens = self.naive.tokens.get_mut(key).expect("what is kept is known");
            tokens.full_at_us = tokens.full_at_us.next_multiple_of(1000).min(empty_us);
        }
        self.naive.kinds.clear();
        self.naive.passed_over.clear();
        for ((tenant, key), rate) in &self.rates {
            self.machine.restore_rate(tenant, key, *rate, now_ms);
        }
        for known in std::mem::take(&mut self.naive.jobs).into_values() {
            let mut known = known;
            if known.expires_ms.is_some() {
                self.machine.resume_running(&known.job, now_ms).expect("takes it");
                let begun_ms =
                    known.job.attempts.last().map_or(now_ms, |attempt| attempt.started_ms);
                known.begin_run(begun_ms);
                known.run_end_ms = known.run_end_ms.map(|end_ms| end_ms.max(now_ms));
                known.lease_until(now_ms);
            } else {
                self.machine.enqueue(&known.job, now_ms).expect("takes it");
            }
            self.naive.define_limits(&known.job.spec);
            self.naive.jobs.insert(known.job.seq, known);
        }
        for group in &self.naive.paused {
            self.machine.pause(group);
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..25 => self.enqueue(),
            25..55 => self.lease(),
            55..70 => self.report(),
            70..76 => self.heartbeat(),
            76..84 => self.change(),
            84..88 => self.restart(),
            88..90 => self.pause_or_resume(),
            90..92 => self.set_floating(),
            92..93 => self.why(),
            93..99 => self.pass_time(),
            _ => self.reopen(),
        }
        self.keep_rates();
        self.naive.note_turns();
        let counts = self.machine.counts();
        assert_eq!(counts.active, self.naive.jobs.len());
        let running = self.naive.jobs.values().filter(|known| known.expires_ms.is_some());
        assert_eq!(counts.running, running.count());
        self.compare_groups();
    }

    fn compare_groups(&self) {
        let mut wanted: BTreeMap<Group, GroupCounts> = BTreeMap::new();
        for group in &self.naive.paused {
            wanted.entry(group.clone()).or_default().is_paused = true;
        }
        for known in self.naive.jobs.values() {
            let counts = wanted.entry(known.job.spec.group.clone()).or_default();
            match known.expires_ms {
                Some(_) => counts.running += 1,
                None if known.job.spec.start_at_ms > self.naive.now_ms => counts.early += 1,
                None => counts.ready += 1,
            }
        }
        let groups: BTreeMap<_, _> = self.machine.groups().into_iter().collect();
        assert_eq!(groups, wanted);
    }
}

#[test]
fn random_operations_agree_with_a_naive_machine() {
    Search { name: "jobs: machine", percent: 10, least: 500 }.run(|seed| {
        let mut run = Run::new(seed);
        (0..STEPS).for_each(|_| run.step());
    });
}
