//! The clients that people use, against a node: QEMU's tools, libnbd's, fio.
//!
//! Each test starts a node of its own. A missing tool skips its tests, visibly.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use skerry_testkit::nbd::Request;
use skerry_testkit::tool::Tool;
use skerry_testkit::{NbdClient, NbdUri, NodeSettings, Process, SkerryNode, require, scale, skip};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const EPERM: u32 = 1;
const EIO: u32 = 5;

fn node() -> io::Result<SkerryNode> {
    NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()
}

/// An image with data, zeroes and holes, the same each time.
fn image(dir: &TempDir, bytes: usize) -> io::Result<PathBuf> {
    let mut content = vec![0; bytes];
    let mut state = 1u64;
    for (number, piece) in content.chunks_mut(64 * KIB).enumerate() {
        if number % 3 == 1 {
            continue;
        }
        for byte in piece {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
    }
    let path = dir.path().join("image.raw");
    std::fs::write(&path, content)?;
    Ok(path)
}

fn qemu_io(uri: &NbdUri, commands: &[&str]) -> io::Result<String> {
    let tool = Tool::new("qemu-io").words("-f raw");
    let tool = commands.iter().fold(tool, |tool, command| tool.arg("-c").arg(command));
    let said = tool.arg(uri.to_string()).run()?;
    // For a pattern that is not there, qemu-io only prints a message.
    if said.contains("Pattern verification failed") {
        return Err(io::Error::other(said));
    }
    Ok(said)
}

#[test]
fn qemu_img_converts_compares_and_maps() -> Outcome {
    require!("qemu_img_converts_compares_and_maps", skip::have("qemu-img"));
    let (node, dir) = (node()?, TempDir::new()?);
    let raw = image(&dir, 20 * MIB + 512)?;
    let uri = node.create("disk", &(20 * MIB + 512).to_string(), &[])?;
    let compare = |uri: &NbdUri| {
        Tool::new("qemu-img").words("compare -f raw -F raw").arg(&raw).arg(uri.to_string()).run()
    };
    Tool::new("qemu-img").words("convert -n -f raw -O raw").arg(&raw).arg(uri.to_string()).run()?;
    compare(&uri)?;

    let map = Tool::new("qemu-img").words("map --output=json -f raw").arg(uri.to_string()).run()?;
    let map: Value = serde_json::from_str(&map)?;
    let extents = map.as_array().ok_or("the map is no list")?;
    let is_zero = |at: u64| {
        extents.iter().any(|extent| {
            let start = extent["start"].as_u64().unwrap_or(0);
            let end = start + extent["length"].as_u64().unwrap_or(0);
            (start..end).contains(&at) && extent["zero"] == true
        })
    };
    assert!(!is_zero(0) && !is_zero(128 * KIB as u64), "data is mapped as zeroes: {map}");
    assert!(is_zero(64 * KIB as u64), "zeroes are mapped as data: {map}");

    // From a qcow2 image, and back into one.
    let qcow2 = dir.path().join("image.qcow2");
    Tool::new("qemu-img")
        .words("convert -O qcow2 -f raw")
        .arg(uri.to_string())
        .arg(&qcow2)
        .run()?;
    let copy = node.create("copy", &(20 * MIB + 512).to_string(), &[])?;
    Tool::new("qemu-img").words("convert -n -O raw").arg(&qcow2).arg(copy.to_string()).run()?;
    compare(&copy)?;
    node.stop()?.start()?;
    Ok(())
}

#[test]
fn qemu_img_bench_runs_with_flushes() -> Outcome {
    require!("qemu_img_bench_runs_with_flushes", skip::have("qemu-img"));
    let node = node()?;
    let uri = node.create("disk", "256M", &[])?.to_string();
    let bench = || Tool::new("qemu-img").words("bench -f raw -t none -d 16");
    bench().words("-c 5000 -s 4096 -w --flush-interval=100").arg(&uri).run()?;
    bench().words("-c 1000 -s 65536 -S 69632").arg(&uri).run()?;
    Ok(())
}

/// Bytes at any place, by raw messages: as nbdfuse and clients that negotiate no block sizes send
/// them.
#[test]
fn any_bytes_can_be_written_and_read() -> Outcome {
    let node = node()?;
    let mut client = NbdClient::connect(&node.create("disk", "1M", &[])?)?;
    let mut wanted = (0..8192u32).map(|i| (i / 7) as u8).collect::<Vec<_>>();
    client.write(0, &wanted)?;
    client.write(5, b"hello")?;
    wanted[5..10].copy_from_slice(b"hello");
    client.write(510, &[7; 5000])?;
    wanted[510..5510].fill(7);
    client.call(Request::Zero { offset: 1001, length: 77 })?;
    wanted[1001..1078].fill(0);
    assert!(client.read(0, 8192)? == wanted);
    assert_eq!(client.read(3, 9)?, wanted[3..12]);
    client.flush()?;
    let node = node.stop()?.start()?;
    let mut client = NbdClient::connect(&node.uri("disk"))?;
    assert_eq!(client.read(1000, 100)?, wanted[1000..1100]);
    node.stop()?;
    Ok(())
}

/// The node is stopped and started again, as for an upgrade, under a client that waits for it: no
/// request may fail.
#[test]
fn a_restart_is_no_error_for_a_client_that_reconnects() -> Outcome {
    require!("a_restart_is_no_error_for_a_client_that_reconnects", skip::have("qemu-img"));
    let mut node = node()?;
    node.create("disk", "256M", &[])?;
    for (depth, count) in [("1", "20000"), ("16", "100000"), ("64", "100000")] {
        let socket = node.settings().data().join("nbd.sock");
        let image = format!(
            "driver=nbd,server.type=unix,server.path={},export=disk,reconnect-delay=240",
            socket.display()
        );
        let mut bench = Command::new("qemu-img");
        bench.args(["bench", "-t", "none", "-w", "-s", "4096", "-d", depth, "-c", count]);
        let bench = Process::spawn(bench.args(["--image-opts", &image]))?;
        while node.json(&["volume", "show", "disk"])?["undestaged_bytes"] == 0 {
            assert!(bench.is_running(), "it ended early: {}", bench.stderr_tail());
        }
        let settings = node.stop()?;
        assert!(bench.is_running(), "it failed or ended at the stop: {}", bench.stderr_tail());
        node = settings.start()?;
        let status = bench.wait()?;
        assert!(status.success(), "depth {depth}: {}", bench.stderr_tail());
        node = node.stop()?.start()?;
    }
    Ok(())
}

#[test]
fn qemu_io_reads_what_it_wrote_at_every_alignment() -> Outcome {
    require!("qemu_io_reads_what_it_wrote", skip::have("qemu-io"));
    let node = node()?;
    let uri = node.create("disk", "10486272", &[])?; // 10 MiB and one sector
    let checks = [
        "read -P 0x11 0 512",
        "read -P 0x22 512 512",
        "read -P 0x11 1k 3k",
        "read -P 0x33 4608 1k",
        "read -P 0x11 5632 10752",
        "read -P 0 16k 512",
        "read -P 0x11 16896 15k",
        "read -P 0 32k 8k",
        "read -P 0x11 40k 24k",
        "read -P 0x44 69535 3",
        "read -P 0x55 10485760 512",
        "read -P 0x66 2M 1M",
        "read -P 0 3M 64k",
    ];
    qemu_io(
        &uri,
        &[
            "write -P 0x11 0 64k",
            "write -P 0x22 512 512",
            "write -P 0x33 4608 1k",
            "write -z 16k 512",
            "discard 32k 8k",
            "write -P 0x44 69535 3",
            "write -f -P 0x55 10485760 512",
            "aio_write -P 0x66 2M 1M",
            "aio_flush",
            "flush",
        ],
    )?;
    qemu_io(&uri, &checks)?;
    let node = node.kill()?.start()?;
    qemu_io(&uri, &checks)?;
    let past_the_end = qemu_io(&uri, &["write -P 1 10M 4k"]);
    assert!(past_the_end.is_err(), "a write past the end succeeded");
    drop(node);
    Ok(())
}

#[test]
fn nbdinfo_sees_sizes_flags_contexts_and_exports() -> Outcome {
    require!("nbdinfo_sees", skip::have("nbdinfo"));
    let node = node()?;
    let uri = node.create("disk", "64M", &[])?;
    node.create("other", "1M", &["--block-size", "64K"])?;
    node.cli(&["snapshot", "create", "disk@first"])?;
    let info = |uri: &NbdUri, flags: &str| -> Result<Value, Box<dyn Error>> {
        let said = Tool::new("nbdinfo").words("--json").words(flags).arg(uri.to_string()).run()?;
        Ok(serde_json::from_str(&said)?)
    };
    let export = info(&uri, "")?["exports"][0].clone();
    assert_eq!(export["export-size"], 64 << 20, "{export}");
    assert_eq!(export["block_size_minimum"], 512);
    assert_eq!(export["block_size_preferred"], 4096);
    assert_eq!(export["block_size_maximum"], 32 << 20);
    for flag in ["can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_cache"] {
        assert_eq!(export[flag], true, "{flag}: {export}");
    }
    assert_eq!(export["is_read_only"], false);
    assert_eq!(export["contexts"][0], "base:allocation");
    let snapshot = info(&uri.with_export("disk@first"), "")?["exports"][0].clone();
    assert_eq!(snapshot["is_read_only"], true);

    let list = info(&uri, "--list")?;
    let names: Vec<&str> = list["exports"]
        .as_array()
        .ok_or("no exports")?
        .iter()
        .filter_map(|export| export["export-name"].as_str())
        .collect();
    for name in ["disk", "other"] {
        assert!(names.contains(&name), "{names:?}");
    }
    NbdClient::connect(&uri)?.write(MIB as u64, &[7; 4096])?;
    let map = Tool::new("nbdinfo").words("--map --json").arg(uri.to_string()).run()?;
    let map: Value = serde_json::from_str(&map)?;
    let at = map.as_array().ok_or("no map")?.iter().find(|extent| extent["offset"] == MIB);
    let extent = at.ok_or("no extent begins where the data does")?;
    assert_eq!((&extent["type"], &extent["length"]), (&Value::from(0), &Value::from(4096)));
    Ok(())
}

#[test]
fn nbdcopy_copies_in_and_out_over_several_connections() -> Outcome {
    require!("nbdcopy_copies", skip::have("nbdcopy"));
    let (node, dir) = (node()?, TempDir::new()?);
    let raw = image(&dir, 32 * MIB)?;
    let uri = node.create("disk", "32M", &[])?;
    let copy = node.create("copy", "32M", &[])?;
    let back = dir.path().join("back.raw");
    let nbdcopy = || Tool::new("nbdcopy").words("--connections=4 --requests=16");
    nbdcopy().words("--flush").arg(&raw).arg(uri.to_string()).run()?;
    nbdcopy().arg(uri.to_string()).arg(copy.to_string()).run()?;
    nbdcopy().arg(copy.to_string()).arg(&back).run()?;
    assert!(std::fs::read(raw)? == std::fs::read(back)?, "the copy differs");
    Ok(())
}

#[test]
fn fio_verifies_with_several_jobs() -> Outcome {
    require!("fio_verifies_with_several_jobs", skip::have("fio"));
    let node = node()?;
    let uri = node.create("disk", "256M", &[])?.to_string();
    let seconds = scale("SKERRY_FIO_SECONDS", 10);
    let fio = |name: &str, words: &str| {
        Tool::new("fio")
            .words("--ioengine=nbd --thread --group_reporting --verify=crc32c --verify_fatal=1")
            .words("--size=64M --offset_increment=64M --numjobs=4 --time_based")
            .words("--do_verify=1 --verify_state_save=0 --verify_backlog=256 --randrepeat=0")
            .arg(format!("--name={name}"))
            .arg(format!("--runtime={seconds}"))
            .arg(format!("--uri={uri}"))
            .words(words)
            .run()
    };
    fio("small", "--rw=randwrite --bs=4k --iodepth=16")?;
    fio("mixed", "--rw=randrw --bsrange=512-128k --bs_unaligned=0 --blockalign=512 --iodepth=8")?;
    fio("sequential", "--rw=write --bs=1M --iodepth=4 --fsync=32")?;
    Ok(())
}

#[test]
fn libnbd_drives_every_command() -> Outcome {
    require!("libnbd_drives_every_command", skip::have("nbdsh"));
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        skip!("libnbd_drives_every_command", "there is no Debian python3, which libnbd is for");
    }
    let node = node()?;
    let uri = node.create("disk", "64M", &[])?.to_string();
    let script = r#"
import errno, nbd, sys
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
assert h.get_structured_replies_negotiated() and h.can_meta_context("base:allocation")
h.pwrite(b"a" * 65536, 0)
h.pwrite(b"b" * 512, 512, nbd.CMD_FLAG_FUA)
assert h.pread(1024, 0) == b"a" * 512 + b"b" * 512
h.trim(4096, 4096, nbd.CMD_FLAG_FUA)
h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE)
h.zero(4096, 12288, nbd.CMD_FLAG_FUA)
assert h.pread(12288, 4096) == bytes(12288)
if h.can_fast_zero():
    h.zero(1 << 20, 1 << 20, nbd.CMD_FLAG_FAST_ZERO)
