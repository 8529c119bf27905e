//! Locked files, held while a node runs: one node for a data directory, and one for a log.
//!
//! The lock is the system's, so it ends with the process, in any case. The file's content (the
//! holder) is for people only. The file is never deleted: a lock on a deleted file excludes no
//! process.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use skerry_api::{Error, ErrorKind, Result};

use crate::home::layout::{Layout, failed};
use crate::settings::Settings;

/// The most bytes read about the holder: it is a line.
const HOLDER_BYTES_MAX: u64 = 512;

/// Keeps every other node off a directory until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the data directory's lock; [`ErrorKind::InUse`] with the holder if another node has
    /// it.
    pub(crate) fn take(layout: &Layout, host: &str) -> Result<Self> {
        Self::take_file(&layout.lock(), &this_process(host), |holder| {
            format!(
                "the data directory {} is in use by {holder}: stop that node, or choose another \
                 directory with --data",
                layout.data().display()
            )
        })
    }

    /// Takes the lock of the log, whose directory is there; [`ErrorKind::InUse`] with the holder if
    /// another node has it. Two nodes in one log would overwrite each other's records.
    pub(crate) fn take_log(settings: &Settings, layout: &Layout, host: &str) -> Result<Self> {
        let data = layout.data().display();
        let who = format!("{}, with the data directory {data}", this_process(host));
        Self::take_file(&layout.log_lock(settings), &who, |holder| {
            format!(
                "the log {} is in use by {holder}: stop that node, or give the one of {data} a log \
                 of its own with --log",
                layout.log(settings).display()
            )
        })
    }

    fn take_file(path: &Path, who: &str, held: impl Fn(&str) -> String) -> Result<Self> {
        let fail = |error: &std::io::Error| failed("can't be locked", path, error);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(|error| fail(&error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::new(ErrorKind::InUse, held(&holder(&file))));
            }
            Err(error) => return Err(fail(&error.into())),
        }
        let holder = format!("{who}\n");
        // In place, and the end last: then a full disk has room for it. Without it the lock holds
        // all the same.
        if let Err(error) =
            file.write_all_at(holder.as_bytes(), 0).and_then(|()| file.set_len(holder.len() as u64))
        {
            tracing::debug!(%error, "the lock does not name its holder");
        }
        Ok(Self { _file: file })
    }
}

fn this_process(host: &str) -> String {
    format!("process {} on host {host}", std::process::id())
}

/// The holder of a file's lock, for people.
fn holder(file: &File) -> String {
    let mut holder = String::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
    match holder.trim() {
        holder if read.is_ok() && !holder.is_empty() => holder.to_owned(),
        _ => "a process that has not written its name".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        let first = Lock::take(&layout, "one").expect("free");
        let error = Lock::take(&layout, "two").expect_err("held");
        assert_eq!(error.kind(), ErrorKind::InUse);
        let holder = format!("process {} on host one", std::process::id());
        assert!(error.message().contains(&holder), "{error}");
        drop(first);
        Lock::take(&layout, "a host with a longer name").expect("free again");
        Lock::take(&layout, "b").expect("free again");
        let text = std::fs::read_to_string(layout.lock()).expect("the file stays");
        assert!(text.ends_with("host b\n"), "{text:?}");
    }

    /// Two nodes that share settings name one log: the second must not touch it.
    #[test]
    fn a_second_node_is_told_who_holds_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        std::fs::create_dir(&log).expect("made");
        let mut settings = Settings::default();
        settings.log.dir = Some(log.clone());
        let layout = |name: &str| Layout::new(&dir.path().join(name)).expect("a layout");
        let first = Lock::take_log(&settings, &layout("a"), "one").expect("free");
        let error = Lock::take_log(&settings, &layout("b"), "two").expect_err("held");
        assert_eq!(error.kind(), ErrorKind::InUse);
        let named = [log, layout("a").data().to_owned(), layout("b").data().to_owned()];
        for path in named {
            assert!(error.message().contains(&path.display().to_string()), "{error}");
        }
        drop(first);
        Lock::take_log(&settings, &layout("b"), "two").expect("free again");
    }
}
