//! What a crash test's clients did, and whether an image that is found afterwards can be true.
//!
//! Every write gets a number, and the moments when it was issued and when it was acknowledged are
//! numbered by one counter. From that follows what any correct disk may hold:
//!
//! - **Flushed**: a write that was acknowledged before a flush was sent that was answered, or that
//!   carried FUA itself, is there, or a later write to its block is.
//! - **Prefix**: if a write is there, then so is every write that had been acknowledged before it was
//!   issued. With one write in flight at a time this says: the image is the state after exactly the
//!   first n writes. With several, it says the same of every order that the clients could tell.
//! - **Issued**: nothing is there that was never written, or that a former crash had already lost.
//!
//! Two writes to one block are never in flight together ([`crate::load`] sees to it), so a block's
//! writes are in order by their numbers.

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

/// What a numbered request did to its block.
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
    /// It was acknowledged with FUA, so no flush is needed for it.
    durable: bool,
}

/// A flush that has been sent; hand it back when it is answered.
#[derive(Debug, Clone, Copy)]
#[must_use = "a flush counts only when it is handed back"]
pub struct FlushSent(Moment);

/// The record of one disk's life since its last known state; shared between its clients.
#[derive(Debug)]
pub struct History {
    seed: u64,
    blocks: u64,
    state: Mutex<State>,
    acknowledged: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What each block held when this record began; blocks that are not here held zeroes.
    base: HashMap<Block, Sequence>,
    /// By sequence number, which starts after the last one of the record before.
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

    /// A new record of a disk that starts as a copy of what `image`, checked against this, shows.
    #[must_use]
    pub fn fork(&self, image: &Image) -> History {
        let fork = History::new(self.seed, self.blocks);
        let mut state = fork.state.lock();
        state.base = image.base();
        // Its numbers start far from the parent's, so that a block of the one is never taken for
        // one of the other.
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

    /// The present moment: later than everything recorded so far, earlier than all that follows.
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

    /// Records that the request was answered; `durable` says that it carried FUA.
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

    /// How many requests have been acknowledged.
    #[must_use]
    pub fn acknowledged_count(&self) -> u64 {
        self.state.lock().acknowledged_count
    }

    /// Waits until `count` requests have been acknowledged.
    ///
    /// # Errors
    /// When no request at all is acknowledged for as long as `PATIENCE`.
    pub fn wait_acknowledged(&self, count: u64) -> io::Result<()> {
        self.wait_acknowledged_within(count, PATIENCE)
    }

    /// As [`History::wait_acknowledged`], with a patience of one's own: for a server that may have
    /// every reason to acknowledge nothing.
    ///
    /// # Errors
    /// When no request at all is acknowledged for as long as `patience`.
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

    /// Checks an image of the whole disk; see [`Bounds`] for what must hold.
    ///
    /// # Errors
    /// Every block that can't be true, or the write that is there without one that came before it.
    pub fn check(&self, image: &Image, bounds: Bounds) -> Result<Found, Violation> {
        check::check(&self.state.lock(), image, bounds)
    }

    /// Begins a new record at the state that `image` shows; what it lost must never come back.
    pub fn restart_at(&self, image: &Image) {
        let mut state = self.state.lock();
        state.base = image.base();
        state.operations.clear();
        state.acknowledged_count = 0;
        state.flushed = state.moment;
    }

    /// Writes the record to a file, one line a request, for who has to find out what went wrong.
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

/// What an image turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// How many of the recorded writes are in it (or were overwritten in it).
    pub included: u64,
    /// How many were recorded.
    pub issued: u64,
    /// How many were acknowledged.
    pub acknowledged: u64,
}

impl Image {
    /// What the blocks held, as a new record's base.
    fn base(&self) -> HashMap<Block, Sequence> {
        self.blocks()
            .filter_map(|(block, content)| match content {
                Content::Written(sequence) => Some((block, sequence)),
                Content::Zeroes => None,
            })
            .collect()
    }
}
