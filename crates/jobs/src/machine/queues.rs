//! The order of jobs that could run, by task group, tenant and limits.
//!
//! Jobs with one task group, one tenant and equal limits are a *class*, ordered by priority and
//! age. Only the first job of each class is ever looked at. It stands among the *heads* of its
//! *line* (the tenant's queue within the task group). If a limit has no room, the class is parked
//! at that limit, where it holds up no other. Lines of a task group take turns, a job each: deficit
//! round-robin (Shreedhar and Varghese 1995) with jobs of equal cost.
//!
//! Must hold once no class is left to wake: every class that could run now and is not parked is
//! among the heads. And of the classes parked at a limit with room, a better one is among them. So
//! a limit that gets room wakes the best class of each hungry line (`limits`). A woken class that
//! takes the room, or leaves it, makes its line hungry again. And a class with a new first job
//! looks anew.
//!
//! Each step takes about the logarithm of the number of classes, and one change makes a bounded
//! number of steps. Hundreds of thousands of classes may wait for one limit, and each of them for
//! another. The next change, or the next tick, does the rest; until then some jobs that could run
//! wait.

use super::limits::{LimitState, Rule};
use super::pool::Pool;
use super::timers::{Timer, Timers};
use crate::limit::{Bucket, LimitKind};
use crate::name::LimitKey;
use std::collections::{BTreeSet, HashMap};

/// The number of a class.
pub(super) type ClassNo = u32;
/// The number of a line.
pub(super) type LineNo = u32;
/// The number of a limit.
pub(super) type LimitNo = u32;

/// A waiting job's key in its class: the lower, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) priority: u8,
    pub(super) seq: u64,
    pub(super) job: u32,
}

/// The spot of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// No job of the class is ready.
    Nowhere,
    /// Among the heads of its line.
    Heads(Rank),
    /// As [`Self::Heads`], woken by this limit, which has room for it.
    Woken(Rank, LimitNo),
    /// At a limit that had no room.
    Parked(Rank, LimitNo),
}

/// Jobs that only priority and age tell apart.
#[derive(Debug)]
struct Class {
    line: LineNo,
    limits: Box<[LimitNo]>,
    ready: BTreeSet<Rank>,
    spot: Spot,
    /// Number of its jobs, ready or not.
    users: u32,
}

/// A tenant's queue within a task group.
#[derive(Debug)]
struct Line {
    key: (u32, u32),
    heads: BTreeSet<(Rank, ClassNo)>,
    /// Its turn; none while it has no heads.
    turn: Option<u64>,
    /// Number of its classes.
    users: u32,
}

/// All queues of a shard.
#[derive(Debug, Default)]
pub(super) struct Queues {
    classes: Pool<Class>,
    class_by_key: HashMap<(LineNo, Box<[LimitNo]>), ClassNo>,
    lines: Pool<Line>,
    line_by_key: HashMap<(u32, u32), LineNo>,
    /// The lines with heads of each task group, by turn.
    turns: HashMap<u32, BTreeSet<(u64, LineNo)>>,
    next_turn: u64,
    pub(super) limits: Pool<LimitState>,
    limit_by_key: HashMap<(u32, LimitKey), LimitNo>,
    /// Groups with new heads.
    touched: BTreeSet<u32>,
    /// Groups that gave out no job, with heads that were not looked at.
    unsure: BTreeSet<u32>,
    /// Limits that have changed since the last check for room for a hungry line.
    changed: BTreeSet<LimitNo>,
    /// Limits that have such room, or had.
    waking: BTreeSet<LimitNo>,
    /// The next limit after this one wakes next.
    last_waking: LimitNo,
    /// Limits whose timer may have to change.
    retime: BTreeSet<LimitNo>,
    /// Timers of limits that are gone.
    stale_timers: Vec<(u64, LimitNo)>,
    /// Rates from which tokens were taken since the last call of `take_rates`.
    pub(super) drained: BTreeSet<LimitNo>,
    /// Rates that need no longer be kept, with their tenants.
    pub(super) full: Vec<(u32, LimitKey)>,
    /// Tenants of new limits, and of limits that are gone.
    pub(super) new_limits_of: Vec<u32>,
    pub(super) gone_limits_of: Vec<u32>,
}

