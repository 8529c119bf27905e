//! Single flight: of many who want the same thing at once, one fetches it and all get it.
//!
//! If the one who fetches gives up, the others see that and start over; nothing is spawned. Not a
//! cache: what has landed is forgotten. Must hold: who has claimed several things finishes them
//! before waiting for anybody else's, so that nobody waits in a circle.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use tokio::sync::watch;

/// The fetches under way, by what they fetch. At most as many as their callers have claimed.
pub(crate) struct Flights<K: Eq + Hash + Clone, V> {
    under_way: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
}

/// Who fetches.
pub(crate) enum Claim<'a, K: Eq + Hash + Clone, V> {
    /// The caller does, and lands it.
    Mine(Flight<'a, K, V>),
    /// Somebody else does.
    Theirs(Landing<V>),
}

/// A fetch that is the caller's to do.
pub(crate) struct Flight<'a, K: Eq + Hash + Clone, V> {
    flights: &'a Flights<K, V>,
    key: K,
    sender: watch::Sender<Option<V>>,
}

/// A fetch that somebody else does.
pub(crate) struct Landing<V>(watch::Receiver<Option<V>>);

impl<K: Eq + Hash + Clone, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self { under_way: Mutex::new(HashMap::new()) }
    }

    /// Takes on the fetch of `key`, unless somebody has.
    pub(crate) fn claim(&self, key: K) -> Claim<'_, K, V> {
        let mut under_way = self.under_way.lock();
        if let Some(theirs) = under_way.get(&key) {
            return Claim::Theirs(Landing(theirs.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key.clone(), receiver);
        Claim::Mine(Flight { flights: self, key, sender })
    }

    /// Waits for whoever fetches `key` already, or fetches it.
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
    /// Gives the result to everybody who waits.
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
    /// What was fetched, or nothing if whoever fetched gave up.
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
