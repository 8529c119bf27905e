//! The error of the engine: the fact, with the names of its objects, and the caller's choice.

use std::fmt;
use std::io;
use std::sync::Arc;

use skerry_core::FormatError;
use skerry_core::name::Name;
use skerry_core::retry::Trouble;

/// The caller's duty after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A bug: report it.
    Internal,
    /// The object does not exist, or no longer: a deleted volume does not.
    NotFound,
    /// The name is taken.
    Exists,
    /// Clients or records of this node are in the way. End that first, or use force.
    Busy,
    /// Another owner writes the volume: ask that node, or release the volume.
    Fenced,
    /// The attachment ended, because the volume was released or rolled back. Forget all knowledge
    /// of the volume before attaching again: it may hold another state.
    Detached,
    /// The request can't be carried out as written.
    Invalid,
    /// The bucket, the disk or the node can't serve now; try again later.
    Unavailable,
    /// Data is damaged or of an unknown format.
    Corrupt,
}

/// Says what went wrong, and with what.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// No volume has this name.
    #[error("there is no volume {name}")]
    NoVolume {
        /// The name.
        name: String,
    },
    /// The volume has no snapshot of this name.
    #[error("there is no snapshot {volume}@{snapshot}")]
    NoSnapshot {
        /// The volume's name.
        volume: String,
        /// The snapshot's name.
        snapshot: String,
    },
    /// The object was there and is not any more.
    #[error("{object} {why}")]
    Gone {
        /// The object.
        object: String,
        /// Its fate.
        why: String,
    },
    /// The name is taken.
    #[error("{object} exists already; choose another name")]
    Exists {
        /// The object with this name.
        object: String,
    },
    /// Clients or records of this node are in the way.
    #[error("volume {volume} {why}")]
    Busy {
        /// The volume's name.
        volume: String,
        /// The obstacle, and the remedy.
        why: String,
    },
    /// Another owner writes the volume.
    #[error("volume {volume} {why}")]
    Fenced {
        /// The volume's name.
        volume: String,
        /// The owner, and what to do.
        why: String,
    },
    /// The attachment ended.
    #[error("volume {volume} {why}")]
    Detached {
        /// The volume's name.
        volume: String,
        /// The reason, and what to do.
        why: String,
    },
    /// The request can't be carried out as written.
    #[error("{object} {why}")]
    Invalid {
        /// The subject of the request.
        object: String,
        /// The fault, and what to write instead.
        why: String,
    },
    /// Something can't be served now.
    #[error("{object} {why}")]
    Unavailable {
        /// The object that can't be served.
        object: String,
        /// The reason, and what to do.
        why: String,
    },
    /// Data is damaged.
    #[error("{object} {why}")]
    Corrupt {
        /// The damaged object.
        object: String,
        /// The damage, and what to do.
        why: String,
    },
    /// A defect of Skerry.
    #[error("{work} {why}")]
    Internal {
        /// The work that failed.
        work: String,
        /// The fault.
        why: String,
    },
    /// A step failed, for a reason of its own kind.
    #[error("{step}: {source}")]
    Step {
        /// The step, with its object.
        step: String,
        /// The reason.
        source: Box<Error>,
    },
    /// A local file or directory can't be used.
    #[error("{step}: {source}")]
    File {
        /// The step, with the place.
        step: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The store says so.
    #[error(transparent)]
    Store(skerry_store::Error),
    /// The log says so.
    #[error(transparent)]
    Log(skerry_log::Error),
    /// Bytes have an unknown or damaged format.
    #[error(transparent)]
    Format(FormatError),
}

impl Cause {
    fn kind(&self) -> ErrorKind {
        use skerry_log::ErrorKind as Log;
        use skerry_store::ErrorKind as Store;
        match self {
            Self::NoVolume { .. } | Self::NoSnapshot { .. } | Self::Gone { .. } => {
                ErrorKind::NotFound
            }
            Self::Exists { .. } => ErrorKind::Exists,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Detached { .. } => ErrorKind::Detached,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Unavailable { .. } | Self::File { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } | Self::Format(_) => ErrorKind::Corrupt,
            Self::Internal { .. } => ErrorKind::Internal,
            Self::Step { source, .. } => source.kind(),
            Self::Store(error) => match error.kind() {
                Store::NotFound => ErrorKind::NotFound,
                Store::Exists => ErrorKind::Exists,
                Store::Fenced => ErrorKind::Fenced,
                Store::Invalid => ErrorKind::Invalid,
                Store::Unavailable => ErrorKind::Unavailable,
                Store::Corrupt => ErrorKind::Corrupt,
                Store::Internal => ErrorKind::Internal,
            },
            Self::Log(error) => match error.kind() {
                Log::Damaged | Log::UnsupportedFormat => ErrorKind::Corrupt,
                Log::Full | Log::Failed => ErrorKind::Unavailable,
                Log::Invalid => ErrorKind::Internal,
            },
        }
    }
}

