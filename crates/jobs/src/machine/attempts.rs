//! Attempts: they begin with a lease, and end with a report, or when the lease is over.

use super::timers::Timer;
use super::{Beat, Expired, Granted, Hold, Machine, Next, Over, Phase, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobKey, JobRef, Lease, State, Ticket};
use crate::name::{Group, Tenant};

impl Machine {
    /// The next job for a worker of a task group, if there is one that may run.
    pub fn lease(&mut self, group: &Group, now_ms: u64) -> Option<Granted> {
        self.set_now(now_ms);
        if self.paused.contains(group) {
            return None;
        }
        let mut looks = self.pace.looks;
        let taken = self.queues.take(self.groups.find(group)?, &mut looks, self.now_us());
        let granted = taken.map(|place| {
            self.leave(place.job);
            self.jobs[place.job].begun.0 += 1;
            self.jobs[place.job].epoch = self.epoch;
            self.begin_lease(place.job)
        });
        self.settle();
        granted
    }

    pub(super) fn begin_lease(&mut self, no: u32) -> Granted {
        self.enter(no, Phase::Running);
        let expires_ms = self.begin_run(no, 0);
        let entry = &self.jobs[no];
        self.leased.insert(entry.key(), no);
        Granted { lease: entry.lease(), expires_ms, bytes: entry.bytes }
    }

    fn held(&self, lease: Lease) -> Result<u32> {
        let no = self.leased.get(&lease.key()).copied();
        no.filter(|no| self.jobs[*no].lease() == lease).ok_or_else(|| {
            let attempt = lease.attempt.0;
            let detail =
                format!("attempt {attempt} is not under way: its lease ended; stop the work");
            Error::new(ErrorKind::LeaseLost, detail)
        })
    }

    /// The lease of a job that a worker has.
    pub fn lease_of(&self, job: JobKey) -> Option<Lease> {
        self.leased.get(&job).map(|no| self.jobs[*no].lease())
    }

    /// Whose job it is that a worker has, and what it is called.
    pub fn called(&self, lease: Lease) -> Option<(Tenant, JobRef)> {
        self.called_of(self.held(lease).ok()?)
    }

    /// What a worker shows that has a job.
    pub fn ticket(&self, lease: Lease) -> Option<Ticket> {
        let entry = &self.jobs[self.held(lease).ok()?];
        let tenant = self.tenants.try_get(entry.tenant)?.clone();
        Some(Ticket { lease, tenant, id: entry.id.clone() })
    }

    fn called_of(&self, no: u32) -> Option<(Tenant, JobRef)> {
        let entry = &self.jobs[no];
        let tenant = self.tenants.try_get(entry.tenant)?.clone();
        Some((tenant, entry.id.clone().map_or(JobRef::Assigned(entry.seq), JobRef::Named)))
    }

    /// A sign of life.
    ///
    /// # Errors
    /// `LeaseLost` if somebody else has the job, or nobody.
    pub fn heartbeat(&mut self, lease: Lease, now_ms: u64) -> Result<Beat> {
        self.set_now(now_ms);
        let no = self.held(lease)?;
        let expires_ms = self.renew(no);
        Ok(Beat { expires_ms, cancel_asked: self.jobs[no].cancel_asked })
    }

    /// The time of a lease begins anew; says when it is over, if the clock is not set.
    fn renew(&mut self, no: u32) -> u64 {
        let entry = &mut self.jobs[no];
        let now_ms = self.now_ms.saturating_sub(self.stepped_ms);
        self.timers.remove(entry.timer_ms, Timer::Expiry(no));
        let end_ms = (now_ms + u64::from(entry.lease_ms)).min(entry.run_end_ms);
        entry.timer_ms = end_ms.max(now_ms + 1);
        self.timers.add(entry.timer_ms, Timer::Expiry(no));
        self.now_ms + (entry.timer_ms - now_ms)
    }

    /// An attempt has run for so long already; says when its lease is over.
    pub(super) fn begin_run(&mut self, no: u32, ran_ms: u64) -> u64 {
        let entry = &mut self.jobs[no];
        let left_ms = u64::from(entry.max_run_ms).saturating_sub(ran_ms);
        let now_ms = self.now_ms.saturating_sub(self.stepped_ms);
        entry.run_end_ms = if entry.max_run_ms == 0 { u64::MAX } else { now_ms + left_ms };
        self.renew(no)
    }

    /// The worker of a lease is told of it now: its time begins.
    ///
    /// # Errors
    /// `LeaseLost` if another worker has the job, or nobody.
    pub fn begin_told(&mut self, lease: Lease, now_ms: u64) -> Result<u64> {
        self.set_now(now_ms);
        let no = self.held(lease)?;
        Ok(self.begin_run(no, 0))
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
            Report::Returned => self.after_return(no),
            Report::Again { .. } if self.jobs[no].cancel_asked => Next::End(State::Cancelled),
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

    /// What has come due: jobs whose time has come, leases that are over, tokens of rates. A bounded part of it: more is
    /// due at once if [`Machine::next_ms`] says so. `hold` says what is known of a lease's worker.
    pub fn tick(&mut self, now_ms: u64, hold: impl Fn(Lease) -> Hold) -> Vec<Expired> {
        self.set_now(now_ms);
        self.queues.look_again();
        let mut expired = Vec::new();
        for _ in 0..self.pace.timers {
            let Some(timer) = self.timers.pop(self.now_ms, self.stepped_ms) else { break };
            match timer {
                Timer::Start(no) => {
                    self.leave(no);
                    self.wait(no, 0);
                }
                Timer::Token(limit) => self.queues.tokens_came(limit, self.now_us()),
                Timer::Expiry(no) => expired.extend(self.lease_ran_out(no, &hold)),
            }
            self.settle_limits();
        }
        self.settle();
        expired
    }

    fn lease_ran_out(&mut self, no: u32, hold: impl Fn(Lease) -> Hold) -> Option<Expired> {
        let lease = self.jobs[no].lease();
        let hold = hold(lease);
        let called = self.called_of(no);
        let next = match hold {
            Hold::Untold => {
                self.begin_run(no, 0);
                return None;
            }
            Hold::Unbegun => self.after_return(no),
            Hold::Begun => self.after_failure(no, false),
        };
        let entry = &self.jobs[no];
        let how = match hold {
            Hold::Begun if entry.timer_ms >= entry.run_end_ms => Over::TooLong,
            Hold::Begun => Over::Silent,
            _ => Over::Unbegun,
        };
        self.end_attempt(no, next);
        Some(Expired { lease, how, next, called })
    }

    /// Given back, not begun: it is the next worker's at once, and no try.
    fn after_return(&mut self, no: u32) -> Next {
        if self.jobs[no].cancel_asked {
            return Next::End(State::Cancelled);
        }
        self.jobs[no].uncounted += 1;
        Next::Retry { at_ms: self.now_ms }
    }

    /// When something comes due next, milliseconds since 1970; now if there is more to do at once.
    pub fn next_ms(&self) -> Option<u64> {
        if self.queues.has_more() {
            Some(self.now_ms)
        } else {
            self.timers.next_ms(self.stepped_ms)
        }
    }
}
