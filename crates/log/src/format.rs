//! Every byte at rest: file header, record header, file names. `docs/log-format.md` describes them.
//!
//! Pure functions over byte arrays: no IO, no policy. All numbers are little-endian; every checksum
//! is CRC32C.

use std::ops::Range;

use crate::LogPosition;

/// Version in a file's header.
pub const FILE_FORMAT_VERSION: u16 = 2;
/// Version in a record's header.
pub const RECORD_FORMAT_VERSION: u8 = 2;
/// Records start on multiples of this many bytes.
pub const RECORD_ALIGN_BYTES: u32 = 512;
/// Bytes of a record's header; its table of checksums follows, then the payload.
pub const RECORD_HEADER_BYTES: u32 = 64;
/// Bytes of a payload that have a checksum of their own. A reader of a part verifies only that
/// part.
pub(crate) const PIECE_BYTES: u32 = 4096;
/// Offset of the first record: two copies of the header come before it.
pub const RECORDS_START: u32 = 2 * FILE_HEADER_BYTES as u32;
/// The most file uses that a header can list: the rest of its 4096 bytes.
pub const MAX_LIVE_FILES: usize = (FILE_CRC_AT - FILE_LIVE_AT) / 8;

/// Bytes of one copy of a file's header.
pub(crate) const FILE_HEADER_BYTES: usize = 4096;
const FILE_MAGIC: [u8; 8] = *b"SKRYLOGF";
const FILE_LIVE_AT: usize = 128;
const FILE_CRC_AT: usize = FILE_HEADER_BYTES - 4;

const RECORD_MAGIC: [u8; 4] = *b"SKLR";
const RECORD_CRC_AT: usize = 60;
/// Flag of a record that the log wrote for itself, to carry `synced_to`.
const FLAG_MARK: u8 = 1;

/// The header of one use of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) sequence: u32,
    pub(crate) log_id: u128,
    pub(crate) nonce: u64,
    pub(crate) file_bytes: u64,
    pub(crate) first_number: u64,
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) live: Vec<LiveEntry>,
}

/// The use before this one, and the end of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Predecessor {
    pub(crate) sequence: u32,
    pub(crate) end: u32,
    pub(crate) nonce: u64,
}

/// A use with records that are still needed, and their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveEntry {
    pub(crate) sequence: u32,
    pub(crate) end: u32,
}

/// Says why bytes are not a usable header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not a header, or a torn one, or a damaged one.
    Bad,
    /// Whole, but of another version.
    Version(u16),
}

impl FileHeader {
    /// Encodes one copy. `live` has at most [`MAX_LIVE_FILES`] entries; settings see to it.
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut out = [0; FILE_HEADER_BYTES];
        put(&mut out, 0, &FILE_MAGIC);
        put(&mut out, 8, &FILE_FORMAT_VERSION.to_le_bytes());
        put(&mut out, 12, &self.sequence.to_le_bytes());
        put(&mut out, 16, &self.log_id.to_le_bytes());
        put(&mut out, 32, &self.nonce.to_le_bytes());
        put(&mut out, 40, &self.file_bytes.to_le_bytes());
        put(&mut out, 48, &self.first_number.to_le_bytes());
        if let Some(before) = self.predecessor {
            put(&mut out, 56, &before.sequence.to_le_bytes());
            put(&mut out, 60, &before.end.to_le_bytes());
            put(&mut out, 64, &before.nonce.to_le_bytes());
        }
        put(&mut out, 72, &(self.live.len() as u32).to_le_bytes());
        for (index, entry) in self.live.iter().enumerate() {
            put(&mut out, FILE_LIVE_AT + index * 8, &entry.sequence.to_le_bytes());
            put(&mut out, FILE_LIVE_AT + index * 8 + 4, &entry.end.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..FILE_CRC_AT]);
        put(&mut out, FILE_CRC_AT, &crc.to_le_bytes());
        out
    }

    /// Reads one copy. Magic, version and checksum keep their places in every version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() < FILE_HEADER_BYTES || bytes[..8] != FILE_MAGIC {
            return Err(Unreadable::Bad);
        }
        if u32_at(bytes, FILE_CRC_AT) != crc32c::crc32c(&bytes[..FILE_CRC_AT]) {
            return Err(Unreadable::Bad);
        }
        let version = u16_at(bytes, 8);
        if version != FILE_FORMAT_VERSION {
            return Err(Unreadable::Version(version));
        }
        let count = u32_at(bytes, 72) as usize;
        let before = u32_at(bytes, 56);
        if count > MAX_LIVE_FILES {
            return Err(Unreadable::Bad);
        }
        Ok(Self {
            sequence: u32_at(bytes, 12),
            log_id: u128_at(bytes, 16),
            nonce: u64_at(bytes, 32),
            file_bytes: u64_at(bytes, 40),
            first_number: u64_at(bytes, 48),
            predecessor: (before != 0).then(|| Predecessor {
                sequence: before,
                end: u32_at(bytes, 60),
                nonce: u64_at(bytes, 64),
            }),
            live: (0..count).map(|index| live_at(bytes, index)).collect(),
        })
    }
}

