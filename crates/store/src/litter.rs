//! What crashes leave in a local bucket: files of objects that were on their way and never got their name.
//!
//! They are no objects, nothing names them, and no listing shows them; they only take space. Whoever still
//! writes one that is taken away fails to give it its name, and tries again.

use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Deletes the files under `root` that were staged and last written before `deadline`; gives how many.
pub(crate) fn remove_staged(root: &Path, deadline: Duration) -> Result<usize> {
    let deadline = SystemTime::UNIX_EPOCH + deadline;
    let mut removed = 0;
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| Error::file("listing", &dir, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::file("listing", &dir, e))?;
            let kind = entry.file_type().map_err(|e| Error::file("looking at", &dir, e))?;
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() && is_staged(&entry.file_name().to_string_lossy()) {
                // One that is gone by now was published or removed by whoever wrote it.
                let written = entry.metadata().and_then(|about| about.modified());
                if written.is_ok_and(|at| at < deadline) && fs::remove_file(entry.path()).is_ok() {
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

/// True for `NAME#NUMBER`, which is what `object_store` and `direct` call such files.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(object, number)| {
        !object.is_empty()
            && !number.is_empty()
            && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_staged_files_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let sub = dir.path().join("a/b");
        fs::create_dir_all(&sub).expect("made");
        for name in ["seg#1", "seg#12", "seg", "seg#", "#1", "seg#1x", "new#1"] {
            fs::write(sub.join(name), "x").expect("written");
        }
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for name in ["seg#1", "seg#12", "seg", "seg#", "#1", "seg#1x"] {
            let file = fs::File::options().write(true).open(sub.join(name)).expect("there");
            file.set_modified(old).expect("set");
        }
        let deadline = Duration::from_secs(2000);
        assert_eq!(remove_staged(dir.path(), deadline).expect("swept"), 2);
        let mut left: Vec<_> = fs::read_dir(&sub)
            .expect("listed")
            .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        left.sort();
        assert_eq!(left, ["#1", "new#1", "seg", "seg#", "seg#1x"]);
    }
}
