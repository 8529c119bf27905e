//! All shards of a node as one. A tenant's jobs are in one of them, and a worker gets work from all
//! that are open.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::{HashRange, TenantHash};
pub use crate::job::Ticket;
use crate::machine::{Beat, Counts, GroupCounts, Next};
use crate::name::{Group, Tenant, Worker};
use crate::shard::{
    BUDGET_BYTES, Begins, Budget, Cursor, GIVEN_AT_ONCE, Leased, Listed, Outcome, Query, Seat,
    SeatMessage, SeatMessages, Shard, Totals,
};
use crate::slots::Slots;
pub use crate::slots::Standing;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The most jobs that one call leases, and the most credits of a worker.
pub const LEASES_MAX: u32 = 10_000;

/// All shards of a node.
#[derive(Clone)]
pub struct Broker {
    slots: Arc<Slots>,
    /// The shard that gives first next time.
    first: Arc<AtomicUsize>,
    /// Budget of jobs on their way to all workers.
    budget: Arc<Budget>,
}

/// A message to a worker.
#[derive(Debug)]
pub enum WorkerMessage {
    /// The worker has this job.
    Leased(Ticket, Box<Leased>),
    /// The worker is to stop this work.
    Cancel(Ticket),
    /// A job of this many bytes ended before the worker could be told: the credit was used in vain.
    Missed(u32),
}

impl Broker {
    /// Makes a broker of all shards of a node, in the order of their ranges of hashes.
    ///
    /// # Panics
    /// If there are no shards.
    pub fn new(shards: Vec<Shard>) -> Self {
        assert!(!shards.is_empty(), "a broker without shards");
        Self::over(Slots::new(shards.into_iter().map(Standing::Open)))
    }

    /// Makes a broker of shards that are about to be opened.
    ///
    /// # Panics
    /// If there are no shards.
    pub fn opening(shards: u32) -> Self {
        assert!(shards > 0, "a broker without shards");
        Self::over(Slots::new((0..shards).map(|_| Standing::Opening)))
    }

    fn over(slots: Slots) -> Self {
        Self { slots: Arc::new(slots), first: Arc::default(), budget: Budget::new(BUDGET_BYTES) }
    }

    /// Sets the bytes of jobs on their way to all workers at once, without the last job of each
    /// shard.
    #[must_use]
    pub fn with_budget(self, bytes: u64) -> Self {
        Self { budget: Budget::new(bytes), ..self }
    }

    /// Sets a shard's standing.
    pub fn set(&self, number: u32, now: Standing) {
        self.slots.set(number, now);
    }

    /// The standing of each shard, in the order of their ranges of hashes.
    pub fn standings(&self) -> Vec<Standing> {
        self.slots.standings()
    }

