//! Flush level `local`: the tail of a log, and an owner that was suspended, when another node takes
//! over.
//!
//! *Home* acknowledges into its log and destages later, with several PUTs in flight. It crashes and
//! restarts with its log, taking over itself. It is suspended and wakes. The *taker* is an
//! operator's forced release, and begins only while home is not serving. A suspended home does not
//! wake before the taker is through. Otherwise only the interval of home's looks would bound its
//! vain acknowledgements. The taker writes at once into the bucket. ([`super::stream`] explores
//! slow seals and collectors.)

use crate::explore::{Model, assert_breaks, assert_holds};
use crate::keys::{Key, stream_id};
use skerry_core::id::{LogId, NodeId};
use skerry_core::position::{Number, Position};
use skerry_core::seal::{Owner, Seal};
use skerry_core::takeover::{Found, Step, Takeover, look, next_key, tail_replays};
use std::collections::{BTreeMap, BTreeSet};

/// Rules that a test can switch off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    TailNeedsOurSeals,
    EverySealSinceTheTail,
    TailFollowsOn,
    LookAfterSuspension,
    LookAtAllThatIsOpen,
}

const HOME: u8 = 0;
const TAKER: u8 = 1;

/// A write by its number. [`State::before`] has the writes before it.
type Write = u8;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Object {
    Data(Write),
    Seal { successor: u8, epoch: u8, by: u8 },
}

/// A checkpoint: history up to a position.
#[derive(Clone, Hash)]
struct Head {
    at: Position,
    history: Vec<Write>,
}

/// A record of home's log.
#[derive(Clone, Copy, Hash)]
struct Record {
    epoch: u8,
    stream: u8,
    vseq: u8,
    write: Write,
}

#[derive(Clone, Hash)]
struct Taking {
    takeover: Takeover,
    successor: u8,
    next: Step,
    history: Vec<Write>,
    seals: Vec<(u8, u8)>,
}

#[derive(Clone, Hash)]
struct Serving {
    epoch: u8,
    stream: u8,
    /// The writes that it serves, and the number of them in the bucket at its start.
    view: Vec<Write>,
    begun: u8,
    /// The last contiguous durable number, the durable ones beyond, and the next number.
    durable: u8,
    beyond: BTreeSet<u8>,
    unused: u8,
    suspended: bool,
    must_look: bool,
}

#[derive(Clone, Hash)]
enum Process {
    Down,
    Taking(Taking),
    Serving(Serving),
}

#[derive(Clone, Hash)]
struct State {
    objects: BTreeMap<Key, Object>,
    refs: Vec<Head>,
    /// Home's PUTs under way.
    net: BTreeMap<Key, Write>,
    log: Vec<Record>,
    processes: [Process; 2],
    streams: u8,
    before: Vec<Vec<Write>>,
    /// The taker has sealed a stream: home's undestaged records may be lost.
    forced: bool,
    /// The taker has owned the volume.
    taken: bool,
    /// Home restarted while the taker was at work. Home acknowledges in vain until its next look.
    raced: bool,
    promised: Vec<Write>,
    writes_left: [u8; 2],
    starts_left: [u8; 2],
    suspensions_left: u8,
    checkpoints_left: u8,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy)]
enum Action {
    Begin(u8),
    Go(u8),
    Write(u8),
    Destage,
    Land(Key),
    Checkpoint(u8),
    Crash,
    Suspend,
    Wake,
    Look,
}

/// The model: the rule that is off, and the budgets.
struct Local {
    off: Option<Rule>,
    writes: [u8; 2],
    starts: u8,
}

const IN_FLIGHT_MAX: usize = 2;

fn log_of(p: u8) -> LogId {
    LogId([p + 1; 16])
}

fn seal(successor: u8, epoch: u8, by: u8) -> Seal {
    let owner =
        Owner { node: NodeId([by + 1; 16]), log: log_of(by), lease: 0, host: String::new() };
    let (successor, epoch) = (stream_id(successor), u64::from(epoch));
    Seal { successor, epoch, owner: Some(owner), forced: by == TAKER }
}

impl Local {
    fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    fn found(&self, state: &State, taking: &mut Taking, key: Key) {
        let at = *taking.takeover.at();
        let found = match state.objects.get(&key) {
            None => Found::Missing,
            Some(&Object::Data(write)) => {
                taking.history.push(write);
                Found::Segment(Position { number: next_key(&at).number, vseq: at.vseq + 1, ..at })
            }
            Some(&Object::Seal { successor, epoch, by }) => {
                taking.seals.push((epoch, by));
                Found::Seal(seal(successor, epoch, by))
            }
        };
        taking.next = taking.takeover.found(&found);
    }

