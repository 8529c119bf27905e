//! Parking of tails that can't be merged, for good or for now. Each moves out of the node's log
//! into a small log of its own, where it takes no room from volumes in service.
//!
//! Such a log has the format of the node's, and the same records. It gets its final name only when
//! all of it is durable. The next start repeats work that a crash interrupts, from the node's log.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::streams::tails::tail::TailRecord;
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::record::{Action, RECORD_KIND};
use skerry_log::{Disk, Env, Log, LogPosition, Progress, RECORD_ALIGN_BYTES, Settings};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

/// Room in a file of such a log besides its longest record, bytes.
const FILE_BYTES_MORE: u64 = 64 << 10;

/// The place for parked tails.
pub trait Parking: Send + Sync {
    /// Gives a fresh disk for a tail. Removes an earlier attempt under this name.
    fn begin(&self, name: &str) -> io::Result<Arc<dyn Disk>>;
    /// Removes a tail that could not be written.
    fn give_up(&self, name: &str);
    /// Lists a tail from now on: it is whole and durable.
    fn finish(&self, name: &str) -> io::Result<()>;
    /// The names of the whole tails.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The disk of a whole tail.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Disk>>;
    /// Removes a whole tail, for good.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The place of a tail, for people.
    fn place(&self, name: &str) -> String;
}

/// Fate of a parked tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Another owner wrote the volume meanwhile: the tail is never merged.
    Fenced,
    /// Its volume is out of service: the tail comes back when the volume can be opened
    /// ([`super::parked`]).
    Waiting,
}

/// Prefix of the names of waiting tails.
const STUCK: &str = "stuck-";

/// The volume and records of a parked tail. Its text is the tail's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParkedName {
    pub(crate) fate: Fate,
    pub(crate) volume: VolumeId,
    stream: StreamId,
    /// The first record's vseq.
    from: u64,
    /// The vseq after the last record's.
    to: u64,
}

impl fmt::Display for ParkedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.fate == Fate::Waiting { STUCK } else { "" };
        write!(f, "{prefix}{}-{}-{}-{}", self.volume, self.stream, self.from, self.to)
    }
}

impl FromStr for ParkedName {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (fate, text) = match text.strip_prefix(STUCK) {
            Some(rest) => (Fate::Waiting, rest),
            None => (Fate::Fenced, text),
        };
        let parts: Vec<&str> = text.split('-').collect();
        let [volume, stream, from, to] = parts.as_slice() else { return Err(()) };
        Ok(Self {
            fate,
            volume: volume.parse().map_err(|_| ())?,
            stream: stream.parse().map_err(|_| ())?,
            from: from.parse().map_err(|_| ())?,
            to: to.parse().map_err(|_| ())?,
        })
    }
}

impl ParkedName {
    fn of(fate: Fate, volume: VolumeId, records: &[&TailRecord]) -> Option<Self> {
        let (first, last) = (records.first()?, records.last()?);
        Some(Self { fate, volume, stream: first.stream, from: first.vseq, to: last.vseq + 1 })
    }

    /// True if this tail has everything of `other`.
    fn covers(&self, other: &Self) -> bool {
        (self.fate, self.volume, self.stream) == (other.fate, other.volume, other.stream)
            && self.from <= other.from
            && other.to <= self.to
    }
}

/// Describes a parked tail for people.
fn line(parking: &dyn Parking, name: &str) -> String {
    let place = parking.place(name);
    let Ok(n) = name.parse::<ParkedName>() else {
        return format!("a tail is in {place}; remove it when it is no longer needed");
    };
    let what = format!(
        "volume {}: records {} to {} of stream {} are in {place}",
        n.volume,
        n.from,
        n.to - 1,
        n.stream
    );
    match n.fate {
        Fate::Fenced => {
            format!("{what}: fenced, never merged; remove it when they are no longer needed")
        }
        Fate::Waiting => format!(
            "{what}, and are not in the bucket; they are merged when the volume can be opened again: \
             mend what keeps it from service, and restart the node"
        ),
    }
}

impl Context {
    /// Describes the parked tails, a line each.
    pub(crate) fn parked(&self) -> Vec<String> {
        let Some(parking) = &self.parking else { return Vec::new() };
        match parking.list() {
            Ok(mut names) => {
                names.sort_unstable();
                names.iter().map(|name| line(parking.as_ref(), name)).collect()
            }
            Err(error) => vec![format!("the parked tails can't be listed: {error}")],
        }
    }

