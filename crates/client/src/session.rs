//! What a worker has in hand, over as many connections as it takes.
//!
//! What must hold: an outcome is said again until the node has answered it; what is said with a lease that is lost is
//! dropped; credits never exceed what the worker has room for.

use crate::task::{Task, outcome};
use crate::worker::Handler;
use bytes::Bytes;
use futures::FutureExt as _;
use skerry_api::{Address, Client, Error, Result, v1};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Messages on their way to the node.
const MESSAGES_MAX: usize = 16;
/// How often a worker without work says nothing.
const BEAT_MAX: Duration = Duration::from_secs(10);
/// The shortest time between two signs of life.
const BEAT_MIN: Duration = Duration::from_millis(20);

/// A job that is being done.
struct Running {
    stop: CancellationToken,
    abort: tokio::task::AbortHandle,
    lease_ms: u32,
}

/// What a worker has in hand.
pub(crate) struct Session {
    group: String,
    name: String,
    concurrency: u32,
    handler: Arc<Handler>,
    running: HashMap<Bytes, Running>,
    handlers: JoinSet<v1::Outcome>,
    /// Outcomes that the node has not answered.
    unheard: HashMap<Bytes, v1::Outcome>,
    has_heard: bool,
}

type ToNode = mpsc::Sender<v1::WorkRequest>;

impl Session {
    pub(crate) fn new(
        group: String,
        name: String,
        concurrency: u32,
        handler: Arc<Handler>,
    ) -> Self {
        Self {
            group,
            name,
            concurrency,
            handler,
            running: HashMap::new(),
            handlers: JoinSet::new(),
            unheard: HashMap::new(),
            has_heard: false,
        }
    }

