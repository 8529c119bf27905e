//! The data directory of a node: the names of everything in it, in one place.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use skerry_api::{Address, Error, ErrorKind, Result};

use crate::settings::Settings;

/// Mode of the data directory. Only the node's own user may look into it: access to its sockets is
/// access to every volume.
const DIR_MODE: u32 = 0o700;

/// Paths of a node's files.
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

    /// Creates the directory, if it is missing.
    pub(crate) fn create(&self) -> Result<()> {
        create_private(&self.data).map_err(|error| failed("can't be created", &self.data, &error))
    }

    /// The directory itself.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The embedded bucket.
    pub(crate) fn bucket(&self) -> PathBuf {
        self.data.join("bucket")
    }

    /// The directory of a bucket outside the data directory. Other users' nodes may share it.
    pub(crate) fn bucket_elsewhere(&self, settings: &Settings) -> Option<PathBuf> {
        let url = settings.bucket.url.as_deref()?;
        let dir = url.strip_prefix("file://").unwrap_or(url);
        let dir = std::path::absolute(dir).ok().filter(|_| !dir.contains("://"))?;
        (!is_within(&dir, &self.data)).then_some(dir)
    }

    /// The log, unless the settings name another directory.
    pub(crate) fn log(&self, settings: &Settings) -> PathBuf {
        let dir = settings.log.dir.clone().unwrap_or_else(|| self.data.join("log"));
        std::path::absolute(&dir).unwrap_or(dir)
    }

    /// File in the log's directory that a running node holds locked. That directory may be the data
    /// directory, which has a lock of its own.
    pub(crate) fn log_lock(&self, settings: &Settings) -> PathBuf {
        self.log(settings).join("log.lock")
    }

    /// The logs of jobs, beside the node's own.
    pub(crate) fn jobs_logs(&self, settings: &Settings) -> PathBuf {
        self.log(settings).join("jobs")
    }

    /// The parked tails of volumes that other nodes took over.
    pub(crate) fn parked(&self) -> PathBuf {
        self.data.join("parked")
    }

    /// The disk cache, unless the settings name another directory.
    pub(crate) fn cache(&self, settings: &Settings) -> PathBuf {
        let dir = settings.cache.dir.clone().unwrap_or_else(|| self.data.join("cache"));
        std::path::absolute(&dir).unwrap_or(dir)
    }

    /// The node's directories into which other users can look. Their files may be older than the
    /// rule that only the node's own user may read them.
    pub(crate) fn open_to_others(&self, settings: &Settings) -> Vec<PathBuf> {
        let mut dirs = vec![self.data.clone(), self.log(settings), self.cache(settings)];
        dirs.extend(self.bucket_elsewhere(settings));
        dirs.dedup();
        let may = |dir: &Path, bits: u32| {
            std::fs::metadata(dir).is_ok_and(|found| found.mode() & bits == bits)
        };
        let leads_there = |dir: &Path| dir.ancestors().skip(1).all(|above| may(above, 0o001));
        // To list the directory, or to open well-known names in it.
        dirs.retain(|dir| {
            (may(dir, 0o004) || may(dir, 0o001))
                && dir.canonicalize().is_ok_and(|dir| leads_there(&dir))
        });
        dirs
    }

    /// The socket of NBD.
    pub(crate) fn nbd_socket(&self) -> Address {
        Address::Unix(self.data.join("nbd.sock"))
    }

    /// The socket of the control API.
    pub(crate) fn api_socket(&self) -> Address {
        Address::Unix(self.data.join("api.sock"))
    }

    /// The node's identity.
    pub(crate) fn identity(&self) -> PathBuf {
        self.data.join("node.toml")
    }

    /// The place of the log, as long as it may hold records that the bucket does not.
    pub(crate) fn log_place(&self) -> PathBuf {
        self.data.join("log-place")
    }

    /// The bucket that the node used last, and its address.
    pub(crate) fn bucket_place(&self) -> PathBuf {
        self.data.join("bucket-place")
    }

    /// The last start of the node here.
    pub(crate) fn last_start(&self) -> PathBuf {
        self.data.join("last-start")
    }

    /// The lock of a running node.
    pub(crate) fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }
}

/// Makes a directory, if it is missing, into which only the node's own user may look.
pub(crate) fn create_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// True if a path that is there, links followed, lies in a directory.
pub(crate) fn is_within(path: &Path, dir: &Path) -> bool {
    match (path.canonicalize(), dir.canonicalize()) {
        (Ok(path), Ok(dir)) => path.starts_with(dir),
        // Nothing is there.
        _ => path.starts_with(dir),
    }
}

/// An error about a file or directory of the node.
pub(crate) fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let message = format!("{} {what}: {error}", path.display());
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A node whose log lies in its data directory found itself there, and did not start.
    #[test]
    fn a_log_in_the_data_directory_has_a_lock_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        let mut settings = Settings::default();
        settings.log.dir = Some(layout.data().to_owned());
        assert_ne!(layout.log_lock(&settings), layout.lock());
    }

    #[test]
    fn directories_that_others_can_reach_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = |dir: &Path, mode| set_permissions(dir, Permissions::from_mode(mode));
        let layout = Layout::new(&dir.path().join("data")).expect("a layout");
        layout.create().expect("made");
        let mut settings = Settings::default();
        let (log, inside) = (dir.path().join("log"), layout.data().join("cache"));
        for made in [&log, &inside] {
            create_dir(made).expect("made");
            set(made, 0o755).expect("set");
        }
        settings.log.dir = Some(log.clone());
        set(dir.path(), 0o700).expect("set");
        let none: Vec<PathBuf> = Vec::new();
        assert_eq!(layout.open_to_others(&settings), none, "nobody comes so far");
        set(dir.path(), 0o711).expect("set");
        if layout.open_to_others(&settings).is_empty() {
            eprintln!("skipped: directories for temporary files are closed here");
            return;
        }
        assert_eq!(layout.open_to_others(&settings), std::slice::from_ref(&log));
        set(&log, 0o750).expect("set");
        assert_eq!(layout.open_to_others(&settings), none);
        set(layout.data(), 0o755).expect("set");
        assert_eq!(layout.open_to_others(&settings), [layout.data().to_owned(), inside]);
    }
}
