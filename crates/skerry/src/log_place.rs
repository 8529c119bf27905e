//! Where the node's log is, as long as it may hold what the bucket does not.
//!
//! A node that is started without its log, or with another, takes its volumes over from itself, and what
//! only the old log has is never merged. So the place is written down while there is something to lose.

use std::fs;
use std::io::{ErrorKind as Io, Write as _};
use std::path::{Path, PathBuf};

use skerry_api::{Error, ErrorKind, Result};

use crate::layout::{Layout, failed};

/// The file that says where the log is.
pub(crate) struct LogPlace(PathBuf);

impl LogPlace {
    /// Checks that the log at `log` (none: there is to be no log) is the one that was used last, and
    /// notes it.
    ///
    /// # Errors
    /// `Invalid` if another one is there that was not emptied by a clean stop.
    pub(crate) fn enter(layout: &Layout, log: Option<&Path>) -> Result<Self> {
        let place = Self(layout.log_place());
        if let Some(before) = place.read()?
            && Some(before.as_path()) != log
            && before.exists()
        {
            let message = format!(
                "the node last used the log at {}, which may hold writes that are not in the bucket: start it \
                 once with that log and stop it cleanly, or remove {} to give those writes up",
                before.display(),
                place.0.display()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        match log {
            Some(log) => place.write(log)?,
            None => place.leave(),
        }
        Ok(place)
    }

    /// Nothing is in the log alone any more.
    pub(crate) fn leave(&self) {
        // If it stays, a start with another log is refused once too often.
        let _ = fs::remove_file(&self.0);
    }

    fn read(&self) -> Result<Option<PathBuf>> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(PathBuf::from(text.trim_end_matches('\n')))),
            Err(error) if error.kind() == Io::NotFound => Ok(None),
            Err(error) => Err(failed("can't be read", &self.0, &error)),
        }
    }

    fn write(&self, log: &Path) -> Result<()> {
        let beside = self.0.with_extension("new");
        let written = fs::File::create(&beside).and_then(|mut file| {
            writeln!(file, "{}", log.display())?;
            file.sync_all()?;
            fs::rename(&beside, &self.0)?;
            self.0.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
        });
        written.map_err(|error| failed("can't be written", &self.0, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_log_is_refused_until_the_first_was_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir(&one).expect("made");
        LogPlace::enter(&layout, Some(&one)).expect("the first");
        LogPlace::enter(&layout, Some(&one)).expect("the same after a crash");
        for other in [Some(two.as_path()), None] {
            let Err(error) = LogPlace::enter(&layout, other) else { panic!("{other:?} is taken") };
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("one"), "{error}");
        }
        LogPlace::enter(&layout, Some(&one)).expect("still the same").leave();
        LogPlace::enter(&layout, None).expect("none after a clean stop");
        LogPlace::enter(&layout, Some(&two)).expect("another");
        fs::remove_dir_all(&one).expect("removed");
        fs::create_dir(&two).expect("made");
        fs::remove_dir_all(&two).expect("removed");
        LogPlace::enter(&layout, Some(&one)).expect("one whose disk is gone can't be waited for");
    }
}
