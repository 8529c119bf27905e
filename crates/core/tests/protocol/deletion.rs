//! Deletion of a whole volume, while its owner publishes a snapshot and a reader pins its head.
//! Another node may sweep deleted parts at any moment. A deleted head ref may come back by a late
//! copy of its PUT.

use crate::explore::{Model, assert_breaks};
use crate::keys::{Key, VOLUME, stream_id};
use skerry_core::hold::{Candidate, Held, pin_holds};
use skerry_core::position::Number;
use skerry_core::takeover::RefOrder;
use std::collections::BTreeSet;

/// Rules that a test can switch off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    SnapshotsBeforeTombstone,
    TombstoneFirst,
    PinLooksForTombstone,
}

/// Progress of a reader that pins the head.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Pinning {
    Idle,
    /// The head was read.
    Read,
    There,
    /// The heads were listed; true if the copied one was there.
    Listed(bool),
    Holds,
    GivenUp,
}

/// Progress of the sweep of the deleted volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Sweep {
    Idle,
    /// The tombstone was seen.
    Begun,
    /// The heads are deleted.
    Headless,
    /// Snapshots and pins were listed.
    Listed {
        snapshot: bool,
        pin: bool,
    },
    Done,
}

#[derive(Clone, Hash)]
struct State {
    segment: bool,
    head: bool,
    /// A copy of the head's PUT is still under way.
    late_head: bool,
    gone: bool,
    /// The snapshot's ref: not sent, sent, there.
    sent: bool,
    snapshot: bool,
    pinning: Pinning,
    sweep: Sweep,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    SendSnapshot,
    LandSnapshot,
    LandHead,
    Bury,
    Pin,
    Sweep,
}

struct Deletion {
    off: Option<Rule>,
}

impl Deletion {
    fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    fn pin(&self, state: &mut State) {
        let copied = RefOrder { epoch: 1, stream: stream_id(1), number: Number(0) };
        state.pinning = match state.pinning {
            Pinning::Idle => Pinning::Read,
            Pinning::Read => Pinning::There,
            Pinning::There => Pinning::Listed(state.head),
            Pinning::Listed(there) => {
                let listed: Vec<RefOrder> = there.then_some(copied).into_iter().collect();
                let gone = state.gone && self.on(Rule::PinLooksForTombstone);
                match pin_holds(Some(copied), &listed, gone) {
                    true => Pinning::Holds,
                    false => Pinning::GivenUp,
                }
            }
            over => over,
        };
    }

    fn sweep(&self, state: &mut State) {
        let pin = !matches!(state.pinning, Pinning::Idle | Pinning::Read | Pinning::GivenUp);
        state.sweep = match state.sweep {
            Sweep::Idle => Sweep::Begun,
            Sweep::Begun => {
                state.head = false;
                Sweep::Headless
            }
            Sweep::Headless => Sweep::Listed { snapshot: state.snapshot, pin },
            Sweep::Listed { snapshot, pin } => {
                let mut held = Held::default();
                let key = Key::data(1, 1);
                if snapshot || pin {
                    held.listed.insert(key.real());
                }
                let candidate = Candidate { key: key.real(), stream: Some((VOLUME, 1)) };
                let free: BTreeSet<Key> =
                    held.free(&[candidate]).into_iter().map(Key::of).collect();
                if free.contains(&key) {
                    state.segment = false;
                }
                Sweep::Done
            }
            Sweep::Done => Sweep::Done,
        };
    }
}

impl Model for Deletion {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        State {
            segment: true,
            head: true,
            late_head: true,
            gone: false,
            sent: false,
            snapshot: false,
            pinning: Pinning::Idle,
            sweep: Sweep::Idle,
        }
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        let mut offer = |when: bool, action: Action| {
            if when {
                out.push(action);
            }
        };
        offer(!state.sent && !state.gone, Action::SendSnapshot);
        offer(state.sent && !state.snapshot, Action::LandSnapshot);
        offer(state.late_head, Action::LandHead);
        let under_way = state.sent && !state.snapshot;
        let waits = under_way && self.on(Rule::SnapshotsBeforeTombstone);
        offer(!state.gone && !waits, Action::Bury);
        let may_begin = state.head || state.pinning != Pinning::Idle;
        offer(
            may_begin && !matches!(state.pinning, Pinning::Holds | Pinning::GivenUp),
            Action::Pin,
        );
        let seen = state.gone || !self.on(Rule::TombstoneFirst);
        offer(seen && state.sweep != Sweep::Done, Action::Sweep);
    }

    fn apply(&self, before: &State, action: Action) -> State {
        let mut state = before.clone();
        match action {
            Action::SendSnapshot => state.sent = true,
            Action::LandSnapshot => state.snapshot = true,
            Action::LandHead => (state.head, state.late_head) = (true, false),
            Action::Bury => state.gone = true,
            Action::Pin => self.pin(&mut state),
            Action::Sweep => self.sweep(&mut state),
        }
        state
    }

    fn describe(&self, state: &State, action: Action) -> String {
        match action {
            Action::SendSnapshot => "the owner sends a snapshot's ref",
            Action::LandSnapshot => "the snapshot's ref lands",
            Action::LandHead => "a late copy of the head lands",
            Action::Bury => "the volume's tombstone is written",
            Action::Pin => match state.pinning {
                Pinning::Idle => "the pinner reads the head",
                Pinning::Read => "the pinner's pin lands",
                Pinning::There => "the pinner lists the heads",
                _ => "the pinner looks for the volume's tombstone",
            },
            Action::Sweep => match state.sweep {
                Sweep::Idle => "a sweep begins",
                Sweep::Begun => "the sweep deletes the heads",
                Sweep::Headless => "the sweep lists snapshots and pins",
                _ => "the sweep deletes what nothing holds",
            },
        }
        .to_owned()
    }

    fn check(&self, state: &State) -> Option<String> {
        let who = match () {
            () if state.segment => return None,
            () if !state.gone => "the volume",
            () if state.snapshot => "the snapshot",
            () if state.pinning == Pinning::Holds => "the pin",
            () => return None,
        };
        Some(format!("{who} needs what was deleted"))
    }
}

/// Asserts that no state is broken; this model has few states.
fn holds(model: &Deletion) {
    let explored = crate::explore::explore(model);
    println!("{} states, at most {} steps", explored.states, explored.depth);
    assert_eq!(explored.broken.map(|(what, run)| format!("{what}\n{run}")), None);
    assert!(explored.states > 50, "the model does nothing");
}

#[test]
fn what_is_kept_of_a_deleted_volume_holds() {
    holds(&Deletion { off: None });
}

#[test]
fn needs_snapshots_before_the_tombstone() {
    assert_breaks(&Deletion { off: Some(Rule::SnapshotsBeforeTombstone) }, "the snapshot needs");
}

#[test]
fn needs_the_tombstone_to_be_seen_first() {
    assert_breaks(&Deletion { off: Some(Rule::TombstoneFirst) }, "the volume needs");
}

#[test]
fn needs_pins_to_look_for_the_tombstone() {
    assert_breaks(&Deletion { off: Some(Rule::PinLooksForTombstone) }, "the pin needs");
}
