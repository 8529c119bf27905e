//! Group commit: whatever has changed since the batch before is written at once, made durable, and then answered.
//!
//! One batch at a time: while one is on its way, the next gathers. A job that changes several times between two
//! batches is written once.

use super::edit::Edit;
use super::seat::{Leased, Told};
use super::state::{Batch, Delivery};
use super::store::{Changes, Store};
use super::{Durable, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Job, Lease, Seq, State};
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
        written.iter().for_each(|job| self.store.put(&mut changes, job));
        batch.rows.into_iter().for_each(|(key, value)| changes.set(key, value));
        self.store.write(changes).await?;
        self.store.sync().await?;
        self.note_written(&written);
        self.durable.send_replace(Durable { number, failure: None });
        for job in written {
            if job.now.state == State::Running && !job.is_gone {
                running.insert(job.now.seq, job.now);
            }
        }
        for gone in deliver(running, batch.deliveries) {
            let now_ms = self.clock.now_ms();
            let mut state = self.state.lock();
            state.give_back(gone, now_ms);
            self.changed(&state);
        }
        Ok(())
    }

    /// The records say what has happened: nobody need remember it.
    fn note_written(&self, written: &[Written]) {
        let mut state = self.state.lock();
        for Written { now, before, is_gone } in written {
            let called = || (now.spec.tenant.clone(), now.name());
            if *is_gone && *before == Before::Ended {
                state.leaving.remove(&called());
            } else if now.state.is_final() && !is_gone {
                state.ending.remove(&called());
                state.tell_end(now);
            }
            if *is_gone {
                // Who waits for its end looks for it, and finds nothing.
                state.awaiting.remove(&now.seq);
            }
        }
    }

    /// The shard is out of service: whoever waits is told.
    pub(super) fn fail(&self, error: &Error) {
        if self.state.lock().failure.is_some() {
            return;
        }
        tracing::error!(%error, "a shard of the broker is out of service");
        self.state.lock().fail(error.clone());
        self.durable.send_modify(|durable| durable.failure = Some(error.clone()));
    }
}

/// What the database had of a job before a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    Active,
    Ended,
}

/// A job as it is after a batch.
pub(super) struct Written {
    pub(super) now: Job,
    pub(super) before: Before,
    /// It was deleted: `now` is what it was.
    pub(super) is_gone: bool,
}

/// Makes the changes of a batch to its jobs; those that no worker has are read first.
async fn gather(
    store: &Store,
    running: &mut HashMap<Seq, Job>,
    edits: impl IntoIterator<Item = (Seq, Vec<Edit>)>,
) -> Result<Vec<Written>> {
    let begun = edits.into_iter().map(|(seq, edits)| {
        let known = match edits.first() {
            Some(Edit::New(_) | Edit::Restarted(_)) => None,
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
    let mut edits = edits.into_iter().peekable();
    let before = match (&known, edits.peek()) {
        (None, Some(Edit::New(_))) => Before::Nothing,
        (None, Some(Edit::Restarted(_))) => Before::Ended,
        _ => Before::Active,
    };
    let (mut now, before) = match (known, before) {
        (Some(job), _) => (job, Before::Active),
        (None, Before::Active) => {
            let job = store.job(seq).await?.ok_or_else(|| {
                let detail = format!("the record of the job at {} is not there", seq.0);
                Error::new(ErrorKind::Corrupt, detail)
            })?;
            let before = if job.state.is_final() { Before::Ended } else { Before::Active };
            (job, before)
        }
        (None, before) => match edits.next() {
            Some(Edit::New(job) | Edit::Restarted(job)) => (*job, before),
            _ => return Err(Error::new(ErrorKind::Internal, "a job without a beginning")),
        },
    };
    let mut is_gone = false;
    for edit in edits {
        is_gone |= matches!(edit, Edit::Deleted);
        edit.apply(&mut now);
    }
    Ok(Written { now, before, is_gone })
}

/// Tells workers of their leases; gives those whose worker has gone.
fn deliver(running: &HashMap<Seq, Job>, deliveries: Vec<Delivery>) -> Vec<Lease> {
    let mut gone = Vec::new();
    for Delivery { granted, to } in deliveries {
        let job = running.get(&granted.lease.seq);
        let Some(job) = job.filter(|job| job.begun() == granted.lease.attempt) else {
            // Over before it was written: a worker that has gone need not know.
            let _ = to.tell(Told::Missed);
            continue;
        };
        let leased =
            Leased { lease: granted.lease, expires_ms: granted.expires_ms, job: job.clone() };
        if !to.tell(Told::Leased(Box::new(leased))) {
            gone.push(granted.lease);
        }
    }
    gone
}
