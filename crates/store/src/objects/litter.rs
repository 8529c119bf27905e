//! Remains of crashes in a local bucket: files of objects under way that never got their name.
//!
//! They are no objects: nothing names them, and no listing shows them. They only take space. A
//! writer whose file is removed fails to give it its name, and tries again.

use crate::error::{Error, Result};
use skerry_core::names::{self, Object};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Deletes the files of Skerry's objects under `root` that were staged and last written before
/// `deadline`. Gives their number.
pub(crate) fn remove_staged(root: &Path, deadline: Duration) -> Result<usize> {
    remove(root, deadline, |name| !matches!(names::parse(name), Object::Foreign))
}

/// Deletes all files under `dir` that were staged and last written before `deadline`, a time
/// since 1970. Gives their number. For a directory with a single user, such as a database.
///
/// # Errors
/// [`Error::File`] if the directory can't be read. A missing one has no such files.
pub fn remove_all_staged(dir: &Path, deadline: Duration) -> Result<usize> {
    match dir.try_exists() {
        Ok(false) => Ok(0),
        _ => remove(dir, deadline, |_| true),
    }
}

fn remove(root: &Path, deadline: Duration, is_ours: impl Fn(&str) -> bool) -> Result<usize> {
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
            } else if kind.is_file() && is_staged(root, &entry.path(), &is_ours) {
                // A file that is gone by now was published or removed by its writer.
                let written = entry.metadata().and_then(|about| about.modified());
                if written.is_ok_and(|at| at < deadline) && fs::remove_file(entry.path()).is_ok() {
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

/// True for `NAME#NUMBER`, the names that `object_store` and `direct` give such files.
fn is_staged(root: &Path, path: &Path, is_ours: impl Fn(&str) -> bool) -> bool {
    let name = path.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
    name.rsplit_once('#').is_some_and(|(object, number)| {
        is_ours(object) && !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_staged_files_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let stream = format!("streams/{}", "ab".repeat(16));
        let sub = dir.path().join(&stream);
        fs::create_dir_all(&sub).expect("made");
        let n = "0000000000000001";
        let old: Vec<String> =
            ["#1", "#12", "", "#", "#1x"].iter().map(|end| format!("{n}{end}")).collect();
        let young = "0000000000000002#1".to_owned();
        for name in old.iter().chain([&young, &"theirs#1".to_owned()]) {
            fs::write(sub.join(name), "x").expect("written");
        }
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for name in old.iter().chain([&"theirs#1".to_owned()]) {
            let file = fs::File::options().write(true).open(sub.join(name)).expect("there");
            file.set_modified(long_ago).expect("set");
        }
        let deadline = Duration::from_secs(2000);
        assert_eq!(remove_staged(dir.path(), deadline).expect("swept"), 2);
        let mut left: Vec<_> = fs::read_dir(&sub)
            .expect("listed")
            .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        left.sort();
        let wanted =
            [n.to_owned(), format!("{n}#"), format!("{n}#1x"), young, "theirs#1".to_owned()];
        assert_eq!(left, wanted);
        assert_eq!(remove_all_staged(dir.path(), deadline).expect("swept"), 1, "theirs");
        assert_eq!(remove_all_staged(&dir.path().join("none"), deadline).expect("none"), 0);
    }
}
