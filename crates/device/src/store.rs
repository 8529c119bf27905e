//! Devices that store bytes on this machine: sources and sinks of a move.
//!
//! Behind the feature `stores`, because they need tokio and system calls. Each does its IO on
//! tokio's threads for blocking work, so their asynchronous methods run inside a runtime of tokio.
//! A caller bounds those threads by the number of its requests under way.

pub mod file;
pub mod shards;
pub mod sparse;

use std::io;
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// Runs `work` on a thread that may block.
async fn blocking<T, W>(work: W) -> Result<T>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|end| Err(Error::new(ErrorKind::Failed, format!("IO broke off: {end}"))))
}

/// Makes a device's error of a failed call: a full disk can pass, all else can't.
fn io_error(action: &str, path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("cannot {action} {}: {error}", path.display()))
}

fn invalid(path: &Path, problem: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{} {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_full_disk_is_no_failed_disk() {
        let kind = |errno: Errno| io_error("write to", Path::new("disk"), &errno.into()).kind;
        assert_eq!(kind(Errno::NOSPC), ErrorKind::NoSpace);
        assert_eq!(kind(Errno::DQUOT), ErrorKind::NoSpace);
        assert_eq!(kind(Errno::IO), ErrorKind::Failed);
    }
}
