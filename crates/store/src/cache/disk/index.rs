//! The index of the disk cache: from 4 bytes of a frame's key to 4 bytes of its place.
//!
//! It is small, since there may be two million frames, and so it is not exact. Two keys may share
//! an entry, and the later one has it. Frames describe themselves, so a wrong entry is a miss.

use super::{FrameKey, Placed};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

/// Frames begin at multiples of this many bytes within a file.
pub(super) const ALIGN: u64 = 64;
/// The most files at a time.
pub(super) const FILES_MAX: u64 = 1 << (32 - PLACE_BITS);
/// The largest file, bytes.
pub(super) const FILE_BYTES_MAX: u64 = ALIGN << PLACE_BITS;

const PLACE_BITS: u32 = 24;
const SHARDS: usize = 16;

/// Place of a frame: file number modulo [`FILES_MAX`], and the offset in it in units of [`ALIGN`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct FramePlace(u32);

impl FramePlace {
    fn new(file: u64, at: u64) -> Self {
        Self((((file % FILES_MAX) as u32) << PLACE_BITS) | (at / ALIGN) as u32)
    }

    fn file(self) -> usize {
        (self.0 >> PLACE_BITS) as usize
    }

    fn at(self) -> u64 {
        u64::from(self.0 & ((1 << PLACE_BITS) - 1)) * ALIGN
    }
}

pub(super) struct Index {
    shards: [Mutex<HashMap<u32, FramePlace>>; SHARDS],
    files: RwLock<Vec<Option<Arc<File>>>>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            files: RwLock::new(vec![None; FILES_MAX as usize]),
        }
    }

    fn shard(&self, print: u32) -> &Mutex<HashMap<u32, FramePlace>> {
        &self.shards[print as usize % SHARDS]
    }

    pub(super) fn find(&self, key: FrameKey) -> Option<Placed> {
        let print = fingerprint(key);
        let place = *self.shard(print).lock().get(&print)?;
        let file = self.files.read()[place.file()].clone()?;
        Some(Placed { file, at: place.at() })
    }

    pub(super) fn insert(&self, key: FrameKey, file: u64, at: u64) {
        let print = fingerprint(key);
        self.shard(print).lock().insert(print, FramePlace::new(file, at));
    }

    pub(super) fn remove(&self, key: FrameKey) {
        let print = fingerprint(key);
        self.shard(print).lock().remove(&print);
    }

    pub(super) fn contains(&self, key: FrameKey) -> bool {
        let print = fingerprint(key);
        self.shard(print).lock().contains_key(&print)
    }

    pub(super) fn add_file(&self, number: u64, file: Arc<File>) {
        self.files.write()[(number % FILES_MAX) as usize] = Some(file);
    }

    /// Forgets a file and all frames in it.
    pub(super) fn drop_file(&self, number: u64) {
        let slot = (number % FILES_MAX) as usize;
        self.files.write()[slot] = None;
        for shard in &self.shards {
            shard.lock().retain(|_, place| place.file() != slot);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// Makes 32 bits of a frame's key. The stream is random already; number and offset are mixed in.
fn fingerprint((segment, offset): FrameKey) -> u32 {
    let [a, b] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&segment.stream.0[at..at + 8]);
        u64::from_le_bytes(half)
    });
    let mut mixed = a ^ b.rotate_left(32) ^ segment.number.0.rotate_left(24);
    // The finaliser of SplitMix64, once for the number and once for the offset.
    for more in [0, u64::from(offset)] {
        mixed = mixed.wrapping_add(more).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed as u32
}
