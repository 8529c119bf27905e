//! Limits at work: how much room each has, and which classes of jobs wait for it.

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
    /// Classes under it.
    pub(super) users: u32,
    /// Of each line, the classes that wait for it, best first.
    pub(super) waiting: BTreeMap<LineNo, BTreeSet<(Place, ClassNo)>>,
    /// When the timer for its next token goes off, milliseconds.
    pub(super) timer_ms: Option<u64>,
}

impl LimitState {
    /// A rate's bucket is empty at `unknown_until_us`, and fills from then.
    pub(super) fn new(key: (u32, LimitKey), kind: LimitKind, unknown_until_us: u64) -> Self {
        let rule = Rule::of(&kind);
        let bucket = match rule {
            Rule::Rate(flow) => Bucket::empty_at(flow, unknown_until_us),
            Rule::AtOnce(_) => Bucket::default(),
        };
        Self {
            key,
            rule,
            kind,
            held: 0,
            bucket,
            users: 0,
            waiting: BTreeMap::new(),
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

    /// One begins now, or, at no time, had begun before.
    pub(super) fn take(&mut self, now_us: Option<u64>) {
        self.held += 1;
        if let (Rule::Rate(flow), Some(now_us)) = (self.rule, now_us) {
            self.bucket.take(flow, now_us);
        }
    }

    /// When a rate's bucket is full, microseconds: then there is nothing to remember of it.
    pub(super) fn full_us(&self) -> Option<u64> {
        matches!(self.rule, Rule::Rate(_)).then_some(self.bucket.full_at_us)
    }

    /// A class waits.
    pub(super) fn park(&mut self, line: LineNo, place: Place, class: ClassNo) {
        self.waiting.entry(line).or_default().insert((place, class));
    }

    /// A class waits no more.
    pub(super) fn unpark(&mut self, line: LineNo, place: Place, class: ClassNo) {
        if let Some(waiting) = self.waiting.get_mut(&line) {
            waiting.remove(&(place, class));
            if waiting.is_empty() {
                self.waiting.remove(&line);
            }
        }
    }

    /// When a token comes for which somebody waits, or when the limit can be forgotten, milliseconds, rounded up.
    pub(super) fn wanted_ms(&self, now_us: u64) -> Option<u64> {
        match self.rule {
            Rule::Rate(flow) if !self.waiting.is_empty() => {
                Some(self.bucket.more_us(flow, now_us).div_ceil(1000))
            }
            Rule::Rate(_) if self.users == 0 => Some(self.bucket.full_at_us.div_ceil(1000)),
            _ => None,
        }
    }
}
