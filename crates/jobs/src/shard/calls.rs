//! The calls of a shard's users: take jobs, and change them.

use super::durable::Mark;
use super::edit::Edit;
use super::state::{Called, GIVEN_AT_ONCE, State};
use super::{Inner, Shard};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{
    ATTEMPTS_KEPT, Attempt, AttemptNo, Ending, HISTORY_BYTES_MAX, Job, JobRef, JobState, Seq,
    history_bytes,
};
use crate::keys;
use crate::machine::{Cancelled, Machine};
use crate::name::{Group, Tenant};
use crate::spec::{JobSpec, check_payload, check_time};
use bytes::Bytes;
use std::pin::pin;
use tokio::sync::OwnedSemaphorePermit;

/// A decision, and the batch that makes durable what it is based on.
struct Decided<T> {
    said: Result<T>,
    mark: Mark,
}

/// A job that was taken, or was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// The job's name.
    pub job: JobRef,
    /// False if a job with its id was there already: then nothing changed.
    pub is_new: bool,
}

/// A job with a history, from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The specification.
    pub spec: JobSpec,
    /// The state. A job that was running waits.
    pub state: JobState,
    /// Time when it was taken there, milliseconds since 1970.
    pub created_ms: u64,
    /// Time when it ended, if it has.
    pub ended_ms: Option<u64>,
    /// The attempts, oldest first. They are numbered anew from 1, without the ones that have no
    /// end. They count as tries, except returned ones.
    pub attempts: Vec<Attempt>,
}

impl Imported {
    fn check(&self) -> Result<()> {
        self.spec.check()?;
        if self.attempts.len() > ATTEMPTS_KEPT {
            let detail = format!("{} attempts: {ATTEMPTS_KEPT} at most", self.attempts.len());
            return Err(Error::invalid(detail));
        }
        let bytes = history_bytes(&self.attempts);
        if bytes > HISTORY_BYTES_MAX {
            let detail =
                format!("{bytes} bytes of results and errors: {HISTORY_BYTES_MAX} at most");
            return Err(Error::invalid(detail));
        }
        if self.state.is_final() != self.ended_ms.is_some() {
            let detail = format!(
                "a job that is {} has {} time when it ended",
                self.state.name(),
                if self.state.is_final() { "a" } else { "no" }
            );
            return Err(Error::invalid(detail));
        }
        check_time("creation", self.created_ms)?;
        check_time("end", self.ended_ms.unwrap_or_default())?;
        self.attempts.iter().try_for_each(|attempt| {
            check_time("start", attempt.started_ms)?;
            match &attempt.ended {
                Some((at_ms, Ending::Succeeded(result))) => {
                    check_time("end", *at_ms)?;
                    check_payload("result", result)
                }
                Some((at_ms, _)) => check_time("end", *at_ms),
                None => Ok(()),
            }
        })
    }

    fn into_job(self) -> Job {
        let ended = self.attempts.into_iter().filter(|attempt| attempt.ended.is_some());
        let attempts = ended.zip(1..).map(|(attempt, number)| {
            let number = AttemptNo(number);
            Attempt { number, ..attempt }
        });
        let state = if self.state.is_final() { self.state } else { JobState::Scheduled };
        let attempts: Vec<_> = attempts.collect();
        let returned = |attempt: &&Attempt| matches!(attempt.ended, Some((_, Ending::Returned)));
        let uncounted = attempts.iter().filter(returned).count() as u32;
        let job = Job::new(Seq(0), self.spec, self.created_ms);
        Job { state, ended_ms: self.ended_ms, uncounted, attempts, ..job }
    }
}

impl Shard {
    /// Takes a job. Does not take a job again whose id is there already.
    ///
    /// # Errors
    /// `Invalid` for a field out of range, `Conflict` if a limit is there as another kind,
    /// `Unavailable`.
    pub async fn enqueue(&self, spec: JobSpec) -> Result<Enqueued> {
        spec.check()?;
        let now_ms = self.inner.clock.now_ms();
        self.take(Job::new(Seq(0), spec, now_ms)).await
    }

    /// Takes a job with its history. Does not take a job again whose id is there already.
    ///
    /// # Errors
    /// As [`Shard::enqueue`].
    pub async fn import(&self, imported: Imported) -> Result<Enqueued> {
        imported.check()?;
        self.take(imported.into_job()).await
    }

