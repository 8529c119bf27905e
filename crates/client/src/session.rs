//! State of a worker over all its connections: running jobs, and outcomes to report.
//!
//! Must hold: the worker repeats an outcome until the node has answered it. It drops reports under
//! a lost lease. Credits never exceed its free room. It hears while it speaks, so that neither side
//! waits for the other for ever.

use crate::task::{Task, outcome, wrong_result};
use crate::worker::Handler;
use bytes::Bytes;
use futures::FutureExt as _;
use prost::Message as _;
use skerry_api::{Address, Client, Error, Result, v1};
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// Messages on their way to the node. News that comes meanwhile goes into the next one.
const MESSAGES_MAX: usize = 2;
/// The bytes after which no further outcome joins a message, and the most outcomes of one.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
const MESSAGE_OUTCOMES_MAX: usize = 10_000;
/// Number of unanswered outcomes from which on the worker takes no jobs: each may hold a result of
/// 1 MiB.
const UNHEARD_MAX: usize = 1024;
/// Interval between keep-alives of an idle worker.
const BEAT_MAX: Duration = Duration::from_secs(10);
/// The shortest interval between heartbeats.
const BEAT_MIN: Duration = Duration::from_millis(20);
/// Time for which a stopping worker tries to report its last outcomes. Then their leases run out.
const LAST_WORDS_TIME: Duration = Duration::from_secs(30);
/// Time for which the worker keeps to itself an outcome that the node could not keep: less than
/// [`LAST_WORDS_TIME`].
const SAY_AGAIN_TIME: Duration = Duration::from_secs(10);
/// Time for which a worker that is done waits for the node to close the connection.
const PART_TIME_MAX: Duration = Duration::from_secs(5);

/// A running job.
struct Running {
    stop: CancellationToken,
    abort: tokio::task::AbortHandle,
    lease_ms: u32,
}

/// State of a worker.
pub(crate) struct Session {
    group: String,
    name: String,
    concurrency: u32,
    handler: Arc<Handler>,
    running: HashMap<Bytes, Running>,
    /// Also holds aborted handlers: a place comes free when its handler has ended.
    handlers: JoinSet<v1::Outcome>,
    /// Outcomes that the node has not answered.
    unheard: HashMap<Bytes, v1::Outcome>,
    has_heard: bool,
    is_stopping: bool,
    last_words_end: Option<Instant>,
    said: Said,
}

/// State of the present connection: what was sent, and what is to be sent.
#[derive(Default)]
struct Said {
    has_begun: bool,
    has_stopped: bool,
    /// Jobs that the node may still give.
    credits: u32,
    /// True if heartbeats are due.
    beats: bool,
    /// Leases of jobs that began, and of which the node does not know.
    begun: Vec<Bytes>,
    /// Leases of outcomes that were not sent yet.
    outcomes: VecDeque<Bytes>,
    /// Leases of outcomes that the node could not keep.
    put_off: Vec<Bytes>,
    /// Time at which those are sent again.
    again_at: Option<Instant>,
}

impl Said {
    /// Keeps an outcome back for a while.
    fn put_off(&mut self, lease: Bytes) {
        self.put_off.push(lease);
        self.again_at.get_or_insert_with(|| Instant::now() + SAY_AGAIN_TIME);
    }