    /// Tells when the set of open shards changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.slots.changes()
    }

    /// The shard that has a tenant's jobs.
    ///
    /// # Errors
    /// `Unavailable` if it is not open.
    pub fn shard_of(&self, tenant: &Tenant) -> Result<Shard> {
        self.shard(TenantHash::of(tenant))
    }

    fn number_of(&self, hash: TenantHash) -> u32 {
        HashRange::number_of(hash, self.slots.count())
    }

    fn shard(&self, hash: TenantHash) -> Result<Shard> {
        self.slots.get(self.number_of(hash))
    }

    /// All shards.
    fn all(&self) -> Result<Vec<Shard>> {
        (0..self.slots.count()).map(|number| self.slots.get(number)).collect()
    }

    /// Opens a worker's request for work: jobs come until it is dropped, as many as there are
    /// credits.
    ///
    /// # Errors
    /// `Invalid` for too many credits, `Unavailable`.
    pub fn work(
        &self,
        group: &Group,
        worker: &Worker,
        begins: Begins,
        credits: u32,
    ) -> Result<Work> {
        check_credits(credits)?;
        let changes = self.slots.changes();
        let shards = self.slots.open();
        if shards.is_empty() {
            // This call gives the reason.
            self.slots.get(0)?;
        }
        let count = self.slots.count();
        let (seats, messages) = Seat::at_all(count, group, worker, begins, credits, &self.budget);
        let shards =
            shards.into_iter().map(|(number, shard)| (shard, seats[number as usize].clone()));
        let work = Work {
            broker: self.clone(),
            shards: shards.collect(),
            changes,
            seats,
            messages,
            credits,
            kept: Vec::new(),
            missed: 0,
            has_stopped: false,
        };
        work.sit_down()?;
        Ok(work)
    }

    /// Leases jobs to a worker of a task group: at least one, unless none comes within `patience`.
    /// The bytes are at most [`ON_ITS_WAY_BYTES`](crate::shard::ON_ITS_WAY_BYTES), without the last
    /// job.
    ///
    /// # Errors
    /// `Invalid` for no jobs or too many, `Unavailable`.
    pub async fn lease(
        &self,
        group: &Group,
        worker: &Worker,
        max: u32,
        patience: Duration,
    ) -> Result<Vec<(Ticket, Leased)>> {
        if max == 0 {
            return Err(Error::invalid(format!("0 jobs: 1 to {LEASES_MAX}")));
        }
        let mut work = self.work(group, worker, Begins::WhenTold, max)?;
        if let Ok(heard) = tokio::time::timeout(patience, work.hear()).await {
            work.keep(heard?);
        }
        // Jobs that were given out until now are on their way.
        let given = max - work.stop();
        while work.kept.len() + work.missed < given as usize {
            let heard = work.hear().await?;
            work.keep(heard);
        }
        Ok(std::mem::take(&mut work.kept))
    }

    /// Takes a heartbeat.
    ///
    /// # Errors
    /// `LeaseLost` if the lease no longer holds.
    pub fn heartbeat(&self, ticket: &Ticket) -> Result<Beat> {
        let beat = self.shard(ticket.lease.hash)?.heartbeat(ticket.lease);
        beat.map_err(|error| ticket.named(error))
    }

    /// Takes the outcome of an attempt. Repeated, it gets the first answer.
    ///
    /// # Errors
    /// As [`Shard::report`].
    pub async fn report(&self, ticket: Ticket, outcome: Outcome) -> Result<Next> {
        self.shard(ticket.lease.hash)?.report(ticket, outcome).await
    }

    /// Takes the outcomes of many attempts, each by itself.
    pub async fn report_all(&self, reports: Vec<(Ticket, Outcome)>) -> Vec<Result<Next>> {
        let mut said =
            vec![Err(Error::new(ErrorKind::Internal, "nothing was said")); reports.len()];
        let mut by_shard: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (at, (ticket, outcome)) in reports.into_iter().enumerate() {
            let number = self.number_of(ticket.lease.hash);
            by_shard.entry(number).or_default().push((at, (ticket, outcome)));
        }
        let answers = by_shard.into_iter().map(async |(number, reports)| {
            let (places, reports): (Vec<_>, Vec<_>) = reports.into_iter().unzip();
            let answers = match self.slots.get(number) {
                Ok(shard) => shard.report_all(reports).await,
                Err(error) => vec![Err(error); places.len()],
            };
            places.into_iter().zip(answers)
        });
        for (at, answer) in futures::future::join_all(answers).await.into_iter().flatten() {
            said[at] = answer;
        }
        said
    }

    /// Gives a job back whose worker has gone or has no room for it: the next worker gets it.
    pub fn give_back(&self, ticket: &Ticket) {
        if let Ok(shard) = self.shard(ticket.lease.hash) {
            shard.give_back(ticket.lease);
        }
    }

    /// Pauses a task group: until [`Broker::resume`], workers get none of its jobs.
    ///
    /// # Errors
    /// `Unavailable`: some shards may have paused it then.
    pub async fn pause(&self, group: &Group) -> Result<()> {
        for shard in self.all()? {
            shard.pause(group).await?;
        }
        Ok(())
    }

    /// Resumes a task group.
    ///
    /// # Errors
    /// `Unavailable`: some shards may still pause it then.
    pub async fn resume(&self, group: &Group) -> Result<()> {
        for shard in self.all()? {
            shard.resume(group).await?;
        }
        Ok(())
    }

    /// Lists jobs that match, from the end of the previous part; shard by shard if no tenant is
    /// named.
    ///
    /// # Errors
    /// `Invalid`, `Unavailable`.
    pub async fn list(&self, query: &Query, after: Option<&Cursor>) -> Result<Listed> {
        if let Some(tenant) = &query.tenant {
            return self.shard_of(tenant)?.list(query, after).await;
        }
        let (number, within) = match after {
            Some(cursor) => split_place(&cursor.open(query)?)?,
            None => (0, None),
        };
        if number >= self.slots.count() {
            return Err(Error::invalid("this listing was begun somewhere else: begin anew"));
        }
        let shard = self.slots.get(number)?;
        let mut listed = shard.list(query, within.as_ref()).await?;
        let is_last = number + 1 == self.slots.count();
        let next = match listed.next {
            Some(next) => Some(join_place(number, &next.0)),
            None if is_last => None,
            None => Some(join_place(number + 1, &[])),
        };
        listed.next = next.map(|place| Cursor::seal(query, &place));
        Ok(listed)
    }

    /// Numbers of jobs that have not ended, in the open shards.
    pub fn counts(&self) -> Counts {
        let all = self.slots.open().into_iter().map(|(_, shard)| shard.counts());
        all.fold(Counts::default(), |sum, more| Counts {
            active: sum.active + more.active,
            running: sum.running + more.running,
        })
    }

    /// Numbers of jobs that have not ended, by task group, in the open shards.
    pub fn groups(&self) -> BTreeMap<Group, GroupCounts> {
        let mut sums: BTreeMap<Group, GroupCounts> = BTreeMap::new();
        let open = self.slots.open().into_iter();
        for (group, more) in open.flat_map(|(_, shard)| shard.groups()) {
            let sum = sums.entry(group).or_default();
            sum.early += more.early;
            sum.ready += more.ready;
            sum.running += more.running;
            sum.is_paused |= more.is_paused;
        }
        sums
    }

    /// Totals since the shards were opened.
    pub fn totals(&self) -> Totals {
        let open = self.slots.open().into_iter();
        open.map(|(_, shard)| shard.totals()).fold(Totals::default(), Totals::and)
    }
}

