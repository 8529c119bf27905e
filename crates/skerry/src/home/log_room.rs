//! The room of a log on its disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use skerry_api::Result;
use skerry_log::{Disk as _, FileDisk};

use crate::home::layout::failed;

/// Unit of a file's room in `stat`.
const STAT_BLOCK_BYTES: u64 = 512;

/// Warns that a log has no reserved room where the file system writes to a new place each time.
pub(crate) fn warn_of_copies(dir: &Path) {
    if let Some(kind) = FileDisk::new(dir).copies_on_write() {
        tracing::warn!(
            log = %dir.display(),
            "the log is on {kind}, where no room can be kept for it: when the disk is full, writes \
             wait until it has room again; on ext4 or xfs they go on within the log's own files"
        );
    }
}

/// Free bytes on the disk of a directory.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir);
    let stat = stat.map_err(|error| failed("can't be measured", dir, &error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that the files in a directory take of its disk.
pub(crate) fn held_bytes(dir: &Path) -> Result<u64> {
    let held = std::fs::read_dir(dir).and_then(|entries| {
        let sizes = entries.map(|entry| Ok(entry?.metadata()?.blocks() * STAT_BLOCK_BYTES));
        sizes.sum::<std::io::Result<u64>>()
    });
    held.map_err(|error| failed("can't be measured", dir, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_has_taken_of_its_disk_is_known() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(held_bytes(dir.path()).expect("measured"), 0);
        std::fs::write(dir.path().join("file"), vec![1; 1 << 20]).expect("written");
        let held = held_bytes(dir.path()).expect("measured");
        assert!((1 << 20..2 << 20).contains(&held), "{held}");
    }
}
