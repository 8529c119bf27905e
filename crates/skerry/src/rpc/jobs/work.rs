//! A worker's connection: jobs flow to it as it has credits; heartbeats and outcomes flow back.
//!
//! Everything that is ready at once goes into one message. The node reads nothing from a worker
//! that reads nothing. So the worker's credits and a few messages bound what waits for it.

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use prost::Message;
use skerry_api::v1;
use skerry_jobs::broker::{Broker, Ticket, Work, WorkerMessage};
use skerry_jobs::shard::{Begins, ON_ITS_WAY_BYTES, OnItsWay};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::attempts::{ITEMS_MAX, Messages, check_items, heartbeat, report, stopping};
use super::convert;
use crate::api_error::of_jobs;
use crate::values::invalid;

/// Messages that wait for one worker to read.
const MESSAGES_MAX: usize = 2;
/// Time that a worker may leave its messages unread. Their jobs count against the budget of all
/// workers, and other workers could do them.
pub(super) const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// Outcomes of one worker that are not durable yet: past it, the node reads no more.
const REPORTS_MAX: usize = 10_000;
/// Bytes of results and errors of such outcomes, without the last message.
const REPORTS_BYTES_MAX: usize = 4 << 20;

/// Serves a worker until it goes, or the node stops.
pub(super) fn serve(
    broker: Broker,
    requests: Streaming<v1::WorkRequest>,
    stop: CancellationToken,
) -> Messages<v1::WorkResponse> {
    let (out, messages) = Out::new();
    tokio::spawn(async move {
        let conversed = tokio::select! {
            biased;
            // The worker repeats outcomes that are not durable yet to the next node.
            () = stop.cancelled() => Err(stopping()),
            conversed = converse(broker, requests, &out) => conversed,
        };
        if let Err(status) = conversed {
            out.hang_up(status).await;
        }
    });
    Box::pin(messages)
}

/// An answer on its way. If the worker has gone, dropping it gives its jobs back.
struct Parcel {
    broker: Broker,
    answer: v1::WorkResponse,
    /// Shares of the node's budget, until it is opened.
    on_its_way: Vec<Arc<OnItsWay>>,
}

impl Parcel {
    fn new(broker: &Broker) -> Self {
        let answer = v1::WorkResponse::default();
        Self { broker: broker.clone(), answer, on_its_way: Vec::new() }
    }

    fn open(mut self) -> v1::WorkResponse {
        std::mem::take(&mut self.answer)
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        let leases = self.answer.jobs.iter().map(|job| Ticket::decode(&job.lease));
        leases.flatten().for_each(|ticket| self.broker.give_back(&ticket));
    }
}

/// The messages that wait for a worker to read them.
struct Out {
    to: mpsc::Sender<Result<Parcel, Status>>,
    /// The waiting messages; gone with the connection.
    waiting: Weak<Mutex<mpsc::Receiver<Result<Parcel, Status>>>>,
}

impl Out {
    fn new() -> (Self, impl Stream<Item = Result<v1::WorkResponse, Status>>) {
        let (to, messages) = mpsc::channel(MESSAGES_MAX);
        let messages = Arc::new(Mutex::new(messages));
        let waiting = Arc::downgrade(&messages);
        let messages = stream::poll_fn(move |cx| messages.lock().poll_recv(cx));
        (Self { to, waiting }, messages.map(|parcel| parcel.map(Parcel::open)))
    }

    /// Hands a message on; false if the worker has gone. Fails if the worker does not read, and
    /// gives the jobs of waiting messages back.
    async fn send(&self, parcel: Parcel) -> Result<bool, Status> {
        match tokio::time::timeout(READ_TIME_MAX, self.to.send(Ok(parcel))).await {
            Ok(sent) => Ok(sent.is_ok()),
            Err(_) => {
                self.drop_waiting();
                let why =
                    "the worker has read no message for a minute: its jobs are given to others";
                Err(Status::unavailable(why))
            }
        }
    }

    /// Tells the worker why the connection ends.
    async fn hang_up(&self, status: Status) {
        if tokio::time::timeout(READ_TIME_MAX, self.to.reserve()).await.is_err() {
            self.drop_waiting();
        }
        // A worker that has gone receives nothing.
        let _ = self.to.try_send(Err(status));
    }