fn live_at(bytes: &[u8], index: usize) -> LiveEntry {
    let at = FILE_LIVE_AT + index * 8;
    LiveEntry { sequence: u32_at(bytes, at), end: u32_at(bytes, at + 4) }
}

/// The header before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// True if the log wrote it for itself, without payload.
    pub(crate) mark: bool,
    pub(crate) kind: u8,
    pub(crate) group: u32,
    pub(crate) nonce: u64,
    pub(crate) position: LogPosition,
    pub(crate) number: u64,
    pub(crate) synced_to: LogPosition,
    pub(crate) payload_bytes: u32,
    /// Checksum of the table, or of the payload if there is no table.
    pub(crate) checksum: u32,
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_BYTES as usize] {
        let mut out = [0; RECORD_HEADER_BYTES as usize];
        put(&mut out, 0, &RECORD_MAGIC);
        out[4] = RECORD_FORMAT_VERSION;
        out[5] = if self.mark { FLAG_MARK } else { 0 };
        out[6] = self.kind;
        put(&mut out, 8, &self.nonce.to_le_bytes());
        put(&mut out, 16, &self.position.as_u64().to_le_bytes());
        put(&mut out, 24, &self.number.to_le_bytes());
        put(&mut out, 32, &self.synced_to.as_u64().to_le_bytes());
        put(&mut out, 40, &self.payload_bytes.to_le_bytes());
        put(&mut out, 44, &self.group.to_le_bytes());
        put(&mut out, 48, &self.checksum.to_le_bytes());
        let crc = crc32c::crc32c(&out[..RECORD_CRC_AT]);
        put(&mut out, RECORD_CRC_AT, &crc.to_le_bytes());
        out
    }

    /// Places of the record's parts.
    pub(crate) fn layout(&self) -> Layout {
        Layout { payload_bytes: self.payload_bytes }
    }

    /// True if `body` is the table and payload that were written after this header.
    pub(crate) fn vouches_for(&self, body: &[u8]) -> bool {
        let layout = self.layout();
        let Some((table, payload)) = body.split_at_checked(layout.table_bytes() as usize) else {
            return false;
        };
        let payload = payload.get(..self.payload_bytes as usize);
        payload.is_some_and(|payload| self.vouches_for_pieces(table, 0..layout.pieces(), payload))
    }

    /// True if `bytes` are these pieces of the payload, and `table` is the record's.
    pub(crate) fn vouches_for_pieces(
        &self,
        table: &[u8],
        pieces: Range<u32>,
        bytes: &[u8],
    ) -> bool {
        let layout = self.layout();
        if table.is_empty() {
            return crc32c::crc32c(bytes) == self.checksum;
        }
        let first = layout.bytes_of(pieces.start..pieces.start + 1).len().min(bytes.len());
        let (first, rest) = bytes.split_at(first);
        let parts = std::iter::once(first).chain(rest.chunks(PIECE_BYTES as usize));
        crc32c::crc32c(table) == self.checksum
            && parts
                .zip(pieces)
                .all(|(part, n)| crc32c::crc32c(part) == u32_at(table, n as usize * 4))
    }

    /// Reads a header and verifies its own checksum, not the payload's.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() < RECORD_HEADER_BYTES as usize || bytes[..4] != RECORD_MAGIC {
            return Err(Unreadable::Bad);
        }
        if u32_at(bytes, RECORD_CRC_AT) != crc32c::crc32c(&bytes[..RECORD_CRC_AT]) {
            return Err(Unreadable::Bad);
        }
        if bytes[4] != RECORD_FORMAT_VERSION {
            return Err(Unreadable::Version(bytes[4].into()));
        }
        Ok(Self {
            mark: bytes[5] & FLAG_MARK != 0,
            kind: bytes[6],
            group: u32_at(bytes, 44),
            nonce: u64_at(bytes, 8),
            position: LogPosition::from_u64(u64_at(bytes, 16)),
            number: u64_at(bytes, 24),
            synced_to: LogPosition::from_u64(u64_at(bytes, 32)),
            payload_bytes: u32_at(bytes, 40),
            checksum: u32_at(bytes, 48),
        })
    }
}

