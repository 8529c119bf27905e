//! Tails: the records of each volume in the node's log at its start.

use crate::error::{Error, Result};
use skerry_core::descriptor::IncarnationRecord;
use skerry_core::id::{LogId, StreamId, VolumeId};
use skerry_core::position::Position;
use skerry_core::record::{Action, RECORD_KIND, Record};
use skerry_core::seal::Seal;
use skerry_core::takeover::tail_replays;
use skerry_log::{Log, Recovered, Recovery};
use skerry_store::refs::claim::Incarnation;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Content of a record. A log holds millions of writes and trims, and few other records.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Write { offset: u64, len: u64 },
    Zero { offset: u64, len: u64 },
    Other(Box<Action>),
}

/// A record of a tail; a write's data stays in the log.
#[derive(Debug, Clone)]
pub struct TailRecord {
    /// Its log position.
    pub at: u64,
    /// Its group in the log.
    pub group: u32,
    /// Its stream.
    pub stream: StreamId,
    /// Its vseq.
    pub vseq: u64,
    pub(crate) said: Said,
}

impl TailRecord {
    /// Its action.
    pub fn action(&self) -> Cow<'_, Action> {
        match &self.said {
            &Said::Write { offset, len } => Cow::Owned(Action::Write { offset, len }),
            &Said::Zero { offset, len } => Cow::Owned(Action::Zero { offset, len }),
            Said::Other(action) => Cow::Borrowed(action),
        }
    }
}

impl From<Action> for Said {
    fn from(action: Action) -> Self {
        match action {
            Action::Write { offset, len } => Self::Write { offset, len },
            Action::Zero { offset, len } => Self::Zero { offset, len },
            other => Self::Other(Box::new(other)),
        }
    }
}

/// The records of one volume in the log.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// Its records, oldest first.
    pub records: Vec<TailRecord>,
}

impl Tail {
    /// The epoch of the oldest record with a known stream, if there is one.
    pub fn first_epoch(&self, incarnations: &[Incarnation]) -> Option<u64> {
        let records = self.records.iter();
        records
            .filter_map(|r| incarnations.iter().find(|l| l.stream == r.stream))
            .map(|l| l.epoch)
            .min()
    }

    /// The groups of its records.
    pub(crate) fn groups(&self) -> BTreeSet<u32> {
        self.records.iter().map(|r| r.group).collect()
    }

    /// Keeps only the last copy of a record that was copied within the log, or into it. Gives the
    /// groups of which nothing is left.
    fn keep_last_copies(&mut self) -> BTreeSet<u32> {
        let before = self.groups();
        if before.len() < 2 {
            return BTreeSet::new();
        }
        let mut seen = HashSet::new();
        let last_first = std::mem::take(&mut self.records).into_iter().rev();
        self.records = last_first.filter(|r| seen.insert((r.stream, r.vseq))).collect();
        self.records.reverse();
        &before - &self.groups()
    }
}

/// The tails in the log.
#[derive(Debug, Default)]
pub struct Tails {
    /// By volume. Readers share a tail: it may be large.
    pub by_volume: HashMap<VolumeId, Arc<Tail>>,
    /// A group that no record has.
    pub next_group: u32,
    /// Groups of which every record was copied to another.
    pub superseded: Vec<u32>,
}

/// Reads every surviving record.
pub fn read(mut recovery: Recovery) -> Result<Tails> {
    let mut tails = Tails { next_group: 1, ..Tails::default() };
    let mut by_volume: HashMap<VolumeId, Tail> = HashMap::new();
    while let Some(found) = recovery.next()? {
        tails.next_group = tails.next_group.max(found.group + 1);
        if let Some((volume, record)) = decode(&found)? {
            by_volume.entry(volume).or_default().records.push(record);
        }
    }
    for (volume, mut tail) in by_volume {
        tails.superseded.extend(tail.keep_last_copies());
        tail.records.shrink_to_fit();
        tails.by_volume.insert(volume, Arc::new(tail));
    }
    Ok(tails)
}

/// Reads the records of one group in the log, from `vseq` on.
pub fn of_group(log: &Log, group: u32, vseq: u64) -> Result<Vec<TailRecord>> {
    let mut records = Vec::new();
    let mut reader = log.group_records(group);
    while let Some(found) = reader.next()? {
        records.extend(decode(&found)?.map(|(_, record)| record).filter(|r| r.vseq >= vseq));
    }
    Ok(records)
}

fn decode(found: &Recovered<'_>) -> Result<Option<(VolumeId, TailRecord)>> {
    if found.kind != RECORD_KIND {
        return Ok(None);
    }
    let record = Record::decode(found.payload)
        .map_err(|e| Error::from(e).in_step(format!("the log record at {}", found.position)))?;
    let tail = TailRecord {
        at: found.position.as_u64(),
        group: found.group,
        stream: record.stream,
        vseq: record.vseq,
        said: record.action.into(),
    };
    Ok(Some((record.volume, tail)))
}

