//! Short passes: an owner decides about the segments that its head or a just deleted snapshot has
//! let go of. It reads only neighbours. Meanwhile there are rollbacks, a clone, a clone of the
//! clone, and the end of the first clone.
//!
//! The volume has one block. Every write puts it into a new segment. A checkpoint's root lists the
//! block's present segment, and a node of its own. [`super::stream`] explores the take-over of
//! streams, [`super::space`] explores sweeps.

use crate::explore::{Model, assert_breaks, assert_holds};
use crate::keys::{Key, VOLUME, stream_id};
use skerry_core::hold::{Candidate, Held, HeldRange, Span, neighbours};
use skerry_core::position::{Number, Position};
use std::collections::BTreeSet;

/// Rules that a test can switch off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    ForksAreNoted,
    NearestBefore,
    NearestAfter,
    Overlaps,
    SpansOfSnapshots,
    OwnRootIsRead,
    HolderBeforeLook,
    ClonesOfClonesHold,
    TombstonesBeforeHolders,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Root {
    at: u8,
    data: u8,
    node: Key,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Snap {
    root: Root,
    to: u8,
    nodes: u8,
    /// The segment that holds the block.
    now: u8,
    alive: bool,
}

impl Snap {
    fn span(&self) -> Span {
        Span { from: place(self.root.at), to: place(self.to), nodes: (1, u64::from(self.nodes)) }
    }

    fn needs(&self) -> BTreeSet<Key> {
        needs(&self.root, self.to)
    }
}

/// Progress of a clone, or of a clone's clone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Making {
    #[default]
    Idle,
    /// The snapshot's ref was read.
    Read,
    /// The first of two steps is done: the holder, or with that rule off, the look for the
    /// tombstone.
    Half,
    Ready,
    Over,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Pass {
    candidates: BTreeSet<Key>,
    head: Root,
    /// Spans of all snapshots, after a head moved.
    spans: Vec<(u8, u8)>,
    /// Neighbours of a deleted snapshot. After a head moved, the last snapshot with a root of its
    /// own.
    read: Vec<Snap>,
    holders: Option<Vec<(u8, u8)>>,
    standing: bool,
    deleted: Option<u8>,
}

#[derive(Clone, Hash)]
struct State {
    segments: BTreeSet<Key>,
    place: u8,
    now: u8,
    head: Root,
    next_node: u8,
    snaps: Vec<Snap>,
    /// The last snapshot with a root of its own.
    own: Option<u8>,
    forks: Vec<(u8, u8)>,
    candidates: BTreeSet<Key>,
    writes_left: u8,
    checkpoints_left: u8,
    rollbacks_left: u8,
    /// The snapshot that the clone was made from, and the clone's progress.
    source: u8,
    clone: Making,
    clone_holder: bool,
    /// The clone of the clone's snapshot.
    second: Making,
    second_holder: bool,
    clone_gone: bool,
    /// Listings of the first clone's release: tombstones, holders.
    release: [Option<bool>; 2],
    pass: Option<Pass>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Write(bool),
    Checkpoint,
    /// A checkpoint at the last snapshot's barrier: the snapshot's ref names its root.
    OwnRoot,
    Rollback(u8),
    Delete(u8),
    PassOfHead,
    Step,
    Clone(u8),
    Second,
    EndClone,
    Release,
}

struct Line {
    off: Option<Rule>,
    writes: u8,
    snaps: u8,
    checkpoints: u8,
    rollbacks: u8,
    clones: bool,
    clones_of_clones: bool,
    own_roots: bool,
}

fn place(at: u8) -> (u64, Number) {
    (1, Number(u64::from(at)))
}

fn needs(root: &Root, to: u8) -> BTreeSet<Key> {
    let above = (root.at + 1..=to).map(|n| Key::data(1, n));
    let listed = (root.data > 0).then(|| Key::data(1, root.data));
    above.chain(listed).chain([root.node]).collect()
}

impl Line {
    fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// Makes a checkpoint at the block's present place. `before` is the root that it was made from.
    fn check_in(state: &mut State, before: Root) {
        let node = Key::node(1, state.next_node);
        state.next_node += 1;
        state.segments.insert(node);
        state.candidates.insert(before.node);
        if before.data > 0 {
            state.candidates.insert(Key::data(1, before.data));
        }
        state.candidates.extend((state.head.at + 1..=state.place).map(|n| Key::data(1, n)));
        state.head = Root { at: state.place, data: state.now, node };
    }

    fn neighbours(&self, state: &State, gone: &Snap) -> Vec<Snap> {
        let others: Vec<(usize, Span)> = state
            .snaps
            .iter()
            .enumerate()
            .filter(|(_, snap)| snap.alive)
            .map(|(i, snap)| (i, snap.span()))
            .collect();
        let gone = gone.span();
        let near = neighbours(&gone, &others).into_iter().map(|i| state.snaps[i]);
        near.filter(|snap| {
            let span = snap.span();
            match (span.to <= gone.from, span.from >= gone.to) {
                (true, _) => self.on(Rule::NearestBefore),
                (_, true) => self.on(Rule::NearestAfter),
                _ => self.on(Rule::Overlaps),
            }
        })
        .collect()
    }

    fn holders(state: &State) -> Vec<(u8, u8)> {
        let mut all = state.forks.clone();
        if state.clone_holder {
            let snap = &state.snaps[state.source as usize];
            all.push((snap.to, snap.nodes));
        }
        all
    }

    /// Notes the volume's state as its owner knows it.
    fn stand(&self, state: &State, pass: &mut Pass) {
        pass.head = state.head;
        match pass.deleted {
            Some(i) => pass.read = self.neighbours(state, &state.snaps[i as usize]),
            None if self.on(Rule::SpansOfSnapshots) => {
                let all = (0..).zip(&state.snaps).filter(|(_, snap)| snap.alive);
                let (own, others): (Vec<_>, Vec<_>) = all.partition(|(i, _)| state.own == Some(*i));
                pass.spans = others.iter().map(|(_, snap)| (snap.to, snap.nodes)).collect();
                if self.on(Rule::OwnRootIsRead) {
                    pass.read = own.into_iter().map(|(_, snap)| *snap).collect();
                }
            }
            None => {}
        }
        pass.standing = true;
    }

    fn free(pass: &Pass) -> Vec<Key> {
        let mut held = Held::default();
        let at = Position {
            number: Number(u64::from(pass.head.at)),
            ..Position::start(1, stream_id(1), 0)
        };
        held.ranges.push(HeldRange::head(VOLUME, &at));
        held.listed.extend(needs(&pass.head, pass.head.at).into_iter().map(Key::real));
        for snap in &pass.read {
            held.listed.extend(snap.needs().into_iter().map(Key::real));
        }
        let holders = pass.holders.iter().flatten();
        held.unread =
            pass.spans.iter().chain(holders).map(|&(to, nodes)| unread(to, nodes)).collect();
        let stream = Some((VOLUME, 1));
        let candidates: Vec<Candidate> =
            pass.candidates.iter().map(|key| Candidate { key: key.real(), stream }).collect();
        held.free(&candidates).into_iter().map(Key::of).collect()
    }

    fn begin(&self, state: &mut State, candidates: BTreeSet<Key>, deleted: Option<u8>) {
        let (head, standing) = (state.head, false);
        let (spans, read, holders) = (Vec::new(), Vec::new(), None);
        state.pass = Some(Pass { candidates, head, spans, read, holders, standing, deleted });
    }

    fn step(&self, state: &mut State) {
        let Some(mut pass) = state.pass.take() else { return };
        match (pass.standing, &pass.holders) {
            (false, _) => self.stand(state, &mut pass),
            (true, None) => pass.holders = Some(Self::holders(state)),
            (true, Some(_)) => {
                for key in Self::free(&pass) {
                    state.segments.remove(&key);
                }
                return;
            }
        }
        state.pass = Some(pass);
    }

    fn make_clone(&self, state: &mut State, of: u8) {
        let alive = state.snaps[state.source as usize].alive;
        let holds_now = (state.clone == Making::Read) == self.on(Rule::HolderBeforeLook);
        state.clone = match state.clone {
            Making::Idle => {
                state.source = of;
                Making::Read
            }
            Making::Read if !holds_now && !alive => Making::Over,
            Making::Half if !holds_now && !alive => {
                state.clone_holder = false;
                Making::Over
            }
            Making::Read => Making::Half,
            _ => Making::Ready,
        };
        if holds_now && matches!(state.clone, Making::Half | Making::Ready) {
            state.clone_holder = true;
        }
    }

    fn make_second(state: &mut State) {
        state.second = match state.second {
            Making::Idle => Making::Read,
            Making::Read => {
                state.second_holder = true;
                Making::Half
            }
            // The clone's snapshot went with the clone.
            Making::Half if state.clone_gone => {
                state.second_holder = false;
                Making::Over
            }
            _ => Making::Ready,
        };
    }

    /// The deleter of a clone deletes the clone's holder once nothing of the clone is left.
    fn release(&self, state: &mut State) {
        let first = usize::from(!self.on(Rule::TombstonesBeforeHolders));
        let next = if state.release[first].is_none() { first } else { 1 - first };
        if state.release[next].is_none() {
            state.release[next] = Some(match next {
                0 => state.clone_gone,
                _ => state.second_holder && self.on(Rule::ClonesOfClonesHold),
            });
            return;
        }
        if state.release == [Some(true), Some(false)] {
            state.clone_holder = false;
        }
        state.release = [None; 2];
    }
}

fn unread(to: u8, nodes: u8) -> Span {
    Span { from: place(0), to: place(to), nodes: (1, u64::from(nodes)) }
}

impl Model for Line {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        let head = Root { at: 0, data: 0, node: Key::node(1, 1) };
        State {
            segments: BTreeSet::from([head.node]),
            place: 0,
            now: 0,
            head,
            next_node: 2,
            snaps: Vec::new(),
            own: None,
            forks: Vec::new(),
            candidates: BTreeSet::new(),
            writes_left: self.writes,
            checkpoints_left: self.checkpoints,
            rollbacks_left: self.rollbacks,
            source: 0,
            clone: Making::Idle,
            clone_holder: false,
            second: Making::Idle,
            second_holder: false,
            clone_gone: false,
            release: [None; 2],
            pass: None,
        }
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        let mut offer = |when: bool, action: Action| {
            if when {
                out.push(action);
            }
        };
        offer(state.writes_left > 0, Action::Write(false));
        offer(
            state.writes_left > 0 && state.snaps.len() < self.snaps as usize,
            Action::Write(true),
        );
        offer(state.checkpoints_left > 0 && state.place > state.head.at, Action::Checkpoint);
        let last = state.snaps.last().filter(|snap| snap.alive && snap.to == state.place);
        let has_barrier = last.is_some() && state.place > state.head.at;
        offer(self.own_roots && state.checkpoints_left > 0 && has_barrier, Action::OwnRoot);
        let idle = state.pass.is_none();
        offer(idle && !state.candidates.is_empty(), Action::PassOfHead);
        offer(!idle, Action::Step);
        for (i, snap) in (0..).zip(&state.snaps) {
            offer(snap.alive && idle, Action::Delete(i));
            offer(snap.alive && state.rollbacks_left > 0, Action::Rollback(i));
            offer(self.clones && snap.alive && state.clone == Making::Idle, Action::Clone(i));
        }
        let making = matches!(state.clone, Making::Read | Making::Half);
        offer(making, Action::Clone(state.source));
        let has_clone = state.clone == Making::Ready && self.clones_of_clones;
        let begun = matches!(state.second, Making::Read | Making::Half);
        offer(
            has_clone && (begun || state.second == Making::Idle && !state.clone_gone),
            Action::Second,
        );
        offer(has_clone && !state.clone_gone, Action::EndClone);
        offer(has_clone && state.clone_holder, Action::Release);
    }

    fn apply(&self, before: &State, action: Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Write(barrier) => {
                state.writes_left -= 1;
                state.place += 1;
                state.now = state.place;
                state.segments.insert(Key::data(1, state.place));
                if barrier {
                    let (root, to, nodes, now) =
                        (state.head, state.place, state.next_node, state.now);
                    state.snaps.push(Snap { root, to, nodes, now, alive: true });
                }
            }
            Action::Checkpoint => {
                state.checkpoints_left -= 1;
                let before = state.head;
                Self::check_in(&mut state, before);
            }
            Action::OwnRoot => {
                state.checkpoints_left -= 1;
                let before = state.head;
                Self::check_in(&mut state, before);
                let (root, nodes) = (state.head, state.next_node);
                let last = state.snaps.len() - 1;
                state.snaps[last] = Snap { root, nodes, ..state.snaps[last] };
                state.own = Some(last as u8);
            }
            Action::Rollback(i) => {
                state.rollbacks_left -= 1;
                let snap = state.snaps[i as usize];
                state.place += 1;
                if self.on(Rule::ForksAreNoted) {
                    state.forks.push((state.place, state.next_node));
                }
                state.segments.insert(Key::data(1, state.place));
                state.now = snap.now;
                Self::check_in(&mut state, snap.root);
            }
            Action::Delete(i) => {
                state.snaps[i as usize].alive = false;
                let candidates = state.snaps[i as usize].needs();
                self.begin(&mut state, candidates, Some(i));
            }
            Action::PassOfHead => {
                let candidates = std::mem::take(&mut state.candidates);
                self.begin(&mut state, candidates, None);
            }
            Action::Step => self.step(&mut state),
            Action::Clone(of) => self.make_clone(&mut state, of),
            Action::Second => Self::make_second(&mut state),
            Action::EndClone => state.clone_gone = true,
            Action::Release => self.release(&mut state),
        }
        state
    }

    fn describe(&self, state: &State, action: Action) -> String {
        let next = state.place + 1;
        match action {
            Action::Write(false) => format!("the owner publishes segment {next}"),
            Action::Write(true) => {
                format!("the owner publishes segment {next} with a snapshot's barrier")
            }
            Action::Checkpoint => format!("the owner checks in at {}", state.place),
            Action::OwnRoot => {
                format!("the owner checks in at {}, for the snapshot there", state.place)
            }
            Action::Rollback(i) => format!("the owner rolls back to snapshot {i}, and checks in"),
            Action::Delete(i) => format!("the owner deletes snapshot {i}; a pass of it begins"),
            Action::PassOfHead => "a pass of what the head has let go of begins".to_owned(),
            Action::Step => match &state.pass {
                Some(pass) if pass.standing && pass.holders.is_some() => {
                    let free: Vec<String> = Self::free(pass).iter().map(Key::to_string).collect();
                    format!("the pass deletes {}", free.join(", "))
                }
                Some(pass) if pass.standing => "the pass lists holders".to_owned(),
                _ => "the pass looks where the volume stands".to_owned(),
            },
            Action::Clone(of) => {
                format!("the cloner of snapshot {of} goes on: {}", told(state.clone))
            }
            Action::Second => format!("the cloner of the clone goes on: {}", told(state.second)),
            Action::EndClone => "the clone and its snapshot are deleted".to_owned(),
            Action::Release => "who deleted the clone goes on to take its holder away".to_owned(),
        }
    }

    fn check(&self, state: &State) -> Option<String> {
        let needed = |who: &str, needs: BTreeSet<Key>| {
            let lost = needs.difference(&state.segments).next().copied();
            lost.map(|key| format!("{who} needs {key}, which was deleted"))
        };
        needed("the head", needs(&state.head, state.place))
            .or_else(|| {
                let mut alive = state.snaps.iter().filter(|snap| snap.alive);
                alive.find_map(|snap| needed("a snapshot", snap.needs()))
            })
            .or_else(|| {
                let is_there = state.clone == Making::Ready && !state.clone_gone;
                let source = state.snaps.get(state.source as usize).filter(|_| is_there)?;
                needed("the clone", source.needs())
            })
            .or_else(|| {
                let source = state.snaps.get(state.source as usize)?;
                let source = Some(source).filter(|_| state.second == Making::Ready)?;
                needed("the clone's clone", source.needs())
            })
    }
}

