//! The greeting: both sides send `Hello`, and read the peer's.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Error, GREETING_MAX, Memory, Result, reader};
use crate::codec::{self, DeviceNumber, Head, Hello, Kind, Lane, Message, Pieces};

/// Sends our greeting and reads the peer's. Gives it with the version and features of both.
pub(super) async fn greet<S>(stream: &mut S, ours: &Hello) -> Result<(Hello, u16, u64)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        write(stream, &Message::Hello(*ours), 0).await?;
        read(stream).await
    };
    let answer = tokio::time::timeout(GREETING_MAX, exchange).await.map_err(|_| Error::Late)?;
    let agreed = answer.and_then(|peer| {
        let (version, features) = ours.agree(&peer)?;
        Ok((peer, version, features))
    });
    if let Some(reason) = agreed.as_ref().err().and_then(Error::reason) {
        // The peer may have gone. The first error is the one that counts.
        let message = Message::Error(reason);
        let told = write(stream, &message, 1);
        drop(tokio::time::timeout(GREETING_MAX, told).await);
    }
    agreed
}

async fn write<S>(stream: &mut S, message: &Message, sequence: u64) -> Result<()>
where
    S: AsyncWrite + Unpin,
{
    let (payload_bytes, kind) = (message.payload_bytes(), message.kind());
    let (lane, device) = (Lane::Control, DeviceNumber::NONE);
    let mut pieces = Pieces::default();
    message.encode(&Head { payload_bytes, kind, lane, device, sequence }, &mut pieces)?;
    while let Some(piece) = pieces.pop() {
        stream.write_all(&piece).await?;
    }
    Ok(stream.flush().await?)
}

async fn read<S>(stream: &mut S) -> Result<Hello>
where
    S: AsyncRead + Unpin,
{
    // No other message may come yet, so no more memory than for these two is needed.
    let memory = Memory::new(codec::CONTROL_PAYLOAD_BYTES_MAX * 4);
    let head = reader::read_head(stream, 0).await?;
    if !matches!(head.kind, Kind::Hello | Kind::Error) {
        return Err(codec::Error::WrongLane { kind: head.kind, lane: head.lane }.into());
    }
    match reader::read_message(stream, &memory, head).await?.message {
        Message::Hello(hello) => Ok(hello),
        Message::Error(reason) => Err(Error::Peer(reason)),
        other => Err(codec::Error::WrongField { kind: other.kind(), field: "kind" }.into()),
    }
}