    async fn take(&self, job: Job) -> Result<Enqueued> {
        let room = self.inner.room(job.bytes()).await?;
        let Some(id) = job.spec.id.clone() else {
            let admitted = self.inner.admit(job, room);
            let job = self.inner.told(admitted).await?;
            return Ok(Enqueued { job, is_new: true });
        };
        let called = (job.spec.tenant.clone(), JobRef::Named(id.clone()));
        let there = Enqueued { job: called.1.clone(), is_new: false };
        let claim = match self.inner.claim(&called).await? {
            Claim::Active(mark) => {
                self.inner.wait_durable(mark).await?;
                return Ok(there);
            }
            Claim::Mine(claim) => claim,
        };
        if !claim.is_leaving()
            && self.inner.read(self.inner.store.has_ended(&called.0, &called.1)).await?
        {
            return Ok(there);
        }
        let admitted = self.inner.admit(job, room);
        drop(claim);
        let job = self.inner.told(admitted).await?;
        Ok(Enqueued { job, is_new: true })
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// `NotFound` if there is none that has not ended; `Unavailable`.
    pub async fn cancel(&self, tenant: &Tenant, job: &JobRef) -> Result<Cancelled> {
        let decided = self.inner.decide(|state, now_ms| {
            let key = state.key(tenant, job)?;
            let was_asked = state.machine.is_cancel_asked(tenant, job);
            let done = state.machine.cancel(tenant, job, now_ms)?;
            match done {
                Cancelled::Asked => {
                    state.edit(key, Edit::CancelAsked);
                    if !was_asked {
                        state.tell_cancel(key);
                    }
                }
                Cancelled::Now => {
                    state.edit(key, Edit::Cancelled { at_ms: now_ms });
                    state.count_end(JobState::Cancelled);
                    state.ending.insert((tenant.clone(), job.clone()), key);
                    state.see_to_its_limit(tenant, job, now_ms);
                }
            }
            Ok(done)
        });
        self.inner.told(decided).await
    }

    /// Restarts an ended job, with its history.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it has not ended, `Unavailable`.
    pub async fn restart(&self, tenant: &Tenant, job: &JobRef) -> Result<()> {
        let (_claim, mut found) = self.ended(tenant, job).await?;
        found.restart();
        let decided = self.inner.decide(|state, now_ms| {
            state.machine.enqueue(&found, now_ms)?;
            for limit in &found.spec.limits {
                state.see_to_refresher(tenant, &limit.key, now_ms, now_ms);
            }
            state.edit(found.key(), Edit::Restarted(Box::new(found)));
            state.dispatch(now_ms);
            Ok(())
        });
        self.inner.told(decided).await
    }

    /// Deletes a waiting or ended job, with all its rows.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it runs, `Unavailable`.
    pub async fn delete(&self, tenant: &Tenant, job: &JobRef) -> Result<()> {
        let gone = |machine: &mut Machine, now_ms| machine.remove(tenant, job, now_ms);
        match self.change(tenant, job, Edit::Deleted, gone).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => return done,
        }
        let (_claim, found) = self.ended(tenant, job).await?;
        let decided = self.inner.decide(|state, _| {
            let key = found.key();
            state.edit(key, Edit::EndedDeleted(Box::new(found)));
            state.leaving.insert((tenant.clone(), job.clone()), key);
            Ok(())
        });
        self.inner.told(decided).await
    }

    /// Claims an ended job, and reads it.
    async fn ended(&self, tenant: &Tenant, job: &JobRef) -> Result<(JobClaim<'_>, Job)> {
        let called = (tenant.clone(), job.clone());
        self.inner.catch_up().await?;
        let claim = match self.inner.claim(&called).await? {
            Claim::Mine(claim) => claim,
            Claim::Active(mark) => {
                self.inner.wait_durable(mark).await?;
                let detail = format!("job {job} of tenant {tenant} has not ended");
                return Err(Error::new(ErrorKind::Conflict, detail));
            }
        };
        let found =
            if claim.is_leaving() { None } else { self.inner.find(tenant, job, None).await? };
        let ended = found.filter(|found| found.state.is_final());
        let ended = ended.ok_or_else(|| no_job(tenant, job))?;
        Ok((claim, ended))
    }

    /// Lets a waiting job start at once.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it runs, `Unavailable`.
    pub async fn expedite(&self, tenant: &Tenant, job: &JobRef) -> Result<()> {
        let now = |machine: &mut Machine, now_ms| machine.expedite(tenant, job, now_ms);
        self.change(tenant, job, Edit::Expedited, now).await
    }

    /// Changes the priority of a waiting job.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if it runs, `Invalid`, `Unavailable`.
    pub async fn set_priority(&self, tenant: &Tenant, job: &JobRef, priority: u8) -> Result<()> {
        let set =
            |machine: &mut Machine, now_ms| machine.set_priority(tenant, job, priority, now_ms);
        self.change(tenant, job, Edit::Priority(priority), set).await
    }

