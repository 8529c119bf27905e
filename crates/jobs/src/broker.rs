//! All shards of a node as one: a tenant's jobs are in one of them, and a worker gets work from all that are open.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::{HashRange, TenantHash};
pub use crate::job::Ticket;
use crate::machine::{Beat, Counts, GroupCounts, Next};
use crate::name::{Group, Tenant, Worker};
use crate::shard::{
    BUDGET_BYTES, Begins, Budget, Cursor, GIVEN_AT_ONCE, Leased, Listed, Outcome, Query, Seat,
    Shard, Tidings, Told, Totals,
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
    /// What may be on its way to all workers.
    budget: Arc<Budget>,
}

/// What a worker hears.
#[derive(Debug)]
pub enum Heard {
    /// A job is its own.
    Leased(Ticket, Box<Leased>),
    /// Somebody wants this work stopped.
    Cancel(Ticket),
    /// A job of so many bytes that was to be its own ended before it could be told: the credit was for nothing.
    Missed(u32),
}

impl Broker {
    /// All shards of a node, in the order of their ranges of hashes.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(shards: Vec<Shard>) -> Self {
        assert!(!shards.is_empty(), "a broker without shards");
        Self::over(Slots::new(shards.into_iter().map(Standing::Open)))
    }

    /// So many shards that are about to be opened.
    ///
    /// # Panics
    /// If there is none.
    pub fn opening(shards: u32) -> Self {
        assert!(shards > 0, "a broker without shards");
        Self::over(Slots::new((0..shards).map(|_| Standing::Opening)))
    }

    fn over(slots: Slots) -> Self {
        Self { slots: Arc::new(slots), first: Arc::default(), budget: Budget::new(BUDGET_BYTES) }
    }

    /// The same, with so many bytes of jobs on their way to all workers at once, but for the last of each shard.
    #[must_use]
    pub fn with_budget(self, bytes: u64) -> Self {
        Self { budget: Budget::new(bytes), ..self }
    }

    /// A shard stands otherwise from now on.
    pub fn set(&self, number: u32, now: Standing) {
        self.slots.set(number, now);
    }

    /// Where each shard stands, in the order of their ranges of hashes.
    pub fn standings(&self) -> Vec<Standing> {
        self.slots.standings()
    }

    /// Tells when another set of shards is open.
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

    /// A worker's place: jobs come until it is dropped, as many as there are credits for.
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
            // It says why.
            self.slots.get(0)?;
        }
        let count = self.slots.count();
        let (seats, tidings) = Seat::at_all(count, group, worker, begins, credits, &self.budget);
        let shards =
            shards.into_iter().map(|(number, shard)| (shard, seats[number as usize].clone()));
        let work = Work {
            broker: self.clone(),
            shards: shards.collect(),
            changes,
            seats,
            tidings,
            credits,
            kept: Vec::new(),
            missed: 0,
            has_stopped: false,
        };
        work.sit_down()?;
        Ok(work)
    }

    /// Work for a worker of a task group: at least one job, unless there is none for as long as `patience`; no more
    /// than [`ON_ITS_WAY_BYTES`](crate::shard::ON_ITS_WAY_BYTES), but for the last.
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
        // What was given until now is on its way.
        let given = max - work.stop();
        while work.kept.len() + work.missed < given as usize {
            let heard = work.hear().await?;
            work.keep(heard);
        }
        Ok(std::mem::take(&mut work.kept))
    }

    /// A sign of life.
    ///
    /// # Errors
    /// `LeaseLost` if somebody else has the job, or nobody.
    pub fn heartbeat(&self, ticket: &Ticket) -> Result<Beat> {
        let beat = self.shard(ticket.lease.hash)?.heartbeat(ticket.lease);
        beat.map_err(|error| ticket.named(error))
    }

    /// How an attempt ended. Said again, it is answered the same.
    ///
    /// # Errors
    /// As [`Shard::report`].
    pub async fn report(&self, ticket: Ticket, outcome: Outcome) -> Result<Next> {
        self.shard(ticket.lease.hash)?.report(ticket, outcome).await
    }

    /// The same of many, each by itself.
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

    /// A worker that was to get a job has gone, or has no room for it: it is the next one's.
    pub fn give_back(&self, ticket: &Ticket) {
        if let Ok(shard) = self.shard(ticket.lease.hash) {
            shard.give_back(ticket.lease);
        }
    }

    /// No job of a task group is given out until it is resumed.
    ///
    /// # Errors
    /// `Unavailable`; it may be paused in some shards then.
    pub async fn pause(&self, group: &Group) -> Result<()> {
        for shard in self.all()? {
            shard.pause(group).await?;
        }
        Ok(())
    }

    /// Jobs of a task group are given out again.
    ///
    /// # Errors
    /// `Unavailable`; it may be paused in some shards still.
    pub async fn resume(&self, group: &Group) -> Result<()> {
        for shard in self.all()? {
            shard.resume(group).await?;
        }
        Ok(())
    }

    /// Jobs that match, from where a listing before ended; shard by shard if no tenant is named.
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

    /// How many jobs there are that have not come to their end, in the shards that are open.
    pub fn counts(&self) -> Counts {
        let all = self.slots.open().into_iter().map(|(_, shard)| shard.counts());
        all.fold(Counts::default(), |sum, more| Counts {
            active: sum.active + more.active,
            running: sum.running + more.running,
        })
    }

    /// The same, by task group.
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

    /// What has happened since the shards were opened.
    pub fn totals(&self) -> Totals {
        let open = self.slots.open().into_iter();
        open.map(|(_, shard)| shard.totals()).fold(Totals::default(), Totals::and)
    }
}

