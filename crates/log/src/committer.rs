//! State of the committer alone: the file that it writes, and unfinished steps.

use std::{collections::VecDeque, sync::Arc};

use crate::{Entropy, LogPosition, error::Failure, files::LogFile, tail::Step};

/// State of the committer. `commit` has what it does.
pub(crate) struct Committer {
    pub(crate) file: Arc<LogFile>,
    pub(crate) nonce: u64,
    /// The file has been written up to here.
    pub(crate) written: LogPosition,
    /// True if something was written since the last sync.
    pub(crate) dirty: bool,
    /// Time of writes around the cache since then, nanoseconds: a part of the cost of a sync.
    pub(crate) around_ns: u64,
    /// Bytes written since then.
    pub(crate) unsynced_bytes: usize,
    /// The disk had no room for another file. The committer tries again when a caller asks for
    /// room.
    pub(crate) starved: bool,
    /// Steps that were taken from the tail and are not carried out.
    pub(crate) pending: VecDeque<Step>,
    /// The disk had no room for the first of these. The committer tries it again after a while.
    pub(crate) stalled: Option<Failure>,
    /// Number of quiet notes with no record between them.
    pub(crate) quiet_notes: u32,
    pub(crate) entropy: Box<dyn Entropy>,
    pub(crate) zeros: Vec<u8>,
}
