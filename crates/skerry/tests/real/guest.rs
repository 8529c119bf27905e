//! A Linux guest under QEMU has a volume as its disk.

use std::error::Error;

use skerry_testkit::guest::{self, Guest};
use skerry_testkit::mount::{self, LoopDisk};
use skerry_testkit::tool::Tool;
use skerry_testkit::{NodeSettings, require, scale, skip};

type Outcome = Result<(), Box<dyn Error>>;

/// Writes numbered files, each synced before it is announced, until something ends it.
const BUSY: &str = "set -e
mount /dev/vda /mnt
for i in $(seq 1 100000); do
  dd if=/dev/urandom of=/mnt/$RANDOM bs=4k count=$((RANDOM % 64)) status=none
  echo $i > /mnt/synced-$i; sync -f /mnt
  echo synced-$i
done";

#[test]
fn a_guest_that_is_killed_leaves_a_clean_file_system() -> Outcome {
    require!("a_guest_that_is_killed", guest::available());
    require!("a_guest_that_is_killed", mount::available());
    require!("a_guest_that_is_killed", skip::have("mkfs.ext4"));
    let node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    let uri = node.create("disk", "1G", &[])?;
    Guest::new("mkfs.ext4 -q /dev/vda").disk(&uri).launch()?.wait()?;
    for round in 1..=scale("SKERRY_GUEST_KILLS", 1) {
        let guest = Guest::new(BUSY).disk(&uri).launch()?;
        guest.wait_line("synced-10")?;
        guest.kill()?;
        let mut disk = LoopDisk::attach(&uri)?;
        // The first check replays the journal, as a mount would; the second must find nothing.
        Tool::new("e2fsck").words("-p").arg(disk.device()).output()?;
        Tool::new("e2fsck").words("-fn").arg(disk.device()).run()?;
        let point = disk.mount("ext4")?;
        for number in 1..=10 {
            let content = std::fs::read_to_string(point.join(format!("synced-{number}")))
                .map_err(|error| format!("round {round}: synced-{number}: {error}"))?;
            assert_eq!(content.trim(), number.to_string());
        }
        disk.detach()?;
    }
    Ok(())
}

#[test]
fn a_guest_does_not_notice_that_its_node_was_killed_and_started_again() -> Outcome {
    require!("a_guest_does_not_notice", guest::available());
    let node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    let uri = node.create("disk", "1G", &[])?;
    let script = "set -e
mkfs.ext4 -q /dev/vda; mount /dev/vda /mnt
for i in $(seq 1 200); do echo $i > /mnt/$i; sync -f /mnt; echo wrote-$i; done
umount /mnt; e2fsck -fn /dev/vda >&2; mount /dev/vda /mnt; cat /mnt/200";
    let guest = Guest::new(script).disk(&uri).launch()?;
    guest.wait_line("wrote-20")?;
    let node = node.kill()?.start()?;
    let said = guest.wait()?;
    assert_eq!(said.lines().last(), Some("200"), "{said}");
    drop(node);
    Ok(())
}
