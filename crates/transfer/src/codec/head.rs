//! The 16 bytes before each payload.

use super::{Error, Kind, Lane, Result};

/// Length of a head in bytes.
pub const HEAD_BYTES: usize = 16;
/// Longest payload in bytes: the bytes of one extent of the largest size, and their fields.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Longest payload on the control lane, in bytes.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Most numbers of devices of a session: a connection keeps two windows for each that it sees.
pub const DEVICE_NUMBERS_MAX: u16 = 4096;

/// A device within a session, as the receiver numbered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber(pub u16);

impl DeviceNumber {
    /// Stands in messages that are about no device.
    pub const NONE: Self = Self(u16::MAX);
}

/// Head of a frame whose rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Length of the payload, in bytes.
    pub payload_bytes: usize,
    /// Kind of the message.
    pub kind: Kind,
    /// Urgency of the frame.
    pub lane: Lane,
    /// Device of the message.
    pub device: DeviceNumber,
    /// Frames that this side sent on this connection before.
    pub sequence: u64,
}

impl Head {
    /// Reads a head, and checks all that can be checked without the payload.
    ///
    /// # Errors
    ///
    /// Names the first rule that the head breaks. The sequence is the caller's to check.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self> {
        let [a, b, c, d, kind, lane, e, f, sequence @ ..] = *bytes;
        let length = u32::from_le_bytes([a, b, c, d]);
        let head = Self {
            payload_bytes: usize::try_from(length).unwrap_or(usize::MAX),
            kind: Kind::from_number(kind)?,
            lane: Lane::from_number(lane)?,
            device: DeviceNumber(u16::from_le_bytes([e, f])),
            sequence: u64::from_le_bytes(sequence),
        };
        head.check()?;
        Ok(head)
    }

    /// Checks length, lane and device against the kind.
    ///
    /// # Errors
    ///
    /// Names the first rule that the head breaks.
    pub fn check(&self) -> Result<()> {
        let Self { kind, lane, device, payload_bytes: bytes, .. } = *self;
        if !kind.permits(lane) {
            return Err(Error::WrongLane { kind, lane });
        }
        if !kind.concerns(device) {
            return Err(Error::WrongDevice { kind, device: device.0 });
        }
        let limit = match lane {
            Lane::Control => CONTROL_PAYLOAD_BYTES_MAX,
            _ => PAYLOAD_BYTES_MAX,
        };
        if bytes > limit {
            return Err(Error::TooLong { kind, bytes, limit });
        }
        Ok(())
    }

    /// Writes the head as bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let length = u32::try_from(self.payload_bytes).unwrap_or(u32::MAX);
        let mut bytes = [0; HEAD_BYTES];
        bytes[0..4].copy_from_slice(&length.to_le_bytes());
        bytes[4] = self.kind.number();
        bytes[5] = self.lane.number();
        bytes[6..8].copy_from_slice(&self.device.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes
    }
}