h.cache(65536, 0)
h.flush()
seen = []
h.block_status(64 << 20, 0, lambda context, offset, entries, error: seen.append((offset, entries)) or 0)
offset, entries = seen[0]
assert offset == 0 and sum(entries[0::2]) <= 64 << 20 and entries[1] == 0, seen
def refused(wanted, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errnum == wanted, (error.errnum, wanted)
    else:
        raise AssertionError("it was not refused")
h.set_strict_mode(0)
refused(errno.EINVAL, h.pread, 4096, 64 << 20)
refused(errno.ENOSPC, h.pwrite, b"c" * 4096, (64 << 20) - 512)
assert h.pread(100, 7) == b"a" * 100  # bytes at any place
assert h.pread(512, 0) == b"a" * 512  # it serves on
other = nbd.NBD()
other.connect_uri(sys.argv[1])
h.pwrite(b"d" * 4096, 32768)
other.flush()
assert other.pread(4096, 32768) == b"d" * 4096
"#;
    Tool::new("/usr/bin/python3").arg("-c").arg(script).arg(uri).run()?;
    Ok(())
}

#[test]
fn a_snapshot_is_an_export_that_keeps_its_state_and_takes_no_writes() -> Outcome {
    let node = node()?;
    let uri = node.create("disk", "64M", &[])?;
    let mut disk = NbdClient::connect(&uri)?;
    disk.write(0, &[1; 8192])?;
    node.cli(&["snapshot", "create", "disk@first"])?;
    disk.write(0, &[2; 4096])?;
    let mut snapshot = NbdClient::connect(&uri.with_export("disk@first"))?;
    assert!(snapshot.info().is_read_only());
    assert_eq!(snapshot.read(0, 8192)?, [1; 8192]);
    assert!(snapshot.write(0, &[3; 4096]).is_err_and(|error| error.is_refused_with(EPERM)));
    assert_eq!(disk.read(0, 4096)?, [2; 4096]);

    node.cli(&["volume", "clone", "disk@first", "copy"])?;
    let mut copy = NbdClient::connect(&uri.with_export("copy"))?;
    copy.write(4096, &[4; 4096])?;
    copy.flush()?;
    assert_eq!(copy.read(0, 8192)?, [[1; 4096], [4; 4096]].concat());
    assert_eq!(snapshot.read(0, 8192)?, [1; 8192]);
    let diff = node
        .json(&["snapshot", "create", "disk@second"])
        .and_then(|_| node.json(&["snapshot", "diff", "disk@first", "disk@second"]))?;
    assert_eq!(diff, serde_json::json!([{"offset": 0, "length": 4096, "zero": false}]));
    Ok(())
}

