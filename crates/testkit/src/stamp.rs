//! The content of a crash test's blocks, which tells later where a block is from.
//!
//! A stamp holds the run's seed, the block's number and the write's sequence number. The rest of
//! the block follows from these, and a checksum covers it all. So a check tells an old block from
//! one that is torn, misplaced, mixed from two writes or from another run.

use std::fmt;

/// The size of a stamped block, bytes.
pub const BLOCK_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"skstamp1";
const HEADER_BYTES: usize = 40;

/// The number of a block.
pub type Block = u64;

/// The number of a write. It runs over all writes of a run; 0 means "never written".
pub type Sequence = u64;

/// Content of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Only zeroes.
    Zeroes,
    /// The whole of one write.
    Written(Sequence),
}

/// Says why a block can't be a write's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadBlock {
    /// The block holds neither zeroes nor a stamp.
    Foreign,
    /// The block holds a stamp with other bytes than its own.
    Torn {
        /// The sequence number in the stamp.
        sequence: Sequence,
    },
    /// The block belongs to another block or run.
    Misplaced {
        /// The run that it names.
        seed: u64,
        /// The block that it names.
        block: Block,
    },
}

impl fmt::Display for BadBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadBlock::Foreign => f.write_str("holds neither zeroes nor a stamp"),
            BadBlock::Torn { sequence } => {
                write!(f, "holds a part of write {sequence} mixed with something else")
            }
            BadBlock::Misplaced { seed, block } => {
                write!(f, "holds what was written to block {block} in the run with seed {seed}")
            }
        }
    }
}

/// Makes the bytes of a block, `BLOCK_BYTES` of them.
///
/// A third of the blocks is incompressible, a third half so, a third repeats one short pattern. So
/// a server that compresses takes each of its paths.
#[must_use]
pub fn make(seed: u64, block: Block, sequence: Sequence) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(seed.to_le_bytes());
    bytes.extend(block.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend([0; 8]); // the checksum's place
    let mut state = mix(seed ^ mix(block ^ mix(sequence)));
    let random_bytes = match sequence % 3 {
        0 => BLOCK_BYTES,
        1 => BLOCK_BYTES / 2,
        _ => HEADER_BYTES + 8,
    };
    while bytes.len() < BLOCK_BYTES {
        if bytes.len() < random_bytes {
            state = mix(state);
        }
        bytes.extend(state.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes[32..36].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads the content of `bytes`, which were read from `block`.
///
/// # Errors
/// When [`make`] makes no such bytes for this run and block.
pub fn check(seed: u64, block: Block, bytes: &[u8]) -> Result<Content, BadBlock> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Content::Zeroes);
    }
    if bytes.len() != BLOCK_BYTES || !bytes.starts_with(MAGIC) {
        return Err(BadBlock::Foreign);
    }
    let (found_seed, found_block, sequence) =
        (u64_at(bytes, 8), u64_at(bytes, 16), u64_at(bytes, 24));
    if bytes != make(found_seed, found_block, sequence) {
        return Err(BadBlock::Torn { sequence });
    }
    if (found_seed, found_block) != (seed, block) {
        return Err(BadBlock::Misplaced { seed: found_seed, block: found_block });
    }
    Ok(Content::Written(sequence))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A step of SplitMix64: a cheap bijection that scatters.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_every_wrong_place_is_told() {
        for sequence in 1..10 {
            let bytes = make(7, 3, sequence);
            assert_eq!(bytes.len(), BLOCK_BYTES);
            assert_eq!(check(7, 3, &bytes), Ok(Content::Written(sequence)));
            assert_eq!(check(7, 4, &bytes), Err(BadBlock::Misplaced { seed: 7, block: 3 }));
            assert_eq!(check(8, 3, &bytes), Err(BadBlock::Misplaced { seed: 7, block: 3 }));
        }
        assert_eq!(check(7, 3, &[0; BLOCK_BYTES]), Ok(Content::Zeroes));
        assert_eq!(check(7, 3, &[1; BLOCK_BYTES]), Err(BadBlock::Foreign));
    }

    #[test]
    fn a_block_mixed_from_two_writes_is_torn_at_every_sector() {
        let (old, new) = (make(7, 3, 1), make(7, 3, 2));
        for cut in (512..BLOCK_BYTES).step_by(512) {
            let mixed = [&new[..cut], &old[cut..]].concat();
            assert_eq!(check(7, 3, &mixed), Err(BadBlock::Torn { sequence: 2 }), "cut at {cut}");
        }
    }
}
