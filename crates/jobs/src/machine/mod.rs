//! The state machine of a shard: every job that has not come to its end, and what happens next.
//!
//! It is deterministic and does nothing: who calls it says what time it is, keeps what it decides, and answers
//! when that is durable. It holds no payloads. Nothing is ever searched for: what can run stands in `queues`,
//! what happens by itself in `timers`, each entry exactly as long as it is wanted.
//!
//! What must hold: a job has at most one lease; what a limit counts is the jobs that run under it, no more and no
//! less; an attempt's number is used once; a job that came to its end is not here any more.

mod limits;
mod names;
mod pool;
mod queues;
mod timers;

use crate::error::{Error, ErrorKind, Result};
use crate::job::{AttemptNo, Job, JobRef, Lease, Seq, State};
use crate::limit::{Limit, LimitKind};
use crate::name::{Group, JobId, LimitKey, Tenant};
use crate::retry::RetryPolicy;
use crate::spec::check_priority;
use hashbrown::HashTable;
use names::Names;
use pool::Pool;
use queues::{ClassNo, Place, Queues};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use timers::{Timer, Timers};

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its time has not come: the timer says when it does.
    Early,
    /// It could run.
    Ready,
    /// A worker has it, until the timer says.
    Running,
}

/// A job that has not come to its end, as far as decisions need it.
#[derive(Debug)]
struct Entry {
    seq: Seq,
    id: Option<JobId>,
    timer_ms: u64,
    class: ClassNo,
    tenant: u32,
    group: u32,
    begun: AttemptNo,
    uncounted: u32,
    lease_ms: u32,
    /// What its owner gave it.
    bytes: u32,
    retry: RetryPolicy,
    priority: u8,
    phase: Phase,
    cancel_asked: bool,
}

impl Entry {
    fn place(&self, job: u32) -> Place {
        Place { priority: self.priority, seq: self.seq.0, job }
    }
}

/// What a worker says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Done.
    Succeeded,
    /// Not done; with `is_final`, trying again is no use.
    Failed {
        /// Trying again is no use.
        is_final: bool,
    },
    /// Stopped.
    Cancelled,
    /// Given back, not begun: no failure, and somebody else's at once.
    Returned,
    /// Done for now: it runs again, not before this.
    Again {
        /// Not before this, milliseconds since 1970.
        at_ms: u64,
    },
}

/// What becomes of a job whose attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is tried again, not before this, milliseconds since 1970.
    Retry {
        /// Not before this, milliseconds since 1970.
        at_ms: u64,
    },
    /// It has come to its end.
    End(State),
}

/// A job that a worker may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// What the worker shows.
    pub lease: Lease,
    /// Until when, without a sign of life, milliseconds since 1970.
    pub expires_ms: u64,
    /// What the job's owner gave it, bytes.
    pub bytes: u32,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Until when the job is the worker's now, milliseconds since 1970.
    pub expires_ms: u64,
    /// Somebody wants the work stopped.
    pub cancel_asked: bool,
}

/// A lease that ended without a word of its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Which.
    pub lease: Lease,
    /// What becomes of the job.
    pub next: Next,
    /// Its tenant and id, if it has one.
    pub named: Option<(Tenant, JobId)>,
}

/// A limit of which a worker says again and again how many jobs it lets run at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floating {
    /// So many now.
    pub max: u32,
    /// How often a worker is asked, milliseconds.
    pub refresh_ms: u32,
    /// Which workers are asked.
    pub group: Group,
}

/// What calling a job off does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It has come to its end.
    Now,
    /// Its worker is told.
    Asked,
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// That have not come to their end.
    pub active: usize,
    /// Of these, that a worker has.
    pub running: usize,
}

/// How many jobs of a task group there are that have not come to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupCounts {
    /// Whose time has not come.
    pub early: u64,
    /// That could run, but for limits and workers.
    pub ready: u64,
    /// That a worker has.
    pub running: u64,
    /// None is given out.
    pub is_paused: bool,
}

impl GroupCounts {
    fn of(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Early => &mut self.early,
            Phase::Ready => &mut self.ready,
            Phase::Running => &mut self.running,
        }
    }
}

