//! The first message of either side.

use super::{Error, PAYLOAD_BYTES_MAX, Pieces, Result, fields::Fields};

/// Version of `docs/transfer.md` that this crate speaks.
pub const VERSION: u16 = 1;
/// Most connections of a session.
pub const CONNECTIONS_MAX: u16 = 16;
const MAGIC: [u8; 8] = *b"SKRYMOVE";

/// Identity of a node, a session, a move or a content.
pub type Id = [u8; 16];

/// Greeting: versions, features and limits of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version that this side speaks.
    pub lowest: u16,
    /// Highest version that this side speaks.
    pub highest: u16,
    /// Bits of what this side knows beyond the version.
    pub features: u64,
    /// Node of this side. The connection's certificate says who it is, and not this field.
    pub node: Id,
    /// Session to which the connection belongs.
    pub session: Id,
    /// Number of this connection within the session, from 0.
    pub number: u16,
    /// Connections of the session.
    pub count: u16,
    /// First window of each device, in bytes: at least [`PAYLOAD_BYTES_MAX`].
    pub window_bytes: u32,
}

impl Hello {
    pub(super) const BYTES: usize = 60;

    /// Version and features that both sides have.
    ///
    /// # Errors
    ///
    /// [`Error::NoCommonVersion`] if the peer does not speak ours.
    pub fn agree(&self, peer: &Self) -> Result<(u16, u64)> {
        let highest = self.highest.min(peer.highest);
        if highest < self.lowest.max(peer.lowest) {
            let (lowest, highest) = (peer.lowest, peer.highest);
            return Err(Error::NoCommonVersion { lowest, highest, ours: self.highest });
        }
        Ok((highest, self.features & peer.features))
    }

    pub(super) fn read(fields: &mut Fields) -> Result<Self> {
        if fields.array()? != MAGIC {
            return Err(fields.wrong_field("magic"));
        }
        let hello = Self {
            lowest: fields.u16()?,
            highest: fields.u16()?,
            features: fields.u64()?,
            node: fields.array()?,
            session: fields.array()?,
            number: fields.u16()?,
            count: fields.u16()?,
            window_bytes: fields.u32()?,
        };
        if hello.lowest > hello.highest {
            return Err(fields.wrong_field("version"));
        }
        if hello.number >= hello.count || hello.count > CONNECTIONS_MAX {
            return Err(fields.wrong_field("count"));
        }
        if !usize::try_from(hello.window_bytes).is_ok_and(|bytes| bytes >= PAYLOAD_BYTES_MAX) {
            return Err(fields.wrong_field("window"));
        }
        Ok(hello)
    }

    pub(super) fn write(&self, pieces: &mut Pieces) {
        pieces.slice(&MAGIC);
        pieces.u16(self.lowest);
        pieces.u16(self.highest);
        pieces.u64(self.features);
        pieces.slice(&self.node);
        pieces.slice(&self.session);
        pieces.u16(self.number);
        pieces.u16(self.count);
        pieces.u32(self.window_bytes);
    }
}
