//! Snapshots, clones, pins and their deletion, while an owner makes checkpoints and its collector
//! deletes.
//!
//! A parent volume has one snapshot: the barrier in its second segment. Its ref names the root
//! below, or the root of a checkpoint that was cut at the barrier and that no head names yet. The
//! volume's owner may crash once. The next owner goes on in a stream of its own, while refs of the
//! first are still under way. ([`super::stream`] explores the take-over itself, so here it is one
//! step.) A clone is made of the snapshot and written once; a pin is taken on the head; the
//! snapshot is deleted. Each of these processes may die at any step: then it takes no further one.
//! Each listing is atomic by itself, but no two together.

use crate::explore::{Model, assert_breaks, assert_holds};
use crate::keys::{Key, VOLUME, stream_id};
use skerry_core::hold::{Candidate, Held, HeldRange, may_collect};
use skerry_core::id::VolumeId;
use skerry_core::position::{Number, Position};
use skerry_core::takeover::RefOrder;
use std::collections::BTreeSet;

/// Rules that a test can switch off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    CandidatesFirst,
    TombstonesBeforeDescriptors,
    HeadsBeforePins,
    HeadsBeforeSnapshots,
    PendingHolds,
    FirstStateWins,
    CloneLooksForTombstone,
    PinLooksForNewerHead,
    TombstoneDecides,
    AbandonedAreWithdrawn,
    HeadRangeHeld,
    SnapshotRangeHeld,
    OpenNodesHeld,
    UnplacedStays,
    BarrierBeforeCheckpoint,
    OneRefAtATime,
}

/// The clone.
const CLONE: VolumeId = VolumeId([0xC; 16]);
/// The clone's stream. The parent's are 1 and, after a crash, 2.
const CLONE_STREAM: u8 = 9;
/// The parent's write that carries the barrier.
const BARRIER: u8 = 2;

/// A root: the node of its map, and the number of writes below it. It lists the segment of the
/// last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Root {
    epoch: u8,
    at: u8,
    node: Key,
    next_node: u8,
}

/// A root, and the last write to apply on top.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Base {
    root: Root,
    end: u8,
}

/// Progress of a process that writes one object and then checks whether it may use it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Making {
    Idle,
    Sent(Base),
    There(Base),
    /// A clone's state is under way.
    State(Base, bool),
    Done,
}

/// Results of the listings after the candidates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Seen {
    newest: Option<Root>,
    gone: bool,
    snapshot: Option<Base>,
    clone: Option<(Base, Option<bool>)>,
    pin: Option<Base>,
}

#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Pass {
    step: usize,
    clone_known: bool,
    candidates: BTreeSet<Key>,
    seen: Seen,
    free: BTreeSet<Key>,
    withdrawing: bool,
}

#[derive(Clone, Hash)]
struct State {
    segments: BTreeSet<Key>,
    heads: BTreeSet<Root>,
    snapshot: Option<Base>,
    gone: bool,
    descriptor: Option<Base>,
    state: Option<bool>,
    pin: Option<Base>,
    clone_incarnation: bool,
    clone_wrote: bool,
    /// Requests under way that outlive their sender.
    head_sent: BTreeSet<Root>,
    snapshot_sent: BTreeSet<Base>,
    // The owner.
    epoch: u8,
    /// The number of writes when the second owner began, if it did.
    cut: Option<u8>,
    written: u8,
    base: Root,
    next_node: u8,
    checkpoint: Option<Root>,
    /// The owner has sent a head ref, or a snapshot ref, and has no answer yet.
    waits_head: bool,
    waits_snapshot: bool,
    /// The owner knows that the snapshot's ref is in the bucket.
    settled: bool,
    checkpoints_left: u8,
    cloner: Making,
    pinner: Making,
    pass: Option<Pass>,
    passes_left: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Write,
    Node,
    SendHead,
    LandHead(u8),
    SendSnapshot,
    SendOwnRoot,
    LandSnapshot(u8),
    Crash,
    Delete,
    Clone,
    CloneIncarnation,
    CloneWrite,
    Pin,
    Unpin,
    Pass,
    Withdraw,
    DeleteNext,
}