    fn drop_waiting(&self) {
        let Some(waiting) = self.waiting.upgrade() else { return };
        while let Ok(unread) = waiting.lock().try_recv() {
            drop(unread);
        }
    }
}

/// A worker's connection.
struct Conversation {
    broker: Broker,
    work: Work,
    reports: FuturesUnordered<BoxFuture<'static, (usize, Vec<v1::Reported>)>>,
    /// Outcomes in `reports`.
    unanswered: usize,
    /// Bytes of results and errors in `reports`.
    unanswered_bytes: usize,
    /// The next answer.
    next: Parcel,
}

async fn converse(
    broker: Broker,
    mut requests: Streaming<v1::WorkRequest>,
    out: &Out,
) -> Result<(), Status> {
    let Some(mut first) = requests.message().await? else { return Ok(()) };
    let mut here = Conversation::begin(broker, &mut first)?;
    let (mut more, mut is_open) = (Some(first), true);
    loop {
        if let Some(request) = more.take() {
            here.take(request)?;
        }
        here.gather(is_open)?;
        if let Some(full) = here.next_answer()
            && !out.send(full).await?
        {
            return Ok(());
        }
        if !is_open && here.reports.is_empty() {
            return Ok(());
        }
        tokio::select! {
            heard = here.work.next(), if is_open => {
                here.put(heard.map_err(of_jobs)?)?;
            }
            Some(done) = here.reports.next() => here.answered(done),
            request = requests.message(), if is_open && here.takes_more() => {
                more = request?;
                is_open = more.is_some();
                if !is_open {
                    // Jobs on their way no longer have a worker; outcomes are still answered.
                    here.work.stop();
                }
            }
            () = out.to.closed() => return Ok(()),
        }
    }
}

impl Conversation {
    fn begin(broker: Broker, first: &mut v1::WorkRequest) -> Result<Self, Status> {
        let begin = first.begin.take().ok_or_else(|| {
            invalid("a worker's first message must have `begin`: its task group and its name")
        })?;
        let group = convert::group(&begin.group).map_err(of_jobs)?;
        let worker = convert::worker(&begin.worker).map_err(of_jobs)?;
        let credits = std::mem::take(&mut first.credits);
        let begins = if begin.begins_with_beat { Begins::WithBeat } else { Begins::WhenTold };
        let work = broker.work(&group, &worker, begins, credits).map_err(of_jobs)?;
        let next = Parcel::new(&broker);
        let reports = FuturesUnordered::new();
        Ok(Self { broker, work, reports, unanswered: 0, unanswered_bytes: 0, next })
    }

    /// True while there is room for more outcomes, by number and by bytes: they wait in memory
    /// until they are durable.
    fn takes_more(&self) -> bool {
        self.unanswered < REPORTS_MAX && self.unanswered_bytes < REPORTS_BYTES_MAX
    }

    /// Takes a worker's message.
    fn take(&mut self, request: v1::WorkRequest) -> Result<(), Status> {
        if request.begin.is_some() {
            return Err(invalid("a worker sends `begin` once").into());
        }
        check_items("leases", request.beats.len())?;
        check_items("outcomes", request.outcomes.len())?;
        self.work.note_heard().map_err(of_jobs)?;
        if request.credits > 0 {
            self.work.add_credits(request.credits).map_err(of_jobs)?;
        }
        if request.stop {
            self.work.stop();
        }
        let beats = request.beats.into_iter().map(|lease| heartbeat(&self.broker, lease));
        self.next.answer.beats.extend(beats);
        if !request.outcomes.is_empty() {
            let bytes = request.outcomes.iter().map(Message::encoded_len).sum();
            self.unanswered += request.outcomes.len();
            self.unanswered_bytes += bytes;
            let reports = report(self.broker.clone(), request.outcomes);
            self.reports.push(reports.map(move |done| (bytes, done)).boxed());
        }
        Ok(())
    }

    /// Puts everything that is ready into one message. Takes jobs only while the worker speaks: a
    /// silent one could not give them back.
    fn gather(&mut self, is_open: bool) -> Result<(), Status> {
        let mut bytes = 0;
        while is_open
            && bytes < ON_ITS_WAY_BYTES as usize
            && self.next.answer.jobs.len() < ITEMS_MAX
        {
            let Some(heard) = self.work.next().now_or_never() else { break };
            bytes += self.put(heard.map_err(of_jobs)?)?;
        }
        while let Some(Some(done)) = self.reports.next().now_or_never() {
            self.answered(done);
        }
        Ok(())
    }

