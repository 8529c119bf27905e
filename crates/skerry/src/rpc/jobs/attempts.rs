//! Reports and heartbeats of workers, by a call or over a connection, and the bounds of messages.

use std::pin::Pin;

use futures::Stream;
use skerry_api::{Error, ErrorKind, v1};
use skerry_jobs::broker::{Broker, Ticket};
use tonic::Status;

use super::convert;
use crate::values::invalid;

/// The most items of one message.
pub(super) const ITEMS_MAX: usize = 10_000;

/// Messages to a client.
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The error of waiting calls when the node is told to stop.
pub(super) fn stopping() -> Status {
    Error::new(ErrorKind::Unavailable, "the node stops; try again").into()
}

/// Checks a message's number of items.
pub(super) fn check_items(what: &str, count: usize) -> Result<(), Status> {
    if count > ITEMS_MAX {
        let message = format!("{count} {what} in one message: {ITEMS_MAX} at most");
        return Err(invalid(message).into());
    }
    Ok(())
}

/// Reports outcomes.
pub(super) async fn report(broker: Broker, outcomes: Vec<v1::Outcome>) -> Vec<v1::Reported> {
    let outcomes = outcomes.into_iter().map(convert::outcome);
    let (leases, said): (Vec<_>, Vec<_>) = outcomes.unzip();
    let right = said.iter().filter_map(|said| said.as_ref().ok().cloned()).collect();
    let mut nexts = broker.report_all(right).await.into_iter();
    let answers = leases.into_iter().zip(said).filter_map(|(lease, said)| {
        let next = match said {
            Ok(_) => nexts.next()?,
            Err(error) => Err(error),
        };
        Some(convert::reported(lease, next))
    });
    answers.collect()
}

/// Passes a heartbeat on.
pub(super) fn heartbeat(broker: &Broker, lease: bytes::Bytes) -> v1::Beat {
    let beat = Ticket::decode(&lease).and_then(|ticket| broker.heartbeat(&ticket));
    convert::beat(lease, beat)
}
