//! Calls that wait for jobs to end. A waiting call costs the names of its jobs and a number for
//! each, whatever the jobs hold. The shard tells a call only *that* a job has ended. The call reads
//! the records when it takes them, one at a time.

use super::Shard;
use super::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobKey, JobRef};
use crate::name::Tenant;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Bytes of memory for the jobs that all calls together wait for in a shard. Enough for a hundred
/// calls of as many jobs as a message names.
pub const AWAITED_BYTES_MAX: usize = 256 << 20;
/// Bytes that waiting for one job costs besides its name: its entry, and its numbers in the call.
const AWAITED_BYTES: usize = 192;

/// A call that waits for a job.
struct Waiting {
    /// Numbers of the job within its call: several if the call names it again and again.
    numbers: Vec<usize>,
    tell: mpsc::UnboundedSender<Vec<usize>>,
}

/// The calls that wait for jobs to end.
#[derive(Default)]
pub(super) struct Awaiting {
    /// For each job, the calls that wait for it, by number.
    jobs: HashMap<JobKey, BTreeMap<u64, Waiting>>,
    next_call: u64,
}

impl Awaiting {
    /// Adds a call that waits for a job, the `number`th of its own.
    fn add(
        &mut self,
        key: JobKey,
        call: u64,
        number: usize,
        tell: &mpsc::UnboundedSender<Vec<usize>>,
    ) {
        let calls = self.jobs.entry(key).or_default();
        let fresh = || Waiting { numbers: Vec::new(), tell: tell.clone() };
        calls.entry(call).or_insert_with(fresh).numbers.push(number);
    }

    /// Tells the calls that wait for a job that it has ended or is gone.
    pub(super) fn tell(&mut self, key: JobKey) {
        for waiting in self.jobs.remove(&key).unwrap_or_default().into_values() {
            // A call that no longer waits need not know.
            let _ = waiting.tell.send(waiting.numbers);
        }
    }

    fn forget(&mut self, key: JobKey, call: u64) {
        if let Some(waiting) = self.jobs.get_mut(&key) {
            waiting.remove(&call);
            if waiting.is_empty() {
                self.jobs.remove(&key);
            }
        }
    }

    /// Forgets all calls: the shard is out of service.
    pub(super) fn clear(&mut self) {
        self.jobs.clear();
    }
}

/// Jobs of a tenant, each as it ends.
pub struct Awaited {
    shard: Shard,
    tenant: Tenant,
    jobs: Vec<JobRef>,
    /// For each job, its key if the call waits for it.
    at: Vec<Option<JobKey>>,
    /// Number of the first job that was not yet looked at.
    fresh: usize,
    left: usize,
    call: u64,
    tell: mpsc::UnboundedSender<Vec<usize>>,
    /// Numbers of ended jobs. Each comes once, so the channel never holds more than there are jobs.
    told: mpsc::UnboundedReceiver<Vec<usize>>,
    /// Numbers that were told and are not yet looked at.
    ended: Vec<usize>,
    _room: OwnedSemaphorePermit,
}

impl Shard {
    /// Waits for jobs to end.
    ///
    /// # Errors
    /// `Unavailable` if calls wait for too many jobs already.
    pub fn await_ends(&self, tenant: &Tenant, jobs: Vec<JobRef>) -> Result<Awaited> {
        let bytes: usize = jobs.iter().map(bytes_of).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.inner.awaited.clone().try_acquire_many_owned(bytes).map_err(|_| {
            let detail = "calls wait for as many jobs as memory is kept for: wait for fewer, or try again later";
            Error::new(ErrorKind::Unavailable, detail)
        })?;
        let (tell, told) = mpsc::unbounded_channel();
        let call = {
            let mut state = self.inner.state.lock();
            state.check()?;
            state.awaiting.next_call += 1;
            state.awaiting.next_call
        };
        let (at, left, ended) = (vec![None; jobs.len()], jobs.len(), Vec::new());
        let (shard, tenant) = (self.clone(), tenant.clone());
        Ok(Awaited {
            shard,
            tenant,
            jobs,
            at,
            fresh: 0,
            left,
            call,
            tell,
            told,
            ended,
            _room: room,
        })
    }

