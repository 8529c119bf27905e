//! A file that is written beside its place and takes it only when it is whole.
//!
//! What must hold: whatever happens before [`Staged::take_place`] returned, what was at the place before is there, whole.
//! A process that is killed leaves a file `….part`, which the next one to the same place uses again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use skerry_api::{Error, ErrorKind, Result};

/// What is added to the file's name.
const SUFFIX: &str = ".part";
/// How often a file is looked for again that another process has just given its place.
const TRIES_MAX: u32 = 8;

/// A file on its way. Dropping it removes what was written.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Locked as long as it is written.
    file: File,
    part: PathBuf,
    place: PathBuf,
    replaces: bool,
    is_done: bool,
}

impl Staged {
    /// Makes an empty file beside `place`, which may be taken even if there is a file, if it `replaces` that.
    ///
    /// # Errors
    /// `InUse` if another process writes to the same place; `Unavailable` if the file system does not let it be made.
    pub(crate) fn create(place: &Path, replaces: bool) -> Result<Self> {
        // Where a symbolic link leads is replaced, not the link.
        let place = fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
        let mut part = place.clone().into_os_string();
        part.push(SUFFIX);
        let part = PathBuf::from(part);
        for _ in 0..TRIES_MAX {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&part);
            let file = file.map_err(|error| unwritable(&part, &error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use(&part)),
                Err(TryLockError::Error(error)) => return Err(unwritable(&part, &error)),
            }
            // Its writer may have given it its place before it was locked here.
            if is_same(&file, &part) {
                file.set_len(0).map_err(|error| unwritable(&part, &error))?;
                return Ok(Self { file, part, place, replaces, is_done: false });
            }
        }
        Err(in_use(&part))
    }

    /// A second handle of the file.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the file its place, for good: all of it has been written and synced.
    ///
    /// # Errors
    /// `Exists` if there is a file by now and it does not replace any.
    pub(crate) fn take_place(mut self) -> Result<()> {
        if self.replaces {
            // The rights that somebody gave to last week's are this week's.
            if let Ok(before) = fs::metadata(&self.place) {
                let same = self.file.set_permissions(before.permissions());
                same.map_err(|error| unwritable(&self.place, &error))?;
            }
            fs::rename(&self.part, &self.place).map_err(|error| unwritable(&self.place, &error))?;
        } else {
            self.rename_to_nothing()?;
        }
        self.is_done = true;
        let dir = self.place.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = File::open(dir.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        dir.map_err(|error| unwritable(&self.place, &error))
    }

    fn rename_to_nothing(&self) -> Result<()> {
        let renamed = renameat_with(CWD, &self.part, CWD, &self.place, RenameFlags::NOREPLACE);
        match renamed {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(exists(&self.place)),
            // The file system can't look and rename in one go.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if !self.place.exists() => {
                fs::rename(&self.part, &self.place).map_err(|e| unwritable(&self.place, &e))
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(exists(&self.place)),
            Err(error) => Err(unwritable(&self.place, &error.into())),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_done {
            // Half a file is worse than none; if it can't be removed, the next one to this place uses it.
            let _ = fs::remove_file(&self.part);
        }
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// There is a file at the place.
pub(crate) fn exists(place: &Path) -> Error {
    let message = format!("{} exists: choose another file, or use --force", place.display());
    Error::new(ErrorKind::Exists, message)
}

/// The file can't be written.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{} can't be written: {error}", path.display()))
}

fn in_use(part: &Path) -> Error {
    let message = format!("another process writes {}: wait for it, or stop it", part.display());
    Error::new(ErrorKind::InUse, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn stage(place: &Path, replaces: bool, bytes: &[u8]) -> Staged {
        let staged = Staged::create(place, replaces).expect("made");
        staged.file().expect("a handle").write_all(bytes).expect("written");
        staged
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_there_is_there_until_the_new_one_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("f");
        fs::write(&place, "old").expect("written");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).expect("set");
        drop(stage(&place, true, b"half"));
        assert_eq!(fs::read(&place).expect("there"), b"old");
        assert_eq!(names(dir.path()), ["f"]);
        stage(&place, true, b"new").take_place().expect("taken");
        assert_eq!(fs::read(&place).expect("there"), b"new");
        assert_eq!(names(dir.path()), ["f"]);
        assert_eq!(fs::metadata(&place).expect("there").mode() & 0o777, 0o640);
    }

    #[test]
    fn nothing_is_replaced_unasked() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("f");
        let staged = stage(&place, false, b"new");
        fs::write(&place, "meanwhile").expect("written");
        assert_eq!(staged.take_place().expect_err("there").kind(), ErrorKind::Exists);
        assert_eq!(fs::read(&place).expect("there"), b"meanwhile");
        assert_eq!(names(dir.path()), ["f"]);
        fs::remove_file(&place).expect("removed");
        stage(&place, false, b"new").take_place().expect("taken");
        assert_eq!(fs::read(&place).expect("there"), b"new");
    }

    #[test]
    fn two_at_once_are_told_of_and_what_a_crash_left_is_used_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("f");
        let first = stage(&place, true, b"1");
        assert_eq!(Staged::create(&place, true).expect_err("locked").kind(), ErrorKind::InUse);
        first.take_place().expect("taken");
        fs::write(dir.path().join("f.part"), "a longer left-over").expect("written");
        stage(&place, true, b"2").take_place().expect("taken");
        assert_eq!(fs::read(&place).expect("there"), b"2");
    }

    #[test]
    fn where_a_link_leads_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let (place, link) = (dir.path().join("f"), dir.path().join("link"));
        fs::write(&place, "old").expect("written");
        std::os::unix::fs::symlink(&place, &link).expect("linked");
        stage(&link, true, b"new").take_place().expect("taken");
        assert_eq!(fs::read(&place).expect("there"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    }
}
