//! Tails at the start of a node: each volume with one is brought back into service.
//!
//! A volume that can't be opened keeps neither the node nor another volume from service. If it is
//! damaged, its tail is parked. If the bucket does not answer, the tail stays in the log. Either
//! comes back by itself ([`crate::streams::engine::comeback`]).

use crate::error::{Error, ErrorKind, Result};
use crate::streams::engine::Engine;
use crate::streams::stream::payload::Payload;
use skerry_core::id::VolumeId;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

/// Time for which a start waits for the bucket, for all volumes together. Then the node serves, and
/// goes on trying.
const START_WAIT: Duration = Duration::from_secs(30);
/// Time for one volume after that: a volume that hangs keeps no other waiting for ever.
const ONE_WAIT: Duration = Duration::from_secs(120);

/// Outcome for a tail.
enum Outcome {
    /// Its volume is in service, or another node's, or deleted.
    Settled,
    /// The bucket does not know the volume.
    Unknown,
}

impl<P: Payload> Engine<P> {
    /// Brings every volume with a tail back into service.
    ///
    /// # Errors
    /// If the bucket knows none of the volumes: it is not the bucket of this log.
    pub(crate) async fn recover(&self) -> Result<()> {
        let in_log: BTreeSet<VolumeId> = self.tails.lock().by_volume.keys().copied().collect();
        let waiting = self.ctx.waiting_tails(None)?.into_iter().map(|name| name.volume);
        let all: BTreeSet<VolumeId> = in_log.iter().copied().chain(waiting).collect();
        let mut unknown = BTreeSet::new();
        let deadline = Instant::now() + START_WAIT;
        for id in all {
            let recovered = timeout_at(deadline, Box::pin(self.recover_one(id))).await;
            match recovered.unwrap_or_else(no_answer) {
                Ok(Outcome::Settled) => {}
                Ok(Outcome::Unknown) => drop(unknown.insert(id)),
                Err(e) => self.note_unopened(id, &e),
            }
        }
        if !in_log.is_empty() && in_log.is_subset(&unknown) {
            return Err(self.wrong_bucket(&in_log));
        }
        for id in unknown {
            let lost = Error::corrupt("its descriptor", "is not in the bucket");
            if let Err(e) = self.park_closed(id).await {
                tracing::error!(volume = %id, error = %e, "its records stay in the log");
            }
            self.note_unopened(id, &lost);
        }
        Ok(())
    }

    async fn recover_one(&self, id: VolumeId) -> Result<Outcome> {
        // Deleted is deleted, even if the descriptor is unreadable.
        if self.ctx.catalog.is_gone(id).await? {
            self.drop_tail(id);
            self.drop_parked(id)?;
            return Ok(Outcome::Settled);
        }
        match self.ctx.catalog.desc(id).await {
            Ok(_) => {}
            Err(e) if e.kind() == skerry_store::ErrorKind::NotFound => return Ok(Outcome::Unknown),
            Err(e) => {
                if !e.is_unavailable() {
                    // The volume is damaged, perhaps for long: its tail must not take the room of
                    // others.
                    self.park_closed(id).await?;
                }
                return Err(e.into());
            }
        }
        match self.open_for_writing(id, true).await {
            Err(e) if e.kind() == ErrorKind::Fenced => self.park(id).await?,
            opened => drop(opened?),
        }
        Ok(Outcome::Settled)
    }

    /// Tries again to bring a volume into service.
    pub(crate) async fn recover_again(&self, id: VolumeId) {
        let recovered = timeout(ONE_WAIT, Box::pin(self.recover_one(id))).await;
        match recovered.unwrap_or_else(no_answer) {
            Ok(Outcome::Settled)
                if self.open_here(id).is_none_or(|open| open.check_in_service().is_ok()) =>
            {
                self.ctx.unnote(id);
                tracing::info!(volume = %id, "the volume is in service again");
            }
            Ok(_) => {}
            // Only the bucket was asked, and its trouble was reported when it began.
            Err(e) if e.kind() == ErrorKind::Unavailable => self.comes_back_soon(id),
            Err(e) => self.note_unopened(id, &e),
        }
    }

    fn note_unopened(&self, id: VolumeId, why: &Error) {
        self.ctx.note(id, format!("volume {id} can't be opened: {}", why));
    }

    fn wrong_bucket(&self, ids: &BTreeSet<VolumeId>) -> Error {
        let advice = match self.ctx.bucket_url.starts_with("memory:") {
            true => {
                "a bucket in memory ends with its node; remove the log's directory to give those writes up"
            }
            false => "the log belongs to another bucket; start the node with that one",
        };
        let named: Vec<String> = ids.iter().take(3).map(ToString::to_string).collect();
        let why = format!(
            "has records of volume {}, of which the bucket at {} knows nothing: {advice}",
            named.join(", "),
            self.ctx.bucket_url
        );
        Error::invalid("the log", why)
    }
}

fn no_answer(_: Elapsed) -> Result<Outcome> {
    Err(Error::unavailable("the bucket", "does not answer; it is tried again"))
}
