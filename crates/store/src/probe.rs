//! The start-up probe: whether a store keeps the one promise that everything rests on.
//!
//! Writers are fenced by creating an object that must not exist yet. Some stores ignore that
//! condition, some check it and then write, so that two writers may both win; with either, two
//! nodes would write one volume. So the probe *races*: in sequence the second kind looks well.
//! It cannot prove a store right; it refuses the ones that are known to be wrong.

use crate::bucket::{Bucket, Created};
use crate::error::{Error, Result};
use bytes::Bytes;
use futures::future::join_all;
use skerry_core::names;
use skerry_core::retry::Patience;

/// How many race for one key.
pub const WRITERS: usize = 8;
/// How many keys they race for: a store that lets two win in a tenth of all races still gets through
/// in a fifth of all probes; those seen so far let two win in most of them.
pub const KEYS: usize = 16;
/// What each writer writes, bytes.
const BODY_BYTES: usize = 256;

/// Races conditional creates in a bucket, checks what can be read afterwards, and cleans up.
///
/// # Errors
/// [`Error::Unfit`] if the store cannot be used, saying why; kind `Unavailable` if it does not answer.
pub async fn probe(bucket: &Bucket) -> Result<()> {
    let names: Vec<String> = (0..KEYS).map(|_| key(bucket)).collect();
    let checked = check(bucket, &names).await;
    // However patient the caller is.
    let clearing = bucket.with_patience(Patience::COMMAND);
    for deleted in join_all(names.iter().map(|name| clearing.delete(name))).await {
        // A left-over harms nobody, and the verdict matters more.
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

/// Eight writers want one key: exactly one may get it, and its bytes must be what is read.
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
        ([_], None) => Err(unfit(bucket, "what was just created cannot be read")),
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
