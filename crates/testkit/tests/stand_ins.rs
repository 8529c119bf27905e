//! Tests of the kit against servers that are known to be good. The kit must work with them before
//! it can judge a node of Skerry.

use std::error::Error;
use std::sync::Arc;

use skerry_testkit::guest::{self, Guest};
use skerry_testkit::history::Image;
use skerry_testkit::load::Ending;
use skerry_testkit::mount::{self, LoopDisk};
use skerry_testkit::stamp::BLOCK_BYTES;
use skerry_testkit::stand_in::Nbdkit;
use skerry_testkit::tool::Tool;
use skerry_testkit::{Bounds, History, Load, LoadSettings, NbdClient, require, skip};

type Outcome = Result<(), Box<dyn Error>>;

const DISK_BYTES: u64 = 64 << 20;

#[test]
fn a_load_on_a_good_disk_leaves_everything_it_wrote() -> Outcome {
    require!("a_load_on_a_good_disk", skip::have("nbdkit"));
    let dir = tempfile::tempdir()?;
    let server = Nbdkit::start(dir.path(), &["memory", "64M"])?;
    let history = Arc::new(History::new(1, DISK_BYTES / BLOCK_BYTES as u64));
    let settings = LoadSettings { requests_max: 5000, ..LoadSettings::busy(1) };
    let endings = Load::start(server.uri(), history.clone(), settings)?.join()?;
    assert_eq!(endings, [Ending::Finished; 2]);
    let image = Image::read(&mut NbdClient::connect(server.uri())?, 1)?;
    let found = history.check(&image, Bounds::EVERYTHING)?;
    assert_eq!(found.included, found.issued);
    assert!(found.acknowledged > 9000, "{found:?}");

    // The image is refused as soon as one more write was promised.
    let late = history.issue(0, skerry_testkit::history::Kind::Write);
    history.acknowledge(late, true);
    assert!(history.check(&image, Bounds::SYNCED).is_err());
    Ok(())
}

#[test]
fn a_server_that_goes_away_under_load_is_a_loss_and_one_that_refuses_is_not() -> Outcome {
    require!("a_server_that_goes_away", skip::have("nbdkit"));
    let dir = tempfile::tempdir()?;
    let history = Arc::new(History::new(2, DISK_BYTES / BLOCK_BYTES as u64));
    let server = Nbdkit::start(dir.path(), &["memory", "64M"])?;
    let load = Load::start(server.uri(), history.clone(), LoadSettings::busy(2))?;
    history.wait_acknowledged(1000)?;
    drop(server);
    for ending in load.join()? {
        // nbdkit answers with ESHUTDOWN while it ends, if it has time.
        assert!(matches!(ending, Ending::Lost | Ending::Refused(108)), "{ending:?}");
    }

    let words = ["--filter=error", "memory", "64M", "error-pwrite=EIO", "error-pwrite-rate=100%"];
    let dir = tempfile::tempdir()?;
    let server = Nbdkit::start(dir.path(), &words)?;
    let settings = LoadSettings { zero_percent: 0, ..LoadSettings::ordered(3) };
    let endings = Load::start(server.uri(), history, settings)?.join()?;
    assert_eq!(endings, [Ending::Refused(5)]);
    Ok(())
}

#[test]
fn a_file_system_on_an_export_keeps_its_files() -> Outcome {
    require!("a_file_system_on_an_export", mount::available());
    require!("a_file_system_on_an_export", skip::have_all(&["nbdkit", "mkfs.ext4"]));
    let dir = tempfile::tempdir()?;
    let server = Nbdkit::start(dir.path(), &["memory", "64M"])?;
    let mut disk = LoopDisk::attach(server.uri())?;
    Tool::new("mkfs.ext4").arg("-q").arg(disk.device()).run()?;
    let point = disk.mount("ext4")?;
    std::fs::write(point.join("file"), "kept")?;
    disk.detach()?;
    let mut disk = LoopDisk::attach(server.uri())?;
    assert_eq!(std::fs::read_to_string(disk.mount("ext4")?.join("file"))?, "kept");
    Ok(disk.detach()?)
}

#[test]
fn a_guest_uses_an_export_as_its_disk() -> Outcome {
    require!("a_guest_uses_an_export", skip::have_all(&["nbdkit", "mkfs.ext4"]));
    require!("a_guest_uses_an_export", guest::available());
    let dir = tempfile::tempdir()?;
    let server = Nbdkit::start(dir.path(), &["memory", "64M"])?;
    let script = "set -e; mkfs.ext4 -q /dev/vda; mount /dev/vda /mnt; echo hi > /mnt/f; cat /mnt/f";
    let said = Guest::new(script).disk(server.uri()).launch()?.wait()?;
    assert_eq!(said, "hi\n");
    let failed = Guest::new("echo trouble; exit 3").launch()?.wait().unwrap_err().to_string();
    assert!(failed.contains("exited with 3") && failed.contains("trouble"), "{failed}");
    Ok(())
}
