//! A worker's seat: how many jobs it would take, and where they are sent. A worker sits at every shard at once, and
//! what one of them gives it, the others don't.

use crate::job::{Job, Lease};
use crate::name::{Group, Worker};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use tokio::sync::mpsc;

/// A job that a worker has.
#[derive(Debug, Clone)]
pub struct Leased {
    /// What the worker shows.
    pub lease: Lease,
    /// Until when, without a sign of life, milliseconds since 1970.
    pub expires_ms: u64,
    /// The job.
    pub job: Job,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Told {
    /// A job is its own.
    Leased(Box<Leased>),
    /// Somebody wants this work stopped.
    Cancel(Lease),
    /// A job that was to be its own ended before it could be told: the credit was for nothing.
    Missed,
}

/// Where a worker waits for work.
#[derive(Debug)]
pub struct Seat {
    number: u64,
    shard: u32,
    group: Group,
    worker: Worker,
    credits: Arc<AtomicU32>,
    to: mpsc::UnboundedSender<(u32, Told)>,
}

/// What a worker is told, with the number of the shard that says so. No more jobs than there are credits.
pub type Tidings = mpsc::UnboundedReceiver<(u32, Told)>;

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Seat {
    /// A seat at each of so many shards, with shared credits.
    pub fn at_all(
        shards: u32,
        group: &Group,
        worker: &Worker,
        credits: u32,
    ) -> (Vec<Arc<Self>>, Tidings) {
        let (to, tidings) = mpsc::unbounded_channel();
        let credits = Arc::new(AtomicU32::new(credits));
        let seats = (0..shards).map(|shard| {
            Arc::new(Self {
                number: NEXT.fetch_add(1, Ordering::Relaxed),
                shard,
                group: group.clone(),
                worker: worker.clone(),
                credits: credits.clone(),
                to: to.clone(),
            })
        });
        (seats.collect(), tidings)
    }

    /// Tells one seat from another.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What work is asked for.
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// Who asks.
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The worker would take so many more.
    pub fn add_credits(&self, more: u32) {
        let add = |now: u32| Some(now.saturating_add(more));
        let _ = self.credits.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// Takes back all that is left; says how many.
    pub fn take_credits(&self) -> u32 {
        self.credits.swap(0, Ordering::AcqRel)
    }

    /// Uses one, if there is one and the worker is there.
    pub(super) fn use_credit(&self) -> bool {
        let less = |now: u32| now.checked_sub(1);
        !self.to.is_closed()
            && self.credits.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    /// Tells the worker; false if it has gone.
    pub(super) fn tell(&self, told: Told) -> bool {
        self.to.send((self.shard, told)).is_ok()
    }
}
