//! Take-over of a volume's stream, at flush level `bucket`, while an owner writes, makes
//! checkpoints and collects.
//!
//! The store creates only if absent. A PUT lands at any time, or never, also long after its sender
//! was fenced. It lands once more after the sender has seen it done, as a retry whose first copy
//! was slow. A process that dies takes no further step. Listings and single reads are atomic. Slot
//! 0 owns stream 1 at the start; the others take over, or only read.

use crate::explore::{Model, assert_breaks, assert_holds};
use crate::keys::{Key, VOLUME, stream_id};
use skerry_core::hold::{Candidate, Held, HeldRange, may_collect};
use skerry_core::position::{Number, Position};
use skerry_core::seal::Seal;
use skerry_core::takeover::{Found, RefOrder, Step, Takeover, look, next_key};
use std::collections::{BTreeMap, BTreeSet};

/// Rules that a test can switch off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    CreateOnly,
    ExistsOnlyIfOurs,
    StreamsAreNew,
    ContiguousAcknowledgement,
    SealBeforeWriting,
    RefsAfterTheSeal,
    RefsPastTheSeal,
    RefsPastFollowedSeals,
    RefsBelowTheSeal,
    NewSuccessorForEachAttempt,
    FollowSeals,
    RefsOrderedByPlace,
    SealsAreKept,
    CollectorLooksForSeals,
    CollectorHasOwnRef,
}

/// One write: the segment that carries it, and the process that made it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Wrote {
    key: Key,
    by: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Object {
    Data(u8),
    Node,
    Seal { successor: u8, epoch: u8, by: u8 },
}

/// A head ref. Its root lists a node and the segment of the last write: one block of a fuller leaf.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Head {
    epoch: u8,
    stream: u8,
    number: u8,
    node: Key,
    next_node: u8,
    history: Vec<Wrote>,
}

impl Head {
    fn position(&self) -> Position {
        let vseq = self.history.len() as u64;
        let number = Number(u64::from(self.number));
        Position { number, ..Position::start(u64::from(self.epoch), stream_id(self.stream), vseq) }
    }

    fn order(&self) -> RefOrder {
        RefOrder::of(&self.position())
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    Put(Key, Object),
    Ref(Head),
    Delete(Key),
    DeleteRef(Head),
}

/// A request under way. Without a sender, it is a copy whose answer no process awaits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    from: Option<u8>,
    what: What,
}

#[derive(Clone, Hash)]
struct Taking {
    base: Head,
    applied: Vec<Wrote>,
    takeover: Takeover,
    /// The seals that were followed.
    followed: Vec<Key>,
    successor: u8,
    next: Step,
    waits: bool,
    promised: Vec<Wrote>,
}

#[derive(Clone, Hash)]
enum Checkpoint {
    None,
    Node(Head),
    Ref(Head),
}

#[derive(Clone, Hash)]
enum Pass {
    Idle,
    Candidates(Vec<Key>),
    Free(Vec<Key>, Vec<Head>),
}

#[derive(Clone, Hash)]
struct Owner {
    epoch: u8,
    stream: u8,
    /// The last contiguous durable number, and the durable ones beyond.
    durable: u8,
    beyond: BTreeSet<u8>,
    unused: u8,
    base: Head,
    own_ref: bool,
    history: Vec<Wrote>,
    checkpoint: Checkpoint,
    next_node: u8,
    pass: Pass,
    writes_left: u8,
    checkpoints_left: u8,
    passes_left: u8,
}

#[derive(Clone, Hash)]
enum Process {
    Idle,
    Taking(Box<Taking>),
    Owner(Box<Owner>),
    Gone,
}

/// Limits of a process.
#[derive(Clone, Copy)]
struct Budget {
    reads_only: bool,
    writes: u8,
    checkpoints: u8,
    passes: u8,
}

