//! The place of the node's log, as long as it may hold records that the bucket does not.
//!
//! A node that is started without its log, or with another, takes its volumes over from itself.
//! Records that only the old log has are then never merged. So the place is written down while
//! there is something to lose.

use std::fs;
use std::io::ErrorKind as Io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};
use skerry_log::{FileDisk, Log};

use crate::home::layout::{Layout, failed};
use crate::home::note;

/// The file with the log's place and id.
pub(crate) struct LogPlace {
    file: PathBuf,
    /// The present place of the log, if there is one.
    log: Option<PathBuf>,
    /// The log that was used last, and whether the present one must be that.
    before: Option<String>,
    is_wanted: bool,
}

/// Content of the file.
#[derive(Serialize, Deserialize)]
struct Noted {
    log: String,
    id: String,
    /// The disk of the log, if that was another than the data directory's.
    own_disk: Option<u64>,
}

impl LogPlace {
    /// Checks that the log at `log` is at the place of the one that was used last; none means no
    /// log. [`Self::confirm`] checks that it is the same log, if its directory still exists.
    ///
    /// # Errors
    /// `Invalid` if the last one is at another place, and was not emptied by a clean stop.
    pub(crate) fn enter(layout: &Layout, log: Option<&Path>) -> Result<Self> {
        let mut place = Self {
            file: layout.log_place(),
            log: log.map(Path::to_owned),
            before: None,
            is_wanted: false,
        };
        let noted = note::read(&place.file).map_err(|error| {
            note::advised(&error, "remove it if the settings name the log that the node last used")
        });
        let Some(Noted { log: before, id, own_disk }) = noted? else {
            return Ok(place);
        };
        let before = PathBuf::from(before);
        // Disks get other numbers when a machine starts: they count only if the log itself is not
        // found.
        if log_in(&before).as_ref() != Some(&id) {
            // Before anything is made in the directory that stands in its place.
            if own_disk.is_some() && own_disk != Some(disk_of(&before)?) {
                return Err(place.refusal(&before));
            }
            if !before.exists() {
                place.before = Some(id);
                return Ok(place);
            }
        }
        if Some(before.as_path()) != log {
            return Err(place.refusal(&before));
        }
        // In the data directory it was deleted by hand: its disk is there.
        place.is_wanted = !before.starts_with(layout.data());
        place.before = Some(id);
        Ok(place)
    }

    /// Checks that the opened log is the one that was used last, and notes it.
    ///
    /// # Errors
    /// `Invalid` if it is another: perhaps its disk is not mounted.
    pub(crate) fn confirm(&self, id: &str) -> Result<()> {
        let is_gone = self.before.as_deref().is_some_and(|before| before != id);
        if let Some(log) = self.log.as_ref().filter(|_| is_gone && self.is_wanted) {
            return Err(self.refusal(log));
        }
        if is_gone {
            tracing::error!(
                "the log that this node last used is gone: records that only it had are lost"
            );
        }
        match &self.log {
            Some(log) => self.write(log, id),
            None => {
                self.leave();
                Ok(())
            }
        }
    }

    fn refusal(&self, before: &Path) -> Error {
        let message = format!(
            "the node last used the log at {}, which may hold writes that are not in the bucket; \
             what it is started with now is another or empty: start it once with that log (is its \
             disk mounted?) and stop it cleanly, or remove {} to give those writes up",
            before.display(),
            self.file.display()
        );
        Error::new(ErrorKind::Invalid, message)
    }

    /// Ends a clean stop. Says if the bucket did not take everything: the exit code does not.
    pub(crate) fn end(&self, is_drained: bool) {
        match &self.log {
            _ if is_drained => self.leave(),
            Some(log) => tracing::warn!(
                log = %log.display(),
                "the bucket did not take everything: keep the log, which the next start reads"
            ),
            None => tracing::warn!(
                "the bucket did not take everything: writes that no flush covered are lost"
            ),
        }
    }

    /// Notes that no record is in the log alone.
    fn leave(&self) {
        // If it stays, a start with another log is refused once too often.
        let _ = fs::remove_file(&self.file);
    }

    fn write(&self, log: &Path, id: &str) -> Result<()> {
        let (own, data) = (disk_of(log)?, disk_of(&self.file)?);
        let own_disk = (own != data).then_some(own);
        let log = log.to_string_lossy().into_owned();
        note::write(&self.file, &Noted { log, id: id.to_owned(), own_disk })
    }
}

/// Reads the id of the log in a directory; none if it is unreadable: its opening tells why.
fn log_in(dir: &Path) -> Option<String> {
    Log::peek(&FileDisk::new(dir)).ok().flatten().map(|id| id.to_string())
}