impl Queues {
    /// Gives the class of this task group, tenant and limits, and counts one more use.
    pub(super) fn hold_class(&mut self, group: u32, tenant: u32, limits: &[LimitNo]) -> ClassNo {
        let line = self.line(group, tenant);
        let mut limits: Box<[LimitNo]> = limits.into();
        limits.sort_unstable();
        let key = (line, limits.clone());
        let no = self.class_by_key.get(&key).copied().unwrap_or_else(|| {
            for limit in &limits {
                self.limits[*limit].users += 1;
            }
            self.lines[line].users += 1;
            let (ready, spot) = (BTreeSet::new(), Spot::Nowhere);
            let no = self.classes.insert(Class { line, limits, ready, spot, users: 0 });
            self.class_by_key.insert(key, no);
            no
        });
        self.classes[no].users += 1;
        no
    }

    /// Counts one use less.
    pub(super) fn drop_class(&mut self, no: ClassNo, now_us: u64) {
        self.classes[no].users -= 1;
        if self.classes[no].users > 0 {
            return;
        }
        let Class { line, limits, .. } = self.classes.remove(no);
        for limit in &limits {
            self.limits[*limit].users -= 1;
            self.drop_limit(*limit, now_us);
        }
        self.class_by_key.remove(&(line, limits));
        self.lines[line].users -= 1;
        if self.lines[line].users == 0 {
            self.leave_turn(line);
            let gone = self.lines.remove(line);
            self.line_by_key.remove(&gone.key);
        }
    }

    fn line(&mut self, group: u32, tenant: u32) -> LineNo {
        let key = (group, tenant);
        *self.line_by_key.entry(key).or_insert_with(|| {
            let heads = BTreeSet::new();
            self.lines.insert(Line { key, heads, turn: None, users: 0 })
        })
    }

    /// The tenant's limit of this name, if it is known.
    pub(super) fn find_limit(&self, tenant: u32, key: &LimitKey) -> Option<LimitNo> {
        self.limit_by_key.get(&(tenant, key.clone())).copied()
    }

    /// Gives the tenant's limit of this name. The newest definition holds.
    pub(super) fn define_limit(
        &mut self,
        tenant: u32,
        key: &LimitKey,
        kind: &LimitKind,
        now_us: u64,
    ) -> LimitNo {
        let Some(no) = self.find_limit(tenant, key) else {
            let key = (tenant, key.clone());
            let limit = LimitState::new(key.clone(), kind.clone());
            let no = self.limits.insert(limit);
            self.new_limits_of.push(tenant);
            self.limit_by_key.insert(key, no);
            return no;
        };
        if self.limits[no].users == 0 {
            if !self.limits[no].owes(now_us) {
                self.forget_bucket(no);
            }
            self.limits[no].begin_anew(kind.clone());
            self.note_changed(no);
        } else if self.limits[no].kind != *kind {
            let said = match (&self.limits[no].kind, kind) {
                // The maximum that a worker reported holds until its next report.
                (LimitKind::Floating { .. }, LimitKind::Floating { .. }) => self.limits[no].rule,
                _ => Rule::of(kind),
            };
            self.limits[no].kind = kind.clone();
            self.set_rule(no, said);
        }
        no
    }

    /// Changes the rule of a limit. Running jobs are not affected.
    pub(super) fn set_rule(&mut self, no: LimitNo, rule: Rule) {
        self.limits[no].rule = rule;
        self.note_changed(no);
    }

    /// Forgets a limit without classes, once nothing is to be remembered: a rate's bucket must be
    /// full.
    fn drop_limit(&mut self, no: LimitNo, now_us: u64) {
        self.note_changed(no);
        if self.limits[no].users == 0 && !self.limits[no].owes(now_us) {
            self.forget_bucket(no);
            let gone = self.limits.remove(no);
            self.limit_by_key.remove(&gone.key);
            self.gone_limits_of.push(gone.key.0);
            self.retime.remove(&no);
            self.changed.remove(&no);
            self.waking.remove(&no);
            self.stale_timers.extend(gone.timer_ms.map(|at_ms| (at_ms, no)));
        }
    }

    /// Notes that a limit's bucket need no longer be kept.
    fn forget_bucket(&mut self, no: LimitNo) {
        let limit = &mut self.limits[no];
        self.full.extend(limit.drained_under.take().map(|_| limit.key.clone()));
        self.drained.remove(&no);
    }

    /// Restores a limit's bucket as the database kept it.
    pub(super) fn restore(&mut self, no: LimitNo, bucket: Bucket) {
        let limit = &mut self.limits[no];
        (limit.bucket, limit.drained_under) = (bucket, Some(limit.kind.clone()));
        self.note_changed(no);
    }

    /// Adds a ready job to the class.
    pub(super) fn add(&mut self, no: ClassNo, place: Rank, now_us: u64) {
        self.classes[no].ready.insert(place);
        self.settle_class(no, now_us);
    }

