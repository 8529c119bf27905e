//! The size of a device, and the sizes in which it is served best.

use crate::{Error, ErrorKind, Result};

/// The smallest sector, bytes.
pub const SECTOR_BYTES_MIN: u32 = 512;

/// The size of a device and of its parts. It stays the same for as long as a device is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, at least 1. If it is no multiple of `sector_bytes`, the last sector is short.
    /// The sizes of volumes are multiples.
    pub size_bytes: u64,
    /// Whole sectors are served best, and zeroed without writing zeros. A power of two, at least
    /// [`SECTOR_BYTES_MIN`]. Requests for parts of sectors are served, too.
    pub sector_bytes: u32,
    /// Requests should be aligned to this. A power of two, at least `sector_bytes`.
    pub block_bytes: u32,
    /// True if every write is refused.
    pub read_only: bool,
}

impl Geometry {
    /// Checks that a range lies in the device.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the range goes past the end.
    pub fn check(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size_bytes => Ok(()),
            _ => Err(Error::new(ErrorKind::Invalid, "past the end of the device")),
        }
    }

    /// True if a range is whole sectors. A short last sector is whole if the range has all of it.
    #[must_use]
    pub fn is_whole(&self, offset: u64, len: u64) -> bool {
        let sector = u64::from(self.sector_bytes);
        let end = offset.checked_add(len);
        let ends_whole =
            end.is_some_and(|end| end.is_multiple_of(sector) || end == self.size_bytes);
        offset.is_multiple_of(sector) && ends_whole
    }
}
