//! Turns blocks into extents.

use bytes::Bytes;

use crate::codec::{Compression, Extent, HASH_BYTES, Hash, Named, Range, Stamp, Stamped};

/// Blocks in a row that did not shrink, after which the packer rests.
const FAILURES_MAX: u32 = 4;
/// Shortest and longest rest, in bytes that are sent without a try.
const REST_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(64 << 20);
/// Bytes of a block that are tried first. If they don't shrink, the rest is not tried.
const PROBE_BYTES: usize = 4 << 10;
/// Blocks up to this length are not probed: the probe would be a good part of the block.
const WHOLE_BYTES_MAX: usize = 4 * PROBE_BYTES;

/// A block that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packed {
    /// All its bytes are zeros.
    Zeros(Stamped),
    /// Other bytes.
    Extent(Extent),
}

/// Packs the blocks of one device, and remembers whether compressing them pays.
#[derive(Debug)]
pub struct Packer {
    compress: bool,
    failures: u32,
    rest_bytes: u64,
    next_rest_bytes: u64,
    buffer: Vec<u8>,
}

/// First 16 bytes of BLAKE3.
#[must_use]
pub fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..HASH_BYTES]);
    hash
}

/// Says whether all bytes are zeros.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Most blocks with data show it in their first bytes.
    let (head, rest) = bytes.split_at(bytes.len().min(64));
    let zero = |chunk: &[u8]| chunk.iter().fold(0, |all, byte| all | byte) == 0;
    zero(head) && rest.chunks(4096).all(zero)
}

impl Packer {
    /// Makes a packer. Without `compress` it sends all extents as they are.
    #[must_use]
    pub fn new(compress: bool) -> Self {
        let next_rest_bytes = *REST_BYTES.start();
        Self { compress, failures: 0, rest_bytes: 0, next_rest_bytes, buffer: Vec::new() }
    }

    /// Packs a block of at most [`EXTENT_BYTES_MAX`] bytes.
    ///
    /// [`EXTENT_BYTES_MAX`]: crate::codec::EXTENT_BYTES_MAX
    pub fn pack(&mut self, offset: u64, stamp: Stamp, bytes: Bytes) -> Packed {
        if is_zero(&bytes) {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return Packed::Zeros(Stamped { range: Range { offset, length }, stamp });
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let named = Named { offset, length, stamp, hash: hash(&bytes) };
        let extent = match self.compressed(&bytes) {
            Some(stored) => Extent { named, compression: Compression::Lz4, stored },
            None => Extent { named, compression: Compression::Raw, stored: bytes },
        };
        Packed::Extent(extent)
    }

    /// Compresses a block, unless that does not pay or the packer rests.
    fn compressed(&mut self, bytes: &[u8]) -> Option<Bytes> {
        if !self.compress {
            return None;
        }
        if self.rest_bytes > 0 {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.rest_bytes = self.rest_bytes.saturating_sub(length);
            return None;
        }
        let probe = bytes.len() > WHOLE_BYTES_MAX;
        let stored = match probe && !self.shrinks(&bytes[..PROBE_BYTES]) {
            true => None,
            false => self.shrinks(bytes).then(|| Bytes::copy_from_slice(&self.buffer)),
        };
        match stored {
            Some(_) => (self.failures, self.next_rest_bytes) = (0, *REST_BYTES.start()),
            None => self.fail(),
        }
        stored
    }

    /// Compresses into the buffer. Says whether an eighth was saved: less does not pay the time.
    fn shrinks(&mut self, bytes: &[u8]) -> bool {
        self.buffer.resize(lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
        match lz4_flex::block::compress_into(bytes, &mut self.buffer) {
            Ok(length) => {
                self.buffer.truncate(length);
                length <= bytes.len() - bytes.len() / 8 && length < bytes.len()
            }
            Err(_) => false,
        }
    }

    /// Rests longer each time, since what did not shrink so often rarely will.
    fn fail(&mut self) {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.rest_bytes = self.next_rest_bytes;
            self.next_rest_bytes = (self.next_rest_bytes * 2).min(*REST_BYTES.end());
        }
    }
}
