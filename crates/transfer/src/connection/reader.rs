//! Reads frames, checks them, and hands them to the caller.

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
    time::timeout,
};

use super::{Error, Memory, Result, SILENCE_MAX, Sender, memory::Charge};
use crate::codec::{self, Compression, DeviceNumber, HEAD_BYTES, Head, Kind, Lane, Message};

/// Bytes of memory for each byte of a payload: the entries of a list are longer in memory.
const CHARGE_FACTOR: usize = 3;
/// Bytes of memory for each frame.
const CHARGE_FIXED: usize = 512;

/// A received message. The connection's account holds its bytes until it is dropped.
#[derive(Debug)]
pub struct Received {
    /// Lane on which it came.
    pub lane: Lane,
    /// Device that it is about, or none.
    pub device: DeviceNumber,
    /// Number of its frame on this connection.
    pub sequence: u64,
    /// Length of its payload, in bytes: what it took of its window.
    pub payload_bytes: usize,
    /// The message.
    pub message: Message,
    charge: Charge,
}

/// Reads until an error, and makes that the connection's end.
pub(super) async fn run<R>(
    mut stream: R,
    memory: Memory,
    sender: Sender,
    queue: mpsc::Sender<Received>,
) where
    R: AsyncRead + Unpin,
{
    tokio::select! {
        error = read_all(&mut stream, &memory, &sender, &queue) => sender.end.set(error),
        _ = sender.end.wait() => {}
    }
}

async fn read_all<R>(
    stream: &mut R,
    memory: &Memory,
    sender: &Sender,
    queue: &mpsc::Sender<Received>,
) -> Error
where
    R: AsyncRead + Unpin,
{
    // The greeting was number 0.
    let mut sequence = 1;
    loop {
        match read_one(stream, memory, sender, sequence).await {
            Ok(None) => {}
            Ok(Some(received)) => {
                if queue.send(received).await.is_err() {
                    return Error::Closed;
                }
            }
            Err(error) => return error,
        }
        sequence += 1;
    }
}

/// Reads a frame. Gives nothing if it was about the connection itself.
async fn read_one<R>(
    stream: &mut R,
    memory: &Memory,
    sender: &Sender,
    sequence: u64,
) -> Result<Option<Received>>
where
    R: AsyncRead + Unpin,
{
    let head = read_head(stream, sequence).await?;
    if head.kind == Kind::Hello {
        return Err(codec::Error::WrongField { kind: head.kind, field: "kind" }.into());
    }
    sender.credit.lock().take(&head)?;
    let received = read_message(stream, memory, head).await?;
    match received.message {
        Message::KeepAlive => Ok(None),
        Message::Window { bytes, urgent } => {
            sender.outgoing.grant(head.device, urgent, bytes);
            Ok(None)
        }
        Message::Error(reason) => Err(Error::Peer(reason)),
        _ => Ok(Some(received)),
    }
}

/// Reads a head, and checks it and its number.
pub(super) async fn read_head<R>(stream: &mut R, expected: u64) -> Result<Head>
where
    R: AsyncRead + Unpin,
{
    let mut bytes = BytesMut::with_capacity(HEAD_BYTES);
    read_exact(stream, &mut bytes, HEAD_BYTES).await.map_err(|error| match error {
        Error::Cut if bytes.is_empty() => Error::Closed,
        other => other,
    })?;
    let mut array = [0; HEAD_BYTES];
    array.copy_from_slice(&bytes);
    let head = Head::decode(&array)?;
    match head.sequence == expected {
        true => Ok(head),
        false => Err(codec::Error::WrongSequence { expected, found: head.sequence }.into()),
    }
}

/// Reads the payload that follows a head. Charges it before it allocates.
pub(super) async fn read_message<R>(stream: &mut R, memory: &Memory, head: Head) -> Result<Received>
where
    R: AsyncRead + Unpin,
{
    let too_long = || codec::Error::WrongLength { kind: head.kind };
    let bytes = head.payload_bytes * CHARGE_FACTOR + CHARGE_FIXED;
    let mut charge = memory.charge(bytes).await.ok_or_else(too_long)?;
    let mut payload = BytesMut::with_capacity(head.payload_bytes);
    read_exact(stream, &mut payload, head.payload_bytes).await?;
    let message = Message::decode(head.kind, payload.freeze())?;
    let packed = packed_bytes(&message);
    if packed > 0 {
        charge.join(memory.charge(packed).await.ok_or_else(too_long)?);
    }
    let Head { lane, device, sequence, payload_bytes, .. } = head;
    Ok(Received { lane, device, sequence, payload_bytes, message, charge })
}

/// Bytes that the caller will hold when it has decompressed a message.
fn packed_bytes(message: &Message) -> usize {
    let Message::Data(extents) = message else { return 0 };
    extents
        .iter()
        .filter(|extent| extent.compression != Compression::Raw)
        .map(|extent| usize::try_from(extent.named.length).unwrap_or(usize::MAX))
        .sum()
}

/// Fills a buffer. Each byte that comes proves that the peer lives.
async fn read_exact<R>(stream: &mut R, bytes: &mut BytesMut, length: usize) -> Result<()>
where
    R: AsyncRead + Unpin,
{
    while bytes.len() < length {
        let left = u64::try_from(length - bytes.len()).unwrap_or(u64::MAX);
        let mut limited = (&mut *stream).take(left);
        let read = timeout(SILENCE_MAX, limited.read_buf(bytes)).await.map_err(|_| Error::Lost)?;
        if read? == 0 {
            return Err(Error::Cut);
        }
    }
    Ok(())
}

impl Received {
    /// Splits off the message. The account holds its bytes until `Held` is dropped.
    #[must_use]
    pub fn into_parts(self) -> (Message, Held) {
        (self.message, Held(self.charge))
    }
}

/// Keeps a message's bytes in its connection's account.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "dropping it gives the bytes back")] Charge);
