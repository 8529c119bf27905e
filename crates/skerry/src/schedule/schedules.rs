//! The schedules of a node, as commands see and change them: through the jobs API, like any client.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use skerry_client::{Address, Error, ErrorKind, Jobs, Result, v1};
use skerry_core::id::VolumeId;

use super::document::{Keep, Schedule};
use super::{GROUP, Interval, SINCE_KEY, TENANT, VOLUME_KEY};

/// Jobs of one page of a listing.
const PAGE_ITEMS: u32 = 1000;
/// Questions on their way at once.
const QUESTIONS_MAX: usize = 16;
/// Time limit of ending a schedule. A running job stops at once; one whose node has died ends after
/// its lease.
const CALL_OFF_TIME_MAX: Duration = Duration::from_secs(60);

/// The schedules of a node.
pub(crate) struct Schedules {
    jobs: Jobs,
}

/// A job of a schedule that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    id: String,
    since_ms: u64,
}

/// A look at a volume's jobs.
#[derive(Debug, Default)]
struct Look {
    pending: Vec<Pending>,
    /// The newest of all, ended ones included.
    newest: Option<String>,
}

impl Schedules {
    /// Connects to the node at an address.
    pub(crate) async fn connect(address: &Address) -> Result<Self> {
        Ok(Self { jobs: Jobs::connect(address).await? })
    }

    /// All schedules, with their next times.
    pub(crate) async fn all(&self) -> Result<Vec<Schedule>> {
        let mut ids = Vec::new();
        // Between two jobs of a schedule one runs for a moment, and only for a moment.
        for state in [v1::JobState::Scheduled, v1::JobState::Running, v1::JobState::Scheduled] {
            let wanted = v1::ListJobsRequest { state: state.into(), ..request() };
            self.list(wanted, |job| ids.extend(job.spec.map(|spec| spec.id))).await?;
        }
        ids.sort_unstable();
        ids.dedup();
        let mut newest: BTreeMap<VolumeId, Schedule> = BTreeMap::new();
        for schedule in self.read(ids).await? {
            let known = newest.entry(schedule.volume).or_insert_with(|| schedule.clone());
            if order(&schedule) > order(known) {
                *known = schedule;
            }
        }
        Ok(newest.into_values().collect())
    }

    /// The schedule of a volume, with its next time.
    pub(crate) async fn of(&self, volume: VolumeId) -> Result<Option<Schedule>> {
        let mut before: Option<Option<String>> = None;
        loop {
            let look = self.look(volume, u64::MAX).await?;
            if !look.pending.is_empty() {
                let ids = look.pending.into_iter().map(|pending| pending.id).collect();
                return Ok(self.read(ids).await?.into_iter().max_by_key(order));
            }
            if before.replace(look.newest.clone()) == Some(look.newest) {
                return Ok(None);
            }
        }
    }

    /// Gives a volume a schedule, in place of its present one.
    pub(crate) async fn set(
        &self,
        volume: VolumeId,
        every: Interval,
        keep: Keep,
        now_ms: u64,
    ) -> Result<Schedule> {
        let look = self.look(volume, u64::MAX).await?;
        let newest_ms = look.pending.iter().map(|pending| pending.since_ms).max();
        let since_ms = newest_ms.map_or(now_ms, |newest_ms| now_ms.max(newest_ms + 1));
        let due_ms = every.next_after_ms(now_ms);
        let schedule = Schedule { volume, since_ms, due_ms, every, keep };
        if !self.jobs.enqueue(schedule.job()).await?.is_new {
            return Err(set_by_another(volume));
        }
        self.call_off(volume, since_ms).await?;
        // A faster command may have set a newer schedule without seeing this one.
        let look = self.look(volume, u64::MAX).await?;
        if look.pending.iter().any(|pending| pending.since_ms > since_ms) {
            self.call_off(volume, since_ms + 1).await?;
            return Err(set_by_another(volume));
        }
        Ok(schedule)
    }

    /// Ends the schedule of a volume. True if there was one.
    pub(crate) async fn end(&self, volume: VolumeId) -> Result<bool> {
        self.call_off(volume, u64::MAX).await
    }

