//! Changes of jobs that have not ended, and of their task groups.

use super::{Cancelled, Machine, Phase};
use crate::error::{Error, ErrorKind, Result};
use crate::job::JobRef;
use crate::name::{Group, Tenant};
use crate::spec::check_priority;

impl Machine {
    /// Cancels a job. A waiting one ends now, a running one when its worker has stopped.
    ///
    /// # Errors
    /// `NotFound` if no such job waits or runs.
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

    /// True if a running job was cancelled and its worker has not stopped yet.
    pub fn is_cancel_asked(&self, tenant: &Tenant, job: &JobRef) -> bool {
        self.find(tenant, job).is_some_and(|no| self.jobs[no].cancel_asked)
    }

    /// Removes a waiting job.
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

    /// Lets a waiting job start at once.
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
    /// `NotFound`; `Conflict` if it runs; `Invalid` if the priority is out of range.
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

    fn need_waiting(&self, tenant: &Tenant, job: &JobRef) -> Result<u32> {
        let no = self.need(tenant, job)?;
        if self.jobs[no].phase == Phase::Running {
            let detail = format!("job {job} of tenant {tenant} is running, and does not wait");
            return Err(Error::new(ErrorKind::Conflict, detail));
        }
        Ok(no)
    }

    /// Pauses the task group: workers get none of its jobs until it is resumed.
    pub fn pause(&mut self, group: &Group) {
        self.paused.insert(group.clone());
    }

    /// Resumes the task group. True if it was paused.
    pub fn resume(&mut self, group: &Group) -> bool {
        self.paused.remove(group)
    }

    /// True if the task group is paused.
    pub fn is_paused(&self, group: &Group) -> bool {
        self.paused.contains(group)
    }
}
