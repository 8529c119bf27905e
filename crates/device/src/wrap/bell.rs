//! Wakes futures that wait for a change of state.
//!
//! A waiter listens *before* it looks at the state, and waits if the state is not the wanted one.
//! Then no change between look and wait is missed.

use futures::channel::oneshot;
use parking_lot::Mutex;

/// Futures that listen, until the next ring.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    listening: Mutex<Vec<oneshot::Sender<()>>>,
}

/// Ends when the bell rings. Dropping it is safe.
pub(crate) type Ring = oneshot::Receiver<()>;

impl Bell {
    /// Listens for the next ring.
    pub(crate) fn listen(&self) -> Ring {
        let (sender, ring) = oneshot::channel();
        let mut listening = self.listening.lock();
        // Listeners that went away are removed now and then, so that they don't add up.
        if listening.len().is_power_of_two() {
            listening.retain(|sender| !sender.is_canceled());
        }
        listening.push(sender);
        ring
    }

    /// Wakes all that listen.
    pub(crate) fn ring(&self) {
        let listening = std::mem::take(&mut *self.listening.lock());
        for sender in listening {
            let _ = sender.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_went_away_take_no_room() {
        let bell = Bell::default();
        let _stays = bell.listen();
        for _ in 0..1000 {
            drop(bell.listen());
        }
        assert!(bell.listening.lock().len() <= 4);
    }
}
