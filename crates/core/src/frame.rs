//! Frames: up to 64 KiB of consecutive blocks with a header of their own. One ranged GET brings
//! bytes that verify themselves.

use crate::entry::BlockEntry;
use crate::id::StreamId;
use crate::position::{Number, SegmentKey};
use crate::size::BlockSize;
use crate::wire::{FormatError, Hash16, Reader, hash16};
use bytes::{BufMut, Bytes, BytesMut};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

/// The most raw bytes in one frame.
pub const FRAME_RAW_BYTES_MAX: usize = 1 << 16;
/// Bytes of the fixed part of a frame's header.
pub const FRAME_HEAD: usize = 64;
/// Bytes for each block in a frame's header.
pub const FRAME_BLOCK: usize = 28;
/// The longest header of a frame, bytes: of sixteen blocks.
pub const FRAME_HEAD_BYTES_MAX: usize = FRAME_HEAD + FRAME_BLOCK * (FRAME_RAW_BYTES_MAX / 4096);
/// The longest frame, bytes.
pub const FRAME_BYTES_MAX: usize = FRAME_HEAD_BYTES_MAX + FRAME_RAW_BYTES_MAX;

const MAGIC: u32 = u32::from_le_bytes(*b"SKFR");
const VERSION: u8 = 1;
const CODEC_RAW: u8 = 0;
const CODEC_LZ4: u8 = 1;
const CRC_AT: usize = 60;
const WHAT: &str = "frame";

/// Bytes of the header of a frame of `blocks` blocks.
pub fn head_len(blocks: usize) -> usize {
    FRAME_HEAD + FRAME_BLOCK * blocks
}

/// Number of blocks of a raw frame of this length; none if no raw frame has it.
pub fn raw_blocks(frame_len: u32, block: BlockSize) -> Option<usize> {
    let blocks = (frame_len as usize).checked_sub(FRAME_HEAD)?;
    let each = FRAME_BLOCK + block.bytes();
    let n = blocks / each;
    (blocks.is_multiple_of(each) && (1..=block.blocks_per_frame()).contains(&n)).then_some(n)
}

/// Place of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePlace {
    /// The segment.
    pub segment: SegmentKey,
    /// Offset of the frame in the segment, bytes.
    pub offset: u32,
    /// The slot of its first block.
    pub first_slot: u16,
}

/// Bytes at each end of a frame that decide whether compression is tried. So incompressible data
/// costs next to nothing.
const SAMPLE: usize = 1024;

/// True if packing saves at least an eighth.
fn is_worth(packed: usize, plain: usize) -> bool {
    packed <= plain - plain / 8
}

/// Encodes frames one after another. Keeps its scratch memory, at most two frames, between them.
#[derive(Default)]
pub struct FrameEncoder {
    table: CompressTable,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameEncoder")
    }
}

impl FrameEncoder {
    /// Packs `input` into `self.packed` with LZ4. Gives the packed length, or none if it does not
    /// fit.
    fn pack(&mut self, input: &[u8]) -> Option<usize> {
        self.packed.resize(get_maximum_output_size(FRAME_RAW_BYTES_MAX), 0);
        compress_into_with_table(input, &mut self.packed, &mut self.table).ok()
    }

    fn sample_is_worth(&mut self, sample: &[u8]) -> bool {
        self.pack(sample).is_some_and(|packed| is_worth(packed, sample.len()))
    }

    /// Packs all blocks if that saves at least an eighth. Gives the packed length in `self.packed`.
    fn compress(&mut self, blocks: &[&[u8]]) -> Option<usize> {
        let (first, last) = (blocks.first()?, blocks.last()?);
        let (head, tail) = (SAMPLE.min(first.len()), last.len().saturating_sub(SAMPLE));
        if !self.sample_is_worth(&first[..head]) && !self.sample_is_worth(&last[tail..]) {
            return None;
        }
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        blocks.iter().for_each(|block| plain.extend_from_slice(block));
        let packed = self.pack(&plain).filter(|packed| is_worth(*packed, plain.len()));
        self.plain = plain;
        packed
    }

