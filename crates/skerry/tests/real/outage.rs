//! A store that fails for a while under a node and its clients: no client sees an error, and
//! nothing goes out of service.

use std::error::Error;
use std::io;
use std::thread;

use skerry_testkit::s3_faults::{Call, Fault};
use skerry_testkit::{BadS3, NbdClient, NodeSettings};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// Unit of compression and of fetching, bytes.
const FRAME: usize = 64 << 10;
/// Exit code of a start that is refused because the bucket fails.
const UNAVAILABLE: i32 = 7;
/// Calls that fail until the test mends the store.
const EVER: u64 = u64::MAX;
/// Calls that fail before the store is mended: more than the bucket's door makes by itself.
const CALLS: u64 = 12;

const FAULTS: [Fault; 7] = [
    Fault::Refuse(503, "SlowDown"),
    Fault::Refuse(403, "RequestTimeTooSkewed"),
    Fault::Refuse(403, "AccessDenied"),
    Fault::Refuse(400, "ExpiredToken"),
    Fault::Refuse(404, "NoSuchBucket"),
    Fault::CutBody,
    Fault::LoseAnswer,
];

/// A node whose bucket is on the server, and nothing else.
fn settings(server: &BadS3, dir: &TempDir) -> io::Result<NodeSettings> {
    let config = dir.path().join("skerry.toml");
    std::fs::write(&config, "[jobs]\nenabled = false\n[destage]\ndirty_age_s = 1\n")?;
    let settings = NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), dir.path().join("data"));
    let settings = settings.arg("--bucket").arg("s3://things/p").arg("--config").arg(config);
    Ok(server.options().into_iter().fold(settings, |settings, (name, value)| {
        settings.env(format!("AWS_{}", name.to_ascii_uppercase()), value)
    }))
}

/// Bytes that don't compress, others for each seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_client_waits_for_every_fault_that_can_pass() -> Outcome {
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let settings = settings(&server, &dir)?;
    let node = settings.start()?;
    let uri = node.create("disk", "4M", &[])?;
    let all = noise(1, FAULTS.len() * FRAME);
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &all)?;
    client.flush()?;
    drop(client);
    node.stop()?;
    std::fs::remove_dir_all(dir.path().join("data/cache"))?;

    let node = settings.start()?;
    let mut client = NbdClient::connect(&uri)?;
    // Backwards, so that no reading ahead happens.
    for (number, fault) in FAULTS.into_iter().enumerate().rev() {
        let offset = number * FRAME;
        let before = server.failed();
        server.fail(Call::Read, fault, EVER);
        let reading = thread::spawn(move || {
            let read = client.read(offset as u64, FRAME as u32);
            (client, read)
        });
        server.wait_failed(before + CALLS)?;
        server.mend();
        let (back, read) = reading.join().map_err(|_| "the reader panicked")?;
        client = back;
        assert!(read? == all[offset..offset + FRAME], "{fault:?}");
    }
    node.stop()?;
    Ok(())
}

