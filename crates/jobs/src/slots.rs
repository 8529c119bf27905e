//! A broker's slots for its shards. Each shard is open, or its slot gives the reason why it is not,
//! so one that fails keeps no other from being used.

use crate::error::{Error, ErrorKind, Result};
use crate::shard::Shard;
use parking_lot::RwLock;
use tokio::sync::watch;

/// The standing of a shard.
#[derive(Clone)]
pub enum Standing {
    /// The shard is being opened.
    Opening,
    /// The shard can be used.
    Open(Shard),
    /// Another node has it, for this reason: it stays closed until an operator decides otherwise.
    Elsewhere(String),
    /// The shard can't be used, for this reason: it is opened again.
    Failed(String),
}

impl Standing {
    /// The standing's name, for people and for JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open(_) => "open",
            Self::Elsewhere(_) => "elsewhere",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason why it is not open.
    pub fn reason(&self) -> &str {
        match self {
            Self::Opening => "it is being opened; try again",
            Self::Open(_) => "",
            Self::Elsewhere(reason) | Self::Failed(reason) => reason,
        }
    }

    fn shard(&self) -> Option<&Shard> {
        match self {
            Self::Open(shard) => Some(shard),
            _ => None,
        }
    }
}

/// All slots, in the order of their ranges of hashes.
pub(crate) struct Slots {
    each: Box<[RwLock<Standing>]>,
    /// Counts openings and closings of shards.
    changes: watch::Sender<u64>,
}

impl Slots {
    pub(crate) fn new(each: impl Iterator<Item = Standing>) -> Self {
        Self { each: each.map(RwLock::new).collect(), changes: watch::Sender::default() }
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.each.len()).expect("few shards")
    }

    pub(crate) fn set(&self, number: u32, now: Standing) {
        let Some(slot) = self.each.get(number as usize) else { return };
        let is_open = now.shard().is_some();
        let before = std::mem::replace(&mut *slot.write(), now);
        if is_open || before.shard().is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn standings(&self) -> Vec<Standing> {
        self.each.iter().map(|slot| slot.read().clone()).collect()
    }

    /// A shard, if it can be used.
    pub(crate) fn get(&self, number: u32) -> Result<Shard> {
        let slot = self.each.get(number as usize);
        let standing = slot.map(|slot| slot.read().clone());
        match standing {
            Some(Standing::Open(shard)) => Ok(shard),
            other => {
                let reason = other.as_ref().map_or("there is no such shard", Standing::reason);
                let what = match self.count() {
                    1 => "this node's jobs".to_owned(),
                    count => format!("shard {number} of {count} of this node's jobs"),
                };
                let detail = format!("{what} can't be used now: {reason}");
                Err(Error::new(ErrorKind::Unavailable, detail))
            }
        }
    }

    /// Shards that can be used, each with its number.
    pub(crate) fn open(&self) -> Vec<(u32, Shard)> {
        let standings = (0..).zip(self.standings());
        standings.filter_map(|(number, now)| Some((number, now.shard()?.clone()))).collect()
    }

    /// Tells when the set of usable shards changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
