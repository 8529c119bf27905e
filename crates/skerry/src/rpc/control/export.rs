//! The node's side of an export: it reads stored ranges ahead of the client, and skips holes.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use skerry_api::v1::export_volume_response::Message;
use skerry_api::{Error, ErrorKind, PIECE_BYTES_MAX, Result, v1};
use skerry_volume::{Device, StatusRange};

use crate::api_error::of_engine;
use crate::zeros::is_zero;

/// Number of reads ahead of the client: enough to keep a bucket busy, at a MiB each.
const READS_AHEAD: usize = 8;
/// Number of ranges in one question, and the bytes that it covers. They bound the memory for an
/// export of a fragmented volume.
const RANGES_MAX: usize = 1024;
const WINDOW_BYTES_MAX: u64 = 4 << 30;

/// Gives the head, and then the content in order and without gaps.
pub(super) fn messages(
    device: Arc<Device>,
) -> impl Stream<Item = Result<v1::ExportVolumeResponse>> + Send {
    let size_bytes = device.size_bytes();
    let head = Message::Head(v1::ExportHead { size_bytes });
    let reader = device.clone();
    let content = ranges(device, size_bytes)
        .map_ok(move |range| read(reader.clone(), range))
        .try_buffered(READS_AHEAD);
    futures::stream::once(async { Ok(head) })
        .chain(content)
        .map_ok(|message| v1::ExportVolumeResponse { message: Some(message) })
}

/// Gives everything up to `size_bytes`, in order: holes of any length, data of a piece at most.
fn ranges(device: Arc<Device>, size_bytes: u64) -> impl Stream<Item = Result<StatusRange>> + Send {
    futures::stream::try_unfold((device, 0), move |(device, at)| async move {
        if at >= size_bytes {
            return Ok(None);
        }
        let window = (size_bytes - at).min(WINDOW_BYTES_MAX);
        let found = device.status(at, window, RANGES_MAX).await.map_err(of_engine)?;
        let (ranges, next) = cut(&found, at, size_bytes)?;
        Ok::<_, Error>(Some((futures::stream::iter(ranges).map(Ok), (device, next))))
    })
    .try_flatten()
}

/// Cuts ranges to size. Gives their end.
fn cut(found: &[StatusRange], start: u64, size_bytes: u64) -> Result<(Vec<StatusRange>, u64)> {
    let mut ranges = Vec::with_capacity(found.len());
    let mut at = start;
    for range in found {
        if range.offset != at || range.length == 0 {
            let message = format!("the engine has a gap at byte {at}: report this");
            return Err(Error::new(ErrorKind::Internal, message));
        }
        let end = at.saturating_add(range.length).min(size_bytes);
        while at < end {
            let piece = if range.hole { u64::MAX } else { PIECE_BYTES_MAX as u64 };
            let length = piece.min(end - at);
            ranges.push(StatusRange { offset: at, length, hole: range.hole });
            at += length;
        }
    }
    if at == start {
        let message = format!("the engine knows nothing of byte {at}: report this");
        return Err(Error::new(ErrorKind::Internal, message));
    }
    Ok((ranges, at))
}

async fn read(device: Arc<Device>, range: StatusRange) -> Result<Message> {
    let StatusRange { offset, length, hole } = range;
    if hole {
        return Ok(Message::Hole(v1::Hole { offset, length }));
    }
    let bytes = device.read(offset, length as usize).await.map_err(of_engine)?;
    if is_zero(&bytes) {
        return Ok(Message::Hole(v1::Hole { offset, length }));
    }
    Ok(Message::Data(v1::Data { offset, bytes }))
}