#[derive(Clone, Hash)]
struct State {
    objects: BTreeMap<Key, Object>,
    /// In the order of their writing.
    refs: Vec<Head>,
    net: Vec<Message>,
    processes: Vec<Process>,
    /// Epoch of each stream that was ever named.
    epochs: Vec<u8>,
    acknowledged: Vec<Wrote>,
    handovers: Vec<Vec<Wrote>>,
    copies_left: u8,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Action {
    Land(u8),
    Copy(u8),
    Begin(u8),
    Go(u8),
    Write(u8),
    Checkpoint(u8),
    Collect(u8),
}

/// The model: the rule that is off, the participants, and the number of PUTs that may turn up again
/// late.
struct Stream {
    off: Option<Rule>,
    budgets: Vec<Budget>,
    copies: u8,
}

const IN_FLIGHT_MAX: u8 = 2;

impl Stream {
    fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    fn newest<'a>(&self, state: &'a State) -> &'a Head {
        match self.on(Rule::RefsOrderedByPlace) {
            true => state.refs.iter().max_by_key(|head| head.order()).expect("there is a ref"),
            false => state.refs.last().expect("there is a ref"),
        }
    }

    /// A fresh reader's view: the newest ref, rolled forward, and the stream where it ends.
    fn read(&self, state: &State) -> Option<(Vec<Wrote>, u8)> {
        let head = self.newest(state);
        let (mut at, mut history) = (Key::data(head.stream, head.number), head.history.clone());
        for _ in 0..=state.objects.len() {
            let next = Key::data(at.stream, at.number + 1);
            match state.objects.get(&next) {
                Some(&Object::Data(by)) => {
                    history.push(Wrote { key: next, by });
                    at = next;
                }
                Some(&Object::Seal { successor, .. }) if self.on(Rule::FollowSeals) => {
                    at = Key::data(successor, 0);
                }
                _ => return Some((history, at.stream)),
            }
        }
        None
    }

    /// Begins a take-over. `last` is the successor that the attempt before this one named.
    fn begin(&self, state: &mut State, p: u8, base: Head, last: Option<u8>) {
        let last = last.filter(|_| !self.on(Rule::NewSuccessorForEachAttempt));
        let successor = last.unwrap_or(state.epochs.len() as u8);
        if last.is_none() {
            state.epochs.push(0);
        }
        let takeover = Takeover::new(base.position(), stream_id(successor));
        let taking = Taking {
            next: takeover.start(),
            base,
            applied: Vec::new(),
            takeover,
            followed: Vec::new(),
            successor,
            waits: false,
            promised: match self.budgets[p as usize].reads_only {
                true => state.acknowledged.clone(),
                false => Vec::new(),
            },
        };
        state.processes[p as usize] = Process::Taking(Box::new(taking));
    }

    fn found(&self, taking: &mut Taking, key: Key, object: Option<Object>) {
        taking.waits = false;
        let found = match object {
            None => Found::Missing,
            Some(Object::Data(by)) => {
                taking.applied.push(Wrote { key, by });
                let at = taking.takeover.at();
                let number = next_key(at).number;
                Found::Segment(Position { number, vseq: at.vseq + 1, ..*at })
            }
            Some(Object::Seal { successor, epoch, .. }) => {
                taking.followed.push(key);
                Found::Seal(Seal {
                    successor: stream_id(successor),
                    epoch: u64::from(epoch),
                    owner: None,
                    forced: true,
                })
            }
            Some(Object::Node) => unreachable!("nodes have a lane of their own"),
        };
        taking.next = taking.takeover.found(&found);
    }

    /// The taker's next step.
    fn go(&self, state: &mut State, p: u8, mut taking: Box<Taking>) {
        match taking.next.clone() {
            Step::Read(key) => {
                let key = Key::of(key);
                self.found(&mut taking, key, state.objects.get(&key).copied());
                state.processes[p as usize] = Process::Taking(taking);
            }
            Step::Seal(_) if self.budgets[p as usize].reads_only => {
                taking.next = Step::ListRefs;
                state.processes[p as usize] = Process::Taking(taking);
            }
            Step::Seal(key) => self.seal(state, p, taking, Key::of(key)),
            Step::ListRefs => self.list_again(state, p, taking),
            Step::Restart(_) | Step::Own(_) => unreachable!("done when listed"),
        }
    }

    fn seal(&self, state: &mut State, p: u8, mut taking: Box<Taking>, key: Key) {
        if !self.on(Rule::StreamsAreNew) {
            let at = *taking.takeover.at();
            return self.own(state, p, *taking, at);
        }
        let epoch = taking.takeover.epoch() as u8;
        state.epochs[taking.successor as usize] = epoch;
        let seal = Object::Seal { successor: taking.successor, epoch, by: p };
        send(state, Some(p), What::Put(key, seal));
        if !self.on(Rule::SealBeforeWriting) {
            let at = Position::start(
                u64::from(epoch),
                stream_id(taking.successor),
                taking.takeover.at().vseq,
            );
            return self.own(state, p, *taking, at);
        }
        taking.waits = true;
        state.processes[p as usize] = Process::Taking(taking);
    }

    fn list_again(&self, state: &mut State, p: u8, taking: Box<Taking>) {
        let heeded = |head: &&Head| {
            let rule = Self::why_newer(head, &taking);
            self.on(Rule::RefsAfterTheSeal) && rule.is_none_or(|rule| self.on(rule))
        };
        let listed: Vec<RefOrder> = state.refs.iter().filter(heeded).map(Head::order).collect();
        match taking.takeover.refs(&listed) {
            Step::Restart(newest) => {
                let base = state
                    .refs
                    .iter()
                    .find(|head| head.order() == newest)
                    .expect("it was listed")
                    .clone();
                self.begin(state, p, base, Some(taking.successor));
            }
            Step::Own(at) => self.own(state, p, *taking, at),
            other => unreachable!("{other:?}"),
        }
    }

    /// The rule by which a newer ref makes the taker start over.
    fn why_newer(head: &Head, taking: &Taking) -> Option<Rule> {
        let sealed = Key::of(next_key(taking.takeover.at()));
        let past = |key: &Key| head.stream == key.stream && head.number >= key.number;
        let on_path =
            |stream| sealed.stream == stream || taking.followed.iter().any(|k| k.stream == stream);
        if head.order() <= taking.base.order() {
            None
        } else if taking.followed.iter().any(past) {
            Some(Rule::RefsPastFollowedSeals)
        } else if past(&sealed) || !on_path(head.stream) {
            Some(Rule::RefsPastTheSeal)
        } else {
            Some(Rule::RefsBelowTheSeal)
        }
    }

    fn own(&self, state: &mut State, p: u8, taking: Taking, at: Position) {
        let mut history = taking.base.history.clone();
        history.extend(&taking.applied);
        let budget = self.budgets[p as usize];
        if budget.reads_only {
            if taking.promised.iter().any(|w| !history.contains(w)) {
                state.broken = Some("a reader misses an acknowledged write");
            }
            state.processes[p as usize] = Process::Gone;
            return;
        }
        state.handovers.push(history.clone());
        state.processes[p as usize] = Process::Owner(Box::new(Owner {
            epoch: at.epoch as u8,
            stream: at.stream.0[0],
            durable: at.number.0 as u8,
            beyond: BTreeSet::new(),
            unused: at.number.0 as u8 + 1,
            base: taking.base,
            own_ref: false,
            history,
            checkpoint: Checkpoint::None,
            next_node: 1,
            pass: Pass::Idle,
            writes_left: budget.writes,
            checkpoints_left: budget.checkpoints,
            passes_left: budget.passes,
        }));
    }

    /// Takes in the answer to a create: the object that stood there, if it was not created.
    fn answer(&self, state: &mut State, p: u8, key: Key, sent: Object, stood: Option<Object>) {
        let ours = stood.is_none_or(|stood| stood == sent);
        match std::mem::replace(&mut state.processes[p as usize], Process::Gone) {
            Process::Taking(mut taking)
                if taking.waits && taking.next == Step::Seal(key.real()) =>
            {
                taking.waits = false;
                if ours {
                    taking.next = taking.takeover.sealed();
                } else {
                    self.found(&mut taking, key, stood);
                }
                state.processes[p as usize] = Process::Taking(taking);
            }
            Process::Owner(_)
                if !ours && self.on(Rule::ExistsOnlyIfOurs) && sent == Object::Data(p) =>
            {
                // Fenced: the process stays gone.
            }
            Process::Owner(mut owner) if sent == Object::Data(p) => {
                self.durable(state, p, &mut owner, key);
                state.processes[p as usize] = Process::Owner(owner);
            }
            Process::Owner(mut owner) if sent == Object::Node => {
                if let Checkpoint::Node(head) = owner.checkpoint {
                    send(state, Some(p), What::Ref(head.clone()));
                    owner.checkpoint = Checkpoint::Ref(head);
                }
                state.processes[p as usize] = Process::Owner(owner);
            }
            other => state.processes[p as usize] = other,
        }
    }

    fn durable(&self, state: &mut State, p: u8, owner: &mut Owner, key: Key) {
        owner.beyond.insert(key.number);
        if !self.on(Rule::ContiguousAcknowledgement) {
            state.acknowledged.push(Wrote { key, by: p });
        }
        while owner.beyond.remove(&(owner.durable + 1)) {
            owner.durable += 1;
            let wrote = Wrote { key: Key::data(owner.stream, owner.durable), by: p };
            owner.history.push(wrote);
            if self.on(Rule::ContiguousAcknowledgement) {
                state.acknowledged.push(wrote);
            }
        }
        state.acknowledged.sort_unstable();
    }

    fn land(&self, state: &mut State, i: u8) {
        let message = state.net.remove(i as usize);
        match message.what {
            What::Put(key, object) => {
                let stood = match self.on(Rule::CreateOnly) {
                    true => state.objects.get(&key).copied(),
                    false => None,
                };
                if stood.is_none() {
                    state.objects.insert(key, object);
                }
                if let Some(p) = message.from {
                    self.answer(state, p, key, object, stood);
                }
            }
            What::Ref(head) => {
                if !state.refs.contains(&head) {
                    state.refs.push(head.clone());
                    if self.on(Rule::RefsOrderedByPlace) {
                        state.refs.sort_unstable();
                    }
                }
                if let Some(Process::Owner(owner)) =
                    message.from.map(|p| &mut state.processes[p as usize])
                {
                    owner.base = head;
                    owner.own_ref = true;
                    owner.checkpoint = Checkpoint::None;
                }
            }
            What::Delete(key) => {
                state.objects.remove(&key);
            }
            What::DeleteRef(head) => state.refs.retain(|stands| *stands != head),
        }
    }

    /// The next step of an owner's collector.
    fn collect(&self, state: &mut State, p: u8, mut owner: Box<Owner>) {
        match std::mem::replace(&mut owner.pass, Pass::Idle) {
            Pass::Idle => {
                owner.passes_left -= 1;
                owner.pass = Pass::Candidates(state.objects.keys().copied().collect());
            }
            Pass::Candidates(keys) => {
                let newest = self.newest(state).clone();
                let listed: Vec<RefOrder> = state.refs.iter().map(Head::order).collect();
                let own = owner.own_ref.then(|| owner.base.order());
                if !self.on(Rule::CollectorHasOwnRef) || may_collect(own, &listed) {
                    let free = self.free(state, &owner, &keys, &newest);
                    let older = state.refs.iter().filter(|head| head.order() < newest.order());
                    owner.pass = Pass::Free(free, older.cloned().collect());
                }
            }
            Pass::Free(keys, heads) => {
                let at = Position {
                    number: Number(u64::from(owner.durable)),
                    ..Position::start(u64::from(owner.epoch), stream_id(owner.stream), 0)
                };
                let sealed = look(&at, Number(u64::from(owner.unused))).any(|key| {
                    matches!(state.objects.get(&Key::of(key)), Some(Object::Seal { .. }))
                });
                if sealed && self.on(Rule::CollectorLooksForSeals) {
                    state.processes[p as usize] = Process::Gone;
                    return;
                }
                for key in keys {
                    send(state, None, What::Delete(key));
                }
                for head in heads {
                    send(state, None, What::DeleteRef(head));
                }
            }
        }
        state.processes[p as usize] = Process::Owner(owner);
    }

    fn free(&self, state: &State, owner: &Owner, keys: &[Key], newest: &Head) -> Vec<Key> {
        let mut held = Held::default();
        held.listed.insert(newest.node.real());
        held.listed.extend(newest.history.last().map(|wrote| wrote.key.real()));
        held.ranges.push(HeldRange::head(VOLUME, &newest.position()));
        let next_node = if owner.own_ref { owner.base.next_node } else { 1 };
        held.open_nodes.insert(stream_id(owner.stream), Key::node(0, next_node).real().number);
        let candidates: Vec<Candidate> = keys
            .iter()
            .map(|key| Candidate {
                key: key.real(),
                stream: Some((VOLUME, u64::from(state.epochs[key.stream as usize]))),
            })
            .collect();
        if self.on(Rule::SealsAreKept) {
            let sealed = |key: &&Key| matches!(state.objects.get(*key), Some(Object::Seal { .. }));
            held.seals = keys.iter().filter(sealed).map(|key| key.real()).collect();
        }
        held.free(&candidates).into_iter().map(Key::of).collect()
    }

    fn write(&self, state: &mut State, p: u8, owner: &mut Owner) {
        owner.writes_left -= 1;
        let key = Key::data(owner.stream, owner.unused);
        owner.unused += 1;
        send(state, Some(p), What::Put(key, Object::Data(p)));
    }

    fn checkpoint(&self, state: &mut State, p: u8, owner: &mut Owner) {
        owner.checkpoints_left -= 1;
        let node = Key::node(owner.stream, owner.next_node);
        owner.next_node += 1;
        owner.checkpoint = Checkpoint::Node(Head {
            epoch: owner.epoch,
            stream: owner.stream,
            number: owner.durable,
            node,
            next_node: owner.next_node,
            history: owner.history.clone(),
        });
        send(state, Some(p), What::Put(node, Object::Node));
    }

    /// Checks that the owner at the end of the chain finds what it reads.
    fn check_owner(&self, state: &State, tip: u8) -> Option<String> {
        for process in &state.processes {
            let Process::Owner(owner) = process else { continue };
            if owner.stream != tip {
                continue;
            }
            let last = owner.history.last().map(|wrote| wrote.key);
            for key in last.into_iter().chain([owner.base.node]) {
                if !state.objects.contains_key(&key) {
                    return Some(format!("the owner of s{tip} needs {key}, which was deleted"));
                }
            }
        }
        None
    }
}