/// The model: the rule that is off, and the participants.
struct Space {
    off: Option<Rule>,
    writes: u8,
    checkpoints: u8,
    passes: u8,
    clones: bool,
    pins: bool,
    crashes: bool,
    /// The snapshot may get a root of its own.
    own_roots: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Listing {
    Incarnations,
    Candidates,
    First,
    Second,
}

impl Space {
    fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// The order of the collector's listings.
    fn order(&self) -> [Listing; 4] {
        use Listing::{Candidates, First, Incarnations, Second};
        match self.off {
            Some(Rule::CandidatesFirst) => [First, Second, Incarnations, Candidates],
            _ => [Incarnations, Candidates, First, Second],
        }
    }

    fn own_newest(state: &State) -> Option<Root> {
        newest(&state.heads).filter(|root| root.epoch == state.epoch)
    }

    /// True if the barrier is in the stream, and this owner knows its ref neither there nor gone.
    fn unsettled(state: &State) -> bool {
        state.written >= BARRIER && !state.settled && !state.gone && state.base.at < BARRIER
    }

    fn may_send_head(&self, state: &State) -> bool {
        let Some(root) = state.checkpoint else { return false };
        let passes = root.at >= BARRIER && Self::unsettled(state);
        !(state.waits_head
            || passes && self.on(Rule::BarrierBeforeCheckpoint)
            || state.waits_snapshot && self.on(Rule::OneRefAtATime))
    }

    fn may_send_snapshot(&self, state: &State) -> bool {
        let waits = state.waits_head && self.on(Rule::OneRefAtATime);
        Self::unsettled(state) && !state.waits_snapshot && !waits
    }

    /// True if the checkpoint under way was cut at the barrier.
    fn may_send_own_root(&self, state: &State) -> bool {
        let is_cut_there = state.checkpoint.is_some_and(|root| root.at == BARRIER);
        self.own_roots && is_cut_there && self.may_send_snapshot(state)
    }

    /// Takes the next step of the process that makes a clone or a pin.
    fn make(&self, state: &mut State, pins: bool) {
        let making = if pins { state.pinner } else { state.cloner };
        let next = match (making, pins) {
            (Making::Idle, true) => {
                let root = newest(&state.heads).expect("there is a head");
                Making::Sent(Base { root, end: state.written })
            }
            (Making::Idle, false) => Making::Sent(state.snapshot.expect("offered with a snapshot")),
            (Making::Sent(base), true) => {
                state.pin = Some(base);
                Making::There(base)
            }
            (Making::Sent(base), false) => {
                state.descriptor = Some(base);
                Making::There(base)
            }
            (Making::There(base), true) => {
                let newer = newest(&state.heads) != Some(base.root);
                if newer && self.on(Rule::PinLooksForNewerHead) {
                    state.pin = None;
                }
                Making::Done
            }
            (Making::There(base), false) => {
                Making::State(base, !state.gone || !self.on(Rule::CloneLooksForTombstone))
            }
            (Making::State(_, ready), _) => {
                if state.state.is_none() || !self.on(Rule::FirstStateWins) {
                    state.state = Some(ready);
                }
                Making::Done
            }
            (Making::Done, _) => Making::Done,
        };
        if pins {
            state.pinner = next;
        } else {
            state.cloner = next;
        }
    }

    /// Lists first the objects that let segments go, and second the objects that may still hold
    /// them.
    fn see(&self, state: &State, seen: &mut Seen, first: bool) {
        let snapshots_first = !self.on(Rule::HeadsBeforeSnapshots);
        let pins_first = !self.on(Rule::HeadsBeforePins);
        let clones_first = !self.on(Rule::TombstonesBeforeDescriptors);
        if first != (snapshots_first || pins_first) {
            seen.newest = newest(&state.heads);
        }
        if first != clones_first {
            seen.gone = state.gone;
        }
        if first == snapshots_first {
            seen.snapshot = state.snapshot;
        }
        if first == clones_first {
            seen.clone = state.descriptor.map(|base| (base, state.state));
        }
        if first == pins_first {
            seen.pin = state.pin;
        }
    }

