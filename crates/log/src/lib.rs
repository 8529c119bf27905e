//! An append log on preallocated, zero-filled, reused files, with group commit.
//!
//! A record is a kind (one byte), a group (a small number that owns the record, for low-water
//! accounting) and a payload. All three have a meaning for the caller only. The log knows neither
//! volumes nor jobs, and has no clock and no random source of its own. It starts only the committer
//! thread that [`Log::spawn_committer`] asks for.
//!
//! Must hold:
//! - A record is durable when [`Log::wait_durable`] of its position has returned. Then it survives
//!   loss of power, as long as the medium keeps data that an fdatasync has confirmed.
//! - Recovery gives an exact prefix of the appended records, less the trimmed ones. Every durable
//!   record is in it. A record that one recovery did not give is never given by a later one.
//! - A bad record that was surely durable is an error ([`ErrorKind::Damaged`]), never an end of the
//!   log.
//! - After a failed write or fdatasync the log writes nothing more, and every call says why.
//! - Positions only grow, over the whole life of a log.
//!
//! `docs/log-format.md` describes every byte at rest.
#![forbid(unsafe_code)]

mod buffer;
mod commit;
mod committer;
mod counters;
mod disk;
mod error;
mod files;
mod format;
mod group;
mod id;
mod inner;
mod log;
mod position;
mod read;
mod recover;
mod recovery;
mod scan;
mod settings;
pub mod sim;
mod tail;
mod thread;
mod wait;
mod window;

pub use commit::Progress;
pub use counters::{Counters, LATENCY_BUCKETS, Snapshot};
pub use disk::{Disk, DiskFile, FileDisk, MemDisk};
pub use error::{Error, ErrorKind, Failure, FullReason, Result};
pub use format::{
    FILE_FORMAT_VERSION, MAX_LIVE_FILES, RECORD_ALIGN_BYTES, RECORD_FORMAT_VERSION,
    RECORD_HEADER_BYTES, RECORDS_START,
};
pub use group::GroupRecords;
pub use id::LogId;
pub use log::{Appended, Log};
pub use position::LogPosition;
pub use read::{ReadOutcome, Verified, VerifiedRecord};
pub use recovery::{Recovered, Recovery};
pub use settings::{Entropy, Env, Settings};
pub use thread::CommitterThread;
pub use wait::{WaitDurable, WaitRoom};
pub use window::Window;