    fn go(&self, state: &mut State, p: u8, mut taking: Taking) {
        match taking.next.clone() {
            Step::Read(key) => self.found(state, &mut taking, Key::of(key)),
            Step::Seal(key) => {
                let key = Key::of(key);
                let (successor, epoch) = (taking.successor, taking.takeover.epoch() as u8);
                let seal = Object::Seal { successor, epoch, by: p };
                if *state.objects.entry(key).or_insert(seal) != seal {
                    self.found(state, &mut taking, key);
                } else {
                    state.forced |= p == TAKER;
                    taking.seals.push((epoch, p));
                    taking.next = taking.takeover.sealed();
                }
            }
            Step::ListRefs => {
                let listed: Vec<_> =
                    state.refs.iter().map(|r| skerry_core::takeover::RefOrder::of(&r.at)).collect();
                return match taking.takeover.refs(&listed) {
                    Step::Own(at) => self.own(state, p, &taking, &at),
                    _ => begin(state, p),
                };
            }
            Step::Restart(_) | Step::Own(_) => unreachable!("done when listed"),
        }
        state.processes[p as usize] = Process::Taking(taking);
    }

    fn own(&self, state: &mut State, p: u8, taking: &Taking, at: &Position) {
        let mut view = taking.history.clone();
        let begun = view.len() as u8;
        if p == HOME {
            self.replay(state, taking, at, &mut view);
            if !state.forced && state.promised.iter().any(|write| !view.contains(write)) {
                state.broken = Some("a write that home's log kept is lost at its restart");
            }
        } else {
            state.taken = true;
        }
        state.processes[p as usize] = Process::Serving(Serving {
            epoch: at.epoch as u8,
            stream: at.stream.0[0],
            view,
            begun,
            durable: 0,
            beyond: BTreeSet::new(),
            unused: 1,
            suspended: false,
            must_look: false,
        });
    }

    /// Applies the records of home's log that may be replayed.
    fn replay(&self, state: &State, taking: &Taking, at: &Position, view: &mut Vec<Write>) {
        for record in &state.log {
            let passed = || taking.seals.iter().map(|&(epoch, by)| seal(0, epoch, by)).collect();
            let (epoch, seals): (u8, Vec<Seal>) = match self.on(Rule::EverySealSinceTheTail) {
                true => (record.epoch, chain(state, record.stream, at.stream.0[0])),
                false => (at.epoch as u8 - taking.seals.len() as u8, passed()),
            };
            let ours = tail_replays(u64::from(epoch), &seals, at, log_of(HOME));
            let follows = usize::from(record.vseq) == view.len();
            if (ours || !self.on(Rule::TailNeedsOurSeals))
                && (follows || !self.on(Rule::TailFollowsOn))
            {
                view.push(record.write);
            }
        }
    }

    /// Writes: home into its log, the taker into the bucket.
    fn write(&self, state: &mut State, p: u8) {
        let write = state.before.len() as Write;
        let stale = self.tip(state);
        let Process::Serving(serving) = &mut state.processes[p as usize] else { return };
        if p == HOME && state.taken && !state.raced && serving.stream != stale {
            state.broken = Some("home acknowledges after somebody else took over");
        }
        state.writes_left[p as usize] -= 1;
        state.before.push(serving.view.clone());
        let record = Record {
            epoch: serving.epoch,
            stream: serving.stream,
            vseq: serving.view.len() as u8,
            write,
        };
        if p == HOME {
            serving.view.push(write);
            state.log.push(record);
            state.promised.push(write);
            return;
        }
        let key = Key::data(serving.stream, serving.unused);
        if state.objects.contains_key(&key) {
            state.processes[p as usize] = Process::Down;
            return;
        }
        serving.view.push(write);
        serving.unused += 1;
        serving.durable += 1;
        state.objects.insert(key, Object::Data(write));
    }

    fn land(&self, state: &mut State, key: Key) {
        let write = state.net.remove(&key).expect("offered when under way");
        let stood = *state.objects.entry(key).or_insert(Object::Data(write));
        let Process::Serving(home) = &mut state.processes[HOME as usize] else { return };
        if home.stream != key.stream {
            return;
        }
        if stood != Object::Data(write) {
            state.processes[HOME as usize] = Process::Down;
            return;
        }
        home.beyond.insert(key.number);
        while home.beyond.remove(&(home.durable + 1)) {
            home.durable += 1;
        }
    }

    fn look(&self, state: &mut State) {
        let Process::Serving(home) = &mut state.processes[HOME as usize] else { return };
        let lowest =
            if self.on(Rule::LookAtAllThatIsOpen) { home.durable } else { home.unused - 1 };
        let at = Position {
            number: Number(u64::from(lowest)),
            ..Position::start(u64::from(home.epoch), stream_id(home.stream), 0)
        };
        let sealed = look(&at, Number(u64::from(home.unused)))
            .any(|key| matches!(state.objects.get(&Key::of(key)), Some(Object::Seal { .. })));
        home.must_look = false;
        if sealed {
            state.processes[HOME as usize] = Process::Down;
        }
    }