    /// Queues the outcomes that were kept back.
    fn say_again(&mut self) {
        self.outcomes.extend(self.put_off.drain(..));
        self.again_at = None;
    }
}

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
            is_stopping: false,
            last_words_end: None,
            said: Said::default(),
        }
    }

    /// True if no job runs and the node has answered every outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.unheard.is_empty()
    }

    /// Goes on working for `pause` after the connection broke. The next connection reports the
    /// outcomes.
    pub(crate) async fn work_on(&mut self, pause: Duration, stop: &CancellationToken) {
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                // With no job and no outcome, the worker need not come back.
                () = stop.cancelled(), if self.is_idle() => return,
                Some(done) = self.handlers.join_next() => {
                    if let Ok(outcome) = done {
                        self.finish(outcome);
                    }
                }
            }
        }
    }

    /// The end of the time in which a stopping worker without running jobs reports its last
    /// outcomes.
    pub(crate) fn last_words_end(&mut self, is_stopping: bool) -> Option<Instant> {
        if !is_stopping || !self.running.is_empty() {
            return None;
        }
        Some(*self.last_words_end.get_or_insert_with(|| Instant::now() + LAST_WORDS_TIME))
    }

    /// The error of a worker that gave up reporting.
    pub(crate) fn gave_up(&self) -> Error {
        let message = format!(
            "the node is away, and has not heard how {} jobs ended: others will do them again",
            self.unheard.len()
        );
        Error::new(skerry_api::ErrorKind::Unavailable, message)
    }

    /// True if the node has answered since the last call of this method.
    pub(crate) fn has_heard(&mut self) -> bool {
        std::mem::take(&mut self.has_heard)
    }

    /// Works over one connection until it breaks, or until everything is done after `stop`. The
    /// next connection gives back jobs that come after that. Calls `met` when the node answers.
    pub(crate) async fn talk(
        &mut self,
        address: &Address,
        met: impl FnOnce(),
        stop: &CancellationToken,
    ) -> Result<()> {
        let (to_node, requests) = mpsc::channel(MESSAGES_MAX);
        self.is_stopping = stop.is_cancelled();
        let outcomes = self.unheard.keys().cloned().collect();
        self.said = Said { outcomes, beats: !self.running.is_empty(), ..Said::default() };
        let connecting = async {
            let mut jobs = Client::connect(address).await?.jobs();
            Ok::<_, Error>(jobs.work(ReceiverStream::new(requests)).await?.into_inner())
        };
        let last_words_end = self.last_words_end(self.is_stopping);
        let mut answers = tokio::select! {
            connected = connecting => connected?,
            () = at(last_words_end) => return Err(self.gave_up()),
        };
        met();
        let mut last_beat = Instant::now();
        while !(self.is_stopping && self.is_idle()) {
            let beat = tokio::time::sleep_until(last_beat + self.beat_interval());
            let last_words_end = self.last_words_end(self.is_stopping);
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer?.ok_or_else(gone)?;
                    self.has_heard = true;
                    self.hear(answer);
                }
                Some(done) = self.handlers.join_next() => {
                    // An aborted handler has lost its lease.
                    if let Ok(outcome) = done {
                        self.finish(outcome);
                    }
                }
                room = to_node.reserve(), if self.has_unsaid() => {
                    let request = self.next_request();
                    room.map_err(|_| gone())?.send(request);
                }
                () = beat => {
                    last_beat = Instant::now();
                    self.said.beats = true;
                }
                () = at(self.said.again_at) => self.said.say_again(),
                () = stop.cancelled(), if !self.is_stopping => self.is_stopping = true,
                () = at(last_words_end) => return Err(self.gave_up()),
            }
        }
        drop(to_node);
        self.part(&mut answers).await
    }

    /// Waits for the end of the node's messages; jobs may still be on their way.
    async fn part(&mut self, answers: &mut Streaming<v1::WorkResponse>) -> Result<()> {
        let parting = async {
            while let Some(answer) = answers.message().await? {
                self.hear(answer);
            }
            Ok(())
        };
        tokio::time::timeout(PART_TIME_MAX, parting).await.unwrap_or(Ok(()))
    }

    fn has_unsaid(&self) -> bool {
        let said = &self.said;
        !said.has_begun
            || said.beats
            || !said.begun.is_empty()
            || !said.outcomes.is_empty()
            || (self.is_stopping && !said.has_stopped)
            || self.free_places() > 0
    }

    /// Number of jobs that the worker would take beyond its running ones and its credits.
    fn free_places(&self) -> u32 {
        if self.is_stopping || self.unheard.len() >= UNHEARD_MAX {
            return 0;
        }
        let busy = u32::try_from(self.handlers.len()).unwrap_or(u32::MAX);
        self.concurrency.saturating_sub(busy).saturating_sub(self.said.credits)
    }

    /// Builds a message of all that is to be sent, as far as one message takes it.
    fn next_request(&mut self) -> v1::WorkRequest {
        let begin = || v1::WorkBegin {
            group: self.group.clone(),
            worker: self.name.clone(),
            begins_with_beat: true,
        };
        let begin = (!self.said.has_begun).then(begin);
        let credits = self.free_places();
        let outcomes = self.next_outcomes();
        let said = &mut self.said;
        said.credits += credits;
        said.has_begun = true;
        said.has_stopped = self.is_stopping;
        let beats = std::mem::take(&mut said.beats);
        let begun = std::mem::take(&mut said.begun);
        let beats = if beats {
            self.running.keys().cloned().collect()
        } else {
            // The outcome of a job that has ended meanwhile says enough.
            begun.into_iter().filter(|lease| self.running.contains_key(lease)).collect()
        };
        v1::WorkRequest { begin, credits, beats, outcomes, stop: self.is_stopping }
    }

    fn next_outcomes(&mut self) -> Vec<v1::Outcome> {
        let (mut outcomes, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE_BYTES_MAX && outcomes.len() < MESSAGE_OUTCOMES_MAX {
            let Some(lease) = self.said.outcomes.pop_front() else { break };
            if let Some(outcome) = self.unheard.get(&lease) {
                bytes += outcome.encoded_len();
                outcomes.push(outcome.clone());
            }
        }
        outcomes
    }

    /// A third of the shortest lease, or [`BEAT_MAX`] without one.
    fn beat_interval(&self) -> Duration {
        let shortest = self.running.values().map(|job| job.lease_ms).min();
        shortest.map_or(BEAT_MAX, |ms| Duration::from_millis(u64::from(ms) / 3).max(BEAT_MIN))
    }

    fn hear(&mut self, answer: v1::WorkResponse) {
        for job in answer.jobs {
            self.said.credits = self.said.credits.saturating_sub(1);
            if self.is_stopping {
                let end = Some(v1::outcome::End::Returned(true));
                self.say(v1::Outcome { lease: job.lease, end });
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
        answer.reports.into_iter().for_each(|report| self.hear_report(report));
    }

    fn hear_report(&mut self, report: v1::Reported) {
        let failure = match report.next {
            Some(v1::reported::Next::Failure(failure)) => failure,
            _ => v1::Failure::default(),
        };
        // A shard is away, or could not look the outcome up: this connection or the next one
        // reports it again.
        if failure.kind() == v1::FailureKind::Unavailable {
            self.said.put_off(report.lease);
            return;
        }
        let said = self.unheard.remove(&report.lease).and_then(|outcome| outcome.end);
        if failure.kind() == v1::FailureKind::Invalid
            && let Some(v1::outcome::End::Succeeded(_)) = said
        {
            // The job must not hang until its lease is over.
            self.say(wrong_result(report.lease, failure.message));
        }
    }

    /// Queues an outcome until the node has answered it.
    fn say(&mut self, outcome: v1::Outcome) {
        self.said.outcomes.push_back(outcome.lease.clone());
        self.unheard.insert(outcome.lease.clone(), outcome);
    }

    fn begin(&mut self, job: v1::LeasedJob) {
        let task = Task::new(&job);
        let (stop, lease) = (task.stop.clone(), job.lease.clone());
        let handler = self.handler.clone();
        let abort = self.handlers.spawn(async move {
            let work = AssertUnwindSafe(async { handler(task).await });
            let done = work.catch_unwind().await;
            let done = done.unwrap_or_else(|_| {
                Err(crate::Failure::retry("panic", "the worker's handler panicked"))
            });
            outcome(lease, done)
        });
        self.said.begun.push(job.lease.clone());
        self.running.insert(job.lease, Running { stop, abort, lease_ms: job.lease_ms });
    }

    /// Stops a job whose lease is lost: another worker has it, or will.
    fn lose(&mut self, lease: &Bytes) {
        if let Some(running) = self.running.remove(lease) {
            running.stop.cancel();
            running.abort.abort();
        }
    }

    fn finish(&mut self, outcome: v1::Outcome) {
        // The job may have ended just when its lease was lost.
        if self.running.remove(&outcome.lease).is_some() {
            self.say(outcome);
        }
    }
}

fn is_lost(failure: &v1::Failure) -> bool {
    failure.kind() == v1::FailureKind::LeaseLost
}

/// Waits until a time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn gone() -> Error {
    Error::new(skerry_api::ErrorKind::Unavailable, "the node closed the connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let handler: Box<Handler> = Box::new(|_| Box::pin(async { Ok(Bytes::new()) }));
        Session::new("group".to_owned(), "me".to_owned(), 1, handler.into())
    }

    /// Once, it was not reported again while the connection stayed.
    #[tokio::test(start_paused = true)]
    async fn an_outcome_that_the_node_can_not_keep_now_is_reported_again_later() {
        let mut session = session();
        let end = Some(v1::outcome::End::Succeeded(Bytes::new()));
        let outcome = v1::Outcome { lease: Bytes::from_static(b"1"), end };
        session.said.credits = 1;
        session.say(outcome.clone());
        assert_eq!(session.next_request().outcomes, std::slice::from_ref(&outcome));
        for _ in 0..2 {
            let failure =
                v1::Failure { kind: v1::FailureKind::Unavailable.into(), ..v1::Failure::default() };
            let next = Some(v1::reported::Next::Failure(failure));
            session.hear_report(v1::Reported { lease: outcome.lease.clone(), next });
            assert!(!session.has_unsaid(), "not at once");
            tokio::time::sleep_until(session.said.again_at.expect("it is put off")).await;
            session.said.say_again();
            assert_eq!(session.next_request().outcomes, std::slice::from_ref(&outcome));
        }
        assert_eq!(session.said.again_at, None);
    }
}
