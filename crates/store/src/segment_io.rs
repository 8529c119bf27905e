//! Reading what stands at a number of a stream: a segment's head, a seal, or nothing.

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use skerry_core::FormatError;
use skerry_core::id::VolumeId;
use skerry_core::names;
use skerry_core::position::{Number, Position, SegmentKey};
use skerry_core::seal::Seal;
use skerry_core::segment::{HeadRead, SegmentHead, SegmentKind};
use skerry_core::takeover::Found;

/// How much of a segment is read at first: holds the head of a batch of 4,096 scattered blocks, so
/// that one GET is almost always enough.
pub const HEAD_GUESS_BYTES: u64 = 128 << 10;

/// An object whose checksums are right and whose place in the volume is not.
pub(crate) fn corrupt(name: &str, detail: &str) -> Error {
    Error::format(name, FormatError::invalid("segment", detail))
}

/// What stands at `key`.
pub async fn read(bucket: &Bucket, key: SegmentKey) -> Result<Found<Box<SegmentHead>>> {
    let name = names::segment(key);
    let Some(prefix) = bucket.get_range(&name, 0..HEAD_GUESS_BYTES).await? else {
        return Ok(Found::Missing);
    };
    if Seal::is(&prefix) {
        return Ok(Found::Seal(Seal::decode(&prefix).map_err(|e| Error::format(&name, e))?));
    }
    let mut read = SegmentHead::parse(&prefix).map_err(|e| Error::format(&name, e))?;
    if let HeadRead::Need(len) = read {
        let longer = bucket.get_range(&name, 0..len as u64).await?.unwrap_or_default();
        read = SegmentHead::parse(&longer).map_err(|e| Error::format(&name, e))?;
    }
    match read {
        HeadRead::Head(head) if head.id.key == key => Ok(Found::Segment(head)),
        HeadRead::Head(_) => Err(corrupt(&name, "it says that it is another segment")),
        HeadRead::Need(_) => Err(corrupt(&name, "it is cut short")),
    }
}

/// Checks that a segment is the one that follows a position.
pub fn check_follows(head: &SegmentHead, at: &Position, volume: VolumeId) -> Result<()> {
    let name = names::segment(head.id.key);
    let first = at.number == Number::ZERO;
    let detail = if head.id.volume != volume {
        "it belongs to another volume"
    } else if head.id.kind != SegmentKind::Foreground {
        "it is not a batch of writes"
    } else if head.id.vseq_from != at.vseq {
        "its sequence numbers don't follow on: something is missing before it"
    } else if !first && head.id.predecessor != at.hash {
        "it names another predecessor"
    } else {
        return Ok(());
    };
    Err(corrupt(&name, detail))
}

/// The place after a segment.
pub fn after(head: &SegmentHead, at: &Position) -> Position {
    Position {
        epoch: at.epoch,
        stream: at.stream,
        number: head.id.key.number,
        vseq: head.id.vseq_to,
        hash: head.hash,
    }
}
