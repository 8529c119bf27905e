//! Tests that segments read back as built, and that readers notice damage.

use super::*;
use crate::frame::FrameHead;
use crate::ops::Barrier;
use crate::wire::hash16;

fn id() -> SegmentId {
    SegmentId {
        kind: SegmentKind::Foreground,
        block: BlockSize::default(),
        volume: VolumeId([1; 16]),
        key: SegmentKey { stream: StreamId([2; 16]), number: Number(3) },
        epoch: 4,
        predecessor: [5; 16],
        vseq_from: 6,
        vseq_to: 9,
        nonce: [7; 16],
    }
}

fn noise(seed: u64) -> Vec<u8> {
    let mut out = vec![0; 4096];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn whole(built: &BuiltSegment) -> Vec<u8> {
    built.chunks.concat()
}

fn head(bytes: &[u8]) -> SegmentHead {
    match SegmentHead::parse(bytes).expect("a head") {
        HeadRead::Head(head) => *head,
        HeadRead::Need(n) => panic!("{n} bytes needed"),
    }
}

#[test]
fn a_segment_reads_back() {
    // 20 consecutive blocks over an aligned boundary, a lone one, and a copy of the first.
    let mut data: Vec<(u64, Vec<u8>)> = (5..25).map(|i| (i, noise(i))).collect();
    data.push((100, noise(100)));
    data.push((200, noise(5)));
    let blocks: Vec<_> = data.iter().map(|(index, d)| BlockIn { index: *index, data: d }).collect();
    let ops = [
        Op::Zero { first: 1, blocks: 2 },
        Op::Resize(1 << 30),
        Op::Rename("new".into()),
        Op::Barrier(Barrier {
            id: crate::id::SnapshotId([8; 16]),
            group: crate::id::GroupId::NONE,
            group_size: 0,
            created_ms: 77,
            name: "snap".into(),
        }),
    ];
    let built = build(&id(), &ops, &blocks);
    let bytes = whole(&built);
    let head = head(&bytes);
    assert_eq!(head.id, id());
    assert_eq!(head.ops, ops);
    assert_eq!(head.hash, built.hash);
    assert_eq!(head.object_len, bytes.len() as u64);
    assert_eq!(head.entries(), built.entries);
    assert_eq!(head.slots(), 21, "the copy is stored once");
    // 5..16, 16..25, 100.
    assert_eq!(head.frames.len(), 3);
    for (at, frame) in built.frame_bytes() {
        assert_eq!(frame, bytes[at as usize..at as usize + frame.len()]);
    }
    for (index, entry) in &built.entries {
        let frame = &bytes[entry.offset as usize..(entry.offset + entry.len) as usize];
        let frame = Bytes::copy_from_slice(frame);
        let parsed = FrameHead::parse(&frame).expect("a frame");
        let at = parsed.locate(entry).expect("the right frame");
        let plain = parsed.unpack(&frame).expect("unpacks");
        let block = &plain[at * 4096..(at + 1) * 4096];
        parsed.verify_block(at, block).expect("verified");
        let wanted = &data.iter().find(|(i, _)| i == index).expect("written").1;
        assert_eq!(block, &wanted[..]);
    }
}

/// Checks that frames stand in pieces of bounded length, each frame in one piece.
#[test]
fn a_long_segment_is_built_in_pieces() {
    let data: Vec<Vec<u8>> = (0..1200).map(noise).collect();
    let blocks: Vec<_> =
        (0..).zip(&data).map(|(i, data)| BlockIn { index: i * 3 / 2, data }).collect();
    let built = build(&id(), &[], &blocks);
    assert!(built.chunks.len() > 4, "{} pieces", built.chunks.len());
    assert!(built.chunks[1..].iter().all(|piece| piece.len() <= PIECE_BYTES));
    let bytes = whole(&built);
    let head = head(&bytes);
    assert_eq!(head.entries(), built.entries);
    let frames: Vec<_> = built.frame_bytes().collect();
    assert_eq!(frames.len(), head.frames.len());
    for (at, frame) in frames {
        assert_eq!(frame, bytes[at as usize..at as usize + frame.len()]);
        assert_eq!(FrameHead::parse(&frame).expect("a frame").place().offset, at);
    }
}

#[test]
fn a_short_prefix_says_what_it_needs() {
    let data = noise(1);
    let built = build(&id(), &[], &[BlockIn { index: 1, data: &data }]);
    let bytes = whole(&built);
    let need = match SegmentHead::parse(&bytes[..SEGMENT_HEAD]).expect("readable") {
        HeadRead::Need(n) => n,
        HeadRead::Head(_) => panic!("too short to hold a head"),
    };
    assert!(matches!(SegmentHead::parse(&bytes[..need]), Ok(HeadRead::Head(_))));
}

#[test]
fn every_flipped_bit_of_a_head_is_noticed() {
    let data = noise(1);
    let built = build(&id(), &[Op::Resize(512)], &[BlockIn { index: 1, data: &data }]);
    let good = whole(&built);
    for bit in 0..built.chunks[0].len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches!(SegmentHead::parse(&bad), Ok(HeadRead::Head(_))), "bit {bit}");
    }
}

