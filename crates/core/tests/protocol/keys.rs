//! Segment keys small enough to hash by the million, and their counterparts in the code.

use skerry_core::id::{StreamId, VolumeId};
use skerry_core::position::{Number, SegmentKey};
use std::fmt;

/// The volume of the take-over or the snapshot.
pub(crate) const VOLUME: VolumeId = VolumeId([0xA; 16]);

const NODES: u8 = 64;

/// A segment's stream and number; node numbers begin at 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) stream: u8,
    pub(crate) number: u8,
}

impl Key {
    pub(crate) fn data(stream: u8, number: u8) -> Self {
        Self { stream, number }
    }

    pub(crate) fn node(stream: u8, number: u8) -> Self {
        Self { stream, number: number + NODES }
    }

    pub(crate) fn is_node(self) -> bool {
        self.number >= NODES
    }

    pub(crate) fn real(self) -> SegmentKey {
        let number = match self.is_node() {
            true => Number::map_node(u64::from(self.number - NODES)),
            false => Number(u64::from(self.number)),
        };
        SegmentKey { stream: stream_id(self.stream), number }
    }

    pub(crate) fn of(key: SegmentKey) -> Self {
        let number = key.number.in_lane() as u8;
        match key.number.is_map_node() {
            true => Self::node(key.stream.0[0], number),
            false => Self::data(key.stream.0[0], number),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_node() {
            true => write!(f, "s{}/node{}", self.stream, self.number - NODES),
            false => write!(f, "s{}/{}", self.stream, self.number),
        }
    }
}

/// The id of a stream that the model knows by a number.
pub(crate) fn stream_id(stream: u8) -> StreamId {
    StreamId([stream; 16])
}
