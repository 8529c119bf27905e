//! Single flight: of many who want the same thing at once, one fetches it and all get it.
//!
//! If the one who fetches gives up, another one takes over; nothing is spawned. Not a cache: as soon
//! as the last one has it, it is forgotten.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The fetches under way, by what they fetch. At most as many as there are callers.
pub(crate) struct Flights<K, V> {
    cells: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self { cells: Mutex::new(HashMap::new()) }
    }

    /// Waits for whoever fetches `key` already, or fetches it.
    pub(crate) async fn run(&self, key: K, fetch: impl Future<Output = V>) -> V {
        let cell = self.cells.lock().entry(key.clone()).or_default().clone();
        let seat = Seat { flights: self, key, cell };
        seat.cell.get_or_init(|| fetch).await.clone()
    }
}

/// One caller's part in a flight; the last one to leave, or the first to leave with the result, ends it.
struct Seat<'a, K: Eq + Hash, V> {
    flights: &'a Flights<K, V>,
    key: K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Eq + Hash, V> Drop for Seat<'_, K, V> {
    fn drop(&mut self) {
        let mut cells = self.flights.cells.lock();
        let ours = cells.get(&self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        // Two owners are left: the table and this seat.
        if ours && (self.cell.initialized() || Arc::strong_count(&self.cell) <= 2) {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn one_fetches_and_all_get_it() {
        let flights = Flights::new();
        let fetched = AtomicU32::new(0);
        let one = || {
            flights.run(7, async {
                tokio::task::yield_now().await;
                fetched.fetch_add(1, Ordering::Relaxed) + 40
            })
        };
        assert_eq!(tokio::join!(one(), one(), one()), (40, 40, 40));
        assert_eq!(one().await, 41, "a flight that has landed is not a cache");
        assert!(flights.cells.lock().is_empty());
    }

    #[tokio::test]
    async fn another_takes_over_from_one_who_gives_up() {
        let flights: Flights<u8, u8> = Flights::new();
        let mut gives_up = Box::pin(flights.run(1, std::future::pending()));
        assert!(futures::poll!(&mut gives_up).is_pending());
        let mut other = Box::pin(flights.run(1, async { 9 }));
        assert!(futures::poll!(&mut other).is_pending());
        drop(gives_up);
        assert_eq!(other.await, 9);
        let mut alone = Box::pin(flights.run(2, std::future::pending()));
        assert!(futures::poll!(&mut alone).is_pending());
        drop(alone);
        assert!(flights.cells.lock().is_empty());
    }
}
