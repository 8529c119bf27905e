//! Parked tails of volumes that can't be opened, or that failed. They wait outside the log, so that
//! one volume never takes the log's room from the others. They come back into it when the volume is
//! opened again.
//!
//! A comeback copies all waiting records to the log's end in one group, oldest first. So the order
//! of positions is the order of history again, by which the log trims. Records that a restart finds
//! in the log beside it were trimmed, or are an unfinished copy, and leave first. The copy is
//! durable before its source goes. Records that a crash leaves twice count once
//! (`Tail::keep_last_copies`).

use crate::context::Context;
use crate::error::{Error, Result};
use crate::streams::tails::parking::{Fate, ParkedName};
use crate::streams::tails::tail::{self, Tail, TailRecord};
use skerry_core::id::VolumeId;
use skerry_core::record::RECORD_KIND;
use skerry_log::{Log, LogPosition, Settings, Window};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Time for which a tail that comes back waits for room in the log without progress. At a start no
/// volume makes any.
const ROOM_WAIT: Duration = Duration::from_secs(10);
/// Bytes of waiting tails read at once (and one record).
const READ_BYTES: usize = 4 << 20;
/// Bytes that a log reserves at most for appends if it is only read.
const READ_FILE_BYTES: u64 = 64 << 10;

/// A log, and the records of one volume in it.
struct Source {
    log: Log,
    records: Vec<TailRecord>,
}

/// Waiting records, each once, in the order of history.
pub(crate) struct Waiting {
    windows: Vec<Window>,
    /// Each with the number of its window.
    records: std::vec::IntoIter<(usize, TailRecord)>,
}

impl Waiting {
    fn new(sources: &[Source]) -> Self {
        let records: Vec<_> = in_order(sources)
            .into_iter()
            .map(|(source, record)| (source, record.clone()))
            .collect();
        let windows = sources.iter().map(|source| source.log.window()).collect();
        Self { windows, records: records.into_iter() }
    }

    /// Gives the next records with their payloads; none at the end.
    fn next_batch(&mut self) -> Result<Vec<(TailRecord, Vec<u8>)>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < READ_BYTES
            && let Some((source, record)) = self.records.next()
        {
            let payload = self.windows[source].read(LogPosition::from_u64(record.at))?;
            let payload = payload.ok_or_else(|| {
                Error::internal(format!("record {}", record.vseq), "is not where it waited")
            })?;
            bytes += payload.len();
            batch.push((record, payload.to_vec()));
        }
        Ok(batch)
    }
}

impl Context {
    /// The tails that wait for the volume, or for any volume.
    pub(crate) fn waiting_tails(&self, volume: Option<VolumeId>) -> Result<Vec<ParkedName>> {
        let Some(parking) = &self.parking else { return Ok(Vec::new()) };
        let names = parking.list().map_err(|e| Error::file("parked tails can't be listed", e))?;
        let parsed = names.iter().filter_map(|name| name.parse().ok());
        let waiting = parsed.filter(|name: &ParkedName| name.fate == Fate::Waiting);
        Ok(waiting.filter(|name| volume.is_none_or(|id| name.volume == id)).collect())
    }

    /// Removes tails that are in the log again, or that no volume needs.
    pub(crate) fn forget_parked(&self, names: &[ParkedName]) -> Result<()> {
        let Some(parking) = &self.parking else { return Ok(()) };
        names.iter().try_for_each(|name| {
            let text = name.to_string();
            parking.remove(&text).map_err(|e| Error::file(parking.place(&text), e))
        })
    }

    fn open_parked(&self, name: &ParkedName) -> Result<Source> {
        let text = name.to_string();
        let parking = self
            .parking
            .as_ref()
            .ok_or_else(|| Error::file(&text, io::ErrorKind::NotFound.into()))?;
        let disk = parking.open(&text).map_err(|e| Error::file(parking.place(&text), e))?;
        let unreadable = |e: Error| {
            let place = parking.place(&text);
            e.in_step(format!("the records that wait in {place} can't be read"))
        };
        let settings = Settings {
            file_bytes: READ_FILE_BYTES,
            cap_bytes: 2 * READ_FILE_BYTES,
            ..self.log.settings().clone()
        };
        let opened = Log::open(disk, settings, self.log_env());
        let (log, recovery) = opened.map_err(|e| unreadable(e.into()))?;
        let mut tails = tail::read(recovery).map_err(unreadable)?;
        let tail = tails.by_volume.remove(&name.volume).unwrap_or_default();
        let records = Arc::unwrap_or_clone(tail).records;
        Ok(Source { log, records })
    }

    pub(crate) fn open_waiting(&self, names: &[ParkedName]) -> Result<Waiting> {
        let sources: Result<Vec<_>> = names.iter().map(|name| self.open_parked(name)).collect();
        Ok(Waiting::new(&sources?))
    }

    /// Copies all waiting records to the end of the log, and makes them durable.
    pub(crate) async fn copy_back(
        self: &Arc<Self>,
        group: u32,
        mut waiting: Waiting,
    ) -> Result<Tail> {
        let mut back = Tail::default();
        loop {
            let read = move || waiting.next_batch().map(|batch| (batch, waiting));
            let (batch, rest) = self.compute(read).await??;
            if batch.is_empty() {
                break;
            }
            waiting = rest;
            for (record, payload) in batch {
                let at = self.append_copy(group, &payload).await?.as_u64();
                back.records.push(TailRecord { at, group, ..record });
            }
        }
        if let Some(last) = back.records.last() {
            self.log.wait_durable(LogPosition::from_u64(last.at)).await?;
        }
        Ok(back)
    }

    /// Appends to the log, if that makes progress.
    async fn append_copy(&self, group: u32, payload: &[u8]) -> Result<LogPosition> {
        let parts = [payload];
        let append = self.log.append_waiting(group, RECORD_KIND, &parts);
        let appended = tokio::time::timeout(ROOM_WAIT, append).await.map_err(|_| {
            Error::unavailable("the log", "has no room for the volume's records; try again later")
        })??;
        Ok(appended.position)
    }
}

/// Records that are being copied into the log. Dropping this without `keep` trims them again.
pub(crate) struct Copy<'a> {
    pub(crate) log: &'a Log,
    pub(crate) group: u32,
    pub(crate) is_kept: bool,
}

impl Copy<'_> {
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.log.trim(self.group, LogPosition::MAX);
        }
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