fn send(state: &mut State, from: Option<u8>, what: What) {
    state.net.push(Message { from, what });
    state.net.sort_unstable();
}

impl Model for Stream {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        let node = Key::node(0, 1);
        let base = Head { epoch: 1, stream: 1, number: 0, node, next_node: 1, history: vec![] };
        let mut state = State {
            objects: BTreeMap::from([(node, Object::Node)]),
            refs: vec![base.clone()],
            net: Vec::new(),
            processes: vec![Process::Idle; self.budgets.len()],
            epochs: vec![0, 1],
            acknowledged: Vec::new(),
            handovers: Vec::new(),
            copies_left: self.copies,
            broken: None,
        };
        let at = base.position();
        let takeover = Takeover::new(at, stream_id(1));
        let next = takeover.start();
        let taking = Taking {
            base,
            applied: Vec::new(),
            takeover,
            followed: Vec::new(),
            successor: 1,
            next,
            waits: false,
            promised: Vec::new(),
        };
        self.own(&mut state, 0, taking, at);
        state
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        for (i, message) in state.net.iter().enumerate() {
            if i > 0 && state.net[i - 1] == *message {
                continue;
            }
            out.push(Action::Land(i as u8));
            let put = matches!(message.what, What::Put(..) | What::Ref(_));
            if put && message.from.is_some() && state.copies_left > 0 {
                out.push(Action::Copy(i as u8));
            }
        }
        for (p, process) in (0..).zip(&state.processes) {
            match process {
                Process::Idle => out.push(Action::Begin(p)),
                Process::Taking(taking) if !taking.waits => out.push(Action::Go(p)),
                Process::Taking(_) | Process::Gone => {}
                Process::Owner(owner) => {
                    let in_flight = owner.unused - 1 - owner.durable - owner.beyond.len() as u8;
                    if owner.writes_left > 0 && in_flight < IN_FLIGHT_MAX {
                        out.push(Action::Write(p));
                    }
                    let moved =
                        owner.stream != owner.base.stream || owner.durable > owner.base.number;
                    if owner.checkpoints_left > 0
                        && moved
                        && matches!(owner.checkpoint, Checkpoint::None)
                    {
                        out.push(Action::Checkpoint(p));
                    }
                    let may = owner.own_ref || !self.on(Rule::CollectorHasOwnRef);
                    if !matches!(owner.pass, Pass::Idle) || (owner.passes_left > 0 && may) {
                        out.push(Action::Collect(p));
                    }
                }
            }
        }
    }

    fn apply(&self, before: &State, action: Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Land(i) => self.land(&mut state, i),
            Action::Copy(i) => {
                state.copies_left -= 1;
                let what = state.net[i as usize].what.clone();
                send(&mut state, None, what);
            }
            Action::Begin(p) => {
                let base = self.newest(&state).clone();
                self.begin(&mut state, p, base, None);
            }
            Action::Go(p) | Action::Write(p) | Action::Checkpoint(p) | Action::Collect(p) => {
                let taken = std::mem::replace(&mut state.processes[p as usize], Process::Gone);
                match (action, taken) {
                    (Action::Collect(_), Process::Owner(owner)) => {
                        self.collect(&mut state, p, owner)
                    }
                    (_, Process::Taking(taking)) => self.go(&mut state, p, taking),
                    (_, Process::Owner(mut owner)) => {
                        match action {
                            Action::Write(_) => self.write(&mut state, p, &mut owner),
                            _ => self.checkpoint(&mut state, p, &mut owner),
                        }
                        state.processes[p as usize] = Process::Owner(owner);
                    }
                    _ => unreachable!("offered to owners and takers only"),
                }
            }
        }
        state
    }

    fn describe(&self, state: &State, action: Action) -> String {
        let at = |p: u8| &state.processes[p as usize];
        match action {
            Action::Land(i) => format!("lands: {}", state.net[i as usize]),
            Action::Copy(i) => format!("a copy stays under way: {}", state.net[i as usize]),
            Action::Begin(p) => {
                format!("{} lists the refs: newest is {}", self.who(p), self.newest(state))
            }
            Action::Go(p) => match at(p) {
                Process::Taking(taking) => format!("{} {}", self.who(p), step(&taking.next)),
                _ => String::new(),
            },
            Action::Write(p) => match at(p) {
                Process::Owner(o) => format!("{} sends s{}/{}", self.who(p), o.stream, o.unused),
                _ => String::new(),
            },
            Action::Checkpoint(p) => match at(p) {
                Process::Owner(o) => {
                    format!("{} begins a checkpoint at s{}/{}", self.who(p), o.stream, o.durable)
                }
                _ => String::new(),
            },
            Action::Collect(p) => match at(p) {
                Process::Owner(owner) => {
                    format!("{}'s collector {}", self.who(p), pass(&owner.pass))
                }
                _ => String::new(),
            },
        }
    }

    fn check(&self, state: &State) -> Option<String> {
        if let Some(broken) = state.broken {
            return Some(broken.to_owned());
        }
        let head = self.newest(state);
        let last = head.history.last().map(|wrote| wrote.key);
        for key in last.into_iter().chain([head.node]) {
            if !state.objects.contains_key(&key) {
                return Some(format!("a reader of {head} needs {key}, which was deleted"));
            }
        }
        let Some((history, tip)) = self.read(state) else {
            return Some("seals lead round in a circle".to_owned());
        };
        if let Some(lost) = state.acknowledged.iter().find(|wrote| !history.contains(wrote)) {
            return Some(format!(
                "the acknowledged write {} of {} is lost",
                lost.key,
                self.who(lost.by)
            ));
        }
        if state.handovers.iter().any(|begun| !history.starts_with(begun)) {
            return Some("history is not what was handed over".to_owned());
        }
        let mixed =
            history.windows(2).any(|w| w[0].key.stream == w[1].key.stream && w[0].by != w[1].by);
        if mixed {
            return Some("two writers' segments stand in one stream".to_owned());
        }
        self.check_owner(state, tip)
    }
}

