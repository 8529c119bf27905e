//! Tests that the longest object of each kind is read back, and is small. Listings and claims read
//! many of them.

use super::*;
use crate::dead::DeadPending;
use crate::descriptor::{
    FlushLevel, IncarnationRecord, NameRecord, Pin, Tombstone, VolumeDesc, VolumeKind, VolumeState,
};
use crate::hold::Span;
use crate::holder::Holder;
use crate::id::{BucketId, ClaimId, LogId, NodeId, PinId, SnapshotId, StreamId, VolumeId};
use crate::label;
use crate::map_node::MapNodePtr;
use crate::name::NAME_BYTES_MAX;
use crate::position::{Number, Position, SegmentKey};
use crate::refs::{Ref, SnapshotInfo};
use crate::root::{Base, ROOT_BYTES_MAX, Root};
use crate::seal::{HOST_BYTES_MAX, Owner};
use crate::size::BlockSize;
use crate::start::{StartPlace, StartRecord};

/// More than the longest object with a root in it. Far below the readers' bound.
const BYTES_MAX: usize = ROOT_BYTES_MAX + 1024;

fn base() -> Base {
    let ptr = MapNodePtr {
        level: 7,
        slot: u16::MAX,
        len: u32::MAX,
        segment: SegmentKey {
            stream: StreamId([0xff; 16]),
            number: Number::map_node((1 << 47) - 1),
        },
        offset: u32::MAX,
        checksum: [0xff; 16],
        live: u64::MAX,
    };
    let name = "n".repeat(NAME_BYTES_MAX);
    let mut root = Root::empty(u64::MAX, BlockSize::default(), &name);
    (root.top, root.liveness, root.birth) = (Some(ptr), Some(ptr), u64::MAX);
    root.dead_pending = Some(DeadPending { first: ptr, subtrees: u64::MAX, blocks: u64::MAX });
    Base::exact(root, Position::start(u64::MAX, StreamId([0xff; 16]), u64::MAX))
}

/// Checks that `object` is read back from `bytes`, and that these are few.
fn is_bounded<T: PartialEq + std::fmt::Debug>(
    object: T,
    bytes: Bytes,
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
) {
    assert!(bytes.len() <= BYTES_MAX, "{} bytes: {object:?}", bytes.len());
    assert_eq!(decode(&bytes), Ok(object));
}

#[test]
fn the_longest_objects_with_a_base_are_read() {
    let name = "s".repeat(NAME_BYTES_MAX);
    let (volume, id) = (VolumeId([0xff; 16]), SnapshotId([0xff; 16]));
    let (number, created_ms, size_bytes) = (u64::MAX, u64::MAX, u64::MAX);
    let snapshot = SnapshotInfo { id, number, created_ms, size_bytes, name: name.clone() };
    let found = Ref { volume, base: base(), snapshot: Some(snapshot), next_node: u64::MAX };
    is_bounded(found.clone(), found.encode([0xff; 16]), Ref::decode);
    let desc = VolumeDesc {
        id: volume,
        kind: VolumeKind::Disk,
        home: BucketId([0xff; 16]),
        block: BlockSize::default(),
        flush: FlushLevel::Bucket,
        created_ms,
        name,
        size_bytes,
        genesis: StreamId([0xff; 16]),
        base: base(),
        parent: Some((volume, id)),
    };
    is_bounded(desc.clone(), desc.encode([0xff; 16]), VolumeDesc::decode);
    let pin = Pin { id: PinId([0xff; 16]), renewal: u64::MAX, ttl_ms: u64::MAX, base: base() };
    is_bounded(pin.clone(), pin.encode([0xff; 16]), Pin::decode);
}

#[test]
fn the_longest_objects_with_a_host_are_read() {
    let host = "h".repeat(HOST_BYTES_MAX);
    let (node, log) = (NodeId([0xff; 16]), LogId([0xff; 16]));
    let owner = Owner { node, log, lease: u64::MAX, host: host.clone() };
    let stream = StreamId([0xff; 16]);
    let incarnation =
        IncarnationRecord { epoch: u64::MAX, stream, owner: Some(owner), vseq: u64::MAX };
    is_bounded(incarnation.clone(), incarnation.encode([0xff; 16]), IncarnationRecord::decode);
    let place = StartPlace { machine: [0xff; 16], hardware: [0xff; 16], directory: u64::MAX };
    let claim = ClaimId([0xff; 16]);
    let start = StartRecord { node, number: u64::MAX, claim, host, place, at_ms: u64::MAX };
    is_bounded(start.clone(), start.encode([0xff; 16]), StartRecord::decode);
}

#[test]
fn objects_without_texts_are_read() {
    let (volume, snapshot) = (VolumeId([0xff; 16]), SnapshotId([0xff; 16]));
    let name = NameRecord { volume: Some(volume) };
    is_bounded(name, name.encode([0xff; 16]), NameRecord::decode);
    let state = VolumeState::Withdrawn;
    is_bounded(state, state.encode([0xff; 16]), VolumeState::decode);
    let tomb = Tombstone { at_ms: u64::MAX };
    is_bounded(tomb, tomb.encode([0xff; 16]), Tombstone::decode);
    is_bounded(snapshot, label::encode(snapshot, [0xff; 16]), label::decode);
    let most = (u64::MAX, Number(u64::MAX));
    let span = Span { from: most, to: most, nodes: (u64::MAX, u64::MAX) };
    // A holder's content is in its name.
    let holder = Holder::Clone { clone: volume, snapshot, span };
    let is_holder = |bytes: &[u8]| {
        let kind = Kind { tag: *b"HOLD", what: "holder", known: &[1, 2] };
        open(kind, bytes).map(|_| holder)
    };
    assert_eq!(holder.to_string().parse(), Ok(holder));
    is_bounded(holder, holder.encode([0xff; 16]), is_holder);
    // The longest name of a file on common systems.
    const FILE_BYTES_MAX: usize = 255;
    let labelled = label::Label { id: snapshot, created_ms: u64::MAX, size_bytes: u64::MAX, span };
    for text in [holder.to_string(), label::Labelled::Snapshot(labelled).to_string()] {
        assert!(text.len() <= FILE_BYTES_MAX, "{} bytes: {text}", text.len());
    }
}