    fn answered(&mut self, (bytes, done): (usize, Vec<v1::Reported>)) {
        self.unanswered -= done.len();
        self.unanswered_bytes -= bytes;
        self.next.answer.reports.extend(done);
    }

    /// The next answer, if there is anything in it.
    fn next_answer(&mut self) -> Option<Parcel> {
        let has_some = self.next.answer != v1::WorkResponse::default();
        has_some.then(|| std::mem::replace(&mut self.next, Parcel::new(&self.broker)))
    }

    /// Puts a message of the broker into the next answer; gives the bytes of its job.
    fn put(&mut self, heard: WorkerMessage) -> Result<usize, Status> {
        match heard {
            WorkerMessage::Leased(ticket, leased) => {
                let bytes = leased.job.spec.bytes();
                self.next.on_its_way.push(leased.on_its_way.clone());
                self.next.answer.jobs.push(convert::leased(ticket, *leased));
                return Ok(bytes);
            }
            WorkerMessage::Cancel(ticket) => self.next.answer.cancels.push(ticket.encode()),
            // A worker that takes no more keeps its credit.
            WorkerMessage::Missed(_) if self.work.has_stopped() => {}
            WorkerMessage::Missed(_) => self.work.add_credits(1).map_err(of_jobs)?,
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_jobs::job::{JobRef, JobState};

    /// Once, such a job's lease ran out: a failed attempt that never began, and without retries a
    /// dead letter.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_worker_that_says_no_more_is_sent_no_jobs() {
        let bucket = tempfile::tempdir().expect("a directory");
        let (_dir, host) = crate::jobs::host::tests::open(bucket.path(), 1).await;
        let broker = host.broker().expect("it is open");
        let tenant = skerry_jobs::name::Tenant::default();
        let shard = broker.shard_of(&tenant).expect("it is open");
        let begin = Some(v1::WorkBegin { worker: "w".to_owned(), ..v1::WorkBegin::default() });
        let mut first = v1::WorkRequest { begin, credits: 1, ..v1::WorkRequest::default() };
        let mut here = Conversation::begin(broker.clone(), &mut first).expect("it sits down");
        let job = shard.enqueue(skerry_jobs::spec::JobSpec::default()).await.expect("taken").job;
        // `show` gives only durable states: the job is on its way to the worker.
        while shard.show(&tenant, &job).await.expect("there").state != JobState::Running {
            tokio::task::yield_now().await;
        }
        here.work.stop();
        for _ in 0..100 {
            here.gather(false).expect("nothing is wrong");
            tokio::task::yield_now().await;
        }
        assert_eq!(here.next.answer, v1::WorkResponse::default());
        drop(here);
        let (group, worker) = (Default::default(), skerry_jobs::name::Worker::new("next"));
        let worker = worker.expect("a name");
        let got = broker.lease(&group, &worker, 1, Duration::from_secs(60)).await.expect("answers");
        assert_eq!(got.first().map(|(_, leased)| leased.job.name()), Some::<JobRef>(job));
        host.stop().await;
    }

    fn parcel() -> Parcel {
        Parcel::new(&Broker::opening(1))
    }

    /// Once, a worker that did not read kept its messages, and with them the budget of all workers,
    /// as long as it was there.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_read_loses_what_waits_for_it() {
        let (out, messages) = Out::new();
        for _ in 0..MESSAGES_MAX {
            assert!(out.send(parcel()).await.expect("there is room"));
        }
        let why = out.send(parcel()).await.expect_err("it does not read");
        out.hang_up(why).await;
        drop(out);
        let read: Vec<_> = messages.collect().await;
        assert_eq!(read.len(), 1, "only why: {read:?}");
        assert!(read[0].is_err());
    }

    #[tokio::test]
    async fn a_worker_that_goes_is_noticed() {
        let (out, messages) = Out::new();
        drop(messages);
        out.to.closed().await;
        assert!(!out.send(parcel()).await.expect("it has gone"));
    }
}