impl Stream {
    fn who(&self, p: u8) -> String {
        match (p, self.budgets[p as usize].reads_only) {
            (0, _) => "the old owner".to_owned(),
            (_, true) => "the reader".to_owned(),
            (p, false) => format!("taker {p}"),
        }
    }
}

fn step(step: &Step) -> String {
    match step {
        Step::Read(key) => format!("reads {}", Key::of(*key)),
        Step::Seal(key) => {
            format!("finds nothing at {}, sends its seal (a reader lists again)", Key::of(*key))
        }
        Step::ListRefs => "lists the refs again".to_owned(),
        Step::Restart(_) | Step::Own(_) => String::new(),
    }
}

fn pass(pass: &Pass) -> String {
    let keys = |keys: &[Key]| keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" ");
    match pass {
        Pass::Idle => "lists candidates".to_owned(),
        Pass::Candidates(listed) => format!("lists refs (candidates: {})", keys(listed)),
        Pass::Free(free, _) => format!("looks for a seal, then sends deletes: {}", keys(free)),
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ref s{}/{}", self.stream, self.number)
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = match self.from {
            Some(p) => format!("process {p}'s"),
            None => "a".to_owned(),
        };
        match &self.what {
            What::Put(key, Object::Seal { successor, .. }) => {
                write!(f, "{from} seal at {key}, naming s{successor}")
            }
            What::Put(key, _) => write!(f, "{from} PUT of {key}"),
            What::Ref(head) => write!(f, "{from} PUT of {head}"),
            What::Delete(key) => write!(f, "{from} DELETE of {key}"),
            What::DeleteRef(head) => write!(f, "{from} DELETE of {head}"),
        }
    }
}

