//! Disks that are full: guests wait until there is room, a node that is killed starts again, and
//! nothing is lost.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skerry_testkit::history::Image;
use skerry_testkit::load::Ending;
use skerry_testkit::skip::SkipReason;
use skerry_testkit::stamp::BLOCK_BYTES;
use skerry_testkit::tool::Tool;
use skerry_testkit::{
    Bounds, History, Load, LoadSettings, NbdClient, NodeSettings, SkerryNode, require, seed, skip,
};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const UNAVAILABLE: i32 = 7;
/// Looks at a node that should report that its disk is full.
const LOOKS_MAX: u32 = 10_000;
/// Time without an acknowledgement after which a load stands still.
const STALL: Duration = Duration::from_secs(5);

/// Checks that a file system of this kind can be made and mounted here.
fn may_mount(kind: &str) -> Result<(), SkipReason> {
    skip::may_mount()?;
    if kind == "tmpfs" { Ok(()) } else { skip::have(&format!("mkfs.{kind}")).map(drop) }
}

/// A small file system of its own, unmounted when dropped.
struct SmallDisk {
    dir: TempDir,
    /// Directory of its image, if it has one.
    _image: Option<TempDir>,
}

impl SmallDisk {
    fn mount(kind: &str, bytes: u64) -> io::Result<SmallDisk> {
        if kind != "tmpfs" {
            return SmallDisk::mount_image(kind, bytes);
        }
        let dir = TempDir::new()?;
        let options = format!("size={bytes}");
        Tool::new("mount").words("-t tmpfs -o").arg(options).arg("none").arg(dir.path()).run()?;
        Ok(SmallDisk { dir, _image: None })
    }

    /// Makes one with a file system of this kind, on a loop device.
    fn mount_image(kind: &str, bytes: u64) -> io::Result<SmallDisk> {
        let (dir, image) = (TempDir::new()?, TempDir::new()?);
        let file = image.path().join("image");
        fs::File::create(&file)?.set_len(bytes)?;
        Tool::new(&format!("mkfs.{kind}")).arg("-q").arg(&file).run()?;
        Tool::new("mount").words("-o loop").arg(&file).arg(dir.path()).run()?;
        Ok(SmallDisk { dir, _image: Some(image) })
    }

    /// A node with its data directory there.
    fn settings(&self) -> NodeSettings {
        NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), self.path().join("data"))
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the space that is left; deleting the file gives it back.
    fn fill(&self) -> io::Result<PathBuf> {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path)?;
        let mut before = None;
        // A file system that copies on write finds more room once its data is on the disk.
        while before != Some(file.metadata()?.len()) {
            before = Some(file.metadata()?.len());
            match io::copy(&mut io::repeat(1), &mut file) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                other => return Err(io::Error::other(format!("the disk did not fill: {other:?}"))),
            }
            let _ = file.sync_all();
        }
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Tool::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[test]
fn guests_wait_for_a_full_disk_on_tmpfs() -> Outcome {
    guests_wait_for_a_full_disk("tmpfs")
}

/// Reserved files keep their room here, and nothing else does.
#[test]
fn guests_wait_for_a_full_disk_on_ext4() -> Outcome {
    guests_wait_for_a_full_disk("ext4")
}

#[test]
fn guests_wait_for_a_full_disk_on_btrfs() -> Outcome {
    guests_wait_for_a_full_disk("btrfs")
}

/// The node's report that it can't write now.
fn failure(node: &SkerryNode) -> io::Result<Option<String>> {
    let status = node.json(&["status"])?;
    let told = ["log_failure", "bucket_failure"].map(|key| status[key].as_str());
    Ok(told.into_iter().flatten().next().map(str::to_owned))
}

fn guests_wait_for_a_full_disk(kind: &str) -> Outcome {
    require!("guests_wait_for_a_full_disk", may_mount(kind));
    let seed = seed("guests_wait_for_a_full_disk");
    let small = SmallDisk::mount(kind, 512 << 20)?;
    let node = small.settings().start()?;
    let uri = node.create("disk", "256M", &[])?;
    let history = Arc::new(History::new(seed, (256 << 20) / BLOCK_BYTES as u64));
    let some = LoadSettings { requests_max: 500, zero_percent: 0, ..LoadSettings::busy(seed) };
    Load::start(&uri, history.clone(), some)?.join()?;
    let filler = small.fill()?;
    let more = LoadSettings { seed: seed + 1, requests_max: u64::MAX, ..some };
    let load = Load::start(&uri, history.clone(), more)?;
    // The load writes until the log is full; how much that is differs.
    let looks = (0..LOOKS_MAX).find_map(|_| failure(&node).transpose());
    let told = looks.ok_or("the node never says that the disk is full")??;
    assert!(told.contains("space") || told.contains("full"), "{told}");
    let stalled = history.wait_acknowledged_within(u64::MAX, STALL);
    assert!(stalled.is_err(), "it goes on without room");
    fs::remove_file(filler)?;
    history.wait_acknowledged(history.acknowledged_count() + 1000)?;
    let endings = load.stop()?;
    assert!(endings.iter().all(|ending| matches!(ending, Ending::Finished)), "{endings:?}");
    let mut client = NbdClient::connect(&uri)?;
    let flush = history.send_flush();
    client.flush()?;
    history.flushed(flush);
    drop(client);
    let node = node.kill()?.start()?;
    let image = Image::read(&mut NbdClient::connect(&uri)?, seed)?;
    history.check(&image, Bounds::SYNCED)?;
    node.cli(&["fsck"])?;
    Ok(())
}

#[test]
fn a_node_that_was_killed_starts_on_its_full_disk() -> Outcome {
    for kind in ["ext4", "tmpfs"] {
        require!("a_node_that_was_killed_starts_on_its_full_disk", may_mount(kind));
        for is_elsewhere in [true, false] {
            starts_on_its_full_disk(kind, is_elsewhere)
                .map_err(|error| format!("{kind}, bucket elsewhere: {is_elsewhere}: {error}"))?;
        }
    }
    Ok(())
}

fn starts_on_its_full_disk(kind: &str, is_elsewhere: bool) -> Outcome {
    let (small, bucket) = (SmallDisk::mount(kind, 512 << 20)?, TempDir::new()?);
    let settings = small.settings();
    let settings = if is_elsewhere { settings.bucket_dir(bucket.path()) } else { settings };
    let mut node = settings.start()?;
    let uri = node.create("disk", "64M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &[1; 4096])?;
    client.flush()?;
    let filler = small.fill()?;
    // Again and again: a start must not use up the next one's room.
    for _ in 0..3 {
        node = node.kill()?.start()?;
        // To open a volume takes an object in the bucket.
        if is_elsewhere {
            assert_eq!(NbdClient::connect(&uri)?.read(0, 4096)?, [1; 4096]);
        }
    }
    fs::remove_file(filler)?;
    let _node = node.stop()?.start()?;
    assert_eq!(NbdClient::connect(&uri)?.read(0, 4096)?, [1; 4096]);
    Ok(())
}

#[test]
fn a_new_node_does_not_start_on_a_full_disk_and_says_so() -> Outcome {
    require!("a_new_node_does_not_start_on_a_full_disk", may_mount("tmpfs"));
    let small = SmallDisk::mount("tmpfs", 16 << 20)?;
    small.fill()?;
    let (code, said) = small.settings().start_refused()?;
    assert_eq!(code, UNAVAILABLE, "{said}");
    assert!(said.contains("space"), "it isn't said that the disk is full: {said}");
    Ok(())
}
