//! Attempts: each begins with a lease, and ends with a report or with the end of the lease.

use super::timers::Timer;
use super::{Beat, Expired, Granted, Hold, Machine, Next, Over, Phase, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{JobKey, JobRef, JobState, Lease, Ticket};
use crate::name::{Group, Tenant};

impl Machine {
    /// Leases the next job of a task group that may run, if there is one.
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

    /// The lease of a running job.
    pub fn lease_of(&self, job: JobKey) -> Option<Lease> {
        self.leased.get(&job).map(|no| self.jobs[*no].lease())
    }

    /// The tenant of a leased job, and its id or place.
    pub fn called(&self, lease: Lease) -> Option<(Tenant, JobRef)> {
        self.called_of(self.held(lease).ok()?)
    }

    /// The ticket that the worker of a lease carries.
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

    /// Takes in a heartbeat.
    ///
    /// # Errors
    /// `LeaseLost` if another worker has the job, or none.
    pub fn heartbeat(&mut self, lease: Lease, now_ms: u64) -> Result<Beat> {
        self.set_now(now_ms);
        let no = self.held(lease)?;
        let expires_ms = self.renew(no);
        Ok(Beat { expires_ms, cancel_asked: self.jobs[no].cancel_asked })
    }

    /// Begins the time of a lease anew. Gives its end, as long as no step of the clock comes.
    fn renew(&mut self, no: u32) -> u64 {
        let entry = &mut self.jobs[no];
        let now_ms = self.now_ms.saturating_sub(self.stepped_ms);
        self.timers.remove(entry.timer_ms, Timer::Expiry(no));
        let end_ms = (now_ms + u64::from(entry.lease_ms)).min(entry.run_end_ms);
        entry.timer_ms = end_ms.max(now_ms + 1);
        self.timers.add(entry.timer_ms, Timer::Expiry(no));
        self.now_ms + (entry.timer_ms - now_ms)
    }

    /// Begins the time of an attempt that has run for `ran_ms` already. Gives the end of its lease.
    pub(super) fn begin_run(&mut self, no: u32, ran_ms: u64) -> u64 {
        let entry = &mut self.jobs[no];
        let left_ms = u64::from(entry.max_run_ms).saturating_sub(ran_ms);
        let now_ms = self.now_ms.saturating_sub(self.stepped_ms);
        entry.run_end_ms = if entry.max_run_ms == 0 { u64::MAX } else { now_ms + left_ms };
        self.renew(no)
    }

    /// Begins the time of a lease at the moment when its worker is told.
    ///
    /// # Errors
    /// `LeaseLost` if another worker has the job, or none.
    pub fn begin_told(&mut self, lease: Lease, now_ms: u64) -> Result<u64> {
        self.set_now(now_ms);
        let no = self.held(lease)?;
        Ok(self.begin_run(no, 0))
    }

    /// Takes in the report of an attempt.
    ///
    /// # Errors
    /// `LeaseLost` if another worker has the job, or none.
    pub fn report(&mut self, lease: Lease, report: Report, now_ms: u64) -> Result<Next> {
        self.set_now(now_ms);
        let no = self.held(lease)?;
        let next = match report {
            Report::Succeeded => Next::End(JobState::Succeeded),
            Report::Cancelled => Next::End(JobState::Cancelled),
            Report::Failed { is_final } => self.after_failure(no, is_final),
            Report::Returned => self.after_return(no),
            Report::Again { .. } if self.jobs[no].cancel_asked => Next::End(JobState::Cancelled),
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
            return Next::End(JobState::Cancelled);
        }
        let retry = entry.begun.0 - entry.uncounted - 1;
        match entry.retry.delay_ms(retry, random) {
            Some(delay_ms) if !is_final => Next::Retry { at_ms: self.now_ms + delay_ms },
            _ => Next::End(JobState::Failed),
        }
    }

    fn end_attempt(&mut self, no: u32, next: Next) {
        self.stop(no);
        match next {
            Next::Retry { at_ms } => self.wait(no, at_ms),
            Next::End(_) => self.forget(no),
        }
    }

    /// Handles due timers: start times, ends of leases, tokens of rates. It handles a bounded
    /// number; [`Machine::next_ms`] says if more are due at once. `hold` gives the state of a
    /// lease's worker.
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

    /// A job that was given back before it began is the next worker's at once, and the attempt does
    /// not count as a try.
    fn after_return(&mut self, no: u32) -> Next {
        if self.jobs[no].cancel_asked {
            return Next::End(JobState::Cancelled);
        }
        self.jobs[no].uncounted += 1;
        Next::Retry { at_ms: self.now_ms }
    }

    /// Time of the next due timer, milliseconds since 1970; the present if more is to be done at
    /// once.
    pub fn next_ms(&self) -> Option<u64> {
        if self.queues.has_more() {
            Some(self.now_ms)
        } else {
            self.timers.next_ms(self.stepped_ms)
        }
    }
}