const fn budget(writes: u8, checkpoints: u8, passes: u8) -> Budget {
    Budget { reads_only: false, writes, checkpoints, passes }
}

const READER: Budget = Budget { reads_only: true, ..budget(0, 0, 0) };

/// An owner that writes, checkpoints and collects, and a taker that does so too.
fn two_writers(off: Option<Rule>) -> Stream {
    Stream { off, budgets: vec![budget(3, 1, 1), budget(1, 1, 1)], copies: 0 }
}

/// As [`two_writers`], and one PUT may turn up twice.
fn two_writers_and_a_copy(off: Option<Rule>) -> Stream {
    Stream { off, budgets: vec![budget(2, 1, 1), budget(1, 1, 1)], copies: 1 }
}

/// An owner that collects, and two takers at once.
fn two_takers(off: Option<Rule>) -> Stream {
    Stream { off, budgets: vec![budget(2, 1, 1), budget(1, 0, 0), budget(1, 0, 0)], copies: 0 }
}

/// An owner that collects, a taker, and a reader.
fn a_reader(off: Option<Rule>) -> Stream {
    Stream { off, budgets: vec![budget(2, 1, 1), budget(1, 0, 0), READER], copies: 0 }
}

#[test]
fn taking_over_holds() {
    assert_holds(&two_writers(None));
}