/// Places of a record's parts: header, table of checksums, payload.
///
/// Pieces are counted from the payload's end, so that the first one may be shorter. Callers put a
/// head before whole pages, and the pages stay whole pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    payload_bytes: u32,
}

impl Layout {
    /// Number of pieces of the payload.
    pub(crate) fn pieces(self) -> u32 {
        self.payload_bytes.div_ceil(PIECE_BYTES)
    }

    /// Bytes of the table. A single piece needs none: its checksum is in the header.
    pub(crate) fn table_bytes(self) -> u32 {
        if self.pieces() > 1 { self.pieces() * 4 } else { 0 }
    }

    /// Offset of the payload in the record, bytes.
    pub(crate) fn payload_at(self) -> u32 {
        RECORD_HEADER_BYTES + self.table_bytes()
    }

    /// Offset of the payload's end.
    pub(crate) fn end(self) -> u32 {
        self.payload_at() + self.payload_bytes
    }

    /// The pieces that hold a range of the payload.
    pub(crate) fn pieces_of(self, range: &Range<u32>) -> Range<u32> {
        let short = self.pieces() * PIECE_BYTES - self.payload_bytes;
        (range.start + short) / PIECE_BYTES..(range.end + short).div_ceil(PIECE_BYTES)
    }

    /// The range of the payload that pieces hold.
    pub(crate) fn bytes_of(self, pieces: Range<u32>) -> Range<u32> {
        let short = self.pieces() * PIECE_BYTES - self.payload_bytes;
        (pieces.start * PIECE_BYTES).saturating_sub(short)
            ..(pieces.end * PIECE_BYTES).saturating_sub(short)
    }
}

/// The checksums of a payload: the header's, and the table.
pub(crate) fn checksums(parts: &[&[u8]], payload_bytes: u32) -> (u32, Vec<u8>) {
    let layout = Layout { payload_bytes };
    let mut table = Vec::with_capacity(layout.pieces() as usize * 4);
    let mut room = layout.bytes_of(0..1).len();
    let mut sum = 0;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(room.min(rest.len()));
            sum = crc32c::crc32c_append(sum, now);
            (rest, room) = (later, room - now.len());
            if room == 0 {
                table.extend_from_slice(&sum.to_le_bytes());
                (sum, room) = (0, PIECE_BYTES as usize);
            }
        }
    }
    match layout.table_bytes() {
        0 => (table.first_chunk().map_or(0, |sum| u32::from_le_bytes(*sum)), Vec::new()),
        _ => (crc32c::crc32c(&table), table),
    }
}

/// Bytes that a record takes in a file, padding included; `None` if no file could hold it.
pub(crate) fn record_bytes(payload_bytes: usize) -> Option<u32> {
    let payload_bytes = u32::try_from(payload_bytes).ok()?;
    // Far above any file, and far below where the sums below would overflow.
    let layout = Some(Layout { payload_bytes }).filter(|_| payload_bytes < u32::MAX / 2)?;
    layout.end().checked_next_multiple_of(RECORD_ALIGN_BYTES)
}

/// The name of the file in slot `number`. A slot keeps its name over all its uses.
pub(crate) fn slot_name(number: u32) -> String {
    format!("slot-{number:06}.log")
}

