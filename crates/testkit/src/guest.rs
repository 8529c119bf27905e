//! A throw-away Linux guest under QEMU that runs one script, with NBD exports as its disks.
//!
//! ```ignore
//! let guest = Guest::new("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt && echo here > /mnt/file");
//! let said = guest.disk(&uri).launch()?.wait()?;
//! ```
//!
//! The guest has Debian's kernel and, read-only under an overlay, the host's root: every tool of
//! the host runs in it. It is emulated and needs no KVM. So it boots in some ten to thirty seconds,
//! and its speed means nothing.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::skip::{self, SkipReason};
use crate::tool::Tool;
use crate::uri::{Endpoint, NbdUri};

/// The longest life of a guest; an emulated one is slow on a busy machine.
const GUEST_TIME_MAX: Duration = Duration::from_secs(600);

/// Time for which a guest's disk waits for an absent server before its requests fail.
const RECONNECT_SECONDS: u32 = 120;

/// Builds the kernel and the initramfs.
const PREPARE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/prepare.sh");

/// A guest to be launched.
#[derive(Debug)]
pub struct Guest {
    script: String,
    drives: Vec<NbdUri>,
    memory_mib: u32,
}

/// A running guest.
#[derive(Debug)]
pub struct RunningGuest {
    process: Process,
    dir: TempDir,
}

/// Checks that guests can run here, and builds their kernel and initramfs once.
///
/// # Errors
/// The reason to skip.
pub fn available() -> Result<(), SkipReason> {
    skip::have_all(&["qemu-system-x86_64", "busybox", "cpio", "depmod"])?;
    let prepared = Tool::new(PREPARE).arg(cache_dir()).run();
    prepared.map(drop).map_err(|error| SkipReason::new(format!("no guest kernel: {error}")))
}

impl Guest {
    /// Makes a guest that runs `script` (bash, as root) and powers off.
    pub fn new(script: impl Into<String>) -> Guest {
        Guest { script: script.into(), drives: Vec::new(), memory_mib: 1024 }
    }

    /// Adds an NBD export as its next disk: /dev/vda, /dev/vdb, ….
    #[must_use]
    pub fn disk(mut self, uri: &NbdUri) -> Guest {
        self.drives.push(uri.clone());
        self
    }

    /// Boots it.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn launch(self) -> io::Result<RunningGuest> {
        let dir = tempfile::Builder::new().prefix("skerry-guest").tempdir()?;
        let initrd = dir.path().join("initrd");
        let mut file = File::create(&initrd)?;
        let base_bytes = io::copy(&mut File::open(cache_dir().join("base.cpio.gz"))?, &mut file)?;
        // The kernel looks for the next archive at a multiple of four bytes; gzip ends anywhere.
        file.set_len(base_bytes.next_multiple_of(4))?;
        file.seek(io::SeekFrom::End(0))?;
        file.write_all(&cpio("g.cmd", self.script.as_bytes()))?;
        let process = Process::spawn(&mut self.command(&initrd, dir.path()))?;
        Ok(RunningGuest { process, dir })
    }

    fn command(&self, initrd: &Path, dir: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        let words = "-accel tcg,thread=multi -cpu max -machine q35,usb=off,vmport=off -smp 1 \
            -nodefaults -no-user-config -display none -no-reboot -netdev user,id=n0 \
            -device virtio-net-pci,netdev=n0,romfile= -device virtio-rng-pci \
            -device virtio-serial-pci -chardev stdio,id=o,signal=off \
            -device virtserialport,chardev=o,name=g.out \
            -device virtserialport,chardev=r,name=g.rc \
            -fsdev local,id=hr,path=/,security_model=none,readonly=on,multidevs=remap \
            -device virtio-9p-pci,fsdev=hr,mount_tag=hostroot";
        // The kernel trusts the emulated clock and skips steps that only cost time here.
        let append = "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check \
            random.trust_cpu=on mitigations=off";
        command.arg("-chardev").arg(path_option("file,id=r,path=", &dir.join("rc")));
        command.args(words.split_ascii_whitespace());
        command.arg("-m").arg(format!("{}M", self.memory_mib));
        command.arg("-serial").arg(path_option("file:", &dir.join("console")));
        command.arg("-kernel").arg(cache_dir().join("vmlinuz")).arg("-initrd").arg(initrd);
        command.arg("-append").arg(append);
        for (number, uri) in self.drives.iter().enumerate() {
            let id = format!("d{number}");
            let server = match &uri.endpoint {
                Endpoint::Unix(path) => {
                    format!("file.server.type=unix,file.server.path={}", path.display())
                }
                Endpoint::Tcp(address) => format!(
                    "file.server.type=inet,file.server.host={},file.server.port={}",
                    address.ip(),
                    address.port()
                ),
            };
            let export = &uri.export;
            command.arg("-drive").arg(format!(
                "driver=raw,file.driver=nbd,{server},file.export={export},\
                 file.reconnect-delay={RECONNECT_SECONDS},\
                 if=none,id={id},cache=none,discard=unmap,detect-zeroes=off"
            ));
            command.arg("-device").arg(format!("virtio-blk-pci,drive={id},serial={id}"));
        }
        command
    }
}

impl RunningGuest {
    /// Waits until the script prints the line `wanted`.
    ///
    /// # Errors
    /// When the guest ends, or prints nothing for too long.
    pub fn wait_line(&self, wanted: &str) -> io::Result<()> {
        self.process.wait_line(|line| line == wanted).map(drop)
    }

    /// Kills the guest, as a power cut would.
    ///
    /// # Errors
    /// When the guest does not end.
    pub fn kill(self) -> io::Result<()> {
        self.process.kill().map(drop)
    }

    /// Waits until the guest has powered off. Returns the output of its script.
    ///
    /// # Errors
    /// When the script failed, or the guest did not reach its end; the error holds the output.
    pub fn wait(self) -> io::Result<String> {
        let status = self.process.wait_within(GUEST_TIME_MAX)?;
        let read = |name: &str| std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        let code = String::from_utf8_lossy(&read("rc")).trim().to_owned();
        let said = self.process.stdout_tail();
        if code == "0" {
            return Ok(said);
        }
        let what = if code.is_empty() {
            "left no status".to_owned()
        } else {
            format!("exited with {code}")
        };
        Err(io::Error::other(format!(
            "the guest's script {what} (QEMU {status}):\n{said}--- QEMU ---\n{}--- console ---\n{}",
            self.process.stderr_tail(),
            String::from_utf8_lossy(&read("console"))
        )))
    }
}

/// The directory that keeps the kernel and the initramfs from run to run.
fn cache_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("skerry-guest")
}

fn path_option(prefix: &str, path: &Path) -> String {
    format!("{prefix}{}", path.display())
}

/// An archive in cpio's "newc" form with one file; the kernel takes several archives in a row.
fn cpio(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    cpio_entry(&mut archive, name, 0o100_755, content);
    cpio_entry(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

fn cpio_entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let fields = [1, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    archive.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    archive.extend(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}
