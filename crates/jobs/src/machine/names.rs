//! Texts that many jobs share, kept once, as long as one job uses them.

use super::pool::Pool;
use std::collections::HashMap;
use std::hash::Hash;

/// Values that are kept once, each under a number.
#[derive(Debug)]
pub(super) struct Names<T> {
    by_value: HashMap<T, u32>,
    pool: Pool<(T, u32)>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { by_value: HashMap::new(), pool: Pool::default() }
    }
}

impl<T: Clone + Eq + Hash> Names<T> {
    /// Gives the value's number, and counts one more use.
    pub(super) fn hold(&mut self, value: &T) -> u32 {
        let at = self.find(value).unwrap_or_else(|| {
            let at = self.pool.insert((value.clone(), 0));
            self.by_value.insert(value.clone(), at);
            at
        });
        self.pool[at].1 += 1;
        at
    }

    /// Counts one more use of a known value.
    pub(super) fn hold_again(&mut self, at: u32) {
        self.pool[at].1 += 1;
    }

    /// Counts one use less. True if that was the last.
    pub(super) fn release(&mut self, at: u32) -> bool {
        self.pool[at].1 -= 1;
        if self.pool[at].1 > 0 {
            return false;
        }
        let (value, _) = self.pool.remove(at);
        self.by_value.remove(&value);
        true
    }

    /// All values in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.by_value.iter().map(|(value, at)| (*at, value))
    }

    /// The number of a value in use.
    pub(super) fn find(&self, value: &T) -> Option<u32> {
        self.by_value.get(value).copied()
    }

    /// The value, if it is in use.
    pub(super) fn try_get(&self, at: u32) -> Option<&T> {
        self.pool.get(at).map(|(value, _)| value)
    }
}
