//! A node as a process of its host: its files' permissions, its log lines, and signals.

use std::error::Error;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use skerry_testkit::s3_faults::{Call, Fault};
use skerry_testkit::{BadS3, NbdClient, NodeSettings, Process};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// Until the test ends it.
const EVER: u64 = u64::MAX;

fn node(dir: &TempDir) -> NodeSettings {
    NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), dir.path().join("data"))
}

/// Runs a shell's line before the node, in the same process.
fn after(settings: NodeSettings, line: &str) -> NodeSettings {
    settings.wrapper(&["sh", "-c", &format!("{line}; exec \"$@\""), "sh"])
}

/// Gives a directory and everything below it.
fn tree(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(tree(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    Ok(found)
}

/// Every place of guests' data. The settings' own directories lie where all users get in.
#[test]
fn nobody_else_may_read_what_a_node_writes() -> Outcome {
    let dir = TempDir::new()?;
    let [log, cache, bucket] = ["log", "cache", "bucket"].map(|name| dir.path().join(name));
    let config = dir.path().join("skerry.toml");
    fs::write(&config, format!("[cache]\ndir = {cache:?}\n"))?;
    let settings = node(&dir).arg("--log").arg(&log).arg("--config").arg(config);
    let node = after(settings, "umask 022").start()?;
    let uri = node.create("disk", "4M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &[1; 64 << 10])?;
    client.flush()?;
    drop(client);
    let settings = node.stop()?;
    let mut looked_at = 0;
    for root in [settings.data(), &log] {
        for path in tree(root)? {
            let mode = fs::symlink_metadata(&path)?.mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
            looked_at += 1;
        }
    }
    assert!(looked_at > 10, "{looked_at} files");
    let jobs = dir.path().join("jobs");
    let config = dir.path().join("other.toml");
    fs::write(&config, format!("[database]\nbackend = \"fs\"\npath = {jobs:?}\n"))?;
    let settings = NodeSettings::new(settings.bin(), dir.path().join("other"));
    let settings = settings.bucket_dir(&bucket).arg("--config").arg(config);
    after(settings, "umask 022").start()?.stop()?;
    assert_eq!(fs::metadata(&jobs)?.mode() & 0o777, 0o700, "it has jobs' payloads");
    assert_eq!(fs::metadata(&bucket)?.mode() & 0o777, 0o700, "a node made it");
    Ok(())
}

/// Once, the nodes of other users could not read what the first node wrote.
#[test]
fn a_bucket_that_several_users_share_is_as_open_as_they_want() -> Outcome {
    let dir = TempDir::new()?;
    let [log, bucket] = ["log", "bucket"].map(|name| dir.path().join(name));
    fs::create_dir(&bucket)?;
    fs::set_permissions(&bucket, fs::Permissions::from_mode(0o2770))?;
    let settings = node(&dir).arg("--log").arg(&log).bucket_dir(&bucket);
    let node = after(settings, "umask 002").start()?;
    let uri = node.create("disk", "4M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &[1; 64 << 10])?;
    client.flush()?;
    drop(client);
    let settings = node.stop()?;
    for path in tree(&bucket)? {
        let (found, mode) = (fs::metadata(&path)?, fs::metadata(&path)?.mode());
        let group = if found.is_dir() { 0o070 } else { 0o060 };
        assert_eq!(mode & group, group, "{}: {mode:o}", path.display());
    }
    for dir in [settings.data(), &log] {
        assert_eq!(fs::metadata(dir)?.mode() & 0o777, 0o700, "{}", dir.display());
    }
    for file in tree(&log)?.iter().filter(|path| path.extension().is_some_and(|e| e == "log")) {
        assert_eq!(fs::metadata(file)?.mode() & 0o777, 0o600, "{}", file.display());
    }
    Ok(())
}

/// With a closed terminal, a dead reader or a full disk the node goes on without its lines.
#[test]
fn a_node_that_can_not_write_its_lines_serves_and_stops_well() -> Outcome {
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let config = dir.path().join("skerry.toml");
    fs::write(&config, "[jobs]\nenabled = false\n[destage]\ndirty_age_s = 1\n")?;
    let settings = node(&dir).arg("--bucket").arg("s3://things/p").arg("--config").arg(config);
    let settings = server.options().into_iter().fold(settings, |settings, (name, value)| {
        settings.env(format!("AWS_{}", name.to_ascii_uppercase()), value)
    });
    let node = after(settings, "exec 2>/dev/full").start()?;
    let uri = node.create("disk", "4M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    server.fail(Call::Write, Fault::Refuse(503, "SlowDown"), EVER);
    client.write(0, &[1; 4096])?;
    client.flush()?;
    // The first failure is logged, and the volume stays in service.
    server.wait_failed(4)?;
    server.mend();
    let mut other = NbdClient::connect(&uri)?;
    assert_eq!(other.read(0, 4096)?, [1; 4096]);
    assert_eq!(node.json(&["status"])?["parked"], serde_json::json!([]));
    node.stop()?;
    Ok(())
}

/// Once, the node did not end before the reader of standard error went on.
#[test]
fn a_node_that_ends_with_an_error_waits_for_no_reader() -> Outcome {
    let dir = TempDir::new()?;
    let running = node(&dir).start()?;
    let (_reader, writer) = rustix::pipe::pipe()?;
    let mut full = fs::File::from(writer);
    full.write_all(&vec![b'x'; rustix::pipe::fcntl_getpipe_size(&full)?])?;
    let stderr = format!("/proc/{}/fd/{}", std::process::id(), full.as_raw_fd());
    let (code, _) = after(node(&dir), &format!("exec 2>{stderr}")).start_refused()?;
    assert_eq!(code, 5, "the data directory is in use");
    running.stop()?;
    Ok(())
}

/// Once, the command ended at once, and the next import heard that there is a volume.
#[test]
fn an_import_that_is_interrupted_says_what_it_leaves() -> Outcome {
    let dir = TempDir::new()?;
    let image = dir.path().join("image");
    fs::write(&image, vec![7; 128 << 20])?;
    let node = node(&dir).start()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_skerry"));
    command.arg("--data").arg(node.settings().data()).arg("import").arg(&image).arg("disk");
    let importing = Process::spawn(&mut command)?;
    while !node.json(&["volume", "list"])?.to_string().contains("disk.importing") {
        assert!(importing.is_running(), "{}", importing.stderr_tail());
    }
    // So that the image does not end before.
    node.process().signal(Signal::STOP);
    importing.signal(Signal::INT);
    node.process().signal(Signal::CONT);
    let status = importing.wait_drained()?;
    let said = importing.stderr_tail();
    assert_eq!(status.code(), Some(7), "{said}");
    assert!(said.contains("interrupted") && said.contains("nothing is left"), "{said}");
    fs::write(&image, [7; 4096])?;
    node.cli(&["import", &image.to_string_lossy(), "disk"])?;
    node.stop()?;
    Ok(())
}

/// The terminal of `skerry serve &` is closed.
#[test]
fn the_end_of_its_terminal_is_an_order_to_stop() -> Outcome {
    let dir = TempDir::new()?;
    let settings = node(&dir).arg("--no-log");
    let running = settings.start()?;
    let mut client = NbdClient::connect(&running.create("disk", "4M", &[])?)?;
    client.write(0, &[1; 4096])?;
    // The shell sends one, and so does the kernel.
    for _ in 0..20 {
        running.process().signal(Signal::HUP);
        std::thread::yield_now();
    }
    let status = running.process().wait_drained()?;
    assert!(status.success(), "{status}");
    let again = settings.start()?;
    assert_eq!(NbdClient::connect(&again.uri("disk"))?.read(0, 4096)?, [1; 4096]);
    Ok(())
}

/// Started as `nohup` does.
#[test]
fn a_node_that_is_to_outlive_its_terminal_does() -> Outcome {
    let dir = TempDir::new()?;
    let running = after(node(&dir), "trap '' HUP").start()?;
    running.process().signal(Signal::HUP);
    running.json(&["status"])?;
    running.stop()?;
    Ok(())
}

/// As systemd starts it, by `Type=notify`.
#[test]
fn a_service_manager_hears_that_the_node_is_ready_and_that_it_stops() -> Outcome {
    let dir = TempDir::new()?;
    let address = dir.path().join("notify");
    let manager = UnixDatagram::bind(&address)?;
    // What is said waits in the socket.
    manager.set_nonblocking(true)?;
    let heard = || -> io::Result<String> {
        let mut bytes = [0; 4096];
        let count = manager.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
    };
    let running = node(&dir).env("NOTIFY_SOCKET", &address).start()?;
    assert!(heard()?.starts_with("STATUS=starting"));
    running.stop()?;
    let ready = heard()?;
    assert!(ready.starts_with("READY=1\nSTATUS=ready nbd=unix:"), "{ready}");
    let stopping = heard()?;
    assert!(stopping.starts_with("STOPPING=1\nSTATUS="), "{stopping}");
    Ok(())
}

/// Once, the first log line of a node on a terminal was one about a missing feature of the program.
#[test]
fn a_node_on_a_terminal_says_nothing_about_its_features() -> Outcome {
    // It ends as soon as it may log.
    let command = format!("{} serve --data /proc/nowhere", env!("CARGO_BIN_EXE_skerry"));
    let ran = Command::new("script").args(["-qec", &command, "/dev/null"]).output()?;
    let said = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.status.code(), Some(7), "{said}");
    assert!(said.starts_with("skerry: /proc/nowhere can't be created"), "{said}");
    Ok(())
}