    /// One listing of the collector.
    fn list(&self, state: &mut State, pass: &mut Pass) {
        match self.order()[pass.step] {
            Listing::Incarnations => pass.clone_known = state.clone_incarnation,
            Listing::Candidates => pass.candidates = state.segments.clone(),
            Listing::First => self.see(state, &mut pass.seen, true),
            Listing::Second => self.see(state, &mut pass.seen, false),
        }
        pass.step += 1;
        if pass.step < self.order().len() {
            return;
        }
        let abandoned = matches!(pass.seen.clone, Some((_, None))) && pass.seen.gone;
        let withdraws = self.on(Rule::AbandonedAreWithdrawn) && self.on(Rule::PendingHolds);
        pass.withdrawing = abandoned && withdraws;
        if !pass.withdrawing {
            pass.free = self.free(state, pass);
        }
    }

    fn hold(&self, held: &mut Held, state: &State, base: &Base) {
        held.listed.insert(base.root.node.real());
        held.listed.extend(last_key(state, base.root.at).map(Key::real));
        if self.on(Rule::SnapshotRangeHeld) {
            let (at, end) = (place(state, base.root.at), place(state, base.end));
            held.ranges.push(HeldRange::upto(VOLUME, &at, &end));
        }
    }

    fn free(&self, state: &State, pass: &Pass) -> BTreeSet<Key> {
        let own = Self::own_newest(state).map(|root| order(state, &root));
        let listed: Vec<RefOrder> = pass.seen.newest.iter().map(|r| order(state, r)).collect();
        let Some(head) = pass.seen.newest.filter(|_| may_collect(own, &listed)) else {
            return BTreeSet::new();
        };
        let mut held = Held::default();
        held.listed.insert(head.node.real());
        held.listed.extend(last_key(state, head.at).map(Key::real));
        if self.on(Rule::HeadRangeHeld) {
            held.ranges.push(HeldRange::head(VOLUME, &root_place(state, &head)));
        }
        if self.on(Rule::OpenNodesHeld) {
            let next = Key::node(0, head.next_node).real().number;
            held.open_nodes.insert(stream_id(head.epoch), next);
        }
        let gone = pass.seen.gone && self.on(Rule::TombstoneDecides);
        for base in pass.seen.snapshot.iter().filter(|_| !gone).chain(&pass.seen.pin) {
            self.hold(&mut held, state, base);
        }
        if let Some((base, made)) = &pass.seen.clone
            && made.unwrap_or(self.on(Rule::PendingHolds))
        {
            self.hold(&mut held, state, base);
            let start = Position::start(0, stream_id(8), 0);
            held.ranges.push(HeldRange::head(CLONE, &start));
        }
        let candidates: Vec<Candidate> =
            pass.candidates.iter().map(|key| self.candidate(*key, pass)).collect();
        held.free(&candidates).into_iter().map(Key::of).collect()
    }

    fn candidate(&self, key: Key, pass: &Pass) -> Candidate {
        let stream = match key.stream {
            CLONE_STREAM if pass.clone_known => Some((CLONE, 1)),
            CLONE_STREAM if self.on(Rule::UnplacedStays) => None,
            CLONE_STREAM => Some((VolumeId::NONE, 0)),
            epoch => Some((VOLUME, u64::from(epoch))),
        };
        Candidate { key: key.real(), stream }
    }

    /// Runs a whole pass on a state without requests under way, and gives the segments that remain.
    fn left_after_pass(&self, state: &State) -> BTreeSet<Key> {
        let mut state = state.clone();
        let mut pass = Pass::default();
        while pass.step < self.order().len() {
            self.list(&mut state, &mut pass);
        }
        if pass.withdrawing {
            pass.seen.clone = pass.seen.clone.map(|(base, _)| (base, Some(false)));
            pass.free = self.free(&state, &pass);
        }
        state.segments.difference(&pass.free).copied().collect()
    }

