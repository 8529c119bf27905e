//! The server's order to a connection: go on, drain, or stop at once. Orders only ever rise.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Waker};

use futures::task::AtomicWaker;

/// The wanted state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Order {
    /// Serve requests.
    Serve = 0,
    /// Answer the requests that have begun, take no new one, then close: the client asks again
    /// elsewhere.
    Drain = 1,
    /// Close the socket now. Requests that have begun still run to their end.
    Kill = 2,
}

/// One connection's order, and the one task that waits for it to change.
#[derive(Debug, Default)]
pub(crate) struct Control {
    order: AtomicU8,
    waker: AtomicWaker,
}

impl Control {
    /// Raises the order. Ignores a lower one than the present.
    pub(crate) fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Gives the order; the connection's task is woken when it rises afterwards.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Order {
        self.register(cx.waker());
        self.now()
    }

    /// Gives the order.
    pub(crate) fn now(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Drain,
            _ => Order::Kill,
        }
    }

    fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_only_rise() {
        let control = Control::default();
        assert_eq!(control.now(), Order::Serve);
        control.give(Order::Kill);
        control.give(Order::Drain);
        assert_eq!(control.now(), Order::Kill);
    }
}
