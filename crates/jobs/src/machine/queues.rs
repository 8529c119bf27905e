//! Who is next: jobs that could run, by task group, tenant and limits.
//!
//! Jobs of one task group, one tenant and the same limits are a *class*, ordered by priority and age. Of each class
//! only the first job is ever looked at: it stands among the *heads* of its *line* (the tenant's queue within the
//! task group), or, if a limit has no room, the class is parked at that limit, where it is in nobody's way. Lines
//! of a task group take turns, a job each: deficit round-robin (Shreedhar and Varghese 1995) with jobs of equal cost.
//!
//! What must hold once nothing is left to wake: whatever could run now and is not parked is among the heads, and of what
//! is parked at a limit that has room, something better is among them. So: a limit that gets room wakes the best class
//! of each hungry line (`limits`); a class that was woken and takes the place, or leaves it, makes its line hungry
//! again; and a class with a new first job looks anew.
//!
//! Each step is of the order of the logarithm of the number of classes, and one change makes a bounded number of them:
//! hundreds of thousands of classes may wait for one limit, and each of them for another. What is left is done by the
//! next change, or by the next tick; until then some jobs that could run wait.

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

/// A waiting job's place in its class: the lower, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: u8,
    pub(super) seq: u64,
    pub(super) job: u32,
}

/// Where a class stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// No job of it is ready.
    Nowhere,
    /// Among the heads of its line.
    Heads(Place),
    /// The same; it came from this limit, which has room for it.
    Woken(Place, LimitNo),
    /// At a limit that had no room.
    Parked(Place, LimitNo),
}

/// Jobs between which only priority and age decide.
#[derive(Debug)]
struct Class {
    line: LineNo,
    limits: Box<[LimitNo]>,
    ready: BTreeSet<Place>,
    spot: Spot,
    /// Jobs of it, ready or not.
    users: u32,
}

/// A tenant's queue within a task group.
#[derive(Debug)]
struct Line {
    key: (u32, u32),
    heads: BTreeSet<(Place, ClassNo)>,
    /// When it is its turn; none while it has no heads.
    turn: Option<u64>,
    /// Classes of it.
    users: u32,
}

/// All queues of a shard.
#[derive(Debug, Default)]
pub(super) struct Queues {
    classes: Pool<Class>,
    class_by_key: HashMap<(LineNo, Box<[LimitNo]>), ClassNo>,
    lines: Pool<Line>,
    line_by_key: HashMap<(u32, u32), LineNo>,
    /// Of each task group, the lines with heads, by turn.
    turns: HashMap<u32, BTreeSet<(u64, LineNo)>>,
    next_turn: u64,
    pub(super) limits: Pool<LimitState>,
    limit_by_key: HashMap<(u32, LimitKey), LimitNo>,
    /// Groups in which something came among the heads.
    touched: BTreeSet<u32>,
    /// Groups of which nothing was given out, and not every head was looked at.
    unsure: BTreeSet<u32>,
    /// Limits that have changed since it was seen whether they have room for a hungry line.
    changed: BTreeSet<LimitNo>,
    /// Limits that have, or had.
    waking: BTreeSet<LimitNo>,
    /// The limit after this one wakes next.
    last_waking: LimitNo,
    /// Limits whose timer may have to change.
    retime: BTreeSet<LimitNo>,
    /// Timers of limits that are gone.
    stale_timers: Vec<(u64, LimitNo)>,
    /// Rates from which tokens were taken since this was asked.
    pub(super) drained: BTreeSet<LimitNo>,
    /// Rates of tenants of which nothing need be remembered any more.
    pub(super) full: Vec<(u32, LimitKey)>,
    /// Tenants of limits that are new, and of limits that are gone.
    pub(super) new_limits_of: Vec<u32>,
    pub(super) gone_limits_of: Vec<u32>,
}

impl Queues {
    /// The class of jobs of this task group, tenant and limits, used once more.
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

    /// Used once less.
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

    /// The tenant's limit of this name, if anybody knows it.
    pub(super) fn find_limit(&self, tenant: u32, key: &LimitKey) -> Option<LimitNo> {
        self.limit_by_key.get(&(tenant, key.clone())).copied()
    }