    fn check_leaks(&self, state: &State) -> Option<String> {
        let idle = |making| matches!(making, Making::Idle | Making::There(_) | Making::Done);
        let quiet = state.pass.is_none()
            && state.head_sent.is_empty()
            && state.snapshot_sent.is_empty()
            && state.checkpoint.is_none()
            && idle(state.cloner)
            && idle(state.pinner);
        let head = Self::own_newest(state)?;
        if !quiet {
            return None;
        }
        let mut needed = needs(state, &Base { root: head, end: state.written });
        let held = [
            state.snapshot.filter(|_| !state.gone),
            state.descriptor.filter(|_| {
                state.state != Some(false) && (!state.gone || state.state == Some(true))
            }),
            state.pin,
        ];
        held.iter().flatten().for_each(|base| needed.extend(needs(state, base)));
        let left = self.left_after_pass(state);
        let leaked = left.iter().find(|key| key.stream != CLONE_STREAM && !needed.contains(key))?;
        Some(format!("nothing needs {leaked}, and the collector never deletes it"))
    }
}

fn newest(heads: &BTreeSet<Root>) -> Option<Root> {
    heads.iter().max_by_key(|root| (root.epoch, root.at)).copied()
}

/// The segment that carries the parent's `n`-th write; none before the first.
fn last_key(state: &State, n: u8) -> Option<Key> {
    let at = place(state, n);
    (n > 0).then(|| Key::data(at.stream.0[0], at.number.0 as u8))
}

/// The place of the parent's `n`-th write.
fn place(state: &State, n: u8) -> Position {
    let (epoch, number) = match state.cut {
        Some(cut) if n > cut => (2, n - cut),
        _ => (1, n),
    };
    let number = Number(u64::from(number));
    Position { number, ..Position::start(u64::from(epoch), stream_id(epoch), u64::from(n)) }
}

/// The position of a root. A second owner's root may stand at the very start of its stream.
fn root_place(state: &State, root: &Root) -> Position {
    let number = root.at - if root.epoch == 2 { state.cut.unwrap_or(0) } else { 0 };
    let start = Position::start(u64::from(root.epoch), stream_id(root.epoch), u64::from(root.at));
    Position { number: Number(u64::from(number)), ..start }
}

fn order(state: &State, root: &Root) -> RefOrder {
    RefOrder::of(&root_place(state, root))
}

/// Every segment that a reader of a base reads.
fn needs(state: &State, base: &Base) -> BTreeSet<Key> {
    let above = (base.root.at + 1..=base.end).filter_map(|n| last_key(state, n));
    above.chain(last_key(state, base.root.at)).chain([base.root.node]).collect()
}

impl Model for Space {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        let root = Root { epoch: 1, at: 0, node: Key::node(1, 1), next_node: 2 };
        State {
            segments: BTreeSet::from([root.node]),
            heads: BTreeSet::from([root]),
            snapshot: None,
            gone: false,
            descriptor: None,
            state: None,
            pin: None,
            clone_incarnation: false,
            clone_wrote: false,
            head_sent: BTreeSet::new(),
            snapshot_sent: BTreeSet::new(),
            epoch: 1,
            cut: None,
            written: 0,
            base: root,
            next_node: 2,
            checkpoint: None,
            waits_head: false,
            waits_snapshot: false,
            settled: false,
            checkpoints_left: self.checkpoints,
            cloner: Making::Idle,
            pinner: Making::Idle,
            pass: None,
            passes_left: self.passes,
        }
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        let mut offer = |when: bool, action: Action| {
            if when {
                out.push(action);
            }
        };
        offer(state.written < self.writes, Action::Write);
        let moved = state.written > state.base.at || state.epoch > state.base.epoch;
        let idle = state.checkpoint.is_none() && state.checkpoints_left > 0;
        offer(idle && moved, Action::Node);
        offer(self.may_send_head(state), Action::SendHead);
        (0..).zip(&state.head_sent).for_each(|(i, _)| offer(true, Action::LandHead(i)));
        offer(self.may_send_snapshot(state), Action::SendSnapshot);
        offer(self.may_send_own_root(state), Action::SendOwnRoot);
        (0..).zip(&state.snapshot_sent).for_each(|(i, _)| offer(true, Action::LandSnapshot(i)));
        offer(self.crashes && state.epoch == 1, Action::Crash);
        offer(state.written >= BARRIER && !state.gone, Action::Delete);
        let source = state.snapshot.is_some() && !state.gone;
        let making = state.cloner != Making::Done;
        offer(self.clones && making && (source || state.cloner != Making::Idle), Action::Clone);
        let ready = state.state == Some(true);
        offer(ready && !state.clone_incarnation, Action::CloneIncarnation);
        offer(ready && state.clone_incarnation && !state.clone_wrote, Action::CloneWrite);
        offer(self.pins && state.pinner != Making::Done, Action::Pin);
        offer(state.pinner == Making::Done && state.pin.is_some(), Action::Unpin);
        match &state.pass {
            None => {
                offer(state.passes_left > 0 && Self::own_newest(state).is_some(), Action::Pass);
            }
            Some(pass) if pass.withdrawing => offer(true, Action::Withdraw),
            Some(pass) if pass.step < self.order().len() => offer(true, Action::Pass),
            Some(_) => offer(true, Action::DeleteNext),
        }
    }

