//! Sizes and limits of a log, and its inputs from outside: randomness and time.
//!
//! Settings may change between two openings of one log: its files state their own sizes.

use std::sync::Arc;

use crate::{
    Error, Result,
    format::{MAX_LIVE_FILES, PIECE_BYTES, RECORD_ALIGN_BYTES, RECORD_HEADER_BYTES, RECORDS_START},
};

/// The most files of a log. It is below the limit of a header's list, so that an opening over the
/// cap still fits.
pub(crate) const MAX_FILES: u64 = MAX_LIVE_FILES as u64 - 15;
/// The largest file: an offset has 32 bits, and room comes back one file at a time.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// The smallest file: room for a record of 7.5 KiB. Only tests use it.
const MIN_FILE_BYTES: u64 = 16 << 10;

/// A source of random numbers, 64 bits per call.
pub trait Entropy: Send {
    /// Gives the next 64 random bits.
    fn next_u64(&mut self) -> u64;
}

impl<F: FnMut() -> u64 + Send> Entropy for F {
    fn next_u64(&mut self) -> u64 {
        self()
    }
}

/// Inputs that the log takes from outside instead of from the system.
pub struct Env {
    /// Source of the log's id and of the nonce of each use of a file. Must not repeat after a
    /// restart.
    pub entropy: Box<dyn Entropy>,
    /// Nanoseconds of a clock that never goes back, for the latency counters only.
    pub clock_ns: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// True if the committer has a thread. A simulator has none, and calls `commit_once` itself.
    pub has_thread: bool,
}

impl Env {
    /// Takes an entropy source and a clock.
    pub fn new(
        entropy: impl Entropy + 'static,
        clock_ns: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { entropy: Box::new(entropy), clock_ns: Arc::new(clock_ns), has_thread: true }
    }

    /// For a simulator, which calls [`crate::Log::commit_once`] itself. A request for a committer's
    /// thread then starts none.
    pub fn without_thread(self) -> Self {
        Self { has_thread: false, ..self }
    }
}

/// Sizes and limits of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a file, the unit of preallocation and of room that comes back: 16 KiB to 1 GiB, a
    /// multiple of 512. A smaller file comes back sooner, and is switched more often (two syncs).
    pub file_bytes: u64,
    /// Bytes of all files together; rounded down to whole files. At least two files, at most 480.
    pub cap_bytes: u64,
    /// Bytes of free files that are kept for the next burst of records. The log gives the others
    /// back to the file system at its opening, at its closing, and after a long quiet.
    pub spare_bytes: u64,
    /// Bytes of one buffer in memory: the largest single write, and an upper bound of a record.
    pub buffer_bytes: usize,
    /// Number of buffers: one being written, one being filled, and some for a change of file.
    /// `buffers * buffer_bytes` bounds the memory of the log. At least two.
    pub buffers: usize,
    /// Gathered bytes that are written out even if no caller waits. Less is written after some
    /// milliseconds. Large enough for a good write, small enough to leave buffers free.
    pub write_threshold_bytes: usize,
    /// Bytes since the last sync that make the log sync, whether a caller waits or not. So a later
    /// sync never has more than this to wait for.
    pub unsynced_bytes_max: usize,
    /// Distance by which zeros run ahead of the records in a new file, bytes.
    pub fill_ahead_bytes: u64,
    /// Bytes of zeros written at once, between two commits. It bounds the wait of a commit.
    pub fill_piece_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 20,
            cap_bytes: 8 << 30,
            spare_bytes: 128 << 20,
            buffer_bytes: 4 << 20,
            buffers: 4,
            write_threshold_bytes: 1 << 20,
            unsynced_bytes_max: 4 << 20,
            fill_ahead_bytes: 8 << 20,
            fill_piece_bytes: 1 << 20,
        }
    }
}

impl Settings {
    /// The longest payload of a record with these settings.
    pub fn max_payload_bytes(&self) -> usize {
        let file = self.file_bytes as usize - RECORDS_START as usize;
        let buffer = self.buffer_bytes - self.buffer_bytes % RECORD_ALIGN_BYTES as usize;
        let room = file.min(buffer) - RECORD_HEADER_BYTES as usize;
        room - room.div_ceil(PIECE_BYTES as usize) * 4
    }

    /// The most bytes of all files together.
    pub fn cap_bytes_max(&self) -> u64 {
        MAX_FILES * self.file_bytes
    }

    /// Number of files that the cap allows.
    pub(crate) fn max_files(&self) -> usize {
        (self.cap_bytes / self.file_bytes) as usize
    }

    /// Number of free files to keep.
    pub(crate) fn spare_files(&self) -> usize {
        (self.spare_bytes / self.file_bytes) as usize
    }

    /// Bytes of a file as an offset; validated to fit.
    pub(crate) fn file_end(&self) -> u32 {
        self.file_bytes as u32
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let check = |good: bool, setting, reason| {
            if good { Ok(()) } else { Err(Error::Setting { setting, reason }) }
        };
        check(
            (MIN_FILE_BYTES..=MAX_FILE_BYTES).contains(&self.file_bytes)
                && self.file_bytes.is_multiple_of(RECORD_ALIGN_BYTES.into()),
            "file_bytes",
            "16 KiB to 1 GiB, a multiple of 512",
        )?;
        let files = self.cap_bytes / self.file_bytes;
        check((2..=MAX_FILES).contains(&files), "cap_bytes", "room for 2 to 480 files")?;
        check(
            (4096..=MAX_FILE_BYTES as usize).contains(&self.buffer_bytes),
            "buffer_bytes",
            "4 KiB to 1 GiB",
        )?;
        check((2..=1024).contains(&self.buffers), "buffers", "2 to 1024")?;
        check(self.write_threshold_bytes > 0, "write_threshold_bytes", "more than 0")?;
        check(self.unsynced_bytes_max > 0, "unsynced_bytes_max", "more than 0")?;
        check(
            (512..=MAX_FILE_BYTES as usize).contains(&self.fill_piece_bytes),
            "fill_piece_bytes",
            "512 bytes to 1 GiB",
        )
    }
}
