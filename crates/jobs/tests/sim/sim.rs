//! One run: the state that all its actors share.

use crate::known::Facts;
use crate::model::Model;
use crate::world::{Kind, World};
use skerry_core::env::Clock;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Steps of a run, for people, and to compare two runs.
pub type Trace = Arc<Mutex<Vec<String>>>;

/// One run. One task polls all its actors, so that nothing here is shared between threads.
pub struct Sim {
    pub world: World,
    pub model: RefCell<Model>,
    pub seed: u64,
    /// Number of openings of the shard, and time of the last, by its clock.
    pub opened: Cell<u32>,
    pub opened_ms: Cell<u64>,
    /// Time when a caller was first told that the shard is out of service.
    pub broken: Cell<Option<Duration>>,
    /// True if calls of the store may fail, or have been made to.
    pub disturbed: Cell<bool>,
    /// True if the wall clock was set.
    pub jumped: Cell<bool>,
    trace: Trace,
}

impl Sim {
    pub fn new(seed: u64, kind: Kind, trace: Trace) -> Self {
        Self {
            world: World::new(seed, kind),
            model: RefCell::default(),
            seed,
            opened: Cell::new(0),
            opened_ms: Cell::new(0),
            broken: Cell::new(None),
            disturbed: Cell::new(false),
            jumped: Cell::new(false),
            trace,
        }
    }

    /// Notes a step, with its time and the number of calls of the store.
    pub fn say(&self, line: impl AsRef<str>) {
        let now = self.world.time.boot().as_secs_f64();
        let line = format!("{now:>10.3} {:>5} {}", self.world.faults.calls(), line.as_ref());
        if std::env::var_os("SKERRY_TRACE").is_some() {
            eprintln!("{line}");
        }
        if let Ok(mut trace) = self.trace.lock() {
            trace.push(line);
        }
    }

    /// The facts of a job that are certain now.
    pub fn facts(&self, number: usize) -> Facts {
        self.model.borrow().jobs[number].facts.clone()
    }
}