    fn apply(&self, before: &State, action: Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Write => {
                state.written += 1;
                state.segments.extend(last_key(&state, state.written));
            }
            Action::Node => {
                state.checkpoints_left -= 1;
                let node = Key::node(state.epoch, state.next_node);
                state.next_node += 1;
                state.segments.insert(node);
                let (epoch, at, next_node) = (state.epoch, state.written, state.next_node);
                state.checkpoint = Some(Root { epoch, at, node, next_node });
            }
            Action::SendHead => {
                state.head_sent.extend(state.checkpoint);
                state.waits_head = true;
            }
            Action::LandHead(i) => land_head(&mut state, i),
            Action::SendSnapshot => {
                state.snapshot_sent.insert(Base { root: state.base, end: BARRIER });
                state.waits_snapshot = true;
            }
            Action::SendOwnRoot => {
                let root = state.checkpoint.expect("offered with a checkpoint");
                state.snapshot_sent.insert(Base { root, end: BARRIER });
                state.waits_snapshot = true;
            }
            Action::LandSnapshot(i) => land_snapshot(&mut state, i),
            Action::Crash => crash(&mut state),
            Action::Delete => state.gone = true,
            Action::Clone => self.make(&mut state, false),
            Action::Pin => self.make(&mut state, true),
            Action::Unpin => state.pin = None,
            Action::CloneIncarnation => state.clone_incarnation = true,
            Action::CloneWrite => {
                state.clone_wrote = true;
                state.segments.insert(Key::data(CLONE_STREAM, 1));
            }
            Action::Pass => {
                let mut pass = state.pass.take().unwrap_or_default();
                self.list(&mut state, &mut pass);
                state.pass = Some(pass);
            }
            Action::Withdraw => {
                let mut pass = state.pass.take().expect("offered in a pass");
                pass.withdrawing = false;
                let first = *state.state.get_or_insert(false);
                pass.seen.clone = pass.seen.clone.map(|(base, _)| (base, Some(first)));
                pass.free = self.free(&state, &pass);
                state.pass = Some(pass);
            }
            Action::DeleteNext => {
                let pass = state.pass.as_mut().expect("offered in a pass");
                match pass.free.pop_first() {
                    Some(key) => drop(state.segments.remove(&key)),
                    None => {
                        state.pass = None;
                        state.passes_left -= 1;
                    }
                }
            }
        }
        state
    }

    fn describe(&self, state: &State, action: Action) -> String {
        match action {
            Action::Write if state.written + 1 == BARRIER => {
                "the owner publishes a segment that ends with the snapshot's barrier".to_owned()
            }
            Action::Write => format!("the owner publishes its write {}", state.written + 1),
            Action::Node => {
                format!(
                    "the owner begins a checkpoint after write {}: its node is there",
                    state.written
                )
            }
            Action::SendHead => "the owner sends the checkpoint's ref".to_owned(),
            Action::LandHead(_) => "a head ref lands".to_owned(),
            Action::SendSnapshot => {
                format!(
                    "the owner sends the snapshot's ref, with the root at write {}",
                    state.base.at
                )
            }
            Action::SendOwnRoot => {
                "the owner sends the snapshot's ref, with the root that was cut at the barrier"
                    .to_owned()
            }
            Action::LandSnapshot(_) => "a snapshot ref lands".to_owned(),
            Action::Crash => "the owner crashes; the next takes over".to_owned(),
            Action::Delete => "the snapshot's tombstone is written".to_owned(),
            Action::Clone => format!("the cloner {}", making(state.cloner, "the snapshot's ref")),
            Action::CloneIncarnation => "the clone's first writer makes itself known".to_owned(),
            Action::CloneWrite => "the clone's first writer publishes a segment".to_owned(),
            Action::Pin => format!("the pinner {}", making(state.pinner, "the newest head ref")),
            Action::Unpin => "the pinner is done, its pin goes".to_owned(),
            Action::Pass => match self.order()[state.pass.as_ref().map_or(0, |pass| pass.step)] {
                Listing::Incarnations => "the collector lists incarnations".to_owned(),
                Listing::Candidates => "the collector lists candidates".to_owned(),
                Listing::First => "the collector lists heads and tombstones".to_owned(),
                Listing::Second => "the collector lists snapshots, descriptors and pins".to_owned(),
            },
            Action::Withdraw => "the collector creates the clone's state: withdrawn".to_owned(),
            Action::DeleteNext => match state.pass.as_ref().and_then(|pass| pass.free.first()) {
                Some(key) => format!("the collector deletes {key}"),
                None => "the collector is done".to_owned(),
            },
        }
    }

    fn check(&self, state: &State) -> Option<String> {
        let head = newest(&state.heads).expect("there is a head");
        let published = state.written >= BARRIER && !state.gone;
        if published && state.snapshot.is_none() && head.at >= BARRIER {
            return Some(
                "the snapshot is lost: no ref, and its barrier is below the head".to_owned(),
            );
        }
        let clone = state.descriptor.filter(|_| state.state == Some(true));
        let pin = state.pin.filter(|_| state.pinner == Making::Done);
        let to_end = |root| Base { root, end: state.written };
        let current = (head.epoch == state.epoch).then_some(state.base);
        for (who, base) in [
            ("the head", Some(to_end(head))),
            ("the owner", current.map(to_end)),
            ("the snapshot", state.snapshot.filter(|_| !state.gone)),
            ("a ready clone", clone),
            ("a pin", pin),
        ] {
            let Some(base) = base else { continue };
            if let Some(key) = needs(state, &base).difference(&state.segments).next() {
                return Some(format!("{who} needs {key}, which was deleted"));
            }
        }
        let own = Key::data(CLONE_STREAM, 1);
        if state.clone_wrote && !state.segments.contains(&own) {
            return Some(format!("the clone needs its own {own}, which was deleted"));
        }
        self.check_leaks(state)
    }
}

