//! The places of a broker's shards. Each is open or says why it is not, so that one that fails keeps no other from being
//! used.

use crate::error::{Error, ErrorKind, Result};
use crate::shard::Shard;
use parking_lot::RwLock;
use tokio::sync::watch;

/// Where a shard stands.
#[derive(Clone)]
pub enum Standing {
    /// It is being opened.
    Opening,
    /// It can be used.
    Open(Shard),
    /// Another node has it, for this reason: it stays closed until somebody says otherwise.
    Elsewhere(String),
    /// It can't be used, for this reason: it is opened again.
    Failed(String),
}

impl Standing {
    /// For people and for JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open(_) => "open",
            Self::Elsewhere(_) => "elsewhere",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it is not open.
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

/// All places, in the order of their ranges of hashes.
pub(crate) struct Slots {
    each: Box<[RwLock<Standing>]>,
    /// How often one has been opened, or is not open any more.
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

    /// A shard that can be used.
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

    /// Tells when others can be used than now.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
