//! One connection between two nodes: frames in both directions over any stream of bytes.
//!
//! Participants: this side and its *peer*, each with a reader and a writer that run as tasks. The
//! caller sends through [`Sender::send`], and takes what came by [`Connection::next`].
//!
//! Goals: the memory of a connection is bounded whatever the peer sends. A silent peer becomes
//! [`Error::Lost`] after [`SILENCE_MAX`]. A broken rule ends the connection and names the rule.
//! Non-goals: reconnecting (that is the session's), and deciding who the peer is.
//!
//! Must hold:
//!
//! - the reader charges a frame before it allocates anything for it;
//! - the first error of either task is the connection's end, and all later calls return it;
//! - time without a byte counts only while the reader waits for bytes. So a slow caller does not
//!   make a live peer a lost one.
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
};

mod credit;
mod end;
mod error;
mod greet;
mod memory;
mod outgoing;
mod reader;
#[cfg(test)]
mod tests;
pub mod tls;
mod writer;

pub use error::{Error, Result};
pub use memory::Memory;
pub use reader::{Held, Received};

use crate::codec::{DeviceNumber, Hello, Lane, Message};
use credit::Credit;
use end::End;
use outgoing::Outgoing;

/// Longest time without a byte of the peer, before it counts as lost.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Time without a frame of this side, after which it sends a keep-alive.
pub const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Longest time until the peer's `Hello` is there.
pub const GREETING_MAX: Duration = Duration::from_secs(5);
/// Most bytes of received frames that a connection holds. With [`QUEUED_BYTES_MAX`] and the frames
/// being written it stays below 64 MiB.
///
/// [`QUEUED_BYTES_MAX`]: crate::lanes::QUEUED_BYTES_MAX
pub const RECEIVED_BYTES_MAX: usize = 32 << 20;
/// Received frames that wait for the caller. Memory bounds large ones, this bounds small ones.
const RECEIVED_FRAMES_MAX: usize = 256;

/// A greeted connection. Dropping it ends it at once, with whatever waits to be sent.
#[derive(Debug)]
pub struct Connection {
    peer: Hello,
    version: u16,
    features: u64,
    sender: Sender,
    received: mpsc::Receiver<Received>,
    memory: Memory,
    tasks: JoinSet<()>,
}

/// Sends on a connection. Clones share the connection, and don't keep it open.
#[derive(Debug, Clone)]
pub struct Sender {
    outgoing: Arc<Outgoing>,
    credit: Arc<Mutex<Credit>>,
    end: Arc<End>,
}

impl Connection {
    /// Greets the peer at the other end of a stream, and begins to read and write.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] without a `Hello` in [`GREETING_MAX`], [`Error::Codec`] for a wrong one or
    /// without a common version, and the stream's own errors.
    pub async fn open<S>(mut stream: S, hello: Hello) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (peer, version, features) = greet::greet(&mut stream, &hello).await?;
        let (reads, writes) = tokio::io::split(stream);
        let end = Arc::new(End::default());
        let outgoing = Arc::new(Outgoing::new(peer.window_bytes));
        let credit = Arc::new(Mutex::new(Credit::new(hello.window_bytes)));
        let memory = Memory::new(RECEIVED_BYTES_MAX);
        let (queue, received) = mpsc::channel(RECEIVED_FRAMES_MAX);
        let sender = Sender { outgoing, credit, end };
        let mut tasks = JoinSet::new();
        tasks.spawn(reader::run(reads, memory.clone(), sender.clone(), queue));
        tasks.spawn(writer::run(writes, sender.clone()));
        Ok(Self { peer, version, features, sender, received, memory, tasks })
    }

    /// Greeting of the peer.
    #[must_use]
    pub fn peer(&self) -> &Hello {
        &self.peer
    }

    /// Version that both sides use.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Features that both sides have.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Account of the received frames that are held.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A handle that sends.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Waits for the next message. Keep-alives and windows stay inside.
    ///
    /// Losing the future loses no message.
    ///
    /// # Errors
    ///
    /// The connection's end, after all messages that came before it.
    pub async fn next(&mut self) -> Result<Received> {
        match self.received.recv().await {
            Some(received) => Ok(received),
            None => Err(self.sender.end.wait().await),
        }
    }

    /// Polls for the next message. Nothing after the end.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.received.poll_recv(context)
    }

    /// Sends what waits, and closes.
    ///
    /// # Errors
    ///
    /// The connection's end, if another one came first.
    pub async fn close(mut self) -> Result<()> {
        self.sender.outgoing.close();
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(Error::Closed) => break,
                Err(error) => return Err(error),
            }
        }
        self.tasks.shutdown().await;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Producers that wait must not wait for ever.
        self.sender.end.set(Error::Closed);
    }
}

impl Sender {
    /// Queues a message, once its lane and its device's window have room.
    ///
    /// Losing the future sends nothing. A message that is queued is sent if the connection lives.
    ///
    /// # Errors
    ///
    /// The connection's end, or the rule that the message would break.
    pub async fn send(&self, lane: Lane, device: DeviceNumber, message: Message) -> Result<()> {
        tokio::select! {
            biased;
            error = self.end.wait() => Err(error),
            queued = self.outgoing.push(lane, device, message) => queued,
        }
    }

    /// Lets the peer send more of a device. `urgent` means the window of the demand lane.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`].
    pub async fn grant(&self, device: DeviceNumber, urgent: bool, bytes: u64) -> Result<()> {
        self.credit.lock().grant(device, urgent, bytes);
        self.send(Lane::Control, device, Message::Window { bytes, urgent }).await
    }

    /// Sets the priority of a device's frames. A lower number goes first.
    pub fn prioritise(&self, device: DeviceNumber, priority: u8) {
        self.outgoing.prioritise(device, priority);
    }

    /// Waits for the connection's end, and says why it ended.
    pub async fn ended(&self) -> Error {
        self.end.wait().await
    }
}
