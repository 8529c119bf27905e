//! The seam between protocol and engine: exports, and the operations on an opened one.
//!
//! No protocol's numbers appear here. Errors are kinds, which each protocol maps in one table of
//! its own. Offsets and lengths are in bytes; the caller has checked that they lie inside the
//! export. Good clients use multiples of [`ExportInfo::block_bytes_min`]; an export accepts any.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// All exports of a server. A negotiation looks them up by name.
#[async_trait]
pub trait Exports: Send + Sync + 'static {
    /// Lists the names for a client that asks.
    async fn list(&self) -> Result<Vec<String>, OpenError>;

    /// Opens `name` for one connection. The empty name means the default export, if there is one.
    ///
    /// The export is dropped when the connection ends. A read-only one says so in
    /// [`ExportInfo::read_only`]; then the server itself refuses writes.
    async fn open(&self, name: &str, client: &ClientInfo) -> Result<Arc<dyn Export>, OpenError>;
}

/// One export, opened for one connection.
///
/// The `try_` methods are the fast path. They run on the connection's own task, allocate nothing,
/// and must return without waiting. Their defaults always decline, so an implementation needs only
/// the asynchronous ones. Those run to their end even when the client has left.
#[async_trait]
pub trait Export: Send + Sync + 'static {
    /// Describes the export for the client. Called once for each connection, so only new ones see a
    /// resize.
    fn info(&self) -> ExportInfo;

    /// Fills all of `buf` from `offset` if that is possible without waiting.
    ///
    /// `buf` may be left half-filled when this declines or fails.
    fn try_read(&self, _offset: u64, _buf: &mut [u8]) -> Attempt<Content> {
        Attempt::WouldBlock
    }

    /// Accepts a write (as [`Export::write`] without `fua`) if that is possible without waiting.
    ///
    /// Nothing has happened when this declines.
    fn try_write(&self, _offset: u64, _data: &[u8]) -> Attempt<()> {
        Attempt::WouldBlock
    }

    /// Flushes, as [`Export::flush`], if everything is durable already or can become so at once.
    /// This may wait for a quick disk, for a millisecond or so.
    fn try_flush(&self) -> Attempt<()> {
        Attempt::WouldBlock
    }

    /// Fills all of `buf` from `offset`.
    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content, IoError>;

    /// Writes `data` at `offset`. Once it returns, every later read sees the data. With `fua` the
    /// data is also durable before this returns.
    async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), IoError>;

    /// Makes durable every write, trim and zeroing that was answered before this call, on any
    /// connection to the volume.
    async fn flush(&self) -> Result<(), IoError>;

    /// Says that the content of the range is no longer needed.
    async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError>;

    /// Makes the range read as zeroes.
    async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        options: ZeroesOptions,
    ) -> Result<(), IoError>;

    /// Prefetches the range for expected reads; a hint. Returns when the range is there, or can't
    /// be fetched: the number of these calls bounds the fetches under way.
    async fn cache(&self, offset: u64, len: u64) -> Result<(), IoError>;

    /// Tells what is allocated from `offset` on: at least one extent, in order and without gaps.
    /// Extents may end before or past `offset + len`; the server cuts them.
    async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<StatusExtent>, IoError>;
}

/// The outcome of a fast-path call.
#[derive(Debug)]
pub enum Attempt<T> {
    /// Done, as if the asynchronous call had returned this.
    Done(T),
    /// The call would have to wait. Nothing has happened: call the asynchronous one.
    WouldBlock,
    /// The call failed, and the asynchronous one would fail too.
    Failed(IoError),
}

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The buffer holds the bytes.
    Data,
    /// The whole range reads as zeroes; the buffer was *not* written.
    Zeroes,
}

/// Options of [`Export::write_zeroes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroesOptions {
    /// Durable before the answer.
    pub fua: bool,
    /// The range may become a hole; if not, its space stays allocated.
    pub punch_hole: bool,
    /// Fail with [`IoErrorKind::NotSupported`] if this is no faster than writing zeroes.
    pub fast_only: bool,
}

/// A run of bytes of one status, as [`Export::block_status`] reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusExtent {
    /// Length in bytes; extents of no length are ignored.
    pub len_bytes: u64,
    /// No space is allocated for it.
    pub hole: bool,
    /// Reads as zeroes.
    pub zero: bool,
}

/// Description of an export for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// The export's own name. It differs from the requested one when that was the default export.
    pub name: String,
    /// A line for people; empty if there is nothing to say.
    pub description: String,
    /// Size in bytes; a multiple of `block_bytes_min`.
    pub size_bytes: u64,
    /// Writes of every kind are refused by the server.
    pub read_only: bool,
    /// A power of two, 512 or more, in whose multiples requests are served best. Clients see it as
    /// the minimum. The server takes others, too: some clients never ask, and some don't heed it.
    pub block_bytes_min: u32,
    /// Requests should be aligned to this; a power of two.
    pub block_bytes_preferred: u32,
}

/// The client that opens an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// A number of this server that is never used again.
    pub connection: u64,
    /// The other end, for logs and for people: `unix` or an address with its port.
    pub peer: String,
    /// The purpose of opening.
    pub purpose: Purpose,
}

/// Purpose of opening an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Only [`Export::info`] is wanted: nothing needs to be claimed.
    Describe,
    /// Requests will follow.
    Serve,
}

/// Says why an export can't be opened. The text goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such export.
    #[error("there is no export '{name}'; list the exports to see which there are")]
    NotFound {
        /// The requested name.
        name: String,
    },
    /// Another client has it.
    #[error("export '{name}' is in use by {holder}")]
    Busy {
        /// The export's name.
        name: String,
        /// The client that has it.
        holder: String,
    },
    /// This client may not open the export.
    #[error("{0}")]
    Denied(String),
    /// The export can't be served now; trying later makes sense.
    #[error("{0}")]
    Unavailable(String),
}

/// Kind of a failed request, as far as a client must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IoErrorKind {
    /// A write to something that is read-only.
    ReadOnly,
    /// Storage failed, or the export may no longer be used. Retrying won't help this connection.
    Failed,
    /// The request makes no sense.
    Invalid,
    /// There is no room.
    NoSpace,
    /// Not possible here (for a fast zeroing: not fast).
    NotSupported,
    /// This connection can't go on, and a new one may, on the same state. The server answers what
    /// it can and closes the connection, so that the client asks again on another. Never for an
    /// export that may hold another state then: clients that reconnect by themselves keep their
    /// memory of it.
    Reconnect,
    /// The request is larger than the server can serve at once.
    TooLarge,
}

/// A request that failed: a kind for the client to act on and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IoError {
    /// The kind, for the client.
    pub kind: IoErrorKind,
    /// The event and its object, for logs and for protocols that carry text.
    pub message: Cow<'static, str>,
}

impl IoError {
    /// An error of `kind`, with its text.
    pub fn new(kind: IoErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into() }
    }
}