#[test]
fn a_rollback_waits_for_writers_to_go_unless_it_is_forced() -> Outcome {
    let node = node()?;
    let uri = node.create("disk", "64M", &[])?;
    let mut disk = NbdClient::connect(&uri)?;
    disk.write(0, &[1; 4096])?;
    node.cli(&["snapshot", "create", "disk@good"])?;
    disk.write(0, &[2; 4096])?;
    node.settings().cli(&["volume", "rollback", "disk@good"])?.refused(5)?;
    assert_eq!(disk.read(0, 4096)?, [2; 4096]);
    let said = node.cli(&["volume", "rollback", "disk@good", "--force"])?;
    assert!(disk.read(0, 4096).is_err(), "a connection from before the rollback still reads");

    let mut disk = NbdClient::connect(&uri)?;
    assert_eq!(disk.read(0, 4096)?, [1; 4096]);
    let snapshots = node.json(&["snapshot", "list", "disk"])?;
    let names = snapshots.as_array().ok_or("no list")?.iter();
    let kept = names.filter_map(|snapshot| snapshot["name"].as_str()).find(|name| *name != "good");
    let kept = kept.ok_or("the state before the rollback was not kept")?;
    assert!(said.contains(kept), "the name {kept} is not printed: {said}");
    let mut before = NbdClient::connect(&uri.with_export(format!("disk@{kept}")))?;
    assert_eq!(before.read(0, 4096)?, [2; 4096]);
    Ok(())
}

