//! Limits at work: the room of each, and the classes of jobs that wait for it.
//!
//! A line is *hungry* at a limit if a class of it waits there, and no class that this limit has
//! woken is as good. Must hold once no class is to be woken: at a limit with room no line is
//! hungry. So freed room costs one step for each hungry line. A line that has not used its last
//! room is not looked at again.

use super::queues::{ClassNo, LineNo, Rank};
use crate::limit::{Bucket, Flow, LimitKind};
use crate::name::LimitKey;
use std::collections::{BTreeMap, BTreeSet};

/// The rule by which a limit decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// At most this many jobs at once.
    AtOnce(u32),
    /// At most this many attempts in a time.
    Rate(Flow),
}

impl Rule {
    /// The first rule of a limit of this kind.
    pub(super) fn of(kind: &LimitKind) -> Self {
        match *kind {
            LimitKind::Concurrency { max } => Self::AtOnce(max),
            LimitKind::Floating { initial, .. } => Self::AtOnce(initial),
            LimitKind::Rate { count, per_ms, burst } => Self::Rate(Flow::new(count, per_ms, burst)),
        }
    }
}

/// The classes of a line at a limit, best first.
#[derive(Debug, Default)]
struct Waiters {
    /// Classes that wait until the limit has room.
    parked: BTreeSet<(Rank, ClassNo)>,
    /// Classes that the limit had room for, and that have not taken it. They stand among the heads
    /// of their line.
    woken: BTreeSet<(Rank, ClassNo)>,
}

impl Waiters {
    fn is_hungry(&self) -> bool {
        match (self.parked.first(), self.woken.first()) {
            (Some(parked), Some(woken)) => parked < woken,
            (parked, _) => parked.is_some(),
        }
    }
}

/// A limit of a tenant.
#[derive(Debug)]
pub(super) struct LimitState {
    /// The tenant and the limit's name.
    pub(super) key: (u32, LimitKey),
    /// The kind that its newest job gave it.
    pub(super) kind: LimitKind,
    /// The present rule. For a floating limit, the maximum is the one that a worker reported last.
    pub(super) rule: Rule,
    /// Jobs that run under it.
    pub(super) held: u32,
    /// The tokens of a rate.
    pub(super) bucket: Bucket,
    /// The definition of the rate under which the last token was taken, if the database keeps the
    /// bucket. Another definition, or another kind of limit, may hold by now.
    pub(super) drained_under: Option<LimitKind>,
    /// Number of classes under it.
    pub(super) users: u32,
    lines: BTreeMap<LineNo, Waiters>,
    hungry: BTreeSet<LineNo>,
    /// The next hungry line after this one is woken next.
    last_woken: LineNo,
    /// Time of the timer for its next token, milliseconds.
    pub(super) timer_ms: Option<u64>,
}

impl LimitState {
    /// Makes a limit under which no job has run. A rate's bucket is full.
    pub(super) fn new(key: (u32, LimitKey), kind: LimitKind) -> Self {
        Self {
            key,
            rule: Rule::of(&kind),
            kind,
            held: 0,
            bucket: Bucket::default(),
            drained_under: None,
            users: 0,
            lines: BTreeMap::new(),
            hungry: BTreeSet::new(),
            last_woken: 0,
            timer_ms: None,
        }
    }

    /// Number of jobs that may begin now.
    pub(super) fn room(&self, now_us: u64) -> u32 {
        match self.rule {
            Rule::AtOnce(max) => max.saturating_sub(self.held),
            Rule::Rate(flow) => self.bucket.tokens(flow, now_us),
        }
    }

    /// Takes room for a job that begins now. Without a time, its attempt had begun before. True if
    /// that took a token.
    pub(super) fn take(&mut self, now_us: Option<u64>) -> bool {
        self.held += 1;
        let (Rule::Rate(flow), Some(now_us)) = (self.rule, now_us) else { return false };
        self.bucket.take(flow, now_us);
        self.drained_under = Some(self.kind.clone());
        true
    }

    /// True if the bucket of a rate is not full, even if the limit is of another kind now.
    pub(super) fn owes(&self, now_us: u64) -> bool {
        self.bucket.full_at_us > now_us
    }

    /// Becomes a limit under which no job has run, except for the debt of a rate's bucket.
    pub(super) fn begin_anew(&mut self, kind: LimitKind) {
        let new = Self::new(self.key.clone(), kind);
        let before = std::mem::replace(self, new);
        self.timer_ms = before.timer_ms;
        (self.bucket, self.drained_under) = (before.bucket, before.drained_under);
    }

    fn change(&mut self, line: LineNo, change: impl FnOnce(&mut Waiters)) {
        let waiters = self.lines.entry(line).or_default();
        change(waiters);
        if waiters.is_hungry() {
            self.hungry.insert(line);
        } else {
            self.hungry.remove(&line);
        }
        if waiters.parked.is_empty() && waiters.woken.is_empty() {
            self.lines.remove(&line);
        }
    }

    /// Adds a waiting class.
    pub(super) fn park(&mut self, line: LineNo, place: Rank, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.parked.insert((place, class));
        });
    }

    /// Removes a waiting class.
    pub(super) fn unpark(&mut self, line: LineNo, place: Rank, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.parked.remove(&(place, class));
        });
    }

    /// Notes that a waiting class may take room.
    pub(super) fn note_woken(&mut self, line: LineNo, place: Rank, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.woken.insert((place, class));
        });
    }

    /// Notes that a woken class has taken its room, or leaves it to the next.
    pub(super) fn forget_woken(&mut self, line: LineNo, place: Rank, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.woken.remove(&(place, class));
        });
    }

    /// True if a line waits for room that the limit has.
    pub(super) fn must_wake(&self, now_us: u64) -> bool {
        !self.hungry.is_empty() && self.room(now_us) > 0
    }

    /// Gives the best class of the next hungry line. The lines take turns.
    pub(super) fn next_hungry(&mut self) -> Option<(LineNo, Rank, ClassNo)> {
        let after = self.hungry.range(self.last_woken.saturating_add(1)..).next();
        let line = after.or_else(|| self.hungry.first()).copied()?;
        self.last_woken = line;
        let (place, class) = self.lines.get(&line)?.parked.first().copied()?;
        Some((line, place, class))
    }

    /// Time of the next token that a class waits for, or at which the limit can be forgotten,
    /// milliseconds, rounded up. While there are tokens, another changes nothing: all that could be
    /// woken is awake.
    pub(super) fn wanted_ms(&self, now_us: u64) -> Option<u64> {
        if let Rule::Rate(flow) = self.rule
            && !self.lines.is_empty()
            && self.bucket.tokens(flow, now_us) == 0
        {
            return Some(self.bucket.more_us(flow, now_us).div_ceil(1000));
        }
        (self.users == 0).then(|| self.bucket.full_at_us.div_ceil(1000))
    }
}
