//! Real file systems on a volume, at native speed: nbdfuse and a loop device make a disk of the
//! export. They need root.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_testkit::mount::{self, LoopDisk};
use skerry_testkit::tool::Tool;
use skerry_testkit::{NodeSettings, require, seed, skip};

type Outcome = Result<(), Box<dyn Error>>;

/// Largest size of the bucket after a file system was made on a huge thin volume, in bytes.
const MKFS_BUCKET_BYTES_MAX: u64 = 64 << 20;

#[test]
fn ext4_is_made_used_and_clean() -> Outcome {
    use_file_system("ext4", &["mkfs.ext4", "-q"], &["e2fsck", "-fn"])
}

#[test]
fn xfs_is_made_used_and_clean() -> Outcome {
    use_file_system("xfs", &["mkfs.xfs", "-q"], &["xfs_repair", "-n"])
}

#[test]
fn btrfs_is_made_used_and_clean() -> Outcome {
    use_file_system("btrfs", &["mkfs.btrfs", "-q"], &["btrfs", "check", "--readonly"])
}

/// Makes a file system, fills it, kills the node once everything is synced, and finds it clean and
/// complete. Then does the same with a snapshot's clone.
fn use_file_system(kind: &str, mkfs: &[&str], fsck: &[&str]) -> Outcome {
    let test = format!("{kind}_is_made_used_and_clean");
    require!(&test, mount::available());
    require!(&test, skip::have(mkfs[0]));
    let node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    let uri = node.create("disk", "1G", &[])?;
    let mut rng = StdRng::seed_from_u64(seed(&test));

    let mut disk = LoopDisk::attach(&uri)?;
    tool(mkfs).arg(disk.device()).run()?;
    let point = disk.mount(kind)?;
    let mut files = BTreeMap::new();
    churn(&point, &mut files, &mut rng)?;
    disk.unmount()?;
    let mut disk = reattach(disk, &uri)?;
    compare(&disk.mount(kind)?, &files)?;
    churn(&disk.mount_point(), &mut files, &mut rng)?;
    disk.detach()?;

    let node = node.kill()?.start()?;
    let mut disk = LoopDisk::attach(&uri)?;
    tool(fsck).arg(disk.device()).run()?;
    compare(&disk.mount(kind)?, &files)?;
    disk.detach()?;
    node.cli(&["snapshot", "create", "disk@end"])?;
    node.cli(&["volume", "clone", "disk@end", "copy"])?;
    let copy = LoopDisk::attach(&uri.with_export("copy"))?;
    tool(fsck).arg(copy.device()).run()?;
    Ok(copy.detach()?)
}

fn reattach(disk: LoopDisk, uri: &skerry_testkit::NbdUri) -> io::Result<LoopDisk> {
    disk.detach()?;
    LoopDisk::attach(uri)
}

fn tool(words: &[&str]) -> Tool {
    words[1..].iter().fold(Tool::new(words[0]), |tool, word| tool.arg(word))
}

/// Creates, overwrites, renames and deletes files of all sizes, and records the wanted state.
fn churn(root: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>, rng: &mut StdRng) -> io::Result<()> {
    for number in 0..400 {
        let folder = PathBuf::from(format!("d{}", rng.random_range(0..8)));
        fs::create_dir_all(root.join(&folder))?;
        let name = folder.join(format!("f{}", rng.random_range(0..60)));
        match rng.random_range(0..10) {
            0..7 => {
                let mut content = vec![0; 1 << rng.random_range(0..20)];
                rng.fill_bytes(&mut content);
                fs::write(root.join(&name), &content)?;
                files.insert(name, content);
            }
            7..9 if files.contains_key(&name) => {
                let to = folder.join(format!("r{number}"));
                fs::rename(root.join(&name), root.join(&to))?;
                if let Some(content) = files.remove(&name) {
                    files.insert(to, content);
                }
            }
            _ if files.contains_key(&name) => {
                fs::remove_file(root.join(&name))?;
                files.remove(&name);
            }
            _ => {}
        }
    }
    Ok(())
}

fn compare(root: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> Outcome {
    for (name, content) in files {
        if fs::read(root.join(name))? != *content {
            return Err(format!("{} differs", name.display()).into());
        }
    }
    Ok(())
}

#[test]
fn ext4_on_a_huge_thin_volume_leaves_a_small_bucket() -> Outcome {
    require!("ext4_on_a_huge_thin_volume", mount::available());
    require!("ext4_on_a_huge_thin_volume", skip::have("mkfs.ext4"));
    let node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    let uri = node.create("huge", "15T", &[])?;
    let disk = LoopDisk::attach(&uri)?;
    Tool::new("mkfs.ext4").words("-q -E discard").arg(disk.device()).run()?;
    Tool::new("e2fsck").words("-fn").arg(disk.device()).run()?;
    disk.detach()?;
    let settings = node.stop()?; // which destages everything
    let held = tree_bytes(&settings.data().join("bucket"))?;
    assert!(held < MKFS_BUCKET_BYTES_MAX, "the bucket holds {held} bytes");
    Ok(())
}

fn tree_bytes(folder: &Path) -> io::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        total += if meta.is_dir() { tree_bytes(&entry.path())? } else { meta.len() };
    }
    Ok(total)
}