    /// Appends a frame of `blocks` to `out` and gives its length. `table` has the index and hash of
    /// each block.
    pub fn encode(
        &mut self,
        out: &mut BytesMut,
        place: FramePlace,
        block: BlockSize,
        table: &[(u64, Hash16)],
        blocks: &[&[u8]],
    ) -> usize {
        let begin = out.len();
        let raw_len: usize = blocks.iter().map(|b| b.len()).sum();
        let packed = self.compress(blocks);
        out.put_u32_le(MAGIC);
        out.put_u8(VERSION);
        out.put_u8(if packed.is_some() { CODEC_LZ4 } else { CODEC_RAW });
        out.put_u8(block.shift());
        out.put_u8(0);
        out.put_slice(&place.segment.stream.0);
        out.put_u64_le(place.segment.number.0);
        out.put_u32_le(place.offset);
        out.put_u16_le(place.first_slot);
        out.put_u16_le(table.len() as u16);
        out.put_u32_le(raw_len as u32);
        out.put_u32_le(packed.unwrap_or(raw_len) as u32);
        out.put_bytes(0, CRC_AT - 48);
        out.put_u32_le(0);
        for ((index, hash), plain) in table.iter().zip(blocks) {
            out.put_u64_le(*index);
            out.put_slice(hash);
            out.put_u32_le(crc32c::crc32c(plain));
        }
        let crc = head_crc(&out[begin..]);
        out[begin + CRC_AT..begin + FRAME_HEAD].copy_from_slice(&crc.to_le_bytes());
        match packed {
            Some(len) => out.put_slice(&self.packed[..len]),
            None => blocks.iter().for_each(|block| out.put_slice(block)),
        }
        out.len() - begin
    }
}

fn head_crc(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..CRC_AT]), &head[FRAME_HEAD..])
}

/// A frame's header, checked.
#[derive(Debug, Clone)]
pub struct FrameHead {
    place: FramePlace,
    codec: u8,
    block: BlockSize,
    raw_len: u32,
    stored_len: u32,
    table: Vec<BlockRow>,
}

/// A header's row for one block.
#[derive(Debug, Clone, Copy)]
struct BlockRow {
    index: u64,
    hash: Hash16,
    crc: u32,
}