    /// The history in the bucket, and the stream where it ends.
    fn read(&self, state: &State) -> (Vec<Write>, u8) {
        let head = newest(state);
        let mut at = Key::data(head.at.stream.0[0], head.at.number.0 as u8);
        let mut history = head.history.clone();
        loop {
            at.number += 1;
            match state.objects.get(&at) {
                Some(&Object::Data(write)) => history.push(write),
                Some(&Object::Seal { successor, .. }) => at = Key::data(successor, 0),
                None => return (history, at.stream),
            }
        }
    }

    fn tip(&self, state: &State) -> u8 {
        self.read(state).1
    }
}

fn newest(state: &State) -> &Head {
    state.refs.iter().max_by_key(|head| head.at.order()).expect("there is a ref")
}

fn begin(state: &mut State, p: u8) {
    let head = newest(state).clone();
    state.streams += 1;
    let successor = state.streams;
    let takeover = Takeover::new(head.at, stream_id(successor));
    let (next, history) = (takeover.start(), head.history);
    state.processes[p as usize] =
        Process::Taking(Taking { takeover, successor, next, history, seals: vec![] });
}

/// Gives the seals from one stream to another, or none if no path leads there.
fn chain(state: &State, from: u8, to: u8) -> Vec<Seal> {
    let of_stream = state.objects.iter().filter(|(key, _)| key.stream == from);
    for (_, object) in of_stream {
        let Object::Seal { successor, epoch, by } = *object else { continue };
        let rest = chain(state, successor, to);
        if successor == to || !rest.is_empty() {
            return [vec![seal(successor, epoch, by)], rest].concat();
        }
    }
    Vec::new()
}

