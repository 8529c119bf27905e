//! The start-up probe: tests whether a store keeps the one promise that Skerry rests on.
//!
//! Writers are fenced by creating an object that must not exist yet. Some stores ignore that
//! condition. Some check it and then write, so that two writers may both win. With either, two
//! nodes would write one volume. So the probe *races*: in sequence the second kind looks well. It
//! can't prove a store right; it refuses stores that are proven wrong.

use crate::error::{Error, Result};
use crate::objects::bucket::{Bucket, Created};
use bytes::Bytes;
use futures::future::join_all;
use skerry_core::names;
use skerry_core::retry::Patience;

/// Number of racers for one key.
pub const WRITERS: usize = 8;
/// Number of keys. A store that lets two win in a tenth of all races still passes a fifth of all
/// probes. The bad stores seen so far let two win in most races.
pub const KEYS: usize = 16;
/// Length of each racer's object, bytes.
const BODY_BYTES: usize = 256;

/// Races conditional creates in a bucket, checks the objects afterwards, and cleans up.
///
/// # Errors
/// [`Error::Unfit`] with the reason if the store can't be used; kind `Unavailable` if it does not
/// answer.
pub async fn probe(bucket: &Bucket) -> Result<()> {
    let names: Vec<String> = (0..KEYS).map(|_| key(bucket)).collect();
    let checked = check(bucket, &names).await;
    // With a command's patience, even for a more patient caller.
    let clearing = bucket.with_patience(Patience::COMMAND);
    for deleted in join_all(names.iter().map(|name| clearing.delete(name))).await {
        // A left-over does no harm, and the verdict matters more.
        if let Err(error) = deleted {
            tracing::debug!(%error, "a probe's left-over stays");
        }
    }
    checked
}

fn key(bucket: &Bucket) -> String {
    let id: String = bucket.nonce().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}/{id}", names::PROBE)
}

fn unfit(bucket: &Bucket, detail: &str) -> Error {
    Error::Unfit { place: format!("{bucket:?}"), detail: detail.to_owned() }
}

async fn check(bucket: &Bucket, names: &[String]) -> Result<()> {
    for outcome in join_all(names.iter().map(|name| race(bucket, name))).await {
        outcome?;
    }
    let listed = bucket.list(names::PROBE).await?;
    for name in names {
        if !listed.iter().any(|l| l.name == *name && l.size == BODY_BYTES as u64) {
            return Err(unfit(bucket, "a listing does not show an object that was just created"));
        }
    }
    Ok(())
}

/// Lets eight writers race for one key. Exactly one may get it, and a read must give its bytes.
async fn race(bucket: &Bucket, name: &str) -> Result<()> {
    let bodies: Vec<Bytes> = (0..WRITERS).map(|_| body(bucket)).collect();
    let creates = bodies.iter().map(|body| bucket.create(name, body.clone()));
    let mut winners = Vec::new();
    for (created, body) in join_all(creates).await.into_iter().zip(&bodies) {
        if created? == Created::Ours {
            winners.push(body);
        }
    }
    let there = bucket.get(name).await?;
    match (winners.as_slice(), there) {
        ([winner], Some(there)) if there == **winner => ranged(bucket, name, winner).await,
        ([_], Some(_)) => Err(unfit(
            bucket,
            "it ignores create-if-absent: a writer that was told that it won was overwritten by \
             another; use a store with atomic conditional PUTs",
        )),
        ([_], None) => Err(unfit(bucket, "an object that was just created can't be read")),
        ([], _) => Err(unfit(bucket, "of several writers that raced for one name none won")),
        _ => Err(unfit(
            bucket,
            "it ignores create-if-absent: of several writers that raced for one name more than one \
             was told that it won, and so two nodes could write one volume; use a store with atomic \
             conditional PUTs",
        )),
    }
}

async fn ranged(bucket: &Bucket, name: &str, body: &Bytes) -> Result<()> {
    let range = bucket.get_range(name, 100..200).await?;
    if range != Some(body.slice(100..200)) {
        return Err(unfit(bucket, "it answers a GET of a range with something else"));
    }
    Ok(())
}

fn body(bucket: &Bucket) -> Bytes {
    let mut body = vec![0; BODY_BYTES];
    bucket.entropy().fill(&mut body);
    body.into()
}

#[cfg(test)]
mod tests;