    /// Removes a job from the class.
    pub(super) fn remove(&mut self, no: ClassNo, place: Rank, now_us: u64) {
        self.classes[no].ready.remove(&place);
        self.settle_class(no, now_us);
    }

    /// Changes the key of a ready job of the class.
    pub(super) fn replace(&mut self, no: ClassNo, before: Rank, after: Rank, now_us: u64) {
        self.classes[no].ready.remove(&before);
        self.classes[no].ready.insert(after);
        self.settle_class(no, now_us);
    }

    /// Takes the next job of a task group, and its limits for it. Looks at a bounded number of
    /// classes.
    pub(super) fn take(&mut self, group: u32, looks: &mut usize, now_us: u64) -> Option<Rank> {
        loop {
            // A class that leaves its room to the next must not hide a better one.
            self.wake_some(looks, now_us);
            let (_, line) = self.turns.get(&group)?.first().copied()?;
            if *looks == 0 {
                self.unsure.insert(group);
                return None;
            }
            *looks -= 1;
            let Some((place, no)) = self.lines[line].heads.first().copied() else {
                // The next line has its turn.
                self.leave_turn(line);
                continue;
            };
            if let Some(limit) = self.full(no, now_us) {
                self.leave_spot(no);
                self.park(no, place, limit);
                continue;
            }
            self.hold_limits(no, Some(now_us));
            self.leave_turn(line);
            self.join_turns(line);
            self.classes[no].ready.remove(&place);
            self.settle_class(no, now_us);
            return Some(place);
        }
    }

    /// Puts the line's turn after all others of its task group.
    fn join_turns(&mut self, no: LineNo) {
        let line = &mut self.lines[no];
        line.turn = Some(self.next_turn);
        self.turns.entry(line.key.0).or_default().insert((self.next_turn, no));
        self.next_turn += 1;
    }

    /// Ends the turn of a line without heads, unless one of its classes may be about to be woken.
    fn settle_turn(&mut self, no: LineNo) {
        let is_settled = self.waking.is_empty() && self.changed.is_empty();
        if is_settled && self.lines[no].heads.is_empty() {
            self.leave_turn(no);
        }
    }

    fn leave_turn(&mut self, no: LineNo) {
        let line = &mut self.lines[no];
        let (group, _) = line.key;
        if let Some(turn) = line.turn.take()
            && let Some(turns) = self.turns.get_mut(&group)
        {
            turns.remove(&(turn, no));
            if turns.is_empty() {
                self.turns.remove(&group);
            }
        }
    }

    /// Takes the limits of a class for a job of it. Without a time it takes no tokens: the attempt
    /// had begun before.
    pub(super) fn hold_limits(&mut self, no: ClassNo, now_us: Option<u64>) {
        if let (Spot::Woken(place, limit), Some(_)) = (self.classes[no].spot, now_us) {
            // The class takes the room that it was woken for.
            self.classes[no].spot = Spot::Heads(place);
            self.limits[limit].forget_woken(self.classes[no].line, place, no);
        }
        for at in 0..self.classes[no].limits.len() {
            let limit = self.classes[no].limits[at];
            if self.limits[limit].take(now_us) {
                self.drained.insert(limit);
            }
            self.note_changed(limit);
        }
    }

    /// Notes that a limit has changed: it may wake classes, and its timer may change.
    fn note_changed(&mut self, limit: LimitNo) {
        self.changed.insert(limit);
        self.retime.insert(limit);
    }

    /// Gives back the limits of a job of the class.
    pub(super) fn give_limits(&mut self, no: ClassNo) {
        for at in 0..self.classes[no].limits.len() {
            let limit = self.classes[no].limits[at];
            self.limits[limit].held -= 1;
            self.note_changed(limit);
        }
    }

    /// Takes in that tokens have come to a rate.
    pub(super) fn tokens_came(&mut self, limit: LimitNo, now_us: u64) {
        self.limits[limit].timer_ms = None;
        self.note_changed(limit);
        self.drop_limit(limit, now_us);
    }

    /// Wakes classes that wait for limits with room, in a bounded number of steps.
    pub(super) fn wake_some(&mut self, steps: &mut usize, now_us: u64) {
        while let Some(limit) = self.changed.pop_first() {
            if self.limits[limit].must_wake(now_us) {
                self.waking.insert(limit);
            }
        }
        while *steps > 0 {
            let after = self.waking.range(self.last_waking.saturating_add(1)..).next();
            let Some(limit) = after.or_else(|| self.waking.first()).copied() else { return };
            self.last_waking = limit;
            *steps -= 1;
            self.wake_one(limit, now_us);
        }
    }