/// The number of a slot's file name; `None` for files that are not the log's.
pub(crate) fn slot_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("slot-")?.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (slot_name(number) == name).then_some(number)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            sequence: 7,
            log_id: 1 << 100,
            nonce: 0x1234_5678_9abc_def0,
            file_bytes: 1 << 26,
            first_number: 99,
            predecessor: Some(Predecessor { sequence: 6, end: 9216, nonce: 5 }),
            live: (1..=MAX_LIVE_FILES as u32)
                .map(|sequence| LiveEntry { sequence, end: 8192 })
                .collect(),
        }
    }

    #[test]
    fn file_header_round_trips_with_the_longest_list() {
        assert_eq!(FileHeader::decode(&header().encode()), Ok(header()));
        let first = FileHeader { predecessor: None, live: Vec::new(), ..header() };
        assert_eq!(FileHeader::decode(&first.encode()), Ok(first));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let bytes = header().encode();
        for at in (0..bytes.len()).step_by(3) {
            let mut bad = bytes;
            bad[at] ^= 1 << (at % 8);
            assert_eq!(FileHeader::decode(&bad), Err(Unreadable::Bad), "byte {at}");
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 3;
        let crc = crc32c::crc32c(&bytes[..FILE_CRC_AT]);
        put(&mut bytes, FILE_CRC_AT, &crc.to_le_bytes());
        assert_eq!(FileHeader::decode(&bytes), Err(Unreadable::Version(3)));
    }

    fn a_record() -> RecordHeader {
        RecordHeader {
            mark: false,
            kind: 9,
            group: 77,
            nonce: 42,
            position: LogPosition::new(3, 8192),
            number: 12,
            synced_to: LogPosition::new(2, 512),
            payload_bytes: 4136,
            checksum: 0xdead_beef,
        }
    }

    #[test]
    fn record_header_round_trips_and_sees_flips() {
        let record = a_record();
        let bytes = record.encode();
        assert_eq!(RecordHeader::decode(&bytes), Ok(record));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert_eq!(RecordHeader::decode(&bad), Err(Unreadable::Bad), "byte {at}");
        }
    }

    #[test]
    fn slot_names_are_exact() {
        assert_eq!(slot_number(&slot_name(12)), Some(12));
        for foreign in
            ["slot-12.log", "slot-000012.log~", "slot--00001.log", "lock", "slot-+00012.log"]
        {
            assert_eq!(slot_number(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn each_piece_has_a_checksum_wherever_parts_end() {
        for payload_bytes in [0, 1, 4095, 4096, 4097, 4160, 8192, 20_000] {
            let payload: Vec<u8> = (0..payload_bytes).map(|n: u32| n as u8).collect();
            let whole = checksums(&[&payload], payload_bytes);
            let cut = payload.len() / 3;
            assert_eq!(checksums(&[&payload[..cut], &payload[cut..]], payload_bytes), whole);
            let (checksum, table) = whole;
            let header = RecordHeader { payload_bytes, checksum, ..a_record() };
            let mut body = [table.clone(), payload.clone()].concat();
            assert!(header.vouches_for(&body), "{payload_bytes}");
            let layout = header.layout();
            for piece in 0..layout.pieces() {
                let range = layout.bytes_of(piece..piece + 1);
                assert_eq!(layout.pieces_of(&range), piece..piece + 1);
                let here = &payload[range.start as usize..range.end as usize];
                assert!(header.vouches_for_pieces(&table, piece..piece + 1, here));
            }
            for at in (0..body.len()).step_by(77) {
                body[at] ^= 4;
                assert!(!header.vouches_for(&body), "byte {at} of {payload_bytes}");
                body[at] ^= 4;
            }
        }
    }

    #[test]
    fn records_are_padded_to_whole_sectors() {
        assert_eq!(record_bytes(0), Some(512));
        assert_eq!(record_bytes(448), Some(512));
        assert_eq!(record_bytes(449), Some(1024));
        assert_eq!(record_bytes(64 + 4096), Some(4608));
        assert_eq!(record_bytes(usize::MAX), None);
    }
}