/// A worker's request for work. Dropping it gives back the jobs on their way.
pub struct Work {
    broker: Broker,
    /// The shards that were open when it began, each with the seat there.
    shards: Vec<(Shard, Arc<Seat>)>,
    /// Tells when the set of open shards changes.
    changes: watch::Receiver<u64>,
    seats: Vec<Arc<Seat>>,
    messages: SeatMessages,
    credits: u32,
    /// Jobs that are not handed on yet.
    kept: Vec<(Ticket, Leased)>,
    /// Credits that were used in vain.
    missed: usize,
    has_stopped: bool,
}

impl Work {
    fn keep(&mut self, heard: WorkerMessage) {
        match heard {
            WorkerMessage::Leased(ticket, leased) => self.kept.push((ticket, *leased)),
            WorkerMessage::Missed(_) => self.missed += 1,
            WorkerMessage::Cancel(_) => {}
        }
    }

    /// Waits for work at all shards, which share it out. Each gives as much as the others, and
    /// another one is first each time. So no shard's jobs wait for all of another's.
    fn sit_down(&self) -> Result<()> {
        let shards = &self.shards;
        let Some(seat) = self.seats.first() else { return Ok(()) };
        let first = self.broker.first.fetch_add(1, Ordering::Relaxed) % shards.len().max(1);
        loop {
            let share = match shards.len() {
                0 | 1 => u32::MAX,
                shards => seat.credits() / u32::try_from(shards).unwrap_or(u32::MAX) + 1,
            };
            let mut given = 0;
            for at in (first..shards.len()).chain(0..first) {
                let (shard, seat) = &shards[at];
                given += shard.seat(seat, share)?;
            }
            if given == 0 || (share == u32::MAX && given < GIVEN_AT_ONCE) {
                return Ok(());
            }
        }
    }

    /// Adds credits: the worker would take this many jobs more.
    ///
    /// # Errors
    /// `Invalid` for too many, `Unavailable`.
    pub fn add_credits(&mut self, more: u32) -> Result<()> {
        self.credits = self.credits.saturating_add(more);
        check_credits(self.credits)?;
        if let Some(seat) = self.seats.first() {
            seat.add_credits(more);
        }
        self.sit_down()
    }