#[test]
fn a_new_size_is_seen_by_new_connections() -> Outcome {
    let node = node()?;
    let uri = node.create("disk", "64M", &[])?;
    let mut old = NbdClient::connect(&uri)?;
    old.write((64 << 20) - 4096, &[1; 4096])?;
    node.cli(&["volume", "resize", "disk", "128M"])?;
    let mut new = NbdClient::connect(&uri)?;
    assert_eq!(new.info().size_bytes, 128 << 20);
    new.write(100 << 20, &[2; 4096])?;
    old.flush()?;
    drop((old, new));
    node.settings().cli(&["volume", "resize", "disk", "32M"])?.refused(6)?;
    node.cli(&["volume", "resize", "disk", "32M", "--shrink"])?;
    node.cli(&["volume", "resize", "disk", "128M"])?;
    let mut again = NbdClient::connect(&uri)?;
    assert_eq!(again.read((64 << 20) - 4096, 4096)?, [0; 4096], "shrinking did not forget");
    assert_eq!(again.read(100 << 20, 4096)?, [0; 4096], "shrinking did not forget");
    Ok(())
}

/// After `volume rollback --force` and `volume release --force` a connection stays, and every
/// request of it fails. A client with a closed connection would connect again, and go on with
/// another state.
#[test]
fn a_volume_changed_by_force_answers_its_clients_with_errors() -> Outcome {
    let node = node()?;
    let uri = node.create("disk", "64M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &[1; 4096])?;
    node.cli(&["snapshot", "create", "disk@one"])?;
    for by_force in [["rollback", "disk@one"], ["release", "disk"]] {
        client.write(0, &[2; 4096])?;
        node.cli(&["volume", by_force[0], by_force[1], "--force"])?;
        let data = &[3; 4096];
        for fua in [false, true] {
            for request in [
                Request::Read { offset: 0, length: 4096 },
                Request::Write { offset: 0, data, fua },
                Request::Trim { offset: 0, length: 4096 },
                Request::Zero { offset: 0, length: 4096 },
                Request::Flush,
            ] {
                let outcome = client.call(request);
                let is_refused = outcome.as_ref().is_err_and(|e| e.is_refused_with(EIO));
                assert!(is_refused, "{by_force:?}, {request:?}: {outcome:?}");
            }
        }
        client = NbdClient::connect(&uri)?;
    }
    assert_eq!(client.read(0, 4096)?, [2; 4096], "the last write before the release");
    Ok(())
}

/// QEMU repeats unanswered requests on a new connection, but not if a rollback undid them.
#[test]
fn qemu_does_not_go_on_with_a_volume_that_was_rolled_back() -> Outcome {
    require!("qemu_does_not_go_on_with_a_volume_that_was_rolled_back", skip::have("qemu-io"));
    let node = node()?;
    let uri = node.create("disk", "64M", &[])?;
    node.cli(&["snapshot", "create", "disk@one"])?;
    let socket = node.settings().data().join("nbd.sock");
    let image = format!(
        "driver=nbd,server.type=unix,server.path={},export=disk,reconnect-delay=240",
        socket.display()
    );
    let mut qemu =
        Process::spawn(Command::new("qemu-io").args(["-t", "none", "--image-opts", &image]))?;
    let mut input = qemu.take_stdin().ok_or("qemu-io has no input")?;
    writeln!(input, "write -P 2 0 4k")?;
    qemu.wait_line(|line| line.contains("wrote 4096"))?;
    node.cli(&["volume", "rollback", "disk@one", "--force"])?;
    writeln!(input, "write -P 3 4k 4k")?;
    let said = qemu.wait_line(|line| line.contains("wrote") || line.contains("failed"))?;
    assert!(said.contains("Input/output error"), "{said}");
    drop(input);
    qemu.wait()?;
    assert_eq!(
        NbdClient::connect(&uri)?.read(0, 8192)?,
        [0; 8192],
        "it wrote on what it does not know"
    );
    Ok(())
}

#[test]
fn volumes_are_served_over_tcp_too() -> Outcome {
    let settings = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?;
    let node = settings.arg("--nbd").arg("127.0.0.1:0").start()?;
    node.create("disk", "64M", &[])?;
    let address = node.ready().nbd_tcp.ok_or("the ready line names no TCP address")?;
    let mut disk = NbdClient::connect(&NbdUri::tcp(address, "disk"))?;
    disk.write(0, &[1; 4096])?;
    disk.flush()?;
    disk.disconnect();
    assert_eq!(NbdClient::connect(&node.uri("disk"))?.read(0, 4096)?, [1; 4096]);
    Ok(())
}

#[test]
fn import_and_export_keep_every_byte() -> Outcome {
    let (node, dir) = (node()?, TempDir::new()?);
    let raw = image(&dir, 20 * MIB + 512)?;
    let back = dir.path().join("back.raw");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    node.cli(&["import", &text(&raw), "disk"])?;
    node.cli(&["export", "disk", &text(&back)])?;
    assert!(std::fs::read(raw)? == std::fs::read(back)?, "what was exported differs");
    Ok(())
}

#[test]
fn the_system_s_usual_limit_of_open_files_is_no_limit() -> Outcome {
    require!("the_system_s_usual_limit_of_open_files_is_no_limit", skip::have("prlimit"));
    let settings = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?;
    let node = settings.wrapper(&["prlimit", "--nofile=64:4096"]).start()?;
    let uri = node.create("disk", "64M", &[])?;
    let clients: io::Result<Vec<_>> = (0..100).map(|_| NbdClient::connect(&uri)).collect();
    for client in &mut clients? {
        client.read(0, 4096)?;
    }
    Ok(())
}
