//! A real file system at native speed on an NBD export, without a guest. The tool nbdfuse shows the
//! export as a file, a loop device makes a disk of it, and the kernel mounts that.
//!
//! The guard undoes all this in the opposite order, also when a test fails. It needs root.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use crate::process::Process;
use crate::skip::{self, SkipReason};
use crate::tool::Tool;
use crate::uri::NbdUri;

/// Checks that loop devices over NBD exports work here.
///
/// # Errors
/// The reason to skip.
pub fn available() -> Result<(), SkipReason> {
    skip::may_mount()?;
    skip::have_all(&["nbdfuse", "fusermount3", "losetup"])
}

/// An NBD export as a loop device.
#[derive(Debug)]
pub struct LoopDisk {
    device: PathBuf,
    mounted: Option<PathBuf>,
    fuse_dir: PathBuf,
    nbdfuse: Process,
    dir: TempDir,
}

impl LoopDisk {
    /// Attaches the export.
    ///
    /// # Errors
    /// When nbdfuse can't be started or connect, or there is no free loop device.
    pub fn attach(uri: &NbdUri) -> io::Result<LoopDisk> {
        let dir = tempfile::Builder::new().prefix("skerry-mnt").tempdir()?;
        let fuse_dir = dir.path().join("fuse");
        std::fs::create_dir(&fuse_dir)?;
        // nbdfuse writes its pid file once it is mounted. Through a pipe, that is an event.
        let ready = dir.path().join("ready");
        rustix::fs::mknodat(CWD, &ready, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let mut script = Command::new("sh");
        script
            .arg("-c")
            .arg("(cat \"$1\" >/dev/null; echo ready) & exec nbdfuse -P \"$1\" \"$2\" \"$3\"");
        script.arg("sh").arg(&ready).arg(fuse_dir.join("nbd")).arg(uri.to_string());
        let nbdfuse = Process::spawn(&mut script)?;
        nbdfuse.wait_line(|line| line == "ready").inspect_err(|_| unmount_fuse(&fuse_dir))?;
        let file = fuse_dir.join("nbd");
        let device = Tool::new("losetup").words("--find --show --direct-io=off").arg(&file).run();
        let device = match device {
            Ok(device) => PathBuf::from(device.trim()),
            Err(error) => {
                unmount_fuse(&fuse_dir);
                return Err(error);
            }
        };
        Ok(LoopDisk { device, mounted: None, fuse_dir, nbdfuse, dir })
    }

    /// The block device.
    #[must_use]
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Mounts the file system on it, and returns the mount point.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mount(&mut self, kind: &str) -> io::Result<PathBuf> {
        let point = self.mount_point();
        std::fs::create_dir_all(&point)?;
        Tool::new("mount").arg("-t").arg(kind).arg(&self.device).arg(&point).run()?;
        self.mounted = Some(point.clone());
        Ok(point)
    }

    /// The mount point of its file system.
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Unmounts the file system.
    ///
    /// # Errors
    /// When it is busy.
    pub fn unmount(&mut self) -> io::Result<()> {
        if let Some(point) = self.mounted.take() {
            Tool::new("umount").arg(&point).run()?;
        }
        Ok(())
    }

    /// Unmounts and detaches; every write has then been flushed.
    ///
    /// # Errors
    /// When it is busy.
    pub fn detach(mut self) -> io::Result<()> {
        self.unmount()?;
        Tool::new("losetup").arg("-d").arg(&self.device).run()?;
        unmount_fuse(&self.fuse_dir);
        self.nbdfuse.wait().map(drop)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if !self.nbdfuse.is_running() {
            return;
        }
        if let Some(point) = self.mounted.take() {
            let _ = Tool::new("umount").arg("-l").arg(&point).output();
        }
        let _ = Tool::new("losetup").arg("-d").arg(&self.device).output();
        unmount_fuse(&self.fuse_dir);
    }
}

/// Unmounts lazily, because the loop device lets go of the file a moment later.
fn unmount_fuse(dir: &Path) {
    let _ = Tool::new("fusermount3").words("-u -z").arg(dir).output();
}
