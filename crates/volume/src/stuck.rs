//! Tails of volumes that can't be opened, or that failed: they wait outside the log, so that one volume never takes
//! the log's room from the others, and come back into it when the volume is opened again.
//!
//! Coming back, all that is known of the volume is copied to the log's end in one group, oldest first: the order
//! of positions is the order of history again, which is what trimming goes by. The copy is durable before anything
//! that it was made of goes; what a crash leaves twice counts once (`Tail::keep_last_copies`).

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::node::Node;
use crate::parking::{Fate, ParkedName};
use crate::tail::{self, Tail, TailRecord};
use skerry_core::id::VolumeId;
use skerry_core::record::RECORD_KIND;
use skerry_log::{Log, Position, Window};
use std::collections::HashSet;
use std::io;
use std::time::Duration;

/// How long a tail that comes back waits for room in the log. At a start nobody makes any.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// A log, and the records of one volume in it.
struct Source {
    log: Log,
    records: Vec<TailRecord>,
}

impl Context {
    /// The tails that wait for the volume, or for any volume.
    pub(crate) fn stuck_tails(&self, volume: Option<VolumeId>) -> Result<Vec<ParkedName>> {
        let Some(parking) = &self.parking else { return Ok(Vec::new()) };
        let names =
            parking.list().map_err(|e| failed("tails that were set aside can't be listed", &e))?;
        let parsed = names.iter().filter_map(|name| name.parse().ok());
        let stuck = parsed.filter(|name: &ParkedName| name.fate == Fate::Stuck);
        Ok(stuck.filter(|name| volume.is_none_or(|id| name.volume == id)).collect())
    }

    /// The tails are in the log again, or nobody needs them.
    fn forget_stuck(&self, names: &[ParkedName]) -> Result<()> {
        let Some(parking) = &self.parking else { return Ok(()) };
        names.iter().try_for_each(|name| {
            let text = name.to_string();
            parking.remove(&text).map_err(|e| failed(&parking.place(&text), &e))
        })
    }

    fn open_stuck(&self, name: &ParkedName) -> Result<Source> {
        let text = name.to_string();
        let parking =
            self.parking.as_ref().ok_or_else(|| failed(&text, &io::ErrorKind::NotFound.into()))?;
        let disk = parking.open(&text).map_err(|e| failed(&parking.place(&text), &e))?;
        let (log, recovery) = Log::open(disk, self.log.settings().clone(), self.log_env())?;
        let mut tails = tail::read(recovery)?;
        let tail = tails.by_volume.remove(&name.volume).unwrap_or_default();
        Ok(Source { log, records: tail.records })
    }

    /// Copies all records of the sources to the end of the log, in the order of history, and makes them durable.
    async fn copy_back(&self, group: u32, sources: &[Source]) -> Result<Tail> {
        let mut windows: Vec<Window> = sources.iter().map(|source| source.log.window()).collect();
        let mut back = Tail::default();
        for (source, record) in in_order(sources) {
            let at = Position::from_u64(record.at);
            // What was let go meanwhile is in the bucket.
            let Some(payload) = windows[source].read(at)? else { continue };
            let parts = [payload];
            let append = self.log.append_waiting(group, RECORD_KIND, &parts);
            let appended = tokio::time::timeout(ROOM_WAIT, append).await.map_err(|_| {
                Error::new(
                    ErrorKind::Unavailable,
                    "the log has no room for the volume's records; try again later",
                )
            })??;
            back.records.push(TailRecord {
                at: appended.position.as_u64(),
                group,
                ..record.clone()
            });
        }
        if let Some(last) = back.records.last() {
            self.log.wait_durable(Position::from_u64(last.at)).await?;
        }
        Ok(back)
    }
}

/// Every record once, with the number of its source; older ones first.
fn in_order(sources: &[Source]) -> Vec<(usize, &TailRecord)> {
    let mut seen = HashSet::new();
    let numbered = sources.iter().enumerate();
    let all = numbered.flat_map(|(i, source)| source.records.iter().map(move |record| (i, record)));
    let mut once: Vec<_> = all.filter(|(_, r)| seen.insert((r.stream, r.vseq))).collect();
    once.sort_by_key(|(_, record)| record.vseq);
    once
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{what}: {error}"))
}

impl Node {
    /// Puts what waits for the volume back into the log. The volume's entry in the registry is locked, or nobody
    /// else is there yet.
    ///
    /// # Errors
    /// `Unavailable` if the disk or the log does not take it; it waits on then.
    pub(crate) async fn bring_back(&self, id: VolumeId) -> Result<()> {
        let names = self.ctx.stuck_tails(Some(id))?;
        if names.is_empty() {
            return Ok(());
        }
        let group = self.fresh_group();
        let here = self.tails.lock().by_volume.get(&id).cloned().unwrap_or_default();
        let groups = here.groups();
        let mut sources = vec![Source { log: self.ctx.log.clone(), records: here.records }];
        for name in &names {
            sources.push(self.ctx.open_stuck(name)?);
        }
        let back = self.ctx.copy_back(group, &sources).await.inspect_err(|_| {
            self.ctx.log.trim(group, Position::MAX);
        })?;
        tracing::info!(volume = %id, records = back.records.len(), "the records that were set aside are in the log again");
        self.tails.lock().by_volume.insert(id, back);
        for group in groups {
            self.ctx.log.trim(group, Position::MAX);
        }
        self.ctx.forget_stuck(&names)
    }

    /// After the volume could not be opened: what the log has of it waits elsewhere, unless the node is about to
    /// give up, or somebody else has the volume.
    pub(crate) async fn set_stuck(&self, id: VolumeId, error: &Error) -> Result<()> {
        if matches!(error.kind(), ErrorKind::InUse | ErrorKind::Unavailable) {
            return Ok(());
        }
        let tail = self.tails.lock().by_volume.get(&id).cloned().unwrap_or_default();
        let mut window = self.ctx.log.window();
        let mut held = Vec::with_capacity(tail.records.len());
        for record in tail.records {
            // What was let go meanwhile is in the bucket.
            if window.read(Position::from_u64(record.at))?.is_some() {
                held.push(record);
            }
        }
        self.ctx.park(Fate::Stuck, id, held).await?;
        self.drop_tail(id);
        Ok(())
    }

    /// Nobody will ever ask for the volume's records again.
    pub(crate) fn drop_stuck(&self, id: VolumeId) -> Result<()> {
        let names = self.ctx.stuck_tails(Some(id))?;
        self.ctx.forget_stuck(&names)
    }
}
