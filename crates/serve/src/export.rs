//! The seam between protocol and engine: what can be served, and what one opened export can do.
//!
//! No protocol's numbers appear here: errors are kinds, which each protocol maps in one table of
//! its own. Offsets and lengths are in bytes, and were checked by the caller: they lie inside the
//! export. Clients that know better use multiples of [`ExportInfo::block_bytes_min`]; an export
//! takes any.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// Everything that a server serves: exports are looked up by name while a client negotiates.
#[async_trait]
pub trait Exports: Send + Sync + 'static {
    /// The names that a client is shown when it asks what there is.
    async fn list(&self) -> Result<Vec<String>, OpenError>;

    /// Opens `name` for one connection; the empty name means the default export, if there is one.
    ///
    /// What is returned is dropped when the connection ends. An implementation that only allows
    /// reading says so in [`ExportInfo::read_only`]; the server then refuses writes by itself.
    async fn open(&self, name: &str, client: &ClientInfo) -> Result<Arc<dyn Export>, OpenError>;
}

/// One export, opened for one connection.
///
/// The `try_` methods are the fast path: they are called on the connection's own task, allocate
/// nothing, and must return without waiting. Their defaults always decline, so that only the
/// asynchronous ones need to be written. Those run to their end even when the client has left.
#[async_trait]
pub trait Export: Send + Sync + 'static {
    /// What the client is told; asked once for each connection, so a resize is seen by new ones.
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

    /// Flushes, as [`Export::flush`], if everything is durable already or can be made so at once: a
    /// quick disk may be waited for here, for a millisecond or so.
    fn try_flush(&self) -> Attempt<()> {
        Attempt::WouldBlock
    }

    /// Fills all of `buf` from `offset`.
    async fn read(&self, offset: u64, buf: &mut [u8]) -> Result<Content, IoError>;

    /// Writes `data` at `offset`; once it returns, every later read sees it. With `fua` it is
    /// also durable before this returns.
    async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), IoError>;

    /// Makes durable every write, trim and zeroing whose answer was given before this call, on
    /// any connection to the same volume.
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

    /// Fetches the range ahead of reads that are expected; a hint. Returns when it is there, or
    /// can't be had: what is under way is bounded by how many of these calls are.
    async fn cache(&self, offset: u64, len: u64) -> Result<(), IoError>;

    /// What is allocated from `offset` on: at least one extent, in order and without gaps. Extents
    /// may end before or past `offset + len`; the server cuts them.
    async fn block_status(&self, offset: u64, len: u64) -> Result<Vec<StatusExtent>, IoError>;
}

/// The outcome of a fast-path call.
#[derive(Debug)]
pub enum Attempt<T> {
    /// It is done; the same as the asynchronous call having returned this.
    Done(T),
    /// It would have to wait: ask again with the asynchronous call. Nothing has happened.
    WouldBlock,
    /// It failed, and the asynchronous call would fail too.
    Failed(IoError),
}

/// What a read produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The buffer holds the bytes.
    Data,
    /// The whole range reads as zeroes; the buffer was *not* written.
    Zeroes,
}

/// How [`Export::write_zeroes`] is to go about it.
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
    /// It reads as zeroes.
    pub zero: bool,
}

/// What a client is told of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// The export's own name: differs from the one asked for when that was the default export.
    pub name: String,
    /// A line for people; empty if there is nothing to say.
    pub description: String,
    /// Size in bytes; a multiple of `block_bytes_min`.
    pub size_bytes: u64,
    /// Writes of every kind are refused by the server.
    pub read_only: bool,
    /// Requests are served best in multiples of this, which clients are told as the minimum; a power
    /// of two, 512 or more. Any other is served, too: some clients never ask, some don't heed it.
    pub block_bytes_min: u32,
    /// Requests should be aligned to this; a power of two.
    pub block_bytes_preferred: u32,
}

/// Who opens an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// A number of this server's that is never used again.
    pub connection: u64,
    /// The other end, for logs and for people: `unix` or an address with its port.
    pub peer: String,
    /// Why the export is opened.
    pub purpose: Purpose,
}

/// Why an export is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Only [`Export::info`] is wanted: nothing needs to be claimed.
    Describe,
    /// Requests will follow.
    Serve,
}

/// Why an export can't be opened; the text goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such export.
    #[error("there is no export '{name}'; list the exports to see which there are")]
    NotFound {
        /// The name that was asked for.
        name: String,
    },
    /// Somebody else holds it.
    #[error("export '{name}' is in use by {holder}")]
    Busy {
        /// The export's name.
        name: String,
        /// Who holds it.
        holder: String,
    },
    /// It exists, and this client may not open it.
    #[error("{0}")]
    Denied(String),
    /// It can't be served now; trying later makes sense.
    #[error("{0}")]
    Unavailable(String),
}

/// What went wrong with a request, as far as a client must know.
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
    /// This connection can't go on, and a new one may, on the same state: the server answers what it
    /// can and closes it, so that the client asks again there. Never for an export that may hold
    /// something else then: clients that reconnect by themselves keep what they remember.
    Reconnect,
    /// More was asked for at once than can be given.
    TooLarge,
}

/// A request that failed: a kind for the client to act on and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IoError {
    /// What the client is to make of it.
    pub kind: IoErrorKind,
    /// What happened to what, for logs and for protocols that carry text.
    pub message: Cow<'static, str>,
}

impl IoError {
    /// An error of `kind`, with its text.
    pub fn new(kind: IoErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into() }
    }
}
