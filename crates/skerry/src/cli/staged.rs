//! A file that is written beside its place and takes it only when it is whole.
//!
//! Must hold: until [`Staged::take_place`] has returned, the old file stays whole at the place,
//! whatever happens. No other file is touched, and until then only the user can read the new one.
//!
//! A killed process leaves a file `.….skerry-export`. The next one for this place uses it again.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;
use skerry_api::{Error, ErrorKind, Result};

/// Addition to the file's name: a dot before it, and this behind it.
const SUFFIX: &str = ".skerry-export";
/// Mode of a file on its way.
const PRIVATE_MODE: u32 = 0o600;
/// Mode of a new file, before the user's mask.
const NEW_MODE: u32 = 0o666;
/// Number of tries to open a file whose process may just have given it its place.
const TRIES_MAX: u32 = 8;

/// A file on its way. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Locked while it is written, where files can be locked.
    file: File,
    part: PathBuf,
    place: PathBuf,
    replaces: bool,
    is_done: bool,
}

impl Staged {
    /// Makes an empty file beside `place`. If it `replaces`, the place may have a file.
    ///
    /// # Errors
    /// `InUse` if another process writes to this place. `Exists` if another file has the staged
    /// file's name. `Unavailable` if the file system refuses.
    pub(crate) fn create(place: &Path, replaces: bool) -> Result<Self> {
        Self::create_locked(place, replaces, File::try_lock)
    }

    fn create_locked(
        place: &Path,
        replaces: bool,
        lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self> {
        // Replaces the target of a symbolic link, not the link.
        let place = fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
        let part = part_of(&place)?;
        for _ in 0..TRIES_MAX {
            let Some((file, is_new)) = open(&part)? else { continue };
            match lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(in_use(&part)),
                // Where files can't be locked, nothing tells a left-over from a file that is being
                // written.
                Err(TryLockError::Error(_)) if is_new => {}
                Err(TryLockError::Error(_)) => return Err(unlockable(&part)),
            }
            // Its writer may have given it its place before it was locked here.
            if is_same(&file, &part) {
                file.set_len(0).map_err(|error| unwritable(&part, &error))?;
                return Ok(Self { file, part, place, replaces, is_done: false });
            }
        }
        Err(in_use(&part))
    }

