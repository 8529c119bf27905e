//! Gives an extent's bytes, if they are the right ones.

use bytes::Bytes;

use super::hash;
use crate::codec::{Compression, Extent};

/// An extent whose bytes have another hash than it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the extent of {length} bytes at {offset} is damaged")]
pub struct Damaged {
    /// First byte on the device.
    pub offset: u64,
    /// Length in bytes.
    pub length: u32,
}

/// Decompresses an extent and verifies its hash. Raw bytes are shared, and not copied.
///
/// # Errors
///
/// [`Damaged`] if the bytes don't have the hash, or don't decompress to the extent's length.
pub fn unpack(extent: &Extent) -> Result<Bytes, Damaged> {
    let named = &extent.named;
    let damaged = Damaged { offset: named.offset, length: named.length };
    let length = usize::try_from(named.length).map_err(|_| damaged)?;
    let bytes = match extent.compression {
        Compression::Raw => extent.stored.clone(),
        Compression::Lz4 => lz4_flex::block::decompress(&extent.stored, length)
            .map(Bytes::from)
            .map_err(|_| damaged)?,
    };
    match bytes.len() == length && hash(&bytes) == named.hash {
        true => Ok(bytes),
        false => Err(damaged),
    }
}
