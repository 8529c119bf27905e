//! The time of pins: a reader renews, and a collector counts from what it sees, each on its own
//! clock.
//!
//! One clock serves for both: each looks only at differences of its own readings. A renewal may
//! take any time to land, and its answer any time again.

use crate::explore::{Model, assert_breaks, assert_holds};
use skerry_core::id::PinId;
use skerry_core::pins::{PinClocks, has_expired, may_read, renewed};
use std::time::Duration;

/// Rules that a test can switch off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    ReaderCountsFromBeforeTheWrite,
    ReaderStops,
    AnswerInTime,
    RenewalBeginsAnew,
    AgesFromBeforeTheListing,
    SightFromAfterTheListing,
}

const PIN: PinId = PinId([1; 16]);
const TTL: Duration = Duration::from_secs(3);
const TICKS: u64 = 9;
const RENEWALS: u64 = 2;

/// A renewal under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Sent {
    number: u64,
    began: u64,
    landed: bool,
}

#[derive(Clone, Hash)]
struct State {
    now: u64,
    /// The renewals that are in the bucket.
    there: Vec<u64>,
    sent: Option<Sent>,
    /// The reader's clock before it wrote the last renewal that it knows to be in the bucket.
    renewed: Duration,
    next: u64,
    reads: bool,
    /// The time at which the collector asked for a listing, and the answer, once the listing is
    /// made.
    asked: Option<(u64, Option<Option<u64>>)>,
    clocks: PinClocks,
    collected: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Send,
    Land,
    Answer,
    Leave,
    Ask,
    List,
    Collect,
}

struct Pins {
    off: Option<Rule>,
}

impl Pins {
    fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    fn may_read(&self, state: &State) -> bool {
        let seconds = Duration::from_secs;
        let in_time = may_read(state.renewed, seconds(state.now), TTL);
        state.reads && (in_time || !self.on(Rule::ReaderStops))
    }

    /// The reader learns that its renewal is in the bucket.
    fn answer(&self, state: &mut State, sent: Sent) {
        let now = Duration::from_secs(state.now);
        let before = self.on(Rule::ReaderCountsFromBeforeTheWrite);
        let began = if before { Duration::from_secs(sent.began) } else { now };
        match renewed(state.renewed, began, now, TTL) {
            Some(renewed) => state.renewed = renewed,
            None if self.on(Rule::AnswerInTime) => {}
            None => state.renewed = began,
        }
        state.there.retain(|number| *number >= sent.number);
    }

    /// The collector gets its answer, and decides.
    fn collect(&self, state: &mut State) {
        let Some((asked, Some(newest))) = state.asked.take() else { return };
        let (asked, now) = (Duration::from_secs(asked), Duration::from_secs(state.now));
        let aged = if self.on(Rule::AgesFromBeforeTheListing) { asked } else { now };
        let sight = if self.on(Rule::SightFromAfterTheListing) { now } else { asked };
        let Some(newest) = newest else {
            state.clocks.see(&[], aged, sight);
            state.collected = true;
            return;
        };
        let renewal = if self.on(Rule::RenewalBeginsAnew) { newest } else { 0 };
        let ages = state.clocks.see(&[(PIN, renewal)], aged, sight);
        if has_expired(ages[&PIN], TTL) {
            state.there.retain(|number| *number != newest);
            state.collected = true;
        }
    }
}

impl Model for Pins {
    type State = State;
    type Action = Action;

    /// The pin is in the bucket, and the pinned state is still referenced.
    fn start(&self) -> State {
        State {
            now: 0,
            there: vec![0],
            sent: None,
            renewed: Duration::ZERO,
            next: 1,
            reads: true,
            asked: None,
            clocks: PinClocks::default(),
            collected: false,
        }
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        let mut offer = |when: bool, action: Action| {
            if when {
                out.push(action);
            }
        };
        offer(state.now < TICKS, Action::Tick);
        let in_time = self.may_read(state);
        offer(state.sent.is_none() && state.next <= RENEWALS && in_time, Action::Send);
        offer(state.sent.is_some_and(|sent| !sent.landed), Action::Land);
        offer(state.sent.is_some_and(|sent| sent.landed), Action::Answer);
        offer(state.reads && state.sent.is_none(), Action::Leave);
        offer(!state.collected && state.asked.is_none(), Action::Ask);
        offer(matches!(state.asked, Some((_, None))), Action::List);
        offer(matches!(state.asked, Some((_, Some(_)))), Action::Collect);
    }

    fn apply(&self, before: &State, action: Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Send => {
                state.sent = Some(Sent { number: state.next, began: state.now, landed: false });
                state.next += 1;
            }
            Action::Land => {
                if let Some(sent) = &mut state.sent {
                    sent.landed = true;
                    state.there.push(sent.number);
                }
            }
            Action::Answer => {
                if let Some(sent) = state.sent.take() {
                    self.answer(&mut state, sent);
                }
            }
            Action::Leave => {
                state.reads = false;
                state.there.clear();
            }
            Action::Ask => state.asked = Some((state.now, None)),
            Action::List => {
                let newest = state.there.iter().max().copied();
                state.asked = state.asked.map(|(asked, _)| (asked, Some(newest)));
            }
            Action::Collect => self.collect(&mut state),
        }
        state
    }

    fn describe(&self, state: &State, action: Action) -> String {
        match action {
            Action::Tick => format!("it is {}", state.now + 1),
            Action::Send => format!("the reader sends renewal {}", state.next),
            Action::Land => "the renewal lands".to_owned(),
            Action::Answer => "the reader is answered".to_owned(),
            Action::Leave => "the reader lets go".to_owned(),
            Action::Ask => "the collector asks for the pins".to_owned(),
            Action::List => "the listing is made".to_owned(),
            Action::Collect => "the collector is answered, and decides".to_owned(),
        }
    }

    fn check(&self, state: &State) -> Option<String> {
        let lost = state.collected && self.may_read(state);
        lost.then(|| "the reader reads what was deleted".to_owned())
    }
}

const LOST: &str = "the reader reads what was deleted";

#[test]
fn pins_hold_as_long_as_they_are_read() {
    assert_holds(&Pins { off: None });
}

#[test]
fn needs_readers_to_count_from_before_the_write() {
    assert_breaks(&Pins { off: Some(Rule::ReaderCountsFromBeforeTheWrite) }, LOST);
}

#[test]
fn needs_readers_to_stop() {
    assert_breaks(&Pins { off: Some(Rule::ReaderStops) }, LOST);
}

#[test]
fn needs_renewals_to_begin_anew() {
    assert_breaks(&Pins { off: Some(Rule::RenewalBeginsAnew) }, LOST);
}

#[test]
fn needs_renewals_to_be_answered_in_time() {
    assert_breaks(&Pins { off: Some(Rule::AnswerInTime) }, LOST);
}

#[test]
fn needs_ages_from_before_the_listing() {
    assert_breaks(&Pins { off: Some(Rule::AgesFromBeforeTheListing) }, LOST);
}

#[test]
fn needs_sight_from_after_the_listing() {
    assert_breaks(&Pins { off: Some(Rule::SightFromAfterTheListing) }, LOST);
}
