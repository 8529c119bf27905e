//! Skipping a test visibly, with the reason and the package to install.
//!
//! The harness swallows the output of tests that pass, and a skipped test passes. So the notice
//! goes past the capture, to standard error, and to the file that `SKERRY_SKIPS` names.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Debian's package of each tool.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("fio", "fio"),
    ("fusermount3", "fuse3"),
    ("losetup", "mount"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdfuse", "libnbd-bin"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("nbdsh", "python3-libnbd"),
    ("qemu-img", "qemu-utils"),
    ("qemu-io", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("strace", "strace"),
];

/// Debian's directories of file-system tools, which an ordinary user's path lacks.
const EXTRA_DIRS: &[&str] = &["/usr/sbin", "/sbin"];

/// Says why a test can't run here, and what would help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipReason(String);

impl SkipReason {
    /// Makes a reason.
    pub fn new(reason: impl Into<String>) -> SkipReason {
        SkipReason(reason.into())
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SkipReason {}

/// Finds the path of `tool`.
///
/// # Errors
/// The reason to skip: the missing tool, and its package.
pub fn have(tool: &str) -> Result<PathBuf, SkipReason> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(EXTRA_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|file| is_executable(file))
        .ok_or_else(|| missing(tool))
}

/// Checks that every one of `tools` is here.
///
/// # Errors
/// The reason to skip, for the first missing tool.
pub fn have_all(tools: &[&str]) -> Result<(), SkipReason> {
    tools.iter().try_for_each(|tool| have(tool).map(drop))
}

/// Checks that this process may mount file systems and set up loop devices.
///
/// # Errors
/// The reason to skip: it isn't root, or there is no `/dev/fuse` or no loop control.
pub fn may_mount() -> Result<(), SkipReason> {
    if !rustix::process::geteuid().is_root() {
        return Err(SkipReason::new("mounting needs root"));
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Err(SkipReason::new(format!("there is no {device} here")));
        }
    }
    Ok(())
}

/// Says that `test` was skipped, on standard error and in the file of `SKERRY_SKIPS`.
pub fn announce(test: &str, reason: &SkipReason) {
    let line = format!("SKIPPED {test}: {reason}\n");
    // Written to the handle, not with `eprintln!`: the harness captures only the macro's output.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os("SKERRY_SKIPS") {
        let _ =
            std::fs::OpenOptions::new().append(true).create(true).open(file).and_then(
                |mut file| file.write_all(line.trim_start_matches("SKIPPED ").as_bytes()),
            );
    }
}

fn missing(tool: &str) -> SkipReason {
    let package =
        PACKAGES.iter().find(|(name, _)| *name == tool).map_or(tool, |(_, package)| package);
    SkipReason(format!("{tool} is missing: apt-get install {package}"))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Ends the test, visibly skipped, with a reason.
#[macro_export]
macro_rules! skip {
    ($test:expr, $($reason:tt)+) => {{
        $crate::skip::announce($test, &$crate::skip::SkipReason::new(format!($($reason)+)));
        return Ok(());
    }};
}

/// Ends the test, visibly skipped, if the check (a `Result<_, SkipReason>`) fails.
///
/// ```ignore
/// require!("fio_verifies", skip::have_all(&["fio"]));
/// ```
#[macro_export]
macro_rules! require {
    ($test:expr, $check:expr) => {
        match $check {
            Ok(found) => found,
            Err(reason) => {
                $crate::skip::announce($test, &reason);
                return Ok(());
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_here_is_found_and_one_that_is_not_is_named_with_its_package() {
        assert!(have("sh").is_ok());
        let reason = have("no-such-tool").unwrap_err().to_string();
        assert_eq!(reason, "no-such-tool is missing: apt-get install no-such-tool");
        assert!(missing("mkfs.xfs").to_string().ends_with("apt-get install xfsprogs"));
    }
}
