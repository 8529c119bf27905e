//! The bytes of the protocol, as far as the client needs them. All numbers are big-endian.
//!
//! Written from the protocol's description, apart from the server's codec on purpose: a shared
//! mistake would cancel itself out.

use std::io::{self, Read, Write};

use super::{REQUEST_BYTES_MAX, Request};

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_TRIM: u16 = 4;
const CMD_WRITE_ZEROES: u16 = 6;
const CMD_FLAG_FUA: u16 = 1;

const EXPORT_READ_ONLY: u16 = 1 << 1;
const EXPORT_MULTI_CONN: u16 = 1 << 8;

/// The longest option reply that the client accepts, bytes. Errors carry a sentence, infos a few
/// words.
const OPTION_REPLY_BYTES_MAX: u32 = 1 << 16;

/// A server's description of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its size, bytes.
    pub size_bytes: u64,
    /// The transmission flags, as sent.
    pub flags: u16,
    /// The smallest, preferred and largest request, bytes, if the server gave them.
    pub block_sizes: Option<(u32, u32, u32)>,
}

impl ExportInfo {
    /// True if the server refuses writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags & EXPORT_READ_ONLY != 0
    }

    /// True if a flush on one connection covers requests that were answered on another.
    #[must_use]
    pub fn is_multi_conn(&self) -> bool {
        self.flags & EXPORT_MULTI_CONN != 0
    }
}

/// Negotiates a fresh connection up to transmission on `export`.
pub(super) fn negotiate(
    input: &mut impl Read,
    output: &mut impl Write,
    export: &str,
) -> io::Result<ExportInfo> {
    let greeting: [u8; 18] = take(input)?;
    if u64_at(&greeting, 0) != NBD_MAGIC || u64_at(&greeting, 8) != OPTION_MAGIC {
        return Err(io::Error::other("this is no newstyle NBD server"));
    }
    let flags = u16::from_be_bytes([greeting[16], greeting[17]]);
    if flags & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(io::Error::other("the NBD server lacks fixed newstyle"));
    }
    let mut hello =
        u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)).to_be_bytes().to_vec();
    hello.extend(OPTION_MAGIC.to_be_bytes());
    hello.extend(OPT_GO.to_be_bytes());
    let length = u32::try_from(export.len()).map_err(io::Error::other)?;
    hello.extend((length + 8).to_be_bytes());
    hello.extend(length.to_be_bytes());
    hello.extend(export.as_bytes());
    hello.extend(1u16.to_be_bytes()); // one information request: the block sizes
    hello.extend(INFO_BLOCK_SIZE.to_be_bytes());
    output.write_all(&hello)?;
    option_replies(input)
}

fn option_replies(input: &mut impl Read) -> io::Result<ExportInfo> {
    let mut info = ExportInfo::default();
    loop {
        let header: [u8; 20] = take(input)?;
        if u64_at(&header, 0) != OPTION_REPLY_MAGIC || u32_at(&header, 8) != OPT_GO {
            return Err(io::Error::other("the NBD server's option reply makes no sense"));
        }
        let (kind, length) = (u32_at(&header, 12), u32_at(&header, 16));
        if length > OPTION_REPLY_BYTES_MAX {
            return Err(io::Error::other(format!("an option reply of {length} bytes")));
        }
        let mut body = vec![0; length as usize];
        input.read_exact(&mut body)?;
        match kind {
            REP_ACK => return Ok(info),
            REP_INFO => read_info(&body, &mut info),
            _ if kind & REP_ERR != 0 => {
                let reason = String::from_utf8_lossy(&body);
                return Err(io::Error::other(format!("refused ({kind:#x}): {reason}")));
            }
            _ => return Err(io::Error::other(format!("an option reply of unknown kind {kind}"))),
        }
    }
}

fn read_info(body: &[u8], info: &mut ExportInfo) {
    match body {
        [a, b, rest @ ..] if u16::from_be_bytes([*a, *b]) == INFO_EXPORT && rest.len() == 10 => {
            info.size_bytes = u64_at(rest, 0);
            info.flags = u16::from_be_bytes([rest[8], rest[9]]);
        }
        [a, b, rest @ ..]
            if u16::from_be_bytes([*a, *b]) == INFO_BLOCK_SIZE && rest.len() == 12 =>
        {
            info.block_sizes = Some((u32_at(rest, 0), u32_at(rest, 4), u32_at(rest, 8)));
        }
        _ => {} // an information that the client did not ask for
    }
}

/// Sends a request.
pub(super) fn send(output: &mut impl Write, cookie: u64, request: Request<'_>) -> io::Result<()> {
    let (command, fua, offset, length, data): (u16, bool, u64, u32, &[u8]) = match request {
        Request::Read { offset, length } => (CMD_READ, false, offset, length, &[]),
        Request::Write { offset, data, fua } => {
            let length = u32::try_from(data.len()).map_err(io::Error::other)?;
            (CMD_WRITE, fua, offset, length, data)
        }
        Request::Flush => (CMD_FLUSH, false, 0, 0, &[]),
        Request::Trim { offset, length } => (CMD_TRIM, false, offset, length, &[]),
        Request::Zero { offset, length } => (CMD_WRITE_ZEROES, false, offset, length, &[]),
    };
    if length > REQUEST_BYTES_MAX {
        return Err(io::Error::other(format!("a request of {length} bytes is too large")));
    }
    let flags = if fua { CMD_FLAG_FUA } else { 0 };
    let mut message = Vec::with_capacity(28 + data.len());
    message.extend(REQUEST_MAGIC.to_be_bytes());
    message.extend(flags.to_be_bytes());
    message.extend(command.to_be_bytes());
    message.extend(cookie.to_be_bytes());
    message.extend(offset.to_be_bytes());
    message.extend(length.to_be_bytes());
    message.extend_from_slice(data);
    output.write_all(&message)
}

/// Sends the goodbye, which has no answer.
pub(super) fn send_disconnect(output: &mut impl Write) -> io::Result<()> {
    let mut message = REQUEST_MAGIC.to_be_bytes().to_vec();
    message.extend([0; 2]);
    message.extend(CMD_DISC.to_be_bytes());
    message.extend([0; 20]);
    output.write_all(&message)
}

/// Reads a simple reply's header: its cookie and error number.
pub(super) fn read_reply(input: &mut impl Read) -> io::Result<(u64, u32)> {
    let header: [u8; 16] = take(input)?;
    if u32_at(&header, 0) != SIMPLE_REPLY_MAGIC {
        return Err(io::Error::other("the NBD server's reply has no simple reply's magic"));
    }
    Ok((u64_at(&header, 8), u32_at(&header, 4)))
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
