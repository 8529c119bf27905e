//! Which blocks a map node covers, and the sizes of its entries.

/// Binary logarithm of the blocks of a leaf.
pub const LEAF_SHIFT: u32 = 7;
/// Binary logarithm of the children of an inner node.
pub const INNER_SHIFT: u32 = 6;
/// The highest level that a 64-bit block index needs.
pub const LEVEL_MAX: u8 = 10;
/// Bytes of an entry of a leaf.
pub const LEAF_ENTRY: usize = 20;
/// Bytes of an entry of an inner node.
pub const INNER_ENTRY: usize = 44;

/// An entry of a leaf whose block is in this bucket.
pub(super) const ENTRY_DATA: u8 = 1;
/// Reserved: this version neither reads nor writes such an entry.
pub(super) const ENTRY_REMOTE: u8 = 2;

/// Number of blocks that a node of this level covers, as a binary logarithm.
pub fn span_shift(level: u8) -> u32 {
    LEAF_SHIFT + INNER_SHIFT * u32::from(level)
}

/// The lowest level whose one node covers `blocks` blocks.
pub fn level_for(blocks: u64) -> u8 {
    (0..LEVEL_MAX)
        .find(|&level| span_shift(level) >= 64 || blocks <= 1 << span_shift(level))
        .unwrap_or(LEVEL_MAX)
}

/// The place of a block index within a node of this level.
pub fn place_of(level: u8, index: u64) -> u8 {
    if level == 0 {
        return (index & ((1 << LEAF_SHIFT) - 1)) as u8;
    }
    (index.checked_shr(span_shift(level - 1)).unwrap_or(0) & ((1 << INNER_SHIFT) - 1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_cover_every_size() {
        assert_eq!(level_for(1), 0);
        assert_eq!(level_for(128), 0);
        assert_eq!(level_for(129), 1);
        assert_eq!(level_for(1 << 38), 6);
        assert_eq!(level_for(1 << 48), 7);
        assert_eq!(place_of(0, 130), 2);
        assert_eq!(place_of(1, 130), 1);
    }
}
