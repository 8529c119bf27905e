//! Devices that the sender offers, and devices that the receiver takes.

use super::{
    DEVICE_NUMBERS_MAX, DeviceNumber, Epoch, Generation, Id, Pieces, Result, fields::Fields,
};

/// Most devices of an offer.
pub const DEVICES_MAX: usize = 256;

/// Devices that move together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Identity of the move, also after a reconnection.
    pub move_id: Id,
    /// Authority of the source.
    pub epoch: Epoch,
    /// Urgency among moves: a lower number goes first.
    pub priority: u8,
    /// The devices, at most [`DEVICES_MAX`].
    pub devices: Vec<Offered>,
}

/// A device of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Name for people and for the receiver's rules, of at most 255 bytes.
    pub label: String,
    /// Length of the device, in bytes.
    pub size_bytes: u64,
    /// Length of its blocks, in bytes: a power of two.
    pub block_bytes: u32,
    /// Identity of the content that it began with, or zeros.
    pub content: Id,
    /// Number of the first read that is sent in this session.
    pub first: Generation,
}

/// A device that the receiver takes, in the order of the offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Number of the device in this session.
    pub number: DeviceNumber,
    /// Generation up to which the receiver has everything.
    pub generation: Generation,
}

impl Offer {
    /// Bytes before the devices.
    pub(super) const FIXED_BYTES: usize = 16 + 8 + 1 + 2;

    pub(super) fn bytes(&self) -> usize {
        Self::FIXED_BYTES + self.devices.iter().map(Offered::bytes).sum::<usize>()
    }

    pub(super) fn read(fields: &mut Fields) -> Result<Self> {
        let (move_id, epoch, priority) = (fields.array()?, Epoch(fields.u64()?), fields.u8()?);
        let count = usize::from(fields.u16()?);
        if count > DEVICES_MAX {
            return Err(fields.wrong_count(count, DEVICES_MAX));
        }
        let devices = fields.list(Offered::FIXED_BYTES, count, Offered::read)?;
        if devices.len() != count {
            return Err(fields.wrong_field("count"));
        }
        Ok(Self { move_id, epoch, priority, devices })
    }

    pub(super) fn write(&self, pieces: &mut Pieces) {
        pieces.slice(&self.move_id);
        pieces.u64(self.epoch.0);
        pieces.u8(self.priority);
        pieces.u16(u16::try_from(self.devices.len()).unwrap_or(u16::MAX));
        self.devices.iter().for_each(|device| device.write(pieces));
    }
}

impl Offered {
    const FIXED_BYTES: usize = 1 + 8 + 4 + 16 + 8;

    fn bytes(&self) -> usize {
        Self::FIXED_BYTES + self.label.len()
    }

    fn read(fields: &mut Fields) -> Result<Self> {
        let label_bytes = usize::from(fields.u8()?);
        let label = fields.bytes(label_bytes)?;
        let label = str::from_utf8(&label).map_err(|_| fields.wrong_field("label"))?.to_owned();
        let (size_bytes, block_bytes) = (fields.u64()?, fields.u32()?);
        if !block_bytes.is_power_of_two() {
            return Err(fields.wrong_field("block size"));
        }
        let (content, first) = (fields.array()?, Generation(fields.u64()?));
        Ok(Self { label, size_bytes, block_bytes, content, first })
    }

    fn write(&self, pieces: &mut Pieces) {
        pieces.u8(u8::try_from(self.label.len()).unwrap_or(u8::MAX));
        pieces.slice(self.label.as_bytes());
        pieces.u64(self.size_bytes);
        pieces.u32(self.block_bytes);
        pieces.slice(&self.content);
        pieces.u64(self.first.0);
    }
}

impl Accepted {
    pub(super) const BYTES: usize = 10;

    pub(super) fn read(fields: &mut Fields) -> Result<Self> {
        let number = DeviceNumber(fields.u16()?);
        if number.0 >= DEVICE_NUMBERS_MAX {
            return Err(fields.wrong_field("number"));
        }
        Ok(Self { number, generation: Generation(fields.u64()?) })
    }

    pub(super) fn write(&self, pieces: &mut Pieces) {
        pieces.u16(self.number.0);
        pieces.u64(self.generation.0);
    }
}