impl FrameHead {
    /// Reads the header at the start of `bytes`, which may go on beyond it.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        if reader.u32()? != MAGIC {
            return Err(FormatError::BadMagic { what: WHAT });
        }
        let (version, codec, shift, _) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
        let segment =
            SegmentKey { stream: StreamId(reader.array()?), number: Number(reader.u64()?) };
        let place = FramePlace { segment, offset: reader.u32()?, first_slot: reader.u16()? };
        let count = usize::from(reader.u16()?);
        let (raw_len, stored_len, key) = (reader.u32()?, reader.u32()?, reader.u32()?);
        reader.u64()?;
        let crc = reader.u32()?;
        let table_bytes = reader.bytes(FRAME_BLOCK * count)?;
        if head_crc(&bytes[..head_len(count)]) != crc {
            return Err(FormatError::BadChecksum { what: WHAT });
        }
        if version > VERSION || codec > CODEC_LZ4 || key != 0 {
            return Err(FormatError::Newer { what: WHAT, version: u32::from(version) });
        }
        let block =
            BlockSize::from_shift(shift).map_err(|e| FormatError::invalid(WHAT, e.to_string()))?;
        if raw_len as usize != count * block.bytes() || raw_len as usize > FRAME_RAW_BYTES_MAX {
            return Err(FormatError::invalid(WHAT, "its lengths don't fit its blocks"));
        }
        let mut table = Vec::with_capacity(count);
        let mut entries = Reader::new(WHAT, table_bytes);
        for _ in 0..count {
            let (index, hash, crc) = (entries.u64()?, entries.array()?, entries.u32()?);
            table.push(BlockRow { index, hash, crc });
        }
        Ok(Self { place, codec, block, raw_len, stored_len, table })
    }

    /// The place that the frame claims.
    pub fn place(&self) -> FramePlace {
        self.place
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.table.len()
    }

    /// The block size.
    pub fn block_size(&self) -> BlockSize {
        self.block
    }

    /// The index that a block was written with.
    pub fn index(&self, at: usize) -> Option<u64> {
        self.table.get(at).map(|row| row.index)
    }

    /// Bytes of the whole frame.
    pub fn frame_len(&self) -> usize {
        head_len(self.table.len()) + self.stored_len as usize
    }

    /// True if blocks stand in the payload unpacked, so that one can be read alone.
    pub fn is_raw(&self) -> bool {
        self.codec == CODEC_RAW
    }

    /// Offset of a block within a raw frame, bytes.
    pub fn raw_block_at(&self, at: usize) -> usize {
        head_len(self.table.len()) + at * self.block.bytes()
    }

    /// Checks that a map entry means this frame, and gives the block's index in it.
    pub fn locate(&self, entry: &BlockEntry) -> Result<usize, FormatError> {
        let at = usize::from(entry.slot).wrapping_sub(usize::from(self.place.first_slot));
        let here = self.place.segment == entry.segment
            && self.place.offset == entry.offset
            && self.frame_len() == entry.len as usize;
        if !here || at >= self.table.len() {
            return Err(FormatError::invalid(WHAT, "it is not the frame that the map means"));
        }
        Ok(at)
    }

    /// Checks one plain block against its CRC, as every read does. The CRC finds bit rot. The hash,
    /// ten times as dear, is for telling equal blocks and for [`Self::verify_hash`].
    pub fn verify_block(&self, at: usize, plain: &[u8]) -> Result<(), FormatError> {
        match self.table.get(at) {
            Some(row) if crc32c::crc32c(plain) == row.crc => Ok(()),
            _ => Err(FormatError::BadChecksum { what: "block" }),
        }
    }

    /// Checks one plain block against its hash, too, as a check of the whole bucket does.
    pub fn verify_hash(&self, at: usize, plain: &[u8]) -> Result<(), FormatError> {
        self.verify_block(at, plain)?;
        match self.table.get(at) {
            Some(row) if hash16(plain) == row.hash => Ok(()),
            _ => Err(FormatError::BadChecksum { what: "block" }),
        }
    }

    /// Unpacks the payload of `frame` (header included) without looking at checksums. Does not copy
    /// a raw payload.
    pub fn unpack(&self, frame: &Bytes) -> Result<Bytes, FormatError> {
        if self.is_raw() {
            let payload = self.payload(frame)?;
            return Ok(frame.slice_ref(payload));
        }
        let mut raw = vec![0; self.raw_len as usize];
        self.unpack_into(frame, &mut raw)?;
        Ok(raw.into())
    }

    /// Unpacks the payload of `frame` (header included) into `out`, which is as long as all its
    /// blocks. Looks at no checksums.
    pub fn unpack_into(&self, frame: &[u8], out: &mut [u8]) -> Result<(), FormatError> {
        let payload = self.payload(frame)?;
        if out.len() != self.raw_len as usize {
            return Err(FormatError::Truncated { what: WHAT });
        }
        if self.is_raw() {
            out.copy_from_slice(payload);
            return Ok(());
        }
        let unpacked = lz4_flex::block::decompress_into(payload, out);
        let n = unpacked
            .map_err(|e| FormatError::invalid(WHAT, format!("its payload does not unpack: {e}")))?;
        if n == out.len() { Ok(()) } else { Err(FormatError::Truncated { what: WHAT }) }
    }

    /// The payload of `frame`, if its length is right.
    fn payload<'a>(&self, frame: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let payload = frame.get(head_len(self.table.len())..).unwrap_or_default();
        let raw_fits = !self.is_raw() || payload.len() == self.raw_len as usize;
        if frame.len() != self.frame_len() || !raw_fits {
            return Err(FormatError::Truncated { what: WHAT });
        }
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> FramePlace {
        let segment = SegmentKey { stream: StreamId([1; 16]), number: Number(2) };
        FramePlace { segment, offset: 300, first_slot: 40 }
    }

    fn frame(raw: &[u8]) -> Bytes {
        let block = BlockSize::default();
        let table: Vec<_> =
            raw.chunks(block.bytes()).enumerate().map(|(i, b)| (7 + i as u64, hash16(b))).collect();
        let blocks: Vec<_> = raw.chunks(block.bytes()).collect();
        let mut out = BytesMut::from(&b"before"[..]);
        let len = FrameEncoder::default().encode(&mut out, place(), block, &table, &blocks);
        assert_eq!(len + b"before".len(), out.len());
        out.freeze().slice(b"before".len()..)
    }

    #[test]
    fn frames_read_back_raw_and_compressed() {
        let noise: Vec<u8> =
            (0..8192u32).map(|i| (blake3::hash(&i.to_le_bytes()).as_bytes())[0]).collect();
        let text = b"skerry ".repeat(2000)[..8192].to_vec();
        for (raw, is_raw) in [(noise, true), (text, false)] {
            let bytes = frame(&raw);
            let head = FrameHead::parse(&bytes).expect("a frame");
            assert_eq!(head.is_raw(), is_raw);
            let entry = BlockEntry {
                segment: place().segment,
                offset: 300,
                len: bytes.len() as u32,
                slot: 41,
                source: 0,
            };
            assert_eq!(head.locate(&entry), Ok(1));
            let plain = head.unpack(&bytes).expect("unpacks");
            assert_eq!(plain, raw);
            assert_eq!(head.verify_block(1, &plain[4096..]), Ok(()));
            assert!(head.verify_block(0, &plain[4096..]).is_err());
            assert!(head.locate(&BlockEntry { slot: 42, ..entry }).is_err());
            assert!(head.locate(&BlockEntry { offset: 0, ..entry }).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = frame(&[5; 8192]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bad = Bytes::from(bad);
            let ok = FrameHead::parse(&bad).and_then(|head| {
                let plain = head.unpack(&bad)?;
                (0..2).try_for_each(|i| head.verify_block(i, &plain[i * 4096..(i + 1) * 4096]))
            });
            // A flipped bit may still unpack to the right bytes; it must never unpack to wrong
            // ones.
            if ok.is_ok() {
                let head = FrameHead::parse(&bad).expect("parsed before");
                assert_eq!(head.unpack(&bad).expect("unpacked before"), vec![5; 8192], "bit {bit}");
            }
        }
    }
}
