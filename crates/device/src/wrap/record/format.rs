//! The bytes of a log of operations. `docs/format.md` describes them.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// First bytes of a log.
const MAGIC: &[u8; 8] = b"SKRYOPLG";
/// Version of the layout.
const VERSION: u16 = 1;
/// Length of the header, of which the last 4 are its checksum.
const HEADER_BYTES: usize = 28;
/// Length of a record's head: version, kind, reserved, length of the rest, checksum.
const HEAD_BYTES: usize = 12;
/// Length of the fields that every record has after its head: time, offset, length.
const FIXED_BYTES: usize = 24;
/// Version of a record.
const RECORD_VERSION: u8 = 1;

const READ: u8 = 1;
const WRITE: u8 = 2;
const WRITE_AT: u8 = 3;
const ZERO: u8 = 4;
const FLUSH: u8 = 5;
const END: u8 = 255;

/// Length of a recorded read or write at most, bytes. It bounds a reader's memory.
pub const LEN_MAX: u64 = 64 << 20;

/// Uncompressed bytes after which what was recorded goes out, so that a crash loses little.
const FLUSH_BYTES: usize = 256 << 10;

/// Fields of a log's header that vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) size_bytes: u64,
}

/// An operation, and the time from the beginning of the log to its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Time since the log began.
    pub at: Duration,
    /// The operation itself.
    pub action: Action,
}

/// An operation on a device. Offsets and lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "offset and length of each are those of the device's calls")]
pub enum Action {
    /// A read.
    Read { offset: u64, len: u64 },
    /// A write whose bytes were kept.
    Write { offset: u64, data: Bytes },
    /// A write whose bytes were not kept.
    WriteAt { offset: u64, len: u64 },
    /// A zeroing.
    Zero { offset: u64, len: u64 },
    /// A flush.
    Flush,
}

/// The end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The recorder finished it.
    Whole,
    /// Breaks off: the recorder died, or the file was cut.
    Torn,
}

/// An event that ends the reading of a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file is no log of operations.
    #[error("the file is no log of operations")]
    NoLog,
    /// A newer version wrote the log.
    #[error("the log has version {0}, which this version does not know")]
    Version(u16),
    /// Some bytes of the log are not as they were written.
    #[error("the log is damaged after {records} records: {text}")]
    Damaged {
        /// Number of records before the damage.
        records: u64,
        /// The damage.
        text: String,
    },
    /// The file can't be read.
    #[error("the log can't be read: {0}")]
    Read(io::Error),
}

/// Writes a log.
pub(super) struct Encoder<W: Write> {
    to: zstd::Encoder<'static, W>,
    records: u64,
    since_flush: usize,
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(to: W, header: &Header) -> io::Result<Self> {
        let mut to = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?;
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
        bytes.put_slice(MAGIC);
        bytes.put_u16_le(VERSION);
        bytes.put_bytes(0, 6);
        bytes.put_u64_le(header.size_bytes);
        let crc = crc32c::crc32c(&bytes);
        bytes.put_u32_le(crc);
        to.write_all(&bytes)?;
        to.flush()?;
        Ok(Self { to, records: 0, since_flush: 0 })
    }

    pub(super) fn add(&mut self, operation: &Operation) -> io::Result<()> {
        let (kind, offset, len, data) = match &operation.action {
            Action::Read { offset, len } => (READ, *offset, *len, &[][..]),
            Action::Write { offset, data } => (WRITE, *offset, data.len() as u64, &data[..]),
            Action::WriteAt { offset, len } => (WRITE_AT, *offset, *len, &[][..]),
            Action::Zero { offset, len } => (ZERO, *offset, *len, &[][..]),
            Action::Flush => (FLUSH, 0, 0, &[][..]),
        };
        self.put(kind, operation.at, offset, len, data)?;
        self.records += 1;
        if self.since_flush >= FLUSH_BYTES {
            self.since_flush = 0;
            self.to.flush()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let records = self.records;
        self.put(END, Duration::ZERO, 0, records, &[])?;
        self.to.finish()?.flush()
    }

    fn put(
        &mut self,
        kind: u8,
        at: Duration,
        offset: u64,
        len: u64,
        data: &[u8],
    ) -> io::Result<()> {
        let mut head = BytesMut::with_capacity(HEAD_BYTES + FIXED_BYTES);
        head.put_u8(RECORD_VERSION);
        head.put_u8(kind);
        head.put_u16_le(0);
        head.put_u32_le((FIXED_BYTES + data.len()) as u32);
        let mut fixed = BytesMut::with_capacity(FIXED_BYTES);
        fixed.put_u64_le(at.as_nanos() as u64);
        fixed.put_u64_le(offset);
        fixed.put_u64_le(len);
        head.put_u32_le(checksum(&head, &fixed, data));
        head.put_slice(&fixed);
        self.to.write_all(&head)?;
        self.to.write_all(data)?;
        self.since_flush += head.len() + data.len();
        Ok(())
    }
}

/// Checksum of a record: of its head up to the checksum, and of all that follows.
fn checksum(head: &[u8], fixed: &[u8], data: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(head), fixed), data)
}

/// Reads a log.
pub struct Log<R: Read> {
    from: zstd::Decoder<'static, io::BufReader<R>>,
    header: Header,
    records: u64,
    end: Option<End>,
}

