//! Limits at work: how much room each has, and which classes of jobs wait for it.
//!
//! A line is *hungry* at a limit if a class of it waits there and none that this limit has woken is as good. What must
//! hold once nothing is being woken: at a limit with room no line is hungry. So a place that comes free costs one step
//! for each hungry line, and a line that has not used its last place is not looked at again.

use super::queues::{ClassNo, LineNo, Place};
use crate::limit::{Bucket, Flow, LimitKind};
use crate::name::LimitKey;
use std::collections::{BTreeMap, BTreeSet};

/// How a limit decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// So many at once.
    AtOnce(u32),
    /// So many in a while.
    Rate(Flow),
}

impl Rule {
    /// What a limit of this kind begins with.
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
    /// They wait until it has room.
    parked: BTreeSet<(Place, ClassNo)>,
    /// It had room for them, and they have not taken it: they stand among the heads of their line.
    woken: BTreeSet<(Place, ClassNo)>,
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
    /// As the newest job that is under it has it.
    pub(super) kind: LimitKind,
    /// What holds now: a floating limit's maximum is what a worker said last.
    pub(super) rule: Rule,
    /// Jobs that run under it.
    pub(super) held: u32,
    /// The tokens of a rate.
    pub(super) bucket: Bucket,
    /// The definition of the rate under which the last token was taken, if what outlives the broker has one: another
    /// definition, or another kind of limit, may hold by now.
    pub(super) drained_under: Option<LimitKind>,
    /// Classes under it.
    pub(super) users: u32,
    lines: BTreeMap<LineNo, Waiters>,
    hungry: BTreeSet<LineNo>,
    /// The hungry line after this one is woken next.
    last_woken: LineNo,
    /// When the timer for its next token goes off, milliseconds.
    pub(super) timer_ms: Option<u64>,
}

impl LimitState {
    /// A limit under which nothing has run; a rate's bucket is full.
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

    /// How many more may begin now.
    pub(super) fn room(&self, now_us: u64) -> u32 {
        match self.rule {
            Rule::AtOnce(max) => max.saturating_sub(self.held),
            Rule::Rate(flow) => self.bucket.tokens(flow, now_us),
        }
    }

    /// One begins now, or, at no time, had begun before. True if that took a token.
    pub(super) fn take(&mut self, now_us: Option<u64>) -> bool {
        self.held += 1;
        let (Rule::Rate(flow), Some(now_us)) = (self.rule, now_us) else { return false };
        self.bucket.take(flow, now_us);
        self.drained_under = Some(self.kind.clone());
        true
    }

    /// True if a rate of this name has a bucket that is not full, whatever kind of limit it is now.
    pub(super) fn owes(&self, now_us: u64) -> bool {
        self.bucket.full_at_us > now_us
    }

    /// Becomes what nothing has run under, but for what is owed to a rate's bucket.
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

    /// A class waits.
    pub(super) fn park(&mut self, line: LineNo, place: Place, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.parked.insert((place, class));
        });
    }

    /// A class waits no more.
    pub(super) fn unpark(&mut self, line: LineNo, place: Place, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.parked.remove(&(place, class));
        });
    }

    /// A class that waited may take a place.
    pub(super) fn note_woken(&mut self, line: LineNo, place: Place, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.woken.insert((place, class));
        });
    }

    /// A class that was woken has taken its place, or leaves it to the next.
    pub(super) fn forget_woken(&mut self, line: LineNo, place: Place, class: ClassNo) {
        self.change(line, |waiters| {
            waiters.woken.remove(&(place, class));
        });
    }

    /// A line waits for a place that is there.
    pub(super) fn must_wake(&self, now_us: u64) -> bool {
        !self.hungry.is_empty() && self.room(now_us) > 0
    }

    /// The best class of the next hungry line; all of them have their turn.
    pub(super) fn next_hungry(&mut self) -> Option<(LineNo, Place, ClassNo)> {
        let after = self.hungry.range(self.last_woken.saturating_add(1)..).next();
        let line = after.or_else(|| self.hungry.first()).copied()?;
        self.last_woken = line;
        let (place, class) = self.lines.get(&line)?.parked.first().copied()?;
        Some((line, place, class))
    }

    /// When a token comes for which a class waits, or when the limit can be forgotten, milliseconds, rounded up.
    /// While there are tokens, nothing comes of another: what waits has been woken.
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
