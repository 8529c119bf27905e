//! Single flight: of many callers that want one thing at once, one fetches it and all get it.
//!
//! If the fetcher gives up, the others see that and start over; nothing is spawned. It is not a
//! cache: a landed value is forgotten. Must hold: a caller that has claimed several things finishes
//! them before it waits for another's. So no callers wait in a circle.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use tokio::sync::watch;

/// The fetches under way, by key. Bounded by the claims of their callers.
pub(crate) struct Flights<K: Eq + Hash + Clone, V> {
    under_way: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
}

/// Says which caller fetches.
pub(crate) enum Claim<'a, K: Eq + Hash + Clone, V> {
    /// This caller fetches, and lands the value.
    Mine(Flight<'a, K, V>),
    /// Another caller fetches.
    Theirs(Landing<V>),
}

/// A fetch that this caller must do.
pub(crate) struct Flight<'a, K: Eq + Hash + Clone, V> {
    flights: &'a Flights<K, V>,
    key: K,
    sender: watch::Sender<Option<V>>,
}

/// A fetch that another caller does.
pub(crate) struct Landing<V>(watch::Receiver<Option<V>>);

impl<K: Eq + Hash + Clone, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self { under_way: Mutex::new(HashMap::new()) }
    }

    /// Takes on the fetch of `key`, unless another caller has.
    pub(crate) fn claim(&self, key: K) -> Claim<'_, K, V> {
        let mut under_way = self.under_way.lock();
        if let Some(theirs) = under_way.get(&key) {
            return Claim::Theirs(Landing(theirs.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key.clone(), receiver);
        Claim::Mine(Flight { flights: self, key, sender })
    }

    /// Waits for the present fetch of `key`, or fetches it.
    pub(crate) async fn run(&self, key: K, fetch: impl Future<Output = V>) -> V {
        loop {
            match self.claim(key.clone()) {
                Claim::Mine(flight) => {
                    let value = fetch.await;
                    flight.land(value.clone());
                    return value;
                }
                Claim::Theirs(landing) => {
                    if let Some(value) = landing.wait().await {
                        return value;
                    }
                }
            }
        }
    }
}

impl<K: Eq + Hash + Clone, V> Flight<'_, K, V> {
    /// Gives the value to all waiters.
    pub(crate) fn land(self, value: V) {
        self.sender.send_replace(Some(value));
    }
}

impl<K: Eq + Hash + Clone, V> Drop for Flight<'_, K, V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.key);
    }
}

impl<V: Clone> Landing<V> {
    /// Gives the fetched value, or nothing if the fetcher gave up.
    pub(crate) async fn wait(mut self) -> Option<V> {
        let landed = self.0.wait_for(Option::is_some).await.ok()?;
        landed.clone()
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
        assert!(flights.under_way.lock().is_empty());
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
        assert!(flights.under_way.lock().is_empty());
    }
}
