//! A client of a node's jobs.

use crate::new_job::NewJob;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use skerry_api::v1::jobs_client::JobsClient;
use skerry_api::{Address, Client, Error, ErrorKind, Result, v1};
use tonic::transport::Channel;

/// A job that was enqueued now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id.
    pub id: String,
    /// False if a job of this id was there: then the call changed nothing.
    pub is_new: bool,
}

/// The most jobs in one call, and the bytes after which no further job joins it.
const MESSAGE_JOBS_MAX: usize = 1000;
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A connection to a node's jobs. Clones share it. An answer means that its content is durable.
#[derive(Debug, Clone)]
pub struct Jobs {
    client: JobsClient<Channel>,
}

impl Jobs {
    /// Connects to the node at `address`. Gives [`ErrorKind::Unavailable`] if none answers there.
    pub async fn connect(address: &Address) -> Result<Self> {
        Ok(Self { client: Client::connect(address).await?.jobs() })
    }

    /// Gives the generated client, for calls that this type does not have.
    pub fn raw(&self) -> JobsClient<Channel> {
        self.client.clone()
    }

    /// Enqueues a job.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] names the field that is out of range. After
    /// [`ErrorKind::Unavailable`], try again, with an id so that no second job is made.
    pub async fn enqueue(&self, job: NewJob) -> Result<Enqueued> {
        let mut all = self.enqueue_all([job]).await?;
        all.pop().unwrap_or_else(|| Err(out_of_order()))
    }

    /// Enqueues many jobs, in as many calls as needed. A refused job keeps no other from being
    /// enqueued.
    ///
    /// # Errors
    /// If the fate of some is unknown. Jobs with ids can all be enqueued again.
    pub async fn enqueue_all(
        &self,
        wanted: impl IntoIterator<Item = NewJob>,
    ) -> Result<Vec<Result<Enqueued>>> {
        let mut enqueued = Vec::new();
        for jobs in messages(wanted.into_iter().map(|job| job.spec)) {
            let answer = self.raw().enqueue_jobs(v1::EnqueueJobsRequest { jobs }).await?;
            enqueued.extend(answer.into_inner().jobs.into_iter().map(one_enqueued));
        }
        Ok(enqueued)
    }

    /// Enqueues many jobs from elsewhere, with their history, in as many calls as needed. A job
    /// that was running waits, and gets a new attempt. A refused job keeps no other from being
    /// enqueued.
    ///
    /// # Errors
    /// If the fate of some is unknown. Jobs with ids can all be imported again.
    pub async fn import_all(
        &self,
        jobs: impl IntoIterator<Item = v1::Job>,
    ) -> Result<Vec<Result<Enqueued>>> {
        let mut enqueued = Vec::new();
        for jobs in messages(jobs.into_iter()) {
            let answer = self.raw().import_jobs(v1::ImportJobsRequest { jobs }).await?;
            enqueued.extend(answer.into_inner().jobs.into_iter().map(one_enqueued));
        }
        Ok(enqueued)
    }

    /// Waits for a job's end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the job does not exist.
    pub async fn wait(&self, tenant: &str, id: &str) -> Result<v1::Job> {
        let mut all = self.wait_all(tenant, [id.to_owned()]).await?;
        match all.next().await {
            Some((_, ended)) => ended,
            None => Err(out_of_order()),
        }
    }

    /// Gives jobs with their ids, each at its end.
    ///
    /// # Errors
    /// If the node can't be asked.
    pub async fn wait_all(
        &self,
        tenant: &str,
        ids: impl IntoIterator<Item = String>,
    ) -> Result<BoxStream<'static, (String, Result<v1::Job>)>> {
        let (tenant, ids) = (tenant.to_owned(), ids.into_iter().collect());
        let ended = self.raw().await_jobs(v1::AwaitJobsRequest { tenant, ids }).await?;
        let ended = ended.into_inner().map(|one| match one {
            Ok(v1::AwaitJobsResponse { id, failure: Some(failure), .. }) => {
                (id, Err(Error::from(&failure)))
            }
            Ok(v1::AwaitJobsResponse { id, job, .. }) => (id, job.ok_or_else(out_of_order)),
            Err(status) => (String::new(), Err(status.into())),
        });
        Ok(Box::pin(ended))
    }

    /// Gives a job's present state.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn show(&self, tenant: &str, id: &str) -> Result<v1::Job> {
        Ok(self.raw().show_job(request(tenant, id)).await?.into_inner())
    }

    /// Cancels a job. True if the job has ended; false if its worker is told.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if no such job waits or runs.
    pub async fn cancel(&self, tenant: &str, id: &str) -> Result<bool> {
        Ok(self.raw().cancel_job(request(tenant, id)).await?.into_inner().is_done)
    }

    /// Restarts an ended job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::InUse`] if the job has not ended.
    pub async fn restart(&self, tenant: &str, id: &str) -> Result<()> {
        Ok(self.raw().restart_job(request(tenant, id)).await.map(drop)?)
    }

    /// Deletes a job that is not running.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::InUse`] if it runs.
    pub async fn delete(&self, tenant: &str, id: &str) -> Result<()> {
        Ok(self.raw().delete_job(request(tenant, id)).await.map(drop)?)
    }
}

/// Splits jobs into parts that fit a message each.
fn messages<T: prost::Message>(mut jobs: impl Iterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE_BYTES_MAX && part.len() < MESSAGE_JOBS_MAX {
            let Some(job) = jobs.next() else { break };
            bytes += job.encoded_len();
            part.push(job);
        }
        (!part.is_empty()).then_some(part)
    })
}

fn one_enqueued(one: v1::EnqueuedJob) -> Result<Enqueued> {
    match one.failure {
        None => Ok(Enqueued { id: one.id, is_new: one.is_new }),
        Some(failure) => Err(Error::from(&failure)),
    }
}

fn request(tenant: &str, id: &str) -> v1::JobRequest {
    v1::JobRequest { tenant: tenant.to_owned(), id: id.to_owned() }
}

fn out_of_order() -> Error {
    Error::new(ErrorKind::Internal, "the node did not say what became of a job")
}
