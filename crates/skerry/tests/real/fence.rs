//! Nodes that must not both write, buckets that are denied or go away, and the proof that a sync
//! comes before its acknowledgement.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use skerry_testkit::nbd::Request;
use skerry_testkit::{NbdClient, NodeSettings, require, skip};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const IN_USE: i32 = 5;
const FENCED: i32 = 9;
const UNAVAILABLE: i32 = 7;

fn settings() -> io::Result<NodeSettings> {
    NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))
}

/// Two nodes, each with a data directory of its own, over one bucket.
fn pair() -> io::Result<(TempDir, NodeSettings, NodeSettings)> {
    let bucket = TempDir::new()?;
    let (one, two) = (settings()?.bucket_dir(bucket.path()), settings()?.bucket_dir(bucket.path()));
    Ok((bucket, one, two))
}

fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

#[test]
fn a_stale_writer_at_level_bucket_is_fenced() -> Outcome {
    stale_writer("bucket")
}

#[test]
fn a_stale_writer_at_level_local_is_fenced() -> Outcome {
    stale_writer("local")
}

/// The owner is suspended, and another node takes its volume by force and writes. Then the owner
/// wakes up, with requests waiting for it, and may neither acknowledge a write nor serve stale
/// data.
fn stale_writer(flush: &str) -> Outcome {
    let (_bucket, one, two) = pair()?;
    let first = one.start()?;
    let uri = first.create("disk", "64M", &["--flush", flush])?;
    let mut stale = NbdClient::connect(&uri)?;
    stale.write(0, &[1; 4096])?;
    stale.flush()?;
    let mut cached = NbdClient::connect(&uri)?;
    assert_eq!(cached.read(0, 4096)?, [1; 4096]);

    first.process().suspend();
    let second = two.start()?;
    let said = second.cli(&["volume", "release", "disk", "--force"])?;
    assert!(!said.trim().is_empty(), "the release does not say what may be lost");
    let mut fresh = NbdClient::connect(&second.uri("disk"))?;
    fresh.write(0, &[2; 4096])?;
    fresh.flush()?;

    // These wait in the sockets when the owner wakes up.
    stale.submit(1, Request::Write { offset: 0, data: &[3; 4096], fua: true })?;
    cached.submit(1, Request::Read { offset: 0, length: 4096 })?;
    first.process().resume();
    if let Ok(reply) = stale.next_reply() {
        assert!(reply.result.is_err(), "a stale writer acknowledged a write");
    }
    if let Ok(reply) = cached.next_reply()
        && let Ok(data) = reply.result
    {
        assert!(data == [2; 4096], "a stale owner served {:?}", &data[..4]);
    }
    assert_eq!(fresh.read(0, 4096)?, [2; 4096]);

    // Another start does not help: undestaged records stay apart.
    let first = first.kill()?.start()?;
    let mut late = NbdClient::connect(&first.uri("disk"))?;
    assert!(late.write(0, &[4; 4096]).is_err(), "a fenced node writes after its restart");
    fresh.write(4096, &[5; 4096])?;
    fresh.flush()?;
    assert_eq!(fresh.read(0, 8192)?, [[2; 4096], [5; 4096]].concat());
    Ok(())
}

#[test]
fn a_node_that_does_not_hold_a_volume_names_the_holder_and_writes_nothing() -> Outcome {
    let (_bucket, one, two) = pair()?;
    let first = one.start()?;
    let mut writer = NbdClient::connect(&first.create("disk", "64M", &["--flush", "bucket"])?)?;
    writer.write(0, &[1; 4096])?;
    writer.flush()?;
    let second = two.start()?;
    let mut reader = NbdClient::connect(&second.uri("disk"))?;
    assert!(reader.info().is_read_only());
    assert_eq!(reader.read(0, 4096)?, [1; 4096]);
    assert!(reader.write(0, &[2; 4096]).is_err());
    let said = two.cli(&["snapshot", "create", "disk@no"])?.refused(FENCED)?;
    assert!(said.contains(&host_name()?), "the holder isn't named: {said}");
    assert_eq!(writer.read(0, 4096)?, [1; 4096]);
    Ok(())
}

#[test]
fn a_second_node_on_the_same_data_directory_is_refused_and_told_who_holds_it() -> Outcome {
    let settings = settings()?;
    let first = settings.start()?;
    let (code, said) = settings.start_refused()?;
    assert!([IN_USE, UNAVAILABLE].contains(&code), "exit {code}: {said}");
    let pid = first.process().pid().to_string();
    assert!(said.contains(&pid) || said.contains(&host_name()?), "it isn't told: {said}");
    first.create("disk", "64M", &[])?; // and the first is none the worse for it
    Ok(())
}