/// The disk of a path, or of the place where it would be made.
fn disk_of(path: &Path) -> Result<u64> {
    for at in path.ancestors() {
        match fs::metadata(at) {
            Ok(found) => return Ok(found.dev()),
            Err(error) if error.kind() == Io::NotFound => {}
            Err(error) => return Err(failed("can't be looked at", at, &error)),
        }
    }
    Err(failed("can't be looked at", path, &Io::NotFound.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    fn enter(layout: &Layout, log: Option<&Path>, id: &str) -> Result<LogPlace> {
        let place = LogPlace::enter(layout, log)?;
        place.confirm(id)?;
        Ok(place)
    }

    #[test]
    fn another_log_is_refused_until_the_first_was_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(&dir.path().join("data")).expect("a layout");
        layout.create().expect("made");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir(&one).expect("made");
        fs::create_dir(&two).expect("made");
        enter(&layout, Some(&one), "1").expect("the first");
        enter(&layout, Some(&one), "1").expect("the same after a crash");
        for (other, id) in [(Some(two.as_path()), "2"), (None, ""), (Some(one.as_path()), "3")] {
            let Err(error) = enter(&layout, other, id) else { panic!("{other:?} is taken") };
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("one"), "{error}");
        }
        enter(&layout, Some(&one), "1").expect("still the same").leave();
        enter(&layout, None, "").expect("none after a clean stop");
        enter(&layout, Some(&two), "2").expect("another");
        fs::remove_dir_all(&two).expect("removed");
        enter(&layout, Some(&one), "1").expect("one whose disk is gone can't be waited for");
    }

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines of the log that some work writes.
    fn said_by(work: impl FnOnce()) -> String {
        let text = Text::default();
        let writer = text.clone();
        let to_text = tracing_subscriber::fmt().with_writer(move || writer.clone());
        tracing::subscriber::with_default(to_text.with_ansi(false).finish(), work);
        String::from_utf8(text.0.lock().clone()).expect("text")
    }

    #[test]
    fn a_stop_that_leaves_records_says_so_and_keeps_the_note() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(&dir.path().join("data")).expect("a layout");
        layout.create().expect("made");
        let log = dir.path().join("log");
        fs::create_dir(&log).expect("made");
        let place = enter(&layout, Some(&log), "1").expect("the first");
        let said = said_by(|| place.end(false));
        assert!(said.contains("did not take everything") && said.contains("/log"), "{said}");
        assert!(layout.log_place().exists());
        assert_eq!(said_by(|| place.end(true)), "");
        assert!(!layout.log_place().exists());
    }

    /// A log whose disk is not mounted is wanted, whether its directory exists or not, and nothing
    /// is made there.
    #[test]
    fn a_log_with_a_disk_of_its_own_is_wanted_wherever_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        let log = dir.path().join("log");
        fs::create_dir(&log).expect("made");
        enter(&layout, Some(&log), "1").expect("the first");
        let noted: Option<Noted> = note::read(&layout.log_place()).expect("readable");
        let mut noted = noted.expect("there");
        assert_eq!(noted.own_disk, None);
        noted.own_disk = Some(disk_of(&log).expect("there") + 1);
        note::write(&layout.log_place(), &noted).expect("written");
        for is_there in [true, false] {
            if !is_there {
                fs::remove_dir(&log).expect("removed");
            }
            let Err(error) = LogPlace::enter(&layout, Some(&log)) else { panic!("it is taken") };
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains("is its disk mounted"), "{error}");
            assert_eq!(log.exists(), is_there);
        }
        noted.own_disk = Some(disk_of(&log).expect("above it"));
        note::write(&layout.log_place(), &noted).expect("written");
        fs::create_dir(&log).expect("made");
        enter(&layout, Some(&log), "2").expect("deleted by hand: its disk is there");
    }

    /// A machine that starts again may count its disks in another order.
    #[test]
    fn a_log_that_is_there_is_known_by_its_id_whatever_its_disk_is_called() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(&dir.path().join("data")).expect("a layout");
        layout.create().expect("made");
        let dir = dir.path().join("log");
        fs::create_dir(&dir).expect("made");
        let disk = std::sync::Arc::new(FileDisk::new(&dir));
        let opened = Log::open(disk, skerry_log::Settings::default(), crate::env::log_env());
        let (log, mut recovery) = opened.expect("a log");
        while recovery.next().expect("nothing is damaged").is_some() {}
        let id = log.id().to_string();
        drop(log);
        enter(&layout, Some(&dir), &id).expect("the first");
        let noted: Option<Noted> = note::read(&layout.log_place()).expect("readable");
        let number = disk_of(&dir).expect("there") + 1;
        let noted = Noted { own_disk: Some(number), ..noted.expect("there") };
        note::write(&layout.log_place(), &noted).expect("written");
        enter(&layout, Some(&dir), &id).expect("the same log on a disk of another number");
        let noted = Noted { own_disk: Some(number), id: "another".to_owned(), ..noted };
        note::write(&layout.log_place(), &noted).expect("written");
        assert!(LogPlace::enter(&layout, Some(&dir)).is_err(), "another log");
    }

    #[test]
    fn a_log_on_another_disk_is_noted_with_it() {
        let (dir, shm) = (tempfile::tempdir().expect("a directory"), Path::new("/dev/shm"));
        let other = disk_of(shm).expect("there");
        if other == disk_of(dir.path()).expect("there") {
            eprintln!("skipped: /dev/shm is no other disk here");
            return;
        }
        let layout = Layout::new(dir.path()).expect("a layout");
        enter(&layout, Some(shm), "1").expect("the first");
        let noted: Option<Noted> = note::read(&layout.log_place()).expect("readable");
        assert_eq!(noted.expect("there").own_disk, Some(other));
    }

    /// In the data directory itself, a missing log is not a disk that is not mounted.
    #[test]
    fn the_usual_log_may_be_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        let log = dir.path().join("log");
        fs::create_dir(&log).expect("made");
        enter(&layout, Some(&log), "1").expect("the first");
        enter(&layout, Some(&log), "2").expect("a new one");
    }
}
