//! Writes the frames that wait, and keep-alives when none does.

use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{Error, KEEP_ALIVE, Result, Sender, outgoing::Next};
use crate::codec::{DeviceNumber, Head, Lane, Message, Pieces};

/// Small frames are written together up to this length: a demand waits for no more.
const BATCH_BYTES: usize = 64 << 10;

struct Writer<W> {
    stream: W,
    pieces: Pieces,
    sequence: u64,
    /// Set while the stream may have a part of a frame.
    midway: bool,
}

/// Writes until the connection ends. Then tells the peer which rule it broke.
pub(super) async fn run<W>(stream: W, sender: Sender)
where
    W: AsyncWrite + Unpin,
{
    // The greeting was number 0.
    let mut writer = Writer { stream, pieces: Pieces::default(), sequence: 1, midway: false };
    tokio::select! {
        biased;
        end = sender.end.wait() => writer.tell(&end).await,
        written = writer.write_all(&sender) => {
            if let Err(error) = written {
                sender.end.set(error);
            }
        }
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes all frames, until the caller closes.
    async fn write_all(&mut self, sender: &Sender) -> Result<()> {
        loop {
            let next = self.gather(sender)?;
            if !self.pieces.is_empty() {
                sender.outgoing.has_room();
                self.write().await?;
                continue;
            }
            self.stream.flush().await?;
            if matches!(next, Next::Close) {
                return Ok(self.stream.shutdown().await?);
            }
            if timeout(KEEP_ALIVE, sender.outgoing.wait()).await.is_err() {
                self.add(Lane::Control, DeviceNumber::NONE, &Message::KeepAlive)?;
                self.write().await?;
            }
        }
    }

    /// Collects frames up to a batch. Gives the reason why it stopped.
    fn gather(&mut self, sender: &Sender) -> Result<Next> {
        while self.pieces.len() < BATCH_BYTES {
            match sender.outgoing.pop() {
                Next::Frame(entry) => self.add(entry.lane, entry.device, &entry.item)?,
                other => return Ok(other),
            }
        }
        Ok(Next::Wait)
    }

    fn add(&mut self, lane: Lane, device: DeviceNumber, message: &Message) -> Result<()> {
        let (payload_bytes, kind) = (message.payload_bytes(), message.kind());
        let head = Head { payload_bytes, kind, lane, device, sequence: self.sequence };
        message.encode(&head, &mut self.pieces)?;
        self.sequence += 1;
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        self.midway = true;
        while let Some(piece) = self.pieces.pop() {
            self.stream.write_all(&piece).await?;
        }
        self.midway = false;
        Ok(())
    }

    /// Sends the reason of an end. Does so only between two frames, and waits for no slow peer.
    async fn tell(&mut self, end: &Error) {
        if *end == Error::Closed && !self.midway {
            drop(timeout(KEEP_ALIVE, self.stream.shutdown()).await);
        }
        let Some(reason) = end.reason() else { return };
        let (lane, device) = (Lane::Control, DeviceNumber::NONE);
        self.pieces = Pieces::default();
        if !self.midway && self.add(lane, device, &Message::Error(reason)).is_ok() {
            let told = async {
                self.write().await?;
                Ok::<(), Error>(self.stream.shutdown().await?)
            };
            drop(timeout(KEEP_ALIVE, told).await);
        }
    }
}