#[test]
fn taking_over_holds_with_copies() {
    assert_holds(&two_writers_and_a_copy(None));
}

#[test]
fn taking_over_holds_with_two_takers() {
    assert_holds(&two_takers(None));
}

#[test]
fn readers_miss_nothing() {
    assert_holds(&a_reader(None));
}

const LOST: &str = "is lost";
const DELETED: &str = "which was deleted";

#[test]
fn needs_create_only() {
    assert_breaks(&two_writers(Some(Rule::CreateOnly)), LOST);
}

#[test]
fn needs_exists_only_if_ours() {
    assert_breaks(&two_writers(Some(Rule::ExistsOnlyIfOurs)), LOST);
}

#[test]
fn needs_streams_to_be_new() {
    assert_breaks(&two_writers(Some(Rule::StreamsAreNew)), "two writers");
}

#[test]
fn needs_contiguous_acknowledgement() {
    assert_breaks(&two_writers(Some(Rule::ContiguousAcknowledgement)), LOST);
}

#[test]
fn needs_the_seal_before_writing() {
    assert_breaks(&two_writers(Some(Rule::SealBeforeWriting)), LOST);
}

#[test]
fn needs_refs_after_the_seal() {
    assert_breaks(&two_writers(Some(Rule::RefsAfterTheSeal)), DELETED);
}

