//! The messages of the negotiation.

use super::{Cursor, MAGIC_OPTION, MAGIC_OPTION_REPLY, MAGIC_SERVER, handshake, info};

/// Length of the first message, the server's.
pub const SERVER_HELLO_BYTES: usize = 18;
/// Length of an option without its data.
pub const OPTION_HEADER_BYTES: usize = 16;
/// Length of an option reply without its data.
pub const OPTION_REPLY_HEADER_BYTES: usize = 20;

/// The first message: fixed newstyle, without padding zeroes.
#[must_use]
pub fn server_hello() -> [u8; SERVER_HELLO_BYTES] {
    let mut out = [0; SERVER_HELLO_BYTES];
    out[0..8].copy_from_slice(&MAGIC_SERVER.to_be_bytes());
    out[8..16].copy_from_slice(&MAGIC_OPTION.to_be_bytes());
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    out[16..18].copy_from_slice(&flags.to_be_bytes());
    out
}

/// The client's flags, in answer to the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHello {
    /// The client understands option replies.
    pub fixed_newstyle: bool,
    /// The client doesn't want the padding of `EXPORT_NAME`.
    pub no_zeroes: bool,
}

impl ClientHello {
    /// Decodes the flags. `None` if one is unknown, which must end the connection.
    #[must_use]
    pub fn decode(flags: [u8; 4]) -> Option<Self> {
        let flags = u32::from_be_bytes(flags);
        let known = u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        (flags & !known == 0).then_some(Self {
            fixed_newstyle: flags & u32::from(handshake::FIXED_NEWSTYLE) != 0,
            no_zeroes: flags & u32::from(handshake::NO_ZEROES) != 0,
        })
    }

    /// The flags' bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; 4] {
        let mut flags = 0;
        if self.fixed_newstyle {
            flags |= u32::from(handshake::FIXED_NEWSTYLE);
        }
        if self.no_zeroes {
            flags |= u32::from(handshake::NO_ZEROES);
        }
        flags.to_be_bytes()
    }
}

/// The header before an option's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// An [`super::option`], or an unknown one.
    pub option: u32,
    /// Length of the data, in bytes.
    pub len: u32,
}

impl OptionHeader {
    /// Decodes the header; `None` if it is short or its magic number is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        if c.u64()? != MAGIC_OPTION {
            return None;
        }
        Some(Self { option: c.u32()?, len: c.u32()? })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; OPTION_HEADER_BYTES] {
        let mut out = [0; OPTION_HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC_OPTION.to_be_bytes());
        out[8..12].copy_from_slice(&self.option.to_be_bytes());
        out[12..16].copy_from_slice(&self.len.to_be_bytes());
        out
    }
}

/// The header before the data of a reply to an option, as a client decodes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: u32,
    /// A type of [`super::reply`].
    pub kind: u32,
    /// Length of the data, in bytes.
    pub len: u32,
}

impl OptionReplyHeader {
    /// Decodes the header; `None` if it is short or its magic number is wrong.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        if c.u64()? != MAGIC_OPTION_REPLY {
            return None;
        }
        Some(Self { option: c.u32()?, kind: c.u32()?, len: c.u32()? })
    }
}

/// The data of `INFO` and `GO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoRequest {
    /// The export's name.
    pub name: String,
    /// The types of [`super::info`] that the client would like.
    pub wanted: Vec<u16>,
}

impl InfoRequest {
    /// Decodes the data; `None` if it is malformed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        let name = c.string()?.to_owned();
        let count = usize::from(c.u16()?);
        let mut wanted = Vec::new();
        for _ in 0..count {
            wanted.push(c.u16()?);
        }
        c.is_empty().then_some(Self { name, wanted })
    }

    /// The data's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.name);
        out.extend_from_slice(&(self.wanted.len() as u16).to_be_bytes());
        for kind in &self.wanted {
            out.extend_from_slice(&kind.to_be_bytes());
        }
        out
    }
}

/// The data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRequest {
    /// The export's name.
    pub name: String,
    /// The requested contexts.
    pub queries: Vec<String>,
}

impl MetaRequest {
    /// Decodes the data; `None` if it is malformed.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor(bytes);
        let name = c.string()?.to_owned();
        let count = c.u32()?;
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(c.string()?.to_owned());
        }
        c.is_empty().then_some(Self { name, queries })
    }

    /// The data's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.name);
        out.extend_from_slice(&(self.queries.len() as u32).to_be_bytes());
        for query in &self.queries {
            put_string(&mut out, query);
        }
        out
    }
}

/// Appends a reply to an option.
pub fn option_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&MAGIC_OPTION_REPLY.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

/// The reply to `EXPORT_NAME`.
#[must_use]
pub fn export_name_reply(size_bytes: u64, flags: u16, no_zeroes: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(134);
    out.extend_from_slice(&size_bytes.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    if !no_zeroes {
        out.resize(134, 0);
    }
    out
}

/// Data of an information reply: size and flags.
#[must_use]
pub fn info_export(size_bytes: u64, flags: u16) -> Vec<u8> {
    let mut out = info::EXPORT.to_be_bytes().to_vec();
    out.extend_from_slice(&size_bytes.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out
}

/// Data of an information reply: block sizes in bytes.
#[must_use]
pub fn info_block_size(min: u32, preferred: u32, max: u32) -> Vec<u8> {
    let mut out = info::BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [min, preferred, max] {
        out.extend_from_slice(&size.to_be_bytes());
    }
    out
}

/// Data of an information reply: a name or a description.
#[must_use]
pub fn info_text(kind: u16, text: &str) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

/// Data of one entry of a list of exports.
#[must_use]
pub fn server_entry(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, name);
    out
}

/// Data of one metadata context.
#[must_use]
pub fn meta_context(id: u32, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(name.as_bytes());
    out
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