/// A worker's place. Whoever leaves it gives back what was on its way.
pub struct Work {
    broker: Broker,
    /// The shards that were open when it began, each with the seat there.
    shards: Vec<(Shard, Arc<Seat>)>,
    /// Tells when others are open.
    changes: watch::Receiver<u64>,
    seats: Vec<Arc<Seat>>,
    tidings: Tidings,
    credits: u32,
    /// Jobs that are not handed on yet.
    kept: Vec<(Ticket, Leased)>,
    /// Credits that were for nothing.
    missed: usize,
    has_stopped: bool,
}

impl Work {
    fn keep(&mut self, heard: Heard) {
        match heard {
            Heard::Leased(ticket, leased) => self.kept.push((ticket, *leased)),
            Heard::Missed(_) => self.missed += 1,
            Heard::Cancel(_) => {}
        }
    }

    /// Waits for work at all shards. What they have is shared out: each gives as much as the others, and another is the
    /// first each time, so that the jobs of none wait for all of another's.
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

    /// The worker would take so many more.
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

    /// The worker has said something: if it had been silent for a lease, it gets jobs again.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn note_heard(&self) -> Result<()> {
        match self.seats.first() {
            Some(seat) if seat.note_heard() => self.sit_down(),
            _ => Ok(()),
        }
    }

    /// The worker takes no more than was given to it until now; says how many credits were left.
    pub fn stop(&mut self) -> u32 {
        self.has_stopped = true;
        self.seats.first().map_or(0, |seat| seat.take_credits())
    }

    /// The worker takes no more.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// What comes next: jobs that the worker has, durably, and wishes that it stop. More jobs come when it has heard of
    /// those before: [`ON_ITS_WAY_BYTES`](crate::shard::ON_ITS_WAY_BYTES) at once.
    ///
    /// # Errors
    /// `Unavailable` if a shard is out of service, or another can be used: the worker comes again, and is given work of
    /// those that are open then. What it has said of jobs whose shard was away it says again then, too.
    pub async fn next(&mut self) -> Result<Heard> {
        let heard = self.hear().await?;
        let bytes = match &heard {
            Heard::Leased(_, leased) => leased.job.spec.bytes(),
            Heard::Missed(bytes) => *bytes as usize,
            Heard::Cancel(_) => 0,
        };
        if self.seats.first().is_some_and(|seat| seat.add_bytes(bytes))
            && let Err(error) = self.sit_down()
        {
            self.keep(heard);
            return Err(error);
        }
        Ok(heard)
    }

    /// The node's budget was spent, and has room: the worker looks for work again.
    fn look_again(&self) -> Result<()> {
        self.seats.iter().take(1).for_each(|seat| seat.look_again());
        let done = self.sit_down();
        self.broker.budget.pass_on();
        done
    }

    /// The same; what it has heard of is still on its way.
    async fn hear(&mut self) -> Result<Heard> {
        loop {
            let is_hungry = self.seats.first().is_some_and(|seat| seat.is_hungry());
            tokio::select! {
                biased;
                Some((_, told)) = self.tidings.recv() => {
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

    /// What a worker hears of what its seats are told.
    fn heard(&mut self, told: Told) -> Option<Heard> {
        Some(match told {
            Told::Leased(leased) => {
                self.credits = self.credits.saturating_sub(1);
                Heard::Leased(leased.ticket(), leased)
            }
            Told::Cancel(ticket) => Heard::Cancel(ticket),
            Told::Missed(bytes) => {
                self.credits = self.credits.saturating_sub(1);
                Heard::Missed(bytes)
            }
            Told::NoRoom => return None,
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
        self.tidings.close();
        while let Ok((_, told)) = self.tidings.try_recv() {
            if let Told::Leased(leased) = told {
                self.broker.give_back(&leased.ticket());
            }
        }
    }
}

/// Waits until a shard is out of service; says why.
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