    /// Nothing is being done, and the node knows of all that was.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.unheard.is_empty()
    }

    /// The node has answered since this was asked before.
    pub(crate) fn has_heard(&mut self) -> bool {
        std::mem::take(&mut self.has_heard)
    }

    /// Works over one connection, until it breaks, or until everything is done after `stop`.
    pub(crate) async fn talk(&mut self, address: &Address, stop: &CancellationToken) -> Result<()> {
        let mut jobs = Client::connect(address).await?.jobs();
        let (to_node, requests) = mpsc::channel(MESSAGES_MAX);
        send(&to_node, self.first(stop.is_cancelled())).await?;
        let mut answers = jobs.work(ReceiverStream::new(requests)).await?.into_inner();
        let mut is_stopping = stop.is_cancelled();
        let mut last_beat = Instant::now();
        loop {
            if is_stopping && self.is_idle() {
                return Ok(());
            }
            let beat = tokio::time::sleep_until(last_beat + self.beat_interval());
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer?.ok_or_else(gone)?;
                    self.has_heard = true;
                    self.hear(&to_node, answer, is_stopping).await?;
                }
                Some(done) = self.handlers.join_next() => {
                    match done {
                        Ok(outcome) => self.finish(&to_node, outcome, is_stopping).await?,
                        // It was aborted, since its lease is lost: there is a place for another job.
                        Err(_) if !is_stopping => {
                            send(&to_node, v1::WorkRequest { credits: 1, ..Default::default() }).await?;
                        }
                        Err(_) => {}
                    }
                }
                () = beat => {
                    last_beat = Instant::now();
                    let beats = self.running.keys().cloned().collect();
                    send(&to_node, v1::WorkRequest { beats, ..Default::default() }).await?;
                }
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    send(&to_node, v1::WorkRequest { stop: true, ..Default::default() }).await?;
                }
            }
        }
    }

    /// The first message of a connection: what it has still, and what it would take.
    fn first(&self, is_stopping: bool) -> v1::WorkRequest {
        // Also those that are being aborted: each place comes free when its handler has ended.
        let busy = u32::try_from(self.handlers.len()).unwrap_or(u32::MAX);
        let begin = v1::WorkBegin { group: self.group.clone(), worker: self.name.clone() };
        v1::WorkRequest {
            begin: Some(begin),
            credits: if is_stopping { 0 } else { self.concurrency.saturating_sub(busy) },
            beats: self.running.keys().cloned().collect(),
            outcomes: self.unheard.values().cloned().collect(),
            stop: is_stopping,
        }
    }

    /// A third of the shortest lease.
    fn beat_interval(&self) -> Duration {
        let shortest = self.running.values().map(|job| job.lease_ms).min();
        shortest.map_or(BEAT_MAX, |ms| Duration::from_millis(u64::from(ms) / 3).max(BEAT_MIN))
    }

    async fn hear(
        &mut self,
        to_node: &ToNode,
        answer: v1::WorkResponse,
        is_stopping: bool,
    ) -> Result<()> {
        let mut returned = Vec::new();
        for job in answer.jobs {
            if is_stopping {
                let end = Some(v1::outcome::End::Returned(true));
                let outcome = v1::Outcome { lease: job.lease.clone(), end };
                self.unheard.insert(job.lease, outcome.clone());
                returned.push(outcome);
            } else {
                self.begin(job);
            }
        }
        for lease in answer.cancels {
            if let Some(running) = self.running.get(&lease) {
                running.stop.cancel();
            }
        }
        for beat in answer.beats {
            if beat.failure.is_some_and(|failure| is_lost(&failure)) {
                self.lose(&beat.lease);
            } else if beat.cancel_asked
                && let Some(running) = self.running.get(&beat.lease)
            {
                running.stop.cancel();
            }
        }
        for report in answer.reports {
            // If the node could not keep it, it is said again over the next connection.
            if !is_unavailable(&report) {
                self.unheard.remove(&report.lease);
            }
        }
        if returned.is_empty() {
            return Ok(());
        }
        send(to_node, v1::WorkRequest { outcomes: returned, ..Default::default() }).await
    }

    fn begin(&mut self, job: v1::LeasedJob) {
        let task = Task::new(&job);
        let (stop, lease) = (task.stop.clone(), job.lease.clone());
        let work = (self.handler)(task);
        let abort = self.handlers.spawn(async move {
            let done = AssertUnwindSafe(work).catch_unwind().await;
            let done = done.unwrap_or_else(|_| {
                Err(crate::Failure::retry("panic", "the worker's handler panicked"))
            });
            outcome(lease, done)
        });
        self.running.insert(job.lease, Running { stop, abort, lease_ms: job.lease_ms });
    }

    /// Somebody else has the job, or will.
    fn lose(&mut self, lease: &Bytes) {
        if let Some(running) = self.running.remove(lease) {
            running.stop.cancel();
            running.abort.abort();
        }
    }

    async fn finish(
        &mut self,
        to_node: &ToNode,
        outcome: v1::Outcome,
        is_stopping: bool,
    ) -> Result<()> {
        if self.running.remove(&outcome.lease).is_none() {
            // It was done just when its lease was lost.
            let credits = u32::from(!is_stopping);
            return send(to_node, v1::WorkRequest { credits, ..Default::default() }).await;
        }
        self.unheard.insert(outcome.lease.clone(), outcome.clone());
        let credits = u32::from(!is_stopping);
        let outcomes = vec![outcome];
        send(to_node, v1::WorkRequest { outcomes, credits, ..Default::default() }).await
    }
}

fn is_lost(failure: &v1::Failure) -> bool {
    failure.kind() == v1::FailureKind::LeaseLost
}

fn is_unavailable(report: &v1::Reported) -> bool {
    match &report.next {
        Some(v1::reported::Next::Failure(why)) => why.kind() == v1::FailureKind::Unavailable,
        _ => false,
    }
}

async fn send(to_node: &ToNode, request: v1::WorkRequest) -> Result<()> {
    to_node.send(request).await.map_err(|_| gone())
}

fn gone() -> Error {
    Error::new(skerry_api::ErrorKind::Unavailable, "the node closed the connection")
}
