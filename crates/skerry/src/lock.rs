//! One data directory, one node: a file that is locked while the node runs.
//!
//! The lock is the system's, so it ends with the process, however that ends; the file's content
//! (who holds it) is for people only. The file is never deleted: a lock on a deleted file excludes
//! nobody.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use skerry_api::{Error, ErrorKind, Result};

use crate::layout::{Layout, failed};

/// The most bytes that are read of who holds it: it is a line.
const HOLDER_BYTES_MAX: u64 = 512;

/// Keeps every other node off the data directory until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; [`ErrorKind::InUse`] with the holder if another node has it.
    pub(crate) fn take(layout: &Layout, host: &str) -> Result<Self> {
        let path = layout.lock();
        let fail = |error: &std::io::Error| failed("can't be locked", &path, error);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(|error| fail(&error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(layout, &file)),
            Err(error) => return Err(fail(&error.into())),
        }
        let holder = format!("process {} on host {host}\n", std::process::id());
        // In place, and the end last: a full disk has room for it then. Without it the lock holds all the same.
        if let Err(error) =
            file.write_all_at(holder.as_bytes(), 0).and_then(|()| file.set_len(holder.len() as u64))
        {
            tracing::debug!(%error, "the lock does not say who holds it");
        }
        Ok(Self { _file: file })
    }
}

fn held(layout: &Layout, file: &File) -> Error {
    let mut holder = String::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
    let holder = match holder.trim() {
        holder if read.is_ok() && !holder.is_empty() => holder,
        _ => "a process that has not said who it is",
    };
    let message = format!(
        "the data directory {} is in use by {holder}: stop that node, or choose another directory \
         with --data",
        layout.data().display()
    );
    Error::new(ErrorKind::InUse, message)
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
}
