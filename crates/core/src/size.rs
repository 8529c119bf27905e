//! Sizes of volumes and blocks: their bounds, and their text form.

/// Volumes are addressed in sectors of this many bytes.
pub const SECTOR_BYTES: u64 = 512;
/// The largest volume, bytes: 1 EiB.
pub const VOLUME_BYTES_MAX: u64 = 1 << 60;

/// Says why a size is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number, or an unknown suffix.
    #[error(
        "{text:?} is not a size: write bytes, or a number with K, M, G, T or P (powers of 1024)"
    )]
    Unreadable {
        /// The text.
        text: String,
    },
    /// The size is zero.
    #[error("a volume's size must not be zero")]
    Zero,
    /// The size is over 1 EiB.
    #[error("a volume of {bytes} bytes is too large: the limit is 1 EiB")]
    TooLarge {
        /// The size.
        bytes: u64,
    },
    /// The size is no multiple of a sector.
    #[error("a volume's size must be a multiple of 512 bytes; {bytes} is not")]
    Unaligned {
        /// The size.
        bytes: u64,
    },
    /// The size is none of a block.
    #[error("a block of {bytes} bytes is not possible: choose 4K, 8K, 16K, 32K or 64K")]
    Block {
        /// The size.
        bytes: u64,
    },
}

/// Reads a size such as `10G` or `512`. Suffixes are powers of 1024, and `iB` or `B` may follow
/// them. Refuses fractions such as `1.5T`.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let unreadable = || SizeError::Unreadable { text: text.to_owned() };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| unreadable())?;
    let letter = suffix.trim_end_matches("iB").trim_end_matches('B').to_ascii_uppercase();
    let shift = match letter.as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return Err(unreadable()),
    };
    number.checked_mul(1 << shift).ok_or(SizeError::TooLarge { bytes: u64::MAX })
}

/// Checks the size of a volume.
pub fn check_volume(bytes: u64) -> Result<u64, SizeError> {
    match bytes {
        0 => Err(SizeError::Zero),
        _ if bytes > VOLUME_BYTES_MAX => Err(SizeError::TooLarge { bytes }),
        _ if !bytes.is_multiple_of(SECTOR_BYTES) => Err(SizeError::Unaligned { bytes }),
        _ => Ok(bytes),
    }
}

/// The size of a volume's blocks: a power of two from 4 KiB to 64 KiB, fixed at creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    shift: u8,
}

impl Default for BlockSize {
    fn default() -> Self {
        Self { shift: 12 }
    }
}

impl BlockSize {
    /// Takes a number of bytes.
    pub fn from_bytes(bytes: u64) -> Result<Self, SizeError> {
        let ok = bytes.is_power_of_two() && (1 << 12..=1 << 16).contains(&bytes);
        if !ok {
            return Err(SizeError::Block { bytes });
        }
        Ok(Self { shift: bytes.trailing_zeros() as u8 })
    }

    /// Takes the binary logarithm, the stored form.
    pub fn from_shift(shift: u8) -> Result<Self, SizeError> {
        Self::from_bytes(1u64.checked_shl(u32::from(shift)).unwrap_or(0))
    }

    /// The binary logarithm of the size.
    pub fn shift(self) -> u8 {
        self.shift
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        1 << self.shift
    }

    /// The block that holds a byte offset.
    pub fn index(self, offset_bytes: u64) -> u64 {
        offset_bytes >> self.shift
    }

    /// The byte offset at which a block begins.
    pub fn offset(self, index: u64) -> u64 {
        index << self.shift
    }

    /// Number of blocks of a volume of this size; the last may be partial.
    pub fn blocks(self, size_bytes: u64) -> u64 {
        size_bytes.div_ceil(1 << self.shift)
    }

    /// The most blocks that one frame holds.
    pub fn blocks_per_frame(self) -> usize {
        (1 << 16) >> self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(parse_bytes("10G"), Ok(10 << 30));
        assert_eq!(parse_bytes("4KiB"), Ok(4096));
        assert_eq!(parse_bytes("512"), Ok(512));
        for bad in ["", "G", "-1", "1.5G", "10X", "99999999999999999999"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert!(parse_bytes("999999P").is_err());
        assert_eq!(check_volume(1 << 60), Ok(1 << 60));
        assert!(check_volume(0).is_err());
        assert!(check_volume(1000).is_err());
        assert!(check_volume((1 << 60) + 512).is_err());
        assert!(BlockSize::from_bytes(2048).is_err());
        assert_eq!(BlockSize::from_bytes(65536).map(BlockSize::blocks_per_frame), Ok(1));
    }
}