/// The state machine of a shard.
#[derive(Debug, Default)]
pub struct Machine {
    now_ms: u64,
    random: u64,
    jobs: Pool<Entry>,
    /// Jobs by tenant and id, or by place if they have none.
    ids: HashTable<u32>,
    hasher: RandomState,
    leased: HashMap<Seq, u32>,
    tenants: Names<Tenant>,
    groups: Names<Group>,
    paused: BTreeSet<Group>,
    by_group: HashMap<u32, GroupCounts>,
    queues: Queues,
    timers: Timers,
}

impl Machine {
    /// An empty one. `seed` decides the jitter of retries.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, ..Self::default() }
    }

    /// The time: it never goes back, whatever the clock does.
    fn set_now(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    fn now_us(&self) -> u64 {
        self.now_ms * 1000
    }

    fn next_random(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Takes a job that waits: a new one, one that is restarted, or one that was read back.
    ///
    /// # Errors
    /// `Exists` if there is one of its id; `Conflict` if a limit of its is there as another kind.
    pub fn enqueue(&mut self, job: &Job, now_ms: u64) -> Result<()> {
        self.set_now(now_ms);
        let no = self.admit(job)?;
        self.wait(no, job.spec.start_at_ms);
        self.settle();
        Ok(())
    }

    /// Takes a job that was running when the broker stopped: its worker may still have it, for one lease from now.
    ///
    /// # Errors
    /// As [`Machine::enqueue`].
    pub fn resume_running(&mut self, job: &Job, now_ms: u64) -> Result<()> {
        self.set_now(now_ms);
        let no = self.admit(job)?;
        self.queues.hold_limits(self.jobs[no].class, None);
        self.begin_lease(no);
        self.settle();
        Ok(())
    }

    fn admit(&mut self, job: &Job) -> Result<u32> {
        let tenant = self.tenants.hold(&job.spec.tenant);
        let checked = self.check_new(job, tenant);
        if let Err(error) = checked {
            self.tenants.release(tenant);
            return Err(error);
        }
        let group = self.groups.hold(&job.spec.group);
        let now_us = self.now_us();
        let limits = job.spec.limits.iter();
        let limits: Vec<u32> =
            limits.map(|l| self.queues.define_limit(tenant, &l.key, &l.kind, now_us)).collect();
        let class = self.queues.hold_class(group, tenant, &limits);
        let no = self.jobs.insert(Entry {
            seq: job.seq,
            id: job.spec.id.clone(),
            timer_ms: 0,
            class,
            tenant,
            group,
            begun: job.begun(),
            uncounted: job.uncounted,
            lease_ms: job.spec.lease_ms,
            bytes: u32::try_from(job.spec.bytes()).unwrap_or(u32::MAX),
            retry: job.spec.retry,
            priority: job.spec.priority,
            phase: Phase::Ready,
            cancel_asked: job.cancel_asked,
        });
        let hash = self.hash(tenant, &job.name());
        let (jobs, hasher) = (&self.jobs, &self.hasher);
        self.ids.insert_unique(hash, no, |no| hash_entry(hasher, &jobs[*no]));
        Ok(no)
    }

    fn check_new(&self, job: &Job, tenant: u32) -> Result<()> {
        if self.find(&job.spec.tenant, &job.name()).is_some() {
            let detail = format!("job {} of tenant {} is there", job.name(), job.spec.tenant);
            return Err(Error::new(ErrorKind::Exists, detail));
        }
        for Limit { key, kind } in &job.spec.limits {
            let Some(no) = self.queues.find_limit(tenant, key) else { continue };
            let there = &self.queues.limits[no].kind;
            if self.queues.limits[no].users > 0
                && std::mem::discriminant(there) != std::mem::discriminant(kind)
            {
                let detail = format!(
                    "limit {key} is a {}, and other jobs have it as a {}: give it another name",
                    kind.name(),
                    there.name()
                );
                return Err(Error::new(ErrorKind::Conflict, detail));
            }
        }
        Ok(())
    }

    fn hash(&self, tenant: u32, job: &JobRef) -> u64 {
        match job {
            JobRef::Named(id) => self.hasher.hash_one((tenant, id.as_str())),
            JobRef::Assigned(seq) => self.hasher.hash_one((tenant, seq.0)),
        }
    }

    fn find(&self, tenant: &Tenant, job: &JobRef) -> Option<u32> {
        let tenant = self.tenants.find(tenant)?;
        let is_it = |no: &u32| {
            let entry = &self.jobs[*no];
            entry.tenant == tenant
                && match job {
                    JobRef::Named(id) => entry.id.as_ref() == Some(id),
                    JobRef::Assigned(seq) => entry.id.is_none() && entry.seq == *seq,
                }
        };
        self.ids.find(self.hash(tenant, job), is_it).copied()
    }

    fn need(&self, tenant: &Tenant, job: &JobRef) -> Result<u32> {
        self.find(tenant, job).ok_or_else(|| {
            let detail = format!("tenant {tenant} has no job {job} that has not come to its end");
            Error::new(ErrorKind::NotFound, detail)
        })
    }

    /// The place of a job that has not come to its end.
    pub fn place_of(&self, tenant: &Tenant, job: &JobRef) -> Option<Seq> {
        self.find(tenant, job).map(|no| self.jobs[no].seq)
    }

    /// The job waits from now on, until `start_at_ms`.
    fn wait(&mut self, no: u32, start_at_ms: u64) {
        let now_us = self.now_us();
        if start_at_ms > self.now_ms {
            self.enter(no, Phase::Early);
            self.jobs[no].timer_ms = start_at_ms;
            self.timers.add(start_at_ms, Timer::Start(no));
        } else {
            self.enter(no, Phase::Ready);
            let entry = &self.jobs[no];
            let (class, place) = (entry.class, entry.place(no));
            self.queues.add(class, place, now_us);
        }
    }

    /// The job is in no phase until now.
    fn enter(&mut self, no: u32, phase: Phase) {
        let entry = &mut self.jobs[no];
        entry.phase = phase;
        *self.by_group.entry(entry.group).or_default().of(phase) += 1;
    }

    /// The job is in no phase from now on.
    fn leave(&mut self, no: u32) {
        let entry = &self.jobs[no];
        if let Some(counts) = self.by_group.get_mut(&entry.group) {
            *counts.of(entry.phase) -= 1;
        }
    }

    /// Takes a job out of whatever it waits in, or from its worker.
    fn stop(&mut self, no: u32) {
        self.leave(no);
        let now_us = self.now_us();
        let entry = &self.jobs[no];
        match entry.phase {
            Phase::Early => self.timers.remove(entry.timer_ms, Timer::Start(no)),
            Phase::Ready => self.queues.remove(entry.class, entry.place(no), now_us),
            Phase::Running => {
                self.timers.remove(entry.timer_ms, Timer::Expiry(no));
                self.leased.remove(&entry.seq);
                self.queues.give_limits(entry.class, now_us);
            }
        }
    }

    /// The job has come to its end.
    fn forget(&mut self, no: u32) {
        let (jobs, hasher) = (&self.jobs, &self.hasher);
        let hash = hash_entry(hasher, &jobs[no]);
        if let Ok(found) = self.ids.find_entry(hash, |other| *other == no) {
            found.remove();
        }
        let entry = self.jobs.remove(no);
        self.queues.drop_class(entry.class, self.now_ms * 1000);
        if self.groups.release(entry.group) {
            self.by_group.remove(&entry.group);
        }
        self.tenants.release(entry.tenant);
    }

    /// After every change: timers of limits are where they belong, and a tenant is known as long as a limit of its is.
    fn settle(&mut self) {
        for tenant in std::mem::take(&mut self.queues.new_limits_of) {
            self.tenants.hold_again(tenant);
        }
        for tenant in std::mem::take(&mut self.queues.gone_limits_of) {
            self.tenants.release(tenant);
        }
        let now_us = self.now_us();
        self.queues.set_timers(&mut self.timers, now_us);
    }

    /// The next job for a worker of a task group, if there is one that may run.
    pub fn lease(&mut self, group: &Group, now_ms: u64) -> Option<Granted> {
        self.set_now(now_ms);
        if self.paused.contains(group) {
            return None;
        }
        let taken = self.queues.take(self.groups.find(group)?, self.now_ms * 1000);
        let granted = taken.map(|place| {
            self.leave(place.job);
            self.jobs[place.job].begun.0 += 1;
            self.begin_lease(place.job)
        });
        self.settle();
        granted
    }

    fn begin_lease(&mut self, no: u32) -> Granted {
        self.enter(no, Phase::Running);
        let entry = &mut self.jobs[no];
        entry.timer_ms = self.now_ms + u64::from(entry.lease_ms);
        self.timers.add(entry.timer_ms, Timer::Expiry(no));
        self.leased.insert(entry.seq, no);
        let lease = Lease { seq: entry.seq, attempt: entry.begun };
        Granted { lease, expires_ms: entry.timer_ms, bytes: entry.bytes }
    }

    fn held(&self, lease: Lease) -> Result<u32> {
        let no = self.leased.get(&lease.seq).copied();
        no.filter(|no| self.jobs[*no].begun == lease.attempt).ok_or_else(|| {
            let detail = format!(
                "attempt {} of job {} is not under way: its lease ended; stop the work",
                lease.attempt.0,
                JobRef::Assigned(lease.seq)
            );
            Error::new(ErrorKind::LeaseLost, detail)
        })
    }

    /// The lease of a job that a worker has.
    pub fn lease_of(&self, seq: Seq) -> Option<Lease> {
        let no = self.leased.get(&seq)?;
        Some(Lease { seq, attempt: self.jobs[*no].begun })
    }

    /// The tenant and the id of a job that a worker has, if it has an id.
    pub fn named(&self, lease: Lease) -> Option<(Tenant, JobId)> {
        self.named_of(self.held(lease).ok()?)
    }

    fn named_of(&self, no: u32) -> Option<(Tenant, JobId)> {
        let entry = &self.jobs[no];
        let tenant = self.tenants.try_get(entry.tenant)?.clone();
        Some((tenant, entry.id.clone()?))
    }

    /// A sign of life.
    ///
    /// # Errors
    /// `LeaseLost` if somebody else has the job, or nobody.
    pub fn heartbeat(&mut self, lease: Lease, now_ms: u64) -> Result<Beat> {
        self.set_now(now_ms);
        let no = self.held(lease)?;
        let entry = &mut self.jobs[no];
        let expires_ms = self.now_ms + u64::from(entry.lease_ms);
        self.timers.remove(entry.timer_ms, Timer::Expiry(no));
        self.timers.add(expires_ms, Timer::Expiry(no));
        entry.timer_ms = expires_ms;
        Ok(Beat { expires_ms, cancel_asked: entry.cancel_asked })
    }

    /// How an attempt ended.
    ///
    /// # Errors
    /// `LeaseLost` if somebody else has the job, or nobody.
    pub fn report(&mut self, lease: Lease, report: Report, now_ms: u64) -> Result<Next> {
        self.set_now(now_ms);
        let no = self.held(lease)?;
        let next = match report {
            Report::Succeeded => Next::End(State::Succeeded),
            Report::Cancelled => Next::End(State::Cancelled),
            Report::Failed { is_final } => self.after_failure(no, is_final),
            Report::Returned | Report::Again { .. } if self.jobs[no].cancel_asked => {
                Next::End(State::Cancelled)
            }
            Report::Returned => {
                self.jobs[no].uncounted += 1;
                Next::Retry { at_ms: self.now_ms }
            }
            Report::Again { at_ms } => {
                self.jobs[no].uncounted = self.jobs[no].begun.0;
                Next::Retry { at_ms }
            }
        };
        self.end_attempt(no, next);
        self.settle();
        Ok(next)
    }

    fn after_failure(&mut self, no: u32, is_final: bool) -> Next {
        let random = self.next_random();
        let entry = &self.jobs[no];
        if entry.cancel_asked {
            return Next::End(State::Cancelled);
        }
        let retry = entry.begun.0 - entry.uncounted - 1;
        match entry.retry.delay_ms(retry, random) {
            Some(delay_ms) if !is_final => Next::Retry { at_ms: self.now_ms + delay_ms },
            _ => Next::End(State::Failed),
        }
    }

    fn end_attempt(&mut self, no: u32, next: Next) {
        self.stop(no);
        match next {
            Next::Retry { at_ms } => self.wait(no, at_ms),
            Next::End(_) => self.forget(no),
        }
    }

    /// What has come due: jobs whose time has come, leases that are over, tokens of rates.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Expired> {
        self.set_now(now_ms);
        let mut expired = Vec::new();
        while let Some(timer) = self.timers.pop(self.now_ms) {
            match timer {
                Timer::Start(no) => {
                    self.leave(no);
                    self.wait(no, 0);
                }
                Timer::Token(limit) => self.queues.tokens_came(limit, self.now_ms * 1000),
                Timer::Expiry(no) => {
                    let entry = &self.jobs[no];
                    let lease = Lease { seq: entry.seq, attempt: entry.begun };
                    let named = self.named_of(no);
                    let next = self.after_failure(no, false);
                    self.end_attempt(no, next);
                    expired.push(Expired { lease, next, named });
                }
            }
            self.settle();
        }
        expired
    }

    /// When something comes due next, milliseconds since 1970.
    pub fn next_ms(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    /// Calls a job off: one that waits ends now, one that runs when its worker has stopped.
    ///
    /// # Errors
    /// `NotFound` if there is none that has not come to its end.
    pub fn cancel(&mut self, tenant: &Tenant, job: &JobRef, now_ms: u64) -> Result<Cancelled> {
        self.set_now(now_ms);
        let no = self.need(tenant, job)?;
        if self.jobs[no].phase == Phase::Running {
            self.jobs[no].cancel_asked = true;
            return Ok(Cancelled::Asked);
        }
        self.stop(no);
        self.forget(no);
        self.settle();
        Ok(Cancelled::Now)
    }

    /// Forgets a job that waits.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` if it runs.
    pub fn remove(&mut self, tenant: &Tenant, job: &JobRef, now_ms: u64) -> Result<()> {
        self.set_now(now_ms);
        let no = self.need_waiting(tenant, job)?;
        self.stop(no);
        self.forget(no);
        self.settle();
        Ok(())
    }

    /// A job that waits may run at once.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` if it runs.
    pub fn expedite(&mut self, tenant: &Tenant, job: &JobRef, now_ms: u64) -> Result<()> {
        self.set_now(now_ms);
        let no = self.need_waiting(tenant, job)?;
        if self.jobs[no].phase == Phase::Early {
            self.stop(no);
            self.wait(no, 0);
            self.settle();
        }
        Ok(())
    }

    /// Changes a job's priority.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it runs; `Invalid` if there is no such priority.
    pub fn set_priority(
        &mut self,
        tenant: &Tenant,
        job: &JobRef,
        priority: u8,
        now_ms: u64,
    ) -> Result<()> {
        check_priority(priority)?;
        self.set_now(now_ms);
        let no = self.need_waiting(tenant, job)?;
        let now_us = self.now_us();
        let entry = &mut self.jobs[no];
        let before = entry.place(no);
        entry.priority = priority;
        if entry.phase == Phase::Ready {
            let (class, after) = (entry.class, entry.place(no));
            self.queues.replace(class, before, after, now_us);
            self.settle();
        }
        Ok(())
    }

    /// The task group of a job that has not come to its end, and whether it waits.
    pub fn group_of(&self, tenant: &Tenant, job: &JobRef) -> Option<(&Group, bool)> {
        let entry = &self.jobs[self.find(tenant, job)?];
        Some((self.groups.try_get(entry.group)?, entry.phase != Phase::Running))
    }

    fn need_waiting(&self, tenant: &Tenant, job: &JobRef) -> Result<u32> {
        let no = self.need(tenant, job)?;
        if self.jobs[no].phase == Phase::Running {
            let detail = format!("job {job} of tenant {tenant} is running: cancel it first");
            return Err(Error::new(ErrorKind::Conflict, detail));
        }
        Ok(no)
    }

    /// No job of the task group is given out until it is resumed.
    pub fn pause(&mut self, group: &Group) {
        self.paused.insert(group.clone());
    }

    /// Jobs of the task group are given out again. True if they were not.
    pub fn resume(&mut self, group: &Group) -> bool {
        self.paused.remove(group)
    }

    /// True if the task group is paused.
    pub fn is_paused(&self, group: &Group) -> bool {
        self.paused.contains(group)
    }

    /// A floating limit, if a job is under it.
    pub fn floating(&self, tenant: &Tenant, key: &LimitKey) -> Option<Floating> {
        let tenant = self.tenants.find(tenant)?;
        let limit = &self.queues.limits[self.queues.find_limit(tenant, key)?];
        match (&limit.kind, limit.rule) {
            (LimitKind::Floating { refresh_ms, group, .. }, limits::Rule::AtOnce(max)) => {
                Some(Floating { max, refresh_ms: *refresh_ms, group: group.clone() })
            }
            _ => None,
        }
    }

    /// The names of all floating limits that a job is under, in no order.
    pub fn floating_limits(&self) -> Vec<(Tenant, LimitKey)> {
        let limits = self.queues.limits.iter();
        let floating = limits.filter(|limit| matches!(limit.kind, LimitKind::Floating { .. }));
        let named = floating.filter_map(|limit| {
            let (tenant, key) = &limit.key;
            Some((self.tenants.try_get(*tenant)?.clone(), key.clone()))
        });
        named.collect()
    }

    /// A worker says how many jobs a floating limit lets run at once. Nothing if nobody is under it.
    ///
    /// # Errors
    /// `Conflict` if it is no floating limit.
    pub fn set_limit(
        &mut self,
        tenant: &Tenant,
        key: &LimitKey,
        max: u32,
        now_ms: u64,
    ) -> Result<()> {
        self.set_now(now_ms);
        let tenant = self.tenants.find(tenant);
        let Some(no) = tenant.and_then(|tenant| self.queues.find_limit(tenant, key)) else {
            return Ok(());
        };
        if !matches!(self.queues.limits[no].kind, LimitKind::Floating { .. }) {
            let detail = format!("limit {key} is not a floating limit");
            return Err(Error::new(ErrorKind::Conflict, detail));
        }
        self.queues.set_rule(no, limits::Rule::AtOnce(max), self.now_ms * 1000);
        self.settle();
        Ok(())
    }

    /// Task groups that may have work that they had not when this was asked before, and are not paused.
    pub fn take_touched(&mut self) -> Vec<Group> {
        let touched = self.queues.take_touched();
        let names = touched.into_iter().filter_map(|group| self.groups.try_get(group).cloned());
        names.filter(|group| !self.paused.contains(group)).collect()
    }

    /// What happened before now is not known: rates have no tokens to begin with.
    pub fn assume_spent(&mut self, now_ms: u64) {
        self.set_now(now_ms);
        self.queues.unknown_until_us = self.now_us();
    }

    /// How many jobs there are of each task group.
    pub fn groups(&self) -> Vec<(Group, GroupCounts)> {
        let paused = GroupCounts { is_paused: true, ..GroupCounts::default() };
        let paused = self.paused.iter().map(|group| (group.clone(), paused));
        let mut counted: BTreeMap<Group, GroupCounts> = paused.collect();
        for (no, group) in self.groups.iter() {
            let counts = self.by_group.get(&no).copied().unwrap_or_default();
            let is_paused = self.paused.contains(group);
            counted.insert(group.clone(), GroupCounts { is_paused, ..counts });
        }
        counted.into_iter().collect()
    }

    /// How many jobs there are.
    pub fn counts(&self) -> Counts {
        Counts { active: self.jobs.len(), running: self.leased.len() }
    }
}

fn hash_entry(hasher: &RandomState, entry: &Entry) -> u64 {
    match &entry.id {
        Some(id) => hasher.hash_one((entry.tenant, id.as_str())),
        None => hasher.hash_one((entry.tenant, entry.seq.0)),
    }
}