    /// Hastens schedules whose next time is impossibly far away: the clock was ahead, and was set
    /// right while the node was stopped. Gives their number.
    pub(crate) async fn hasten(&self, now_ms: u64) -> Result<usize> {
        let mut hastened = 0;
        for schedule in self.all().await?.into_iter().filter(|all| all.is_beyond(now_ms)) {
            let request = v1::JobRequest { tenant: TENANT.to_owned(), id: schedule.job_id() };
            match self.jobs.raw().expedite_job(request).await.map_err(refused) {
                Ok(_) => hastened += 1,
                // The job is gone, or it runs.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InUse) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(hastened)
    }

    /// Cancels all schedules of a volume from before `since_ms`. True if there was one.
    async fn call_off(&self, volume: VolumeId, since_ms: u64) -> Result<bool> {
        let all = self.call_off_all(volume, since_ms);
        tokio::time::timeout(CALL_OFF_TIME_MAX, all).await.unwrap_or_else(|_| {
            let message = format!(
                "the schedule of volume {volume} has too long a history, or a snapshot is \
                 being taken: ask again"
            );
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    async fn call_off_all(&self, volume: VolumeId, since_ms: u64) -> Result<bool> {
        let mut was_there = false;
        let mut before: Option<Option<String>> = None;
        loop {
            let look = self.look(volume, since_ms).await?;
            let is_empty = look.pending.is_empty();
            for pending in look.pending {
                was_there = true;
                self.cancel(&pending.id).await?;
            }
            if before.replace(look.newest.clone()) == Some(look.newest) && is_empty {
                return Ok(was_there);
            }
        }
    }

    /// Cancels a job, and waits until it has ended.
    async fn cancel(&self, id: &str) -> Result<()> {
        match self.jobs.cancel(TENANT, id).await {
            Ok(true) => Ok(()),
            Ok(false) => self.jobs.wait(TENANT, id).await.map(drop),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Looks at a volume's schedules from before `since_ms`.
    async fn look(&self, volume: VolumeId, since_ms: u64) -> Result<Look> {
        let mut look = Look::default();
        let wanted = v1::ListJobsRequest {
            metadata_key: VOLUME_KEY.to_owned(),
            metadata_value: volume.to_string(),
            ..request()
        };
        self.list(wanted, |job| see(&mut look, job, since_ms)).await?;
        Ok(look)
    }

    /// Goes through all matching jobs: of one volume, oldest first.
    async fn list(
        &self,
        mut wanted: v1::ListJobsRequest,
        mut seen: impl FnMut(v1::Job),
    ) -> Result<()> {
        let mut jobs = self.jobs.raw();
        loop {
            let page = jobs.list_jobs(wanted.clone()).await.map_err(refused)?.into_inner();
            page.jobs.into_iter().for_each(&mut seen);
            if page.next.is_empty() {
                return Ok(());
            }
            wanted.after = page.next;
        }
    }

    /// Reads the schedules in jobs. A job without a schedule is another client's mistake, and its
    /// worker says so.
    async fn read(&self, ids: Vec<String>) -> Result<Vec<Schedule>> {
        let shown = ids.into_iter().map(|id| async move {
            match self.jobs.show(TENANT, &id).await {
                Ok(job) => Ok(job.spec.and_then(|spec| Schedule::decode(&spec.payload).ok())),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        let found = futures::stream::iter(shown).buffer_unordered(QUESTIONS_MAX);
        found.try_filter_map(|schedule| async { Ok(schedule) }).try_collect().await
    }
}

fn set_by_another(volume: VolumeId) -> Error {
    let message = format!(
        "another client gave volume {volume} a schedule at this moment: look at it, and try again"
    );
    Error::new(ErrorKind::InUse, message)
}

/// Order of the jobs of one volume: the last has its present schedule.
fn order(schedule: &Schedule) -> (u64, u64) {
    (schedule.since_ms, schedule.due_ms)
}

fn request() -> v1::ListJobsRequest {
    v1::ListJobsRequest {
        tenant: TENANT.to_owned(),
        group: GROUP.to_owned(),
        limit: PAGE_ITEMS,
        ..v1::ListJobsRequest::default()
    }
}

/// Notes a job, if it is of a schedule from before `since_ms`.
fn see(look: &mut Look, job: v1::Job, since_ms: u64) {
    let state = job.state();
    let Some(spec) = job.spec else { return };
    let since = spec.metadata.get(SINCE_KEY).and_then(|text| text.parse().ok());
    let pending = Pending { id: spec.id, since_ms: since.unwrap_or(0) };
    if pending.since_ms >= since_ms {
        return;
    }
    look.newest = Some(pending.id.clone());
    if matches!(state, v1::JobState::Scheduled | v1::JobState::Running) {
        look.pending.push(pending);
    }
}

/// A node that takes no jobs does not know the call.
fn refused(status: tonic::Status) -> Error {
    if status.code() != tonic::Code::Unimplemented {
        return status.into();
    }
    let message = "this node takes no jobs, and schedules are jobs: \
                   set `enabled = true` below `[jobs]` in its settings file";
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str, since_ms: u64, state: v1::JobState) -> v1::Job {
        let metadata = [(SINCE_KEY.to_owned(), since_ms.to_string())].into();
        let spec = v1::JobSpec { id: id.to_owned(), metadata, ..v1::JobSpec::default() };
        v1::Job { spec: Some(spec), state: state.into(), ..v1::Job::default() }
    }

    #[test]
    fn a_look_tells_what_is_pending_and_what_is_newest() {
        use v1::JobState::{Cancelled, Failed, Running, Scheduled, Succeeded};
        let mut look = Look::default();
        for (id, since_ms, state) in [
            ("a", 5, Succeeded),
            ("b", 5, Running),
            ("c", 5, Scheduled),
            ("d", 7, Failed),
            ("e", 6, Cancelled),
            ("f", 8, Scheduled),
        ] {
            see(&mut look, job(id, since_ms, state), 7);
        }
        let ids: Vec<_> = look.pending.iter().map(|pending| pending.id.as_str()).collect();
        assert_eq!(ids, ["b", "c"], "f is of a newer schedule");
        assert_eq!(look.newest.as_deref(), Some("e"));
    }

    #[test]
    fn a_node_without_jobs_says_what_to_do() {
        let error = refused(tonic::Status::unimplemented(""));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("[jobs]"), "{error}");
        assert_eq!(refused(tonic::Status::not_found("x")).kind(), ErrorKind::NotFound);
    }
}
