//! A breadth-first explorer: visits every state of a small model and finds the shortest run that
//! breaks it.
//!
//! It is no general model checker: models have few states, and liveness is checked as a property of
//! quiet states. It remembers states by a 128-bit fingerprint, and tells a run by repeating it.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A model: states, steps between them, and what must hold in each state.
pub(crate) trait Model {
    /// The state of everything: the store, the requests under way, the processes.
    type State: Clone + Hash;
    /// One step of a part.
    type Action: Copy;

    /// The first state.
    fn start(&self) -> Self::State;
    /// Gives every step that may be taken now.
    fn actions(&self, state: &Self::State, out: &mut Vec<Self::Action>);
    /// Gives the state after a step.
    fn apply(&self, state: &Self::State, action: Self::Action) -> Self::State;
    /// Tells the step in words; `state` is the one before it.
    fn describe(&self, state: &Self::State, action: Self::Action) -> String;
    /// Says what is wrong with a state, if anything.
    fn check(&self, state: &Self::State) -> Option<String>;
}

/// The most states of a model. The tests must stay fast.
const STATES_MAX: usize = 2_000_000;

/// The outcome of an exploration.
pub(crate) struct Explored {
    /// Number of different states.
    pub(crate) states: usize,
    /// Steps of the longest of the shortest runs to a state.
    pub(crate) depth: usize,
    /// The broken rule, and the shortest run to it.
    pub(crate) broken: Option<(String, String)>,
}

/// Visits every state, or stops at the first broken one.
pub(crate) fn explore<M: Model>(model: &M) -> Explored {
    let mut seen: HashSet<u128, BuildHasherDefault<Identity>> = HashSet::default();
    let mut came: Vec<(usize, Option<M::Action>)> = vec![(0, None)];
    let mut open = VecDeque::from([(0, 0, model.start())]);
    seen.insert(fingerprint(&model.start()));
    let (mut actions, mut depth) = (Vec::new(), 0);
    while let Some((at, steps, state)) = open.pop_front() {
        depth = steps;
        if let Some(what) = model.check(&state) {
            let run = tell(model, &came, at);
            return Explored { states: came.len(), depth, broken: Some((what, run)) };
        }
        actions.clear();
        model.actions(&state, &mut actions);
        for &action in &actions {
            let next = model.apply(&state, action);
            if seen.insert(fingerprint(&next)) {
                came.push((at, Some(action)));
                open.push_back((came.len() - 1, steps + 1, next));
            }
        }
        assert!(came.len() < STATES_MAX, "the scope is too large: {} states", came.len());
    }
    Explored { states: came.len(), depth, broken: None }
}

/// Asserts that no state is broken.
pub(crate) fn assert_holds<M: Model>(model: &M) {
    let explored = explore(model);
    println!("{} states, at most {} steps", explored.states, explored.depth);
    if let Some((what, run)) = explored.broken {
        panic!("{what}\n{run}");
    }
    assert!(explored.states > 100, "the model does nothing");
}

/// Asserts that the model breaks in the way `how`. Prints the shortest run.
pub(crate) fn assert_breaks<M: Model>(model: &M, how: &str) {
    let explored = explore(model);
    let (what, run) = explored.broken.expect("the rule is switched off, and nothing breaks");
    println!("{what} (after {} states)\n{run}", explored.states);
    assert!(what.contains(how), "expected {how:?}, but {what}\n{run}");
}

fn tell<M: Model>(model: &M, came: &[(usize, Option<M::Action>)], mut at: usize) -> String {
    let mut run = Vec::new();
    while let (before, Some(action)) = came[at] {
        run.push(action);
        at = before;
    }
    let (mut state, mut text) = (model.start(), String::new());
    for (i, &action) in run.iter().rev().enumerate() {
        let step = model.describe(&state, action);
        writeln!(text, "  {:2}. {step}", i + 1).expect("a string takes everything");
        state = model.apply(&state, action);
    }
    text
}

fn fingerprint(state: &impl Hash) -> u128 {
    let mut mixer = Mixer(1);
    state.hash(&mut mixer);
    mixer.0
}

/// Mixes words into 128 bits: fast, and good enough for some millions of states.
struct Mixer(u128);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 =
            (self.0 ^ u128::from(word)).wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645);
        self.0 ^= self.0 >> 67;
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0 as u64
    }
}

/// Passes fingerprints on, which are mixed already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[..8]);
        self.0 = u64::from_le_bytes(word);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
