//! The protocol's numbers and messages: pure encoding and decoding, for both ends.
//!
//! Participants: client and server. Goals: encode and decode every message that this server
//! understands, from byte slices, with no I/O and no state. Non-goals: a message's meaning for an
//! export, and the order of messages.
//!
//! All integers are big-endian. The NBD project's `doc/proto.md` describes the protocol.

mod errno;
mod options;
mod transmission;

pub use errno::{errno, refusal};
pub use options::{
    ClientHello, InfoRequest, MetaRequest, OPTION_HEADER_BYTES, OPTION_REPLY_HEADER_BYTES,
    OptionHeader, OptionReplyHeader, SERVER_HELLO_BYTES, export_name_reply, info_block_size,
    info_export, info_text, meta_context, option_reply, server_entry, server_hello,
};
pub use transmission::{
    CHUNK_HEADER_BYTES, Chunk, OFFSET_DATA_HEADER_BYTES, REQUEST_BYTES, Request,
    SIMPLE_REPLY_BYTES, Simple, block_status, chunk_error, chunk_header, offset_data_header,
    offset_hole, simple_reply,
};

/// `NBDMAGIC`: the first bytes of a server.
pub const MAGIC_SERVER: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`: newstyle follows, and before every option.
pub const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
/// Before every option reply.
pub const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Before every request.
pub const MAGIC_REQUEST: u32 = 0x2560_9513;
/// Before a simple reply.
pub const MAGIC_SIMPLE_REPLY: u32 = 0x6744_6698;
/// Before a chunk of a structured reply.
pub const MAGIC_CHUNK: u32 = 0x668e_33ef;

/// The longest string of the protocol, and the longest name that is read, bytes.
pub const STRING_BYTES_MAX: usize = 4096;

/// The largest payload of a read or write, bytes. The server advertises it as the maximum block
/// size, and the protocol lets clients assume it where they don't ask.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// Handshake flags, the same bits from both sides.
pub mod handshake {
    /// Fixed newstyle.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// The 124 zeroes after `EXPORT_NAME` are left out.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Options.
pub mod option {
    /// Choose an export, without any way to refuse.
    pub const EXPORT_NAME: u32 = 1;
    /// End the negotiation.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Begin TLS.
    pub const STARTTLS: u32 = 5;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Describe an export and begin transmission.
    pub const GO: u32 = 7;
    /// Structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Select metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Types of option replies.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export of a list.
    pub const SERVER: u32 = 2;
    /// One piece of information on an export.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// The bit that all errors have.
    pub const ERROR_BIT: u32 = 1 << 31;
    /// Option unknown.
    pub const ERR_UNSUP: u32 = ERROR_BIT | 1;
    /// Forbidden.
    pub const ERR_POLICY: u32 = ERROR_BIT | 2;
    /// Malformed.
    pub const ERR_INVALID: u32 = ERROR_BIT | 3;
    /// Not possible on this server now.
    pub const ERR_PLATFORM: u32 = ERROR_BIT | 4;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = ERROR_BIT | 6;
    /// Longer than the server is willing to read.
    pub const ERR_TOO_BIG: u32 = ERROR_BIT | 9;
}

/// Types of information in replies to `INFO` and `GO`.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// Canonical name.
    pub const NAME: u16 = 1;
    /// Description.
    pub const DESCRIPTION: u16 = 2;
    /// Block sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub mod transmit {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// `FLUSH` is understood.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// The FUA flag is understood.
    pub const SEND_FUA: u16 = 1 << 3;
    /// `TRIM` is understood.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// `WRITE_ZEROES` is understood.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The DF flag is understood.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush covers requests that were answered on any connection.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// `CACHE` is understood.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// The FAST_ZERO flag is understood.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Requests.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; its payload follows.
    pub const WRITE: u16 = 1;
    /// Disconnect; has no reply.
    pub const DISC: u16 = 2;
    /// Make durable.
    pub const FLUSH: u16 = 3;
    /// Discard.
    pub const TRIM: u16 = 4;
    /// Prefetch.
    pub const CACHE: u16 = 5;
    /// Zero.
    pub const WRITE_ZEROES: u16 = 6;
    /// Allocation status.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of requests.
pub mod command_flag {
    /// Durable before the reply.
    pub const FUA: u16 = 1 << 0;
    /// `WRITE_ZEROES` must not make a hole.
    pub const NO_HOLE: u16 = 1 << 1;
    /// The data of a read must come in one chunk.
    pub const DF: u16 = 1 << 2;
    /// One extent is enough.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Fail if zeroing is slow.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Types and flags of the chunks of structured replies.
pub mod chunk {
    /// Flag: the last chunk of a reply.
    pub const FLAG_DONE: u16 = 1 << 0;
    /// Nothing.
    pub const NONE: u16 = 0;
    /// Offset and data.
    pub const OFFSET_DATA: u16 = 1;
    /// Offset and length of zeroes.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents.
    pub const BLOCK_STATUS: u16 = 5;
    /// An error with its text.
    pub const ERROR: u16 = (1 << 15) | 1;
}

/// `base:allocation`.
pub mod allocation {
    /// The context's name.
    pub const NAME: &str = "base:allocation";
    /// The id under which this server reports it.
    pub const ID: u32 = 1;
    /// No space is allocated.
    pub const HOLE: u32 = 1 << 0;
    /// Reads as zeroes.
    pub const ZERO: u32 = 1 << 1;
}

/// Reads integers off the front of a slice; `None` when it is too short.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A string with its length in front.
    fn string(&mut self) -> Option<&'a str> {
        let len = self.u32()? as usize;
        if len > STRING_BYTES_MAX {
            return None;
        }
        std::str::from_utf8(self.take(len)?).ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