    /// Waits for a job to end, and gives it.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn await_end(&self, tenant: &Tenant, job: &JobRef) -> Result<Job> {
        let ended = self.await_ends(tenant, vec![job.clone()])?.next().await;
        ended.map_or_else(
            || Err(Error::new(ErrorKind::Internal, "nothing was awaited")),
            |(_, job)| job,
        )
    }
}

/// Cost of waiting for a job, bytes.
fn bytes_of(job: &JobRef) -> usize {
    let name = match job {
        JobRef::Named(id) => id.as_str().len(),
        JobRef::Assigned(_) => 0,
    };
    AWAITED_BYTES + name
}

impl Awaited {
    /// Gives the number of a job, in the order of the call's names, and the job or the reason why
    /// there is none. Nothing when all have ended.
    pub async fn next(&mut self) -> Option<(usize, Result<Job>)> {
        while self.left > 0 {
            let number = match self.next_fresh() {
                Some(number) => number,
                None => self.next_told().await,
            };
            let ended = match self.wait(number) {
                Ok(true) => continue,
                // The job had ended, or is deleted, or its record will say so any moment.
                Ok(false) => self.shard.show(&self.tenant, &self.jobs[number]).await,
                Err(error) => Err(error),
            };
            // A job that was restarted meanwhile is waited for again.
            if ended.as_ref().is_ok_and(|job| !job.state.is_final()) {
                self.ended.push(number);
                continue;
            }
            self.left -= 1;
            return Some((number, ended));
        }
        None
    }

    fn next_fresh(&mut self) -> Option<usize> {
        let number = self.fresh;
        self.fresh += usize::from(number < self.jobs.len());
        (number < self.jobs.len()).then_some(number)
    }

    /// Gives a job that has ended; any that is waited for if the shard is out of service.
    async fn next_told(&mut self) -> usize {
        loop {
            if let Some(number) = self.ended.pop() {
                return number;
            }
            tokio::select! {
                biased;
                Some(told) = self.told.recv() => self.ended = told,
                _ = self.shard.out_of_service() => {
                    return self.at.iter().position(Option::is_some).unwrap_or(0);
                }
            }
        }
    }

    /// Waits for a job that has not ended, or whose record does not say so yet. False if there is
    /// nothing to wait for.
    fn wait(&mut self, number: usize) -> Result<bool> {
        self.at[number] = None;
        let mut state = self.shard.inner.state.lock();
        state.check()?;
        let Some(key) = state.key_or_ending(&self.tenant, &self.jobs[number]) else {
            return Ok(false);
        };
        state.awaiting.add(key, self.call, number, &self.tell);
        self.at[number] = Some(key);
        Ok(true)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut state = self.shard.inner.state.lock();
        let State { awaiting, .. } = &mut *state;
        self.at.iter().flatten().for_each(|key| awaiting.forget(*key, self.call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::TenantHash;
    use crate::job::Seq;

    /// Once, sixty calls that each named a job ten thousand times kept a shard busy for seconds
    /// when it ended.
    #[test]
    fn a_call_waits_for_a_job_once_however_often_it_names_it() {
        const NAMED: usize = 1000;
        let key = JobKey { hash: TenantHash(1), seq: Seq(1) };
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut awaiting = Awaiting::default();
        for call in 1..=60 {
            (0..NAMED).for_each(|number| awaiting.add(key, call, number, &tell));
        }
        assert_eq!(awaiting.jobs[&key].len(), 60, "one for each call");
        awaiting.forget(key, 60);
        awaiting.tell(key);
        drop(tell);
        let told: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        assert_eq!(told, vec![(0..NAMED).collect::<Vec<_>>(); 59]);
        assert!(awaiting.jobs.is_empty());
    }
}
