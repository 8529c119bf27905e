//! Calls that wait for jobs to end. While it waits, a call costs its jobs' names and a number for each, whatever the jobs
//! hold: what is told is only *that* a job has ended, and its record is read when the call takes it, one at a time.

use super::Shard;
use super::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, JobKey, JobRef};
use crate::name::Tenant;
use std::collections::{BTreeMap, HashMap};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Memory for what all calls together wait for in a shard, bytes: a hundred calls of as many jobs as a message names.
pub const AWAITED_BYTES_MAX: usize = 256 << 20;
/// What waiting for one job costs besides its name, bytes: its entry, and its numbers in the call.
const AWAITED_BYTES: usize = 192;

/// A call that waits for a job.
struct Waiting {
    /// Which of its jobs it is: several, if the call names it again and again.
    numbers: Vec<usize>,
    tell: mpsc::UnboundedSender<Vec<usize>>,
}

/// Who waits for which job to end.
#[derive(Default)]
pub(super) struct Awaiting {
    /// Of each job, the calls that wait for it, by their numbers.
    jobs: HashMap<JobKey, BTreeMap<u64, Waiting>>,
    next_call: u64,
}

impl Awaiting {
    /// A call waits for a job that is the `number`th of its own.
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

    /// A job has ended, or is gone: who waits for it looks.
    pub(super) fn tell(&mut self, key: JobKey) {
        for waiting in self.jobs.remove(&key).unwrap_or_default().into_values() {
            // Who does not wait any more need not know.
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

    /// The shard is out of service: nobody will be told.
    pub(super) fn clear(&mut self) {
        self.jobs.clear();
    }
}

/// Jobs of a tenant, each as it comes to its end.
pub struct Awaited {
    shard: Shard,
    tenant: Tenant,
    jobs: Vec<JobRef>,
    /// Where the call waits for each of them, if it does.
    at: Vec<Option<JobKey>>,
    /// Jobs that were not looked at yet begin here.
    fresh: usize,
    left: usize,
    call: u64,
    tell: mpsc::UnboundedSender<Vec<usize>>,
    /// The numbers of jobs that have ended: each once, so that there are never more than jobs.
    told: mpsc::UnboundedReceiver<Vec<usize>>,
    /// Those that were told, and are not looked at yet.
    ended: Vec<usize>,
    _room: OwnedSemaphorePermit,
}

impl Shard {
    /// Waits for jobs to come to their end.
    ///
    /// # Errors
    /// `Unavailable` if too many are waited for already.
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

    /// A job, once it has come to its end.
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

/// What waiting for a job costs.
fn bytes_of(job: &JobRef) -> usize {
    let name = match job {
        JobRef::Named(id) => id.as_str().len(),
        JobRef::Assigned(_) => 0,
    };
    AWAITED_BYTES + name
}

impl Awaited {
    /// The number of a job, in the order in which they were named, and the job; or why there is none. Nothing when all
    /// have ended.
    pub async fn next(&mut self) -> Option<(usize, Result<Job>)> {
        while self.left > 0 {
            let number = match self.next_fresh() {
                Some(number) => number,
                None => self.next_told().await,
            };
            let ended = match self.wait(number) {
                Ok(true) => continue,
                // It had ended, or is deleted, or its record says so any moment.
                Ok(false) => self.shard.show(&self.tenant, &self.jobs[number]).await,
                Err(error) => Err(error),
            };
            // One that was restarted meanwhile is waited for again.
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

    /// A job that has ended; any that is waited for if the shard is out of service.
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

    /// Waits for a job that has not ended, or whose record does not say so yet; false if there is nothing to wait for.
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

    /// Sixty calls that named a job ten thousand times each, one of which went, kept a shard busy for seconds.
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