#[test]
fn a_bucket_that_is_denied_is_named_and_writes_wait_in_the_log() -> Outcome {
    require!("a_bucket_that_is_denied", skip::have("setpriv"));
    if !rustix::process::geteuid().is_root() {
        skip!("a_bucket_that_is_denied", "it needs root, to run the node as somebody else");
    }
    let dir = TempDir::new()?;
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    open(dir.path(), 0o755)?;
    let (bin, data, bucket) =
        (dir.path().join("skerry"), dir.path().join("data"), dir.path().join("bucket"));
    fs::copy(settings()?.bin(), &bin)?;
    for path in [&data, &bucket] {
        fs::create_dir(path)?;
        open(path, 0o777)?;
    }
    let node = NodeSettings::new(&bin, &data).with_bin(&bin).bucket_dir(&bucket).wrapper(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
    open(&bucket, 0o000)?;
    let (code, said) = node.start_refused()?;
    assert_eq!(code, UNAVAILABLE, "{said}");
    assert!(said.contains("bucket"), "the bucket isn't named: {said}");

    open(&bucket, 0o777)?;
    let running = node.start()?;
    let uri = running.create("disk", "64M", &["--flush", "local"])?;
    let mut disk = NbdClient::connect(&uri)?;
    disk.write(0, &[1; 4096])?;
    disk.flush()?;
    open(&bucket, 0o000)?;
    disk.write(4096, &[2; 4096])?;
    disk.flush()?;
    assert_eq!(disk.read(0, 8192)?, [[1; 4096], [2; 4096]].concat());
    open(&bucket, 0o777)?;
    drop(disk);
    let running = running.kill()?.start()?;
    assert_eq!(NbdClient::connect(&uri)?.read(0, 8192)?, [[1; 4096], [2; 4096]].concat());
    running.stop()?;
    Ok(())
}

/// The cookie of the requests whose answers are looked for in the trace: it prints as it is.
const COOKIE: &str = "SkPr00f!";

/// The bucket's directory goes away, as when its disk is unmounted. Nothing is made in the
/// directory at its place then, and writes wait in the log.
#[test]
fn a_bucket_whose_directory_goes_away_is_missed_and_nothing_is_lost() -> Outcome {
    let dir = TempDir::new()?;
    let (bucket, away) = (dir.path().join("bucket"), dir.path().join("away"));
    let node = settings()?.bucket_dir(&bucket).start()?;
    let uri = node.create("disk", "64M", &[])?;
    let mut disk = NbdClient::connect(&uri)?;
    disk.write(0, &[1; 4096])?;
    disk.flush()?;
    for (is_replaced, before) in [(false, "disk@one"), (true, "disk@back")] {
        // A snapshot brings all writes into the bucket. An object that is just being made when the
        // directory goes would be made in a new one.
        node.cli(&["snapshot", "create", before])?;
        while node.json(&["volume", "show", "disk"])?["undestaged_bytes"] != 0 {}
        fs::rename(&bucket, &away)?;
        if is_replaced {
            fs::create_dir(&bucket)?;
        }
        let block = 1 + u64::from(is_replaced);
        disk.write(block * 4096, &[2; 4096])?;
        disk.flush()?;
        for words in [&["volume", "list"][..], &["volume", "show", "other"], &["fsck"]] {
            let said = node.settings().cli(words)?.refused(UNAVAILABLE)?;
            assert!(said.contains("is its disk mounted"), "{words:?}: {said}");
        }
        // Destaging is tried, too.
        let said = node.settings().cli(&["snapshot", "create", &format!("disk@at-{block}")])?;
        assert!(said.code() == 0 || said.code() == UNAVAILABLE, "{said:?}");
        if is_replaced {
            // Only an object that was just being made when the directory went may be there.
            let made: Vec<_> = fs::read_dir(&bucket)?.collect::<Result<_, _>>()?;
            assert!(made.len() <= 1, "made in another directory: {made:?}");
            fs::remove_dir_all(&bucket)?;
        } else {
            assert!(!bucket.exists(), "the bucket's directory was made anew");
        }
        fs::rename(&away, &bucket)?;
    }
    node.cli(&["snapshot", "create", "disk@two"])?;
    node.cli(&["fsck"])?;
    let node = node.stop()?.start()?;
    let mut disk = NbdClient::connect(&node.uri("disk"))?;
    assert_eq!(disk.read(0, 4096)?, [1; 4096]);
    assert_eq!(disk.read(4096, 8192)?, [2; 8192]);
    Ok(())
}

/// After a clean stop the log has nothing that would be lost with a bucket that is gone.
#[test]
fn a_node_with_a_bucket_in_memory_starts_again_after_a_clean_stop() -> Outcome {
    let settings = settings()?.arg("--bucket").arg("memory://");
    let node = settings.start()?;
    let mut disk = NbdClient::connect(&node.create("disk", "64M", &[])?)?;
    disk.write(0, &[1; 4096])?;
    disk.flush()?;
    drop(disk);
    let node = node.stop()?.start()?;
    assert_eq!(node.json(&["volume", "list"])?.as_array().map(Vec::len), Some(0));
    let mut disk = NbdClient::connect(&node.create("disk", "64M", &[])?)?;
    disk.write(0, &[1; 4096])?;
    disk.flush()?;
    drop(disk);
    let (code, said) = node.kill()?.start_refused()?;
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("ends with its node"), "{said}");
    Ok(())
}