#[test]
fn nodes_are_where_the_pointer_says() {
    let mut builder = MapNodesBuilder::new(SegmentId { kind: SegmentKind::MapNodes, ..id() });
    let ptrs: Vec<_> =
        (0..5u8).map(|i| builder.push(i, 1, &vec![i; 50 + usize::from(i)])).collect();
    let bytes = whole(&builder.finish());
    assert_eq!(head(&bytes).id.kind, SegmentKind::MapNodes);
    for (i, ptr) in ptrs.iter().enumerate() {
        let node = &bytes[ptr.offset as usize..(ptr.offset + ptr.len) as usize];
        assert_eq!(usize::from(ptr.slot), i);
        assert_eq!(hash16(node), ptr.checksum);
    }
}

/// Builds the longest head. Each slot has a block with a frame and an extent of its own. Beside
/// each block stands a zeroed range for its own record and one for another.
#[test]
fn the_longest_head_is_read() {
    let mut ops = BytesMut::new();
    let zeros = (0..2 * SLOTS_MAX as u64).map(|n| Op::Zero { first: 4 * n, blocks: 1 });
    zeros.for_each(|op| op.encode(&mut ops));
    let frames = vec![(100, 1); SLOTS_MAX];
    let extents: Vec<_> = (0..SLOTS_MAX as u16)
        .map(|slot| Extent { index: 4 * u64::from(slot) + 2, slot, count: 1 })
        .collect();
    let tables = SLOTS_MAX * (FRAME_ENTRY + EXTENT_ENTRY);
    let len = SEGMENT_HEAD + ops.len() + tables + CHECKSUM;
    assert!(len <= HEAD_BYTES_MAX, "{len} bytes");
    let object_len = (len + 100 * SLOTS_MAX) as u64;
    let bytes = encode_head(&id(), len, object_len, &ops, &frames, &extents);
    assert_eq!(bytes.len(), len);
    let head = head(&bytes);
    assert_eq!(head.extents, extents);
    assert_eq!((head.frames, head.ops.len()), (frames, 2 * SLOTS_MAX));
}

#[test]
fn a_head_that_says_that_it_is_longer_is_not_believed() {
    let mut bytes = whole(&build(&id(), &[], &[]));
    for (len, is_believed) in [(HEAD_BYTES_MAX, true), (HEAD_BYTES_MAX + 1, false)] {
        bytes[12..16].copy_from_slice(&(len as u32).to_le_bytes());
        let read = SegmentHead::parse(&bytes);
        assert_eq!(
            matches!(read, Ok(HeadRead::Need(need)) if need == len),
            is_believed,
            "{read:?}"
        );
    }
}
