//! Tails: what the node's log holds of each volume when the node starts.

use crate::error::{Error, ErrorKind, Result};
use skerry_core::descriptor::Life;
use skerry_core::id::{LogId, StreamId, VolumeId};
use skerry_core::record::{Action, RECORD_KIND, Record};
use skerry_log::Recovery;
use std::collections::HashMap;

/// A record of a tail; a write's data stays in the log.
#[derive(Debug, Clone)]
pub struct TailRecord {
    /// Its log position.
    pub at: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its sequence number.
    pub vseq: u64,
    /// What happened.
    pub action: Action,
}

/// What the log holds of one volume.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// Its group in the log.
    pub group: u32,
    /// Its records, oldest first.
    pub records: Vec<TailRecord>,
}

/// What the log holds.
#[derive(Debug, Default)]
pub struct Tails {
    /// By volume.
    pub by_volume: HashMap<VolumeId, Tail>,
    /// A group that no record has.
    pub next_group: u32,
}

/// Reads every record that survived.
pub fn read(mut recovery: Recovery) -> Result<Tails> {
    let mut tails = Tails { by_volume: HashMap::new(), next_group: 1 };
    while let Some(found) = recovery.next()? {
        tails.next_group = tails.next_group.max(found.group + 1);
        if found.kind != RECORD_KIND {
            continue;
        }
        let record = Record::decode(found.payload).map_err(|e| {
            Error::new(ErrorKind::Corrupt, format!("the log record at {}: {e}", found.position))
        })?;
        let tail = tails.by_volume.entry(record.volume).or_default();
        tail.group = found.group;
        tail.records.push(TailRecord {
            at: found.position.as_u64(),
            stream: record.stream,
            vseq: record.vseq,
            action: record.action,
        });
    }
    Ok(tails)
}

/// What becomes of a tail.
#[derive(Debug)]
pub enum Verdict {
    /// These records follow on from what the bucket has.
    Replay(Vec<TailRecord>),
    /// Somebody else wrote meanwhile: never merged.
    Fenced(String),
}

/// Decides what of a tail follows on from `vseq`, the first sequence number that the bucket lacks.
///
/// A tail counts only if every incarnation since its stream names this log, and its sequence numbers
/// follow on without a gap. Of incarnations, `lives` lists all, the void ones too: one of another
/// log fences even then, since nothing here can tell it from the real one for sure.
pub fn judge(tail: &Tail, vseq: u64, lives: &[Life], log: LogId) -> Result<Verdict> {
    let rest: Vec<TailRecord> = tail.records.iter().filter(|r| r.vseq >= vseq).cloned().collect();
    let Some(first) = rest.first() else { return Ok(Verdict::Replay(rest)) };
    let Some(began) = lives.iter().find(|life| life.stream == first.stream) else {
        return Ok(Verdict::Fenced(format!("stream {} is not known to the bucket", first.stream)));
    };
    let foreign = lives
        .iter()
        .filter(|life| life.epoch >= began.epoch)
        .find(|life| life.owner.as_ref().is_none_or(|owner| owner.log != log));
    if let Some(life) = foreign {
        let by = life.owner.as_ref().map_or("an operator", |owner| owner.host.as_str());
        return Ok(Verdict::Fenced(format!(
            "the volume was taken over by {by} in epoch {}",
            life.epoch
        )));
    }
    for (i, record) in rest.iter().enumerate() {
        let wanted = vseq + i as u64;
        if record.vseq != wanted {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the log lacks record {wanted} of the volume and goes on with {}; it was damaged or \
                     taken from another node",
                    record.vseq
                ),
            ));
        }
    }
    Ok(Verdict::Replay(rest))
}