/// An error of the engine.
#[derive(Debug, Clone)]
pub struct Error {
    cause: Arc<Cause>,
    /// Says whether the same attempt may succeed later.
    trouble: Trouble,
    /// True if the volume went out of service and may come back as it was. Then another attachment
    /// finds the same state.
    ends_attachment: bool,
}

impl Error {
    /// No volume has this name.
    pub(crate) fn no_volume(name: &Name) -> Self {
        Cause::NoVolume { name: name.to_string() }.into()
    }

    /// The volume has no snapshot of this name.
    pub(crate) fn no_snapshot(volume: impl fmt::Display, snapshot: &Name) -> Self {
        Cause::NoSnapshot { volume: volume.to_string(), snapshot: snapshot.to_string() }.into()
    }

    /// The object is not there any more.
    pub(crate) fn gone(object: impl Into<String>, why: impl Into<String>) -> Self {
        Cause::Gone { object: object.into(), why: why.into() }.into()
    }

    /// A volume has this name already.
    pub(crate) fn volume_exists(name: &Name) -> Self {
        Cause::Exists { object: format!("volume {name}") }.into()
    }

    /// Clients or records of this node are in the way.
    pub(crate) fn busy(volume: impl fmt::Display, why: impl Into<String>) -> Self {
        Cause::Busy { volume: volume.to_string(), why: why.into() }.into()
    }

    /// Another owner writes the volume.
    pub(crate) fn fenced(volume: impl fmt::Display, why: impl Into<String>) -> Self {
        Cause::Fenced { volume: volume.to_string(), why: why.into() }.into()
    }

    /// The attachment ended.
    pub(crate) fn detached(volume: impl fmt::Display, why: impl Into<String>) -> Self {
        Cause::Detached { volume: volume.to_string(), why: why.into() }.into()
    }

    /// The request can't be carried out as written.
    pub(crate) fn invalid(object: impl Into<String>, why: impl Into<String>) -> Self {
        Cause::Invalid { object: object.into(), why: why.into() }.into()
    }

    /// Something can't be served now.
    pub(crate) fn unavailable(object: impl Into<String>, why: impl Into<String>) -> Self {
        Cause::Unavailable { object: object.into(), why: why.into() }.into()
    }

    /// The node stops.
    pub(crate) fn shutting_down() -> Self {
        Self::unavailable("the node", "is shutting down")
    }

    /// Data is damaged.
    pub(crate) fn corrupt(object: impl Into<String>, why: impl Into<String>) -> Self {
        Cause::Corrupt { object: object.into(), why: why.into() }.into()
    }

    /// A defect of Skerry.
    pub(crate) fn internal(work: impl Into<String>, why: impl Into<String>) -> Self {
        Cause::Internal { work: work.into(), why: why.into() }.into()
    }

    /// A task of this name panicked, or its runtime went away.
    pub(crate) fn lost_task(task: &str, error: impl fmt::Display) -> Self {
        Self::internal(task, format!("failed: {error}"))
    }

    /// A local file can't be used.
    pub(crate) fn file(step: impl Into<String>, error: io::Error) -> Self {
        Cause::File { step: step.into(), source: Arc::new(error) }.into()
    }

    /// Makes this the reason why a step failed.
    pub(crate) fn in_step(self, step: impl Into<String>) -> Self {
        Cause::Step { step: step.into(), source: Box::new(self) }.into()
    }

    /// Makes this the error with which a volume went out of service. No attempt on this attachment
    /// will succeed. If `comes_back`, one on another may.
    pub(crate) fn of_volume(self, comes_back: bool) -> Self {
        // A released volume may be written elsewhere before it is claimed again.
        let ends_attachment = comes_back && self.kind() != ErrorKind::Detached;
        Self { trouble: Trouble::Permanent, ends_attachment, ..self }
    }

    /// Says whether the same attempt may succeed later.
    pub(crate) fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// True if this attachment is over, and another may succeed and find the same state, with
    /// everything acknowledged here. Never for [`ErrorKind::Detached`].
    pub fn ends_attachment(&self) -> bool {
        self.ends_attachment
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.cause.kind()
    }

    /// The fact behind it.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.source()
    }
}

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Self { cause: Arc::new(cause), trouble: Trouble::Permanent, ends_attachment: false }
    }
}

impl From<skerry_store::Error> for Error {
    fn from(error: skerry_store::Error) -> Self {
        Self { trouble: error.trouble(), ..Cause::Store(error).into() }
    }
}

impl From<skerry_log::Error> for Error {
    fn from(error: skerry_log::Error) -> Self {
        Cause::Log(error).into()
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        Cause::Format(error).into()
    }
}
