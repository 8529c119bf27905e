//! Requests and replies, after the negotiation.

use super::{Cursor, MAGIC_CHUNK, MAGIC_REQUEST, MAGIC_SIMPLE_REPLY, chunk};

/// Length of a request without its payload.
pub const REQUEST_BYTES: usize = 28;
/// Length of a simple reply without its payload.
pub const SIMPLE_REPLY_BYTES: usize = 16;
/// Length of the header of a chunk.
pub const CHUNK_HEADER_BYTES: usize = 20;
/// Length of everything before the data in a chunk of data.
pub const OFFSET_DATA_HEADER_BYTES: usize = CHUNK_HEADER_BYTES + 8;

/// A request's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// [`super::command_flag`]s.
    pub flags: u16,
    /// A [`super::command`].
    pub command: u16,
    /// The client's name for the request, repeated in the reply.
    pub cookie: u64,
    /// Offset, bytes.
    pub offset: u64,
    /// Length, bytes.
    pub len: u32,
}

impl Request {
    /// Decodes a header; `None` if it is short or its magic number is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        if c.u32()? != MAGIC_REQUEST {
            return None;
        }
        Some(Self {
            flags: c.u16()?,
            command: c.u16()?,
            cookie: c.u64()?,
            offset: c.u64()?,
            len: c.u32()?,
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let mut out = [0; REQUEST_BYTES];
        out[0..4].copy_from_slice(&MAGIC_REQUEST.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.command.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..28].copy_from_slice(&self.len.to_be_bytes());
        out
    }
}

/// A simple reply, as a client decodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simple {
    /// 0 or an errno.
    pub errno: u32,
    /// The request's cookie.
    pub cookie: u64,
}

impl Simple {
    /// Decodes a simple reply; `None` if it is short or its magic number is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        if c.u32()? != MAGIC_SIMPLE_REPLY {
            return None;
        }
        Some(Self { errno: c.u32()?, cookie: c.u64()? })
    }
}

/// The header of a chunk, as a client decodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// [`super::chunk::FLAG_DONE`] or 0.
    pub flags: u16,
    /// A type of [`super::chunk`].
    pub kind: u16,
    /// The request's cookie.
    pub cookie: u64,
    /// Bytes that follow.
    pub len: u32,
}

impl Chunk {
    /// Decodes the header of a chunk; `None` if it is short or its magic number is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        if c.u32()? != MAGIC_CHUNK {
            return None;
        }
        Some(Self { flags: c.u16()?, kind: c.u16()?, cookie: c.u64()?, len: c.u32()? })
    }
}

/// A simple reply; the data of a successful read follows it.
#[must_use]
pub fn simple_reply(cookie: u64, errno: u32) -> [u8; SIMPLE_REPLY_BYTES] {
    let mut out = [0; SIMPLE_REPLY_BYTES];
    out[0..4].copy_from_slice(&MAGIC_SIMPLE_REPLY.to_be_bytes());
    out[4..8].copy_from_slice(&errno.to_be_bytes());
    out[8..16].copy_from_slice(&cookie.to_be_bytes());
    out
}

/// The header of a chunk that is the last of its reply and `len` bytes long without the header.
#[must_use]
pub fn chunk_header(kind: u16, cookie: u64, len: u32) -> [u8; CHUNK_HEADER_BYTES] {
    let mut out = [0; CHUNK_HEADER_BYTES];
    out[0..4].copy_from_slice(&MAGIC_CHUNK.to_be_bytes());
    out[4..6].copy_from_slice(&chunk::FLAG_DONE.to_be_bytes());
    out[6..8].copy_from_slice(&kind.to_be_bytes());
    out[8..16].copy_from_slice(&cookie.to_be_bytes());
    out[16..20].copy_from_slice(&len.to_be_bytes());
    out
}

/// Everything before the `len` bytes of data in the only chunk of a read's reply.
#[must_use]
pub fn offset_data_header(cookie: u64, offset: u64, len: u32) -> [u8; OFFSET_DATA_HEADER_BYTES] {
    let mut out = [0; OFFSET_DATA_HEADER_BYTES];
    let (header, at) = out.split_at_mut(CHUNK_HEADER_BYTES);
    header.copy_from_slice(&chunk_header(chunk::OFFSET_DATA, cookie, len.saturating_add(8)));
    at.copy_from_slice(&offset.to_be_bytes());
    out
}

/// A read's whole reply when all of it is zeroes.
#[must_use]
pub fn offset_hole(cookie: u64, offset: u64, len: u32) -> [u8; CHUNK_HEADER_BYTES + 12] {
    let mut out = [0; CHUNK_HEADER_BYTES + 12];
    out[..20].copy_from_slice(&chunk_header(chunk::OFFSET_HOLE, cookie, 12));
    out[20..28].copy_from_slice(&offset.to_be_bytes());
    out[28..32].copy_from_slice(&len.to_be_bytes());
    out
}

/// A whole reply that is an error with its text (cut to 4096 bytes).
#[must_use]
pub fn chunk_error(cookie: u64, errno: u32, text: &str) -> Vec<u8> {
    let mut end = text.len().min(super::STRING_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    let len = text.len() as u16; // at most STRING_BYTES_MAX
    let mut out = Vec::with_capacity(CHUNK_HEADER_BYTES + 6 + text.len());
    out.extend_from_slice(&chunk_header(chunk::ERROR, cookie, 6 + u32::from(len)));
    out.extend_from_slice(&errno.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text);
    out
}

/// A whole reply to `BLOCK_STATUS`: pairs of length and flags, of one context.
#[must_use]
pub fn block_status(cookie: u64, context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let len = 4 + 8 * extents.len();
    let mut out = Vec::with_capacity(CHUNK_HEADER_BYTES + len);
    let len = u32::try_from(len).unwrap_or(u32::MAX); // callers bound the number of extents
    out.extend_from_slice(&chunk_header(chunk::BLOCK_STATUS, cookie, len));
    out.extend_from_slice(&context.to_be_bytes());
    for (len, flags) in extents {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
    }
    out
}
