//! The state machine of a shard: every job that has not ended, and the decision which is next.
//!
//! It is deterministic and has no effects. Its caller passes the time, keeps its decisions, and
//! answers when they are durable. It holds no payloads. It never searches: jobs that can run stand
//! in `queues`, and future events in `timers`, each entry exactly as long as it is wanted.
//!
//! Must hold: a job has at most one lease. A limit counts exactly the jobs that run under it. The
//! number of an attempt is used once. An ended job is not here.

mod answers;
mod attempts;
mod change;
mod floating;
mod limits;
mod names;
mod pool;
mod queues;
mod rates;
mod timers;
mod why;

pub use answers::{
    Beat, Cancelled, Counts, Expired, Floating, Granted, GroupCounts, Hold, Next, Over, Report, Why,
};

use crate::error::{Error, ErrorKind, Result};
use crate::hash::TenantHash;
use crate::job::{AttemptNo, Epoch, Job, JobKey, JobRef, Lease, Seq};
use crate::limit::Limit;
use crate::name::{Group, JobId, LimitKey, Tenant};
use crate::retry::RetryPolicy;
use hashbrown::HashTable;
use names::Names;
use pool::Pool;
use queues::{ClassNo, Queues, Rank};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use timers::{Timer, Timers};

/// Phase of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its start time has not come; the timer has the time.
    Early,
    /// Nothing but limits and workers holds it up.
    Ready,
    /// A worker has it, until the timer goes off.
    Running,
}

/// A job that has not ended, as far as decisions need it.
#[derive(Debug)]
struct Entry {
    hash: TenantHash,
    seq: Seq,
    id: Option<JobId>,
    timer_ms: u64,
    class: ClassNo,
    tenant: u32,
    group: u32,
    begun: AttemptNo,
    /// The epoch in which its newest attempt began.
    epoch: Epoch,
    uncounted: u32,
    lease_ms: u32,
    /// The longest run of an attempt; 0 is unlimited.
    max_run_ms: u32,
    /// Latest end of the attempt, by the clock of leases.
    run_end_ms: u64,
    /// Size of its spec, bytes.
    bytes: u32,
    retry: RetryPolicy,
    priority: u8,
    phase: Phase,
    cancel_asked: bool,
}

impl Entry {
    fn place(&self, job: u32) -> Rank {
        Rank { priority: self.priority, seq: self.seq.0, job }
    }

    fn key(&self) -> JobKey {
        JobKey { hash: self.hash, seq: self.seq }
    }

    /// The lease of its newest attempt.
    fn lease(&self) -> Lease {
        Lease { hash: self.hash, seq: self.seq, attempt: self.begun, epoch: self.epoch }
    }
}

/// Bounds on the work of one call, so that no caller waits long for the machine. Later changes, or
/// a tick, do the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Classes that one change wakes.
    pub wakes: usize,
    /// Classes that the search for one job looks at.
    pub looks: usize,
    /// Timers that one tick handles.
    pub timers: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { wakes: 256, looks: 256, timers: 1024 }
    }
}

/// The state machine of a shard.
#[derive(Debug, Default)]
pub struct Machine {
    pace: Pace,
    now_ms: u64,
    /// Sum of the clock's steps forward. Leases do not notice them.
    stepped_ms: u64,
    random: u64,
    jobs: Pool<Entry>,
    /// Jobs by tenant and id, or by place if they have no id.
    ids: HashTable<u32>,
    hasher: RandomState,
    leased: HashMap<JobKey, u32>,
    /// Epoch of attempts that begin now.
    epoch: Epoch,
    tenants: Names<Tenant>,
    groups: Names<Group>,
    paused: BTreeSet<Group>,
    by_group: HashMap<u32, GroupCounts>,
    queues: Queues,
    timers: Timers,
    /// Rates whose buckets are full, or which are no longer rates, since the last call of
    /// `take_rates`.
    full_rates: BTreeSet<(Tenant, LimitKey)>,
}

impl Machine {
    /// Makes an empty machine. `seed` decides the jitter of retries.
    pub fn new(seed: u64) -> Self {
        Self { random: seed, ..Self::default() }
    }