#[test]
fn the_log_syncs_before_it_acknowledges() -> Outcome {
    require!("the_log_syncs_before_it_acknowledges", skip::have("strace"));
    let (trace, data) = trace_one_flush("local", &[], 4096)?;
    let log = data.join("log");
    let between = trace.between_request_and_reply()?;
    let synced = between.iter().rposition(|line| {
        (line.contains("fdatasync(") || line.contains("fsync(")) && line.contains(&path_of(&log))
    });
    assert!(synced.is_some(), "no sync of the log before the answer:\n{}", between.join("\n"));
    Ok(())
}

#[test]
fn the_local_bucket_syncs_file_and_directory_before_it_acknowledges() -> Outcome {
    require!("the_local_bucket_syncs", skip::have("strace"));
    // Small objects and large ones are put in different ways.
    bucket_syncs(4096)?;
    bucket_syncs(2 << 20)
}

fn bucket_syncs(len: usize) -> Outcome {
    let (trace, data) = trace_one_flush("bucket", &["--no-log"], len)?;
    let bucket = path_of(&data.join("bucket"));
    let between = trace.between_request_and_reply()?;
    let all = || between.join("\n");
    let placed = between.iter().rposition(|line| {
        (line.contains("link(") || line.contains("linkat(") || line.contains("rename"))
            && line.contains(&bucket)
    });
    let placed =
        placed.ok_or_else(|| format!("no object was put before the answer:\n{}", all()))?;
    let is_sync = |line: &&String| line.contains("sync(") && line.contains(&bucket);
    assert!(
        between[..placed].iter().any(|line| is_sync(&line)),
        "the file isn't synced:\n{}",
        all()
    );
    assert!(between[placed..].iter().any(|line| is_sync(&line)), "its directory isn't:\n{}", all());
    Ok(())
}

/// The system calls of a node, in the order in which they ended.
struct Trace {
    lines: Vec<String>,
}

impl Trace {
    /// The calls that ended after the request was received and before its answer was begun.
    fn between_request_and_reply(&self) -> Result<&[String], Box<dyn Error>> {
        let has_cookie = |line: &&String| line.contains(COOKIE);
        let asked = self.lines.iter().position(|line| has_cookie(&line));
        let asked = asked.ok_or("the request isn't in the trace")?;
        let answered = self.lines.iter().rposition(|line| has_cookie(&line));
        let answered = answered.filter(|at| *at > asked).ok_or("the answer isn't in the trace")?;
        Ok(&self.lines[asked..answered])
    }

    /// Joins each call that another thread's call interrupted with its end. A sync then stands
    /// where it ended, as it only counts when it is done. Any other call stands where it began,
    /// except a receive or a read.
    fn parse(text: &str) -> Trace {
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let Some(rest) = call.trim().strip_prefix("<... ") else {
                lines.push(line.to_owned());
                continue;
            };
            let end = rest.split_once("resumed>").map_or("", |(_, end)| end);
            let begun = lines.iter().rposition(|line| {
                line.split_once(' ').is_some_and(|(other, _)| other == thread)
                    && line.ends_with("<unfinished ...>")
            });
            let Some(begun) = begun else { continue };
            let whole = lines[begun].replace("<unfinished ...>", end);
            if whole.contains("sync(") || whole.contains("recv") || whole.contains("read") {
                lines.remove(begun);
                lines.push(whole);
            } else {
                lines[begun] = whole;
            }
        }
        Trace {
            lines: lines.into_iter().filter(|line| !line.ends_with("<unfinished ...>")).collect(),
        }
    }
}

fn path_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Runs a node under strace, writes `len` incompressible bytes, flushes with the cookie, and ends
/// it.
fn trace_one_flush(
    flush: &str,
    args: &[&str],
    len: usize,
) -> Result<(Trace, PathBuf), Box<dyn Error>> {
    let dir = TempDir::new()?;
    let file = path_of(&dir.path().join("trace"));
    // -D keeps the node the test's own child; -y shows which file a descriptor is.
    let calls = "trace=fsync,fdatasync,link,linkat,rename,renameat,renameat2,read,readv,recvfrom,\
        recvmsg,write,writev,sendto,sendmsg";
    let strace = ["strace", "-D", "-f", "-y", "-s", "256", "-o", &file, "-e", calls];
    let settings = args.iter().fold(settings()?, |settings, arg| settings.arg(*arg));
    let node = settings.wrapper(&strace).start()?;
    let uri = node.create("disk", "64M", &["--flush", flush])?;
    let mut client = NbdClient::connect(&uri)?;
    let mut state = 1u64;
    let noise = (0..len).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    client.write(0, &noise.collect::<Vec<u8>>())?;
    client.submit(u64::from_be_bytes(*b"SkPr00f!"), Request::Flush)?;
    client.next_reply()?.result.map_err(|errno| format!("the flush was refused: {errno}"))?;
    client.disconnect();
    let data = node.settings().data().to_path_buf();
    node.stop()?;
    Ok((Trace::parse(&fs::read_to_string(&file)?), data))
}