fn land_head(state: &mut State, i: u8) {
    let root = *state.head_sent.iter().nth(i as usize).expect("offered when under way");
    state.head_sent.remove(&root);
    state.heads.insert(root);
    if root.epoch == state.epoch {
        state.base = root;
        state.checkpoint = None;
        state.waits_head = false;
    }
}

fn land_snapshot(state: &mut State, i: u8) {
    let base = *state.snapshot_sent.iter().nth(i as usize).expect("offered when under way");
    state.snapshot_sent.remove(&base);
    state.snapshot.get_or_insert(base);
    let is_own = base.root == state.base || Some(base.root) == state.checkpoint;
    if state.waits_snapshot && is_own {
        state.waits_snapshot = false;
        state.settled = true;
    }
}

/// Lets the next owner start from the newest ref. Requests of its predecessor may still land.
fn crash(state: &mut State) {
    state.epoch = 2;
    state.cut = Some(state.written);
    state.base = newest(&state.heads).expect("there is a head");
    state.next_node = 1;
    state.checkpoint = None;
    state.waits_head = false;
    state.waits_snapshot = false;
    state.settled = state.snapshot.is_some();
    state.pass = None;
}

fn making(making: Making, what: &str) -> String {
    match making {
        Making::Idle => format!("reads {what} and sends a copy"),
        Making::Sent(_) => "sees its copy land".to_owned(),
        Making::There(_) => "looks whether it came too late".to_owned(),
        Making::State(_, true) => "creates its state: ready".to_owned(),
        Making::State(_, false) => "creates its state: withdrawn".to_owned(),
        Making::Done => String::new(),
    }
}

/// A snapshot, its clone and its deletion, one owner.
fn clones(off: Option<Rule>) -> Space {
    Space {
        off,
        writes: 3,
        checkpoints: 2,
        passes: 2,
        clones: true,
        pins: false,
        crashes: false,
        own_roots: false,
    }
}