    /// Copies a volume's records out of the log, which may drop them afterwards. Without a log on a
    /// disk there is nothing to keep: no client was promised more than the bucket.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses them; then they must stay in the log.
    pub(crate) async fn park(
        self: &Arc<Self>,
        fate: Fate,
        volume: VolumeId,
        records: Vec<TailRecord>,
    ) -> Result<()> {
        let Some(parking) = self.parking.clone() else { return Ok(()) };
        let _one = self.parking_now.lock().await;
        let ctx = self.clone();
        let park = move || {
            let mut streams: Vec<StreamId> = records.iter().map(|r| r.stream).collect();
            streams.sort_unstable();
            streams.dedup();
            for stream in streams {
                let of: Vec<&TailRecord> = records.iter().filter(|r| r.stream == stream).collect();
                ctx.park_stream(parking.as_ref(), fate, &of, volume)?;
            }
            Ok(())
        };
        self.compute(park).await?
    }

    fn park_stream(
        &self,
        parking: &dyn Parking,
        fate: Fate,
        records: &[&TailRecord],
        volume: VolumeId,
    ) -> Result<()> {
        let Some(name) = ParkedName::of(fate, volume, records) else { return Ok(()) };
        let failed = |e: io::Error| {
            let place = parking.place(&name.to_string());
            Error::file(format!("a tail can't be moved to {place}"), e)
        };
        let there = parking.list().map_err(failed)?;
        if there
            .iter()
            .filter_map(|other| other.parse().ok())
            .any(|other: ParkedName| other.covers(&name))
        {
            return Ok(());
        }
        let text = name.to_string();
        let copied = parking
            .begin(&text)
            .map_err(failed)
            .and_then(|disk| {
                self.copy_records(disk, records).map_err(|e| {
                    let place = parking.place(&text);
                    e.in_step(format!("a tail can't be moved to {place}"))
                })
            })
            .and_then(|()| parking.finish(&text).map_err(failed));
        if copied.is_err() {
            parking.give_up(&text);
            return copied;
        }
        tracing::error!("{}", line(parking, &text));
        Ok(())
    }

    /// Writes records of the log to a fresh log on `disk`, and makes them durable.
    fn copy_records(&self, disk: Arc<dyn Disk>, records: &[&TailRecord]) -> Result<()> {
        let (copy, mut nothing) = Log::open(disk, self.parked_settings(records), self.log_env())?;
        while nothing.next()?.is_some() {}
        let mut window = self.log.window();
        for record in records {
            let payload = window.read(LogPosition::from_u64(record.at))?.ok_or_else(|| {
                Error::internal(format!("log record {}", record.at), "was let go")
            })?;
            while let Err(error) = copy.append(0, RECORD_KIND, &[payload]) {
                // A full buffer empties as it is written out.
                if !matches!(error, skerry_log::Error::Full { .. })
                    || copy.commit_once()? == Progress::Idle
                {
                    return Err(error.into());
                }
            }
        }
        copy.note_quiet();
        while copy.commit_once()? == Progress::Worked {}
        Ok(())
    }

    /// Settings with files no larger than the tail, and as many as it takes.
    fn parked_settings(&self, records: &[&TailRecord]) -> Settings {
        let bytes = |r: &&TailRecord| match *r.action() {
            Action::Write { len, .. } => len + u64::from(RECORD_ALIGN_BYTES),
            _ => 2 * u64::from(RECORD_ALIGN_BYTES),
        };
        let total: u64 = records.iter().map(bytes).sum();
        let longest = records.iter().map(bytes).max().unwrap_or_default();
        let usual = self.log.settings().clone();
        let least = (longest + FILE_BYTES_MORE).next_power_of_two().min(usual.file_bytes);
        let file_bytes = (total * 2).next_power_of_two().clamp(least, usual.file_bytes);
        let files = (2 * total / file_bytes + 4).min(self.log.cap_bytes() / usual.file_bytes + 4);
        Settings { file_bytes, cap_bytes: files * file_bytes, ..usual }
    }

    pub(crate) fn log_env(&self) -> Env {
        let entropy = self.bucket.entropy().clone();
        let random = move || {
            let mut bytes = [0; 8];
            entropy.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        Env::new(random, || 0)
    }
}