    /// The tenant's limit of this name; the newest definition holds.
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
                // What a worker said holds until it says something else.
                (LimitKind::Floating { .. }, LimitKind::Floating { .. }) => self.limits[no].rule,
                _ => Rule::of(kind),
            };
            self.limits[no].kind = kind.clone();
            self.set_rule(no, said);
        }
        no
    }

    /// A limit lets through more from now on, or less. What runs already is not touched.
    pub(super) fn set_rule(&mut self, no: LimitNo, rule: Rule) {
        self.limits[no].rule = rule;
        self.note_changed(no);
    }

    /// A limit that nobody is under is forgotten, once there is nothing to remember: a rate's bucket must be full.
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

    /// Nothing of a limit's bucket need be remembered any more.
    fn forget_bucket(&mut self, no: LimitNo) {
        let limit = &mut self.limits[no];
        self.full.extend(limit.drained_under.take().map(|_| limit.key.clone()));
        self.drained.remove(&no);
    }

    /// A limit's bucket is as it was when it was last heard of.
    pub(super) fn restore(&mut self, no: LimitNo, bucket: Bucket) {
        let limit = &mut self.limits[no];
        (limit.bucket, limit.drained_under) = (bucket, Some(limit.kind.clone()));
        self.note_changed(no);
    }

    /// A job of the class is ready.
    pub(super) fn add(&mut self, no: ClassNo, place: Place, now_us: u64) {
        self.classes[no].ready.insert(place);
        self.settle_class(no, now_us);
    }

    /// It is not, any more.
    pub(super) fn remove(&mut self, no: ClassNo, place: Place, now_us: u64) {
        self.classes[no].ready.remove(&place);
        self.settle_class(no, now_us);
    }

    /// A ready job of the class has another place.
    pub(super) fn replace(&mut self, no: ClassNo, before: Place, after: Place, now_us: u64) {
        self.classes[no].ready.remove(&before);
        self.classes[no].ready.insert(after);
        self.settle_class(no, now_us);
    }

    /// The next job of a task group, with the limits that it needs taken for it; so many classes are looked at.
    pub(super) fn take(&mut self, group: u32, looks: &mut usize, now_us: u64) -> Option<Place> {
        loop {
            // A class that leaves its place to the next must not keep a better one from being seen.
            self.wake_some(looks, now_us);
            let (_, line) = self.turns.get(&group)?.first().copied()?;
            if *looks == 0 {
                self.unsure.insert(group);
                return None;
            }
            *looks -= 1;
            let Some((place, no)) = self.lines[line].heads.first().copied() else {
                // It is the next line's turn.
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

    /// The line has its turn after all others of its task group.
    fn join_turns(&mut self, no: LineNo) {
        let line = &mut self.lines[no];
        line.turn = Some(self.next_turn);
        self.turns.entry(line.key.0).or_default().insert((self.next_turn, no));
        self.next_turn += 1;
    }

    /// A line without heads has no turn, unless something of it may just be about to be woken.
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

    /// Takes the limits of a class for a job of it.
    /// At no time (`None`) it takes no tokens: its attempt had begun before.
    pub(super) fn hold_limits(&mut self, no: ClassNo, now_us: Option<u64>) {
        if let (Spot::Woken(place, limit), Some(_)) = (self.classes[no].spot, now_us) {
            // It takes the place that it was woken for.
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

    /// Something about a limit has changed: what it wakes, and when.
    fn note_changed(&mut self, limit: LimitNo) {
        self.changed.insert(limit);
        self.retime.insert(limit);
    }

    /// Gives back what a job of the class held.
    pub(super) fn give_limits(&mut self, no: ClassNo) {
        for at in 0..self.classes[no].limits.len() {
            let limit = self.classes[no].limits[at];
            self.limits[limit].held -= 1;
            self.note_changed(limit);
        }
    }

    /// Tokens have come for those who wait for a rate.
    pub(super) fn tokens_came(&mut self, limit: LimitNo, now_us: u64) {
        self.limits[limit].timer_ms = None;
        self.note_changed(limit);
        self.drop_limit(limit, now_us);
    }

    /// Wakes classes that wait for limits that have room, in at most so many steps.
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
            // It waits on, for another; this place is for the next.
            Some(other) => self.park(no, place, other),
            None => {
                self.limits[limit].note_woken(line, place, no);
                self.lead(no, place, Spot::Woken(place, limit));
            }
        }
    }

    /// Something is left to do at once.
    pub(super) fn has_more(&self) -> bool {
        !self.waking.is_empty() || !self.unsure.is_empty()
    }

    /// Not all of a group was looked at.
    pub(super) fn note_unsure(&mut self, group: u32) {
        self.unsure.insert(group);
    }

    /// Groups whose heads were not all looked at are looked at again.
    pub(super) fn look_again(&mut self) {
        self.touched.append(&mut self.unsure);
    }

    /// The first of a class's limits that has no room.
    pub(super) fn full(&self, no: ClassNo, now_us: u64) -> Option<LimitNo> {
        self.classes[no].limits.iter().copied().find(|limit| self.limits[*limit].room(now_us) == 0)
    }

    /// Puts a class where it belongs after its ready jobs changed.
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

    /// Takes a class from where it stands. The place that it was woken for and has not taken is the next one's.
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

    fn park(&mut self, no: ClassNo, place: Place, limit: LimitNo) {
        let class = &mut self.classes[no];
        class.spot = Spot::Parked(place, limit);
        self.limits[limit].park(class.line, place, no);
        self.note_changed(limit);
    }

    /// A class stands among the heads of its line.
    fn lead(&mut self, no: ClassNo, place: Place, spot: Spot) {
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

    /// Task groups in which there may be work that there was not when this was asked before.
    pub(super) fn take_touched(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.touched)
    }

    /// Sets the timers of limits to when tokens come for which somebody waits.
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
