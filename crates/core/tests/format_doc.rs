//! Tests that `docs/format.md` says what the code does: versions, magics and sizes.

use skerry_core::dead::{DEAD_BYTES_MAX, DEAD_PTRS_MAX, DeadPending};
use skerry_core::descriptor::{Tombstone, VolumeState};
use skerry_core::frame::{FRAME_BLOCK, FRAME_HEAD};
use skerry_core::id::{ClaimId, NodeId, StreamId};
use skerry_core::liveness::{CHILD, ENTRY_BYTES_MAX, ENTRY_HEAD, FANOUT_MAX, LEAF_BYTES_WANTED};
use skerry_core::map_node::bounds::node_bytes_max;
use skerry_core::map_node::{
    INNER_ENTRY, INNER_SHIFT, LEAF_ENTRY, LEAF_SHIFT, MAP_NODE_HEAD, MAP_NODE_PTR, MapNodeKind,
};
use skerry_core::name::NAME_BYTES_MAX;
use skerry_core::position::Position;
use skerry_core::record::{PLAIN_RECORD_BYTES_MAX, RECORD_HEAD};
use skerry_core::root::ROOT_BYTES_MAX;
use skerry_core::seal::{HOST_BYTES_MAX, SEAL_BYTES_MAX, Seal};
use skerry_core::segment::{EXTENT_ENTRY, FRAME_ENTRY, HEAD_BYTES_MAX, SEGMENT_HEAD, SLOTS_MAX};
use skerry_core::start::{StartPlace, StartRecord};
use skerry_core::wire::SectionWriter;

const PAGE: &str = include_str!("../../../docs/format.md");

#[track_caller]
fn says(sentence: &str) {
    assert!(PAGE.contains(sentence), "docs/format.md does not say {sentence:?} any more");
}

fn with_commas(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", n / 1000, n % 1000) }
}

#[test]
fn sizes_are_those_of_the_page() {
    says(&format!("| {SEGMENT_HEAD} | … | operations, frame table, extent table |"));
    says(&format!("*Frame table entry* ({FRAME_ENTRY} bytes)"));
    says(&format!("*Extent table entry* ({EXTENT_ENTRY} bytes)"));
    says(&format!("| {FRAME_HEAD} | {FRAME_BLOCK} n | block table"));
    says(&format!("| {MAP_NODE_HEAD} | 16 s | stream table |"));
    says(&format!("*Leaf* ({} blocks). Entry, {LEAF_ENTRY} bytes", 1 << LEAF_SHIFT));
    says(&format!("*Inner* ({} children). Entry, {INNER_ENTRY} bytes", 1 << INNER_SHIFT));
    says(&format!("*Node pointer* ({MAP_NODE_PTR} bytes"));
    says(&format!("A seal has at most {} bytes", with_commas(SEAL_BYTES_MAX)));
    says(&format!("at most {HOST_BYTES_MAX} bytes)"));
    says(&format!("It has at most {} MiB: a batch", HEAD_BYTES_MAX >> 20));
    says(&format!("at most {} slots.", with_commas(SLOTS_MAX)));
    says(&format!(
        "no write has at most {PLAIN_RECORD_BYTES_MAX} bytes: a name has at most {NAME_BYTES_MAX}."
    ));
    says(&format!("it has at most {ROOT_BYTES_MAX} bytes, whatever"));
    says(&format!("dead-pending (absent: nothing), {} bytes", DeadPending::LEN));
    says(&format!("an entry: {ENTRY_HEAD} bytes, namely stream"));
    says(&format!("Up to {FANOUT_MAX} children in order, {CHILD} bytes each"));
    says(&format!("has at most {} KiB. One entry", LEAF_BYTES_WANTED >> 10));
    says(&format!("has at most {} bytes (every slot", with_commas(ENTRY_BYTES_MAX)));
    says(&format!("up to {} node pointers", with_commas(DEAD_PTRS_MAX)));
    says(&format!("{} bytes for a leaf,", with_commas(node_bytes_max(MapNodeKind::Leaf))));
    says(&format!("{} for an inner node,", with_commas(node_bytes_max(MapNodeKind::Inner))));
    says(&format!(
        "{} for a liveness leaf,",
        with_commas(node_bytes_max(MapNodeKind::LivenessLeaf))
    ));
    says(&format!(
        "{} for a liveness inner node,",
        with_commas(node_bytes_max(MapNodeKind::LivenessInner))
    ));
    says(&format!("{} for a node of the dead-pending", with_commas(DEAD_BYTES_MAX)));
    says(&format!("{} bytes.\n\n### `PINN`", Position::LEN));
    says(&format!("begins with {RECORD_HEAD} bytes, then the data"));
}

#[test]
fn envelopes_are_those_of_the_page() {
    says("| 0 | 4 | magic `SKRY` |");
    says("| 8 | 2 | version of the kind (1) |");
    let seal = Seal { successor: StreamId([1; 16]), epoch: 1, owner: None, forced: false };
    let start = StartRecord {
        node: NodeId([1; 16]),
        number: 1,
        claim: ClaimId([2; 16]),
        host: String::new(),
        place: StartPlace::default(),
        at_ms: 1,
    };
    for (kind, bytes) in [
        ("STRT", start.encode([7; 16])),
        ("SEAL", seal.encode([7; 16])),
        ("TOMB", Tombstone { at_ms: 1 }.encode([7; 16])),
        ("VOLS", VolumeState::Ready.encode([7; 16])),
    ] {
        says(&format!("envelope `{kind}`"));
        assert_eq!(&bytes[..4], b"SKRY");
        assert_eq!(&bytes[4..8], kind.as_bytes());
        assert_eq!(bytes[8..10], 1u16.to_le_bytes(), "the version of {kind}");
        assert_eq!(bytes[16..32], [7; 16], "the nonce of {kind}");
    }
    let section = SectionWriter::new().put(9, b"x").finish();
    assert_eq!(&section[..], [9, 0, 1, 0, 1, 0, 0, 0, b'x'], "tag, flags, length, bytes");
}