    /// Sets the epoch of attempts that begin from now on.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// This machine with other bounds on its work.
    pub fn paced(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Sets the time, which never goes back, whatever the clock does.
    fn set_now(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Notes the sum of the clock's steps forward. Jobs start by the new time, and leases go on by
    /// the old. True if the sum changed: then timers are due at other times.
    pub fn note_stepped(&mut self, stepped_ms: u64) -> bool {
        std::mem::replace(&mut self.stepped_ms, stepped_ms) != stepped_ms
    }

    /// The newest time that the machine was told, milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
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

    /// Takes a waiting job: a new one, or a restarted one.
    ///
    /// # Errors
    /// `Exists` if a job of its id is here; `Conflict` if one of its limits is here as another
    /// kind.
    pub fn enqueue(&mut self, job: &Job, now_ms: u64) -> Result<()> {
        if self.find(&job.spec.tenant, &job.name()).is_none() {
            self.check_kinds(job)?;
        }
        self.resume_waiting(job, now_ms)
    }

    /// Takes a job that waited when the broker stopped. Its limit replaces a limit of another kind
    /// with its name. A crash may keep the first job under the new kind, and lose the end of the
    /// last one under the old.
    ///
    /// # Errors
    /// `Exists` if there is a job of its id.
    pub fn resume_waiting(&mut self, job: &Job, now_ms: u64) -> Result<()> {
        self.set_now(now_ms);
        let no = self.admit(job)?;
        self.wait(no, job.spec.start_at_ms);
        self.settle();
        Ok(())
    }

    /// Takes a job that was running when the broker stopped. Its worker may still have it, for one
    /// lease from now.
    ///
    /// # Errors
    /// See [`Machine::resume_waiting`].
    pub fn resume_running(&mut self, job: &Job, now_ms: u64) -> Result<()> {
        self.set_now(now_ms);
        let no = self.admit(job)?;
        self.queues.hold_limits(self.jobs[no].class, None);
        self.begin_lease(no);
        let begun_ms = job.attempts.last().map_or(now_ms, |attempt| attempt.started_ms);
        self.begin_run(no, now_ms.saturating_sub(begun_ms));
        self.settle();
        Ok(())
    }

    fn admit(&mut self, job: &Job) -> Result<u32> {
        if self.find(&job.spec.tenant, &job.name()).is_some() {
            let detail = format!("job {} of tenant {} is there", job.name(), job.spec.tenant);
            return Err(Error::new(ErrorKind::Exists, detail));
        }
        let tenant = self.tenants.hold(&job.spec.tenant);
        let group = self.groups.hold(&job.spec.group);
        let now_us = self.now_us();
        let limits = job.spec.limits.iter();
        let limits: Vec<u32> =
            limits.map(|l| self.queues.define_limit(tenant, &l.key, &l.kind, now_us)).collect();
        let class = self.queues.hold_class(group, tenant, &limits);
        let no = self.jobs.insert(Entry {
            hash: TenantHash::of(&job.spec.tenant),
            seq: job.seq,
            id: job.spec.id.clone(),
            timer_ms: 0,
            class,
            tenant,
            group,
            begun: job.begun(),
            epoch: job.attempts.last().map_or(self.epoch, |last| last.epoch),
            uncounted: job.uncounted,
            lease_ms: job.spec.lease_ms,
            max_run_ms: job.spec.max_run_ms,
            run_end_ms: u64::MAX,
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

    fn check_kinds(&self, job: &Job) -> Result<()> {
        let Some(tenant) = self.tenants.find(&job.spec.tenant) else { return Ok(()) };
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
            let detail = format!("tenant {tenant} has no job {job} that has not ended");
            Error::new(ErrorKind::NotFound, detail)
        })
    }

    /// The identity of a job that has not ended.
    pub fn key_of(&self, tenant: &Tenant, job: &JobRef) -> Option<JobKey> {
        self.find(tenant, job).map(|no| self.jobs[no].key())
    }

    /// Lets the job wait until `start_at_ms`.
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

    /// Enters a phase with a job that is in none.
    fn enter(&mut self, no: u32, phase: Phase) {
        let entry = &mut self.jobs[no];
        entry.phase = phase;
        *self.by_group.entry(entry.group).or_default().of(phase) += 1;
    }

    /// Takes the job out of its phase.
    fn leave(&mut self, no: u32) {
        let entry = &self.jobs[no];
        if let Some(counts) = self.by_group.get_mut(&entry.group) {
            *counts.of(entry.phase) -= 1;
        }
    }

    /// Takes a job out of the queue or timer in which it waits, or from its worker.
    fn stop(&mut self, no: u32) {
        self.leave(no);
        let now_us = self.now_us();
        let entry = &self.jobs[no];
        match entry.phase {
            Phase::Early => self.timers.remove(entry.timer_ms, Timer::Start(no)),
            Phase::Ready => self.queues.remove(entry.class, entry.place(no), now_us),
            Phase::Running => {
                self.timers.remove(entry.timer_ms, Timer::Expiry(no));
                self.leased.remove(&entry.key());
                self.queues.give_limits(entry.class);
            }
        }
    }

    /// Removes a job that has ended.
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

    /// Runs after every change: wakes a bounded number of the classes that it made ready.
    fn settle(&mut self) {
        let (mut steps, now_us) = (self.pace.wakes, self.now_us());
        self.queues.wake_some(&mut steps, now_us);
        self.settle_limits();
    }

    /// Sets the timers of limits, and keeps a tenant known as long as one of its limits.
    fn settle_limits(&mut self) {
        for tenant in std::mem::take(&mut self.queues.new_limits_of) {
            self.tenants.hold_again(tenant);
        }
        for (tenant, key) in std::mem::take(&mut self.queues.full) {
            let tenant = self.tenants.try_get(tenant).cloned();
            self.full_rates.extend(tenant.map(|tenant| (tenant, key)));
        }
        for tenant in std::mem::take(&mut self.queues.gone_limits_of) {
            self.tenants.release(tenant);
        }
        let now_us = self.now_us();
        self.queues.set_timers(&mut self.timers, now_us);
    }

    /// Task groups without a pause that may have new work since the last call of this method.
    pub fn take_touched(&mut self) -> Vec<Group> {
        let touched = self.queues.take_touched();
        let names = touched.into_iter().filter_map(|group| self.groups.try_get(group).cloned());
        names.filter(|group| !self.paused.contains(group)).collect()
    }

    /// Notes that not every job of a task group that may run was given out. The next tick goes on.
    pub fn look_later(&mut self, group: &Group) {
        if let Some(group) = self.groups.find(group) {
            self.queues.note_unsure(group);
        }
    }

    /// Numbers of jobs in each task group.
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

    /// Numbers of jobs.
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
