//! What a shard knows, behind one short lock: the machine, what has changed since it was last written, and who waits.

use super::edit::Edit;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{Ending, Job, JobRef, Lease, Seq};
use crate::machine::{Granted, Machine, Next};
use crate::name::{Group, JobId, Tenant, Worker};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use tokio::sync::{mpsc, oneshot};

/// A job that a worker has.
#[derive(Debug, Clone)]
pub struct Leased {
    /// What the worker shows.
    pub lease: Lease,
    /// Until when, without a sign of life, milliseconds since 1970.
    pub expires_ms: u64,
    /// The job.
    pub job: Job,
}

/// A worker that waits for work.
pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) worker: Worker,
    /// Jobs that it still takes.
    pub(super) credits: u32,
    /// Jobs that are its own, on their way.
    pub(super) granted: u32,
    pub(super) to: mpsc::Sender<Leased>,
}

/// A lease that is told of when it is durable.
pub(super) struct Delivery {
    pub(super) granted: Granted,
    pub(super) to: mpsc::Sender<Leased>,
}

/// Changes that become durable together.
#[derive(Default)]
pub(super) struct Batch {
    /// Changes, by job, in the order in which they happened.
    pub(super) edits: BTreeMap<Seq, Vec<Edit>>,
    pub(super) deliveries: Vec<Delivery>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }
}

/// What a shard knows.
pub(super) struct State {
    pub(super) machine: Machine,
    /// What has changed since the batch before.
    pub(super) batch: Batch,
    /// The number of `batch`: what is in it is durable when this one is.
    pub(super) number: u64,
    /// The next job's place.
    pub(super) next_seq: u64,
    /// Ids that somebody is looking for in the database, to take them if they are free.
    pub(super) checking: HashSet<(Tenant, JobId)>,
    /// Ids of jobs that have come to their end, and whose records do not say so yet.
    pub(super) ending: HashMap<(Tenant, JobId), Seq>,
    pub(super) waiters: HashMap<Group, VecDeque<Waiter>>,
    pub(super) next_waiter: u64,
    /// Who wants to know how a job ends.
    pub(super) awaiting: HashMap<Seq, Vec<oneshot::Sender<Job>>>,
    /// Why the shard is out of service.
    pub(super) failure: Option<Error>,
}

impl State {
    pub(super) fn new(machine: Machine, next_seq: u64) -> Self {
        Self {
            machine,
            batch: Batch::default(),
            number: 1,
            next_seq,
            checking: HashSet::new(),
            ending: HashMap::new(),
            waiters: HashMap::new(),
            next_waiter: 0,
            awaiting: HashMap::new(),
            failure: None,
        }
    }

    /// Fails if the shard is out of service.
    pub(super) fn check(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// The place of a job that has not come to its end.
    pub(super) fn place(&self, tenant: &Tenant, job: &JobRef) -> Result<Seq> {
        self.machine.place_of(tenant, job).ok_or_else(|| {
            let detail = format!("tenant {tenant} has no job {job} that has not come to its end");
            Error::new(ErrorKind::NotFound, detail)
        })
    }

    pub(super) fn edit(&mut self, seq: Seq, edit: Edit) {
        self.batch.edits.entry(seq).or_default().push(edit);
    }

    /// An attempt is over, and the machine has said what comes next.
    pub(super) fn end_attempt(
        &mut self,
        lease: Lease,
        named: Option<(Tenant, JobId)>,
        ending: Ending,
        next: Next,
        at_ms: u64,
    ) {
        self.edit(lease.seq, Edit::AttemptEnded { at_ms, ending, next });
        if let (Next::End(_), Some(named)) = (next, named) {
            self.ending.insert(named, lease.seq);
        }
    }

    /// What has come due.
    pub(super) fn tick(&mut self, now_ms: u64) {
        for expired in self.machine.tick(now_ms) {
            let named = expired.named;
            self.end_attempt(expired.lease, named, Ending::Expired, expired.next, now_ms);
        }
        self.dispatch(now_ms);
    }

    /// Gives work to those who wait for it, wherever there may be some that there was not.
    pub(super) fn dispatch(&mut self, now_ms: u64) {
        for group in self.machine.take_touched() {
            self.serve(&group, now_ms);
        }
    }

    /// Gives work of a task group to those who wait for it, in turns.
    pub(super) fn serve(&mut self, group: &Group, now_ms: u64) {
        let Some(waiters) = self.waiters.get_mut(group) else { return };
        while let Some(waiter) = waiters.front_mut() {
            if waiter.to.is_closed() {
                waiters.pop_front();
                continue;
            }
            let Some(granted) = self.machine.lease(group, now_ms) else { break };
            waiter.credits -= 1;
            waiter.granted += 1;
            let (attempt, worker) = (granted.lease.attempt, waiter.worker.clone());
            let edit = Edit::Leased { attempt, worker, at_ms: now_ms };
            self.batch.edits.entry(granted.lease.seq).or_default().push(edit);
            self.batch.deliveries.push(Delivery { granted, to: waiter.to.clone() });
            if waiter.credits > 0 {
                waiters.rotate_left(1);
            } else {
                waiters.pop_front();
            }
        }
        if waiters.is_empty() {
            self.waiters.remove(group);
        }
    }

    /// Those who wait for this job to end are told.
    pub(super) fn tell_end(&mut self, job: &Job) {
        for waiting in self.awaiting.remove(&job.seq).unwrap_or_default() {
            // Who does not wait any more need not know.
            let _ = waiting.send(job.clone());
        }
    }
}
