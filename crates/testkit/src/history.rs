//! The actions of a crash test's clients, and the check whether a later image agrees with them.
//!
//! Every write gets a number. One counter numbers the moments of its issue and of its
//! acknowledgement. A correct disk holds only images that follow from these:
//!
//! - **Flushed**: a write is there, or a later write to its block, if it was acknowledged before a
//!   flush was sent that was answered. So is a write that carried FUA itself.
//! - **Prefix**: if a write is there, then so is every write that was acknowledged before its
//!   issue. With one write in flight at a time, the image is the state after exactly the first n
//!   writes. With several, the rule covers every order that the clients could tell.
//! - **Issued**: nothing is there that was never written, or that a former crash had already lost.
//!
//! Two writes to one block are never in flight together ([`crate::load`] sees to it). So a block's
//! writes are in the order of their numbers.

mod check;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub use check::{Bounds, Image, Violation};

use crate::PATIENCE;
use crate::stamp::{Block, Content, Sequence};

/// A moment: the running number of an issue or an acknowledgement.
pub type Moment = u64;

/// Effect of a numbered request on its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrote a stamp.
    Write,
    /// Made it zero, by trim or by writing zeroes.
    Zero,
}

/// One write or zeroing of one block.
#[derive(Debug, Clone, Copy)]
struct Operation {
    block: Block,
    kind: Kind,
    issued: Moment,
    acknowledged: Option<Moment>,
    /// True if it was acknowledged with FUA, so that it needs no flush.
    durable: bool,
}

/// A flush that was sent; give it back when it is answered.
#[derive(Debug, Clone, Copy)]
#[must_use = "a flush counts only when it is handed back"]
pub struct FlushSent(Moment);

/// The record of one disk's life since its last known state, shared between its clients.
#[derive(Debug)]
pub struct History {
    seed: u64,
    blocks: u64,
    state: Mutex<State>,
    acknowledged: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Content of each block when this record began; zeroes for a block that is not here.
    base: HashMap<Block, Sequence>,
    /// By sequence number, which goes on after the last one of the record before.
    operations: BTreeMap<Sequence, Operation>,
    sequence_last: Sequence,
    moment: Moment,
    acknowledged_count: u64,
    /// Everything acknowledged before this moment is flushed.
    flushed: Moment,
}

impl History {
    /// The empty record of a disk of `blocks` blocks that holds zeroes; stamps carry `seed`.
    #[must_use]
    pub fn new(seed: u64, blocks: u64) -> History {
        let state = Mutex::new(State::default());
        History { seed, blocks, state, acknowledged: Condvar::new() }
    }

    /// Makes a new record of a disk that starts as a copy of `image`, which was checked against
    /// this record.
    #[must_use]
    pub fn fork(&self, image: &Image) -> History {
        let fork = History::new(self.seed, self.blocks);
        let mut state = fork.state.lock();
        state.base = image.base();
        // Its numbers start far from the parent's, so that no block of one passes for a block of
        // the other.
        state.sequence_last = self.state.lock().sequence_last + (1 << 40);
        drop(state);
        fork
    }

    /// The seed in its stamps.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The disk's size in blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The present moment: later than everything recorded so far, earlier than everything that
    /// follows.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.state.lock().tick()
    }

    /// Records that a request is about to be sent, and numbers it.
    pub fn issue(&self, block: Block, kind: Kind) -> Sequence {
        let mut state = self.state.lock();
        let issued = state.tick();
        state.sequence_last += 1;
        let sequence = state.sequence_last;
        let operation = Operation { block, kind, issued, acknowledged: None, durable: false };
        state.operations.insert(sequence, operation);
        sequence
    }

    /// Records that the request was answered. `durable` says that it carried FUA.
    pub fn acknowledge(&self, sequence: Sequence, durable: bool) {
        let mut state = self.state.lock();
        let moment = state.tick();
        if let Some(operation) = state.operations.get_mut(&sequence) {
            operation.acknowledged = Some(moment);
            operation.durable = durable;
        }
        state.acknowledged_count += 1;
        drop(state);
        self.acknowledged.notify_all();
    }

    /// Records that a flush is about to be sent, on any connection.
    pub fn send_flush(&self) -> FlushSent {
        FlushSent(self.now())
    }

    /// Records that the flush was answered.
    pub fn flushed(&self, flush: FlushSent) {
        let mut state = self.state.lock();
        state.flushed = state.flushed.max(flush.0);
    }

    /// Number of acknowledged requests.
    #[must_use]
    pub fn acknowledged_count(&self) -> u64 {
        self.state.lock().acknowledged_count
    }

    /// Waits until `count` requests have been acknowledged.
    ///
    /// # Errors
    /// When no request at all is acknowledged within `PATIENCE`.
    pub fn wait_acknowledged(&self, count: u64) -> io::Result<()> {
        self.wait_acknowledged_within(count, PATIENCE)
    }

    /// As [`History::wait_acknowledged`], with another patience, for a server that may have every
    /// reason to acknowledge nothing.
    ///
    /// # Errors
    /// When no request at all is acknowledged within `patience`.
    pub fn wait_acknowledged_within(&self, count: u64, patience: Duration) -> io::Result<()> {
        let mut state = self.state.lock();
        while state.acknowledged_count < count {
            if self.acknowledged.wait_for(&mut state, patience).timed_out() {
                let so_far = state.acknowledged_count;
                return Err(io::Error::other(format!(
                    "no write was acknowledged for {patience:?} ({so_far} of {count} were)"
                )));
            }
        }
        Ok(())
    }

    /// Checks an image of the whole disk; [`Bounds`] says what must hold.
    ///
    /// # Errors
    /// Each impossible block, or a write that is there without an earlier one.
    pub fn check(&self, image: &Image, bounds: Bounds) -> Result<Found, Violation> {
        check::check(&self.state.lock(), image, bounds)
    }

    /// Begins a new record at the state of `image`. Writes that it lost must never come back.
    pub fn restart_at(&self, image: &Image) {
        let mut state = self.state.lock();
        state.base = image.base();
        state.operations.clear();
        state.acknowledged_count = 0;
        state.flushed = state.moment;
    }

    /// Writes the record to a file, one line for each request, for a person who looks for the
    /// fault.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn dump(&self, path: &Path) -> io::Result<()> {
        let state = self.state.lock();
        let mut text = format!("seed {} flushed-before {}\n", self.seed, state.flushed);
        for (sequence, operation) in &state.operations {
            let Operation { block, kind, issued, acknowledged, durable } = operation;
            let _ = writeln!(
                text,
                "{sequence} {kind:?} block {block} issued {issued} acknowledged {acknowledged:?} fua {durable}"
            );
        }
        std::fs::write(path, text)
    }
}

impl State {
    fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }
}

/// Counts of a checked image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Number of recorded writes that are in it, or were overwritten in it.
    pub included: u64,
    /// Number of recorded writes.
    pub issued: u64,
    /// Number of acknowledged writes.
    pub acknowledged: u64,
}

impl Image {
    /// The content of the blocks, as a new record's base.
    fn base(&self) -> HashMap<Block, Sequence> {
        self.blocks()
            .filter_map(|(block, content)| match content {
                Content::Written(sequence) => Some((block, sequence)),
                Content::Zeroes => None,
            })
            .collect()
    }
}
