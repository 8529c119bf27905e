//! The names of all objects in a bucket. No other file builds one.

use crate::holder::Holder;
use crate::id::{NodeId, PinId, SnapshotId, StreamId, VolumeId};
use crate::label::Labelled;
use crate::name::Name;
use crate::position::{Number, Position, SegmentKey};

/// Prefix of the numbers of the bucket's descriptor.
pub const DESCRIPTORS: &str = "descriptor";
/// Prefix of probes' objects.
pub const PROBE: &str = "probe";
/// Prefix of all names.
pub const NAMES: &str = "names";
/// Prefix of all volumes.
pub const VOLUMES: &str = "volumes";
/// Prefix of the starts of all nodes.
pub const NODES: &str = "nodes";
/// Prefix of all streams.
pub const STREAMS: &str = "streams";

/// One number of the bucket's descriptor; the highest counts.
pub fn descriptor(number: u64) -> String {
    format!("{DESCRIPTORS}/{number:016x}")
}

/// One start of a node.
pub fn node_start(node: NodeId, number: u64) -> String {
    format!("{NODES}/{node}/{number:016x}")
}

/// All starts of a node.
pub fn node_prefix(node: NodeId) -> String {
    format!("{NODES}/{node}")
}

/// One number of a name.
pub fn name(name: &Name, number: u64) -> String {
    format!("{NAMES}/{name}/{number:016x}")
}

/// All numbers of a name.
pub fn name_prefix(name: &Name) -> String {
    format!("{NAMES}/{name}")
}

/// Everything of a volume but its segments.
pub fn volume_prefix(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}")
}

/// A volume's descriptor.
pub fn volume_desc(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/desc")
}

/// A volume's state: ready or withdrawn.
pub fn volume_state(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/state")
}

/// A volume's tombstone.
pub fn volume_gone(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/gone")
}

/// One incarnation of a volume's writer.
pub fn incarnation(volume: VolumeId, epoch: u64, stream: StreamId) -> String {
    format!("{VOLUMES}/{volume}/life/{epoch:016x}-{stream}")
}

/// All incarnations of a volume's writers.
pub fn incarnation_prefix(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/life")
}

/// A head ref.
pub fn head(volume: VolumeId, at: &Position) -> String {
    format!("{VOLUMES}/{volume}/head/{:016x}-{}-{:016x}", at.epoch, at.stream, at.number.0)
}

/// All head refs of a volume.
pub fn head_prefix(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/head")
}

/// One number of a snapshot's ref; the highest counts.
pub fn snapshot(volume: VolumeId, snapshot: SnapshotId, number: u64) -> String {
    format!("{VOLUMES}/{volume}/snap/{snapshot}/ref/{number:016x}")
}

/// Everything of one snapshot: the numbers of its ref and its tombstone.
pub fn snapshot_objects(volume: VolumeId, snapshot: SnapshotId) -> String {
    format!("{VOLUMES}/{volume}/snap/{snapshot}")
}

/// A snapshot's tombstone.
pub fn snapshot_gone(volume: VolumeId, snapshot: SnapshotId) -> String {
    format!("{VOLUMES}/{volume}/snap/{snapshot}/gone")
}

/// All snapshots of a volume.
pub fn snapshot_prefix(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/snap")
}

/// A label of a snapshot's name, or the object that says that the snapshot's deletion has begun.
pub fn label(volume: VolumeId, name: &str, label: &Labelled) -> String {
    format!("{VOLUMES}/{volume}/label/{name}/{label}")
}

/// All labels of one snapshot's name.
pub fn label_prefix_of(volume: VolumeId, name: &str) -> String {
    format!("{VOLUMES}/{volume}/label/{name}")
}

/// All labels of a volume's snapshots.
pub fn label_prefix(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/label")
}

/// A holder on a volume's history.
pub fn holder(volume: VolumeId, holder: &Holder) -> String {
    format!("{VOLUMES}/{volume}/hold/{holder}")
}

/// All holders on a volume's history.
pub fn holder_prefix(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/hold")
}

/// All pins of a volume.
pub fn pin_prefix(volume: VolumeId) -> String {
    format!("{VOLUMES}/{volume}/pin")
}

/// One renewal of a pin.
pub fn pin(volume: VolumeId, pin: PinId, renewal: u64) -> String {
    format!("{VOLUMES}/{volume}/pin/{pin}/{renewal:016x}")
}

/// A segment, or the seal in its place.
pub fn segment(key: SegmentKey) -> String {
    format!("{STREAMS}/{}/{:016x}", key.stream, key.number.0)
}

/// All segments and seals of a stream.
pub fn stream_prefix(stream: StreamId) -> String {
    format!("{STREAMS}/{stream}")
}

/// True if `path` names a data segment or a seal of the stream of `from`, with its number or a
/// higher one.
pub fn is_data_from(path: &str, from: SegmentKey) -> bool {
    match parse(path) {
        Object::Segment(key) => {
            key.stream == from.stream && !key.number.is_map_node() && key.number >= from.number
        }
        _ => false,
    }
}