/// A snapshot, its deletion, and an owner that crashes with refs under way.
fn crashes(off: Option<Rule>) -> Space {
    Space {
        off,
        writes: 3,
        checkpoints: 3,
        passes: 2,
        clones: false,
        pins: false,
        crashes: true,
        own_roots: false,
    }
}

/// A snapshot that may get a root of its own, and an owner that crashes.
fn own_roots(off: Option<Rule>) -> Space {
    Space { own_roots: true, ..crashes(off) }
}

/// Pins on a head that moves on.
fn pins(off: Option<Rule>) -> Space {
    Space {
        off,
        writes: 3,
        checkpoints: 2,
        passes: 2,
        clones: false,
        pins: true,
        crashes: false,
        own_roots: false,
    }
}

/// All participants at once.
fn everybody(off: Option<Rule>) -> Space {
    Space {
        off,
        writes: 2,
        checkpoints: 2,
        passes: 1,
        clones: true,
        pins: true,
        crashes: true,
        own_roots: false,
    }
}

const DELETED: &str = "which was deleted";
const LEAKED: &str = "never deletes it";

#[test]
fn clones_hold() {
    assert_holds(&clones(None));
}

#[test]
fn snapshots_hold_over_crashes() {
    assert_holds(&crashes(None));
}

#[test]
fn snapshots_with_roots_of_their_own_hold() {
    assert_holds(&own_roots(None));
}

#[test]
fn pins_hold() {
    assert_holds(&pins(None));
}

#[test]
fn everybody_at_once_holds() {
    assert_holds(&everybody(None));
}

#[test]
fn needs_candidates_first() {
    assert_breaks(&clones(Some(Rule::CandidatesFirst)), "the clone needs its own");
}

#[test]
fn needs_tombstones_before_descriptors() {
    assert_breaks(&clones(Some(Rule::TombstonesBeforeDescriptors)), "a ready clone needs");
}

#[test]
fn needs_heads_before_pins() {
    assert_breaks(&pins(Some(Rule::HeadsBeforePins)), "a pin needs");
}

#[test]
fn needs_heads_before_snapshots() {
    assert_breaks(&clones(Some(Rule::HeadsBeforeSnapshots)), "the snapshot needs");
}

#[test]
fn needs_pending_to_hold() {
    assert_breaks(&clones(Some(Rule::PendingHolds)), "a ready clone needs");
}

#[test]
fn needs_the_first_state_to_win() {
    assert_breaks(&clones(Some(Rule::FirstStateWins)), "a ready clone needs");
}

#[test]
fn needs_clones_to_look_for_the_tombstone() {
    assert_breaks(&clones(Some(Rule::CloneLooksForTombstone)), "a ready clone needs");
}

#[test]
fn needs_pins_to_look_for_a_newer_head() {
    assert_breaks(&pins(Some(Rule::PinLooksForNewerHead)), "a pin needs");
}

#[test]
fn needs_the_tombstone_to_decide() {
    assert_breaks(&clones(Some(Rule::TombstoneDecides)), LEAKED);
}

#[test]
fn needs_abandoned_clones_to_be_withdrawn() {
    assert_breaks(&clones(Some(Rule::AbandonedAreWithdrawn)), LEAKED);
}

#[test]
fn needs_head_ranges() {
    assert_breaks(&clones(Some(Rule::HeadRangeHeld)), "the head needs");
}

#[test]
fn needs_snapshot_ranges() {
    assert_breaks(&clones(Some(Rule::SnapshotRangeHeld)), "the snapshot needs");
}

#[test]
fn needs_open_nodes() {
    assert_breaks(&crashes(Some(Rule::OpenNodesHeld)), DELETED);
}

#[test]
fn needs_unplaced_to_stay() {
    assert_breaks(&clones(Some(Rule::UnplacedStays)), "the clone needs its own");
}

#[test]
fn needs_barriers_before_checkpoints() {
    assert_breaks(&clones(Some(Rule::BarrierBeforeCheckpoint)), "the snapshot is lost");
}

#[test]
fn needs_one_ref_at_a_time() {
    assert_breaks(&clones(Some(Rule::OneRefAtATime)), "the snapshot needs");
}

#[test]
fn needs_own_roots_before_heads() {
    assert_breaks(&own_roots(Some(Rule::BarrierBeforeCheckpoint)), "the snapshot is lost");
}
