//! The order of a stream's locks: its state first, then its snapshots.
//!
//! Two threads that take two locks in opposite orders wait for each other for ever, and the more
//! clients a volume has, the sooner. So a build with debug assertions watches each thread. A thread
//! that locks a [`First`] while it holds a [`Second`] panics, whether or not another thread comes
//! the other way.

use parking_lot::{Mutex, MutexGuard};
use std::ops::{Deref, DerefMut};

#[cfg(debug_assertions)]
thread_local! {
    /// Number of second locks that this thread holds.
    static HELD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A mutex that is locked first.
#[derive(Debug)]
pub(crate) struct First<T>(Mutex<T>);

impl<T> First<T> {
    /// Makes a mutex of a value.
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Locks it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(debug_assertions)]
        HELD.with(|held| assert_eq!(held.get(), 0, "the snapshots are locked before the state"));
        self.0.lock()
    }
}

/// A mutex that is locked last: its holder locks no [`First`].
#[derive(Debug)]
pub(crate) struct Second<T>(Mutex<T>);

impl<T> Second<T> {
    /// Makes a mutex of a value.
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Locks it.
    pub(crate) fn lock(&self) -> SecondGuard<'_, T> {
        let guard = self.0.lock();
        #[cfg(debug_assertions)]
        HELD.with(|held| held.set(held.get() + 1));
        SecondGuard(guard)
    }
}

/// Lives while the thread holds a [`Second`].
pub(crate) struct SecondGuard<'a, T>(MutexGuard<'a, T>);

impl<T> Deref for SecondGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for SecondGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(debug_assertions)]
impl<T> Drop for SecondGuard<'_, T> {
    fn drop(&mut self) {
        HELD.with(|held| held.set(held.get() - 1));
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_watched() {
        let (first, second) = (First::new(1), Second::new(2));
        let state = first.lock();
        assert_eq!(*state + *second.lock(), 3);
        drop(state);
        let wrong = std::thread::scope(|scope| {
            let wrong = scope.spawn(|| {
                let held = second.lock();
                *held + *first.lock()
            });
            wrong.join()
        });
        assert!(wrong.is_err(), "the wrong order passes");
        assert_eq!(*first.lock() + *second.lock(), 3);
    }
}
