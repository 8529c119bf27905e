//! Reading a number of a stream: a segment's head, a seal, or nothing.

use crate::error::{Error, Result};
use crate::objects::bucket::Bucket;
use skerry_core::FormatError;
use skerry_core::id::VolumeId;
use skerry_core::names;
use skerry_core::position::{Number, Position, SegmentKey};
use skerry_core::seal::Seal;
use skerry_core::segment::{HeadRead, SegmentHead, SegmentKind};
use skerry_core::takeover::Found;

/// Bytes of a segment in the first read. They hold the head of a batch of 4,096 scattered blocks,
/// so one GET is almost always enough.
pub const HEAD_GUESS_BYTES: u64 = 128 << 10;

/// The error of an object whose checksums are right and whose place in the volume is wrong.
pub(crate) fn corrupt(name: &str, detail: &str) -> Error {
    Error::format(name, FormatError::invalid("segment", detail))
}

/// Reads the object at `key`. Reads a bad one again, since it may have been damaged on its way.
pub async fn read(bucket: &Bucket, key: SegmentKey) -> Result<Found<Box<SegmentHead>>> {
    match read_once(bucket, key).await {
        Err(error @ Error::Format { .. }) => {
            tracing::warn!(%error, "a segment's head is read again");
            read_once(bucket, key).await
        }
        read => read,
    }
}

async fn read_once(bucket: &Bucket, key: SegmentKey) -> Result<Found<Box<SegmentHead>>> {
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

/// Checks that a segment follows a position.
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

/// The position after a segment.
pub fn after(head: &SegmentHead, at: &Position) -> Position {
    Position {
        epoch: at.epoch,
        stream: at.stream,
        number: head.id.key.number,
        vseq: head.id.vseq_to,
        hash: head.hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::objects::testing::{Flips, Hooked, bucket_in, memory_bucket};
    use bytes::Bytes;
    use object_store::local::LocalFileSystem;
    use skerry_core::id::StreamId;
    use skerry_core::segment::{SegmentId, build};
    use skerry_core::size::BlockSize;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    #[tokio::test]
    async fn a_head_that_arrives_damaged_is_read_once_more() {
        let store = Hooked::new(Flips::default());
        let flips = store.hook.clone();
        let bucket = bucket_in(Arc::new(store), 3).await;
        let key = SegmentKey { stream: StreamId([1; 16]), number: Number(1) };
        let id = SegmentId {
            kind: SegmentKind::Foreground,
            block: BlockSize::default(),
            volume: VolumeId([1; 16]),
            key,
            epoch: 1,
            predecessor: [0; 16],
            vseq_from: 0,
            vseq_to: 1,
            nonce: bucket.nonce(),
        };
        let built = build(&id, &[], &[]);
        assert!(bucket.create(&names::segment(key), built.chunks).await.is_ok());
        flips.0.store(1, Ordering::Relaxed);
        assert!(matches!(read(&bucket, key).await, Ok(Found::Segment(_))));
        flips.0.store(2, Ordering::Relaxed);
        assert_eq!(read(&bucket, key).await.expect_err("damage").kind(), ErrorKind::Corrupt);
    }

    /// An interrupted copy, or a file system after a power cut, leaves an empty object. Once,
    /// readers waited for it as for a store that does not answer.
    #[tokio::test]
    async fn an_empty_segment_is_damage() {
        let dir = tempfile::tempdir().expect("a directory");
        let local = LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
        for bucket in [memory_bucket(1).await, bucket_in(Arc::new(local), 2).await] {
            let key = SegmentKey { stream: StreamId([1; 16]), number: Number(1) };
            assert!(bucket.create(&names::segment(key), Bytes::new()).await.is_ok());
            let error = read(&bucket, key).await.expect_err("nothing is in it");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }
}