    /// Notes that the worker has said something: if it had been silent for a lease, it gets jobs
    /// again.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn note_heard(&self) -> Result<()> {
        match self.seats.first() {
            Some(seat) if seat.note_heard() => self.sit_down(),
            _ => Ok(()),
        }
    }

    /// Stops: the worker takes no more than was given to it until now. Gives the number of credits
    /// that were left.
    pub fn stop(&mut self) -> u32 {
        self.has_stopped = true;
        self.seats.first().map_or(0, |seat| seat.take_credits())
    }

    /// True if the worker takes no more.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Waits for the next message: a job that the worker has, durably, or a request to stop.
    /// [`ON_ITS_WAY_BYTES`](crate::shard::ON_ITS_WAY_BYTES) are on their way at once; further jobs
    /// come when it has received earlier ones.
    ///
    /// # Errors
    /// `Unavailable` if a shard is out of service, or a shard has opened. The worker then connects
    /// again, and gets work of all open shards. It also repeats its reports of jobs whose shard was
    /// away.
    pub async fn next(&mut self) -> Result<WorkerMessage> {
        let heard = self.hear().await?;
        let bytes = match &heard {
            WorkerMessage::Leased(_, leased) => leased.job.spec.bytes(),
            WorkerMessage::Missed(bytes) => *bytes as usize,
            WorkerMessage::Cancel(_) => 0,
        };
        if self.seats.first().is_some_and(|seat| seat.add_bytes(bytes))
            && let Err(error) = self.sit_down()
        {
            self.keep(heard);
            return Err(error);
        }
        Ok(heard)
    }

    /// Lets the worker look for work again, once the node's budget has room.
    fn look_again(&self) -> Result<()> {
        self.seats.iter().take(1).for_each(|seat| seat.look_again());
        let done = self.sit_down();
        self.broker.budget.pass_on();
        done
    }

    /// Waits for the next message, and counts it as still on its way.
    async fn hear(&mut self) -> Result<WorkerMessage> {
        loop {
            let is_hungry = self.seats.first().is_some_and(|seat| seat.is_hungry());
            tokio::select! {
                biased;
                Some((_, told)) = self.messages.recv() => {
                    if let Some(heard) = self.heard(told) {
                        return Ok(heard);
                    }
                }
                why = out_of_service(&self.shards) => return Err(why),
                _ = self.changes.changed() => {
                    let detail = "other shards of the node's jobs can be used now: connect again";
                    return Err(Error::new(ErrorKind::Unavailable, detail));
                }
                () = self.broker.budget.has_room(), if is_hungry => self.look_again()?,
            }
        }
    }

    /// The worker's message of a seat's message, if it has one.
    fn heard(&mut self, told: SeatMessage) -> Option<WorkerMessage> {
        Some(match told {
            SeatMessage::Leased(leased) => {
                self.credits = self.credits.saturating_sub(1);
                WorkerMessage::Leased(leased.ticket(), leased)
            }
            SeatMessage::Cancel(ticket) => WorkerMessage::Cancel(ticket),
            SeatMessage::Missed(bytes) => {
                self.credits = self.credits.saturating_sub(1);
                WorkerMessage::Missed(bytes)
            }
            SeatMessage::NoRoom => return None,
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.stop();
        for (shard, seat) in &self.shards {
            shard.unseat(seat);
        }
        for (ticket, _) in self.kept.drain(..) {
            self.broker.give_back(&ticket);
        }
        self.messages.close();
        while let Ok((_, told)) = self.messages.try_recv() {
            if let SeatMessage::Leased(leased) = told {
                self.broker.give_back(&leased.ticket());
            }
        }
    }
}

/// Waits until a shard is out of service; gives the reason.
async fn out_of_service(shards: &[(Shard, Arc<Seat>)]) -> Error {
    let mut all: FuturesUnordered<_> =
        shards.iter().map(|(shard, _)| shard.out_of_service()).collect();
    match all.next().await {
        Some(why) => why,
        None => std::future::pending().await,
    }
}

fn check_credits(credits: u32) -> Result<()> {
    if credits > LEASES_MAX {
        return Err(Error::invalid(format!("{credits} jobs at once: {LEASES_MAX} at most")));
    }
    Ok(())
}

fn join_place(shard: u32, within: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + within.len());
    out.put_u32_le(shard);
    out.put_slice(within);
    out.freeze()
}

fn split_place(place: &Bytes) -> Result<(u32, Option<Cursor>)> {
    let bad = || Error::invalid("this is not where a listing ended");
    let (number, rest) = place.split_first_chunk::<4>().ok_or_else(bad)?;
    let rest = (!rest.is_empty()).then(|| Cursor(place.slice(4..)));
    Ok((u32::from_le_bytes(*number), rest))
}
