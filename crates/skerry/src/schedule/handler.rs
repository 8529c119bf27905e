//! Carries out a schedule's job. [`super::plan`] decides.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skerry_client::{Address, Error, ErrorKind, Failure, Jobs, Task, v1};
use skerry_core::env::Clock;
use skerry_core::name::Name;
use skerry_volume::{Engine, ErrorKind as EngineErrorKind};

use super::auto_name::surplus;
use super::document::Schedule;
use super::plan::{Plan, plan};
use super::{Keep, TENANT};

/// Time limit of one attempt: a volume that hangs must not keep others from their snapshots.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(120);

/// Number of tries of a snapshot once the job is followed: for a minute, so that a bucket may
/// hiccup. If trouble lasts longer, the next job takes a snapshot.
const ATTEMPTS_MAX: u32 = 6;

/// Takes snapshots, through the engine that the control API uses too.
pub(super) struct Handler {
    pub(super) engine: Arc<Engine>,
    pub(super) clock: Arc<dyn Clock>,
    /// Address of the node's jobs.
    pub(super) address: Address,
}

impl Handler {
    /// Does a job. The outcome is the job's result.
    pub(super) async fn handle(&self, task: Task) -> Result<Bytes, Failure> {
        let done = self.done(&task).await;
        if let Err(Failure::Retry { code, message } | Failure::Final { code, message }) = &done {
            let (job, attempt) = (&task.id, task.attempt);
            tracing::warn!(job, attempt, code, "a job of a schedule did not end well: {message}");
        }
        done.map(Bytes::from)
    }

    async fn done(&self, task: &Task) -> Result<String, Failure> {
        let schedule = Schedule::decode(&task.payload)
            .map_err(|error| Failure::give_up("document", error.message()))?;
        let now_ms = self.clock.wall_ms();
        let plan = plan(&schedule, now_ms)
            .map_err(|error| Failure::give_up("document", error.message()))?;
        let jobs = Jobs::connect(&self.address).await.map_err(asked)?;
        follow(&jobs, &plan.next, now_ms).await?;
        if is_called_off(&jobs, &task.id).await? {
            return end(&jobs, &plan.next).await.and(Err(Failure::Cancelled));
        }
        let done = tokio::select! {
            done = self.carry_out(&jobs, &schedule, &plan) => done,
            () = task.stop.cancelled() => stopped(&jobs, task, &plan.next).await,
            () = tokio::time::sleep(ATTEMPT_TIME_MAX) => {
                let seconds = ATTEMPT_TIME_MAX.as_secs();
                Err(Failure::retry("timeout", format!("the volume did not answer for {seconds} s")))
            }
        };
        match done {
            Err(Failure::Retry { code, message }) if task.attempt >= ATTEMPTS_MAX => {
                Err(Failure::give_up(code, message))
            }
            done => done,
        }
    }

    /// The work after the next job was enqueued.
    async fn carry_out(
        &self,
        jobs: &Jobs,
        schedule: &Schedule,
        plan: &Plan,
    ) -> Result<String, Failure> {
        let Some(volume) = self.engine.name_of(schedule.volume).await.map_err(engine)? else {
            end(jobs, &plan.next).await?;
            return Ok("the volume is gone, and so its schedule has ended".to_owned());
        };
        // Before any deletion: a failing deletion must not cost later snapshots.
        self.take(&volume, &plan.snapshot).await?;
        self.thin_out(&volume, schedule.keep, &plan.snapshot).await?;
        Ok(format!("{volume}@{}", plan.snapshot))
    }

    async fn take(&self, volume: &Name, snapshot: &Name) -> Result<(), Failure> {
        match self.engine.create_snapshot(volume, Some(snapshot)).await {
            // An earlier attempt took it, and the engine says so once it is durable.
            Err(error) if error.kind() == EngineErrorKind::Exists => Ok(()),
            taken => taken.map(drop).map_err(engine),
        }
    }

    /// Deletes surplus snapshots, and never the one just taken: names from a clock that was fast
    /// may make it look older.
    async fn thin_out(&self, volume: &Name, keep: Keep, taken: &Name) -> Result<(), Failure> {
        let all = self.engine.list_snapshots(volume).await.map_err(engine)?;
        let names = all.iter().map(|snapshot| snapshot.name.as_str());
        let surplus = surplus(names, keep.count() as usize);
        for snapshot in surplus.into_iter().filter(|snapshot| snapshot != taken) {
            match self.engine.delete_snapshot(volume, &snapshot).await {
                Err(error) if error.kind() == EngineErrorKind::NotFound => {}
                deleted => deleted.map_err(|error| undeleted(volume, taken, &snapshot, &error))?,
            }
        }
        Ok(())
    }
}

/// Reports that the snapshot was taken, but an old one can't be deleted.
fn undeleted(volume: &Name, taken: &Name, old: &Name, error: &skerry_volume::Error) -> Failure {
    let text = format!("{volume}@{taken} was taken; {volume}@{old} can't be deleted: {error}");
    Failure::retry(code(error.kind()), text)
}

/// Ends this attempt: its schedule has ended, or its lease is lost and the next attempt goes on.
async fn stopped(jobs: &Jobs, task: &Task, next: &Schedule) -> Result<String, Failure> {
    if is_called_off(jobs, &task.id).await? {
        end(jobs, next).await?;
    }
    Err(Failure::Cancelled)
}

/// Enqueues the next job, unless it exists.
async fn follow(jobs: &Jobs, next: &Schedule, now_ms: u64) -> Result<(), Failure> {
    let is_new = jobs.enqueue(next.job()).await.map_err(asked)?.is_new;
    if is_new || next.due_ms <= now_ms {
        return Ok(());
    }
    // Only a clock that was ahead can have done it before its time: do it again.
    let job = jobs.show(TENANT, &next.job_id()).await.map_err(asked)?;
    if matches!(job.state(), v1::JobState::Succeeded | v1::JobState::Failed) {
        jobs.delete(TENANT, &next.job_id()).await.map_err(asked)?;
        jobs.enqueue(next.job()).await.map_err(asked)?;
    }
    Ok(())
}

/// True if the job was cancelled, and is not to be followed.
async fn is_called_off(jobs: &Jobs, id: &str) -> Result<bool, Failure> {
    let job = jobs.show(TENANT, id).await.map_err(asked)?;
    Ok(job.cancel_asked || job.state() == v1::JobState::Cancelled)
}

/// Cancels the job that was to follow.
async fn end(jobs: &Jobs, next: &Schedule) -> Result<(), Failure> {
    match jobs.cancel(TENANT, &next.job_id()).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        called_off => called_off.map(drop).map_err(asked),
    }
}

/// The failure of a call to the broker.
fn asked(error: Error) -> Failure {
    Failure::retry("jobs", error.message())
}

/// The failure of a call to the engine.
fn engine(error: skerry_volume::Error) -> Failure {
    Failure::retry(code(error.kind()), error.to_string())
}

fn code(kind: EngineErrorKind) -> &'static str {
    match kind {
        EngineErrorKind::Internal => "internal",
        EngineErrorKind::NotFound => "not-found",
        EngineErrorKind::Exists => "exists",
        EngineErrorKind::Busy => "in-use",
        EngineErrorKind::Fenced => "fenced",
        EngineErrorKind::Detached => "detached",
        EngineErrorKind::Invalid => "invalid",
        EngineErrorKind::Unavailable => "unavailable",
        EngineErrorKind::Corrupt => "corrupt",
    }
}