fn told(making: Making) -> &'static str {
    match making {
        Making::Idle => "reads the ref",
        Making::Read | Making::Half => "makes the holder, or looks for the tombstone",
        Making::Ready | Making::Over => "is done",
    }
}

/// Three snapshots, their deletion, and heads that move.
fn snapshots(off: Option<Rule>) -> Line {
    Line {
        off,
        writes: 5,
        snaps: 3,
        checkpoints: 3,
        rollbacks: 0,
        clones: false,
        clones_of_clones: false,
        own_roots: false,
    }
}

/// Rollbacks between snapshots.
fn rollbacks(off: Option<Rule>) -> Line {
    Line {
        off,
        writes: 4,
        snaps: 3,
        checkpoints: 2,
        rollbacks: 2,
        clones: false,
        clones_of_clones: false,
        own_roots: false,
    }
}

/// Snapshots of which some get roots of their own, and a rollback.
fn own_roots(off: Option<Rule>) -> Line {
    Line { own_roots: true, rollbacks: 1, ..rollbacks(off) }
}

/// A clone, made while its snapshot is deleted.
fn clones(off: Option<Rule>) -> Line {
    Line {
        off,
        writes: 4,
        snaps: 2,
        checkpoints: 2,
        rollbacks: 0,
        clones: true,
        clones_of_clones: false,
        own_roots: false,
    }
}