/// The verdict about a tail.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Indices of the tail's records that follow the bucket's state.
    replay: Vec<u32>,
    /// Records that will never be merged: another owner wrote meanwhile.
    pub parked: Vec<TailRecord>,
    /// That owner, or the reason.
    pub why: String,
}

impl Verdict {
    /// The records of the tail that follow the bucket's state, oldest first.
    pub(crate) fn replay<'a>(&'a self, tail: &'a Tail) -> impl Iterator<Item = &'a TailRecord> {
        self.replay.iter().map(|place| &tail.records[*place as usize])
    }
}

/// Decides which records of a tail follow `at`, the beginning of the stream that was just claimed.
///
/// `chain` are the incarnations that led there, oldest first, without gaps. A record counts only if
/// every incarnation after its own names this log. A log may hold records of several incarnations,
/// of which some are fenced and later ones are not. Records that count must follow without a gap.
/// Of the others, records that the next incarnation found in the bucket are part of history.
///
/// # Errors
/// `Corrupt` if a record that counts is missing.
pub fn judge(
    tail: &Tail,
    at: &Position,
    chain: &[IncarnationRecord],
    log: LogId,
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut known: HashMap<StreamId, bool> = HashMap::new();
    for (number, record) in (0u32..).zip(&tail.records) {
        let place = chain.iter().position(|incarnation| incarnation.stream == record.stream);
        let after = place.map(|i| &chain[i + 1..]);
        let in_history = match after {
            Some(after) => after.first().is_some_and(|next| record.vseq < next.vseq),
            // A stream that the bucket does not know is no part of its history.
            None => false,
        };
        if in_history {
            continue;
        }
        let replays = *known.entry(record.stream).or_insert_with(|| {
            let seals: Vec<Seal> = after.unwrap_or_default().iter().map(seal_of).collect();
            place.is_some_and(|i| tail_replays(chain[i].epoch, &seals, at, log))
        });
        if replays && record.vseq >= at.vseq {
            verdict.replay.push(number);
        } else if !replays {
            verdict.why = why_not(record, after, log);
            verdict.parked.push(record.clone());
        }
    }
    for (i, record) in verdict.replay(tail).enumerate() {
        let wanted = at.vseq + i as u64;
        if record.vseq != wanted {
            let why = format!(
                "lacks record {wanted} of the volume and goes on with {}; it was damaged or taken \
                 from another node",
                record.vseq
            );
            return Err(Error::corrupt("the log", why));
        }
    }
    Ok(verdict)
}

/// The seal that began an incarnation, with the fields that matter here.
fn seal_of(incarnation: &IncarnationRecord) -> Seal {
    Seal {
        successor: incarnation.stream,
        epoch: incarnation.epoch,
        owner: incarnation.owner.clone(),
        forced: false,
    }
}

fn why_not(record: &TailRecord, after: Option<&[IncarnationRecord]>, log: LogId) -> String {
    let Some(after) = after else {
        return format!("stream {} is not known to the bucket", record.stream);
    };
    let foreign = after.iter().find(|l| l.owner.as_ref().is_none_or(|o| o.log != log));
    match foreign {
        Some(incarnation) => {
            let by = incarnation.owner.as_ref().map_or("an operator", |owner| owner.host.as_str());
            format!("the volume was taken over by {by} in epoch {}", incarnation.epoch)
        }
        None => "its incarnations don't follow on from one another".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_core::id::NodeId;
    use skerry_core::seal::Owner;

    const OURS: LogId = LogId([7; 16]);

    fn record(stream: u8, vseq: u64) -> TailRecord {
        let said = Action::Step.into();
        TailRecord { at: vseq, group: 1, stream: StreamId([stream; 16]), vseq, said }
    }

    /// The log of a node holds millions of them at a start.
    #[test]
    fn a_record_takes_little_memory() {
        assert!(size_of::<TailRecord>() <= 64, "{} bytes", size_of::<TailRecord>());
    }

    /// A log that was copied with its directory may hold acknowledged records of a stream that the
    /// bucket never saw. They are kept for people, however far the bucket has got.
    #[test]
    fn records_of_an_unknown_stream_are_parked() {
        let owner = Owner { node: NodeId([1; 16]), log: OURS, lease: 0, host: String::new() };
        let stream = StreamId([2; 16]);
        let chain = [IncarnationRecord { epoch: 2, stream, owner: Some(owner), vseq: 10 }];
        let at = Position { epoch: 2, vseq: 10, ..Position::start(2, stream, 10) };
        let records = vec![record(9, 3), record(9, 11), record(2, 10)];
        let tail = Tail { records };
        let verdict = judge(&tail, &at, &chain, OURS).expect("a verdict");
        let parked: Vec<u64> = verdict.parked.iter().map(|r| r.vseq).collect();
        let replay: Vec<u64> = verdict.replay(&tail).map(|r| r.vseq).collect();
        assert_eq!((parked, replay), (vec![3, 11], vec![10]));
    }
}
