//! Several connections between the same two nodes as one.
//!
//! Participants: the sender and the receiver of a move. Each has one [`Session`] at a time, and
//! assembles a new one after the end of the last.
//!
//! Goals: blocks don't delay what a guest waits for, since they have connections of their own. The
//! end of one connection ends the session with one typed error. A new session goes on where the old
//! one ended. Non-goals: making connections, deciding when to try again.
//!
//! Must hold: messages of one connection arrive in order. Those of different connections don't, so
//! the stamps decide which bytes of a block are newer.
use std::task::Poll;

use crate::{
    codec::{DeviceNumber, Hello, Lane, Message},
    connection::{self, Connection, Received, Sender},
};

mod resume;
#[cfg(test)]
mod tests;

pub use resume::{UNCONFIRMED_MAX, Unconfirmed, WRITTEN_MAX, Written};

/// Reason why a session can't begin or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A connection ended, and the session with it.
    #[error("connection {number} of the session ended: {error}")]
    Connection {
        /// Number of the connection.
        number: u16,
        /// Its end.
        error: connection::Error,
    },
    /// The connections are not those of one session, each once and in order.
    #[error("connection {number} is not part of the session")]
    Foreign {
        /// Number at which another connection was expected.
        number: u16,
    },
    /// There is no connection.
    #[error("a session needs a connection")]
    Empty,
}

/// Result of a session's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// The connections of a session.
#[derive(Debug)]
pub struct Session {
    connections: Vec<Connection>,
    senders: Senders,
    turn: usize,
}

/// Sends in a session. Clones share the session, and don't keep it open.
#[derive(Debug, Clone)]
pub struct Senders {
    urgent: Sender,
    blocks: Vec<Sender>,
    turn: usize,
}

/// A message, with the connection on which it came.
#[derive(Debug)]
pub struct Arrived {
    /// Number of the connection. Windows are granted on it.
    pub connection: u16,
    /// The message.
    pub received: Received,
}

impl Session {
    /// Joins the connections of a session, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] names the first whose greeting does not fit the others.
    pub fn assemble(connections: Vec<Connection>) -> Result<Self> {
        let first = *connections.first().ok_or(Error::Empty)?.peer();
        for (number, connection) in (0..).zip(&connections) {
            let expected = Hello { number, ..first };
            if *connection.peer() != expected || connections.len() != usize::from(first.count) {
                return Err(Error::Foreign { number });
            }
        }
        let mut blocks: Vec<Sender> = connections.iter().map(Connection::sender).collect();
        let urgent = blocks[0].clone();
        if blocks.len() > 1 {
            blocks.remove(0);
        }
        let senders = Senders { urgent, blocks, turn: 0 };
        Ok(Self { connections, senders, turn: 0 })
    }

    /// Greeting of the peer's first connection.
    #[must_use]
    pub fn peer(&self) -> &Hello {
        self.connections[0].peer()
    }

    /// A handle that sends.
    #[must_use]
    pub fn senders(&self) -> Senders {
        self.senders.clone()
    }

    /// Waits for the next message of any connection; the first one's go first.
    ///
    /// Losing the future loses no message.
    ///
    /// # Errors
    ///
    /// The end of a connection, after all that came on it. It ends the session.
    pub async fn next(&mut self) -> Result<Arrived> {
        let (at, received) = std::future::poll_fn(|context| self.poll(context)).await;
        let number = u16::try_from(at).unwrap_or(u16::MAX);
        match received {
            Some(received) => Ok(Arrived { connection: number, received }),
            None => {
                let error = self.connections[at].sender().ended().await;
                Err(Error::Connection { number, error })
            }
        }
    }

    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<(usize, Option<Received>)> {
        if let Poll::Ready(received) = self.connections[0].poll_next(context) {
            return Poll::Ready((0, received));
        }
        // The others take turns.
        let count = self.connections.len();
        for step in 1..=count {
            let at = (self.turn + step) % count;
            if at > 0
                && let Poll::Ready(received) = self.connections[at].poll_next(context)
            {
                self.turn = at;
                return Poll::Ready((at, received));
            }
        }
        Poll::Pending
    }

    /// Lets the peer send more of a device on a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] for a number that the session does not have, and the connection's end.
    pub async fn grant(
        &self,
        connection: u16,
        device: DeviceNumber,
        urgent: bool,
        bytes: u64,
    ) -> Result<()> {
        let foreign = Error::Foreign { number: connection };
        let granting = self.connections.get(usize::from(connection)).ok_or(foreign)?;
        let granted = granting.sender().grant(device, urgent, bytes).await;
        granted.map_err(|error| Error::Connection { number: connection, error })
    }
}

impl Senders {
    /// Queues a message on a connection of its lane, once there is room.
    ///
    /// # Errors
    ///
    /// The end of the connection, or the rule that the message would break.
    pub async fn send(
        &mut self,
        lane: Lane,
        device: DeviceNumber,
        message: Message,
    ) -> connection::Result<()> {
        if lane <= Lane::Control {
            return self.urgent.send(lane, device, message).await;
        }
        self.turn = (self.turn + 1) % self.blocks.len();
        self.blocks[self.turn].send(lane, device, message).await
    }

    /// Sets the priority of a device's frames. A lower number goes first.
    pub fn prioritise(&self, device: DeviceNumber, priority: u8) {
        self.urgent.prioritise(device, priority);
        self.blocks.iter().for_each(|sender| sender.prioritise(device, priority));
    }
}