    /// Wakes one class that waits for a limit, if it has room.
    fn wake_one(&mut self, limit: LimitNo, now_us: u64) {
        if !self.limits[limit].must_wake(now_us) {
            self.waking.remove(&limit);
            return;
        }
        let Some((line, place, no)) = self.limits[limit].next_hungry() else { return };
        self.limits[limit].unpark(line, place, no);
        self.note_changed(limit);
        match self.full(no, now_us) {
            // The class waits on, for another limit; this room is for the next.
            Some(other) => self.park(no, place, other),
            None => {
                self.limits[limit].note_woken(line, place, no);
                self.lead(no, place, Spot::Woken(place, limit));
            }
        }
    }

    /// True if something is left to be done at once.
    pub(super) fn has_more(&self) -> bool {
        !self.waking.is_empty() || !self.unsure.is_empty()
    }

    /// Notes that not all of a group was looked at.
    pub(super) fn note_unsure(&mut self, group: u32) {
        self.unsure.insert(group);
    }

    /// Looks again at groups whose heads were not all looked at.
    pub(super) fn look_again(&mut self) {
        self.touched.append(&mut self.unsure);
    }

    /// The first of a class's limits that has no room.
    pub(super) fn full(&self, no: ClassNo, now_us: u64) -> Option<LimitNo> {
        self.classes[no].limits.iter().copied().find(|limit| self.limits[*limit].room(now_us) == 0)
    }

    /// Puts a class at its spot after its ready jobs changed.
    fn settle_class(&mut self, no: ClassNo, now_us: u64) {
        let class = &self.classes[no];
        let first = class.ready.first().copied();
        let stands = match class.spot {
            Spot::Nowhere => None,
            Spot::Heads(place) | Spot::Woken(place, _) | Spot::Parked(place, _) => Some(place),
        };
        if first == stands {
            return;
        }
        self.leave_spot(no);
        if let Some(place) = first {
            match self.full(no, now_us) {
                Some(limit) => self.park(no, place, limit),
                None => self.lead(no, place, Spot::Heads(place)),
            }
        }
        self.settle_turn(self.classes[no].line);
    }

    /// Takes a class from its spot. Room that it was woken for and has not taken goes to the next.
    fn leave_spot(&mut self, no: ClassNo) {
        let class = &mut self.classes[no];
        let line = class.line;
        match std::mem::replace(&mut class.spot, Spot::Nowhere) {
            Spot::Nowhere => {}
            Spot::Heads(place) => {
                self.lines[line].heads.remove(&(place, no));
            }
            Spot::Woken(place, limit) => {
                self.lines[line].heads.remove(&(place, no));
                self.limits[limit].forget_woken(line, place, no);
                self.note_changed(limit);
            }
            Spot::Parked(place, limit) => {
                self.limits[limit].unpark(line, place, no);
                self.note_changed(limit);
            }
        }
    }

    fn park(&mut self, no: ClassNo, place: Rank, limit: LimitNo) {
        let class = &mut self.classes[no];
        class.spot = Spot::Parked(place, limit);
        self.limits[limit].park(class.line, place, no);
        self.note_changed(limit);
    }

    /// Puts a class among the heads of its line.
    fn lead(&mut self, no: ClassNo, place: Rank, spot: Spot) {
        let class = &mut self.classes[no];
        class.spot = spot;
        let at = class.line;
        self.lines[at].heads.insert((place, no));
        if self.lines[at].turn.is_none() {
            self.join_turns(at);
        }
        let (group, _) = self.lines[at].key;
        self.touched.insert(group);
    }

    /// Task groups that may have new work since the last call of this method.
    pub(super) fn take_touched(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Sets the timers of limits to the next tokens that classes wait for.
    pub(super) fn set_timers(&mut self, timers: &mut Timers, now_us: u64) {
        for (at_ms, no) in std::mem::take(&mut self.stale_timers) {
            timers.remove(at_ms, Timer::Token(no));
        }
        for no in std::mem::take(&mut self.retime) {
            let limit = &mut self.limits[no];
            // A timer at or before now would come due for ever.
            let wanted_ms = limit.wanted_ms(now_us).map(|at_ms| at_ms.max(now_us / 1000 + 1));
            if limit.timer_ms == wanted_ms {
                continue;
            }
            if let Some(at_ms) = limit.timer_ms {
                timers.remove(at_ms, Timer::Token(no));
            }
            if let Some(at_ms) = wanted_ms {
                timers.add(at_ms, Timer::Token(no));
            }
            limit.timer_ms = wanted_ms;
        }
    }
}
