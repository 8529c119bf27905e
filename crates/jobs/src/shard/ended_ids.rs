//! Ids of ended jobs, in memory, approximately. A new id is hardly ever one of them. A look into
//! every file of the database would cost more than the rest of taking a job.
//!
//! A scalable Bloom filter (Almeida et al. 2007) of blocked ones (Putze et al. 2007). An id that it
//! lacks is not in the database. Of the ids that it has, a few per cent are not there either: the
//! shard looks for them in vain. Ids are never taken out: the shard looks for ids of deleted and
//! expired jobs until it is opened again.

use parking_lot::Mutex;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Bits for each id.
const ID_BITS: usize = 12;
/// Bits that are set for each id, all within one block.
const ID_MARKS: u32 = 7;
/// Bits of a block: a line of a processor's cache.
const BLOCK_BITS: usize = 512;
const BLOCK_WORDS: usize = BLOCK_BITS / 64;
/// Ids in the first filter; each that follows has room for twice as many.
const FIRST_IDS: usize = 1 << 16;
/// Ids in all since the shard was opened, 48 MiB. Beyond it, nothing is kept in memory, and the
/// shard looks for every new id.
const IDS_MAX: usize = FIRST_IDS * ((1 << 9) - 1);

/// The names of ended jobs.
#[derive(Default)]
pub(super) struct EndedIds {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    filters: Vec<Filter>,
    /// True if all names are here that the database had.
    has_all: bool,
    /// True if there are too many names.
    is_full: bool,
}

struct Filter {
    words: Vec<u64>,
    /// Ids that there is room for.
    room: usize,
}

impl EndedIds {
    /// False only if no job of this name has ended.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        let known = self.known.lock();
        !known.has_all || known.has(hash(key))
    }

    /// Notes that a job of this name has ended, or is about to. False if there are too many names.
    pub(super) fn add(&self, key: &[u8]) -> bool {
        let mut known = self.known.lock();
        known.add(hash(key));
        !known.is_full
    }

    /// Notes that all names were added that the database had at the first one.
    pub(super) fn has_all(&self) {
        let mut known = self.known.lock();
        known.has_all = !known.is_full;
    }
}

impl Known {
    fn has(&self, hash: u64) -> bool {
        self.filters.iter().any(|filter| filter.has(hash))
    }

    fn add(&mut self, hash: u64) {
        if self.is_full || self.has(hash) {
            return;
        }
        if self.filters.last().is_none_or(|filter| filter.room == 0) {
            let ids = FIRST_IDS << self.filters.len();
            let all: usize = (0..=self.filters.len()).map(|at| FIRST_IDS << at).sum();
            if all > IDS_MAX {
                tracing::warn!(
                    "too many jobs have ended to know their ids: new jobs are taken more slowly"
                );
                *self = Self { is_full: true, ..Self::default() };
                return;
            }
            self.filters.push(Filter { words: vec![0; ids * ID_BITS / 64], room: ids });
        }
        if let Some(filter) = self.filters.last_mut() {
            filter.add(hash);
        }
    }
}

impl Filter {
    fn has(&self, hash: u64) -> bool {
        let block = &self.words[self.block(hash)];
        marks(hash).all(|bit| block[bit / 64] & (1 << (bit % 64)) != 0)
    }

    fn add(&mut self, hash: u64) {
        let block = self.block(hash);
        let block = &mut self.words[block];
        marks(hash).for_each(|bit| block[bit / 64] |= 1 << (bit % 64));
        self.room -= 1;
    }

    /// The words of an id's block.
    fn block(&self, hash: u64) -> std::ops::Range<usize> {
        let blocks = (self.words.len() / BLOCK_WORDS) as u128;
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let begin = ((u128::from(mixed) * blocks) >> 64) as usize * BLOCK_WORDS;
        begin..begin + BLOCK_WORDS
    }
}

/// The bits of an id within its block.
fn marks(hash: u64) -> impl Iterator<Item = usize> {
    (0..ID_MARKS).map(move |mark| (hash >> (9 * mark)) as usize % BLOCK_BITS)
}

/// Gives the same hash for a name in every run.
fn hash(key: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: usize) -> Vec<u8> {
        format!("tenant\0job-{id}\0").into_bytes()
    }

    #[test]
    fn what_was_added_is_there_and_hardly_anything_else() {
        const IDS: usize = 5 * FIRST_IDS;
        let ids = EndedIds::default();
        assert!(ids.may_have(&key(0)), "nothing is known yet");
        (0..IDS).for_each(|id| assert!(ids.add(&key(id))));
        assert!(ids.may_have(&key(IDS)), "there may be more in the database");
        ids.has_all();
        (0..IDS).for_each(|id| assert!(ids.may_have(&key(id)), "{id}"));
        let wrong = (IDS..2 * IDS).filter(|id| ids.may_have(&key(*id))).count();
        assert!(wrong < IDS / 50, "{wrong} of {IDS} are looked for in vain");
    }

    #[test]
    fn what_is_added_again_takes_no_room() {
        let ids = EndedIds::default();
        (0..10).for_each(|_| (0..100).for_each(|id| assert!(ids.add(&key(id)))));
        let room: usize = ids.known.lock().filters.iter().map(|filter| filter.room).sum();
        assert_eq!(room, FIRST_IDS - 100);
    }

    #[test]
    fn of_too_many_nothing_is_known() {
        let ids = EndedIds::default();
        ids.has_all();
        ids.known.lock().filters.push(Filter { words: vec![0; BLOCK_WORDS], room: 0 });
        (1..9).for_each(|_| {
            ids.known.lock().filters.push(Filter { words: vec![0; BLOCK_WORDS], room: 0 })
        });
        assert!(!ids.may_have(&key(1)));
        assert!(!ids.add(&key(1)), "there is no room");
        ids.has_all();
        assert!(ids.may_have(&key(1)) && ids.may_have(&key(2)), "they are looked for");
    }
}
