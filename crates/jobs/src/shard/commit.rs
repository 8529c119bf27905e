//! Group commit: whatever has changed since the batch before is written at once, made durable, and then answered.
//!
//! One batch at a time: while one is on its way, the next gathers. A job that changes several times between two
//! batches is written once.

use super::edit::Edit;
use super::state::{Batch, Delivery, Leased};
use super::store::{Changes, Store};
use super::{Durable, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Seq, State};
use futures::StreamExt;
use futures::stream;
use std::collections::HashMap;
use std::sync::Weak;

/// Jobs that are read at once.
const READS_MAX: usize = 64;

/// Writes batches as long as somebody uses the shard and nothing fails.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut running = HashMap::new();
    loop {
        let Some(shard) = inner.upgrade() else { return };
        let Some((number, batch)) = shard.take_batch() else {
            let work = shard.work.clone();
            drop(shard);
            work.notified().await;
            continue;
        };
        if let Err(error) = shard.commit(&mut running, number, batch).await {
            shard.fail(&error);
            return;
        }
    }
}

impl Inner {
    /// What has gathered, if anything has.
    fn take_batch(&self) -> Option<(u64, Batch)> {
        let mut state = self.state.lock();
        if state.batch.is_empty() {
            return None;
        }
        let number = state.number;
        state.number += 1;
        Some((number, std::mem::take(&mut state.batch)))
    }

    /// Writes a batch. `running` are the jobs that workers have.
    async fn commit(
        &self,
        running: &mut HashMap<Seq, Job>,
        number: u64,
        batch: Batch,
    ) -> Result<()> {
        let written = gather(&self.store, running, batch.edits).await?;
        let mut changes = Changes::default();
        for job in &written {
            self.store.put(&mut changes, &job.now, job.is_new, job.was_final);
        }
        self.store.write(changes).await?;
        self.store.sync().await?;
        let deliveries = batch.deliveries;
        let ended: Vec<&Job> =
            written.iter().map(|job| &job.now).filter(|job| job.state.is_final()).collect();
        {
            let mut state = self.state.lock();
            for job in &ended {
                if let Some(id) = &job.spec.id {
                    state.ending.remove(&(job.spec.tenant.clone(), id.clone()));
                }
                state.tell_end(job);
            }
        }
        self.durable.send_replace(Durable { number, failure: None });
        for job in written {
            if job.now.state == State::Running {
                running.insert(job.now.seq, job.now);
            }
        }
        deliver(running, deliveries);
        Ok(())
    }

    /// The shard is out of service: whoever waits is told.
    fn fail(&self, error: &Error) {
        tracing::error!(%error, "a shard of the broker is out of service");
        let mut state = self.state.lock();
        state.failure = Some(error.clone());
        state.waiters.clear();
        state.awaiting.clear();
        state.batch = Batch::default();
        drop(state);
        self.durable.send_modify(|durable| durable.failure = Some(error.clone()));
    }
}

/// A job as it is after a batch.
struct Written {
    now: Job,
    /// Nothing of it was in the database.
    is_new: bool,
    /// It had come to its end.
    was_final: bool,
}

/// Makes the changes of a batch to its jobs; those that no worker has are read first.
async fn gather(
    store: &Store,
    running: &mut HashMap<Seq, Job>,
    edits: impl IntoIterator<Item = (Seq, Vec<Edit>)>,
) -> Result<Vec<Written>> {
    let begun = edits.into_iter().map(|(seq, edits)| {
        let known = match edits.first() {
            Some(Edit::New(_)) => None,
            _ => running.remove(&seq),
        };
        async move { apply(store, seq, known, edits).await }
    });
    let begun: Vec<_> = begun.collect();
    let mut done = stream::iter(begun).buffered(READS_MAX);
    let mut written = Vec::new();
    while let Some(job) = done.next().await {
        written.push(job?);
    }
    Ok(written)
}

async fn apply(store: &Store, seq: Seq, known: Option<Job>, edits: Vec<Edit>) -> Result<Written> {
    let mut edits = edits.into_iter();
    let (mut now, is_new, was_final) = match (known, edits.next()) {
        (_, Some(Edit::New(job))) => {
            let was_final = job.restarted_after.0 > 0 || job.ended_ms.is_some();
            (*job, true, was_final)
        }
        (Some(mut job), first) => {
            first.into_iter().for_each(|edit| edit.apply(&mut job));
            (job, false, false)
        }
        (None, first) => {
            let mut job = store.job(seq).await?.ok_or_else(|| {
                let detail = format!("the record of the job at {} is not there", seq.0);
                Error::new(ErrorKind::Corrupt, detail)
            })?;
            first.into_iter().for_each(|edit| edit.apply(&mut job));
            (job, false, false)
        }
    };
    edits.for_each(|edit| edit.apply(&mut now));
    Ok(Written { now, is_new, was_final })
}

/// Tells workers of their leases.
fn deliver(running: &HashMap<Seq, Job>, deliveries: Vec<Delivery>) {
    for Delivery { granted, to } in deliveries {
        let Some(job) = running.get(&granted.lease.seq) else { continue };
        let leased =
            Leased { lease: granted.lease, expires_ms: granted.expires_ms, job: job.clone() };
        // A worker that has gone has it until the lease is over.
        let _ = to.try_send(leased);
    }
}