impl Model for Local {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        let home = Serving {
            epoch: 1,
            stream: 1,
            view: vec![],
            begun: 0,
            durable: 0,
            beyond: BTreeSet::new(),
            unused: 1,
            suspended: false,
            must_look: false,
        };
        State {
            objects: BTreeMap::new(),
            refs: vec![Head { at: Position::start(1, stream_id(1), 0), history: vec![] }],
            net: BTreeMap::new(),
            log: vec![],
            processes: [Process::Serving(home), Process::Down],
            streams: 1,
            before: vec![],
            forced: false,
            taken: false,
            raced: false,
            promised: vec![],
            writes_left: self.writes,
            starts_left: [self.starts, 1],
            suspensions_left: 1,
            checkpoints_left: 1,
            broken: None,
        }
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        out.extend(state.net.keys().map(|&key| Action::Land(key)));
        let taking = matches!(state.processes[TAKER as usize], Process::Taking(_));
        match &state.processes[HOME as usize] {
            Process::Down if state.starts_left[HOME as usize] > 0 => out.push(Action::Begin(HOME)),
            Process::Down => {}
            Process::Taking(_) => out.extend([Action::Go(HOME), Action::Crash]),
            Process::Serving(home) if home.suspended => {
                if !taking {
                    out.push(Action::Wake);
                }
            }
            Process::Serving(home) if home.must_look => out.push(Action::Look),
            Process::Serving(home) => {
                out.push(Action::Crash);
                if state.suspensions_left > 0 {
                    out.push(Action::Suspend);
                }
                if state.writes_left[HOME as usize] > 0 {
                    out.push(Action::Write(HOME));
                }
                let sent = usize::from(home.begun + home.unused - 1);
                if sent < home.view.len() && state.net.len() < IN_FLIGHT_MAX {
                    out.push(Action::Destage);
                }
            }
        }
        match &state.processes[TAKER as usize] {
            Process::Down => {
                let down = match &state.processes[HOME as usize] {
                    Process::Serving(home) => home.suspended,
                    _ => true,
                };
                if down && state.starts_left[TAKER as usize] > 0 {
                    out.push(Action::Begin(TAKER));
                }
            }
            Process::Taking(_) => out.push(Action::Go(TAKER)),
            Process::Serving(_) if state.writes_left[TAKER as usize] > 0 => {
                out.push(Action::Write(TAKER));
            }
            Process::Serving(_) => {}
        }
        for p in [HOME, TAKER] {
            if let Process::Serving(owner) = &state.processes[p as usize] {
                let awake = !owner.suspended && !owner.must_look;
                if awake && owner.durable > 0 && state.checkpoints_left > 0 {
                    out.push(Action::Checkpoint(p));
                }
            }
        }
    }

    fn apply(&self, before: &State, action: Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Begin(p) => {
                state.starts_left[p as usize] -= 1;
                state.raced |=
                    matches!(state.processes[usize::from(HOME + TAKER - p)], Process::Taking(_));
                begin(&mut state, p);
            }
            Action::Go(p) => {
                if let Process::Taking(taking) = state.processes[p as usize].clone() {
                    self.go(&mut state, p, taking);
                }
            }
            Action::Write(p) => self.write(&mut state, p),
            Action::Land(key) => self.land(&mut state, key),
            Action::Crash => state.processes[HOME as usize] = Process::Down,
            Action::Look => self.look(&mut state),
            Action::Destage | Action::Suspend | Action::Wake | Action::Checkpoint(_) => {
                let p = if let Action::Checkpoint(p) = action { p } else { HOME };
                if let Process::Serving(owner) = &mut state.processes[p as usize] {
                    match action {
                        Action::Destage => {
                            let key = Key::data(owner.stream, owner.unused);
                            let write = owner.view[usize::from(owner.begun + owner.unused - 1)];
                            state.net.insert(key, write);
                            owner.unused += 1;
                        }
                        Action::Suspend => {
                            state.suspensions_left -= 1;
                            owner.suspended = true;
                        }
                        Action::Wake => {
                            owner.suspended = false;
                            owner.must_look = self.on(Rule::LookAfterSuspension);
                        }
                        _ => {
                            state.checkpoints_left -= 1;
                            let upto = usize::from(owner.begun + owner.durable);
                            let start = Position::start(
                                u64::from(owner.epoch),
                                stream_id(owner.stream),
                                upto as u64,
                            );
                            let at = Position { number: Number(u64::from(owner.durable)), ..start };
                            state.refs.push(Head { at, history: owner.view[..upto].to_vec() });
                        }
                    }
                }
            }
        }
        state
    }

    fn describe(&self, state: &State, action: Action) -> String {
        let who = |p: u8| if p == HOME { "home" } else { "the taker" };
        match action {
            Action::Begin(p) => format!("{} begins to take over", who(p)),
            Action::Go(p) => match &state.processes[p as usize] {
                Process::Taking(taking) => match taking.next {
                    Step::Read(key) => format!("{} reads {}", who(p), Key::of(key)),
                    Step::Seal(key) => format!("{} seals at {}", who(p), Key::of(key)),
                    _ => format!("{} lists the refs again and goes on", who(p)),
                },
                _ => String::new(),
            },
            Action::Write(HOME) => {
                format!("home acknowledges write {} from its log", state.before.len())
            }
            Action::Write(p) => {
                format!("{} publishes write {} if it can", who(p), state.before.len())
            }
            Action::Destage => "home sends its next segment".to_owned(),
            Action::Land(key) => format!("lands: home's PUT of {key}"),
            Action::Checkpoint(p) => format!("{} writes a ref", who(p)),
            Action::Crash => "home crashes; its log stays".to_owned(),
            Action::Suspend => "home is suspended".to_owned(),
            Action::Wake => "home wakes".to_owned(),
            Action::Look => "home looks for a seal".to_owned(),
        }
    }

    fn check(&self, state: &State) -> Option<String> {
        if let Some(broken) = state.broken {
            return Some(broken.to_owned());
        }
        let (history, tip) = self.read(state);
        let views = state.processes.iter().filter_map(|process| match process {
            Process::Serving(owner) if owner.stream == tip => Some(&owner.view),
            _ => None,
        });
        for view in views.chain([&history]) {
            let merged = (0..view.len()).find(|&i| state.before[usize::from(view[i])] != view[..i]);
            if let Some(i) = merged {
                return Some(format!(
                    "write {} was merged into another history: {view:?}",
                    view[i]
                ));
            }
        }
        None
    }
}

fn local(off: Option<Rule>) -> Local {
    Local { off, writes: [2, 1], starts: 2 }
}

#[test]
fn local_level_holds() {
    assert_holds(&local(None));
}

#[test]
fn needs_seals_that_name_the_log() {
    assert_breaks(&local(Some(Rule::TailNeedsOurSeals)), "merged into another history");
}

#[test]
fn needs_every_seal_since_the_tail() {
    assert_breaks(&local(Some(Rule::EverySealSinceTheTail)), "merged into another history");
}

#[test]
fn needs_tails_to_follow_on() {
    assert_breaks(&local(Some(Rule::TailFollowsOn)), "merged into another history");
}

#[test]
fn needs_a_look_after_suspension() {
    assert_breaks(&local(Some(Rule::LookAfterSuspension)), "home acknowledges after");
}

#[test]
fn needs_a_look_at_all_that_is_open() {
    assert_breaks(&local(Some(Rule::LookAtAllThatIsOpen)), "home acknowledges after");
}
