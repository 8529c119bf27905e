//! A worker's connection: jobs flow to it as it has credits, signs of life and outcomes flow back.
//!
//! What is ready at once goes into one message. A worker that does not read is not read from either, so that what
//! waits for it is bounded by its credits and by a few messages.

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use skerry_api::v1;
use skerry_jobs::broker::{Broker, Heard, Work};
use skerry_jobs::shard::ON_ITS_WAY_BYTES;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::convert;
use super::service::{ITEMS_MAX, Messages, check_items, heartbeat, report, stopping};
use crate::values::invalid;

/// Messages on their way to one worker.
const MESSAGES_MAX: usize = 8;
/// Outcomes of one worker that are not durable yet: past it, no more are read.
const REPORTS_MAX: usize = 10_000;

/// Serves a worker until it goes, or the node stops.
pub(super) fn serve(
    broker: Broker,
    requests: Streaming<v1::WorkRequest>,
    stop: CancellationToken,
) -> Messages<v1::WorkResponse> {
    let (out, messages) = mpsc::channel(MESSAGES_MAX);
    tokio::spawn(async move {
        let conversed = tokio::select! {
            biased;
            // What is not durable yet is said again where the worker goes next.
            () = stop.cancelled() => Err(stopping()),
            conversed = converse(broker, requests, &out) => conversed,
        };
        if let Err(status) = conversed {
            // A worker that has gone hears nothing.
            let _ = out.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(messages))
}

type Out = mpsc::Sender<Result<v1::WorkResponse, Status>>;

async fn converse(
    broker: Broker,
    mut requests: Streaming<v1::WorkRequest>,
    out: &Out,
) -> Result<(), Status> {
    let Some(mut first) = requests.message().await? else { return Ok(()) };
    let begin = first.begin.take().ok_or_else(|| {
        invalid("a worker's first message says what work it wants and its name: `begin`")
    })?;
    let group = convert::group(&begin.group).map_err(convert::error)?;
    let worker = convert::worker(&begin.worker).map_err(convert::error)?;
    let credits = std::mem::take(&mut first.credits);
    let mut work = broker.work(&group, &worker, credits).map_err(convert::error)?;
    let (mut reports, mut unanswered) = (FuturesUnordered::new(), 0);
    let mut answer = v1::WorkResponse::default();
    let (mut more, mut is_open) = (Some(first), true);
    loop {
        if let Some(request) = more.take() {
            if request.begin.is_some() {
                return Err(invalid("a worker says `begin` once").into());
            }
            if request.credits > 0 {
                work.add_credits(request.credits).map_err(convert::error)?;
            }
            if request.stop {
                work.stop();
            }
            check_items("leases", request.beats.len())?;
            check_items("outcomes", request.outcomes.len())?;
            answer.beats.extend(request.beats.into_iter().map(|lease| heartbeat(&broker, lease)));
            if !request.outcomes.is_empty() {
                unanswered += request.outcomes.len();
                reports.push(report(broker.clone(), request.outcomes));
            }
        }
        // Everything that is ready goes into one message.
        let mut bytes = 0;
        while bytes < ON_ITS_WAY_BYTES as usize && answer.jobs.len() < ITEMS_MAX {
            let Some(heard) = work.next().now_or_never() else { break };
            bytes += put(&mut work, &mut answer, heard.map_err(convert::error)?)?;
        }
        while let Some(Some(done)) = reports.next().now_or_never() {
            unanswered -= done.len();
            answer.reports.extend(done);
        }
        if answer != v1::WorkResponse::default() {
            let full = std::mem::take(&mut answer);
            if out.send(Ok(full)).await.is_err() {
                return Ok(());
            }
        }
        if !is_open && reports.is_empty() {
            return Ok(());
        }
        tokio::select! {
            heard = work.next(), if is_open => {
                let heard = heard.map_err(convert::error)?;
                put(&mut work, &mut answer, heard)?;
            }
            Some(done) = reports.next() => {
                unanswered -= done.len();
                answer.reports.extend(done);
            }
            request = requests.message(), if is_open && unanswered < REPORTS_MAX => {
                more = request?;
                is_open = more.is_some();
                if !is_open {
                    // Nobody is there for what is on its way; outcomes are still answered.
                    work.stop();
                }
            }
            () = out.closed() => return Ok(()),
        }
    }
}

/// Puts what is heard into an answer; gives how many bytes people gave it.
fn put(work: &mut Work, answer: &mut v1::WorkResponse, heard: Heard) -> Result<usize, Status> {
    Ok(match heard {
        Heard::Leased(ticket, leased) => {
            let bytes = leased.job.spec.bytes();
            answer.jobs.push(convert::leased(ticket, *leased));
            bytes
        }
        Heard::Cancel(ticket) => {
            answer.cancels.push(ticket.encode());
            0
        }
        Heard::Missed(_) => {
            // One that takes no more keeps its credit.
            if !work.has_stopped() {
                work.add_credits(1).map_err(convert::error)?;
            }
            0
        }
    })
}
