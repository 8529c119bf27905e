//! The store's present failures, for `status`, and for a log that reports each failure once, not
//! with every try.
//!
//! A caller that gives up notes a failure, and every answer notes a success. One kind of call says
//! nothing of another: with a key that may read and not delete, the store fails at deleting. Only
//! if the store as a whole was out of reach does any answer end the failure.

use crate::error::Error;
use parking_lot::Mutex;
use skerry_core::retry::Trouble;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Interval at which a lasting failure is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The last failure of a kind of call.
#[derive(Debug)]
struct Failing {
    trouble: Trouble,
    text: String,
    /// False once a call has succeeded again; then kept for `logged`.
    is_now: bool,
    /// Time of its last log message, on the boot-time clock.
    logged: Duration,
}

/// The present failures of a store.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// True if any kind of call fails. Answers are many, and must not wait for a lock.
    is_ill: AtomicBool,
    by_action: Mutex<BTreeMap<&'static str, Failing>>,
}

impl Health {
    /// Notes that a caller gave up. `now` is on the boot-time clock.
    pub(crate) fn failed(&self, action: &'static str, error: &Error, now: Duration) {
        let (trouble, text) = (error.trouble(), error.to_string());
        let mut by_action = self.by_action.lock();
        let before = by_action.get(action);
        let is_due = before.is_none_or(|before| now.saturating_sub(before.logged) >= LOG_INTERVAL);
        let logged = before.filter(|_| !is_due).map_or(now, |before| before.logged);
        by_action.insert(action, Failing { trouble, text, is_now: true, logged });
        self.is_ill.store(true, Ordering::Release);
        drop(by_action);
        if is_due {
            tracing::warn!(%error, "the bucket fails; it is tried again");
        }
    }

    /// Notes that the store answered.
    pub(crate) fn answered(&self, action: &'static str) {
        if !self.is_ill.load(Ordering::Acquire) {
            return;
        }
        let mut by_action = self.by_action.lock();
        for (failed, failing) in by_action.iter_mut().filter(|(_, failing)| failing.is_now) {
            let is_of_all = matches!(failing.trouble, Trouble::Busy | Trouble::Away);
            if *failed == action || is_of_all {
                failing.is_now = false;
                tracing::debug!(action = failed, "the bucket answers again");
            }
        }
        let is_ill = by_action.values().any(|failing| failing.is_now);
        self.is_ill.store(is_ill, Ordering::Release);
    }

    /// Describes the present failures for people.
    pub(crate) fn failing(&self) -> Option<String> {
        let by_action = self.by_action.lock();
        let now = by_action.values().filter(|failing| failing.is_now);
        let texts: Vec<_> = now.map(|failing| failing.text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(trouble: Trouble) -> Error {
        let (action, object, detail) = ("doing", "x".to_owned(), format!("{trouble:?}"));
        match trouble {
            Trouble::Denied => Error::Denied { action, object, detail },
            Trouble::Away => Error::Away { action, object, detail },
            _ => Error::Unavailable { action, object, detail },
        }
    }

    #[test]
    fn what_fails_is_told_until_the_same_succeeds() {
        let health = Health::default();
        assert_eq!(health.failing(), None);
        health.failed("deleting", &error(Trouble::Denied), Duration::ZERO);
        health.failed("creating", &error(Trouble::Busy), Duration::ZERO);
        let told = health.failing().expect("two");
        assert!(told.contains("denies doing x") && told.contains("Busy"), "{told}");
        health.answered("reading");
        let told = health.failing().expect("a key that may not delete still may not");
        assert!(told.contains("Denied") && !told.contains("Busy"), "{told}");
        health.answered("deleting");
        assert_eq!(health.failing(), None);
    }

    #[test]
    fn one_failure_is_logged_once_a_minute() {
        let health = Health::default();
        let logged = || health.by_action.lock()["reading"].logged;
        for seconds in 1..200 {
            health.failed("reading", &error(Trouble::Away), Duration::from_secs(seconds));
            let last = logged().as_secs();
            assert!(last == 1 || last == 61 || last == 121 || last == 181, "{last}");
            // Also if it succeeds now and then.
            health.answered("reading");
        }
        assert_eq!(logged().as_secs(), 181);
    }
}
