//! A worker's seat: the number of jobs that it would take, and where they are sent. A worker sits
//! at every shard at once, and the seats share its credits.

use super::budget::{Budget, OnItsWay};
use crate::job::{Job, Lease, Ticket};
use crate::machine::Granted;
use crate::name::{Group, Worker};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// A job that a worker has.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The lease that the worker shows.
    pub lease: Lease,
    /// Time when the lease ends without a heartbeat, milliseconds since 1970.
    pub expires_ms: u64,
    /// The job.
    pub job: Job,
    /// The job's share of the node's budget while it is on its way.
    pub on_its_way: Arc<OnItsWay>,
}

impl Leased {
    /// The ticket that the worker shows.
    pub fn ticket(&self) -> Ticket {
        let spec = &self.job.spec;
        Ticket { lease: self.lease, tenant: spec.tenant.clone(), id: spec.id.clone() }
    }
}

/// A message to a worker.
#[derive(Debug)]
pub enum SeatMessage {
    /// The worker has this job.
    Leased(Box<Leased>),
    /// The worker is to stop this work.
    Cancel(Ticket),
    /// A job of this many bytes ended before the worker could be told: the credit was used in vain.
    Missed(u32),
    /// The node's budget was spent when there may have been work: the worker waits for room.
    NoRoom,
}

/// The sign that a worker begins a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// The worker may have begun as soon as it was told.
    WhenTold,
    /// The worker promises a heartbeat before it begins: a lease that ends without one was never
    /// begun.
    WithBeat,
}

/// Room that a worker has left.
#[derive(Debug)]
struct Left {
    credits: u32,
    /// True if one of its leases has run out and it has said nothing since: its credits don't count
    /// until it does.
    is_silent: bool,
    /// True if the node's budget was spent when there may have been work.
    is_hungry: bool,
    /// Bytes until the worker has received some; below zero if the last job was larger than what
    /// was left.
    bytes: i64,
}

/// Bytes on their way to a worker at once, without the last job, as the jobs' owners gave them.
pub const ON_ITS_WAY_BYTES: u32 = 2 << 20;

/// The point where a worker waits for work.
#[derive(Debug)]
pub struct Seat {
    number: u64,
    shard: u32,
    group: Group,
    worker: Worker,
    begins: Begins,
    /// Shared by the seats of one worker.
    left: Arc<Mutex<Left>>,
    /// Shared by all workers of the node.
    budget: Arc<Budget>,
    to: mpsc::UnboundedSender<(u32, SeatMessage)>,
}

/// Messages to a worker, each with its shard's number. No more jobs than there are credits.
pub type SeatMessages = mpsc::UnboundedReceiver<(u32, SeatMessage)>;

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Seat {
    /// Makes a seat at each of this many shards, with shared credits.
    pub fn at_all(
        shards: u32,
        group: &Group,
        worker: &Worker,
        begins: Begins,
        credits: u32,
        budget: &Arc<Budget>,
    ) -> (Vec<Arc<Self>>, SeatMessages) {
        let (to, messages) = mpsc::unbounded_channel();
        let left = Arc::new(Mutex::new(Left {
            credits,
            is_silent: false,
            is_hungry: false,
            bytes: ON_ITS_WAY_BYTES.into(),
        }));
        let seats = (0..shards).map(|shard| {
            Arc::new(Self {
                number: NEXT.fetch_add(1, Ordering::Relaxed),
                shard,
                group: group.clone(),
                worker: worker.clone(),
                begins,
                left: left.clone(),
                budget: budget.clone(),
                to: to.clone(),
            })
        });
        (seats.collect(), messages)
    }

    /// Number that tells one seat from another.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The task group.
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// The worker.
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// True if the worker sends a heartbeat before it begins a job.
    pub(super) fn says_when_it_begins(&self) -> bool {
        self.begins == Begins::WithBeat
    }

    /// True if the worker can still be told.
    pub(super) fn is_taken(&self) -> bool {
        !self.to.is_closed()
    }

    /// Notes that a lease of the worker has run out: it gets no more jobs until it says something.
    pub(super) fn note_silent(&self) {
        self.left.lock().is_silent = true;
    }

    /// Notes that the worker has said something. True if it had been silent.
    pub fn note_heard(&self) -> bool {
        std::mem::take(&mut self.left.lock().is_silent)
    }

    /// True if the node's budget was spent when there may have been work for the worker.
    pub(crate) fn is_hungry(&self) -> bool {
        self.left.lock().is_hungry
    }

    /// Lets the worker look for work again.
    pub(crate) fn look_again(&self) {
        self.left.lock().is_hungry = false;
    }

    /// Adds credits: the worker would take this many jobs more.
    pub fn add_credits(&self, more: u32) {
        let mut left = self.left.lock();
        left.credits = left.credits.saturating_add(more);
    }

    /// Notes that the worker has received a job of this many bytes. True if it could get no other
    /// until now.
    pub fn add_bytes(&self, more: usize) -> bool {
        let mut left = self.left.lock();
        let was_full = left.bytes <= 0;
        left.bytes = left.bytes.saturating_add(i64::try_from(more).unwrap_or(i64::MAX));
        was_full && left.bytes > 0
    }

    /// The number of jobs that the worker would take.
    pub fn credits(&self) -> u32 {
        self.left.lock().credits
    }

    /// Takes back all credits that are left; gives their number.
    pub fn take_credits(&self) -> u32 {
        std::mem::take(&mut self.left.lock().credits)
    }

    /// Uses a credit if there is work. `None` if the worker has gone, takes no more, or the node's
    /// budget is spent. Other shards wait meanwhile: a shard that saw no credit during a look in
    /// vain would forget a worker that has one.
    pub(super) fn offer(
        &self,
        work: impl FnOnce() -> Option<Granted>,
    ) -> Option<Option<(Granted, OnItsWay)>> {
        let mut left = self.left.lock();
        if left.credits == 0 || left.is_silent || left.bytes <= 0 || self.to.is_closed() {
            return None;
        }
        if self.budget.is_spent() {
            // The worker's task may sleep, and must know that it is no longer in the queue.
            if !std::mem::replace(&mut left.is_hungry, true) {
                let _ = self.tell(SeatMessage::NoRoom);
            }
            return None;
        }
        Some(work().map(|granted| {
            left.credits -= 1;
            left.bytes -= i64::from(granted.bytes);
            let on_its_way = self.budget.take(granted.bytes);
            (granted, on_its_way)
        }))
    }

    /// Sends a message to the worker; false if it has gone.
    pub(super) fn tell(&self, told: SeatMessage) -> bool {
        self.to.send((self.shard, told)).is_ok()
    }
}
