//! How many bytes all connections hold together: a count that is shared, never waited for.
//!
//! Nobody is woken when it falls: a connection that holds nothing may always go on with one
//! request (see [`super::Limits`]), so each is woken by the end of its own requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The count of a whole server.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }
}

/// One connection's share; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    mine: usize,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, mine: 0 }
    }

    /// Says how much the connection holds now.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.mine {
            self.budget.used.fetch_add(bytes - self.mine, Ordering::Relaxed);
        } else if bytes < self.mine {
            self.budget.used.fetch_sub(self.mine - bytes, Ordering::Relaxed);
        }
        self.mine = bytes;
    }

    /// Whether all connections together hold as much as they may.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.budget.used.load(Ordering::Relaxed) >= self.budget.max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let budget = Budget::new(100);
        let mut a = Share::new(budget.clone());
        let mut b = Share::new(budget);
        a.set(60);
        assert!(!b.is_exhausted());
        b.set(40);
        assert!(a.is_exhausted());
        a.set(10);
        assert!(!a.is_exhausted());
        a.set(60);
        drop(b);
        assert!(!a.is_exhausted());
    }
}
