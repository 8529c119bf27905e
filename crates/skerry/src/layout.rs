//! The data directory of a node: the names of everything in it, in one place.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use skerry_api::{Address, Error, ErrorKind, Result};

use crate::settings::Settings;

/// Only the node's own user may look into the data directory: whoever reaches its sockets may read
/// and write every volume.
const DIR_MODE: u32 = 0o700;

/// Where a node keeps what.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    data: PathBuf,
}

impl Layout {
    /// The layout of a data directory; its path is made absolute.
    pub(crate) fn new(data: &Path) -> Result<Self> {
        let absolute = std::path::absolute(data);
        let data = absolute.map_err(|error| failed("can't be used", data, &error))?;
        Ok(Self { data })
    }

    /// Creates the directory, if it isn't there.
    pub(crate) fn create(&self) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(&self.data);
        made.map_err(|error| failed("can't be created", &self.data, &error))
    }

    /// The directory itself.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The embedded bucket.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.data.join("bucket")
    }

    /// The log, unless the settings say otherwise.
    pub(crate) fn log(&self, settings: &Settings) -> PathBuf {
        let dir = settings.log.dir.clone().unwrap_or_else(|| self.data.join("log"));
        std::path::absolute(&dir).unwrap_or(dir)
    }

    /// What a running node holds locked of its log, wherever that is.
    pub(crate) fn log_lock(&self, settings: &Settings) -> PathBuf {
        self.log(settings).join("lock")
    }

    /// What this node had not destaged of volumes that others took over.
    pub(crate) fn parked(&self) -> PathBuf {
        self.data.join("parked")
    }

    /// The disk cache, unless the settings say otherwise.
    pub(crate) fn cache(&self, settings: &Settings) -> PathBuf {
        settings.cache.dir.clone().unwrap_or_else(|| self.data.join("cache"))
    }

    /// The socket of NBD.
    pub(crate) fn nbd_socket(&self) -> Address {
        Address::Unix(self.data.join("nbd.sock"))
    }

    /// The socket of the control API.
    pub(crate) fn api_socket(&self) -> Address {
        Address::Unix(self.data.join("api.sock"))
    }

    /// Who the node is.
    pub(crate) fn identity(&self) -> PathBuf {
        self.data.join("node.toml")
    }

    /// Where the log is, as long as it may hold what the bucket does not.
    pub(crate) fn log_place(&self) -> PathBuf {
        self.data.join("log-place")
    }

    /// Which bucket the node used last, and where.
    pub(crate) fn bucket_place(&self) -> PathBuf {
        self.data.join("bucket-place")
    }

    /// Which start of the node was the last one here.
    pub(crate) fn last_start(&self) -> PathBuf {
        self.data.join("last-start")
    }

    /// What a running node holds locked.
    pub(crate) fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }
}

/// An error about a file or directory of the node.
pub(crate) fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{} {what}: {error}", path.display());
    Error::new(ErrorKind::Unavailable, message)
}
