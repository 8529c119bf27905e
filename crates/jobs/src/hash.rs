//! Hashes of tenants, which decide the shard of their jobs, and ranges of them.
//!
//! Keys of a shard's database begin with a letter and the tenant's hash. So a shard is a range of
//! hashes, and a range can be split off or merged without reading a row.

use crate::name::Tenant;
use std::fmt;
use std::ops::Bound;

/// A tenant's hash: the first 8 bytes, big-endian, of the BLAKE3 hash of its name. Two tenants may
/// share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantHash(pub u64);

impl TenantHash {
    /// The hash of a tenant. Must hold: it never changes.
    pub fn of(tenant: &Tenant) -> Self {
        let hash = blake3::hash(tenant.as_str().as_bytes());
        let first = hash.as_bytes().first_chunk().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }
}

/// The hashes of one shard, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HashRange {
    /// The lowest hash.
    pub first: u64,
    /// The highest hash.
    pub last: u64,
}

impl HashRange {
    /// All hashes: the range of a single shard.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// The range of shard `number` (from 0) of `of` shards of equal size.
    pub fn part(number: u32, of: u32) -> Self {
        let begin = |number: u32| (u128::from(number) << 64).div_ceil(u128::from(of.max(1)));
        let last = (begin(number + 1) - 1) as u64;
        Self { first: begin(number) as u64, last }
    }

    /// The number of a hash's part, of `of` parts.
    pub fn number_of(hash: TenantHash, of: u32) -> u32 {
        ((u128::from(hash.0) * u128::from(of)) >> 64) as u32
    }

    /// True for a hash within the range.
    pub fn contains(&self, hash: TenantHash) -> bool {
        (self.first..=self.last).contains(&hash.0)
    }

    /// The keys under a letter that belong to these hashes: what a projection keeps.
    pub fn keys(&self, letter: u8) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let key = |hash: u64| [&[letter][..], &hash.to_be_bytes()].concat();
        let end = match self.last.checked_add(1) {
            Some(end) => Bound::Excluded(key(end)),
            None => Bound::Unbounded,
        };
        (Bound::Included(key(self.first)), end)
    }
}

impl fmt::Display for HashRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hashes {:016x} to {:016x}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_without_gaps() {
        for of in [1, 2, 3, 7, 64] {
            let parts: Vec<_> = (0..of).map(|number| HashRange::part(number, of)).collect();
            assert_eq!(parts[0].first, 0);
            assert_eq!(parts[parts.len() - 1].last, u64::MAX);
            for two in parts.windows(2) {
                assert_eq!(two[0].last + 1, two[1].first, "{of} parts");
            }
            for (part, number) in parts.iter().zip(0..) {
                for hash in [part.first, part.last] {
                    assert_eq!(HashRange::number_of(TenantHash(hash), of), number);
                }
            }
        }
        assert_eq!(HashRange::part(0, 1), HashRange::ALL);
    }

    /// The hash decides where a tenant's rows are: it never changes.
    #[test]
    fn a_hash_is_for_ever() {
        let hash = TenantHash::of(&Tenant::new("default").expect("a name"));
        assert_eq!(hash, TenantHash(0xf787_61cf_8c36_21e8), "{:016x}", hash.0);
    }
}