    /// Gives a second handle of the file.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the file its place, for good: all of it has been written and synced.
    ///
    /// # Errors
    /// `Exists` if there is a file by now and this one does not replace it.
    pub(crate) fn take_place(mut self) -> Result<()> {
        // Keeps the rights that a person gave to the file before.
        let before = fs::metadata(&self.place).ok().filter(|_| self.replaces);
        let rights = before.map_or_else(new_permissions, |before| self.inherit(&before));
        let set = self.file.set_permissions(rights);
        set.map_err(|error| unwritable(&self.place, &error))?;
        if self.replaces {
            fs::rename(&self.part, &self.place).map_err(|error| unwritable(&self.place, &error))?;
        } else {
            self.rename_to_nothing()?;
        }
        self.is_done = true;
        let dir = self.place.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = File::open(dir.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        dir.map_err(|error| unwritable(&self.place, &error))
    }

    /// Gives the file an earlier file's group and owner, as far as this user may. Gives its new
    /// permissions.
    fn inherit(&self, before: &Metadata) -> Permissions {
        let has_group = fchown(&self.file, None, Some(before.gid())).is_ok();
        // Only root gives files away. The running user can read the file in any case.
        let _ = fchown(&self.file, Some(before.uid()), None);
        // One group's permissions must not go to another group.
        let kept = if has_group { 0o777 } else { 0o707 };
        Permissions::from_mode(before.mode() & kept)
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
            // Half a file is worse than none. If it can't be removed, the next one for this place
            // uses it.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// The name of the staged file for `place`.
fn part_of(place: &Path) -> Result<PathBuf> {
    let Some(name) = place.file_name() else {
        return Err(unwritable(place, &io::ErrorKind::IsADirectory.into()));
    };
    let mut part = OsString::from(".");
    part.push(name);
    part.push(SUFFIX);
    Ok(place.with_file_name(part))
}

/// Makes the file, or opens the one that a killed process left. Says whether it is new. Gives
/// nothing if it went away meanwhile.
fn open(part: &Path) -> Result<Option<(File, bool)>> {
    let mut options = OpenOptions::new();
    // Never follows links, and never waits for a pipe.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    options.write(true).custom_flags(flags.cast_signed()).mode(PRIVATE_MODE);
    match options.clone().create_new(true).open(part) {
        Ok(file) => return Ok(Some((file, true))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unwritable(part, &error)),
    }
    match options.open(part) {
        Ok(file) if is_left_over(&file) => Ok(Some((file, false))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => Err(foreign(part)),
    }
}

/// True if a file with such a name is the left-over of a killed export.
fn is_left_over(file: &File) -> bool {
    file.metadata().is_ok_and(|found| {
        let is_private = found.mode() & 0o7777 == PRIVATE_MODE;
        found.is_file() && is_private && found.nlink() == 1 && found.uid() == geteuid().as_raw()
    })
}

/// The rights of any program's new file.
fn new_permissions() -> Permissions {
    // `umask` tells it only by changing it for all threads.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let mask = mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
    Permissions::from_mode(mask.map_or(PRIVATE_MODE, |mask| NEW_MODE & !mask))
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// The error if a file is at the place.
pub(crate) fn exists(place: &Path) -> Error {
    let message = format!("{} exists: choose another file, or use --force", place.display());
    Error::new(ErrorKind::Exists, message)
}

/// The error if the file can't be written.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{} can't be written: {error}", path.display()))
}

/// The error if another file has the staged file's name.
fn foreign(part: &Path) -> Error {
    let message = format!(
        "{} is in the way, and no unfinished export of this user: remove it, or choose another \
         file",
        part.display()
    );
    Error::new(ErrorKind::Exists, message)
}

fn unlockable(part: &Path) -> Error {
    let message = format!(
        "another process may write {}, and this file system has no locks to tell: remove it if no \
         export runs",
        part.display()
    );
    Error::new(ErrorKind::InUse, message)
}

fn in_use(part: &Path) -> Error {
    let message = format!("another process writes {}: wait for it, or stop it", part.display());
    Error::new(ErrorKind::InUse, message)
}

#[cfg(test)]
mod tests {
    use rustix::process::getgid;

    use super::*;
    use std::io::Write as _;

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

    /// A backup's group still reads it, even if root wrote this week's.
    #[test]
    fn whose_it_was_it_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("f");
        fs::write(&place, "old").expect("written");
        let ids =
            if geteuid().is_root() { (1, 2) } else { (geteuid().as_raw(), getgid().as_raw()) };
        std::os::unix::fs::chown(&place, Some(ids.0), Some(ids.1)).expect("given");
        fs::set_permissions(&place, Permissions::from_mode(0o640)).expect("set");
        stage(&place, true, b"new").take_place().expect("taken");
        let found = fs::metadata(&place).expect("there");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (ids.0, ids.1, 0o640));
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
        let part = part_of(&place).expect("a name");
        fs::write(&part, "a longer left-over").expect("written");
        fs::set_permissions(&part, Permissions::from_mode(PRIVATE_MODE)).expect("set");
        stage(&place, true, b"2").take_place().expect("taken");
        assert_eq!(fs::read(&place).expect("there"), b"2");
        assert_eq!(names(dir.path()), ["f"]);
    }

    #[test]
    fn no_other_file_is_touched() {
        let dir = tempfile::tempdir().expect("a directory");
        let (place, precious) = (dir.path().join("f"), dir.path().join("precious"));
        for name in ["f.part", "precious"] {
            fs::write(dir.path().join(name), "precious").expect("written");
        }
        let part = dir.path().join(".f.skerry-export");
        let in_the_way = || {
            assert_eq!(
                Staged::create(&place, true).expect_err("not ours").kind(),
                ErrorKind::Exists
            );
            fs::remove_file(&part).expect("it stays");
        };
        std::os::unix::fs::symlink(&precious, &part).expect("linked");
        in_the_way();
        std::os::unix::fs::symlink(dir.path().join("nothing"), &part).expect("linked");
        in_the_way();
        fs::hard_link(&precious, &part).expect("linked");
        in_the_way();
        fs::write(&part, "a file with rights that exports don't have").expect("written");
        fs::set_permissions(&part, Permissions::from_mode(0o644)).expect("set");
        in_the_way();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(CWD, &part, kind, mode, 0).expect("a pipe");
        in_the_way();
        stage(&place, false, b"new").take_place().expect("taken");
        assert_eq!(names(dir.path()), ["f", "f.part", "precious"]);
        for name in ["f.part", "precious"] {
            assert_eq!(fs::read(dir.path().join(name)).expect("there"), b"precious", "{name}");
        }
    }

    #[test]
    fn only_the_user_reads_what_is_on_its_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("f");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        fs::write(dir.path().join("any"), "").expect("written");
        for replaces in [false, true] {
            let staged = stage(&place, replaces, b"new");
            assert_eq!(mode(&dir.path().join(".f.skerry-export")), PRIVATE_MODE);
            staged.take_place().expect("taken");
        }
        assert_eq!(mode(&place), mode(&dir.path().join("any")), "as any new file");
    }

    /// Two at once can't be told there from one that was killed.
    #[test]
    fn where_nothing_can_be_locked_a_new_file_is_made_and_none_is_used_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("f");
        let create = || {
            Staged::create_locked(&place, true, |_| Err(TryLockError::Error(Errno::NOTSUP.into())))
        };
        let first = create().expect("made");
        assert_eq!(create().expect_err("may be written").kind(), ErrorKind::InUse);
        first.take_place().expect("taken");
        drop(create().expect("made"));
        assert_eq!(names(dir.path()), ["f"]);
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