fn hex(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Meaning of an object's name: the inverse of the functions above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// The bucket's descriptor and its number.
    Bucket(u64),
    /// A probe's left-over.
    Probe,
    /// One number of a name.
    Name(String, u64),
    /// One start of a node.
    NodeStart(NodeId, u64),
    /// A volume's descriptor.
    VolumeDesc(VolumeId),
    /// A volume's state.
    VolumeState(VolumeId),
    /// A volume's tombstone.
    VolumeGone(VolumeId),
    /// An incarnation: epoch and stream.
    Incarnation(VolumeId, u64, StreamId),
    /// A head ref: epoch, stream and number.
    Head(VolumeId, u64, StreamId, Number),
    /// A snapshot's ref and its number.
    Snapshot(VolumeId, SnapshotId, u64),
    /// A snapshot's tombstone.
    SnapshotGone(VolumeId, SnapshotId),
    /// A label: the snapshot's name, and the label's content.
    Label(VolumeId, String, Labelled),
    /// A holder on the volume's history.
    Holder(VolumeId, Holder),
    /// A pin and the number of its renewal.
    Pin(VolumeId, PinId, u64),
    /// A segment or a seal.
    Segment(SegmentKey),
    /// Not an object of Skerry.
    Foreign,
}

/// Reads an object's name.
pub fn parse(path: &str) -> Object {
    parse_known(path).unwrap_or(Object::Foreign)
}

fn parse_known(path: &str) -> Option<Object> {
    let parts: Vec<&str> = path.split('/').collect();
    Some(match parts.as_slice() {
        [DESCRIPTORS, number] => Object::Bucket(hex(number)?),
        [PROBE, _] => Object::Probe,
        [NODES, node, number] => Object::NodeStart(node.parse().ok()?, hex(number)?),
        [NAMES, name, number] => Object::Name((*name).to_owned(), hex(number)?),
        [STREAMS, stream, number] => Object::Segment(SegmentKey {
            stream: stream.parse().ok()?,
            number: Number(hex(number)?),
        }),
        [VOLUMES, volume, rest @ ..] => parse_volume(volume.parse().ok()?, rest)?,
        _ => return None,
    })
}

fn parse_volume(volume: VolumeId, rest: &[&str]) -> Option<Object> {
    Some(match rest {
        ["desc"] => Object::VolumeDesc(volume),
        ["state"] => Object::VolumeState(volume),
        ["gone"] => Object::VolumeGone(volume),
        ["life", incarnation] => {
            let (epoch, stream) = incarnation.split_once('-')?;
            Object::Incarnation(volume, hex(epoch)?, stream.parse().ok()?)
        }
        ["head", head] => {
            let mut parts = head.split('-');
            let (epoch, stream) = (hex(parts.next()?)?, parts.next()?.parse().ok()?);
            Object::Head(volume, epoch, stream, Number(hex(parts.next()?)?))
        }
        ["snap", snapshot, "ref", number] => {
            Object::Snapshot(volume, snapshot.parse().ok()?, hex(number)?)
        }
        ["snap", snapshot, "gone"] => Object::SnapshotGone(volume, snapshot.parse().ok()?),
        ["label", name, label] => Object::Label(volume, (*name).to_owned(), label.parse().ok()?),
        ["hold", holder] => Object::Holder(volume, holder.parse().ok()?),
        ["pin", pin, renewal] => Object::Pin(volume, pin.parse().ok()?, hex(renewal)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let (v, s) = (VolumeId([1; 16]), StreamId([2; 16]));
        let at = Position { epoch: 3, stream: s, number: Number(4), ..Position::default() };
        let key = SegmentKey { stream: s, number: Number::map_node(9) };
        let cases = [
            (descriptor(2), Object::Bucket(2)),
            (node_start(NodeId([8; 16]), 2), Object::NodeStart(NodeId([8; 16]), 2)),
            (volume_desc(v), Object::VolumeDesc(v)),
            (volume_state(v), Object::VolumeState(v)),
            (volume_gone(v), Object::VolumeGone(v)),
            (incarnation(v, 3, s), Object::Incarnation(v, 3, s)),
            (head(v, &at), Object::Head(v, 3, s, Number(4))),
            (snapshot(v, SnapshotId([5; 16]), 8), Object::Snapshot(v, SnapshotId([5; 16]), 8)),
            (snapshot_gone(v, SnapshotId([5; 16])), Object::SnapshotGone(v, SnapshotId([5; 16]))),
            (
                label(v, "a-b", &Labelled::Ending(SnapshotId([5; 16]))),
                Object::Label(v, "a-b".to_owned(), Labelled::Ending(SnapshotId([5; 16]))),
            ),
            (pin(v, PinId([6; 16]), 7), Object::Pin(v, PinId([6; 16]), 7)),
            (segment(key), Object::Segment(key)),
            ("something/else".to_owned(), Object::Foreign),
        ];
        for (path, object) in cases {
            assert_eq!(parse(&path), object, "{path}");
        }
    }
}