#[test]
fn needs_refs_past_the_seal() {
    assert_breaks(&two_writers(Some(Rule::RefsPastTheSeal)), LOST);
}

#[test]
fn readers_need_refs_after_the_end() {
    assert_breaks(&a_reader(Some(Rule::RefsAfterTheSeal)), "a reader misses");
}

#[test]
fn needs_refs_past_followed_seals() {
    assert_breaks(&two_takers(Some(Rule::RefsPastFollowedSeals)), LOST);
}

#[test]
fn needs_refs_below_the_seal() {
    assert_breaks(&two_writers(Some(Rule::RefsBelowTheSeal)), DELETED);
}

#[test]
fn needs_a_new_successor_for_each_attempt() {
    assert_breaks(&two_writers(Some(Rule::NewSuccessorForEachAttempt)), "round in a circle");
}

#[test]
fn needs_seals_to_be_followed() {
    assert_breaks(&two_writers(Some(Rule::FollowSeals)), LOST);
}

#[test]
fn needs_refs_ordered_by_place() {
    assert_breaks(&two_writers(Some(Rule::RefsOrderedByPlace)), "");
}

#[test]
fn needs_seals_to_be_kept() {
    assert_breaks(&two_writers(Some(Rule::SealsAreKept)), "");
}

#[test]
fn needs_the_collector_to_look_for_seals() {
    assert_breaks(&two_writers(Some(Rule::CollectorLooksForSeals)), DELETED);
}

#[test]
fn needs_the_collector_to_have_its_own_ref() {
    assert_breaks(&two_writers(Some(Rule::CollectorHasOwnRef)), DELETED);
}