    async fn change(
        &self,
        tenant: &Tenant,
        job: &JobRef,
        edit: Edit,
        decide: impl FnOnce(&mut Machine, u64) -> Result<()>,
    ) -> Result<()> {
        let decided = self.inner.decide(|state, now_ms| {
            let key = state.key(tenant, job)?;
            decide(&mut state.machine, now_ms)?;
            state.edit(key, edit);
            state.see_to_its_limit(tenant, job, now_ms);
            state.dispatch(now_ms);
            Ok(())
        });
        self.inner.told(decided).await
    }

    /// Pauses a task group: until [`Shard::resume`], workers get none of its jobs.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn pause(&self, group: &Group) -> Result<()> {
        let row = Some(Bytes::new());
        self.set_paused(group, row, |state, _| state.machine.pause(group)).await
    }

    /// Resumes a task group.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn resume(&self, group: &Group) -> Result<()> {
        self.set_paused(group, None, |state, now_ms| {
            state.machine.resume(group);
            state.serve(group, GIVEN_AT_ONCE, now_ms);
        })
        .await
    }

    async fn set_paused(
        &self,
        group: &Group,
        row: Option<Bytes>,
        set: impl FnOnce(&mut State, u64),
    ) -> Result<()> {
        let decided = self.inner.decide(|state, now_ms| {
            state.batch.rows.insert(keys::paused(group), row);
            set(state, now_ms);
            Ok(())
        });
        self.inner.told(decided).await
    }
}

/// The error for a job that does not exist.
pub(super) fn no_job(tenant: &Tenant, job: &JobRef) -> Error {
    Error::new(ErrorKind::NotFound, format!("tenant {tenant} has no job {job}"))
}

/// The sole right to decide about a job that is not active. Dropping it gives the right back.
struct JobClaim<'a> {
    inner: &'a Inner,
    called: Called,
}

impl JobClaim<'_> {
    /// True if the job is deleted, and its records are still there.
    fn is_leaving(&self) -> bool {
        self.inner.state.lock().leaving.contains_key(&self.called)
    }
}

impl Drop for JobClaim<'_> {
    fn drop(&mut self) {
        self.inner.state.lock().checking.remove(&self.called);
        // Calls that wait for this job look again.
        self.inner.claims.notify_waiters();
    }
}

enum Claim<'a> {
    /// The job has not ended, or its end is not yet durable; this batch makes its state durable.
    Active(Mark),
    Mine(JobClaim<'a>),
}

impl Inner {
    async fn claim(&self, called: &Called) -> Result<Claim<'_>> {
        loop {
            if let Some(claim) = self.try_claim(called)? {
                return Ok(claim);
            }
            let mut changed = pin!(self.claims.notified());
            changed.as_mut().enable();
            // It may have changed just before.
            if let Some(claim) = self.try_claim(called)? {
                return Ok(claim);
            }
            changed.await;
        }
    }

    /// Nothing while another call decides about the job.
    fn try_claim(&self, called: &Called) -> Result<Option<Claim<'_>>> {
        let mut state = self.state.lock();
        state.check()?;
        if state.machine.key_of(&called.0, &called.1).is_some() || state.ending.contains_key(called)
        {
            return Ok(Some(Claim::Active(self.pending(&state))));
        }
        let is_mine = state.checking.insert(called.clone());
        let claim = || Claim::Mine(JobClaim { inner: self, called: called.clone() });
        Ok(is_mine.then(claim))
    }

    fn admit(&self, job: Job, room: OwnedSemaphorePermit) -> Decided<JobRef> {
        self.decide(|state, now_ms| {
            let name = state.take(job, now_ms)?;
            state.batch.room.push(room);
            state.dispatch(now_ms);
            Ok(name)
        })
    }

    /// Makes or refuses a change. A crash must not undo a refusal either: it tells a job's state.
    fn decide<T>(&self, change: impl FnOnce(&mut State, u64) -> Result<T>) -> Decided<T> {
        let (mut state, now_ms) = self.at_once();
        let said = state.check().and_then(|()| change(&mut state, now_ms));
        let mark = match &said {
            Ok(_) => self.changed(&state),
            Err(_) => self.pending(&state),
        };
        Decided { said, mark }
    }

    /// Gives a decision once all that it is based on is durable.
    async fn told<T>(&self, decided: Decided<T>) -> Result<T> {
        self.wait_durable(decided.mark).await?;
        decided.said
    }
}