/// A small write waits for the rest of its block, which the store claims not to have; it has
/// nothing else either.
#[test]
fn a_bucket_that_was_away_takes_no_volume_out_of_service() -> Outcome {
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let settings = settings(&server, &dir)?;
    let node = settings.start()?;
    let uri = node.create("disk", "4M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    client.write(0, &noise(2, FRAME))?;
    client.flush()?;
    drop(client);
    node.stop()?;
    std::fs::remove_dir_all(dir.path().join("data/cache"))?;

    let node = settings.start()?;
    let mut client = NbdClient::connect(&uri)?;
    fail_all(&server, Fault::Refuse(404, "NoSuchBucket"));
    client.write(512, &[2; 512])?;
    client.flush()?;
    server.wait_failed(2 * CALLS)?;
    let told = node.json(&["status"])?;
    assert!(
        told["bucket_failure"].as_str().is_some_and(|text| text.contains("not there")),
        "{told}"
    );
    server.mend();
    client.write(8192, &[3; 512])?;
    client.flush()?;
    let mut other = NbdClient::connect(&uri)?;
    assert_eq!(other.read(512, 512)?, vec![2; 512]);
    assert_eq!(node.json(&["status"])?["parked"], serde_json::json!([]));
    node.stop()?;
    let node = settings.start()?;
    assert_eq!(NbdClient::connect(&uri)?.read(8192, 512)?, vec![3; 512]);
    node.stop()?;
    Ok(())
}

const CALL_KINDS: [Call; 4] = [Call::Read, Call::Write, Call::List, Call::Delete];

/// A node with a flushed write that is in its log alone, killed while its bucket fails.
fn killed_without_bucket(
    server: &BadS3,
    dir: &TempDir,
    fault: Fault,
) -> Result<NodeSettings, Box<dyn Error>> {
    let node = settings(server, dir)?.start()?;
    let uri = node.create("disk", "4M", &[])?;
    let mut client = NbdClient::connect(&uri)?;
    fail_all(server, fault);
    client.write(0, &[1; 4096])?;
    client.flush()?;
    Ok(node.kill()?)
}

fn fail_all(server: &BadS3, fault: Fault) {
    for call in CALL_KINDS {
        server.fail(call, fault, EVER);
    }
}

/// A node that has used its bucket before starts when the bucket is back, whatever the store's
/// errors were.
#[test]
fn a_node_waits_for_its_bucket_at_the_start() -> Outcome {
    for fault in [Fault::Refuse(503, "SlowDown"), Fault::Refuse(403, "AccessDenied")] {
        let (server, dir) = (BadS3::start()?, TempDir::new()?);
        let settings = killed_without_bucket(&server, &dir, fault)?;
        let (before, starts) = (server.failed(), settings.clone());
        let starting = thread::spawn(move || starts.start());
        server.wait_failed(before + CALLS)?;
        server.mend();
        let node = starting.join().map_err(|_| "the start panicked")??;
        assert_eq!(NbdClient::connect(&settings.uri("disk"))?.read(0, 4096)?, vec![1; 4096]);
        node.stop()?;
    }
    Ok(())
}

#[test]
fn a_node_that_waits_for_its_bucket_says_so_and_ends_when_it_is_told() -> Outcome {
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let settings = killed_without_bucket(&server, &dir, Fault::Refuse(503, "SlowDown"))?;
    let before = server.failed();
    let process = settings.spawn()?;
    server.wait_failed(before + CALLS)?;
    assert!(process.is_running());
    // Commands are answered at once, with what the start waits for.
    for command in [&["status"][..], &["volume", "list"]] {
        let said = settings.cli(command)?.refused(UNAVAILABLE)?;
        assert!(said.contains("is starting: it waits for its bucket"), "{said}");
    }
    assert!(process.terminate()?.success());
    let said = process.stderr_tail();
    assert_eq!(said.matches("waits for its bucket").count(), 1, "{said}");
    Ok(())
}

/// An outage is logged, and fills no disk with lines, however many volumes and calls fail.
#[test]
fn an_outage_is_a_few_lines() -> Outcome {
    const VOLUMES: usize = 3;
    /// Lines of the outage itself, and one of each kind of failure.
    const LINES_MAX: usize = 12;
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let node = settings(&server, &dir)?.start()?;
    let mut clients = Vec::new();
    for number in 0..VOLUMES {
        clients.push(NbdClient::connect(&node.create(&format!("disk-{number}"), "4M", &[])?)?);
    }
    let lines = |text: &str| text.lines().count();
    let before = lines(&node.process().stderr_tail());
    for call in [Call::Write, Call::List, Call::Delete] {
        server.fail(call, Fault::Refuse(503, "SlowDown"), EVER);
    }
    for round in 0..4 {
        for client in &mut clients {
            client.write(round * 4096, &[1; 4096])?;
            client.flush()?;
        }
        server.wait_failed((round + 1) * VOLUMES as u64 * CALLS)?;
    }
    let said = node.process().stderr_tail();
    let told = lines(&said) - before;
    assert!((1..=LINES_MAX).contains(&told), "{told} lines: {said}");
    server.mend();
    drop(clients);
    node.stop()?;
    Ok(())
}

/// A wrong address, key or name is reported at once.
#[test]
fn a_bucket_that_fails_when_it_is_first_used_is_an_error() -> Outcome {
    for (status, code) in [(503, "SlowDown"), (403, "AccessDenied"), (404, "NoSuchBucket")] {
        let (server, dir) = (BadS3::start()?, TempDir::new()?);
        fail_all(&server, Fault::Refuse(status, code));
        let (exit, said) = settings(&server, &dir)?.start_refused()?;
        assert_eq!(exit, UNAVAILABLE, "{said}");
        assert!(said.contains("bucket"), "{said}");
    }
    Ok(())
}