impl<R: Read> Log<R> {
    /// Opens a log.
    ///
    /// # Errors
    /// All of [`LogError`].
    pub fn open(from: R) -> Result<Self, LogError> {
        let mut from = zstd::Decoder::new(from).map_err(LogError::Read)?;
        let mut bytes = [0; HEADER_BYTES];
        // A file that is not compressed, or too short, can't be a log.
        from.read_exact(&mut bytes).map_err(|_| LogError::NoLog)?;
        let (mut fields, mut crc) = bytes.split_at(HEADER_BYTES - 4);
        if !fields.starts_with(MAGIC) {
            return Err(LogError::NoLog);
        }
        if crc.get_u32_le() != crc32c::crc32c(fields) {
            return Err(LogError::Damaged { records: 0, text: "its header".into() });
        }
        fields.advance(MAGIC.len());
        let version = fields.get_u16_le();
        if version != VERSION {
            return Err(LogError::Version(version));
        }
        fields.advance(6);
        let header = Header { size_bytes: fields.get_u64_le() };
        Ok(Self { from, header, records: 0, end: None })
    }

    /// Size of the device that was recorded, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    /// The end of the log, once it was read to there.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Reads the next operation; none at the end.
    ///
    /// # Errors
    /// `Damaged` or `Read`. Reading does not go on after that.
    pub fn next_operation(&mut self) -> Result<Option<Operation>, LogError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let Some(head) = self.take(HEAD_BYTES)? else { return Ok(None) };
        let rest_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if head[0] != RECORD_VERSION || rest_len < FIXED_BYTES {
            return Err(self.damaged(format!("a record of version {}", head[0])));
        }
        if rest_len as u64 > LEN_MAX + FIXED_BYTES as u64 {
            return Err(self.damaged(format!("a record of {rest_len} bytes")));
        }
        let Some(rest) = self.take(rest_len)? else { return Ok(None) };
        let (fixed, data) = rest.split_at(FIXED_BYTES);
        let crc = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        if crc != checksum(&head[..8], fixed, data) {
            return Err(self.damaged("a checksum is wrong".into()));
        }
        self.decode(head[1], rest)
    }

    fn decode(&mut self, kind: u8, mut rest: Bytes) -> Result<Option<Operation>, LogError> {
        let at = Duration::from_nanos(rest.get_u64_le());
        let (offset, len) = (rest.get_u64_le(), rest.get_u64_le());
        let action = match kind {
            READ if len <= LEN_MAX => Action::Read { offset, len },
            WRITE if len == rest.len() as u64 => Action::Write { offset, data: rest },
            WRITE_AT if len <= LEN_MAX => Action::WriteAt { offset, len },
            ZERO => Action::Zero { offset, len },
            FLUSH => Action::Flush,
            END if len == self.records => {
                self.end = Some(End::Whole);
                return Ok(None);
            }
            _ => return Err(self.damaged(format!("a record of kind {kind}, of {len} bytes"))),
        };
        self.records += 1;
        Ok(Some(Operation { at, action }))
    }

    /// Reads so many bytes. None if the log breaks off before.
    fn take(&mut self, len: usize) -> Result<Option<Bytes>, LogError> {
        let mut bytes = Vec::new();
        // Not all at once: a length that is wrong must not take memory for bytes that aren't there.
        let read = self.from.by_ref().take(len as u64).read_to_end(&mut bytes);
        match read {
            Ok(_) if bytes.len() == len => Ok(Some(bytes.into())),
            Ok(_) => Ok(self.torn()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(self.torn()),
            // The decoder names what is no valid stream so.
            Err(error) if error.kind() == io::ErrorKind::Other => {
                Err(self.damaged(error.to_string()))
            }
            Err(error) => Err(LogError::Read(error)),
        }
    }

    fn torn(&mut self) -> Option<Bytes> {
        self.end = Some(End::Torn);
        None
    }

    fn damaged(&self, text: String) -> LogError {
        LogError::Damaged { records: self.records, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_numbers_of_the_code() {
        let doc = include_str!("../../../../../docs/format.md");
        let section = doc.split("## Record of operations").nth(1).expect("a section");
        let magic = String::from_utf8_lossy(MAGIC);
        let crc_at = HEADER_BYTES - 4;
        for text in [
            format!("| 0 | 8 | magic `{magic}` |"),
            format!("| 8 | 2 | version {VERSION} |"),
            format!("| {crc_at} | 4 | crc of bytes 0 to {} |", crc_at - 1),
            format!("| 0 | 1 | version of the record {RECORD_VERSION} |"),
            format!("| {HEAD_BYTES} | 8 | time since the log began, ns |"),
            format!("| {} | | the bytes of a write", HEAD_BYTES + FIXED_BYTES),
            format!("| {READ} | read |"),
            format!("| {WRITE} | write, with its bytes |"),
            format!("| {WRITE_AT} | write, without its bytes |"),
            format!("| {ZERO} | zeroing |"),
            format!("| {FLUSH} | flush; offset and length are 0 |"),
            format!("| {END} | end; the length is the number of records before |"),
            format!("at most {} MiB", LEN_MAX >> 20),
            format!("every {} KiB", FLUSH_BYTES >> 10),
        ] {
            assert!(section.contains(&text), "the document lacks: {text}");
        }
    }
}