/// A clone of the clone, made while the clone is deleted.
fn families(off: Option<Rule>) -> Line {
    Line {
        off,
        writes: 3,
        snaps: 1,
        checkpoints: 2,
        rollbacks: 0,
        clones: true,
        clones_of_clones: true,
        own_roots: false,
    }
}

#[test]
fn neighbours_decide() {
    assert_holds(&snapshots(None));
}

#[test]
fn rollbacks_hold() {
    assert_holds(&rollbacks(None));
}

#[test]
fn own_roots_hold() {
    assert_holds(&own_roots(None));
}

#[test]
fn needs_own_roots_to_be_read() {
    assert_breaks(&own_roots(Some(Rule::OwnRootIsRead)), "a snapshot needs");
}

#[test]
fn holders_hold() {
    assert_holds(&clones(None));
}

#[test]
fn families_hold() {
    assert_holds(&families(None));
}

#[test]
fn needs_forks() {
    assert_breaks(&rollbacks(Some(Rule::ForksAreNoted)), "needs");
}

#[test]
fn needs_the_nearest_before() {
    assert_breaks(&snapshots(Some(Rule::NearestBefore)), "a snapshot needs");
}

#[test]
fn needs_the_nearest_after() {
    assert_breaks(&snapshots(Some(Rule::NearestAfter)), "a snapshot needs");
}

#[test]
fn needs_those_that_overlap() {
    assert_breaks(&snapshots(Some(Rule::Overlaps)), "a snapshot needs");
}

#[test]
fn needs_what_snapshots_reach_to_stay() {
    assert_breaks(&snapshots(Some(Rule::SpansOfSnapshots)), "a snapshot needs");
}

#[test]
fn needs_holders_before_the_look() {
    assert_breaks(&clones(Some(Rule::HolderBeforeLook)), "the clone needs");
}

#[test]
fn needs_clones_of_clones_to_hold() {
    assert_breaks(&families(Some(Rule::ClonesOfClonesHold)), "the clone's clone needs");
}

#[test]
fn needs_tombstones_before_holders() {
    assert_breaks(&families(Some(Rule::TombstonesBeforeHolders)), "the clone's clone needs");
}
